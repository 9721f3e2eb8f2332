"""Exercise 8 is judged by diagnose, strictly: also where a probability underflows to 0."""

from collections.abc import Iterator
from types import ModuleType

import numpy as np

from scratchnet.study.exercises.checking import ask, find, judge, wrong
from scratchnet.study.verdicts import Verdict

# Each with a row that is moderate, so that N is 2.
ZERO = np.array([[-1000.0, 0.0, 0.0], [0.0, 1.0, 2.0]]), np.array([0, 1])  # p[label] is exactly 0
TINY = np.array([[0.0, 0.0, 720.0], [0.0, 1.0, 2.0]]), np.array([2, 1])  # others' p are 1e-313


def check(learner: ModuleType, seed: int = 0) -> Iterator[Verdict]:
    """Verdicts on the gradient."""
    mine = find(learner, "cross_entropy_backward", "logits", "target")
    if not isinstance(mine, Verdict):
        zero, tiny = (ask("cross_entropy_backward", mine, *each) for each in (ZERO, TINY))
        # Of TINY an exp that overflows, since no maximum is subtracted, would make nan as well.
        if is_lost(zero) and not is_lost(tiny):
            yield wrong(
                "cross_entropy_backward",
                "the long way",
                "cross_entropy_backward is nan or inf for the logits [-1000, 0, 0] and the label "
                "0: there p[label] is exactly 0, and 1/p and log p are infinite. Let them cancel "
                "on paper before you compute",
            )
    yield judge("cross_entropy_backward", learner, "cross_entropy_backward", seed=seed, strict=True)


def is_lost(found: object) -> bool:
    """Whether there is nan or inf in what was found."""
    array = np.asarray(found if isinstance(found, np.ndarray | list) else 0.0)
    return array.dtype.kind == "f" and not bool(np.isfinite(array).all())
