"""One forward and one backward pass of Mnist_NN, printed: `scratchnet study trace`.

The arrays are `scratchnet.functional`'s in float64, and the bound on their rounding is the one with
which answers are judged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

from scratchnet import mnist
from scratchnet.backend import Array
from scratchnet.nn import Mnist_NN
from scratchnet.study import autograd
from scratchnet.study.answers import Answer
from scratchnet.study.subjects import PARAMETERS, SHOWN, Index, Instance, Step
from scratchnet.study.terminal import bold, fit, quiet, width
from scratchnet.study.truth import Chain, Truth, for_formulas

Arrays = dict[str, Array]

MOST_TERMS = 8  # of a sum that is written out
CELL = 11  # characters a number


class Stage(NamedTuple):
    """What is said of an array.

    formula: how it is made.
    shapes: of what, in letters.
    source: of scratchnet.functional, the function that makes it.
    """

    formula: str
    shapes: str
    source: str


STAGES = {
    "z1": Stage("z1 = x W1ᵀ + b1", "(N, D) (D, H) + (H,)", "linear_forward"),
    "h": Stage("h = max(z1, 0)", "(N, H)", "relu_forward"),
    "z2": Stage("z2 = h W2ᵀ + b2", "(N, H) (H, C) + (C,)", "linear_forward"),
    "p": Stage("p = exp(z2) / Σ_c exp(z2)", "(N, C)", "softmax_forward"),
    "loss": Stage("loss = -1/N Σ_n log p[n, y[n]]", "(N, C), (N,)", "cross_entropy_forward"),
    "dz2": Stage("dz2 = (p - one_hot(y)) / N", "(N, C)", "cross_entropy_backward"),
    "dW2": Stage("dW2 = dz2ᵀ h", "(C, N) (N, H)", "linear_backward"),
    "db2": Stage("db2 = Σ_n dz2", "(N, C)", "linear_backward"),
    "dh": Stage("dh = dz2 W2", "(N, C) (C, H)", "linear_backward"),
    "dz1": Stage("dz1 = dh where z1 > 0, else 0", "(N, H)", "relu_backward"),
    "dW1": Stage("dW1 = dz1ᵀ x", "(H, N) (N, D)", "linear_backward"),
    "db1": Stage("db1 = Σ_n dz1", "(N, H)", "linear_backward"),
}


def text(digit: int, batch: int, seed: int) -> str:
    """The whole, as wide as the terminal.

    Args:
        digit: the class of the first image.
        batch: how many images.
        seed: of the weights and of the other images.
    """
    inputs = _inputs(digit, batch, seed)
    chain = Chain(SHOWN, Answer(Instance("this batch", dict(inputs), {})))
    truths = {step.name: chain.truth(step) for step in SHOWN.steps}
    theirs = autograd.arrays(inputs)
    parts = [_beginning(inputs, seed, theirs is not None)]
    for step in SHOWN.steps:
        if step.name in ("z1", "dz2"):
            parts.append(bold("Forward" if step.name == "z1" else "Backward"))
        parts.append("\n".join(_stage(step, chain, truths, theirs)))
    return "\n\n".join(parts)


def _inputs(digit: int, batch: int, seed: int) -> Arrays:
    rng = np.random.default_rng(seed)
    split = mnist.load().validation
    first = rng.choice(np.flatnonzero(split.labels == digit))
    chosen = [first, *rng.choice(len(split.labels), batch - 1)]
    state = Mnist_NN(device="cpu", dtype=np.float64, generator=seed).state_dict()
    return {
        "x": mnist.to_float(split.images[chosen], np.float64),
        "target": split.labels[chosen],
        **{name: state[key] for name, key in PARAMETERS.items()},
    }


def _beginning(inputs: Arrays, seed: int, has_torch: bool) -> str:
    h, d = inputs["W1"].shape
    n, c = len(inputs["x"]), len(inputs["b2"])
    labels = " ".join(map(str, inputs["target"][:10])) + (" ..." if n > 10 else "")
    sizes = f"N = {n} images, D = {d} pixels, H = {h} hidden units, C = {c} classes"
    words = (
        f"Mnist_NN with the weights it has before training, of seed {seed}, in float64; {sizes}. "
        f"y, the labels: {labels}. x: pixels / 255, (N, D)."
    )
    if not has_torch:
        words += " PyTorch is not installed: where it is, its values are compared."
    return "\n".join([fit(words), *_rows("x", inputs["x"])])


def _stage(
    step: Step, chain: Chain, truths: Mapping[str, Truth], theirs: Arrays | None
) -> Iterator[str]:
    """The lines on an array."""
    stage, truth = STAGES[step.name], truths[step.name]
    source = f"functional.{stage.source}"
    yield f"{bold(stage.formula)}{quiet(source.rjust(width() - len(stage.formula)))}"
    shape = truth.value.shape
    axes = f"({', '.join(step.axes)}{',' * (len(shape) == 1)}) = {shape}"
    yield f"  {stage.shapes} -> {axes if shape else 'a number'}"
    yield from _rows(step.name, truth.value)
    if step.name == "h":
        yield f"  {np.count_nonzero(truth.value == 0)} of {truth.value.size} are 0"
    if step.name in ("dW2", "dW1", "dh"):
        yield from _sum(step, chain, truth)
    if theirs is not None:
        yield quiet(f"  PyTorch: {_difference(theirs[step.name], truth)}")


def _rows(name: str, array: Array) -> Iterator[str]:
    """The array, or as much of it as there is room for, a row a line."""
    table = np.atleast_2d(array)
    room = (width() - 8) // CELL
    first = 0
    if table.shape[1] == 784:  # the image's edges are empty: some pixels of the middle
        first = 14 * 28 + 14 - room // 2
        yield f"  {name}[:, {first}:{first + room}], from the middle of the image"
    for row in table[:4]:
        cells = "".join(f"{value + 0.0:{CELL}.3g}" for value in row[first : first + room])
        yield f" {cells}{' ...' if len(row) > room else ''}"
    if len(table) > 4:
        yield f"{'...':>{CELL + 1}}"


def _sum(step: Step, chain: Chain, truth: Truth) -> Iterator[str]:
    """The entry that is largest, with the terms that it is the sum of."""
    index: Index = tuple(map(int, np.unravel_index(abs(truth.value).argmax(), truth.value.shape)))
    values = for_formulas(step, chain.follow({}, step))
    names = {argument: argument for argument in values} | dict(step.names)
    assert step.operation.terms is not None
    terms = step.operation.terms(SimpleNamespace(**values), SimpleNamespace(**names), index)
    yield f"  the largest entry: {step.name}{[*index]} = {truth.value[index]:.4g}, the sum of"
    for name, value in terms[:MOST_TERMS]:
        yield f"    {value + 0.0:{CELL}.4g}   {name}"  # + 0.0, since -0 would be distracting
    if len(terms) > MOST_TERMS:
        yield f"    {'...':>{CELL}}   and {len(terms) - MOST_TERMS} more"


def _difference(theirs: Array, truth: Truth) -> str:
    if np.array_equal(theirs, truth.value):
        return "exactly the same"
    difference = abs(theirs - truth.value)
    share = float((difference / (2 * truth.bound)).max())  # each side may be off by the bound
    used = f"{100 * share:.2g}%" if share <= 1 else f"{share:.3g} times"
    return f"largest difference {difference.max():.1e}; {used} of what rounding allows"
