"""The comparison: it agrees where both are right, and finds and locates what is wrong."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference import carry, compare, page, propagation, step
from reference.bounds import Classification, Dtype
from reference.lockstep import MOMENTS, Drift, Lockstep, free_run
from reference.propagation import Estimate
from reference.twin import Twin
from scratchnet import checkpoint, functional, nn, optim
from scratchnet.backend import Array
from scratchnet.engines import numpy_inplace
from scratchnet.errors import InputError
from scratchnet.training import RECIPES, Normalization, Options, Run
from tests.strategies import dtypes, scales, seeds
from tests.test_cli import ENVIRONMENT
from tests.test_training import some_images

CE = functional.cross_entropy_backward
FUNCTIONS = [f"{name}_{way}" for name in compare.FUNCTIONS for way in ("forward", "backward")]


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_our_functions_pass_the_comparison(name: str, dtype: Dtype) -> None:
    report = compare.function(name, getattr(functional, name), dtype=dtype)
    assert report.ok, str(report)
    assert len(report.differences) >= len(compare.INSTANCES)


def test_options_of_cross_entropy_reach_both_sides() -> None:
    for options in ({"label_smoothing": 0.3}, {"reduction": "none"}, {"ignore_index": 1}):
        for name in ("cross_entropy_forward", "cross_entropy_backward"):
            assert compare.function(name, getattr(functional, name), **options).ok
    wrong = compare.function(
        "cross_entropy_forward",
        lambda logits, target, reduction: functional.cross_entropy_forward(logits, target),
        reduction="sum",
    )
    assert not wrong.ok


WRONG: list[tuple[str, Callable[..., Any], str]] = [
    ("linear_backward", lambda g, x, w: (g @ w, g.T @ x / len(x), g.sum(0)), "grad_weight"),
    ("linear_backward", lambda g, x, w: (g @ w, g.T @ x, g.mean(0)), "grad_bias"),
    ("linear_backward", lambda g, x, w: (g @ w, x.T @ g, g.sum(0)), "grad_weight"),
    ("relu_backward", lambda g, x: g * (x >= 0), "grad_x"),
    ("softmax_forward", lambda x: np.exp(x) / np.exp(x).sum(0), "y"),
    ("linear_forward", lambda x, w, b: x @ w.T, "y"),
    ("sigmoid_forward", lambda x: 1 / (1 + np.exp(-x)) * (1 + 1e-13), "y"),
]


@pytest.mark.parametrize(("name", "mine", "array"), WRONG)
def test_a_wrong_function_is_found_and_located(
    name: str, mine: Callable[..., Any], array: str
) -> None:
    report = compare.function(name, mine)
    assert {each.name for each in report.failures} == {array}
    assert report.failures[0].share > 1 or report.failures[0].problem
    assert "WRONG" in str(report)
    assert str(report.failures[0]) in str(report)


def _changes_its_argument(g: Array, x: Array) -> Array:
    g[x <= 0] = 0
    return g


def _raises(g: Array, x: Array) -> Array:
    raise RuntimeError("not written yet")


@pytest.mark.parametrize(
    ("mine", "words"),
    [
        (_changes_its_argument, "changed its arguments"),
        (_raises, "RuntimeError: not written yet"),
        (lambda g, x: (g, x), "2 result(s); expected grad_x"),
        (lambda g, x: g.tolist(), "of type list; expected a NumPy array"),
        (lambda g, x: g.T, "is float64 (3, 5); expected float64 (5, 3)"),
        (lambda g, x: g.astype(np.float32), "is float32 (5, 3); expected float64 (5, 3)"),
        (lambda g, x: np.where(x > 0, g, np.nan), "is nan; PyTorch's is 0"),
        (lambda g, x: None, "is there a return?"),
        (lambda g, x: sys.exit(3), "SystemExit: 3"),
        (lambda g, x: (x.resize((3, 5)), g)[1], "changed its arguments"),
        (lambda g, x: np.full_like(g, np.nan), "is nan; PyTorch's is"),
    ],
)
def test_a_function_that_cant_be_judged_is_told_why(mine: Callable[..., Any], words: str) -> None:
    report = compare.function("relu_backward", mine)
    assert words in str(report.failures[0])


def test_an_unknown_name_is_told_the_known_ones() -> None:
    for name in ("linear", "tanh_backward", "linear_sideways"):
        with pytest.raises(ValueError, match="expected one of linear, relu, sigmoid"):
            compare.function(name, np.tanh)


def my_forward(parameters: compare.Parameters, x: Array) -> Array:
    hidden = np.maximum(x @ parameters["lin1.weight"].T + parameters["lin1.bias"], 0)
    return np.asarray(hidden @ parameters["lin2.weight"].T + parameters["lin2.bias"])


def my_backward(parameters: compare.Parameters, x: Array, target: Array) -> dict[str, Array]:
    z = x @ parameters["lin1.weight"].T + parameters["lin1.bias"]
    hidden = np.maximum(z, 0)
    logits = hidden @ parameters["lin2.weight"].T + parameters["lin2.bias"]
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    p[np.arange(len(x)), target] -= 1
    p /= len(x)
    grad_z = (p @ parameters["lin2.weight"]) * (z > 0)
    return {
        "lin1.weight": grad_z.T @ x,
        "lin1.bias": grad_z.sum(axis=0),
        "lin2.weight": p.T @ hidden,
        "lin2.bias": p.sum(axis=0),
    }


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_model_in_somebodys_own_style_passes(dtype: Dtype) -> None:
    assert compare.model(my_forward, my_backward, dtype=dtype).ok


def test_a_model_without_the_mask_is_wrong_from_the_first_layer_on() -> None:
    def unmasked(parameters: compare.Parameters, x: Array, target: Array) -> dict[str, Array]:
        shifted = dict(parameters) | {"lin1.bias": parameters["lin1.bias"] + 1e6}
        right = my_backward(parameters, x, target)
        return right | {"lin1.bias": my_backward(shifted, x, target)["lin1.bias"]}

    report = compare.model(my_forward, unmasked)
    assert {each.name for each in report.failures} == {"lin1.bias"}
    assert report.cause.startswith("db1: ")
    missing = compare.model(my_forward, lambda *_: {})
    assert "backward returned []; expected a dict of" in str(missing.failures[0])


def test_a_mask_that_is_open_at_0_and_changed_parameters_are_found() -> None:
    def open_at_0(parameters: compare.Parameters, x: Array, target: Array) -> dict[str, Array]:
        z = x @ parameters["lin1.weight"].T + parameters["lin1.bias"]
        tipped = dict(parameters) | {
            "lin1.bias": parameters["lin1.bias"] + 1e-300 * (z == 0).all(axis=0)
        }
        return my_backward(tipped, x, target)

    report = compare.model(my_forward, open_at_0)
    assert {each.name for each in report.failures} >= {"lin1.bias"}

    def descends(parameters: compare.Parameters, x: Array, target: Array) -> dict[str, Array]:
        grads = my_backward(parameters, x, target)
        parameters["lin2.bias"][:] -= 0.1 * grads["lin2.bias"]
        return grads

    report = compare.model(my_forward, descends)
    assert "lin2.bias has been changed" in str(report.failures[0])
    assert report.cause.startswith("network_backward changes b2")


def test_the_cause_of_wrong_gradients_is_told_by_their_names() -> None:
    def summed(parameters: compare.Parameters, x: Array, target: Array) -> dict[str, Array]:
        gradients = my_backward(parameters, x, target)
        return {name: len(x) * gradient for name, gradient in gradients.items()}

    def without_bias(parameters: compare.Parameters, x: Array) -> Array:
        return np.asarray(my_forward(parameters, x) - parameters["lin2.bias"])

    report = compare.model(my_forward, summed)
    assert "the 1/N is missing" in report.cause
    assert "dW1, db1, dW2, db2 are the gradients of lin1.weight, lin1.bias" in report.cause
    report = compare.model(without_bias, my_backward)
    assert {each.name for each in report.failures} == {"logits"}
    assert report.cause == "", "the gradients are right: backward makes its own logits"


def test_softmax_without_its_maximum_is_found() -> None:
    def naive(x: Array) -> Array:
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True))

    assert not compare.function("softmax_forward", naive).ok


@pytest.mark.parametrize("n", [64, 4096, 60_000])
def test_the_bound_stays_small_for_large_batches(n: int) -> None:
    """A loss or a gradient that is wrong by a twentieth is never taken for rounding, in float32."""
    rng = np.random.default_rng(0)
    parameters = nn.Mnist_NN(device="cpu", generator=rng).state_dict()
    x: Array = rng.normal(size=(n, 784)).astype(np.float32)
    limits = step.estimate(np.float32, parameters, x, rng.integers(0, 10, n))
    assert limits["loss"].error < 0.05 * limits["loss"].value
    assert limits["grad lin2"].error.max() < 0.05 * abs(limits["grad lin2"].value).max()


def test_options_and_dtypes_that_cant_be_compared_are_told() -> None:
    for options in ({"alpha": 1}, {"weight": np.ones(3)}):
        with pytest.raises(ValueError, match="can't be compared; expected"):
            compare.function("cross_entropy_forward", functional.cross_entropy_forward, **options)
    with pytest.raises(ValueError, match="dtype is"):
        compare.function("relu_forward", functional.relu_forward, dtype=np.float16)  # type: ignore[arg-type]


@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize(
    "case",
    [
        {"p": 51.9, "g": 0.3, "lr": 1.51, "weight_decay": 10.0},
        {"p": 0.0, "g": -6.2566915e-32, "lr": 1.0245890702902788e-12, "eps": 6.02e-12},
        {"p": 1.0, "g": 0.0, "lr": 1e-3, "eps": 0.0},
        {"p": 1.0, "g": 3.2334467e-37, "lr": 9.478e-11, "eps": 0.0},
    ],
)
def test_states_at_the_edge_are_within_the_bound_of_adam(
    case: dict[str, float], decoupled: bool
) -> None:
    """Strong decay, subnormal products, and a root of 0 without eps."""
    options: dict[str, Any] = {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0} | case
    p, g = (np.array([options.pop(name)], np.float32) for name in "pg")
    zero = np.zeros(1, np.float32)
    theirs, *_ = step.adam_of_pytorch(p, g, zero, zero, 1, decoupled=decoupled, **options)
    limit = propagation.adam(np.float32, p, g, zero, zero, 1, decoupled=decoupled, **options)
    parameter = nn.Parameter(p)
    optimizer = (optim.AdamW if decoupled else optim.Adam)([parameter], **options)
    parameter.grad = g
    optimizer.step()
    each = compare.difference("p", "", parameter.data, theirs, 2 * limit.parameter.error)
    assert each.ok, str(each)


def my_adam(
    p: Array, g: Array, m: Array, v: Array, t: int, correct: bool = True, eps: float = 1e-8
) -> tuple[Array, Array, Array]:
    m = 0.9 * m + 0.1 * g
    v = 0.999 * v + 0.001 * g * g
    m_hat = m / (1 - 0.9**t) if correct else m
    v_hat = v / (1 - 0.999**t) if correct else v
    return p - 1e-3 * m_hat / (np.sqrt(v_hat) + eps), m, v


def test_adam_as_the_paper_writes_it_passes_and_its_mistakes_dont() -> None:
    """p alone shows a missing correction, and eps where gradients are as small as eps."""
    assert compare.adam(my_adam).ok
    for mistake in ({"correct": False}, {"eps": 1e-7}, {"eps": 0.0}):
        report = compare.adam(lambda *state, m=mistake: my_adam(*state, **m))
        assert {each.name for each in report.failures} == {"p"}
        assert report.cause.startswith("new_p: ")


def test_adamw_passes_and_is_told_from_l2() -> None:
    def adamw(p: Array, g: Array, m: Array, v: Array, t: int) -> tuple[Array, Array, Array]:
        return my_adam(p * (1 - 1e-3 * 0.1), g, m, v, t)

    def l2(p: Array, g: Array, m: Array, v: Array, t: int) -> tuple[Array, Array, Array]:
        return my_adam(p, g + 0.1 * p, m, v, t)

    assert compare.adam(adamw, weight_decay=0.1, decoupled=True).ok
    assert compare.adam(l2, weight_decay=0.1).ok
    wrong = compare.adam(adamw, weight_decay=0.1)
    assert not wrong.ok
    assert not wrong.cause, "the diagnosis knows Adam with its defaults only"
    assert not compare.adam(l2, weight_decay=0.1, decoupled=True).ok


@given(
    seed=seeds,
    dtype=dtypes,
    scale=scales,
    sizes=st.tuples(*[st.integers(1, 40)] * 4),
)
def test_a_whole_step_of_mnist_nn_is_within_its_composed_bound(
    seed: int, dtype: Dtype, scale: float, sizes: tuple[int, int, int, int]
) -> None:
    """Activations, loss and gradients, ours and PyTorch's, each within the error of the exact."""
    n, d, h, c = sizes
    rng = np.random.default_rng(seed)
    model = nn.Mnist_NN(d, h, c, device="cpu", dtype=dtype)
    for _, parameter in model.named_parameters():
        parameter.data = (scale * rng.normal(size=parameter.shape)).astype(dtype)
    x: Array = (scale * rng.normal(size=(n, d))).astype(dtype)
    target = rng.integers(0, c, n)
    parameters = model.state_dict()
    ours = step.of_scratchnet(model, x, target)
    theirs = step.of_pytorch(step.network(parameters), x, target)
    limits = step.estimate(dtype, parameters, x, target)
    assert ours.keys() == theirs.keys() == limits.keys()
    for name, limit in limits.items():
        each = compare.difference(name, "", ours[name], theirs[name], 2 * limit.error)
        assert each.ok, str(each)


