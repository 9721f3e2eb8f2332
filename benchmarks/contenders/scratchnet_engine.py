"""scratchnet itself, by each of its engines. On a GPU not yet run."""

from __future__ import annotations

import numpy as np

import scratchnet
from benchmarks import kernel_stages, rungs
from benchmarks.gpu_clock import Watch, around
from benchmarks.stages import Clock
from benchmarks.task import Outcome, Task
from scratchnet import backend, engines
from scratchnet.engines import cuda, cuda_epoch
from scratchnet.mnist import Split
from scratchnet.training import Run


class Contender:
    """A `Run` and an engine. The variant is the engine's name, or that of a rung of the ladder.

    The engines take their numbers of threads from threadpoolctl (BLAS) and OMP_NUM_THREADS
    (native), which the worker has set. The order of an epoch they make in the time that counts,
    unless there is one epoch only, whose order is remembered from the run before.
    """

    def __init__(self, variant: str) -> None:
        self.rung = rungs.named(variant)

    def about(self) -> str:
        """Version, engine, and what a GPU's kernels are laid out for."""
        library = "NumPy" if self.run.device == "cpu" else "CuPy"
        version = backend.array_module(self.run.device).__version__
        text = (
            f"scratchnet {scratchnet.__version__}, engine {self.rung.engine}, {library} {version}"
        )
        if isinstance(self.engine, cuda_epoch.Engine):
            layout = self.engine.fleet.layout
            text += f", {'cluster' if layout.cluster else 'grid'} of {layout.blocks} blocks"
        return text

    def prepare(self, task: Task, threads: int) -> None:
        """A run and its engine, which keeps what it compiles and records for all that follows.

        Raises:
            UserWarning: another engine would take this one's place.
        """
        device = cuda.DEVICE if task.device == "cuda" else task.device
        self.task = task
        self.run = Run(task.options, Split(task.images, task.labels), device)
        self.engine = self._engine()

    def _engine(self) -> engines.Engine:
        with rungs.only(self.rung):
            return engines.make(self.rung.engine, self.run)

    def reset(self) -> None:
        """The run as it was at first, in the same memory, which a recorded graph knows."""
        optimizer = self.run.optimizer
        self.run.model.load_state_dict(self.task.initial)
        for vector in optimizer.vectors.values():
            vector[...] = 0
        optimizer.steps = [0] * len(optimizer.steps)
        self.losses: list[float] = []

    def epoch(self, number: int) -> None:
        """The epoch's updates, in one stretch."""
        each = self.run.steps_per_epoch
        self.losses += self.engine.advance(number * each, (number + 1) * each)

    def collect(self) -> Outcome:
        """From the run."""
        state = self.run.model.state_dict()
        parameters = {name: backend.to_numpy(value) for name, value in state.items()}
        return Outcome(np.array(self.losses), parameters)

    def gpu(self) -> dict[str, float]:
        """Of the first epoch, from a fresh `reset` on: seconds, launches and kernels.

        The seconds are the GPU's, from its first kernel to the end of its last; launches are those
        by the host, of kernels and graphs, and kernels those that the GPU runs for them. `layers`,
        whose kernels are CuPy's, has no counts, and the seconds are of the whole epoch.
        """
        if self.rung.engine == "layers":
            return {"seconds": around(lambda: self.epoch(0))}
        watch, engine = Watch(), self.engine
        try:
            with watch.on():
                self.engine = self._engine()  # whose graph is made under the watch
                for _ in range(2):
                    watch.begin()
                    self.epoch(0)
                    self.reset()
                watch.begin(watch.launches)
                self.epoch(0)
        finally:
            self.engine = engine
        (seconds,) = watch.seconds()
        return {"seconds": seconds, "launches": watch.launches, "kernels": watch.kernels}

    def stages(self) -> dict[str, float]:
        """Train, from a fresh `reset` on, and return the seconds of each stage."""
        if self.rung.engine == "native":
            made: dict[str, float] = self.engine.stages(0, self.run.total_steps)  # type: ignore[attr-defined]
            return made
        if self.rung.engine == "cuda_epoch":
            return kernel_stages.measure(self.run, self.rung)
        return (
            self._stages_of_layers() if self.rung.engine == "layers" else self._stages_of_methods()
        )

    def _stages_of_layers(self) -> dict[str, float]:
        """`Run.update`, with a look at the clock between its lines."""
        run, clock = self.run, Clock()
        batches = run.batches(0, run.total_steps)
        for _ in range(run.total_steps):
            x, y, lr = next(batches)
            clock.lap("gather")
            run.loss_func(run.model(x), y)
            clock.lap("forward")
            run.model.backward(run.loss_func.backward())
            clock.lap("backward")
            if run.recipe.renew:
                run.optimizer = run.recipe.optimizer(run.model.parameters(), lr)
            run.optimizer.lr = lr
            run.optimizer.step()
            run.optimizer.zero_grad()
            clock.lap("adam")
        return clock.seconds

    def _stages_of_methods(self) -> dict[str, float]:
        """numpy_inplace: each of its methods belongs to a stage."""
        clock, engine = Clock(), self._engine()  # to be changed
        for method, stage in (
            ("_gather", "gather"),
            ("_forward", "forward"),
            ("_cross_entropy", "head"),
            ("_backward", "backward"),
            ("_adam", "adam"),
        ):
            setattr(engine, method, clock.timed(getattr(engine, method), stage))
        engine.advance(0, self.run.total_steps)
        return clock.seconds
