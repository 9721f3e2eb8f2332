"""Exercise 3: the numbers and the single entries are judged here, the matrices by diagnose."""

from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np

from scratchnet.study import diagnose
from scratchnet.study.exercises.checking import Cause, Function, ask, find, judge, judge_by, number
from scratchnet.study.verdicts import Verdict

SCALAR = {
    "results swapped": Cause(
        lambda g, x, w: (g * x, g * w),
        "the two are exchanged: what does x meet in x · w?",
    ),
    "without the upstream gradient": Cause(
        lambda g, x, w: (w, x),
        "these are the slopes of y. How does the loss change, if y changes by so much?",
    ),
    "the factor itself": Cause(
        lambda g, x, w: (g * x, g * x),
        "both have the factor x; it belongs to one of them only",
    ),
    "passed on": Cause(
        lambda g, x, w: (g, g),
        "g is passed on as it is, as by a sum; a product has a factor to be multiplied by",
    ),
}


def check(learner: ModuleType, seed: int = 0) -> Iterator[Verdict]:
    """Verdicts on the five functions, the simplest first."""
    rng = np.random.default_rng(seed)
    scalars = [tuple(map(float, rng.normal(size=3))) for _ in range(3)]
    mine = find(learner, "scalar_backward", "g", "x", "w")
    yield judge_by("scalar_backward", mine, lambda g, x, w: (g * w, g * x), SCALAR, scalars)
    yield by_entries(learner, "grad_weight", ("grad_output", "x", "h", "d"), seed)
    yield by_entries(learner, "grad_x", ("grad_output", "weight", "n", "d"), seed)
    yield judge("linear_backward.grad_weight", learner, "grad_weight", seed=seed)
    yield judge("linear_backward.grad_x", learner, "grad_x", seed=seed)


def by_entries(
    learner: ModuleType, gradient: str, parameters: tuple[str, ...], seed: int
) -> Verdict:
    """Ask for every entry of two small gradients, and judge the arrays that they make."""
    name, subject = f"{gradient}_entry", f"linear_backward.{gradient}"
    mine = find(learner, name, *parameters)
    if isinstance(mine, Verdict):
        return mine
    for instance in diagnose.SUBJECTS[subject].instances(seed)[:2]:
        verdict = of_entries(name, subject, mine, parameters[:2], instance.inputs)
        if not verdict.ok:
            break
    return verdict


def of_entries(
    name: str, subject: str, mine: Function, parameters: tuple[str, ...], inputs: dict[str, Any]
) -> Verdict:
    """Judge the array that the entries of a gradient make."""
    given = [inputs[parameter] for parameter in parameters]
    shape = inputs["weight" if subject.endswith("grad_weight") else "x"].shape
    found = np.empty(shape)
    for index in np.ndindex(*shape):
        returned = ask(name, mine, *given, *index)
        entry = returned if isinstance(returned, Verdict) else number(name, returned)
        if isinstance(entry, Verdict):
            return entry
        found[index] = entry
    verdict = diagnose.arrays(subject, found, inputs)
    findings = [replace(f, message=f"{name}, taken for all: {f.message}") for f in verdict.findings]
    return replace(verdict, subject=name, findings=tuple(findings))
