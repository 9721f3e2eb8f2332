"""Exercise 16: right on NumPy, as diagnose says; and on a stand-in for CuPy by the three rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np

from scratchnet.study.exercises.checking import Function, find, judge, line_of, right, wrong
from scratchnet.study.exercises.pretend_cupy import GpuArray, PretendCupy, Refused
from scratchnet.study.verdicts import Verdict

NAME = "loss_and_gradient"
PARAMETERS = ("xp", "logits", "target")
MENDS = {
    "a NumPy array": "make it by xp, not by np",
    "an implicit conversion": "NumPy was handed an array of xp's, as a value or an index",
    "a NumPy index": "make the index by xp, too",
    "a function of NumPy": "see what xp has instead",
}


def check(learner: ModuleType, seed: int = 0) -> Iterator[Verdict]:
    """Verdicts on NumPy, and on the stand-in."""
    for i, (what, subject) in enumerate(
        {"loss": "cross_entropy_forward", "gradient": "cross_entropy_backward"}.items()
    ):
        verdict = judge(
            subject, learner, NAME, seed=seed, parameters=PARAMETERS, adapt=result_of(i)
        )
        yield replace(verdict, subject=f"the {what}, on NumPy")
    mine = find(learner, NAME, *PARAMETERS)
    if isinstance(mine, Verdict):
        yield mine
        return
    rng = np.random.default_rng(seed)
    few, many = (run(mine, rng, n) for n in (5, 50))
    yield few if isinstance(few, Verdict) else of_run(*few)
    yield many if isinstance(many, Verdict) else of_run(*many)
    if not isinstance(few, Verdict) and not isinstance(many, Verdict):
        yield of_launches(few[0], many[0])


def result_of(i: int) -> Callable[[Function], Function]:
    """Makes of the learner's function one of NumPy arrays that returns one of the two results."""

    def adapt(mine: Function) -> Function:
        def result(logits: Any, target: Any) -> Any:
            found = mine(np, logits, target)
            if not isinstance(found, tuple) or len(found) != 2:
                raise ValueError(f"it returns {type(found).__name__}; expected (loss, gradient)")
            return found[i]

        return result

    return adapt


def run(mine: Function, rng: np.random.Generator, n: int) -> tuple[PretendCupy, Any] | Verdict:
    """Call the function with float32 logits on the stand-in."""
    xp = PretendCupy()
    logits = xp.asarray(rng.normal(size=(n, 4)).astype(np.float32))
    target = xp.asarray(rng.integers(0, 4, n))
    xp.launches = 0
    try:
        return xp, mine(xp, logits, target)
    except Refused as error:
        line = line_of(error)
        message = f"{NAME}, in line {line}: {error}: {MENDS[error.cause]}"
        return wrong(NAME, error.cause, message, line=line)
    except (Exception, SystemExit) as error:
        line = line_of(error)
        message = f"{NAME} raises {type(error).__name__} with xp, in line {line}: {error}"
        return wrong(NAME, "exception", message, line=line, error=error)


def of_run(xp: PretendCupy, found: Any) -> Verdict:
    """Whether nobody has looked, and what came out is where and what it should be."""
    if xp.looks:
        how, line = xp.looks[0]
        message = (
            f"{NAME} waits for the GPU {len(xp.looks)} time{'s' * (len(xp.looks) > 1)}, first for "
            f"{how} in line {line}: leave the values where they are"
        )
        return wrong(NAME, "it looks", message, line=line, looks=len(xp.looks))
    for name, value in zip(("loss", "gradient"), found, strict=True):
        if not isinstance(value, GpuArray):
            message = f"{name} is {type(value)}; expected an array of xp's"
            return wrong(NAME, "not on the GPU", message)
        if value.dtype != np.float32:
            message = (
                f"{name} is {value.dtype}, of float32 logits: something was made in another dtype, "
                "such as by zeros, which makes float64 if it isn't told otherwise"
            )
            return wrong(NAME, "another dtype", message)
    return right(f"{NAME} on the stand-in for CuPy, N = {len(found[1])}")


def of_launches(few: PretendCupy, many: PretendCupy) -> Verdict:
    """Whether the number of launches does not depend on the number of samples."""
    if few.launches == many.launches:
        return right(f"{NAME}, its {many.launches} launches for any N")
    message = (
        f"{NAME} makes {few.launches} launches for 5 samples and {many.launches} for 50: there is "
        "a loop over the samples"
    )
    return wrong(NAME, "it loops", message, few=few.launches, many=many.launches)
