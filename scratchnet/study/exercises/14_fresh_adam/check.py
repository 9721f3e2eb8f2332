"""Exercise 14: both loops are judged here, by what other loops would give."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from scratchnet.backend import Array
from scratchnet.study.exercises.checking import Cause, find, floats, judge_by, right, to_do, wrong
from scratchnet.study.verdicts import Verdict

LR, BETA1, BETA2, EPS = 1e-3, 0.9, 0.999, 1e-8


def loop(
    p: Array,
    gradients: Array,
    *,
    keep_m: bool = True,
    keep_v: bool = True,
    t_from: int = 1,
    count: bool = True,
    exchange: bool = False,
) -> Array:
    """Steps of Adam; by default of one that remembers all."""
    m, v = np.zeros_like(p), np.zeros_like(p)
    for i, g in enumerate(gradients):
        t = t_from + i * count
        m = BETA1 * m * keep_m + (1 - BETA1) * g
        v = BETA2 * v * keep_v + (1 - BETA2) * g * g
        with np.errstate(all="ignore"):
            of_m, of_v = np.float64(1 - BETA1**t), np.float64(1 - BETA2**t)
            p = p - LR * (m / of_m) / (np.sqrt(v / of_v) + EPS)
        m, v = (v, m) if exchange else (m, v)
    return p


def fresh(p: Array, gradients: Array) -> Array:
    """Steps of Adam, each of a new one."""
    return loop(p, gradients, keep_m=False, keep_v=False, count=False)


UNCHANGED = Cause(
    lambda p, g: p,
    "it is p as it was given: adam_step returns the new p, and leaves the old one as it is",
)
FRESH = {
    "unchanged": UNCHANGED,
    "it remembers": Cause(
        lambda p, g: loop(p, g),
        "this Adam is not new: m, v and t come from the step before",
    ),
    "t counts on": Cause(
        lambda p, g: loop(p, g, keep_m=False, keep_v=False),
        "m and v are new, but t counts on; what is t in a new optimizer's first step?",
    ),
    "t does not count": Cause(
        lambda p, g: loop(p, g, count=False),
        "t is that of a new Adam, but m and v are not",
    ),
    "the plain sign": Cause(
        lambda p, g: p - LR * np.sign(g).sum(axis=0),
        "it is the sign, which is nearly right: but where g is as small as EPS, it is not",
    ),
    "gradient descent": Cause(
        lambda p, g: p - LR * g.sum(axis=0),
        "the step is LR · g, as in plain gradient descent: where is √v?",
    ),
    "one step only": Cause(
        lambda p, g: fresh(p, g[-1:]),
        "only the last step counts: each one starts from where the one before has ended",
    ),
    "returns too early": Cause(
        lambda p, g: fresh(p, g[:1]),
        "there is only one step: is the return inside the loop?",
    ),
}
PERSISTENT = {
    "unchanged": UNCHANGED,
    "m and v exchanged": Cause(
        lambda p, g: loop(p, g, exchange=True),
        "m and v change places from step to step: adam_step takes m, v, and returns p, m, v",
    ),
    "it forgets": Cause(
        fresh,
        "m and v are 0 and t is 1 in each step: make them before the loop, and keep them",
    ),
    "t does not count": Cause(
        lambda p, g: loop(p, g, count=False),
        "t stays 1: the corrections are those of a first step",
    ),
    "m and v forgotten": Cause(
        lambda p, g: loop(p, g, keep_m=False, keep_v=False),
        "t counts, but m and v are 0 before each step: take what adam_step returns",
    ),
    "v forgotten": Cause(
        lambda p, g: loop(p, g, keep_v=False),
        "v is 0 before each step: take what adam_step returns",
    ),
    "m forgotten": Cause(
        lambda p, g: loop(p, g, keep_m=False),
        "m is 0 before each step: take what adam_step returns",
    ),
    "t from 0": Cause(
        lambda p, g: loop(p, g, t_from=0),
        "it is nan after the first step: is t 0 there? 1 - BETA1**0 is 0; the first step has t = 1",
    ),
    "t from 2": Cause(
        lambda p, g: loop(p, g, t_from=2),
        "t starts at 2: is it counted before and after the step?",
    ),
    "the steps in reverse": Cause(
        lambda p, g: loop(p, g[::-1]),
        "the gradients are taken from the last to the first",
    ),
    "one step only": Cause(
        lambda p, g: loop(p, g[:1]),
        "there is only one step: is the return inside the loop?",
    ),
}


def check(learner: ModuleType, seed: int = 0) -> Iterator[Verdict]:
    """Verdicts on the two loops, and on the predictions."""
    rng = np.random.default_rng(seed)
    runs = [(rng.normal(size=k), rng.normal(size=(t, k))) for t, k in ((4, 3), (7, 5))]
    runs.append((rng.normal(size=3), 1e-8 * rng.uniform(1, 2, (2, 3))))  # as small as EPS
    mine = find(learner, "fresh", "p", "gradients")
    yield judge_by("fresh", mine, fresh, FRESH, runs)
    # With t = 0 a step is 0/0 where g is 0; with a negative t it isn't, though it is nan elsewhere.
    runs.append((rng.normal(size=3), np.zeros((1, 3))))
    mine = find(learner, "persistent", "p", "gradients")
    yield judge_by("persistent", mine, loop, PERSISTENT, runs)
    yield of_ratio(getattr(learner, "RATIO", None))
    yield of_net(getattr(learner, "NET", None))


def of_ratio(typed: Any) -> Verdict:
    """Compare the first prediction."""
    why = {
        10_000: ("the size of the gradient", "that is the ratio of the gradients; what of √v?"),
        100: ("the root of the ratio", "the step has g above and √(g²) below: what is left?"),
    }
    return of_number("RATIO", typed, 1, why, "put both numbers into fresh(), with p = 0")


def of_net(typed: Any) -> Verdict:
    """Compare the second prediction."""
    why = {
        100: ("the mean of the gradients", "that is what the mean of 1 would do; but the steps?"),
        -100: ("the sign", "down is counted as positive; and is it as far as that?"),
        50: ("every other step", "50 steps go down; and the others?"),
        200: ("the size of the gradient", "that is 50 · 3 + 50 · 1: steps don't know the size"),
        100 * LR: (
            "the units",
            "that is 100 · LR, and NET is asked in units of LR; is it that far, though?",
        ),
    }
    return of_number("NET", typed, 0, why, "put 100 such gradients into fresh(), with p = 0")


def of_number(
    name: str, typed: Any, truth: int, why: dict[float, tuple[str, str]], otherwise: str
) -> Verdict:
    """Compare a number that was typed in."""
    if typed is None:
        return to_do(name, "type in a whole number")
    value = floats(typed)
    if value is None or value.ndim or not np.isfinite(value) or np.asarray(typed).dtype == bool:
        return wrong(name, "no number", f"{name} = {typed!r}; expected a number")
    # Whoever puts the numbers into fresh() gets 1.000001 and 3e-7, as EPS is not 0.
    near = [known for known in (truth, *why) if abs(value - known) < 1e-5]
    if near == [truth]:
        return right(f"{name} = {truth}")
    if not near and abs(value - np.round(value)) > 1e-5:
        message = f"{name} is {typed}; expected a whole number, or as near to one as fresh() gets"
        return wrong(name, "not whole", message)
    cause, reason = why[near[0]] if near else ("prediction", otherwise)
    return wrong(name, cause, f"{name} is not {typed}: {reason}")
