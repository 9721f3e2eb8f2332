"""The forward and backward of each operation is PyTorch's: exactly, or within a derived bound."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from torch.nn import functional as reference

from reference import bounds
from reference.bounds import Classification, Dtype
from scratchnet import backend
from scratchnet import functional as ours
from scratchnet.backend import Array
from tests import strategies as draws
from tests.strategies import Affine, lay_out

Function = Callable[..., Any]

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
ENTRYWISE_AND_ROWWISE = pytest.mark.parametrize("name", ["sigmoid", "softmax", "log_softmax"])


def forward_and_backward(name: str) -> tuple[Function, Function]:
    return getattr(ours, f"{name}_forward"), getattr(ours, f"{name}_backward")


def run(
    xp: ModuleType, function: Function, *arrays: Array, layout: str = "C", **options: Any
) -> Any:
    """Call a function with its arrays on the device, in a layout; its results as NumPy arrays."""

    def there(value: Any) -> Any:
        return lay_out(xp.asarray(value), layout) if isinstance(value, np.ndarray) else value

    results = function(*map(there, arrays), **{k: there(v) for k, v in options.items()})
    if isinstance(results, tuple):
        return tuple(backend.to_numpy(xp.asarray(result)) for result in results)
    return backend.to_numpy(xp.asarray(results))


def torch_with_gradients(
    function: Function, grad_output: Array | float, *arrays: Array, dtype: Dtype
) -> list[Array]:
    """The value of a torch function in dtype, and its gradient for each array, from autograd."""
    leaves = [torch.from_numpy(a.astype(dtype, order="C")).requires_grad_() for a in arrays]
    y = function(*leaves)
    upstream = torch.from_numpy(np.asarray(grad_output, dtype)).expand(y.shape)
    gradients = torch.autograd.grad(y, leaves, upstream)
    return [tensor.detach().numpy() for tensor in (y, *gradients)]


def torch_cross_entropy(problem: Classification, dtype: Dtype) -> list[Array]:
    """PyTorch's loss and gradient. Its uint8 labels don't go with every option, so int64 here."""
    options = problem.options
    if problem.weight is not None:
        options["weight"] = torch.from_numpy(problem.weight.astype(dtype))
    target = torch.from_numpy(problem.target.astype(np.int64))
    return torch_with_gradients(
        lambda x: reference.cross_entropy(x, target, **options),
        problem.grad_output,
        problem.logits,
        dtype=dtype,
    )


def cross_entropy_loss(xp: ModuleType, problem: Classification, layout: str = "C") -> Array:
    arrays = problem.logits, problem.target
    return np.asarray(
        run(xp, ours.cross_entropy_forward, *arrays, layout=layout, **problem.options)
    )


def cross_entropy_gradient(xp: ModuleType, problem: Classification, layout: str = "C") -> Array:
    arrays, options = (problem.logits, problem.target), problem.options
    options["grad_output"] = problem.grad_output
    return np.asarray(run(xp, ours.cross_entropy_backward, *arrays, layout=layout, **options))


def assert_identical(actual: Array, expected: Array, *, sign_of_zero: bool = True) -> None:
    """Equal in shape, dtype and every bit, except which NaN it is."""
    assert actual.dtype == expected.dtype
    assert_array_equal(actual, expected, strict=True)
    if sign_of_zero:
        number = ~np.isnan(expected)
        assert_array_equal(np.signbit(actual[number]), np.signbit(expected[number]))


def assert_within(actual: Array, expected: Array, tolerance: Array) -> None:
    """|actual - expected| <= tolerance for each entry, and neither is NaN."""
    assert actual.shape == expected.shape == tolerance.shape
    excess = np.abs(actual.astype(np.float64) - expected) - tolerance
    assert (excess <= 0).all(), f"off by {excess.max()} more than the bound, at {excess.argmax()}"


# Kind 1: exact, bit for bit, against PyTorch in the same precision.


def linear(xp: ModuleType, layer: Affine, *, bias: bool = True, layout: str = "C") -> list[Array]:
    """y, grad_x, grad_weight and, if there is a bias, grad_bias."""
    inputs = layer[:3] if bias else layer[:2]
    y = run(xp, ours.linear_forward, *inputs, layout=layout)
    arrays = layer.grad_output, layer.x, layer.weight
    return [y, *run(xp, ours.linear_backward, *arrays, layout=layout)][: len(inputs) + 1]


def torch_linear(layer: Affine, dtype: Dtype, *, bias: bool = True) -> list[Array]:
    inputs = layer[:3] if bias else layer[:2]
    return torch_with_gradients(reference.linear, layer.grad_output, *inputs, dtype=dtype)


@given(
    layer=draws.affines(draws.lattice) | draws.affines(draws.lattice_with_edges),
    layout=draws.layouts,
    bias=st.booleans(),
)
def test_linear_is_exact_on_the_integer_lattice_and_its_infinities(
    xp: ModuleType, layer: Affine, layout: str, bias: bool
) -> None:
    """But for the sign of a zero sum: BLAS libraries disagree on it, 0 * -1 or 0 + 0 * -1."""
    expected = torch_linear(layer, layer.x.dtype.type, bias=bias)
    for pair in zip(linear(xp, layer, bias=bias, layout=layout), expected, strict=True):
        assert_identical(*pair, sign_of_zero=False)


@pytest.mark.parametrize("n", [0, 1])
@DTYPES
def test_linear_of_an_empty_batch_and_of_an_overflow_is_that_of_torch(
    xp: ModuleType, n: int, dtype: Dtype
) -> None:
    x, g = np.full((n, 2), np.finfo(dtype).max), np.full((n, 3), np.finfo(dtype).max)
    layer = Affine(x, np.full((3, 2), 4, dtype), np.zeros(3, dtype), g)
    for pair in zip(linear(xp, layer), torch_linear(layer, dtype), strict=True):
        assert_identical(*pair, sign_of_zero=False)


@given(
    pair=draws.arrays_and_gradients(draws.edges, draws.edges)
    | draws.arrays_and_gradients(draws.lattice)
    | draws.arrays_and_gradients(draws.reals),
    layout=draws.layouts,
)
def test_relu_is_exact_with_the_sign_of_zero_in_every_memory_layout(
    xp: ModuleType, pair: tuple[Array, Array], layout: str
) -> None:
    x, g = pair
    y, grad_x = torch_with_gradients(torch.relu, g, x, dtype=x.dtype.type)
    assert_identical(run(xp, ours.relu_forward, x, layout=layout), y)
    assert_identical(run(xp, ours.relu_backward, g, x, layout=layout), grad_x)


# Kind 2: within the bound of the rounding errors, against PyTorch in float64.


@given(layer=draws.affines(draws.reals), layout=draws.layouts, bias=st.booleans())
def test_linear_is_within_its_bounds(
    xp: ModuleType, layer: Affine, layout: str, bias: bool
) -> None:
    dtype = layer.x.dtype.type
    x, weight, b, g = wide = Affine(*(a.astype(np.float64) for a in layer))
    tolerances = [
        bounds.tolerance(bounds.linear, dtype, x, weight, b if bias else None),
        bounds.tolerance(bounds.linear_grad_x, dtype, g, weight),
        bounds.tolerance(bounds.linear_grad_weight, dtype, g, x),
        bounds.tolerance(bounds.linear_grad_bias, dtype, g),
    ]
    actual, expected = (
        linear(xp, layer, bias=bias, layout=layout),
        torch_linear(wide, np.float64, bias=bias),
    )
    for value, truth, tolerance in zip(actual, expected, tolerances, strict=False):
        assert_within(value, truth, tolerance)


@ENTRYWISE_AND_ROWWISE
@given(pair=draws.arrays_and_gradients(draws.logits), layout=draws.layouts)
def test_forward_and_backward_are_within_their_bounds(
    xp: ModuleType, name: str, pair: tuple[Array, Array], layout: str
) -> None:
    x, g = pair
    dtype = x.dtype.type
    forward, backward = forward_and_backward(name)
    y, grad_x = torch_with_gradients(torch_function(name), g, x, dtype=np.float64)
    tolerance = bounds.tolerance(getattr(bounds, name), dtype, x)
    assert_within(run(xp, forward, x, layout=layout), y, tolerance)
    tolerance = bounds.tolerance(getattr(bounds, f"{name}_backward"), dtype, g, x)
    assert_within(run(xp, backward, g, x, layout=layout), grad_x, tolerance)


def torch_function(name: str) -> Function:
    function: Function = getattr(torch, name)
    return function if name == "sigmoid" else lambda x: function(x, dim=-1)


@given(problem=draws.classifications(), layout=draws.layouts)
def test_cross_entropy_with_every_option_is_within_its_bounds(
    xp: ModuleType, problem: Classification, layout: str
) -> None:
    dtype = problem.logits.dtype.type
    loss, gradient = torch_cross_entropy(problem, np.float64)
    tolerance = bounds.tolerance(bounds.cross_entropy, dtype, problem)
    assert_within(cross_entropy_loss(xp, problem, layout), loss, tolerance)
    tolerance = bounds.tolerance(bounds.cross_entropy_backward, dtype, problem)
    actual = cross_entropy_gradient(xp, problem, layout)
    assert_within(actual, gradient, tolerance)
    assert not actual[~problem.counted].any()


# The edges: a row of the table each.

INF, NAN = np.inf, np.nan


@pytest.mark.parametrize("g", [1.0, -2.5, 0.0, -0.0, INF, -INF, NAN])
@pytest.mark.parametrize(
    ("x", "y", "slope"),
    [
        (-0.0, -0.0, 0),
        (0.0, 0.0, 0),
        (1e-30, 1e-30, 1),
        (-1e-30, 0.0, 0),
        (1e-7, 1e-7, 1),
        (-1e-7, 0.0, 0),
        (100.0, 100.0, 1),
        (INF, INF, 1),
        (-INF, 0.0, 0),
        (NAN, NAN, 1),
    ],
)
@DTYPES
def test_relu_at_the_edges(
    xp: ModuleType, dtype: Dtype, x: float, y: float, slope: int, g: float
) -> None:
    upstream, at = np.full(3, g, dtype), np.full(3, x, dtype)
    assert_identical(run(xp, ours.relu_forward, at), np.full(3, y, dtype))
    expected = upstream if slope else np.zeros(3, dtype)
    assert_identical(run(xp, ours.relu_backward, upstream, at), expected)


@ENTRYWISE_AND_ROWWISE
@pytest.mark.parametrize("g", [[2.0, -3.0], [INF, 1.0], [INF, -INF], [0.0, NAN]], ids=str)
@pytest.mark.parametrize(
    "row",
    [
        [0.0, -0.0],
        [1e30, -1e30],
        [1000.0, 0.0],
        [-1000.0, -1000.0],
        [-INF, 0.0],
        [-INF, -INF],
        [INF, 0.0],
        [INF, INF],
        [NAN, 0.0],
    ],
    ids=str,
)
@DTYPES
def test_functions_at_the_edges_are_those_of_torch(
    xp: ModuleType, name: str, row: list[float], g: list[float], dtype: Dtype
) -> None:
    x, upstream = np.array([row], dtype), np.array([g], dtype)
    forward, backward = forward_and_backward(name)
    y, grad_x = torch_with_gradients(torch_function(name), upstream, x, dtype=dtype)
    assert_equal_at_the_edge(run(xp, forward, x), y)
    assert_equal_at_the_edge(run(xp, backward, upstream, x), grad_x)


def assert_equal_at_the_edge(actual: Array, expected: Array) -> None:
    """The same infinities and NaNs, and finite values within gamma_100 (1 + |value|).

    In the tables, no finite result depends on a difference z of logits with 0 < |z| < 100 except
    |z| <= 3, C and N are at most 4, and t, T and |g| at most 4: each bound in `bounds` is then
    below gamma_50 times 1 + |value|, and two precisions alike need twice that.
    """
    assert actual.dtype == expected.dtype
    level = bounds.gamma(100, expected.dtype.type)
    assert_allclose(actual, expected, rtol=level, atol=level, equal_nan=True, strict=True)


@pytest.mark.parametrize("reduction", draws.REDUCTIONS)
@pytest.mark.parametrize(
    ("logits", "target", "options"),
    [
        pytest.param([[3.0]], [0], {}, id="one class"),
        pytest.param([[2.0, 2.0, 2.0]], [1], {}, id="equal logits: log C"),
        pytest.param([[1e38, -1e38]], [1], {}, id="a wrong class at 1e38"),
        pytest.param([[1e38, -1e38]], [0], {}, id="the right class at 1e38"),
        pytest.param([[3e38, -3e38]], [0], {}, id="a difference that overflows"),
        pytest.param([[-INF, 1.0, 2.0]], [1], {}, id="-inf off the label"),
        pytest.param([[-INF, 1.0, 2.0]], [0], {}, id="-inf at the label"),
        pytest.param([[-INF, 1.0]], [1], {"label_smoothing": 0.1}, id="-inf, smoothed"),
        pytest.param([[-INF, 1.0]], [1], {"label_smoothing": 1.0}, id="-inf, fully smoothed"),
        pytest.param(
            [[-INF, 1.0]],
            [1],
            {"weight": [0.0, 1.0], "label_smoothing": 0.1},
            id="-inf with the weight 0, smoothed",
        ),
        pytest.param([[INF, 1.0]], [0], {}, id="+inf at the label"),
        pytest.param([[INF, 1.0]], [1], {}, id="+inf off the label"),
        pytest.param([[-INF, -INF]], [0], {}, id="all -inf"),
        pytest.param([[NAN, 1.0], [1.0, 2.0]], [1, 0], {}, id="NaN"),
        pytest.param([], [], {}, id="empty batch"),
        pytest.param([], [], {"label_smoothing": 0.1}, id="empty batch, smoothed"),
        pytest.param([[1.0, 2.0], [0.0, 0.0]], [-100, -100], {}, id="all ignored"),
        pytest.param([[1.0, 2.0]], [-100], {"label_smoothing": 0.1}, id="all ignored, smoothed"),
        pytest.param([[1.0, 2.0]], [-100], {"weight": [1.0, 2.0]}, id="all ignored, weighted"),
        pytest.param([[NAN, 2.0], [1.0, 2.0]], [-100, 1], {}, id="NaN in an ignored row"),
        pytest.param([[INF, 2.0], [1.0, 2.0]], [-100, 1], {}, id="+inf in an ignored row"),
        pytest.param([[-INF, 2.0], [1.0, 2.0]], [-100, 1], {}, id="-inf in an ignored row"),
        pytest.param(
            [[NAN, 2.0], [1.0, 2.0]],
            [-100, 1],
            {"label_smoothing": 0.1},
            id="NaN in an ignored row, smoothed",
        ),
        pytest.param([[1.0, 2.0], [3.0, 2.0]], [1, -7], {"ignore_index": -7}, id="ignore -7"),
        pytest.param([[1.0, 2.0], [3.0, 2.0]], [1, 0], {"ignore_index": 0}, id="ignore a class"),
        pytest.param([[1.0, 2.0]], [0], {"weight": [0.0, 1.0]}, id="weights that sum to 0"),
        pytest.param(
            [[1.0, 2.0]],
            [0],
            {"weight": [0.0, 1.0], "label_smoothing": 0.1},
            id="weights that sum to 0, smoothed",
        ),
        pytest.param([[-INF, 2.0]], [0], {"weight": [0.0, 1.0]}, id="-inf with the weight 0"),
        pytest.param([[1.0, 2.0, 0.0]], [2], {"label_smoothing": 1.0}, id="fully smoothed"),
        pytest.param(
            [[1.0, 2.0, 0.0], [0.0, 1.0, 3.0]],
            [2, 0],
            {"weight": [0.5, 0.0, 2.0], "label_smoothing": 0.25},
            id="weighted and smoothed",
        ),
    ],
)
@DTYPES
def test_cross_entropy_at_the_edges_is_that_of_torch(
    xp: ModuleType,
    dtype: Dtype,
    reduction: str,
    logits: list[list[float]],
    target: list[int],
    options: dict[str, Any],
) -> None:
    weight = options.get("weight")
    problem = Classification(
        logits=np.array(logits, dtype).reshape(len(target), -1 if target else 2),
        target=np.array(target, np.int64),
        weight=None if weight is None else np.array(weight, dtype),
        ignore_index=options.get("ignore_index", -100),
        reduction=reduction,
        label_smoothing=options.get("label_smoothing", 0.0),
        grad_output=2.0 if reduction != "none" else np.full(len(target), 2.0, dtype),
    )
    loss, gradient = torch_cross_entropy(problem, dtype)
    assert_equal_at_the_edge(cross_entropy_loss(xp, problem), loss)
    assert_equal_at_the_edge(cross_entropy_gradient(xp, problem), gradient)


@DTYPES
def test_full_smoothing_treats_the_label_like_any_class_and_torch_does_not(
    xp: ModuleType, dtype: Dtype
) -> None:
    """With s = 1 every class has the share 1/C, so -inf costs inf wherever it stands. PyTorch takes
    the label's share in two parts, and multiplies its infinite loss by 1 - s = 0: nan."""
    logits = np.array([[-INF, 1.0]], dtype)
    for label in (0, 1):
        target = np.array([label])
        loss = run(xp, ours.cross_entropy_forward, logits, target, label_smoothing=1.0)
        assert loss == INF
    theirs = reference.cross_entropy(
        torch.from_numpy(logits), torch.tensor([0]), label_smoothing=1.0
    )
    assert torch.isnan(theirs)


