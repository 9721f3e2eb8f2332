"""PyTorch's half of going on in the other library: parameters and optimizer state in safetensors.

The other half is `scratchnet.checkpoint.save_state` and `load_state`, with the same names in the
file. A run's `checkpoint.safetensors` can be loaded too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn, optim


def save_state(path: Path, model: nn.Module, optimizer: optim.Optimizer) -> None:
    """Write the parameters of a model and the state of its optimizer for scratchnet."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for i, entry in optimizer.state_dict()["state"].items():
        for name, value in entry.items():
            tensors[f"optimizer.{i}.{name}"] = torch.as_tensor(value)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)


def load_state(path: Path, model: nn.Module, optimizer: optim.Optimizer) -> None:
    """Take over what `save_state` or scratchnet has written. The optimizer's options stay.

    Raises:
        RuntimeError: the file is of another model.
    """
    parameters: dict[str, Tensor] = {}
    state: dict[int, dict[str, Any]] = {}
    for key, tensor in load_file(path).items():
        kind, _, name = key.partition(".")
        if kind == "model":
            parameters[name] = tensor
        elif kind == "optimizer":
            i, _, vector = name.partition(".")
            # PyTorch counts steps in float32.
            state.setdefault(int(i), {})[vector] = tensor.float() if vector == "step" else tensor
    model.load_state_dict(parameters)
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"param_groups": groups, "state": state})