@given(
    seed=seeds,
    dtype=dtypes,
    scale=st.sampled_from([0.1, 1.0, 3.0]),
    widths=st.lists(st.integers(1, 30), min_size=2, max_size=6),
    activation=st.sampled_from(["ReLU", "Sigmoid"]),
    options=st.fixed_dictionaries(
        {
            "label_smoothing": st.sampled_from([0.0, 0.1]),
            "reduction": st.sampled_from(["mean", "sum"]),
        }
    ),
)
def test_a_network_of_any_depth_is_within_its_composed_bound(
    seed: int,
    dtype: Dtype,
    scale: float,
    widths: list[int],
    activation: str,
    options: dict[str, Any],
) -> None:
    """Up to five layers: loss and every gradient, of the parameters and of the input."""
    rng = np.random.default_rng(seed)
    n, (first, *_, classes) = int(rng.integers(1, 30)), widths
    pairs = list(itertools.pairwise(widths))
    linears = [nn.Linear(d, h, device="cpu", dtype=dtype, generator=rng) for d, h in pairs]
    for linear in linears:
        linear.weight.data = linear.weight.data * dtype(scale)
    between = nn.ReLU if activation == "ReLU" else nn.Sigmoid
    model = nn.Sequential(*itertools.chain(*((linear, between()) for linear in linears)))
    model.layers = model.layers[:-1]
    x: Array = rng.normal(size=(n, first)).astype(dtype)
    target = rng.integers(0, classes, n)

    loss_func = nn.CrossEntropyLoss(**options)
    ours = {"loss": np.asarray(loss_func(model(x), target))}
    ours["x"] = model.backward(loss_func.backward())
    for i, linear in enumerate(linears):
        for kind, parameter in linear.named_parameters():
            assert parameter.grad is not None
            ours[f"{i}.{kind}"] = parameter.grad

    theirs = _by_autograd(linears, activation, x, target, options)
    limits = _estimates(dtype, linears, activation, x, target, options)
    assert ours.keys() == theirs.keys() == limits.keys()
    for name, limit in limits.items():
        each = compare.difference(name, "", ours[name], theirs[name], 2 * limit.error)
        assert each.ok, str(each)


