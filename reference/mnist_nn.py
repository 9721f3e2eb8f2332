"""The tutorial's `Mnist_NN`, `loss_func` and `update` in PyTorch, and weights both ways."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim


class Mnist_NN(nn.Module):
    """784 pixels, 50 hidden units with ReLU, 10 logits; other sizes on request."""

    def __init__(self, in_features: int = 784, hidden: int = 50, classes: int = 10) -> None:
        super().__init__()
        self.lin1 = nn.Linear(in_features, hidden, bias=True)
        self.lin2 = nn.Linear(hidden, classes, bias=True)

    def forward(self, xb: Tensor) -> Tensor:
        """(N, D) -> logits (N, C)."""
        x = self.lin1(xb)
        x = F.relu(x)
        return self.lin2(x)


loss_func = nn.CrossEntropyLoss()


def update(model: nn.Module, x: Tensor, y: Tensor, lr: float) -> float:
    """The tutorial's update, with the model as an argument: note the new Adam in every call."""
    opt = optim.Adam(model.parameters(), lr)
    y_hat = model(x)
    loss = loss_func(y_hat, y)
    loss.backward()
    opt.step()
    opt.zero_grad()
    return loss.item()


def from_scratchnet(state: Mapping[str, npt.NDArray[Any]]) -> dict[str, Tensor]:
    """A state_dict of scratchnet's, on the CPU, as one that PyTorch's load_state_dict takes.

    Names, shapes (out_features, in_features) and dtypes are the same in both. Values are copied.
    """
    return {name: torch.from_numpy(array.copy()) for name, array in state.items()}


def to_scratchnet(state: Mapping[str, Tensor]) -> dict[str, npt.NDArray[Any]]:
    """A state_dict of PyTorch's as one that scratchnet's load_state_dict takes; copied."""
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in state.items()}
