"""Exercise 5 is judged by diagnose."""

from collections.abc import Iterator
from types import ModuleType

from scratchnet.study.exercises.checking import judge
from scratchnet.study.verdicts import Verdict


def check(learner: ModuleType, seed: int = 0) -> Iterator[Verdict]:
    """Verdicts on the ReLU, forward and backward."""
    yield judge("relu_forward", learner, "relu_forward", seed=seed)
    yield judge("relu_backward", learner, "relu_backward", seed=seed)
