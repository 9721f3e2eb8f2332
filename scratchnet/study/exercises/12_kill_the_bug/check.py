"""Exercise 12: the learner's test is run on right implementations and on bugs of the library."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import TypeAlias

import numpy as np

from scratchnet.backend import Array
from scratchnet.functional import linear_backward
from scratchnet.study import mistakes
from scratchnet.study.exercises.checking import Function, find, line_of, right, unwritten, wrong
from scratchnet.study.verdicts import Verdict

Backward: TypeAlias = Callable[[Array, Array, Array], tuple[Array, Array, Array]]

NAME = "test_linear_backward"
RESULTS = ("grad_x", "grad_weight", "grad_bias")
BUGS = (
    "linear_backward_grad_bias_averaged",
    "linear_backward_grad_bias_first_sample_only",
    "linear_backward_grad_bias_keepdims",
    "linear_backward_grad_weight_averaged",
    "linear_backward_grad_weight_last_sample_lost",
    "linear_backward_grad_weight_of_sums",
    "linear_backward_grad_weight_transposed",
    "linear_backward_grad_weight_half_precision",
    "linear_backward_grad_x_weight_transposed",
    "linear_backward_grad_x_elementwise",
    "linear_backward_grad_x_averaged",
)


def by_terms(grad_output: Array, x: Array, weight: Array) -> tuple[Array, Array, Array]:
    """Right, from the last sample to the first; and of no samples, too."""
    grad_weight, grad_bias = np.zeros_like(weight), np.zeros(len(weight), weight.dtype)
    for g, row in zip(grad_output[::-1], x[::-1], strict=True):
        grad_weight, grad_bias = grad_weight + np.outer(g, row), grad_bias + g
    return grad_output @ weight, grad_weight, grad_bias


def by_thirds(grad_output: Array, x: Array, weight: Array) -> tuple[Array, Array, Array]:
    """Right, by a detour that rounds differently."""
    grad_x = (grad_output / 3) @ weight * 3
    return grad_x, (grad_output / 3).T @ x * 3, (grad_output / 3).sum(axis=0) * 3


RIGHT: dict[str, Backward] = {
    "scratchnet's own": linear_backward,
    "one that sums from the last sample to the first": by_terms,
    "one that divides by 3 and multiplies by 3 again": by_thirds,
}


def check(learner: ModuleType, seed: int = 0) -> Iterator[Verdict]:
    """Whether the test passes what is right, and then whether it fails what is wrong."""
    test = find(learner, NAME, "linear_backward")
    if isinstance(test, Verdict):
        yield test
        return
    yield on_right(test)
    yield on_bugs(test)


def on_right(test: Function) -> Verdict:
    """Whether the test passes all that is right, each time."""
    for (what, backward), _ in itertools.product(RIGHT.items(), range(3)):
        verdict = on_one(test, backward, what)
        if verdict:
            return verdict
    return right(f"{NAME} on {len(RIGHT)} right implementations")


def on_one(test: Function, backward: Backward, what: str) -> Verdict | None:
    """What is wrong with the test, if it does not pass a right implementation."""
    try:
        returned = test(backward)
    except NotImplementedError as error:
        return unwritten(NAME, error)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit, and what pytest.fail and pytest.skip raise, too
        line = line_of(error)
        at = f" in line {line}" if line else ""
        if not has_failed(error):
            message = f"{NAME} raises {type(error).__name__}{at} on {what}, which is right: {error}"
            return wrong(NAME, "exception", message, line=line, error=error)
        cause, why = "the right one fails", "what does it expect?"
        if backward is not linear_backward:
            cause = "asks for equality"
            why = "does it allow for some rounding? See assert_allclose"
        message = f"{NAME} fails{at} on {what}, which is right: {why}"
        return wrong(NAME, cause, message, line=line)
    if returned is None:
        return None
    return wrong(NAME, "returns", f"{NAME} returns {returned!r}; a test fails by an assert, or not")


def on_bugs(test: Function) -> Verdict:
    """Which of the bugs survive the test."""
    survivors = [name for name in BUGS if survives(test, name)]
    if not survivors:
        return right(f"{NAME} on {len(BUGS)} bugs")
    first = survivors[0]
    result, formula = planted(first)
    message = (
        f"{NAME} does not fail on {len(survivors)} of {len(BUGS)} bugs. One is {result} = "
        f"{mistakes.text(formula)}, by someone who believes: {mistakes.BY_NAME[first].belief}"
    )
    hint = way_out(test, first)
    return wrong(NAME, f"survives: {first}", message, hint=hint, survivors=survivors)


def survives(test: Function, name: str) -> bool:
    """Whether the test does not fail on a wrong implementation."""
    return not fails(test, with_bug(name))


def fails(test: Function, backward: Backward) -> bool:
    """Whether the test ends by an assertion, or by what comes of a wrong shape; not by a skip."""
    try:
        test(backward)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit, and what pytest.fail raises, too
        return type(error).__name__ not in ("Skipped", "XFailed")
    return False


def way_out(test: Function, name: str) -> str:
    """What to look for, by how far a bug is from the truth with what the test puts in."""
    pairs = both(test, name)
    if not pairs:
        return "does the test call linear_backward?"
    shapes = next(((a.shape, b.shape) for a, b in pairs if a.shape != b.shape), None)
    result = planted(name)[0]
    what = f"with what your test puts in, {result} of this bug"
    if shapes:
        return (
            f"{what} has the shape {shapes[0]} instead of {shapes[1]}: does an assert look at it?"
        )
    off = max(float(abs(a - b).max(initial=0)) for a, b in pairs)
    if off <= 1e-9 * max(float(abs(b).max(initial=0)) for _, b in pairs):
        return "what has to go in, so that this gives something else than the right formula?"
    return f"{what} is off by {off:.2g}: does an assert look at it, and as closely as that?"


def both(test: Function, name: str) -> list[tuple[Array, Array]]:
    """What a bug makes of what the test puts in, and the truth, for each call."""
    bug, i = with_bug(name), RESULTS.index(planted(name)[0])
    pairs = []

    def backward(grad_output: Array, x: Array, weight: Array) -> tuple[Array, Array, Array]:
        given = grad_output, x, weight
        results = bug(*given)
        pairs.append((results[i].copy(), linear_backward(*given)[i]))
        return results

    fails(test, backward)
    return pairs


def has_failed(error: BaseException) -> bool:
    """Whether it is how a test fails: by an assert, or by pytest.fail, without pytest itself."""
    return isinstance(error, AssertionError) or type(error).__name__ == "Failed"


def with_bug(name: str) -> Backward:
    """linear_backward, with one of its results by a wrong formula."""
    result, formula = planted(name)
    wanted = list(inspect.signature(formula).parameters)

    def backward(grad_output: Array, x: Array, weight: Array) -> tuple[Array, Array, Array]:
        values = {"grad_output": grad_output, "x": x, "weight": weight}
        results = dict(zip(RESULTS, linear_backward(grad_output, x, weight), strict=True))
        results[result] = formula(**{key: values[key] for key in wanted})
        return results["grad_x"], results["grad_weight"], results["grad_bias"]

    return backward


def planted(name: str) -> tuple[str, Function]:
    """Which result a bug spoils, and its formula."""
    ((operation, formula),) = mistakes.BY_NAME[name].wrong.items()
    return operation.removeprefix("linear_backward."), formula