def _estimates(
    dtype: Dtype,
    linears: list[nn.Linear],
    activation: str,
    x: Array,
    target: Array,
    options: dict[str, Any],
) -> dict[str, Estimate]:
    """The loss and all gradients with their errors."""
    inputs, outputs = [propagation.exact(x)], []
    for linear in linears:
        assert linear.bias is not None
        z = propagation.linear(dtype, inputs[-1], linear.weight.data, linear.bias.data)
        outputs.append(z)
        relu = activation == "ReLU"
        inputs.append(propagation.relu(z) if relu else propagation.sigmoid(dtype, z))
    problem = Classification.of(outputs[-1].value, target, **options)
    found = {"loss": propagation.cross_entropy(dtype, outputs[-1], problem)}
    grad = propagation.cross_entropy_backward(dtype, outputs[-1], problem)
    for i in reversed(range(len(linears))):
        weight = linears[i].weight.data
        results = propagation.linear_backward(dtype, grad, inputs[i], weight)
        grad, found[f"{i}.weight"], found[f"{i}.bias"] = results
        if i > 0 and activation == "ReLU":
            grad = propagation.relu_backward(grad, outputs[i - 1])
        elif i > 0:
            grad = propagation.sigmoid_backward(dtype, grad, outputs[i - 1])
    return found | {"x": grad}


