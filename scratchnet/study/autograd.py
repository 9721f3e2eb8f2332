"""PyTorch's arrays of the same network, where PyTorch is installed: the only use of it here."""

from __future__ import annotations

from collections.abc import Mapping

from scratchnet.backend import Array
from scratchnet.study.subjects import PARAMETERS


def arrays(inputs: Mapping[str, Array]) -> dict[str, Array] | None:
    """Forward and backward of Mnist_NN, by autograd; None if PyTorch is not installed.

    Args:
        inputs: x (N, D), target (N,), W1 (H, D), b1 (H,), W2 (C, H), b2 (C,).

    Returns:
        z1, h, z2, p, loss, and the gradients of z1, h, z2 and the parameters, as dz1 and so on.
    """
    try:
        import torch
    except ImportError:
        return None
    given = {name: torch.from_numpy(array.copy()) for name, array in inputs.items()}
    leaves = {name: given[name].requires_grad_() for name in PARAMETERS}
    made = {"z1": torch.nn.functional.linear(given["x"], leaves["W1"], leaves["b1"])}
    made["h"] = torch.relu(made["z1"])
    made["z2"] = torch.nn.functional.linear(made["h"], leaves["W2"], leaves["b2"])
    inner = dict(made)
    made["p"] = torch.softmax(made["z2"], dim=1)
    made["loss"] = torch.nn.functional.cross_entropy(made["z2"], given["target"])
    for tensor in inner.values():
        tensor.retain_grad()
    made["loss"].backward()  # type: ignore[no-untyped-call]
    found = {name: tensor.detach().numpy() for name, tensor in made.items()}
    for name, tensor in (leaves | inner).items():
        assert tensor.grad is not None
        found[f"d{name}"] = tensor.grad.numpy()
    return found
