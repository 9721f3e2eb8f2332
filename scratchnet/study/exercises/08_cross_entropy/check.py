"""Exercise 8 is judged by diagnose, strictly: also where a probability underflows to 0."""

from collections.abc import Iterator
from types import ModuleType

import numpy as np

from scratchnet.backend import Array
from scratchnet.study.exercises.checking import Function, ask, find, floats, judge, wrong
from scratchnet.study.verdicts import Verdict

NAME = "cross_entropy_backward"
# p[label] of the first row is exactly 0, whatever is subtracted first, unless an exp overflows.
LOGITS = np.array([[1000.0, 2000.0, 2000.0], [1998.0, 1999.0, 2000.0]])
TARGET = np.array([0, 1])


def check(learner: ModuleType, seed: int = 0) -> Iterator[Verdict]:
    """Verdicts on the gradient."""
    mine = find(learner, NAME, "logits", "target")
    if not isinstance(mine, Verdict) and divides_by_p(mine):
        yield wrong(
            NAME,
            "the long way",
            f"{NAME} is nan or inf for the logits [1000, 2000, 2000] and the label 0: there "
            "p[label] is exactly 0, and 1/p and log p are infinite. Let them cancel on paper "
            "before you compute",
        )
    yield judge(NAME, learner, NAME, seed=seed, strict=True)


def divides_by_p(mine: Function) -> bool:
    """Whether 1/0 or log 0 makes nan or inf; after an overflow it would be inf/inf or log inf."""

    def strictly(logits: Array, target: Array) -> object:
        with np.errstate(divide="raise"):
            return mine(logits, target)

    found, stopped = (ask(NAME, each, LOGITS, TARGET) for each in (mine, strictly))
    is_by_zero = isinstance(stopped, Verdict) and isinstance(
        stopped.evidence.get("error"), FloatingPointError
    )
    array = floats(found)
    return is_by_zero and array is not None and not np.isfinite(array).all()
