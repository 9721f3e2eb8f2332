"""A whole epoch in one launch: kernels/epoch.cu, which is written to be read.

Several networks, of other seeds or learning rates, train side by side in the same launch.

Not yet run on a GPU; the tests run its kernels on the CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from scratchnet import backend
from scratchnet.engines import check_plain_adam, cuda, have_stepped, within_epochs
from scratchnet.errors import InputError

if TYPE_CHECKING:
    from scratchnet.training import Run

UPDATES = 1024  # of a launch at most, for which pixels are gathered beforehand
THREADS, CHUNK = 416, 16  # as in epoch.cu
PORTABLE = 8  # blocks of a cluster, on any GPU that has clusters
MOST_TILES = 2  # of a thread, for whose moments there are registers


@dataclass(frozen=True)
class Layout:
    """How a network is dealt out to thread blocks. The names are those of epoch.cu."""

    cluster: bool
    blocks: int
    batch: int
    inputs: int
    units: int
    classes: int

    @property
    def slice(self) -> int:
        """Inputs of a block, the one for the bias among them."""
        return cuda.ceil_div(self.inputs + 1, self.blocks)

    @property
    def n(self) -> int:
        """Samples of a batch, padded."""
        return self.blocks * _round_up(cuda.ceil_div(self.batch, self.blocks), 4)

    @property
    def h(self) -> int:
        """Hidden units, padded, with the one that is always 1."""
        return _round_up(self.units + 1, 4)

    @property
    def heads(self) -> int:
        """Numbers in struct Heads."""
        return self.n * (self.h + _round_up(self.classes, 4))

    @property
    def partial(self) -> int:
        """Numbers in struct Partial."""
        return self.n * self.h

    @property
    def shared(self) -> int:
        """Bytes of struct Shared."""
        rows, c = _round_up(self.slice, 4), _round_up(self.classes, 4)
        x = (2 if self.cluster else 1) * rows * (self.n + 4)
        numbers = x + (rows + c) * self.h + self.heads + self.n * self.h
        return 4 * (numbers + self.partial) + 16 if self.cluster else 4 * numbers

    @property
    def tiles(self) -> int:
        """Tiles of parameters that a thread owns."""
        rows, c, width = _round_up(self.slice, 4), _round_up(self.classes, 4), self.h // 4
        height = 2 if rows // 4 * width <= THREADS // 2 else 4
        return cuda.ceil_div((rows + c) // height * width, THREADS)

    def constants(self) -> dict[str, int]:
        """What to define for epoch.cu."""
        return {
            "CLUSTER": int(self.cluster),
            "BLOCKS": self.blocks,
            "BATCH": self.batch,
            "INPUTS": self.inputs,
            "UNITS": self.units,
            "CLASSES": self.classes,
            "SHARED_BYTES": self.shared,
        }

    def why_not(self, limits: cuda.Limits) -> str | None:
        """Why a GPU can't have this layout, as the rest of a sentence; None if it may."""
        if self.cluster and not limits.clusters:
            return "it has no thread-block clusters"
        if self.shared > limits.shared:
            return f"{self.shared} bytes of shared memory are more than the {limits.shared} it has"
        if self.tiles > MOST_TILES:
            return f"{self.units} hidden units are more than its registers can hold"
        if self.blocks > limits.blocks:
            return f"{self.blocks} blocks can't run at once"
        return None


def layouts(run: Run) -> list[Layout]:
    """Those to try, the fastest first: 16 blocks that exchange in a cluster, 8, or 16 in a grid."""
    size = cuda.sizes(run).values()
    return [
        Layout(cluster, blocks, run.options.batch_size, *size)
        for cluster, blocks in ((True, 16), (True, 8), (False, 16))
    ]


def why_not(run: Run) -> str | None:
    """Why the engine can't make a run's updates on this GPU, as one sentence; None if it can.

    Raises:
        InputError: no engine for the GPU can make them.
    """
    cuda.check("cuda_epoch", run)
    if np.dtype(run.dtype) != np.float32:
        return f"engine cuda_epoch: computes in float32 only, not in {np.dtype(run.dtype).name}"
    limits = cuda.limits()
    reasons = [layout.why_not(limits) for layout in layouts(run)]
    if None in reasons:
        return None
    return f"engine cuda_epoch: the network does not fit into this GPU: {reasons[-1]}"


