"""Exercise 13 is judged by diagnose."""

from collections.abc import Iterator
from types import ModuleType

from scratchnet.study.exercises.checking import judge
from scratchnet.study.verdicts import Verdict


def check(learner: ModuleType, seed: int = 0) -> Iterator[Verdict]:
    """A verdict on the step."""
    yield judge("adam", learner, "adam_step", seed=seed)
