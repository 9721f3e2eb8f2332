"""Layers and networks: equal to PyTorch's modules, and sound in what they remember."""

from __future__ import annotations

import itertools
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reference import mnist_nn
from scratchnet import functional, nn
from scratchnet.backend import Array, to_numpy
from scratchnet.errors import InputError
from tests.strategies import dtypes, seeds


def device(xp: ModuleType) -> str:
    return "cpu" if xp is np else "cuda"


def gradient(parameter: nn.Parameter) -> Array:
    assert parameter.grad is not None
    return to_numpy(parameter.grad)


def twin(model: nn.Module, network: torch.nn.Module, dtype: type) -> torch.nn.Module:
    """The PyTorch network with the same parameters and dtype."""
    network.to(torch.float32 if dtype is np.float32 else torch.float64)
    state = {name: to_numpy(value) for name, value in model.state_dict().items()}
    network.load_state_dict(mnist_nn.from_scratchnet(state))
    return network


def assert_equal_everywhere(
    model: nn.Module, network: torch.nn.Module, xp: ModuleType, x: Array, grad_output: Array
) -> None:
    """Output, input gradient and every parameter's gradient, bit for bit."""
    x_torch = torch.from_numpy(x).requires_grad_()
    y_torch = network(x_torch)
    y_torch.backward(torch.from_numpy(grad_output))
    y = model(xp.asarray(x))
    grad_x = model.backward(xp.asarray(grad_output))
    np.testing.assert_array_equal(to_numpy(y), y_torch.detach().numpy(), strict=True)
    assert x_torch.grad is not None
    np.testing.assert_array_equal(to_numpy(grad_x), x_torch.grad.numpy(), strict=True)
    parameters = dict(model.named_parameters())
    for name, parameter_torch in network.named_parameters():
        assert parameter_torch.grad is not None
        np.testing.assert_array_equal(
            gradient(parameters[name]), parameter_torch.grad.numpy(), strict=True
        )


@given(
    seed=seeds, dtype=dtypes, size=st.integers(1, 16), square=st.booleans(), batch=st.integers(1, 9)
)
def test_mnist_nn_is_exact_on_the_integer_lattice(
    xp: ModuleType, seed: int, dtype: type, size: int, square: bool, batch: int
) -> None:
    """Integers up to 8: sums stay below 8·16·(8·16·8 + 8) + 8 < 2^24, so no order can matter."""
    rng = np.random.default_rng(seed)
    d, h, c = (size, size, size) if square else rng.integers(1, 17, 3).tolist()
    n = size if square else batch
    model = nn.Mnist_NN(d, h, c, device=device(xp), dtype=dtype)
    for _, parameter in model.named_parameters():
        parameter.data = xp.asarray(rng.integers(-8, 9, parameter.shape).astype(dtype))
    network = twin(model, mnist_nn.Mnist_NN(d, h, c), dtype)
    x: Array = rng.integers(-8, 9, (n, d)).astype(dtype)
    grad_output: Array = rng.integers(-8, 9, (n, c)).astype(dtype)
    assert_equal_everywhere(model, network, xp, x, grad_output)


@given(seed=seeds, dtype=dtypes)
def test_a_first_layer_may_leave_out_the_gradient_of_its_data(
    xp: ModuleType, seed: int, dtype: type
) -> None:
    """And the gradients of its parameters are the same, bit for bit."""
    rng = np.random.default_rng(seed)
    x, grad_output = (xp.asarray(rng.normal(size=(5, k)).astype(dtype)) for k in (4, 3))
    layer = nn.Linear(4, 3, device=device(xp), dtype=dtype, generator=rng)
    grads = []
    for layer.needs_grad_x in (True, False):
        layer(x)
        grad_x = layer.backward(grad_output)
        assert (grad_x is not None) == layer.needs_grad_x
        grads.append([gradient(parameter).copy() for parameter in layer.parameters()])
        layer.zero_grad()
    for first, second in zip(*grads, strict=True):
        np.testing.assert_array_equal(first, second, strict=True)