def _by_autograd(
    linears: list[nn.Linear], activation: str, x: Array, target: Array, options: dict[str, Any]
) -> dict[str, Array]:
    """The same network in PyTorch: its loss, and the gradients of x and of all parameters."""
    leaves = {"x": torch.from_numpy(x.copy()).requires_grad_()}
    y = leaves["x"]
    for i, linear in enumerate(linears):
        for kind, parameter in linear.named_parameters():
            leaves[f"{i}.{kind}"] = torch.from_numpy(parameter.data.copy()).requires_grad_()
        y = torch.nn.functional.linear(y, leaves[f"{i}.weight"], leaves[f"{i}.bias"])
        if i < len(linears) - 1:
            y = torch.relu(y) if activation == "ReLU" else torch.sigmoid(y)
    loss = torch.nn.functional.cross_entropy(y, torch.from_numpy(target), **options)
    grads = torch.autograd.grad(loss, [*leaves.values()])
    found = {name: grad.numpy() for name, grad in zip(leaves, grads, strict=True)}
    return found | {"loss": loss.detach().numpy()}


@given(
    seed=seeds,
    dtype=dtypes,
    scale=scales,
    t=st.sampled_from([1, 2, 10, 1000]),
    size=scales,
    options=st.fixed_dictionaries(
        {
            "lr": st.sampled_from([1e-3, 1e-2, 1.0]),
            "betas": st.tuples(
                st.sampled_from([0.0, 0.5, 0.9]), st.sampled_from([0.0, 0.9, 0.999])
            ),
            "eps": st.sampled_from([1e-10, 1e-8, 1e-3]),
            "weight_decay": st.sampled_from([0.0, 1e-2, 0.5]),
            "decoupled": st.booleans(),
        }
    ),
)
def test_a_step_of_adam_is_within_its_bound(
    seed: int, dtype: Dtype, scale: float, t: int, size: float, options: dict[str, Any]
) -> None:
    """Ours and PyTorch's from the same state, whatever it is, entry by entry."""
    rng = np.random.default_rng(seed)
    p, g, m = (
        (factor * rng.normal(size=9)).astype(dtype) for factor in (size, scale * 1e-4, scale * 1e-4)
    )
    v = ((scale * 1e-4) ** 2 * rng.random(9)).astype(dtype)
    kind = optim.AdamW if options["decoupled"] else optim.Adam
    parameter = nn.Parameter(p)
    settings = {name: value for name, value in options.items() if name != "decoupled"}
    optimizer = kind([parameter], **settings)
    groups = optimizer.state_dict()["param_groups"]
    state = {0: {"step": t - 1, "exp_avg": m, "exp_avg_sq": v}}
    optimizer.load_state_dict({"param_groups": groups, "state": state})
    parameter.grad = g
    optimizer.step()
    after = optimizer.state_dict()["state"][0]
    ours = parameter.data, after["exp_avg"], after["exp_avg_sq"]
    theirs = step.adam_of_pytorch(p, g, m, v, t, **options)
    limits = propagation.adam(dtype, p, g, m, v, t, **options)
    errors = (limits.parameter.error, limits.exp_avg.error, limits.exp_avg_sq.error)
    for name, mine, value, error in zip("pmv", ours, theirs, errors, strict=True):
        each = compare.difference(name, "", mine, value, 2 * error)
        assert each.ok, str(each)


