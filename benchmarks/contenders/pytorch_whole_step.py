"""PyTorch at its strongest on a CPU: gather, forward, backward by hand and Adam in one program.

What is left to Python in an update is one call with the same arguments as before: which samples,
and which learning rate, the program reads at the place to which two counters on the device point.
On a GPU not yet run.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.contenders import pytorch
from benchmarks.task import PARAMETERS, Outcome, Task

Body = Callable[[], None]


class State:
    """All that an update reads and writes, in tensors that stay where they are.

    Attributes:
        p, m, v: parameters and moments, in the order of PARAMETERS.
        rates: (steps, 3), `task.rates`, computed in float64.
        losses: (steps,).
        order: (full batches, B) and last: (N,), of the epoch at hand.
        at: (1,) the number of the batch in the epoch; step: (1,) of the update in the run.
    """

    def __init__(self, task: Task) -> None:
        self.data = pytorch.Data(task)
        device, size = task.device, task.batch_size
        self.initial = [pytorch.initial(task)[name] for name in PARAMETERS]
        self.p, self.m, self.v = (
            [torch.zeros_like(tensor) for tensor in self.initial] for _ in range(3)
        )
        self.rates = torch.from_numpy(task.rates()).float().to(device)
        self.losses = torch.zeros(task.steps, device=device)
        full, last = divmod(len(task.labels), size)
        self.order = torch.zeros((full, size), dtype=torch.int64, device=device)
        self.last = torch.zeros(last, dtype=torch.int64, device=device)
        self.at, self.step = (torch.zeros(1, dtype=torch.int64, device=device) for _ in range(2))
        # One program serves tasks of any length, such as the probe and the task itself.
        for tensor in (self.data.images, self.data.labels, self.order, self.rates, self.losses):
            torch._dynamo.maybe_mark_dynamic(tensor, 0)
        self.betas, self.renew, self.decays = task.betas, task.renew, task.weight_decay > 0
        self.scale, self.shift = 1 / 255, None
        if task.normalized:
            mean, std = task.normalization.mean, task.normalization.std
            self.scale, self.shift = 1 / (255 * std), -mean / std

    def reset(self) -> None:
        """Back to the beginning of the run, in place."""
        for p, m, v, start in zip(self.p, self.m, self.v, self.initial, strict=True):
            p.copy_(start)
            m.zero_()
            v.zero_()
        self.step.zero_()

    def begin(self, epoch: int) -> None:
        """The order of an epoch to where the program looks for it."""
        order, full = self.data.order[epoch], self.order.numel()
        self.order.copy_(order[:full].view_as(self.order))
        self.last.copy_(order[full:])
        self.at.zero_()


def update_full(state: State) -> None:
    """An update on the next full batch."""
    update(state, torch.index_select(state.order, 0, state.at).view(-1))
    state.at.add_(1)


def update_last(state: State) -> None:
    """The update on the epoch's smaller last batch."""
    update(state, state.last)


def update(state: State, chosen: Tensor) -> None:
    """An update on the samples (N,): all formulas are those of `scratchnet.functional`."""
    w1, b1, w2, b2 = state.p
    x = torch.index_select(state.data.images, 0, chosen).to(torch.float32) * state.scale
    if state.shift is not None:
        x = x + state.shift
    y = torch.index_select(state.data.labels, 0, chosen).view(-1, 1)
    rate, eps, keep = torch.index_select(state.rates, 0, state.step).view(3).unbind()

    hidden = torch.relu(torch.addmm(b1, x, w1.t()))
    logits = torch.addmm(b2, hidden, w2.t())
    log_p = F.log_softmax(logits, dim=1)
    loss = -log_p.gather(1, y).mean()
    state.losses.index_copy_(0, state.step, loss.view(1))

    one_hot = (y == torch.arange(logits.shape[1], device=y.device)).to(torch.float32)
    grad_logits = (log_p.exp() - one_hot) / len(x)
    grad_hidden = (grad_logits @ w2) * (hidden > 0)
    grads = [
        grad_hidden.t() @ x,
        grad_hidden.sum(0),
        grad_logits.t() @ hidden,
        grad_logits.sum(0),
    ]

    beta1, beta2 = state.betas
    for p, m, v, g in zip(state.p, state.m, state.v, grads, strict=True):
        if state.renew:
            m.zero_()
            v.zero_()
        m.mul_(beta1).add_(g, alpha=1 - beta1)
        v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
        if state.decays:
            p.mul_(keep)
        p.sub_(rate * m / (v.sqrt() + eps))
    state.step.add_(1)


def run_epoch(state: State, number: int, unrolled: int, many: Body, one: Body, last: Body) -> None:
    """An epoch by programs for `unrolled` updates, for what is left of those, and for the last."""
    state.begin(number)
    times, rest = divmod(len(state.order), unrolled)
    for _ in range(times):
        many()
    for _ in range(rest):
        one()
    if len(state.last):
        last()


class Contender:
    """The variant says how many updates are unrolled into one program, to save calls."""

    def __init__(self, variant: str) -> None:
        self.unrolled = int(variant)

    def about(self) -> str:
        """Version, and what is compiled."""
        return f"{pytorch.about(self.task)}, torch.compile of {self.unrolled} whole update(s)"

    def prepare(self, task: Task, threads: int) -> None:
        """State, and programs for many updates, for one, and for the last."""
        pytorch.settings(threads)
        self.task, state = task, State(task)
        self.state = state

        def many() -> None:
            for _ in range(self.unrolled):
                update_full(state)

        self.many, self.one, self.last = (
            torch.compile(function, dynamic=False)
            for function in (many, lambda: update_full(state), lambda: update_last(state))
        )

    def reset(self) -> None:
        """In place."""
        self.state.reset()

    def epoch(self, number: int) -> None:
        """As many unrolled updates as there are, then single ones."""
        with torch.inference_mode():
            run_epoch(self.state, number, self.unrolled, self.many, self.one, self.last)

    def collect(self) -> Outcome:
        """From the state."""
        return pytorch.outcome(self.state.losses, dict(zip(PARAMETERS, self.state.p, strict=True)))