@given(
    seed=seeds,
    dtype=dtypes,
    widths=st.lists(st.integers(1, 7), min_size=2, max_size=5),
    bias=st.booleans(),
)
def test_a_network_of_any_depth_is_exact_on_the_integer_lattice(
    xp: ModuleType, seed: int, dtype: type, widths: list[int], bias: bool
) -> None:
    """Integers up to 3, width and batch up to 7, at most 4 layers: each layer multiplies by 22 at
    most, forward or backward, and a weight gradient is a sum of 7: 7 · 3 · 22^4 · 3 < 2^24."""
    rng = np.random.default_rng(seed)
    ours: list[nn.Module] = []
    theirs: list[torch.nn.Module] = []
    for d, h in itertools.pairwise(widths):
        ours += [nn.Linear(d, h, bias, device=device(xp), dtype=dtype), nn.ReLU()]
        theirs += [torch.nn.Linear(d, h, bias), torch.nn.ReLU()]
    model = nn.Sequential(*ours)
    for _, parameter in model.named_parameters():
        parameter.data = xp.asarray(rng.integers(-3, 4, parameter.shape).astype(dtype))
    network = twin(model, torch.nn.Sequential(*theirs), dtype)
    n = int(rng.integers(1, 8))
    x: Array = rng.integers(-3, 4, (n, widths[0])).astype(dtype)
    grad_output: Array = rng.integers(-3, 4, (n, widths[-1])).astype(dtype)
    assert_equal_everywhere(model, network, xp, x, grad_output)


@given(seed=seeds, activation=st.sampled_from(["ReLU", "Sigmoid"]), smoothing=st.floats(0, 1))
def test_the_gradient_predicts_the_loss_along_any_direction(
    xp: ModuleType, seed: int, activation: str, smoothing: float
) -> None:
    """Independent of PyTorch: (L(θ + εd) - L(θ - εd)) / 2ε = ∇L · d + O(ε²) in float64.

    With ε = 1e-6, unit d, third derivatives of at most about 10, and a loss of about 1: truncation
    is below 1e-11 and rounding is below 100 · 2^-53 / ε < 2e-8, so 1e-7 has room for both. Draws
    in which a ReLU's input lies within 1e-4 of the kink are shifted away from it.
    """
    rng = np.random.default_rng(seed)
    model = nn.Sequential(
        nn.Linear(5, 4, device=device(xp), dtype=np.float64, generator=rng),
        nn.ReLU() if activation == "ReLU" else nn.Sigmoid(),
        nn.Linear(4, 3, device=device(xp), dtype=np.float64, generator=rng),
    )
    loss_func = nn.CrossEntropyLoss(label_smoothing=smoothing)
    x = xp.asarray(rng.normal(size=(7, 5)))
    while abs(model.layers[0](x)).min() < 1e-4:
        x = x + 1e-3
    target = xp.asarray(rng.integers(0, 3, 7))
    parameters = model.parameters()
    flat = parameters[0].buffer

    loss_func(model(x), target)
    model.backward(loss_func.backward())
    direction = rng.normal(size=flat.data.shape)
    direction = xp.asarray(direction / np.linalg.norm(direction))
    predicted = float(flat.grad @ direction)
    start = flat.data.copy()

    def loss(epsilon: float) -> float:
        flat.data[:] = start + epsilon * direction
        return float(loss_func(model(x), target))

    assert abs((loss(1e-6) - loss(-1e-6)) / 2e-6 - predicted) < 1e-7


def test_parameters_lie_in_one_flat_buffer_in_pytorchs_order(xp: ModuleType) -> None:
    model = nn.Mnist_NN(device=device(xp))
    before = model.state_dict()
    parameters = model.parameters()
    flat = parameters[0].buffer.data
    assert flat.shape == (784 * 50 + 50 + 50 * 10 + 10,)
    assert [name for name, _ in model.named_parameters()] == list(mnist_nn.Mnist_NN().state_dict())
    joined = np.concatenate([to_numpy(value).ravel() for value in before.values()])
    np.testing.assert_array_equal(to_numpy(flat), joined)
    flat[:] = 1.5
    assert all(bool((p.data == 1.5).all()) for p in parameters)
    assert model.lin1.weight is parameters[0]
    assert model.parameters()[0].buffer.data is flat
    assert model.lin2.parameters()[0].buffer.data is flat, "a part of a model stays in its buffer"


def test_a_module_that_is_flattened_again_keeps_values_and_gradients(xp: ModuleType) -> None:
    rng = np.random.default_rng(0)
    first = nn.Sequential(nn.Linear(3, 2, device=device(xp)), nn.ReLU())
    first.parameters()
    first(xp.asarray(rng.normal(size=(4, 3)).astype(np.float32)))
    first.backward(xp.asarray(rng.normal(size=(4, 2)).astype(np.float32)))
    expected = [(to_numpy(p.data).copy(), gradient(p).copy()) for p in first.parameters()]
    both = nn.Sequential(first, nn.Linear(2, 2, device=device(xp)))
    for parameter, (data, grad) in zip(both.parameters(), expected, strict=False):
        np.testing.assert_array_equal(to_numpy(parameter.data), data)
        np.testing.assert_array_equal(gradient(parameter), grad)


