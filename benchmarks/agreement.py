"""Whether a contender has done the same work: its losses and weights beside PyTorch's in float64.

**What is compared.** Two runs: the task itself, and before it a `task.probe` of the same code, 22
updates in two epochs with a smaller last batch. In the probe errors have not yet grown, so that it
tells right from wrong everywhere: batches, their order, the second epoch, the last batch, every
term of Adam. The task's own run tells that the same work was timed.

**Why a fixed tolerance would not do.** The training is discontinuous in its rounding errors. If
one sample's hidden unit lies within an error of ReLU's kink, it counts for one and not for the
other; and where a pixel is seldom inked, that sample's gradient may be all that a weight gets,
which Adam blows up to a step of a few learning rates, however small it is. In `adam` over 782
updates (seed 0) float32 by itself changes lin1.weight by 1e-6 of the way that it has moved, and a
learning rate that is wrong by 3e-5 by 3 %; in `one-cycle` one that is wrong by 1e-4 by 60 %.

**So the tolerance is measured, on the very task.** The reference is run a second time with its
learning rate wrong by `ERROR` = 1e-4, and a third time in float32. What that changes, the largest
loss so far and each parameter in the 2-norm relative to its movement, times `FACTOR` = 3, is
tolerated. (And in a loss `ROUNDING`, 32 units of rounding in a number of its size or of 1, which
logits have: for sums in another order.)

ERROR lies between what is honest and what is not. A bias correction in float32, as compiled
optimizers, JAX's and tinygrad's have it, is a learning rate that is wrong by up to 3e-5 in the
first update and less later: 1 - 0.999 has lost 1e3 of float32's 1.7e7. In the probes of the three
recipes at batch 64 it takes up 4 % of the tolerance at most, and float32 itself, PyTorch's or any
contender's, less than 10 %. A learning rate that is wrong by 1 % is beyond the tolerance by a
factor of 96 or more, a wrong β₂ 94, missing weight decay 9.6, an omitted last but one update 5.2
(where one-cycle's learning rate is almost 0), and a gradient that is not divided by N, which Adam
nearly cancels, 290; but 1.9 in `tutorial`, where it is felt by eps alone.
`tests/test_benchmarks.py` plants these.

**What it can't tell.** In the task's own run the tolerance grows with the chaos, and late in it an
omitted update of Adam, whose loss is computed, would pass. The batches and their order would still
not: losses vary between batches by 0.1. The `tutorial` recipe is sign descent, whose chaos is fast:
of the task's own run its first 50 losses are compared, and of runs of more than 1,000 updates the
first 1,000.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from benchmarks.task import Outcome, Task
from reference import mnist_nn

ERROR = 1e-4
FACTOR = 3.0
ROUNDING = 32 * 2.0**-24
MOST_STEPS = 1000
MOST_STEPS_OF_RENEW = 50

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Agreement:
    """A contender's distance from the reference, as shares of what is tolerated.

    Attributes:
        steps: how many updates' losses were compared.
        loss: the largest share of any update's loss, at update `step`, counted from 0; None if
            there was a problem.
        weights: the largest share of any parameter, named `parameter`; None if not compared.
        problem: what can't even be compared, or "".
    """

    steps: int = 0
    loss: float | None = None
    step: int = 0
    weights: float | None = None
    parameter: str = ""
    problem: str = ""

    @property
    def share(self) -> float:
        """The larger of the two; infinite if there was a problem."""
        return math.inf if self.loss is None else max(self.loss, self.weights or 0.0)

    @property
    def ok(self) -> bool:
        """Whether the time counts."""
        return self.share <= 1

    def __str__(self) -> str:
        if self.loss is None:
            return self.problem
        text = f"the loss of update {self.step} is off by {self.loss:.2g} of what is tolerated"
        if self.weights is None:
            return text
        return f"{text}, {self.parameter} by {self.weights:.2g}"


class Standard:
    """What a task's outcome has to be, and how far from it it may be."""

    def __init__(self, task: Task) -> None:
        self.steps = task.steps
        self.compared = min(task.steps, MOST_STEPS_OF_RENEW if short(task) else MOST_STEPS)
        self.exact = reference(task, self.compared)
        others = [
            reference(task, self.compared, error=ERROR),
            reference(task, self.compared, torch.float32),
        ]
        changes = [np.abs(other.losses - self.exact.losses) for other in others]
        largest = np.maximum.accumulate(np.max(changes, axis=0))
        self.loss_tolerance = FACTOR * largest + ROUNDING * np.maximum(self.exact.losses, 1)
        self.movement = {
            name: float(np.linalg.norm(value - task.initial[name]))
            for name, value in self.exact.parameters.items()
        }
        self.weight_tolerance = {
            name: FACTOR * max(self._distance(name, other) for other in others)
            for name in self.movement
        }

    def _distance(self, name: str, outcome: Outcome) -> float:
        """In the 2-norm, relative to how far the reference has moved."""
        value = outcome.parameters[name].astype(np.float64)
        return float(np.linalg.norm(value - self.exact.parameters[name]) / self.movement[name])

    def judge(self, outcome: Outcome) -> Agreement:
        """Compare an outcome with the reference's."""
        if outcome.losses.shape != (self.steps,):
            return Agreement(problem=f"{outcome.losses.shape} losses for {self.steps} updates")
        shapes = {name: value.shape for name, value in outcome.parameters.items()}
        if shapes != {name: value.shape for name, value in self.exact.parameters.items()}:
            return Agreement(problem=f"parameters of shapes {shapes}")
        values = (outcome.losses, *outcome.parameters.values())
        if not all(np.isfinite(value).all() for value in values):
            return Agreement(problem="a loss or a weight is not finite")
        losses = np.abs(outcome.losses[: self.compared] - self.exact.losses) / self.loss_tolerance
        step = int(losses.argmax())
        found = Agreement(self.compared, float(losses[step]), step)
        if self.compared < self.steps:
            return found
        weights = {
            name: self._distance(name, outcome) / self.weight_tolerance[name]
            for name in self.movement
        }
        worst = max(weights, key=lambda name: weights[name])
        return Agreement(self.compared, found.loss, step, weights[worst], worst)