@DTYPES
def test_the_defaults_of_cross_entropy_are_those_of_torch(xp: ModuleType, dtype: Dtype) -> None:
    logits = np.array([[1.0, 2.0, 4.0], [0.0, 3.0, 1.0], [1.0, 0.0, 0.0]], dtype)
    target = np.array([2, -100, 1])
    expected = torch_with_gradients(
        lambda x: reference.cross_entropy(x, torch.from_numpy(target)), 1.0, logits, dtype=dtype
    )
    assert_equal_at_the_edge(run(xp, ours.cross_entropy_forward, logits, target), expected[0])
    assert_equal_at_the_edge(run(xp, ours.cross_entropy_backward, logits, target), expected[1])


# Kind 5: identities that need no PyTorch.


@given(layer=draws.affines(draws.lattice), seed=draws.seeds)
def test_linear_gradients_are_exact_difference_quotients_on_the_lattice(
    xp: ModuleType, layer: Affine, seed: int
) -> None:
    """y is affine in each argument alone, so the quotient over a whole step has no error."""
    *arguments, g = (a.astype(np.float64) for a in layer)
    rng = np.random.default_rng(seed)
    gradients = run(xp, ours.linear_backward, g, *arguments[:2])
    for k, (argument, gradient) in enumerate(zip(arguments, gradients, strict=True)):
        v = rng.integers(-8, 9, argument.shape)
        before, after = ([*arguments[:k], argument + s * v, *arguments[k + 1 :]] for s in (-1, 1))
        rise = run(xp, ours.linear_forward, *after) - run(xp, ours.linear_forward, *before)
        assert (g * rise).sum() == 2 * (gradient * v).sum()