def test_initial_values_are_uniform_within_one_over_the_root_of_fan_in() -> None:
    """20,000 draws: the standard error of mean / bound is 1/sqrt(3·20,000) = 0.004, that of the
    mean square / bound² is sqrt(4/45/20,000) = 0.002; five of each are allowed."""
    layer = nn.Linear(100, 200, device="cpu", generator=np.random.default_rng(1))
    for parameter in layer.parameters():
        assert abs(parameter.data).max() <= 0.1
    weight = layer.weight.data / 0.1
    assert abs(weight.mean()) < 0.02
    assert abs((weight**2).mean() - 1 / 3) < 0.01
    assert layer.bias is not None
    assert abs(layer.bias.data).max() > 0.05, "the bias is not 0 at first, as in PyTorch"


def test_the_seed_decides_the_initial_values() -> None:
    def weights(seed: int) -> Array:
        return nn.Mnist_NN(generator=np.random.default_rng(seed)).lin1.weight.data

    np.testing.assert_array_equal(to_numpy(weights(3)), to_numpy(weights(3)))
    assert (to_numpy(weights(3)) != to_numpy(weights(4))).any()


def test_gradients_add_up_until_zero_grad(xp: ModuleType) -> None:
    rng = np.random.default_rng(0)
    layer = nn.Linear(3, 2, device=device(xp))
    x, g = (
        xp.asarray(rng.normal(size=(2, 4, 3)), np.float32),
        xp.asarray(rng.normal(size=(2, 4, 2)), np.float32),
    )
    first, last = (functional.linear_backward(g[i], x[i], layer.weight.data)[1] for i in (0, 1))
    assert layer.weight.grad is None
    for i in range(2):
        layer(x[i])
        layer.backward(g[i])
    np.testing.assert_array_equal(gradient(layer.weight), to_numpy(first + last))
    layer.zero_grad()
    assert all(parameter.grad is None for parameter in layer.parameters())


def test_of_two_forwards_the_last_is_gone_back_over(xp: ModuleType) -> None:
    rng = np.random.default_rng(0)
    model = nn.Mnist_NN(4, 3, 2, device=device(xp), dtype=np.float64)
    first, last = xp.asarray(rng.normal(size=(5, 4))), xp.asarray(rng.normal(size=(6, 4)))
    g = xp.asarray(rng.normal(size=(6, 2)))
    model(last)
    expected = model.backward(g)
    model(first)
    model(last)
    np.testing.assert_array_equal(to_numpy(model.backward(g)), to_numpy(expected))


@pytest.mark.parametrize("layer", [nn.ReLU, nn.Sigmoid, nn.Softmax, lambda: nn.Linear(2, 2)])
def test_a_backward_needs_a_forward_of_its_own(layer: type[nn.Module]) -> None:
    made = layer()
    g = np.ones((1, 2), np.float32)
    made.to("cpu")
    with pytest.raises(RuntimeError, match="no forward"):
        made.backward(g)
    made.forward(g)
    made.backward(g)
    with pytest.raises(RuntimeError, match="no forward"):
        made.backward(g)


def test_a_layer_cant_stand_twice_in_a_sequential() -> None:
    relu = nn.ReLU()
    with pytest.raises(ValueError, match="twice"):
        nn.Sequential(relu, nn.Linear(2, 2), relu)


def test_softmax_is_the_layer_of_its_function(xp: ModuleType) -> None:
    rng = np.random.default_rng(0)
    x, g = xp.asarray(rng.normal(size=(3, 4))), xp.asarray(rng.normal(size=(3, 4)))
    layer = nn.Softmax()
    np.testing.assert_array_equal(to_numpy(layer(x)), to_numpy(functional.softmax_forward(x)))
    expected = functional.softmax_backward(g, x)
    np.testing.assert_array_equal(to_numpy(layer.backward(g)), to_numpy(expected))


def test_cross_entropy_loss_passes_on_every_option(xp: ModuleType) -> None:
    rng = np.random.default_rng(0)
    logits, target = xp.asarray(rng.normal(size=(6, 4))), xp.asarray(rng.integers(0, 4, 6))
    weight, g = xp.asarray(rng.uniform(1, 2, 4)), xp.asarray(rng.normal(size=6))
    options = {"ignore_index": 2, "reduction": "none", "label_smoothing": 0.3}
    loss_func = nn.CrossEntropyLoss(weight, **options)  # type: ignore[arg-type]
    expected = functional.cross_entropy_forward(logits, target, weight=weight, **options)  # type: ignore[arg-type]
    np.testing.assert_array_equal(to_numpy(loss_func(logits, target)), to_numpy(expected))
    expected = functional.cross_entropy_backward(
        logits,
        target,
        weight=weight,
        grad_output=g,
        **options,  # type: ignore[arg-type]
    )
    np.testing.assert_array_equal(to_numpy(loss_func.backward(g)), to_numpy(expected))
    with pytest.raises(RuntimeError, match="no forward"):
        loss_func.backward()


