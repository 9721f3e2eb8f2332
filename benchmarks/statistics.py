"""Medians with their spread, and paired ratios with an interval that assumes no distribution."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Spread:
    """Five numbers of a sample, and its size."""

    least: float
    first_quartile: float
    median: float
    third_quartile: float
    most: float
    count: int

    @property
    def relative(self) -> float:
        """The distance of the quartiles as a share of the median."""
        return (self.third_quartile - self.first_quartile) / self.median


def spread(values: Sequence[float]) -> Spread:
    """Of at least one value; quartiles are interpolated linearly."""
    least, first, median, third, most = map(float, np.quantile(values, [0, 0.25, 0.5, 0.75, 1]))
    return Spread(least, first, median, third, most, len(values))


@dataclass(frozen=True)
class Ratio:
    """The median of paired ratios, and an interval for it.

    level: the probability with which such an interval holds the true median. At least 95 % from six
    pairs on; with fewer even the whole range is less certain, and it is given with its level.
    """

    median: float
    low: float
    high: float
    level: float
    count: int


def paired(times: Mapping[int, float], baseline: Mapping[int, float]) -> Ratio | None:
    """The ratio of two contenders' times within each round in which both took part.

    What slows the machine down in a round slows both, and leaves the ratio. The interval is the
    sign test's: that the k-th smallest of n ratios exceeds the median means that fewer than k are
    below it, which has the probability of fewer than k heads in n throws.

    Args:
        times: seconds by the number of the round; baseline: likewise.

    Returns:
        None if they have no round in common.
    """
    ratios = sorted(times[r] / baseline[r] for r in times.keys() & baseline.keys())
    if not ratios:
        return None
    n, k = len(ratios), 1
    while 2 * _fewer(k + 1, n) <= 1 - CONFIDENCE:
        k += 1
    level = 1 - 2 * _fewer(k, n)
    return Ratio(float(np.median(ratios)), ratios[k - 1], ratios[n - k], level, n)


def _fewer(k: int, n: int) -> float:
    """The probability of fewer than k heads in n throws."""
    return sum(math.comb(n, i) for i in range(k)) / 2**n
