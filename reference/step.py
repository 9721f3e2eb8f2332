"""Every number of a training step of Mnist_NN: PyTorch's, scratchnet's, and how far off it may be.

The names are the same in all three: "lin1", "relu" and "lin2" are the layers' outputs, "loss" the
loss, "grad NAME" the loss' gradient with respect to an output or a parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reference import mnist_nn, propagation
from reference.bounds import Classification, Dtype, gamma
from reference.propagation import Estimate
from scratchnet import backend
from scratchnet.backend import Array
from scratchnet.nn import CrossEntropyLoss, Mnist_NN
from scratchnet.study import subjects
from scratchnet.training import Normalization

ACTIVATIONS = ("lin1", "relu", "lin2")
PARAMETERS = tuple(subjects.PARAMETERS.values())


def network(parameters: Mapping[str, Array], device: str = "cpu") -> mnist_nn.Mnist_NN:
    """The tutorial's network with these parameters, of their sizes and dtype."""
    hidden, in_features = parameters["lin1.weight"].shape
    made = mnist_nn.Mnist_NN(in_features, hidden, len(parameters["lin2.bias"]))
    state = mnist_nn.from_scratchnet(parameters)
    made.to(device=device, dtype=state["lin1.weight"].dtype)
    made.load_state_dict(state)
    return made


def of_pytorch(model: mnist_nn.Mnist_NN, x: Array, target: Array) -> dict[str, Array]:
    """Forward and backward by autograd, on the model's device; leaves gradients in the model."""
    outputs: dict[str, Tensor] = {}

    def keep(layer: torch.nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        output.retain_grad()
        if layer is model.lin1:
            outputs["lin1"] = output
        else:
            inputs[0].retain_grad()
            outputs["relu"], outputs["lin2"] = inputs[0], output

    hooks = [layer.register_forward_hook(keep) for layer in (model.lin1, model.lin2)]
    try:
        device = model.lin1.weight.device
        y_hat = model(torch.from_numpy(x).to(device))
        loss = mnist_nn.loss_func(y_hat, torch.from_numpy(target).to(device))
        model.zero_grad()
        loss.backward()
    finally:
        for hook in hooks:
            hook.remove()
    found = {name: outputs[name] for name in ACTIVATIONS} | {"loss": loss}
    found |= {f"grad {name}": _grad(outputs[name]) for name in reversed(ACTIVATIONS)}
    found |= {f"grad {name}": _grad(tensor) for name, tensor in model.named_parameters()}
    return {name: _numpy(tensor) for name, tensor in found.items()}


def _grad(tensor: Tensor) -> Tensor:
    assert tensor.grad is not None
    return tensor.grad


def of_scratchnet(model: Mnist_NN, x: Array, target: Array) -> dict[str, Array]:
    """Forward and backward by hand, on the model's device; leaves the gradients in the model."""
    device = backend.device_of(model.lin1.weight.data)
    x, target = backend.asarray(x, device), backend.asarray(target, device)
    loss_func = CrossEntropyLoss()
    lin1 = model.lin1(x)
    relu = model.relu(lin1)
    lin2 = model.lin2(relu)
    loss = loss_func(lin2, target)
    model.zero_grad()
    grad_lin2 = loss_func.backward()
    grad_relu = model.lin2.backward(grad_lin2)
    grad_lin1 = model.relu.backward(grad_relu)
    model.lin1.backward(grad_lin1)
    found = {"lin1": lin1, "relu": relu, "lin2": lin2, "loss": loss}
    found |= {"grad lin2": grad_lin2, "grad relu": grad_relu, "grad lin1": grad_lin1}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        found[f"grad {name}"] = parameter.grad
    return {name: np.array(backend.asarray(array, "cpu")) for name, array in found.items()}


def inputs(dtype: Dtype, x: Array, normalization: Normalization) -> Estimate:
    """Normalized inputs for one who computes them from the pixels in a way of his own.

    (q - mean) / std with q = pixel / 255, as `normalization` has it, rounds q, mean, std, the
    difference and the quotient: gamma_4 of the parts (q + |mean|) / std, each part having its own
    rounding and three more. As pixel · a + b with a = 1 / (255 std) and b = -mean / std it rounds,
    at worst, std, 255 std, a, the product and the sum: gamma_5. So the two are within gamma_9 of
    each other. The parts are x + mean / std + |mean| / std, where x is rounded already, which a
    tenth covers.
    """
    given, offset = propagation.exact(x), normalization.mean / normalization.std
    parts = np.abs(given.value + offset) + abs(offset)
    return given._replace(error=gamma(10, dtype) * parts)


def estimate(
    dtype: Dtype, parameters: Mapping[str, Array], x: Array | Estimate, target: Array
) -> dict[str, Estimate]:
    """The same numbers in float64, each with a bound on the error of computing it in a dtype."""
    weight1, bias1, weight2, bias2 = (parameters[name] for name in PARAMETERS)
    x_given = x if isinstance(x, Estimate) else propagation.exact(x)
    lin1 = propagation.linear(dtype, x_given, weight1, bias1)
    relu = propagation.relu(lin1)
    lin2 = propagation.linear(dtype, relu, weight2, bias2)
    problem = Classification.of(lin2.value, target)
    loss = propagation.cross_entropy(dtype, lin2, problem)
    grad_lin2 = propagation.cross_entropy_backward(dtype, lin2, problem)
    grad_relu, *grads2 = propagation.linear_backward(dtype, grad_lin2, relu, weight2)
    grad_lin1 = propagation.relu_backward(grad_relu, lin1)
    _, *grads1 = propagation.linear_backward(dtype, grad_lin1, x_given, weight1)
    found = {"lin1": lin1, "relu": relu, "lin2": lin2, "loss": loss}
    found |= {"grad lin2": grad_lin2, "grad relu": grad_relu, "grad lin1": grad_lin1}
    grads = zip(PARAMETERS, grads1 + grads2, strict=True)
    return found | {f"grad {name}": grad for name, grad in grads}


def adam_of_pytorch(
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    t: int,
    *,
    decoupled: bool,
    device: str = "cpu",
    **options: Any,
) -> tuple[Array, Array, Array]:
    """The t-th step of torch.optim's Adam, or AdamW if decoupled, from a state: new p, m and v."""
    parameter, grad, exp_avg, exp_avg_sq = (
        torch.from_numpy(array.copy()).to(device) for array in (p, g, m, v)
    )
    parameter.requires_grad_().grad = grad
    kind: Callable[..., torch.optim.Optimizer] = (
        torch.optim.AdamW if decoupled else torch.optim.Adam
    )
    optimizer = kind([parameter], **options)
    optimizer.state[parameter] = {
        "step": torch.tensor(float(t - 1)),
        "exp_avg": exp_avg,
        "exp_avg_sq": exp_avg_sq,
    }
    optimizer.step()
    return _numpy(parameter), _numpy(exp_avg), _numpy(exp_avg_sq)


def _numpy(tensor: Tensor) -> Array:
    return tensor.detach().cpu().numpy().copy()
