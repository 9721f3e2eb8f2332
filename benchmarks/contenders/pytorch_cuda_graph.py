"""PyTorch at its strongest on a GPU: whole updates captured by hand in a CUDA graph.

A replayed graph does the same to the same memory, so whatever changes from update to update lies on
the device: samples and learning rate are looked up at two counters, which the graph itself moves.

Not yet run on a GPU. On a CPU, where the tests run it, the same updates are made without graphs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.agreement import new_optimizer
from benchmarks.contenders import pytorch
from benchmarks.contenders.pytorch_whole_step import (
    Body,
    State,
    run_epoch,
    update_full,
    update_last,
)
from benchmarks.task import PARAMETERS, Outcome, Task
from reference import mnist_nn

WARM_UP = 3  # updates before a capture, so that whatever is made at first use has been made


class Contender:
    """The variant is "K" or "compiled K": K updates a graph, of modules and fused Adam, or of one
    program for the whole update, which is the stronger.
    """

    def __init__(self, variant: str) -> None:
        *compiled, unrolled = variant.split()
        self.compiled, self.unrolled = bool(compiled), int(unrolled)

    def about(self) -> str:
        """Version, and what is captured."""
        what = "torch.compile(max-autotune-no-cudagraphs) of the whole update"
        return (
            f"{pytorch.about(self.task)}, CUDA graph of {self.unrolled} update(s): "
            f"{what if self.compiled else 'autograd, Adam(fused, capturable)'}"
        )

    def prepare(self, task: Task, threads: int) -> None:
        """Capture a graph for many updates, for one, and for the last of an epoch."""
        pytorch.settings(threads)
        self.task = task
        # Capture needs a stream of its own, on which autograd has been before.
        self.stream: torch.cuda.Stream | None = None
        if task.device == "cuda":
            self.stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self.state = state = State(task)
        if self.compiled:
            mode = "max-autotune-no-cudagraphs"
            full, last = (
                torch.compile(function, mode=mode, dynamic=False)
                for function in (lambda: update_full(state), lambda: update_last(state))
            )
        else:
            self.modules = Modules(task, state)
            full, last = self.modules.full, self.modules.last

        def many() -> None:
            for _ in range(self.unrolled):
                full()

        batches = len(state.order)
        self.many = self._capture(many) if self.unrolled <= batches else many
        self.one = self._capture(full) if batches else full
        self.last = self._capture(last) if len(state.last) else last

    def _capture(self, body: Body) -> Body:
        """The replay of a graph; the body itself where there are no graphs."""
        stream = self.stream
        if stream is None:
            return body
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                self.reset()
                self.state.begin(0)  # the counters must not run off the end
                body()
        torch.cuda.current_stream().wait_stream(stream)
        self.reset()
        if not self.compiled:
            # A gradient that is not there is written by the graph, one that is there added to.
            self.modules.optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            body()
        return graph.replay

    def reset(self) -> None:
        """In place, since the graphs know the memory and not the tensors."""
        self.state.reset()
        if not self.compiled:
            self.modules.reset()
        if self.stream:
            torch.cuda.synchronize()

    def epoch(self, number: int) -> None:
        """As many graphs of many updates as fit, then single ones."""
        run_epoch(self.state, number, self.unrolled, self.many, self.one, self.last)

    def collect(self) -> Outcome:
        """Waits, and copies."""
        parameters = dict(zip(PARAMETERS, self.state.p, strict=True))
        if not self.compiled:
            parameters = self.modules.model.state_dict()
        return pytorch.outcome(self.state.losses, parameters)


class Modules:
    """An update by nn.Module, autograd and Adam, with all that changes on the device."""

    def __init__(self, task: Task, state: State) -> None:
        self.task, self.state = task, state
        hidden, pixels = task.initial["lin1.weight"].shape
        self.model = mnist_nn.Mnist_NN(pixels, hidden, len(task.initial["lin2.bias"]))
        self.model.to(task.device)
        on_gpu = task.device == "cuda"
        # Capturable: the count of steps, and what comes of it, are computed on the device.
        self.optimizer = new_optimizer(task, self.model, fused=True, capturable=on_gpu)
        self.lrs = torch.from_numpy(task.lrs).float().to(task.device)
        self.lr = self.lrs[0].clone()  # a tensor, which the graph writes to
        self.optimizer.param_groups[0]["lr"] = self.lr

    def full(self) -> None:
        """An update on the next full batch."""
        state = self.state
        self._update(torch.index_select(state.order, 0, state.at).view(-1))
        state.at.add_(1)

    def last(self) -> None:
        """The update on the epoch's smaller last batch."""
        self._update(self.state.last)

    def _update(self, chosen: Tensor) -> None:
        state = self.state
        self.lr.copy_(torch.index_select(self.lrs, 0, state.step).view(()))
        self.optimizer.zero_grad(set_to_none=True)
        x, y = state.data.batch(chosen)
        loss = F.cross_entropy(self.model(x), y)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.task.renew:
            self._forget()
        self.optimizer.step()
        state.losses.index_copy_(0, state.step, loss.detach().view(1))
        state.step.add_(1)

    def _forget(self) -> None:
        """As a new Adam: its moments and its count of steps are 0."""
        for values in self.optimizer.state.values():
            for tensor in values.values():
                tensor.zero_()

    def reset(self) -> None:
        """Parameters and Adam in place."""
        self.model.load_state_dict(pytorch.initial(self.task))
        self._forget()
