"""scratchnet itself, by each of its engines. On a GPU: its layers on CuPy, not yet run there."""

from __future__ import annotations

import numpy as np

import scratchnet
from benchmarks.stages import Clock
from benchmarks.task import Outcome, Task
from scratchnet import backend, engines
from scratchnet.mnist import Split
from scratchnet.training import Run


class Contender:
    """A `Run` and an engine. The variant is the engine's name.

    The engines take their numbers of threads from threadpoolctl (BLAS) and OMP_NUM_THREADS
    (native), which the worker has set. The order of an epoch they make in the time that counts,
    unless there is one epoch only, whose order is remembered from the run before.
    """

    def __init__(self, variant: str) -> None:
        self.name = variant

    def about(self) -> str:
        """Version and engine."""
        library = "NumPy" if self.task.device == "cpu" else "CuPy"
        version = backend.array_module(self.task.device).__version__
        return f"scratchnet {scratchnet.__version__}, engine {self.name}, {library} {version}"

    def prepare(self, task: Task, threads: int) -> None:
        """Nothing but the data: what an engine compiles is kept for the process."""
        self.task = task

    def reset(self) -> None:
        """A new run."""
        task = self.task
        self.run = Run(task.options, Split(task.images, task.labels), task.device)
        self.engine = engines.make(self.name, self.run)
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

    def stages(self) -> dict[str, float]:
        """Train, from a fresh `reset` on, and return the seconds of each stage."""
        if self.name == "native":
            made: dict[str, float] = self.engine.stages(0, self.run.total_steps)  # type: ignore[attr-defined]
            return made
        return self._stages_of_layers() if self.name == "layers" else self._stages_of_methods()

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
        clock, engine = Clock(), self.engine
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