@given(pair=draws.arrays_and_gradients(draws.lattice, draws.lattice), seed=draws.seeds)
def test_relu_gradient_is_an_exact_difference_quotient_away_from_the_kink(
    xp: ModuleType, pair: tuple[Array, Array], seed: int
) -> None:
    """A step of at most 1/2 from a half-integer does not cross 0, where ReLU isn't linear."""
    x, g = (a.astype(np.float64) for a in pair)
    x += 0.5
    v = np.random.default_rng(seed).choice((-0.5, 0.0, 0.5), x.shape)
    rise = run(xp, ours.relu_forward, x + v) - run(xp, ours.relu_forward, x - v)
    assert_array_equal(g * rise, 2 * run(xp, ours.relu_backward, g, x) * v)


# A central difference of phi with step h is off by h^2/6 sup|phi'''| and by rounding/h. On the
# lattice, with directions in multiples of 1/8 up to 1, the points x + hv and x - hv are exact.
STEP = 2.0**-17


def directions(shape: draws.Shape, seed: int) -> Array:
    return np.random.default_rng(seed).integers(-8, 9, shape) / 8


@ENTRYWISE_AND_ROWWISE
@given(pair=draws.arrays_and_gradients(draws.lattice), seed=draws.seeds)
def test_gradient_is_a_central_difference_in_float64(
    xp: ModuleType, name: str, pair: tuple[Array, Array], seed: int
) -> None:
    """phi(t) = sum g f(x + tv) has |phi'''| <= 22 sum|g|, since |v| <= 1.

    Sigmoid: |s'''| <= 1/8. Softmax along v: with d = v - E v, |d| <= 2 and the cumulants k2 <= 1,
    |k3| <= 8, p''' = p (d^3 - 3 d k2 - k3), at most 22 p. Log-softmax: only -k3.
    """
    x, g = (a.astype(np.float64) for a in pair)
    v = directions(x.shape, seed)
    forward, backward = forward_and_backward(name)
    rise = run(xp, forward, x + STEP * v) - run(xp, forward, x - STEP * v)
    rounding = sum(getattr(bounds, name)(np.float64, x + s * STEP * v) for s in (-1, 1)) / 2
    curvature = 22 * STEP**2 / 6
    gradient_error = getattr(bounds, f"{name}_backward")(np.float64, g, x) * np.abs(v)
    tolerance = (np.abs(g) * (rounding / STEP + curvature) + gradient_error).sum()
    derivative = (g * rise).sum() / (2 * STEP)
    assert abs(derivative - (run(xp, backward, g, x) * v).sum()) <= tolerance


