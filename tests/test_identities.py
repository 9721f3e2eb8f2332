"""Statements about the mathematics, and about what is kept, that hold without PyTorch.

Each is here because a planted bug lived: what it computes is equal in value within every bound, or
on every draw of the other tests. See tests/planted.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from reference import bounds
from reference.bounds import Dtype
from scratchnet import functional, nn, optim
from scratchnet.backend import Array, to_numpy
from tests.strategies import dtypes, seeds
from tests.test_optim import configurations

# Here exp(x) is still a few dozen times the smallest number, and exp(-x) overflows.
LEFT_END = {np.float32: -100.0, np.float64: -740.0}


@given(seed=seeds, dtype=dtypes)
def test_sigmoid_keeps_its_left_tail(xp: ModuleType, seed: int, dtype: Dtype) -> None:
    """σ(x) = e^x / (1 + e^x) for x <= 0 down to the subnormal numbers, where 1 / (1 + e^-x) is 0.

    Below the normal numbers the errors are absolute: 4 ulp of exp and one rounding of the quotient
    are at most 5 times the smallest number. In float32 that is on a GPU the smallest normal one,
    since CuPy compiles its kernels with -ftz=true.
    """
    x = (LEFT_END[dtype] * np.random.default_rng(seed).random(50)).astype(dtype)
    wide = x.astype(np.longdouble)
    expected = np.exp(wide) / (1 + np.exp(wide))
    flushes = xp is not np and dtype is np.float32
    smallest = np.finfo(dtype).tiny if flushes else np.finfo(dtype).smallest_subnormal
    error = bounds.gamma(11, dtype) * expected + 5 * smallest
    actual = to_numpy(functional.sigmoid_forward(xp.asarray(x)))
    assert (abs(actual - expected) <= error).all()


LAYERS = [nn.ReLU, nn.Sigmoid, nn.Softmax, nn.Linear]


@pytest.mark.parametrize("kind", LAYERS)
@given(seed=seeds, dtype=dtypes)
def test_of_two_batches_of_one_size_the_last_is_gone_back_over(
    xp: ModuleType, kind: type[nn.Module], seed: int, dtype: Dtype
) -> None:
    """The same operations on the same numbers: equal bit for bit."""
    first, last, g = (xp.asarray(a) for a in _normal(seed, (3, 4, 4), dtype))
    layer = _layer(kind, xp, dtype)
    layer(last)
    expected = [layer.backward(g), *_taken_gradients(layer)]
    layer(first)
    layer(last)
    for actual, wanted in zip([layer.backward(g), *_taken_gradients(layer)], expected, strict=True):
        np.testing.assert_array_equal(to_numpy(actual), to_numpy(wanted))


def _layer(kind: type[nn.Module], xp: ModuleType, dtype: Dtype) -> nn.Module:
    if kind is nn.Linear:
        return nn.Linear(4, 4, device="cpu" if xp is np else "cuda", dtype=dtype)
    return kind()


def _taken_gradients(layer: nn.Module) -> list[Array]:
    gradients = [p.grad.copy() for _, p in layer.named_parameters() if p.grad is not None]
    layer.zero_grad()
    return gradients


def _normal(seed: int, shape: tuple[int, ...], dtype: Dtype) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def test_the_state_dict_of_a_flattened_model_is_a_copy(xp: ModuleType) -> None:
    model = nn.Mnist_NN(4, 3, 2, device="cpu" if xp is np else "cuda")
    parameters = model.parameters()  # which moves them, so that later values go where these are
    state = model.state_dict()
    before = [to_numpy(value).copy() for value in state.values()]
    for parameter in parameters:
        parameter.data = parameter.data + 1
    for value, wanted in zip(state.values(), before, strict=True):
        np.testing.assert_array_equal(to_numpy(value), wanted)


def _stepped(xp: ModuleType, kind: str, options: dict[str, Any], seed: int) -> optim.Optimizer:
    """An optimizer of two float32 parameters in one buffer, after a step, with new gradients."""
    values = _normal(seed, (2, 50), np.float32), _normal(seed + 1, (2, 50), np.float32)
    parameters = [nn.Parameter(xp.asarray(value)) for value in values[0]]
    nn.flatten(parameters)
    optimizer: optim.Optimizer = getattr(optim, kind)(parameters, **options)
    for gradients in (values[1], values[1] - values[0]):
        if gradients is not values[1]:
            optimizer.step()
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = xp.asarray(gradient)
    return optimizer


@given(configuration=configurations, seed=seeds)
def test_a_step_leaves_the_gradients_as_they_are(
    xp: ModuleType, configuration: tuple[str, dict[str, Any]], seed: int
) -> None:
    optimizer = _stepped(xp, *configuration, seed)
    (buffer,) = {parameter.buffer for parameter in optimizer.parameters}
    before = to_numpy(buffer.grad).copy()
    optimizer.step()
    np.testing.assert_array_equal(to_numpy(buffer.grad), before)


@given(configuration=configurations, seed=seeds)
def test_the_state_dict_of_an_optimizer_is_a_copy(
    xp: ModuleType, configuration: tuple[str, dict[str, Any]], seed: int
) -> None:
    optimizer = _stepped(xp, *configuration, seed)
    state = optimizer.state_dict()["state"]
    before = {
        i: {name: to_numpy(xp.asarray(v)).copy() for name, v in state[i].items()} for i in state
    }
    optimizer.step()
    for i, entry in before.items():
        for name, wanted in entry.items():
            np.testing.assert_array_equal(to_numpy(xp.asarray(state[i][name])), wanted)


@given(configuration=configurations, seed=seeds)
def test_a_learning_rate_of_numpys_is_one_of_pythons(
    xp: ModuleType, configuration: tuple[str, dict[str, Any]], seed: int
) -> None:
    """100 float32 numbers, a few of which would be rounded otherwise if float64 came between."""
    results = []
    for lr in (0.3, np.float64(0.3)):
        optimizer = _stepped(xp, *configuration, seed)
        optimizer.lr = lr
        optimizer.step()
        results.append(to_numpy(optimizer.parameters[0].buffer.data).copy())
    np.testing.assert_array_equal(results[0], results[1], strict=True)


@pytest.mark.parametrize(
    ("momentum", "dampening", "nesterov"),
    [(0.0, 0.0, False), (0.5, 0.0, False), (0.5, 0.0, True), (0.5, 0.5, False), (0.5, 0.25, False)],
)
@pytest.mark.parametrize("weight_decay", [0.0, 0.5])
@given(seed=seeds)
def test_sgd_is_its_formula_to_the_bit_in_powers_of_2(
    xp: ModuleType,
    momentum: float,
    dampening: float,
    nesterov: bool,
    weight_decay: float,
    seed: int,
) -> None:
    """A step adds at most 5 binary digits to integers of 4: float64 holds four steps exactly."""
    p, *gradients = np.random.default_rng(seed).integers(-8, 9, (5, 7)).astype(np.float64)
    parameter = nn.Parameter(xp.asarray(p))
    optimizer = optim.SGD([parameter], 0.5, momentum, dampening, weight_decay, nesterov)
    direction = None
    for gradient in gradients:
        parameter.grad = xp.asarray(gradient)
        optimizer.step()
        g = gradient + weight_decay * p
        direction = g if direction is None else momentum * direction + (1 - dampening) * g
        p = p - 0.5 * (g + momentum * direction if nesterov else direction if momentum else g)
        np.testing.assert_array_equal(to_numpy(parameter.data), p)


@given(configuration=configurations, seed=seeds)
def test_a_parameter_whose_gradient_is_forgotten_stays(
    xp: ModuleType, configuration: tuple[str, dict[str, Any]], seed: int
) -> None:
    """Its neighbour in the buffer moves on; weight decay and momentum don't move it either."""
    optimizer = _stepped(xp, *configuration, seed)
    last = optimizer.parameters[1]
    before = to_numpy(last.data).copy()
    last.grad = None
    optimizer.step()
    np.testing.assert_array_equal(to_numpy(last.data), before)