def short(task: Task) -> bool:
    """Whether the chaos is so fast that only the first updates can be compared."""
    return task.renew and task.steps > MOST_STEPS_OF_RENEW


def reference(
    task: Task, steps: int, dtype: torch.dtype = torch.float64, error: float = 0.0
) -> Outcome:
    """The first updates of a task by PyTorch's own modules, loss and optimizer, on one thread.

    Args:
        task: on whatever device; this is done on the CPU.
        steps: how many.
        dtype: of everything.
        error: the relative error of all learning rates.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _train(task, steps, dtype, error)
    finally:
        torch.set_num_threads(before)


def _train(task: Task, steps: int, dtype: torch.dtype, error: float) -> Outcome:
    hidden, pixels = task.initial["lin1.weight"].shape
    model = mnist_nn.Mnist_NN(pixels, hidden, len(task.initial["lin2.bias"]))
    model.load_state_dict(mnist_nn.from_scratchnet(task.initial))
    model.to(dtype)
    images, labels = torch.from_numpy(task.images), torch.from_numpy(task.labels)
    optimizer = new_optimizer(task, model)
    losses: list[float] = []
    for epoch, order in enumerate(torch.from_numpy(task.order)):
        for step, batch in task.batches(epoch):
            if step >= steps:
                break
            x = images[order[batch]].to(dtype) / 255
            x = (x - task.normalization.mean) / task.normalization.std
            if task.renew:
                optimizer = new_optimizer(task, model)
            for group in optimizer.param_groups:
                group["lr"] = float(task.lrs[step]) * (1 + error)
            loss = F.cross_entropy(model(x), labels[order[batch]])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.item())
    return Outcome(np.array(losses), mnist_nn.to_scratchnet(model.state_dict()))


def new_optimizer(
    task: Task, model: torch.nn.Module, **options: bool
) -> torch.optim.Adam | torch.optim.AdamW:
    """PyTorch's optimizer for a task; options such as fused=True."""
    kind = torch.optim.AdamW if task.weight_decay else torch.optim.Adam
    return kind(
        model.parameters(),
        lr=float(task.lrs[0]),
        betas=task.betas,
        eps=task.eps,
        weight_decay=task.weight_decay,
        **options,
    )