@given(problem=draws.classifications(draws.lattice), seed=draws.seeds)
def test_cross_entropy_gradient_is_a_central_difference_in_float64(
    xp: ModuleType, problem: Classification, seed: int
) -> None:
    """Along |v| <= 1 the third derivative of -sum_c t_c log p_c is T k3, at most 8 T."""
    problem = widened(problem)
    g, v = problem.grad_output, directions(problem.logits.shape, seed)
    ends = [replace(problem, logits=problem.logits + s * STEP * v) for s in (1, -1)]
    rise = cross_entropy_loss(xp, ends[0]) - cross_entropy_loss(xp, ends[1])
    rounding = sum(bounds.cross_entropy(np.float64, end) for end in ends) / 2
    curvature = 8 * STEP**2 / 6 * problem.target_weights.sum(axis=1) / problem.denominator
    tolerance = (np.abs(g) * rounding).sum() / STEP + (np.abs(g) * curvature).sum()
    tolerance += (bounds.cross_entropy_backward(np.float64, problem) * np.abs(v)).sum()
    derivative = (g * rise).sum() / (2 * STEP)
    assert abs(derivative - (cross_entropy_gradient(xp, problem) * v).sum()) <= tolerance


def widened(problem: Classification) -> Classification:
    """The same problem in float64."""
    fields: dict[str, Any] = {
        name: value.astype(np.float64)
        for name, value in vars(problem).items()
        if isinstance(value, np.ndarray) and name != "target"
    }
    return replace(problem, **fields)