@given(
    seed=seeds,
    dtype=dtypes,
    t=st.sampled_from([1, 2, 10, 1000]),
    scale=st.floats(-11, -1).map(lambda exponent: float(10**exponent)),
    off=st.floats(-8, 1).map(lambda exponent: float(10**exponent)),
    share=st.floats(-1, 1) | st.sampled_from([-1.0, 1.0]),
    options=st.fixed_dictionaries(
        {
            "lr": st.just(1e-3),
            "betas": st.sampled_from([(0.9, 0.999), (0.9, 0.99), (0.0, 0.9), (0.9, 0.0)]),
            "eps": st.sampled_from([1e-10, 1e-8, 1e-3]),
            "weight_decay": st.sampled_from([0.0, 1e-2]),
            "decoupled": st.booleans(),
        }
    ),
)
def test_a_step_of_adam_from_any_gradient_within_an_estimate_is_within_its_bound(
    seed: int,
    dtype: Dtype,
    t: int,
    scale: float,
    off: float,
    share: float,
    options: dict[str, Any],
) -> None:
    """The gradient is off by 1e-8 of itself, or by ten times itself; m and √v are up to ten times
    as large, or small."""
    rng = np.random.default_rng(seed)
    p, g = rng.normal(size=9).astype(dtype), (scale * rng.normal(size=9)).astype(dtype)
    sizes = scale * rng.normal(size=9) * 10 ** rng.uniform(-1, 1, (2, 9)) * (t > 1)
    m, v = sizes[0].astype(dtype), (sizes[1] ** 2).astype(dtype)
    given = Estimate(g.astype(np.float64), off * np.abs(g))
    other = (given.value + share * given.error).astype(dtype)
    other = np.where(np.abs(other - given.value) <= given.error, other, g)
    p_after, *moments = step.adam_of_pytorch(p, other, m, v, t, **options)
    limits = propagation.adam(dtype, p, given, m, v, t, **options)
    for name, limit, theirs in zip("mvp", limits, (*moments, p_after), strict=True):
        # In float64 the estimate's value has rounded as much as any other.
        bound = limit.error * (1 + (dtype is np.float64))
        each = compare.difference(name, "", theirs.astype(np.float64), limit.value, bound)
        assert each.ok, str(each)


def test_the_first_step_hangs_on_the_sign_of_a_gradient_and_hardly_on_its_size() -> None:
    """It moves a number by lr g / (|g| + eps). Where |g| is far above eps and above its own error
    e, that is off by lr eps e / g², though either moment is by e / g of itself; and where even the
    sign is open, lr this way or lr that way is right."""
    zero = np.zeros(1)

    def error(g: float, e: float) -> float:
        grad = Estimate(zero + g, zero + e)
        options: dict[str, Any] = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8}
        after = propagation.adam(np.float64, zero, grad, zero, zero, 1, **options)
        return float(after.parameter.error[0])

    assert error(1e-3, 1e-6) == pytest.approx(1e-3 * 1e-8 * 1e-6 / 1e-3**2, rel=0.01)
    assert 1e-3 < error(1e-6, 1e-3) < 2.001e-3


@given(
    seed=seeds,
    dtype=dtypes,
    mean=st.sampled_from([0.0, 0.1307, -2.0]),
    std=st.sampled_from([1.0, 0.3081, 7.0]),
)
def test_inputs_that_somebody_else_normalizes_are_within_their_error(
    seed: int, dtype: Dtype, mean: float, std: float
) -> None:
    """As layers does, and as pixel · a + b; and where nothing is added, 0 stays 0."""
    images, _ = some_images(seed, 3)
    normalization = Normalization(mean, std)
    given = step.inputs(dtype, normalization(images, dtype), normalization)
    most, m, s = np.array([255, mean, std], dtype)
    theirs = images.astype(dtype) * (1 / (most * s)) - m / s
    each = compare.difference("x", "", theirs, given.value.astype(dtype), given.error)
    assert each.ok, str(each)
    assert mean or (given.error[images == 0] == 0).all()


