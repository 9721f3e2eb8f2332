"""A whole training run in PyTorch beside a run of scratchnet's: the same recipe, nothing shared."""

from __future__ import annotations

import numpy as np
import torch

from reference import mnist_nn
from scratchnet.backend import Array, to_numpy
from scratchnet.training import Run

DTYPES = {"float32": torch.float32, "float64": torch.float64}


class Twin:
    """A run in PyTorch that starts from the parameters of a scratchnet run, in its dtype.

    Optimizer and schedule are PyTorch's own, made from the recipe's description.

    Attributes:
        model: the network in PyTorch.
        device: where it lives, "cpu" or "cuda".
    """

    def __init__(self, run: Run, device: str = "cpu") -> None:
        self.recipe, self.device = run.options.recipe, device
        self.model = mnist_nn.Mnist_NN(hidden=run.options.hidden)
        self.model.to(device=device, dtype=DTYPES[np.dtype(run.dtype).name])
        self.take(run)
        parameters = self.model.parameters()
        if self.recipe == "one-cycle":
            self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(
                parameters, run.lr, betas=(0.9, 0.99), weight_decay=0.01
            )
            self.schedule = torch.optim.lr_scheduler.OneCycleLR(
                self.optimizer, run.lr, total_steps=run.total_steps, cycle_momentum=False
            )
        else:
            self.optimizer = torch.optim.Adam(parameters, run.lr)

    def take(self, run: Run) -> None:
        """Take over the parameters of a run."""
        state = {name: to_numpy(value) for name, value in run.model.state_dict().items()}
        self.model.load_state_dict(mnist_nn.from_scratchnet(state))

    def update(self, x: Array, y: Array, lr: float) -> float:
        """One update; `lr` is the tutorial's argument, and elsewhere the schedule knows it."""
        x_torch = torch.from_numpy(to_numpy(x)).to(self.device)
        y_torch = torch.from_numpy(to_numpy(y)).to(self.device)
        if self.recipe == "tutorial":
            return mnist_nn.update(self.model, x_torch, y_torch, lr)
        loss = mnist_nn.loss_func(self.model(x_torch), y_torch)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        if self.recipe == "one-cycle":
            self.schedule.step()
        return float(loss.item())

    def distance(self, run: Run) -> float:
        """The largest difference in any parameter; nan if there is one."""
        state = mnist_nn.to_scratchnet(self.model.state_dict())
        apart = [
            abs(to_numpy(parameter.data) - state[name]).max()
            for name, parameter in run.model.named_parameters()
        ]
        return float(np.max(apart))
