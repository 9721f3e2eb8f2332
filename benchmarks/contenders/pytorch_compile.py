"""PyTorch compiled as its manual says: torch.compile around model and loss, autograd, fused Adam.

On a GPU not yet run.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.agreement import new_optimizer
from benchmarks.contenders import pytorch
from benchmarks.task import Outcome, Task
from reference import mnist_nn


class Contender:
    """Forward and loss, and so backward, in a mode of torch.compile, which is the variant."""

    def __init__(self, variant: str) -> None:
        self.mode = variant
        self.compiled: Callable[[Tensor, Tensor], Tensor] | None = None

    def about(self) -> str:
        """Version and mode."""
        return f"{pytorch.about(self.task)}, torch.compile(mode={self.mode!r}), Adam(fused=True)"

    def prepare(self, task: Task, threads: int) -> None:
        """Data and model; the code for each batch size is compiled when it first comes."""
        pytorch.settings(threads)
        self.task, self.data = task, pytorch.Data(task)
        if self.compiled is None:
            hidden, pixels = task.initial["lin1.weight"].shape
            self.model = mnist_nn.Mnist_NN(pixels, hidden, len(task.initial["lin2.bias"]))
            self.model.to(task.device)
            # Two batch sizes: two specialised programs are faster than one for any size.
            self.compiled = torch.compile(self._loss, mode=self.mode, dynamic=False)

    def _loss(self, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(self.model(x), y)

    def reset(self) -> None:
        """The parameters in place, since a new model would be compiled anew."""
        self.model.load_state_dict(pytorch.initial(self.task))
        self.model.zero_grad()
        self._renew()
        self.losses: list[Tensor] = []

    def _renew(self) -> None:
        self.optimizer = new_optimizer(self.task, self.model, fused=True)

    def epoch(self, number: int) -> None:
        """As in eager PyTorch."""
        assert self.compiled
        graphs = self.mode == "reduce-overhead"
        for step, batch in self.task.batches(number):
            x, y = self.data.batch(self.data.order[number, batch])
            if graphs:
                torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
            loss = self.compiled(x, y)
            # A CUDA graph writes its next result where this one is.
            self.losses.append(loss.detach().clone() if graphs else loss.detach())
            loss.backward()  # type: ignore[no-untyped-call]
            if self.task.renew:
                self._renew()
            self.optimizer.param_groups[0]["lr"] = float(self.task.lrs[step])
            self.optimizer.step()
            self.optimizer.zero_grad()

    def collect(self) -> Outcome:
        """The losses in one piece."""
        return pytorch.outcome(torch.stack(self.losses), self.model.state_dict())
