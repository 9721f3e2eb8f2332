"""tinygrad: an update captured by TinyJit.

Samples are gathered by NumPy, straight into the memory of the program's input, since tinygrad's own
indexing multiplies by a one-hot matrix of 50,000 columns (5 ms), and a new Tensor in each update
would be scheduled anew (2 ms).
"""

from __future__ import annotations

from importlib import metadata
from typing import Any

import numpy as np
import numpy.typing as npt
from tinygrad import Tensor, TinyJit
from tinygrad.dtype import _to_np_dtype
from tinygrad.helpers import Context
from tinygrad.nn.optim import AdamW

from benchmarks.task import PARAMETERS, Outcome, Task


class Contender:
    """The variant "beam" lets tinygrad search for fast kernels, for more than a minute."""

    def __init__(self, variant: str) -> None:
        self.beam = 2 if variant == "beam" else 0

    def about(self) -> str:
        """Version, and whether it has searched."""
        return f"tinygrad {metadata.version('tinygrad')}, TinyJit, BEAM={self.beam}"

    def prepare(self, task: Task, threads: int) -> None:
        """Parameters, optimizer, inputs for both batch sizes; TinyJit captures the second call."""
        self.task = task
        self.parameters = [
            Tensor(task.initial[name].copy()).contiguous().realize() for name in PARAMETERS
        ]
        self.optimizer = AdamW(
            self.parameters,
            b1=task.betas[0],
            b2=task.betas[1],
            eps=task.eps,
            weight_decay=task.weight_decay,
            fused=True,  # all parameters in one kernel: 5 % faster here
        )
        state = [*self.optimizer.m, *self.optimizer.v, self.optimizer.b1_t, self.optimizer.b2_t]
        Tensor.realize(self.optimizer.lr, *state)
        count, size = len(task.labels), task.batch_size
        sizes = {min(size, count), count % size or size}
        self.programs = {n: Program(self, n) for n in sizes}
        for program in self.programs.values():
            for _ in range(3):
                program.run()

    def reset(self) -> None:
        """Write the initial state into the memory that the captured programs use."""
        for tensor, name in zip(self.parameters, PARAMETERS, strict=True):
            _memory(tensor)[:] = self.task.initial[name].ravel()
        for tensor in (*self.optimizer.m, *self.optimizer.v):
            _memory(tensor)[:] = 0
        for tensor in (self.optimizer.b1_t, self.optimizer.b2_t):
            _memory(tensor)[:] = 1
        self.losses: list[float] = []

    def epoch(self, number: int) -> None:
        """Gather, set the learning rate, run."""
        task, order = self.task, self.task.order[number]
        rate = _memory(self.optimizer.lr)
        for step, batch in task.batches(number):
            chosen = order[batch]
            program = self.programs[len(chosen)]
            np.take(task.images, chosen, axis=0, out=program.pixels, mode="clip")
            np.take(task.labels, chosen, out=program.targets, mode="clip")
            rate[0] = task.lrs[step]
            self.losses.append(program.run())

    def collect(self) -> Outcome:
        """Copies."""
        values = [_memory(tensor).reshape(tensor.shape).copy() for tensor in self.parameters]
        return Outcome(np.array(self.losses), dict(zip(PARAMETERS, values, strict=True)))


class Program:
    """An update for one batch size, and its inputs: pixels (n, 784) and targets (n,), NumPy."""

    def __init__(self, contender: Contender, n: int) -> None:
        self.contender = contender
        self.inputs = (
            Tensor(np.zeros((n, 784), np.uint8)).contiguous().realize(),
            Tensor(np.zeros(n, np.int64)).contiguous().realize(),
        )
        self.pixels = _memory(self.inputs[0]).reshape(n, 784)
        self.targets = _memory(self.inputs[1])
        self.jit = TinyJit(self._update)

    def _update(self, pixels: Tensor, targets: Tensor) -> Tensor:
        task, optimizer = self.contender.task, self.contender.optimizer
        w1, b1, w2, b2 = self.contender.parameters
        x = pixels.float() / 255
        if task.normalized:
            x = (x - task.normalization.mean) / task.normalization.std
        optimizer.zero_grad()
        logits = x.linear(w1.T, b1).relu().linear(w2.T, b2)
        loss = logits.sparse_categorical_crossentropy(targets).backward()
        return loss.realize(*optimizer.schedule_step())

    def run(self) -> float:
        """Make the update; its loss."""
        with Context(TRAINING=1, BEAM=self.contender.beam):
            return float(_memory(self.jit(*self.inputs))[0])


def _memory(tensor: Tensor) -> npt.NDArray[Any]:
    """A tensor's memory as a flat NumPy array: writing to it writes to the tensor."""
    buffer = tensor.uop.base.buffer
    view = buffer.as_memoryview(force_zero_copy=True)
    memory: npt.NDArray[Any] = np.frombuffer(view, _to_np_dtype(buffer.dtype))
    return memory
