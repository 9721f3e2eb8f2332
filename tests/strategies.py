"""Every Hypothesis strategy of the suite: shapes, values, labels, layouts, and whole problems.

Values come in three kinds. Lattice arrays hold integers in [-8, 8]: every partial sum is exact, so
results must agree bit for bit whatever the order of summation. Real arrays are normal draws with a
scale of 10^U(-3, 1); they are filled by a seeded NumPy generator, because Hypothesis is slow at
drawing arrays, and because a seed and a scale are easy to read in a failure. Edge arrays hold the
values where implementations differ: signed zeros, subnormal neighbours, infinities, NaN.

Arrays are drawn on the CPU and C-contiguous. `lay_out` changes the memory layout of a NumPy or a
CuPy array, so a test first moves an array to its device and then lays it out there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple, TypeAlias

import numpy as np
from hypothesis import strategies as st

from reference.bounds import Classification, Dtype
from scratchnet.backend import Array

Shape: TypeAlias = tuple[int, ...]
# How the entries of an array are drawn, once its shape and dtype are known.
Values: TypeAlias = Callable[[Shape, Dtype], st.SearchStrategy[Array]]

PRIMES = (1, 2, 3, 5, 7, 11, 13, 17, 31)
EDGES = (-0.0, 0.0, 1e-30, -1e-30, 1e-7, -1e-7, 1.0, -1.0, 100.0, np.inf, -np.inf, np.nan)
LAYOUTS = ("C", "Fortran", "strided", "reversed")
REDUCTIONS = ("mean", "sum", "none")

dtypes: st.SearchStrategy[Dtype] = st.sampled_from((np.float32, np.float64))
sizes = st.sampled_from(PRIMES)
seeds = st.integers(0, 2**32 - 1)
scales = st.floats(-3, 1).map(lambda exponent: float(10**exponent))
layouts = st.sampled_from(LAYOUTS)
# The ends of the interval, PyTorch's usual value, and three-digit numbers, so that neither s nor
# 1 - s comes near the underflow threshold.
smoothings = st.sampled_from((0.0, 0.1, 1.0)) | st.integers(1, 999).map(lambda k: k / 1000)


@st.composite
def shapes(draw: st.DrawFn) -> tuple[int, int, int]:
    """Batch, inputs and outputs (N, D, H): 40 % are N = D = H, the others independent primes.

    On a rectangle a forgotten transpose raises; only on a square does it give a wrong value.
    """
    if draw(st.sampled_from((False, False, False, True, True))):
        return (size := draw(sizes), size, size)
    return draw(sizes), draw(sizes), draw(sizes)


@st.composite
def row_shapes(draw: st.DrawFn) -> Shape:
    """The shape of an array with 1 to 3 axes, for functions of the last axis or of each entry.

    The first axes may be empty, as a batch may.
    """
    return (*draw(st.lists(st.sampled_from((1, 2, 3, 5, 0)), max_size=2)), draw(sizes))


def lattice(shape: Shape, dtype: Dtype) -> st.SearchStrategy[Array]:
    """Integers in [-8, 8] as floats."""
    return seeds.map(lambda seed: np.random.default_rng(seed).integers(-8, 9, shape).astype(dtype))


def reals(shape: Shape, dtype: Dtype) -> st.SearchStrategy[Array]:
    """Normal draws with a scale of 10^U(-3, 1)."""
    return st.builds(
        lambda seed, scale: (scale * np.random.default_rng(seed).normal(size=shape)).astype(dtype),
        seeds,
        scales,
    )


def edges(shape: Shape, dtype: Dtype) -> st.SearchStrategy[Array]:
    """Signed zeros, small numbers of both signs, 1, 100, infinities and NaN."""
    return seeds.map(lambda seed: np.random.default_rng(seed).choice(EDGES, shape).astype(dtype))


def lattice_with_edges(shape: Shape, dtype: Dtype) -> st.SearchStrategy[Array]:
    """Lattice arrays with one entry in ten infinite or NaN, so that no sum depends on its order."""

    def fill(seed: int) -> Array:
        rng = np.random.default_rng(seed)
        special = rng.choice((np.inf, -np.inf, np.nan), shape)
        return np.where(rng.random(shape) < 0.1, special, rng.integers(-8, 9, shape)).astype(dtype)

    return seeds.map(fill)


@st.composite
def logits(draw: st.DrawFn, shape: Shape, dtype: Dtype) -> Array:
    """Real rows, each shifted by up to thousands: exp of an entry overflows, or of a row vanishes.

    The shift is part of the input, and rounded with it, so it costs the bounds nothing.
    """
    shift = draw(st.sampled_from((0.0, 1.0, 1000.0)))
    rows = np.random.default_rng(draw(seeds)).normal(size=(*shape[:-1], 1))
    return (draw(reals(shape, np.float64)) + shift * rows).astype(dtype)


def lay_out(array: Array, layout: str) -> Array:
    """The same values in another memory layout, on the device where the array is."""
    if layout == "Fortran":
        return array.copy(order="F")
    if layout == "strided":
        padded = array
        for axis in range(array.ndim):
            padded = padded.repeat(2, axis=axis)
        return padded[(slice(None, None, 2),) * array.ndim]
    if layout == "reversed":
        backwards = (slice(None, None, -1),) * array.ndim
        return array[backwards].copy()[backwards]
    return array


class Affine(NamedTuple):
    """The inputs of y = x weight^T + bias, and an upstream gradient for y."""

    x: Array
    weight: Array
    bias: Array
    grad_output: Array


@st.composite
def affines(draw: st.DrawFn, values: Values) -> Affine:
    """A linear layer with all of its entries drawn in one way."""
    dtype, (n, d, h) = draw(dtypes), draw(shapes())
    return Affine(*(draw(values(shape, dtype)) for shape in ((n, d), (h, d), (h,), (n, h))))


@st.composite
def arrays_and_gradients(
    draw: st.DrawFn, values: Values, gradients: Values = reals
) -> tuple[Array, Array]:
    """An array of 1 to 3 axes, and an upstream gradient of the same shape and dtype."""
    dtype, shape = draw(dtypes), draw(row_shapes())
    return draw(values(shape, dtype)), draw(gradients(shape, dtype))


@st.composite
def labels(draw: st.DrawFn, n: int, classes: int, ignore_index: int | None = None) -> Array:
    """Labels in [0, classes) as int64 or uint8, one in five replaced by ignore_index if given."""
    rng = np.random.default_rng(draw(seeds))
    target = rng.integers(0, classes, n)
    if ignore_index is not None:
        target[rng.random(n) < 0.2] = ignore_index
    small = ignore_index is None or 0 <= ignore_index < 256
    return target.astype(draw(st.sampled_from((np.int64, np.uint8))) if small else np.int64)


@st.composite
def classifications(draw: st.DrawFn, values: Values = logits) -> Classification:
    """A cross-entropy with any of its options, and a mean that is defined.

    ignore_index is PyTorch's default, the largest uint8, or one of the classes.
    """
    dtype, (n, _, classes) = draw(dtypes), draw(shapes())
    ignore_index = draw(st.sampled_from((-100, 255, 0, classes - 1)))
    reduction = draw(st.sampled_from(REDUCTIONS))
    gradient = draw(reals((n,), dtype))
    problem = Classification(
        logits=draw(values((n, classes), dtype)),
        target=draw(labels(n, classes, draw(st.sampled_from((None, ignore_index))))),
        weight=draw(st.none() | class_weights(classes, dtype)),
        ignore_index=ignore_index,
        reduction=reduction,
        label_smoothing=draw(smoothings),
        grad_output=gradient if reduction == "none" else float(gradient[0]),
    )
    if problem.denominator > 0:
        return problem
    return replace(problem, reduction="sum")


def class_weights(classes: int, dtype: Dtype) -> st.SearchStrategy[Array]:
    """Weights of 10^U(-1, 1), one in five of them 0."""

    def fill(seed: int) -> Array:
        rng = np.random.default_rng(seed)
        weights = 10 ** rng.uniform(-1, 1, classes)
        return np.where(rng.random(classes) < 0.2, 0.0, weights).astype(dtype)

    return seeds.map(fill)
