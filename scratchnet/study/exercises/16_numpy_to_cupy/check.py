"""Exercise 16: right on NumPy, as diagnose says; and on a stand-in for CuPy by the three rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np

from scratchnet.backend import Array
from scratchnet.study.exercises.checking import Function, ask, find, judge, line_of, right, wrong
from scratchnet.study.exercises.pretend_cupy import GpuArray, PretendCupy, Refused
from scratchnet.study.verdicts import Verdict

NAME = "loss_and_gradient"
PARAMETERS = ("xp", "logits", "target")
RUNS = ((5, np.float32), (50, np.float32), (5, np.float64))
MENDS = {
    "a NumPy array": "make it by xp, not by np",
    "an implicit conversion": "NumPy was handed an array of xp's, as a value or an index",
    "a NumPy index": "make the index by xp, too",
    "a function of NumPy": "see what xp has instead",
}


def check(learner: ModuleType, seed: int = 0) -> Iterator[Verdict]:
    """Verdicts on NumPy, and on the stand-in."""
    mine = find(learner, NAME, *PARAMETERS)
    if isinstance(mine, Verdict):
        yield mine
        return
    rng = np.random.default_rng(seed)
    found = ask(NAME, mine, np, *draw(rng, 5))
    no_pair = on_numpy(found) if isinstance(found, Verdict) else of_pair(found)
    if no_pair:
        yield no_pair
        return
    for i, (what, subject) in enumerate(
        {"loss": "cross_entropy_forward", "gradient": "cross_entropy_backward"}.items()
    ):
        verdict = judge(
            subject, learner, NAME, seed=seed, parameters=PARAMETERS, adapt=result_of(i)
        )
        yield replace(verdict, subject=f"the {what}, on NumPy")
    runs = [run(mine, *draw(rng, n, dtype)) for n, dtype in RUNS]
    yield from (each if isinstance(each, Verdict) else of_run(*each) for each in runs)
    few, many, _ = runs
    if not isinstance(few, Verdict) and not isinstance(many, Verdict):
        yield of_launches(few[0], many[0])


def on_numpy(verdict: Verdict) -> Verdict:
    """A verdict that says, of what is raised, that xp was numpy."""
    (finding,) = verdict.findings
    if finding.kind != "exception":
        return verdict
    message = finding.message.replace(NAME, f"{NAME}, with xp = numpy,", 1)
    return replace(verdict, findings=(replace(finding, message=message),))


def draw(rng: np.random.Generator, n: int, dtype: Any = np.float64) -> tuple[Array, Array]:
    """Logits and labels."""
    return rng.normal(size=(n, 4)).astype(dtype), rng.integers(0, 4, n)


def of_pair(found: Any) -> Verdict | None:
    """The verdict that what was returned is not two results."""
    several = isinstance(found, tuple | list)
    if several and len(found) == 2:
        return None
    what = f"a {type(found).__name__} of {len(found)}" if several else type(found).__name__
    return wrong(NAME, "results", f"{NAME} returns {what}; expected (loss, gradient)")


def result_of(i: int) -> Callable[[Function], Function]:
    """Makes of the learner's function one of NumPy arrays that returns one of the two results."""

    def adapt(mine: Function) -> Function:
        return lambda logits, target: mine(np, logits, target)[i]

    return adapt


def run(mine: Function, *given: Array) -> tuple[PretendCupy, Any, Any] | Verdict:
    """Call the function on the stand-in: what it returns, after the stand-in and the logits."""
    xp = PretendCupy()
    logits, target = map(xp.asarray, given)
    xp.launches = 0
    try:
        return xp, logits, mine(xp, logits, target)
    except Refused as error:
        line = line_of(error)
        message = f"{NAME}, in line {line}: {error}: {MENDS[error.cause]}"
        return wrong(NAME, error.cause, message, line=line)
    except (Exception, SystemExit) as error:
        line = line_of(error)
        at = f", in line {line}" if line else ""
        message = f"{NAME} raises {type(error).__name__} with xp{at}: {error}"
        return wrong(NAME, "exception", message, line=line, error=error)


def of_run(xp: PretendCupy, logits: GpuArray, found: Any) -> Verdict:
    """Whether nobody has looked, and what came out is where and what it should be."""
    if xp.looks:
        how, line = xp.looks[0]
        message = (
            f"{NAME} waits for the GPU {len(xp.looks)} time{'s' * (len(xp.looks) > 1)}, first for "
            f"{how} in line {line}: leave the values where they are"
        )
        return wrong(NAME, "it looks", message, line=line, looks=len(xp.looks))
    no_pair = of_pair(found)
    if no_pair:
        return no_pair
    for name, value in zip(("loss", "gradient"), found, strict=True):
        if not isinstance(value, GpuArray):
            message = f"{name} is {type(value).__name__} with xp; expected an array of xp's"
            return wrong(NAME, "not on the GPU", message)
        if value.dtype != logits.dtype:
            message = f"{name} is {value.dtype}, of {logits.dtype} logits; expected their dtype"
            makers = "zeros and eye, say, make float64 if they aren't told otherwise"
            hint = makers if value.dtype == np.float64 else ""
            return wrong(NAME, "another dtype", message, hint=hint)
    return right(f"{NAME} on the stand-in for CuPy, N = {len(logits)}, {logits.dtype}")


def of_launches(few: PretendCupy, many: PretendCupy) -> Verdict:
    """Whether the number of launches does not depend on the number of samples."""
    if few.launches == many.launches:
        return right(f"{NAME}, its {many.launches} launches for any N")
    message = (
        f"{NAME} makes {few.launches} launches for 5 samples and {many.launches} for 50: is there "
        "a loop over the samples?"
    )
    return wrong(NAME, "it loops", message, few=few.launches, many=many.launches)