@given(pair=draws.arrays_and_gradients(draws.reals))
def test_sigmoid_gradient_is_even_to_its_last_digits(
    xp: ModuleType, pair: tuple[Array, Array]
) -> None:
    """s(x) s(-x) is within gamma_24 of itself, where PyTorch's s(x) (1 - s(x)) cancels for x > 0.

    Twice 11 for s, and two products; both results have that error.
    """
    x, g = pair
    left, right = (run(xp, ours.sigmoid_backward, g, sign * x) for sign in (-1, 1))
    slope = np.exp(-np.logaddexp(0, x.astype(np.float64)) - np.logaddexp(0, -x.astype(np.float64)))
    dtype, size = x.dtype.type, np.abs(g.astype(np.float64))
    error = bounds.gamma(24, dtype) * size * slope + bounds.eta(4 * (1 + size), dtype)
    assert_within(left, right.astype(np.float64), 2 * error)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@given(pair=draws.arrays_and_gradients(draws.logits))
def test_rows_of_the_gradient_sum_to_zero(
    xp: ModuleType, name: str, pair: tuple[Array, Array]
) -> None:
    x, g = pair
    gradient = run(xp, forward_and_backward(name)[1], g, x)
    assert_rows_sum_to_zero(gradient, getattr(bounds, f"{name}_backward")(x.dtype.type, g, x))


