"""Exercise 2: what is typed in is compared here, and what is wrong is told without the answer."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

from scratchnet.study.exercises.checking import right, to_do, wrong
from scratchnet.study.verdicts import Verdict

SHAPES = {
    "z1": "NH",
    "h": "NH",
    "z2": "NC",
    "p": "NC",
    "loss": "",
    "dz2": "NC",
    "dW2": "CH",
    "db2": "C",
    "dh": "NH",
    "dz1": "NH",
    "dW1": "HD",
    "db1": "H",
}
# The letter that is summed over, the axes of what comes out, and of the two factors.
SUMS = {
    "summed_in_dW2": ("N", "CH", "NC", "NH"),
    "summed_in_dh": ("C", "NH", "NC", "CH"),
    "summed_in_dW1": ("N", "HD", "NH", "ND"),
}
GIVEN = {"x": "ND", "W1": "HD", "b1": "H", "W2": "CH", "b2": "C"}


def check(learner: ModuleType, seed: int = 0) -> Iterator[Verdict]:
    """A verdict on each shape, and on each letter."""
    for name, expected in SHAPES.items():
        yield of_shape(name, expected, getattr(learner, name, None))
    for name, (letter, result, *factors) in SUMS.items():
        yield of_sum(name, letter, result, factors, getattr(learner, name, None))


def of_shape(name: str, expected: str, typed: Any) -> Verdict:
    """Compare a shape."""
    if typed is None:
        return to_do(name, f"type in its shape, such as {name} = (N, D)")
    if is_letter(typed):
        message = f"{name} = ({typed}) is the letter {typed} in brackets; a shape has a comma: "
        return wrong(name, "no comma", f"{message}({typed},) has one axis, () has none")
    if not isinstance(typed, tuple | list):
        message = f"{name} = {typed!r} is no shape; expected letters in brackets, such as (N, D)"
        return wrong(name, "no shape", message)
    axes = [str(axis) for axis in typed]
    if "1" in axes and "".join(axis for axis in axes if axis != "1") == expected:
        message = f"{name}: {written(typed)} has an axis of length 1, which it has not"
        why = ": a gradient has the shape of its array" if name[0] == "d" else ""
        return wrong(name, "an axis of 1", message + why)
    if not all(is_letter(axis) for axis in typed):
        message = f"{name} = {typed!r}; expected letters, N, D, H or C, and no numbers"
        return wrong(name, "no letters", message)
    if "".join(axes) == expected:
        return right(name)
    cause, why = why_not(name, expected, "".join(axes))
    return wrong(name, cause, f"{name} is not {written(typed)}: {why}")


def why_not(name: str, expected: str, axes: str) -> tuple[str, str]:
    """Why these can't be the axes, without telling which are."""
    if len(axes) > 1 and axes == expected[::-1]:
        if name in ("dW1", "dW2"):
            return "transposed", f"dW[i, j] belongs to W[i, j], so look at how {name[1:]} lies"
        return "transposed", "a sample is a row, here as in x"
    if name == "loss":
        return "not averaged", "that is more than one number, and a mean over the samples is one"
    if name[0] == "d":
        own = {**SHAPES, **GIVEN}[name[1:]]
        if own[0] != "N" and axes == "N" + own[-len(axes) + 1 :] and len(axes) == 2:
            why = f"that is one for each sample, but {name[1:]} is the same for all samples"
            return "not summed over the samples", why
        others = [other for other, shape in {**GIVEN, **SHAPES}.items() if shape == axes]
        if others:
            why = f"{others[0]} has that shape; {name} has a number for each number of {name[1:]}"
            return "the shape of another array", why
        return "not its array's shape", f"{name} has a number for each number of {name[1:]}"
    if "D" in axes:
        return "an axis that was summed over", "D has been summed over on the way there"
    if len(axes) != 2:
        return "number of axes", "it has a row for each sample, and in it more than one number"
    if "N" not in axes:
        return "without the samples", "it has a row for each sample"
    return "the shape of another array", "count the numbers that each sample has at this point"


def of_sum(name: str, letter: str, result: str, factors: list[str], typed: Any) -> Verdict:
    """Compare the letter that is summed over."""
    if typed is None:
        return to_do(name, f"type in a letter, such as {name} = D")
    if not is_letter(typed):
        message = f"{name} = {typed!r}; expected one of the letters N, D, H, C"
        return wrong(name, "no letter", message)
    if typed == letter:
        return right(name)
    made = name.removeprefix("summed_in_")
    if typed in result:
        why = f"{made} still has the axis {typed}: what is summed over is gone"
        return wrong(name, "an axis that stays", f"{name} is not {typed}: {why}")
    shapes = " and ".join(map(written, factors))
    why = f"the factors are {shapes}, and both have the axis that is summed over"
    return wrong(name, "an axis of neither", f"{name} is not {typed}: {why}")


def is_letter(typed: Any) -> bool:
    """Whether it is the letter of an axis; of an array `in` alone would not know what to say."""
    return isinstance(typed, str) and typed in ("N", "D", "H", "C")


def written(axes: Any) -> str:
    """A shape as it is typed."""
    axes = [str(axis) for axis in axes]
    return f"({axes[0]},)" if len(axes) == 1 else f"({', '.join(axes)})"
