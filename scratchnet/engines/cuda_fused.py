"""The step of `layers` in three kernels: kernels/fused.cu, which is written to be read.

Not yet run on a GPU; the tests run its kernels on the CPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scratchnet import backend
from scratchnet.engines import cuda, have_stepped, within_epochs

if TYPE_CHECKING:
    from scratchnet.training import Run

THREADS = 128  # of a block; kernels that need so little of one another can have any number
WARP = 32
TILE = 4  # as in fused.cu


class Engine:
    """Updates of `Mnist_NN` under Adam or AdamW, with three launches each.

    Raises:
        InputError: the run is not on a GPU, or has something that this engine lacks.
    """

    name = "cuda_fused"

    def __init__(self, run: Run) -> None:
        cuda.check(self.name, run)
        self.run, self.sizes = run, cuda.sizes(run)
        self.program = cuda.Program(
            "fused.cu", {"REAL": cuda.REALS[np.dtype(run.dtype).name], **self.sizes}
        )
        xp = backend.array_module(run.device)
        n, units, classes = run.options.batch_size, self.sizes["UNITS"], self.sizes["CLASSES"]
        self.labels = run.labels.astype(np.int32)
        self.order = xp.zeros(len(run.labels), np.int32)
        self.steps = xp.zeros((run.steps_per_epoch, 4), run.dtype)
        self.hidden, self.grad_hidden = (xp.zeros((n, units), run.dtype) for _ in range(2))
        self.grad_logits = xp.zeros((n, classes), run.dtype)
        self.losses = xp.zeros((run.steps_per_epoch, n), run.dtype)
        self.progress = xp.zeros(3, np.int32)

    @backend.ieee
    def advance(self, first: int, last: int) -> list[float]:
        """Make the updates first to last - 1; their losses."""
        losses: list[float] = []
        for begin, end in within_epochs(self.run, first, last):
            losses += self._advance(begin, end)
        return losses

    def _advance(self, first: int, last: int) -> list[float]:
        run, updates = self.run, last - first
        order = run.chosen(first, updates)
        self.order[: len(order)] = backend.asarray(order.astype(np.int32), run.device)
        self.steps[:updates] = backend.asarray(
            cuda.steps(run, first, last).astype(run.dtype), run.device
        )
        progress = np.array([0, 0, len(order)], np.int32)
        self.progress[:] = backend.asarray(progress, run.device)
        self._make(self._arguments(), updates)
        have_stepped(run, last, updates)
        return cuda.means(self.losses[:updates], len(order))

    def _make(self, arguments: np.void, updates: int) -> None:
        """So many updates. They know by themselves which they are."""
        for _ in range(updates):
            self._update(arguments)

    def _update(self, arguments: np.void) -> None:
        n, (inputs, units, classes) = self.run.options.batch_size, self.sizes.values()
        tiles = cuda.ceil_div(n, TILE) * cuda.ceil_div(units, TILE)
        parameters = units * (inputs + 1) + classes * (units + 1)
        for kernel, threads in (
            ("hidden_layer", tiles * WARP),
            ("head", n * WARP),
            ("backward_and_adam", parameters),
        ):
            blocks = cuda.ceil_div(threads, THREADS)
            self.program.launch(kernel, arguments, blocks=blocks, threads=THREADS)

    def _arguments(self) -> np.void:
        """struct Args."""
        run, real = self.run, cuda.real(self.run)
        return cuda.struct(
            images=run.images,
            labels=self.labels,
            order=self.order,
            steps=self.steps,
            p=run.model.parameters()[0].buffer.data,
            m=run.optimizer.vectors["exp_avg"],
            v=run.optimizer.vectors["exp_avg_sq"],
            hidden=self.hidden,
            grad_logits=self.grad_logits,
            grad_hidden=self.grad_hidden,
            losses=self.losses,
            progress=self.progress,
            batch=np.int32(run.options.batch_size),
            scale=real(run.normalization.scale),
            shift=real(run.normalization.shift),
            optimizer=cuda.optimizer_struct(run),
        )