@pytest.mark.parametrize("recipe", [*RECIPES])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_lock_step_finds_no_difference(recipe: str, dtype: Dtype) -> None:
    options = Options(recipe, epochs=2, batch_size=16, hidden=20)
    lockstep = Lockstep.start(options, some_images(0, 40), dtype, "cpu")
    assert list(lockstep.steps(6)) == [1, 2, 3, 4, 5, 6]
    assert lockstep.report.ok, str(lockstep.report)
    assert len(lockstep.report.by_name()) == 3 + 1 + 3 + 4 + 3 * 4
    assert lockstep.run.model.lin1.weight.shape == (20, 784)


@pytest.mark.parametrize(
    ("name", "wrong", "first"),
    [
        ("relu_backward", lambda g, x: g, "grad lin1"),
        ("linear_forward", lambda x, w, b=None: x @ w.T + 1.0001 * b, "lin1"),
        ("cross_entropy_backward", lambda *a, **k: 1.0001 * CE(*a, **k), "grad lin2"),
    ],
)
def test_lock_step_names_the_first_array_that_is_wrong(
    monkeypatch: pytest.MonkeyPatch, name: str, wrong: Callable[..., Any], first: str
) -> None:
    monkeypatch.setattr(functional, name, wrong)
    lockstep = Lockstep.start(Options(batch_size=8), some_images(0, 20), np.float64, "cpu")
    list(lockstep.steps(2))
    assert lockstep.report.failures[0].name == first
    assert lockstep.report.failures[0].place == "step 1"


