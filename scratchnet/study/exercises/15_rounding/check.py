"""Exercise 15: the sum and the bound are compared, and the judge of sums is judged by sums."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from scratchnet.backend import Array
from scratchnet.study.exercises.checking import Cause, ask, find, judge_by, number, right, wrong
from scratchnet.study.verdicts import Verdict

U = 2.0**-24
SAFE = 4  # a bound that is so many times too wide is still taken; it finds all that is wrong


def terms(x: Array, w: Array) -> Array:
    """x[i] · w[i], exact: the products of two float32 have 48 bits."""
    return x.astype(np.float64) * w.astype(np.float64)


def true_sum(x: Array, w: Array) -> float:
    """The sum in float64."""
    return float(terms(x, w).sum())


def bound(x: Array, w: Array) -> float:
    """D · U · Σ|x w|."""
    return float(len(x) * U * abs(terms(x, w)).sum())


def in_order(x: Array, w: Array) -> np.float32:
    """The sum in float32, from left to right."""
    total = np.float32(0)
    for a, b in zip(x, w, strict=True):
        total = np.float32(total + a * b)
    return total


IN_FLOAT32 = "it is computed in float32: turn x and w into float64 first, and not their sum"
SUM = {
    "in float32": Cause(lambda x, w: float(x @ w), IN_FLOAT32),
    "in float32, term by term": Cause(lambda x, w: float(in_order(x, w)), IN_FLOAT32),
    "in float32, in pairs": Cause(lambda x, w: float(np.sum(x * w)), IN_FLOAT32),
    "products in float32": Cause(
        lambda x, w: float((x * w).astype(np.float64).sum()),
        "the products have been rounded to float32 already: turn x and w into float64 first",
    ),
    "of absolute values": Cause(
        lambda x, w: float(abs(terms(x, w)).sum()),
        "it is the sum of the absolute values; these belong into the bound",
    ),
    "the first term only": Cause(
        lambda x, w: terms(x, w)[0],
        "it is the first term: is the return inside the loop?",
    ),
}
BOUND: dict[str, tuple[Callable[[Array, Array], float], str]] = {
    "of the result": (
        lambda x, w: len(x) * U * abs(true_sum(x, w)),
        "it is a part of the sum, and the sum may be 0: it was its terms that were rounded",
    ),
    "one rounding only": (
        lambda x, w: U * float(abs(terms(x, w)).sum()),
        "it allows for one rounding; how many does a sum of D terms have?",
    ),
    "without U": (
        lambda x, w: len(x) * float(abs(terms(x, w)).sum()),
        "U is missing: each rounding is a part U of what is there",
    ),
    "of float64": (
        lambda x, w: len(x) * 2.0**-53 * float(abs(terms(x, w)).sum()),
        "2**-53 is how float64 rounds; found was computed in float32",
    ),
    "without the terms": (
        lambda x, w: len(x) * U,
        "it does not depend on the numbers: rounding is a part of what is there",
    ),
    "without absolute values": (
        lambda x, w: len(x) * U * true_sum(x, w),
        "the terms cancel in it, and it may be negative: take each one's absolute value first",
    ),
    "of x alone": (
        lambda x, w: len(x) * U * float(abs(x.astype(np.float64)).sum()),
        "it is made without w",
    ),
}


class Sum(NamedTuple):
    """A sum that somebody has computed: how, the result, whether it is right, and is said to be."""

    how: str
    found: Any
    x: Array
    w: Array
    is_right: bool
    said: bool = False

    @property
    def off(self) -> float:
        """How far above the true sum it is."""
        return float(self.found) - true_sum(self.x, self.w)

    def __str__(self) -> str:
        """Such as "False of a sum that is nan, D = 3"."""
        return f"{self.said} of a sum {self.how}, D = {len(self.x)}"


def check(learner: ModuleType, seed: int = 0) -> Iterator[Verdict]:
    """Verdicts on the three functions."""
    rng = np.random.default_rng(seed)
    vectors = [problem(rng, d) for d in (3, 50, 784)]
    ones = np.ones(3, np.float32)
    vectors.append((np.array([2**24, 1, -(2**24)], np.float32), ones))
    yield judge_by("true_sum", find(learner, "true_sum", "x", "w"), true_sum, SUM, vectors)
    yield of_bound(find(learner, "bound", "x", "w"), vectors)
    yield of_judge(find(learner, "is_right", "found", "x", "w"), vectors)


def problem(rng: np.random.Generator, d: int) -> tuple[Array, Array]:
    """Terms that nearly cancel, to a hundredth of them at most; x and w are of both signs."""
    x, w = rng.normal(1.5, 0.3, (2, d)).astype(np.float32)
    rest = float((x[1:].astype(np.float64) * w[1:]).sum())
    x[0], w[0] = np.float32(-rest), np.float32(1 + 0.01 * rng.random())
    signs = np.float32(-1) ** np.arange(d, dtype=np.float32)
    return x * signs, w * signs


def of_bound(mine: Any, vectors: list[tuple[Array, Array]]) -> Verdict:
    """Whether a bound is as wide as rounding may be, and not much wider."""
    if isinstance(mine, Verdict):
        return mine
    found = []
    for x, w in vectors:
        value = ask("bound", mine, x, w)
        if isinstance(value, Verdict):
            return value
        value = number("bound", value)
        if isinstance(value, Verdict):
            return value
        found.append(value)
    ratios = [value / bound(x, w) for value, (x, w) in zip(found, vectors, strict=True)]
    # 1e-3: the absolute values may have been summed in float32, and D · U be D · U / (1 - D · U).
    if all(1 - 1e-3 < ratio < SAFE + 1e-3 for ratio in ratios):
        return right("bound")
    for cause, (formula, message) in BOUND.items():
        expected = [formula(x, w) for x, w in vectors]
        if np.allclose(found, expected, rtol=1e-3, atol=0):
            return wrong("bound", cause, f"bound: {message}")
    low, high = min(ratios), max(ratios)
    if not np.isfinite(ratios).all():
        return wrong("bound", "nan", f"bound is {found[int(np.argmin(np.isfinite(ratios)))]}")
    d = len(vectors[int(np.argmin(ratios))][0])
    if low < 1:
        message = (
            f"bound is {low:.3g} of what it has to be, for D = {d}: what is right may exceed it"
        )
        return wrong("bound", "too narrow", message, ratio=low)
    message = f"bound is {high:.3g} times as wide as rounding can be: what is wrong may hide in it"
    return wrong("bound", "too wide", message, ratio=high)


def sums(x: Array, w: Array) -> Iterator[Sum]:
    """Right sums in several orders, and wrong ones."""
    exact, width = true_sum(x, w), bound(x, w)
    yield Sum("taken from left to right", in_order(x, w), x, w, True)
    yield Sum("taken from right to left", in_order(x[::-1], w[::-1]), x, w, True)
    yield Sum("taken with x @ w", x @ w, x, w, True)
    yield Sum("taken in float64, and then rounded", np.float32(exact), x, w, True)
    yield Sum("off in the last digit of float64", np.nextafter(exact, np.inf), x, w, True)
    yield Sum("just within the bound", exact + 0.99 * width, x, w, True)
    largest = max(terms(x, w), key=abs)
    yield Sum("without its largest term", exact - float(largest), x, w, False)
    yield Sum("with the wrong sign of a term", exact - 2 * abs(float(largest)), x, w, False)
    if abs(exact) > width:
        yield Sum("of the other sign", -exact, x, w, False)
    yield Sum("ten bounds too large", exact + 10 * width, x, w, False)
    yield Sum("ten bounds too small", exact - 10 * width, x, w, False)
    yield Sum("that is nan", np.float32(np.nan), x, w, False)


def of_judge(mine: Any, vectors: list[tuple[Array, Array]]) -> Verdict:
    """Whether right sums are taken for right, and wrong ones for wrong."""
    if isinstance(mine, Verdict):
        return mine
    judged = []
    for each in (each for x, w in vectors for each in sums(x, w)):
        said = ask("is_right", mine, each.found, each.x, each.w)
        if isinstance(said, Verdict):
            return said
        if not isinstance(said, bool | np.bool_):
            message = f"is_right returns {said!r}; expected True or False"
            return wrong("is_right", "results", message)
        judged.append(each._replace(said=bool(said)))
    return cause_of(judged)


def cause_of(judged: list[Sum]) -> Verdict:
    """What the sums that were judged wrongly have in common."""
    wrongly = [each for each in judged if each.said != each.is_right]
    numbers = [each for each in wrongly if not np.isnan(each.found)]
    if not wrongly:
        return right("is_right")
    if not numbers:
        why = "nan compares as False with everything: ask whether it is near, not whether it is far"
        return wrong("is_right", "takes nan", f"is_right says {wrongly[0]}: {why}")
    refused = [each for each in numbers if each.is_right]
    passed = [each for each in numbers if not each.is_right]
    one_side, pair = of_one_side(judged), in_reverse(refused, passed)
    if one_side:
        why = f"it is off {one_side}. Is there an absolute value of the difference?"
        cause, told = "one side only", f"{passed[0]}: {why}"
    elif pair:
        nearer, farther = pair
        told = f"{nearer}, and {farther}, which is farther off: is it the other way round?"
        cause = "reversed"
    elif refused and passed:
        why = "it refuses what rounding can do, and takes what it can't. What is its width made of?"
        cause, told = "both ways", f"{refused[0]}, and {passed[0]}: {why}"
    elif is_equality(judged):
        why = "it asks for equality, to the last bit; is there a sum in float32 that has it?"
        cause, told = "asks for equality", f"{refused[0]}: {why}"
    elif refused:
        why = "which is right. Where terms cancel, the difference is large beside the sum"
        cause, told = "refuses rounding", f"{refused[0]}, {why}"
    else:
        why = "rounding can't explain that. By how much may it be off?"
        cause, told = "too lenient", f"{passed[0]}: {why}"
    return wrong("is_right", cause, f"is_right says {told}")


def of_one_side(judged: list[Sum]) -> str:
    """On which side all wrong sums pass, if none does on the other; else ""."""
    above = {each.said for each in judged if not each.is_right and each.off > 0}
    below = {each.said for each in judged if not each.is_right and each.off < 0}
    return {(True, False): "upwards", (False, True): "downwards"}.get((*above, *below), "")


def in_reverse(refused: list[Sum], passed: list[Sum]) -> tuple[Sum, Sum] | None:
    """A right sum that is refused, and a wrong one of the same terms, further off, that passes."""
    return next(
        (
            (near, far)
            for near, far in itertools.product(refused, passed)
            if near.x is far.x and near.off * far.off >= 0
        ),
        None,
    )


def is_equality(judged: list[Sum]) -> bool:
    """Whether some sums pass, and all of those are equal to the true one, to the last bit."""
    passing = [each for each in judged if each.said]
    return bool(passing) and not any(each.off for each in passing)
