"""PyTorch as most programs use it: modules, autograd and torch.optim, one operation at a time.

On a GPU not yet run.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.agreement import new_optimizer
from benchmarks.contenders import pytorch
from benchmarks.stages import Clock
from benchmarks.task import Outcome, Task
from reference import mnist_nn

VARIANTS: dict[str, dict[str, bool]] = {
    "default": {},  # one tensor after the other on a CPU, foreach on a GPU
    "foreach": {"foreach": True},
    "fused": {"fused": True},
    "tutorial": {},
}


class Contender:
    """The tutorial's network, with an implementation of Adam, or the tutorial's `update`."""

    def __init__(self, variant: str) -> None:
        self.variant = variant

    def about(self) -> str:
        """Version and optimizer."""
        how = ", ".join(f"{name}={value}" for name, value in VARIANTS[self.variant].items())
        what = "the tutorial's update" if self.variant == "tutorial" else f"eager, Adam({how})"
        return f"{pytorch.about(self.task)}, {what}"

    def prepare(self, task: Task, threads: int) -> None:
        """The data to the device."""
        pytorch.settings(threads)
        self.task, self.data = task, pytorch.Data(task)

    def reset(self) -> None:
        """A new model and optimizer."""
        state = pytorch.initial(self.task)
        hidden, pixels = state["lin1.weight"].shape
        self.model = mnist_nn.Mnist_NN(pixels, hidden, len(state["lin2.bias"]))
        self.model.to(self.task.device).load_state_dict(state)
        self.optimizer = self._new_optimizer()
        self.losses: list[Tensor] = []

    def _new_optimizer(self) -> torch.optim.Adam | torch.optim.AdamW:
        return new_optimizer(self.task, self.model, **VARIANTS[self.variant])

    def epoch(self, number: int) -> None:
        """The loop of any tutorial; losses stay on the device."""
        task, model = self.task, self.model
        tutorial = self.variant == "tutorial"
        for step, batch in task.batches(number):
            x, y = self.data.batch(self.data.order[number, batch])
            lr = float(task.lrs[step])
            if tutorial:
                self.losses.append(torch.tensor(mnist_nn.update(model, x, y, lr)))
                continue
            if task.renew:
                self.optimizer = self._new_optimizer()
            loss = F.cross_entropy(model(x), y)
            loss.backward()  # type: ignore[no-untyped-call]
            self._update(lr)
            self.losses.append(loss.detach())

    def _update(self, lr: float) -> None:
        self.optimizer.param_groups[0]["lr"] = lr
        self.optimizer.step()
        self.optimizer.zero_grad()

    def collect(self) -> Outcome:
        """The losses in one piece."""
        return pytorch.outcome(torch.stack(self.losses), self.model.state_dict())

    def stages(self) -> dict[str, float]:
        """Train, from a fresh `reset` on, and return the seconds of each stage; on a CPU, where a
        call returns when its work is done.
        """
        task, clock = self.task, Clock()
        for epoch in range(len(task.order)):
            for step, batch in task.batches(epoch):
                clock.lap("rest")
                x, y = self.data.batch(self.data.order[epoch, batch])
                clock.lap("gather")
                loss = F.cross_entropy(self.model(x), y)
                clock.lap("forward")
                loss.backward()  # type: ignore[no-untyped-call]
                clock.lap("backward")
                if task.renew:
                    self.optimizer = self._new_optimizer()
                self._update(float(task.lrs[step]))
                clock.lap("adam")
        clock.seconds.pop("rest")
        return clock.seconds