def test_weights_go_to_pytorch_and_back_unchanged() -> None:
    model, network = nn.Mnist_NN(device="cpu"), mnist_nn.Mnist_NN()
    model.load_state_dict(mnist_nn.to_scratchnet(network.state_dict()))
    for name, tensor in mnist_nn.from_scratchnet(model.state_dict()).items():
        assert torch.equal(tensor, network.state_dict()[name])
    model.load_state_dict(network.state_dict())


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda s: s.pop("lin2.bias"), KeyError, "missing ['lin2.bias']"),
        (lambda s: s.update(lin3=s["lin2.bias"]), KeyError, "unknown ['lin3']"),
        (lambda s: s.update({"lin2.weight": s["lin2.weight"].T}), ValueError, "shape (3, 2)"),
        (lambda s: s.update({"lin2.bias": s["lin2.bias"] * np.float64(1)}), TypeError, "float64"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(change, error, words) -> None:  # type: ignore[no-untyped-def]
    model = nn.Mnist_NN(4, 3, 2, device="cpu")
    before = model.state_dict()
    state = {name: value + 1 for name, value in before.items()}
    change(state)
    with pytest.raises(error) as caught:
        model.load_state_dict(state)
    assert words in str(caught.value)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_a_state_dict_is_a_copy() -> None:
    model = nn.Mnist_NN(4, 3, 2, device="cpu")
    state = model.state_dict()
    model.parameters()[0].data = np.zeros((3, 4), np.float32)
    assert (state["lin1.weight"] != 0).all()


def test_values_and_gradients_of_another_shape_are_refused(xp: ModuleType) -> None:
    """A forgotten axis makes a sum a scalar, which broadcasting would hide."""
    parameter = nn.Parameter(xp.ones(3))
    for wrong in (xp.asarray(1.0), xp.ones(2), xp.ones((1, 3))):
        with pytest.raises(ValueError, match=r"expected \(3,\)"):
            parameter.grad = wrong
        with pytest.raises(ValueError, match=r"expected \(3,\)"):
            parameter.add_grad(wrong)
        with pytest.raises(ValueError, match=r"expected \(3,\)"):
            parameter.data = wrong
    assert parameter.grad is None
    with pytest.raises(TypeError, match="got list"):
        parameter.data = [1.0, 2.0, 3.0]  # type: ignore[assignment]


def test_a_backward_that_fails_leaves_the_forward_for_another(xp: ModuleType) -> None:
    layer = nn.Linear(3, 2, device=device(xp))
    layer(xp.ones((4, 3), dtype=np.float32))
    with pytest.raises(ValueError, match="grad_output"):
        layer.backward(xp.ones((4, 3), dtype=np.float32))
    assert layer.backward(xp.ones((4, 2), dtype=np.float32)).shape == (4, 3)


def test_a_sequential_with_something_of_its_own_trains_that_too() -> None:
    class Scaled(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Linear(2, 2, device="cpu"))
            self.extra = nn.Linear(2, 1, device="cpu")

    names = [name for name, _ in Scaled().named_parameters()]
    assert names == ["0.weight", "0.bias", "extra.weight", "extra.bias"]


def test_a_generator_can_be_a_seed() -> None:
    weights = [nn.Linear(3, 3, device="cpu", generator=seed).weight.data for seed in (0, 0, 1)]
    np.testing.assert_array_equal(weights[0], weights[1])
    assert (weights[0] != weights[2]).all()


def test_sizes_and_dtypes_that_make_no_layer_are_told() -> None:
    with pytest.raises(ValueError, match=r"Linear\(0, 2\)"):
        nn.Linear(0, 2)
    with pytest.raises(TypeError, match="int64"):
        nn.Linear(2, 2, device="cpu", dtype=np.int64)
    with pytest.raises(ValueError, match="one dtype"):
        nn.Sequential(
            nn.Linear(2, 2, device="cpu"), nn.Linear(2, 2, device="cpu", dtype=np.float64)
        ).parameters()


def test_to_moves_values_and_gradients(xp: ModuleType) -> None:
    model = nn.Mnist_NN(4, 3, 2, device="cpu")
    x = np.ones((1, 4), np.float32)
    expected = model(x)
    model.to(device(xp))
    np.testing.assert_array_almost_equal_nulp(to_numpy(model(xp.asarray(x))), expected, 4)
    with pytest.raises(InputError, match="device 'tpu' is unknown"):
        model.to("tpu")