@given(problem=draws.classifications())
def test_rows_of_the_cross_entropy_gradient_sum_to_zero(
    xp: ModuleType, problem: Classification
) -> None:
    error = bounds.cross_entropy_backward(problem.logits.dtype.type, problem)
    assert_rows_sum_to_zero(cross_entropy_gradient(xp, problem), error)


def assert_rows_sum_to_zero(gradient: Array, error: Array) -> None:
    """The errors of the entries add up, and so does that of this sum itself, gamma_C sum|.|."""
    wide = gradient.astype(np.float64)
    summing = bounds.gamma(wide.shape[-1], np.float64) * np.abs(wide).sum(axis=-1)
    assert (np.abs(wide.sum(axis=-1)) <= error.sum(axis=-1) + summing).all()


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@given(
    pair=draws.arrays_and_gradients(draws.lattice, draws.lattice),
    shift=st.integers(-10_000, 10_000),
)
def test_a_shift_of_all_logits_changes_nothing(
    xp: ModuleType, name: str, pair: tuple[Array, Array], shift: int
) -> None:
    """x + shift is exact, so only the two results have rounding errors."""
    x, g = pair
    forward, backward = forward_and_backward(name)
    error = getattr(bounds, name)(x.dtype.type, x)
    assert_within(run(xp, forward, x + shift), run(xp, forward, x), 2 * error)
    error = getattr(bounds, f"{name}_backward")(x.dtype.type, g, x)
    assert_within(run(xp, backward, g, x + shift), run(xp, backward, g, x), 2 * error)


@given(problem=draws.classifications(), seed=draws.seeds)
def test_permuting_the_batch_permutes_the_cross_entropy(
    xp: ModuleType, problem: Classification, seed: int
) -> None:
    assert_resampled(xp, problem, np.random.default_rng(seed).permutation(len(problem.target)))


@given(problem=draws.classifications())
def test_duplicating_the_batch_keeps_the_mean_and_doubles_the_sum(
    xp: ModuleType, problem: Classification
) -> None:
    assert_resampled(xp, problem, np.tile(np.arange(len(problem.target)), 2))


def assert_resampled(xp: ModuleType, problem: Classification, rows: Array) -> None:
    """With each row taken k times, losses and gradients are those of the rows; a mean has 1/k."""
    dtype = problem.logits.dtype.type
    g = problem.grad_output
    sample = replace(
        problem,
        logits=problem.logits[rows],
        target=problem.target[rows],
        grad_output=g if isinstance(g, float) else g[rows],
    )
    copies = len(rows) // len(problem.target)
    share = 1 / copies if problem.reduction == "mean" else 1.0

    def expected(loss: Array) -> Array:
        return loss[rows] if problem.reduction == "none" else loss * copies * share

    error = bounds.cross_entropy(dtype, sample) + expected(bounds.cross_entropy(dtype, problem))
    loss = expected(cross_entropy_loss(xp, problem))
    assert_within(cross_entropy_loss(xp, sample), loss, np.asarray(error))
    error = share * bounds.cross_entropy_backward(dtype, problem)[rows]
    error += bounds.cross_entropy_backward(dtype, sample)
    gradient = share * cross_entropy_gradient(xp, problem)[rows]
    assert_within(cross_entropy_gradient(xp, sample), gradient, error)


# Kind 6: what is not a value: inputs, dtypes, errors.

SHAPES: dict[str, draws.Shape] = {
    "x": (2, 3),
    "weight": (4, 3),
    "bias": (4,),
    "grad_x": (2, 3),
    "grad_y": (2, 4),
    "target": (2,),
}
FUNCTIONS = {
    ours.linear_forward: "x weight bias",
    ours.linear_backward: "grad_y x weight",
    ours.relu_forward: "x",
    ours.relu_backward: "grad_x x",
    ours.sigmoid_forward: "x",
    ours.sigmoid_backward: "grad_x x",
    ours.softmax_forward: "x",
    ours.softmax_backward: "grad_x x",
    ours.log_softmax_forward: "x",
    ours.log_softmax_backward: "grad_x x",
    ours.cross_entropy_forward: "x target",
    ours.cross_entropy_backward: "x target",
}
EVERY_FUNCTION = pytest.mark.parametrize("function", FUNCTIONS)


def arguments(function: Function, dtype: str = "float64") -> dict[str, Array]:
    """Ones of the right shapes, by their names, and labels 1."""
    names = FUNCTIONS[function].split()
    return {n: np.ones(SHAPES[n], "int64" if n == "target" else dtype) for n in names}


