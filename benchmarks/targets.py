"""What the engines for a GPU were made to reach, beside what they were measured to reach.

Times are those of one run of all contenders (`compare` on a GPU), an epoch's and the accuracy's
those of the `ladder`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from benchmarks import ladder, summary
from benchmarks.ladder import Row
from benchmarks.results import Record

RUNG_4 = "cuda_epoch*"


@dataclass(frozen=True)
class Target:
    """What is to be at most `limit`; `measured` gives None where it was not measured."""

    text: str
    limit: float
    measured: Callable[[dict[str, Record]], float | None]


def _ratio(name: str, *others: str) -> Callable[[dict[str, Record]], float | None]:
    """The time of an update of one contender to that of the best of others, by patterns."""

    def measured(records: dict[str, Record]) -> float | None:
        if "compare-cuda" not in records:
            return None
        (point,) = records["compare-cuda"]["points"]
        times = {row.name: summary.median(row) for row in summary.best(point)}
        rivals = [t for n, t in times.items() if any(fnmatchcase(n, other) for other in others)]
        return times[name] / min(rivals) if name in times and rivals else None

    return measured


def _least(
    value: Callable[[Row, Record], float | None],
) -> Callable[[dict[str, Record]], float | None]:
    """The least of a number of the rungs that are of cuda_epoch."""

    def measured(records: dict[str, Record]) -> float | None:
        record = records.get("ladder")
        rows = ladder.rows(record) if record else []
        rung_4 = [value(row, record) for row in rows if record and fnmatchcase(row.name, RUNG_4)]
        return min((number for number in rung_4 if number is not None), default=None)

    return measured


def _epoch(row: Row, record: Record) -> float | None:
    return row.times.wall.median * record["points"][0]["steps"] / 1e3 if row.times else None


def _accurate(row: Row, record: Record) -> float | None:
    times = row.times
    return times.accurate if times and (times.accuracy or 0) >= record["required"] else None


TARGETS = (
    Target(
        "`layers` / PyTorch eager",
        1.0,
        _ratio("scratchnet-layers", "pytorch-default", "pytorch-foreach", "pytorch-fused"),
    ),
    Target(
        "`cuda_graph` / PyTorch's best hand-captured graph",
        0.6,
        _ratio("scratchnet-cuda_graph", "pytorch-graph-*"),
    ),
    Target(
        "`cuda_epoch` / the best of PyTorch and JAX",
        0.25,
        _ratio("scratchnet-cuda_epoch", "pytorch-*", "jax-*"),
    ),
    Target("937 updates of `cuda_epoch`, ms", 8.0, _least(_epoch)),
    Target("GPU time of `cuda_epoch` to 96.1 % accuracy, ms", 15.0, _least(_accurate)),
)