def test_lock_step_judges_the_optimizer_from_the_same_gradient(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A wrong gradient is not held against Adam, and a wrong Adam not against the gradients."""
    update = optim.Adam.update

    def hasty(self: optim.Adam, p: Array, g: Array, step: int, *state: Array) -> None:
        update(self, p, g, step + 1, *state)

    monkeypatch.setattr(optim.Adam, "update", hasty)
    lockstep = Lockstep.start(Options("adam", batch_size=8), some_images(0, 20), np.float64, "cpu")
    list(lockstep.steps(3))
    assert {each.name for each in lockstep.report.failures} == {*step.PARAMETERS}


@pytest.mark.parametrize("recipe", [*RECIPES])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_lock_step_shows_an_engine_beside_layers(recipe: str, dtype: Dtype) -> None:
    options = Options(recipe, batch_size=16, hidden=20)
    lockstep = Lockstep.start(options, some_images(0, 40), dtype, "cpu", "numpy_inplace")
    list(lockstep.steps(3))
    assert lockstep.report.ok, str(lockstep.report)
    names = {*lockstep.report.by_name()}
    moments = {f"{kind} {name}" for kind in MOMENTS for name in step.PARAMETERS}
    assert len(names) == 23 + 13
    assert {f"numpy_inplace: {name}" for name in {"loss", *step.PARAMETERS} | moments} <= names


RIGHT = {**vars(numpy_inplace.Engine)}


def _wrong_bias_gradient(self: numpy_inplace.Engine, arena: numpy_inplace.Arena) -> None:
    RIGHT["_backward"](self, arena)
    self.grads[1][:] *= 1.0001


WRONG_ENGINES: list[tuple[str, Callable[..., Any], set[str]]] = [
    ("_cross_entropy", lambda *a: RIGHT["_cross_entropy"](*a) * (1 + 1e-9), {"loss"}),
    ("_adam", lambda self, lr: RIGHT["_adam"](self, 1.001 * lr), {*step.PARAMETERS}),
    ("_backward", _wrong_bias_gradient, {"lin1.bias", *(f"{kind} lin1.bias" for kind in MOMENTS)}),
]


@pytest.mark.parametrize(("method", "wrong", "arrays"), WRONG_ENGINES)
def test_lock_step_names_what_an_engine_has_wrong(
    monkeypatch: pytest.MonkeyPatch, method: str, wrong: Callable[..., Any], arrays: set[str]
) -> None:
    """And nothing else: not layers' own, nor what a wrong number has not touched."""
    monkeypatch.setattr(numpy_inplace.Engine, method, wrong)
    options = Options("adam", batch_size=8, hidden=20)
    lockstep = Lockstep.start(options, some_images(0, 20), np.float64, "cpu", "numpy_inplace")
    list(lockstep.steps(3))
    assert {each.name for each in lockstep.report.failures} == {
        f"numpy_inplace: {name}" for name in arrays
    }
    assert "WRONG" in str(lockstep.report)


def test_the_free_run_is_the_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    options = Options("adam", batch_size=8, hidden=20)
    data = some_images(0, 40)
    assert free_run(options, data, np.float64, engine="numpy_inplace").ok
    monkeypatch.setattr(numpy_inplace.Engine, "_adam", WRONG_ENGINES[1][1])
    assert not free_run(options, data, np.float64, engine="numpy_inplace").ok
    assert free_run(options, data, np.float64).ok


def test_the_free_run_has_a_limit_only_where_it_is_stable() -> None:
    def drift(recipe: str, dtype: Dtype) -> Any:
        return free_run(Options(recipe, batch_size=8), some_images(0, 40), dtype)

    assert drift("adam", np.float32).judged == 0
    assert drift("tutorial", np.float64).judged == 5
    stable = drift("one-cycle", np.float64)
    assert stable.ok
    assert stable.judged == 5
    assert not dataclasses.replace(stable, parameters=[0.0, 2e-9]).ok
    assert not dataclasses.replace(stable, parameters=[0.0, np.nan, 0.0]).ok
    assert len(stable.parameters) == len(stable.losses) == 5


def test_a_run_that_has_become_nan_is_beyond_its_limit_on_the_page_and_null_in_json() -> None:
    lost = Drift("float64", [0.0, np.nan], [1e-15, np.nan, np.inf], judged=3)
    assert "nan after 3 steps, BEYOND the limit" in page.explain(lost)
    found = page.as_json(compare.Report(), [lost], {})
    (drift,) = json.loads(json.dumps(found, allow_nan=False))["drift"]
    assert (drift["ok"], drift["parameters"]) == (False, [1e-15, None, None])


def test_the_page_lists_the_first_failure_of_each_array_in_the_order_found() -> None:
    places = (("A", 1), ("B", 1), ("B", 2), ("A", 2))
    wrong = [compare.Difference(name, f"step {at}", (), problem="is lost") for name, at in places]
    text = page.as_html(compare.Report(wrong), [Drift("float64", [0.0], [0.0], 1)], {})
    assert re.findall("<li>(.*?)</li>", text) == ["step 1: A is lost", "step 1: B is lost"]


def reference_command(*arguments: object, program: str | None = None) -> Any:
    start = ["-m", "reference"] if program is None else ["-c", program]
    return subprocess.run(
        [sys.executable, *start, *map(str, arguments)],
        env=ENVIRONMENT,
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_leaves_a_table_a_json_file_and_a_page(tmp_path: Path) -> None:
    """With the rows of layers, and of an engine."""
    done = reference_command(
        "--steps", 5, "--dtype", "float64", "--batch-size", 512, "--recipe", "adam",
        "--engine", "numpy_inplace", "--json", tmp_path / "c.json", "--html", tmp_path / "c.html",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "equal up to rounding" in done.stdout
    assert "within the limit of 1e-09" in done.stdout
    found = json.loads((tmp_path / "c.json").read_text())
    assert found["ok"] is True
    assert found["machine"]["torch"] == torch.__version__.split("+")[0]
    assert found["configuration"]["engine"] == "numpy_inplace"
    assert len(found["differences"]) == 5 * (23 + 13)
    assert all(each["ok"] and each["share"] <= 1 for each in found["differences"])
    (drift,) = found["drift"]
    assert len(drift["parameters"]) == drift["judged"] == 98
    text = (tmp_path / "c.html").read_text()
    assert text.count("<svg") == 2
    assert text.count("<td>numpy_inplace: exp_avg ") == 4
    loaded = re.findall(r"""(?:src|href)\s*=\s*["']([^"'#][^"']*)""", text)
    assert [link for link in loaded if not link.startswith("#")] == []


def test_an_engine_that_cant_be_used_here_is_told() -> None:
    program = (
        "import os, runpy\n"
        "os.environ['CC'] = 'no-such-compiler'\n"
        "runpy.run_module('reference', run_name='__main__')"
    )
    done = reference_command("--engine", "native", program=program)
    assert done.returncode == 2
    assert done.stderr.startswith("Error: engine native: ")


def test_a_missing_folder_is_told_before_anything_is_compared(tmp_path: Path) -> None:
    done = reference_command("--json", tmp_path / "missing" / "c.json")
    assert done.returncode == 2
    assert done.stderr.startswith(f"Error: {tmp_path}")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_free_run_catches_what_lock_step_takes_for_given(dtype: str) -> None:
    """A default of ours that is not PyTorch's, here eps, or gradients that are never forgotten."""
    program = (
        "from scratchnet import optim\n"
        "optim.Adam.__init__.__defaults__ = (1e-3, (0.9, 0.999), 1e-7, 0.0, False)\n"
        "import runpy\n"
        "runpy.run_module('reference', run_name='__main__')"
    )
    arguments = ["--steps", 1, "--batch-size", 2048, "--dtype", dtype, "--recipe", "adam"]
    done = reference_command(*arguments, program=program)
    assert done.returncode == 1
    assert "BEYOND the limit" in done.stdout


def test_the_command_fails_where_a_number_is_wrong() -> None:
    program = (
        "from scratchnet import functional\n"
        "right = functional.relu_backward\n"
        "functional.relu_backward = lambda g, x: right(g, x) * 1.000001\n"
        "import runpy\n"
        "runpy.run_module('reference', run_name='__main__')"
    )
    arguments = ["--steps", 1, "--batch-size", 4096, "--dtype", "float64"]
    done = reference_command(*arguments, program=program)
    assert done.returncode == 1
    assert "NOT equal" in done.stdout
    assert re.search(r"step 1: grad lin1\[\d+, \d+\] is .* times its bound", done.stdout)


@settings(max_examples=30)
@given(
    recipe=st.sampled_from(["adam", "one-cycle"]),
    switch=st.integers(0, 6),
    direction=st.sampled_from(["to scratchnet", "to PyTorch"]),
    seed=st.integers(0, 100),
)
def test_a_run_goes_on_in_the_other_library(
    tmp_path_factory: pytest.TempPathFactory, recipe: str, switch: int, direction: str, seed: int
) -> None:
    """Float64, seven steps, at any step over to the other library by a file: the losses are those
    of a run that stayed, to 1e-11, and the parameters to 1e-9 (as in the training loop's test)."""
    path = tmp_path_factory.mktemp("carry") / "state.safetensors"
    options = Options(recipe, batch_size=4, hidden=5, seed=seed)
    stayed, moved = (Run(options, some_images(seed, 27), "cpu", np.float64) for _ in range(2))
    twin = Twin(moved)
    for number, (x, y, lr) in enumerate(stayed.batches(0, 7)):
        if number == switch and direction == "to scratchnet":
            carry.save_state(path, twin.model, twin.optimizer)
            checkpoint.load_state(path, moved.model, moved.optimizer)
        elif number == switch:
            checkpoint.save_state(path, moved.model, moved.optimizer)
            carry.load_state(path, twin.model, twin.optimizer)
        in_pytorch = (number < switch) == (direction == "to scratchnet")
        if in_pytorch:
            twin.optimizer.param_groups[0]["lr"] = lr
            loss = twin.update(x, y, lr)
        else:
            loss = moved.update(x, y, lr)
        assert abs(loss - stayed.update(x, y, lr)) < 1e-11
    if in_pytorch:
        assert twin.distance(stayed) < 1e-9
    else:
        for mine, theirs in zip(moved.model.parameters(), stayed.model.parameters(), strict=True):
            assert abs(mine.data - theirs.data).max() < 1e-9


def test_pytorch_takes_over_the_checkpoint_of_a_run(tmp_path: Path) -> None:
    run = Run(Options("adam", batch_size=4, hidden=5), some_images(0, 27), "cpu", np.float64)
    twin = Twin(run)
    for x, y, lr in run.batches(0, 3):
        run.update(x, y, lr)
    checkpoint.save_run(tmp_path / "run", run)
    carry.load_state(tmp_path / "run", twin.model, twin.optimizer)
    for x, y, lr in run.batches(3, 7):
        assert abs(run.update(x, y, lr) - twin.update(x, y, lr)) < 1e-11


def test_a_state_of_another_model_is_refused(tmp_path: Path) -> None:
    model = nn.Mnist_NN(4, 3, 2, device="cpu")
    checkpoint.save_state(tmp_path / "s", model, optim.Adam(model.parameters()))
    other = nn.Mnist_NN(4, 5, 2, device="cpu")
    with pytest.raises(InputError, match="no state of this model"):
        checkpoint.load_state(tmp_path / "s", other, optim.Adam(other.parameters()))


def test_the_cause_of_what_is_wrong_is_told() -> None:
    def halved(grad_output: Array, x: Array, weight: Array) -> tuple[Array, Array, Array]:
        grad_x, grad_weight, grad_bias = functional.linear_backward(grad_output, x, weight)
        return grad_x, grad_weight, grad_bias / len(x)

    report = compare.function("linear_backward", halved)
    assert report.cause.startswith("grad_bias: every entry is ")
    assert str(report).endswith(report.cause)
    right = compare.function("linear_backward", functional.linear_backward)
    assert right.cause == ""


def test_of_what_diagnosis_finds_right_no_cause_is_told() -> None:
    """It tries few instances in float32, and knows nothing of options that were given."""

    def coarse(x: Array) -> Array:
        is_small = x.dtype == np.float32 and x.size < 50
        return np.where(x < 0, 0, x + (1e-3 if is_small else 0)).astype(x.dtype)

    def mean_alone(logits: Array, target: Array, reduction: str) -> Array:
        return np.asarray(functional.cross_entropy_forward(logits, target))

    report = compare.function("relu_forward", coarse, dtype=np.float32)
    assert not report.ok
    assert report.cause == ""
    report = compare.function("cross_entropy_forward", mean_alone, reduction="sum")
    assert not report.ok
    assert report.cause == ""
