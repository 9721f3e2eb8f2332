"""Exercise 1 is judged by diagnose, but for what kind of answer it is, and which h is taken."""

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
    verdict = of_nudges(mine)
    if verdict:
        yield verdict
    yield judge("finite_difference", learner, NAME, seed=seed)


def of_nudges(mine: Function) -> Verdict | None:
    """The verdict that what is returned is no number, or that the weight is nudged by another h."""
    h, at = 0.5, 3.0
    nudges: list[float] = []

    def loss(weight: Array) -> Any:
        nudges.append(abs(float(weight[0, 1]) - at))
        return (weight**3).sum()

    found = ask(NAME, mine, loss, np.array([[1.0, at]]), (0, 1), h)
    if isinstance(found, Verdict):
        return found if found.name == "results" else None  # of the rest diagnose knows more
    value = one_number(found)
    if isinstance(value, Verdict):
        return value
    others = [nudge for nudge in nudges if nudge]
    if others and not np.isclose(others, h, rtol=1e-6).any():
        message = (
            f"{NAME} nudges the weight by {others[0]:.3g}, and not by h = {h}: h is not used as "
            "given"
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