@EVERY_FUNCTION
@given(layer=draws.affines(draws.reals), layout=draws.layouts)
def test_inputs_stay_unchanged_and_results_are_new_arrays_of_their_dtype(
    xp: ModuleType, function: Function, layer: Affine, layout: str
) -> None:
    x, weight, bias, g = layer
    pool = {"x": x, "weight": weight, "bias": bias, "grad_y": g, "grad_x": -x}
    pool["target"] = np.zeros(len(x), np.int64)
    values = [pool[name] for name in arguments(function)]
    arrays = [lay_out(xp.asarray(value), layout) for value in values]
    results = function(*arrays)
    for array, value in zip(arrays, values, strict=True):
        assert_identical(backend.to_numpy(array), value)
    for result in results if isinstance(results, tuple) else (results,):
        assert result.dtype == x.dtype
        assert not any(xp.may_share_memory(xp.asarray(result), array) for array in arrays)


def refused(error: type[Exception], named: object) -> pytest.RaisesExc[Exception]:
    """The error is raised, and its message names the value as a word of its own."""
    return pytest.raises(error, match=rf"(?<![\w.,-]){re.escape(str(named))}(?![\w.])")


@pytest.mark.parametrize("dtype", ["float16", "int64", "bool", "complex128"])
@EVERY_FUNCTION
def test_other_dtypes_are_refused(xp: ModuleType, function: Function, dtype: str) -> None:
    with refused(TypeError, dtype):
        run(xp, function, *arguments(function, dtype).values())


@EVERY_FUNCTION
def test_mixed_dtypes_are_refused(xp: ModuleType, function: Function) -> None:
    arrays = arguments(function)
    mixed = [name for name in arrays if name != "target"]
    for name in mixed if len(mixed) > 1 else ():
        with refused(TypeError, "float32"):
            run(xp, function, *(arrays | {name: arrays[name].astype(np.float32)}).values())


@EVERY_FUNCTION
def test_what_is_not_an_array_is_refused(function: Function) -> None:
    with refused(TypeError, "list"):
        function(*(array.tolist() for array in arguments(function).values()))


@pytest.mark.parametrize(
    ("function", "name", "shapes"),
    [
        (ours.linear_forward, "x", [(3,), (1, 2, 3), (2, 1), ()]),
        (ours.linear_forward, "weight", [(3,), (3, 4), (1, 4, 3), (4, 1)]),
        (ours.linear_forward, "bias", [(1,), (3,), (2, 4), (1, 4)]),
        (ours.linear_backward, "grad_y", [(4,), (1, 4), (2, 1), (4, 2)]),
        (ours.linear_backward, "x", [(3,), (1, 2, 3), (2, 1)]),
        (ours.linear_backward, "weight", [(3,), (3, 4), (1, 4, 3), (4, 1)]),
        (ours.relu_backward, "grad_x", [(3,), (1, 3), (2, 1), (3, 2), ()]),
        (ours.sigmoid_backward, "grad_x", [(3,), (1, 3), (2, 1), (3, 2), ()]),
        (ours.softmax_backward, "grad_x", [(3,), (1, 3), (2, 1), (3, 2), ()]),
        (ours.log_softmax_backward, "grad_x", [(3,), (1, 3), (2, 1), (3, 2), ()]),
        (ours.cross_entropy_forward, "x", [(3,), (1, 2, 3), ()]),
        (ours.cross_entropy_backward, "x", [(3,), (1, 2, 3), ()]),
        (ours.cross_entropy_forward, "target", [(1,), (3,), (2, 1), (2, 3), ()]),
        (ours.cross_entropy_backward, "target", [(1,), (3,), (2, 1), (2, 3), ()]),
    ],
)
def test_other_shapes_are_refused(
    xp: ModuleType, function: Function, name: str, shapes: list[draws.Shape]
) -> None:
    """Shapes that would broadcast among them."""
    arrays = arguments(function)
    for shape in shapes:
        with refused(ValueError, shape):
            run(xp, function, *(arrays | {name: np.ones(shape, arrays[name].dtype)}).values())


@pytest.mark.parametrize("function", [ours.cross_entropy_forward, ours.cross_entropy_backward])
@pytest.mark.parametrize(
    ("error", "named", "target", "options"),
    [
        *((TypeError, d, np.ones(2, d), {}) for d in ("int32", "int8", "bool", "float64")),
        (ValueError, (4,), np.array([0, 1]), {"weight": np.ones(4)}),
        (ValueError, (1,), np.array([0, 1]), {"weight": np.ones(1)}),
        (ValueError, (1, 3), np.array([0, 1]), {"weight": np.ones((1, 3))}),
        (TypeError, "float32", np.array([0, 1]), {"weight": np.ones(3, np.float32)}),
        (TypeError, "int64", np.array([0, 1]), {"weight": np.ones(3, np.int64)}),
        (ValueError, "average", np.array([0, 1]), {"reduction": "average"}),
        (ValueError, 1.5, np.array([0, 1]), {"label_smoothing": 1.5}),
        (ValueError, -0.1, np.array([0, 1]), {"label_smoothing": -0.1}),
        (ValueError, "nan", np.array([0, 1]), {"label_smoothing": NAN}),
    ],
)
def test_cross_entropy_names_what_it_refuses(
    xp: ModuleType,
    function: Function,
    error: type[Exception],
    named: object,
    target: Array,
    options: dict[str, Any],
) -> None:
    with refused(error, named):
        run(xp, function, np.ones((2, 3)), target, **options)