class Fleet:
    """Networks of one shape and one recipe, trained on the same images, in the same launches.

    They may differ in seed and learning rate.

    Raises:
        InputError: a run is not on a GPU, has something that this engine lacks, or differs from
            the first in more than seed and learning rate.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = list(runs)
        first = self.runs[0]
        reason = why_not(first)
        if reason:
            raise InputError(reason)
        for run in self.runs[1:]:
            check_plain_adam("cuda_epoch", run, cuda.DEVICE)
            _check_alike(run, first)
        self.labels = first.labels.astype(np.int32)
        self.limits = cuda.limits()
        self._choose([layout for layout in layouts(first) if not layout.why_not(self.limits)])

    def _choose(self, candidates: list[Layout]) -> None:
        """Take the first layout that can be launched, which only a try tells of large clusters."""
        self.layout = candidates[0]
        cluster, constants = self.layout.cluster, self.layout.constants()
        self.program = cuda.Program("epoch.cu", constants, cooperative=not cluster)
        # A cooperative launch has no more blocks than can run at once, which are too few here.
        self.gatherer = cuda.Program("epoch.cu", constants)
        self._allocate(min(self.runs[0].steps_per_epoch, UPDATES))
        try:
            if cluster and self.layout.blocks > PORTABLE:
                self.program.allow_large_clusters("train")
            self._train(0, 0)
            self.program.wait()
        except cuda.NotLaunched:
            if len(candidates) == 1:
                raise
            self._choose(candidates[1:])

    def _allocate(self, updates: int) -> None:
        layout, k, xp = self.layout, len(self.runs), backend.array_module(self.runs[0].device)
        self.order = xp.zeros((k, updates * layout.batch), np.int32)
        self.steps = xp.zeros((k, updates, 4), np.float32)
        self.losses = xp.zeros((k, updates, layout.batch), np.float32)
        pixels = updates * layout.blocks * layout.slice * layout.n
        self.pixels = xp.zeros((k, pixels), np.uint8)
        self.label_of = xp.zeros((k, updates * layout.n), np.int32)
        grid = not layout.cluster
        self.partial = xp.zeros((k, layout.blocks * layout.partial if grid else 0), np.float32)
        self.heads = xp.zeros((k, layout.heads if grid else 0), np.float32)
        self.barriers = xp.zeros((k, 1), np.uint32)

    @backend.ieee
    def advance(self, first: int, last: int) -> list[list[float]]:
        """Make the updates first to last - 1 of each network; their losses, a list for each."""
        losses: list[list[float]] = [[] for _ in self.runs]
        for begin, end in within_epochs(self.runs[0], first, last):
            for start in range(begin, end, UPDATES):
                made = self._advance(start, min(start + UPDATES, end))
                for mine, new in zip(losses, made, strict=True):
                    mine += new
        return losses

    def _advance(self, first: int, last: int) -> list[list[float]]:
        updates, device = last - first, self.runs[0].device
        for i, run in enumerate(self.runs):
            order = run.chosen(first, updates)
            self.order[i, : len(order)] = backend.asarray(order.astype(np.int32), device)
            steps = cuda.steps(run, first, last).astype(np.float32)
            self.steps[i, :updates] = backend.asarray(steps, device)
        self._gather(updates, len(order))
        self._train(updates, len(order))
        for run in self.runs:
            have_stepped(run, last, updates)
        return [cuda.means(each[:updates], len(order)) for each in self.losses]

    def _gather(self, updates: int, samples: int) -> None:
        """Deal out the pixels of so many updates to the blocks."""
        chunks = updates * self.layout.blocks * self.layout.slice * (self.layout.n // CHUNK)
        blocks = len(self.runs) * cuda.ceil_div(chunks, THREADS)
        arguments = self._arguments(range(len(self.runs)), updates, samples)
        self.gatherer.launch("gather", arguments, blocks=blocks, threads=THREADS)

    def _train(self, updates: int, samples: int) -> None:
        """The updates themselves. Without clusters, blocks wait for others, so all must run."""
        layout, together = self.layout, len(self.runs)
        if not layout.cluster:
            together = max(1, self.limits.blocks // layout.blocks)
        for start in range(0, len(self.runs), together):
            runs = range(start, min(start + together, len(self.runs)))
            self.program.launch(
                "train",
                self._arguments(runs, updates, samples),
                blocks=len(runs) * layout.blocks,
                threads=THREADS,
                shared=layout.shared,
            )

    def _network(self, i: int) -> np.void:
        """struct Network."""
        run = self.runs[i]
        return cuda.struct(
            order=self.order[i],
            steps=self.steps[i],
            p=run.model.parameters()[0].buffer.data,
            m=run.optimizer.vectors["exp_avg"],
            v=run.optimizer.vectors["exp_avg_sq"],
            losses=self.losses[i],
            pixels=self.pixels[i],
            labels=self.label_of[i],
            partial=self.partial[i],
            heads=self.heads[i],
            barrier=self.barriers[i],
        )

    def _arguments(self, runs: range, updates: int, samples: int) -> np.void:
        """struct Args, for some of the networks."""
        run = self.runs[0]
        networks = np.array([self._network(i) for i in runs]).view(np.uint8)
        self.networks = backend.asarray(networks, run.device)  # kept for as long as it is used
        return cuda.struct(
            networks=self.networks,
            images=run.images,
            labels=self.labels,
            updates=np.int32(updates),
            samples=np.int32(samples),
            scale=np.float32(run.normalization.scale),
            shift=np.float32(run.normalization.shift),
            optimizer=cuda.optimizer_struct(run),
        )


class Engine:
    """Updates of one `Mnist_NN` under Adam or AdamW: a fleet of one.

    Raises:
        InputError: as `Fleet`.
    """

    def __init__(self, run: Run) -> None:
        self.fleet = Fleet([run])

    def advance(self, first: int, last: int) -> list[float]:
        """Make the updates first to last - 1; their losses."""
        (losses,) = self.fleet.advance(first, last)
        return losses


def _check_alike(run: Run, first: Run) -> None:
    """Raise InputError unless a run differs from the first in seed and learning rate only."""
    options = replace(run.options, seed=first.options.seed, lr=first.options.lr)
    kind, wanted = (
        (each.split is first.split, each.step, cuda.optimizer_struct(each).tobytes())
        for each in (run, first)
    )
    if options != first.options or kind != wanted:
        raise InputError(
            "networks that train together differ in more than seed and learning rate; expected the "
            "same options, the same images, and the same number of updates made"
        )


def _round_up(n: int, to: int) -> int:
    return cuda.ceil_div(n, to) * to
