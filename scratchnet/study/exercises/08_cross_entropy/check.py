"""Exercise 8 is judged by diagnose, strictly: also where a probability underflows to 0."""

from collections.abc import Iterator
from types import ModuleType

import numpy as np

from scratchnet.study.exercises.checking import ask, find, judge, wrong
from scratchnet.study.verdicts import Verdict

FAR = np.array([[0.0, 1000.0, 0.0]])  # p is 0, 1, 0, to the last digit


def check(learner: ModuleType, seed: int = 0) -> Iterator[Verdict]:
    """A verdict on the gradient."""
    mine = find(learner, "cross_entropy_backward", "logits", "target")
    if not isinstance(mine, Verdict):
        found = ask("cross_entropy_backward", mine, FAR, np.array([0]))
        sure = ask("cross_entropy_backward", mine, FAR / 1000, np.array([0]))
        if is_nan(found) and not is_nan(sure):
            yield wrong(
                "cross_entropy_backward",
                "the long way",
                "cross_entropy_backward is nan for the logits [0, 1000, 0] and the label 0: there "
                "p[label] is 0, and it is divided by. Cancel it on paper before you compute",
            )
    yield judge("cross_entropy_backward", learner, "cross_entropy_backward", seed=seed, strict=True)


def is_nan(found: object) -> bool:
    """Whether there is a nan in what was found."""
    array = np.asarray(found if isinstance(found, np.ndarray | list) else 0.0)
    return array.dtype.kind == "f" and bool(np.isnan(array).any())
