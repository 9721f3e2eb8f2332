"""The same training steps at several speeds. `layers` defines what is right; the others equal it.

An engine makes stretches of a run's updates. It takes the run's arrays as they are (parameters and
moments in flat buffers, the order of the samples, the learning rates) and leaves them as they must
be after the last of the updates, so engines can take turns in one run, and a checkpoint is the same
for all.
"""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

import numpy as np

from scratchnet import backend
from scratchnet.errors import InputError
from scratchnet.optim import AdamW

if TYPE_CHECKING:
    from scratchnet.training import Run

CUDA = ("cuda_fused", "cuda_graph", "cuda_epoch")  # which work on a GPU only
NAMES = ("layers", "numpy_inplace", "native", *CUDA)
AUTO = "auto"


class Replaced(UserWarning):
    """Another engine takes the place of the one that was asked for."""


class Engine(Protocol):
    """What every engine has."""

    def advance(self, first: int, last: int) -> list[float]:
        """Make the updates first to last - 1, counted from 0 over all epochs; their losses.

        What is computed must not depend on where a stretch begins and ends.
        """


class Together(Protocol):
    """What makes the updates of several runs at once."""

    def advance(self, first: int, last: int) -> list[list[float]]:
        """Make the updates first to last - 1 of every run; the losses of each run."""


def why_not(name: str) -> str | None:
    """Why an engine can't be used on this machine, as one sentence; None if it can."""
    if name in CUDA:
        reason = backend.why_no_gpu()
        return f"engine {name}: works on a GPU only: {reason}" if reason else None
    if name != "native":
        return None
    from scratchnet.engines import native  # whose answer may take a second

    return native.why_not()


def resolve(name: str, device: str) -> str:
    """The engine of a name, where "auto" is the fastest for a device on this machine.

    On the CPU that is `native` where there is a C compiler, else `numpy_inplace`. On a GPU it is
    `layers` for as long as the others have not been run on one.

    Raises:
        InputError: there is no such engine.
    """
    if name == AUTO:
        if device != "cpu":
            return "layers"
        return "numpy_inplace" if why_not("native") else "native"
    if name not in NAMES:
        raise InputError(f"engine {name!r} is unknown; expected one of {', '.join((AUTO, *NAMES))}")
    return name


def device(name: str) -> str:
    """Where an engine works: "cuda", or "cpu"; `layers`, which works on both, counts as "cpu"."""
    from scratchnet.engines import cuda

    return cuda.DEVICE if name in CUDA else "cpu"


def make(name: str, run: Run) -> Engine:
    """The engine of a name, for a run.

    Raises:
        InputError: there is no such engine, or not for this run, or not on this machine.
    """
    engine: Engine = _module(name, run).Engine(run)
    return engine


def make_together(runs: Sequence[Run]) -> Together:
    """What trains several runs of one engine: its module's `Fleet`, if it has one, or by turns.

    Raises:
        InputError: as for `make`.
    """
    module = _module(runs[0].engine, runs[0])
    fleet: Together = module.Fleet(runs) if hasattr(module, "Fleet") else _ByTurns(runs)
    return fleet


def _module(name: str, run: Run) -> ModuleType:
    """Where the engine of a name is, or the one that takes its place, which a warning tells."""
    name = resolve(name, run.device)
    module = importlib.import_module(f"scratchnet.engines.{name}")
    if name == "cuda_epoch":
        reason = module.why_not(run)
        if reason:
            warnings.warn(f"{reason}; cuda_graph takes its place", Replaced, stacklevel=3)
            return importlib.import_module("scratchnet.engines.cuda_graph")
    return module


class _ByTurns:
    """Each run's own engine makes the whole stretch, one run after the other."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.engines = [make(run.engine, run) for run in runs]

    def advance(self, first: int, last: int) -> list[list[float]]:
        """Make the updates first to last - 1 of every run; the losses of each run."""
        return [engine.advance(first, last) for engine in self.engines]


def within_epochs(run: Run, first: int, last: int) -> Iterator[tuple[int, int]]:
    """The updates first to last - 1, cut where an epoch ends, since each has its own order."""
    while first < last:
        end_of_epoch = (first // run.steps_per_epoch + 1) * run.steps_per_epoch
        yield first, min(last, end_of_epoch)
        first = end_of_epoch


def have_stepped(run: Run, last: int, updates: int) -> None:
    """Note in a run's optimizer that it has made so many updates, up to last - 1."""
    optimizer = run.optimizer
    t = 1 if run.recipe.renew else optimizer.steps[0] + updates
    optimizer.steps = [t] * len(optimizer.steps)
    optimizer.lr = float(run.lrs[last - 1])


def check_data(run: Run) -> None:
    """Raise InputError unless a run's images and labels are such as compiled code can rely on."""
    (classes, _), (_, inputs) = run.model.lin2.weight.shape, run.model.lin1.weight.shape
    if run.images.shape != (len(run.labels), inputs):
        raise InputError(f"images have shape {run.images.shape}; expected (N, {inputs})")
    if run.images.dtype != np.uint8:
        raise InputError(f"images are {run.images.dtype}; expected uint8")
    if run.labels.min() < 0 or run.labels.max() >= classes:
        raise InputError(f"a label is not in 0..{classes - 1}")


def check_plain_adam(name: str, run: Run, device: str = "cpu") -> None:
    """Raise InputError unless a run is on a device, under Adam or AdamW without rarer options."""
    optimizer = run.optimizer
    if run.device != device:
        where = {"cpu": "the CPU", "cuda": "a GPU"}
        raise InputError(
            f"engine {name}: works on {where[device]} only, not on {where[run.device]}: give "
            f"--device {device}, or another engine"
        )
    if optimizer.amsgrad or optimizer.maximize:
        raise InputError(f"engine {name}: has neither amsgrad nor maximize")
    # Some take numbers below the normal range for 0, and some compute eps √(1 - β₂ᵗ).
    least = np.finfo(run.dtype).tiny / math.sqrt(1 - optimizer.betas[1])
    if optimizer.eps < least:
        raise InputError(
            f"engine {name}: eps is {optimizer.eps}; expected at least {least:.2g}, below which it "
            "may count as 0"
        )
    if optimizer.weight_decay and not isinstance(optimizer, AdamW):
        raise InputError(f"engine {name}: has AdamW's weight decay only")