@pytest.mark.parametrize(
    "options", [{}, {"label_smoothing": 0.1}, {"weight": np.array([0.0, 1.0, 2.0])}], ids=str
)
@pytest.mark.parametrize(
    ("wrong", "target", "ignored"),
    [
        (3, np.array([1, 3]), {}),
        (-1, np.array([1, -1]), {}),
        (-100, np.array([-100, 1]), {"ignore_index": -1}),
        (156, np.array([1, 156], np.uint8), {}),  # -100, modulo 256
    ],
)
def test_cross_entropy_of_a_wrong_label_is_an_error_on_the_cpu_and_nan_on_the_gpu(
    xp: ModuleType, wrong: int, target: Array, ignored: dict[str, int], options: dict[str, Any]
) -> None:
    """nan in the loss and the whole gradient of that sample, and in no other's."""
    options = options | ignored
    arrays = np.ones((2, 3)), target
    if xp is np:
        for function in (ours.cross_entropy_forward, ours.cross_entropy_backward):
            with refused(IndexError, wrong):
                run(xp, function, *arrays, **options)
        return
    losses = run(xp, ours.cross_entropy_forward, *arrays, **options, reduction="none")
    assert_array_equal(np.isnan(losses), target == wrong)
    for reduction in ("mean", "sum"):
        loss = run(xp, ours.cross_entropy_forward, *arrays, **options, reduction=reduction)
        assert np.isnan(loss)
        gradient = run(xp, ours.cross_entropy_backward, *arrays, **options, reduction=reduction)
        assert_array_equal(np.isnan(gradient), np.tile(target == wrong, (3, 1)).T)


@pytest.mark.parametrize(
    ("target", "options", "error"),
    [
        (np.array([0, 1], np.int32), {}, RuntimeError),
        (np.array([0, 1], np.int8), {}, RuntimeError),
        (np.array([0, 3]), {}, IndexError),
        (np.array([0, -1]), {}, IndexError),
        (np.array([[0], [1]]), {}, RuntimeError),
        (np.array([0, 1, 2]), {}, ValueError),
        (np.array([0, 1]), {"label_smoothing": 1.5}, RuntimeError),
        (np.array([0, 1]), {"reduction": "average"}, ValueError),
        (np.array([0, 1]), {"weight": torch.ones(4, dtype=torch.float64)}, RuntimeError),
    ],
)
def test_what_cross_entropy_refuses_torch_refuses_too(
    target: Array, options: dict[str, Any], error: type[Exception]
) -> None:
    """The rows of PyTorch's table that are errors; our own messages are in the test above."""
    with pytest.raises(error):
        reference.cross_entropy(
            torch.ones((2, 3), dtype=torch.float64), torch.from_numpy(target), **options
        )


def test_negative_smoothing_is_an_error_here_and_silently_none_in_torch() -> None:
    logits, target = torch.eye(3), torch.arange(3)
    silent = reference.cross_entropy(logits, target, label_smoothing=-0.1)
    assert silent == reference.cross_entropy(logits, target)
    with refused(ValueError, -0.1):
        ours.cross_entropy_forward(logits.numpy(), target.numpy(), label_smoothing=-0.1)


def test_layouts_that_torch_cant_take_are_taken_or_told(xp: ModuleType) -> None:
    """torch.from_numpy takes no negative strides, we do; and nobody takes big-endian numbers."""
    backwards, big = np.arange(-3.0, 3.0)[::-1], np.ones(3, ">f4")
    with pytest.raises(ValueError, match="negative"):
        torch.from_numpy(backwards)
    with pytest.raises(ValueError, match="byte order"):
        torch.from_numpy(big)
    here = xp.arange(-3.0, 3.0)[::-1]
    expected = np.maximum(backwards, 0)
    assert_array_equal(backend.to_numpy(ours.relu_forward(here)), expected)
    with refused(TypeError, ">f4"):
        ours.relu_forward(big)


@pytest.mark.parametrize("reduction", draws.REDUCTIONS)
def test_cross_entropy_refuses_an_upstream_gradient_of_another_shape(
    xp: ModuleType, reduction: str
) -> None:
    options: dict[str, Any] = {"reduction": reduction, "grad_output": np.ones(3)}
    with refused(ValueError, (3,)):
        run(xp, ours.cross_entropy_backward, np.ones((2, 3)), np.array([0, 1]), **options)
