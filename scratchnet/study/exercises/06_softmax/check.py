"""Exercise 6 is judged by diagnose, strictly: logits in the thousands, and thousands apart."""

from collections.abc import Iterator
from types import ModuleType

from scratchnet.study.exercises.checking import judge
from scratchnet.study.verdicts import Verdict


def check(learner: ModuleType, seed: int = 0) -> Iterator[Verdict]:
    """A verdict on the softmax."""
    yield judge("softmax_forward", learner, "softmax_forward", seed=seed, strict=True)
