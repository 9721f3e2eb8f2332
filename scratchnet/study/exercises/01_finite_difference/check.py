"""Exercise 1 is judged by diagnose, but for what kind of answer it is, and whether h is used."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from scratchnet.backend import Array
from scratchnet.study.exercises.checking import Function, ask, find, judge, number, wrong
from scratchnet.study.verdicts import Verdict

NAME = "slope"


def check(learner: ModuleType, seed: int = 0) -> Iterator[Verdict]:
    """Verdicts on slope()."""
    mine = find(learner, NAME, "loss", "weight", "index", "h")
    if isinstance(mine, Verdict):
        yield mine
        return
    verdict = of_two_nudges(mine)
    if verdict:
        yield verdict
    yield judge("finite_difference", learner, NAME, seed=seed)


def of_two_nudges(mine: Function) -> Verdict | None:
    """The verdict that what is returned is no number, or the same for a small h and a large one."""
    found = [ask(NAME, mine, cubes, np.array([[1.0, 2.0]]), (0, 1), h) for h in (0.1, 0.5)]
    if any(isinstance(each, Verdict) and each.name != "results" for each in found):
        return None  # diagnose knows more of what is raised or changed
    numbers = [each if isinstance(each, Verdict) else one_number(each) for each in found]
    problems = [each for each in numbers if isinstance(each, Verdict)]
    if problems:
        return problems[0]
    if np.allclose(numbers, 12, rtol=0, atol=1e-3):  # the central difference is 12 + h²
        message = (
            f"{NAME} gives 12, the derivative of w³ at w = 2, for h = 0.1 and for h = 0.5: h is "
            "not used as given"
        )
        return wrong(NAME, "another h", message)
    return None


def one_number(found: Any) -> float | Verdict:
    """The number that was returned; a verdict if it is none, or inside of something."""
    value = number(NAME, found)
    if isinstance(value, float) and np.ndim(found):
        kind = "an array" if isinstance(found, np.ndarray) else f"a {type(found).__name__}"
        return wrong(NAME, "results", f"{NAME} returns {kind} of one number; expected the number")
    return value


def cubes(weight: Array) -> Any:
    """A loss whose central difference depends on h."""
    return (weight**3).sum()
