"""The same training steps at several speeds. `layers` defines what is right; the others equal it.

An engine makes stretches of a run's updates. It takes the run's arrays as they are (parameters and
moments in flat buffers, the order of the samples, the learning rates) and leaves them as they must
be after the last of the updates, so engines can take turns in one run, and a checkpoint is the same
for all.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Protocol

from scratchnet.errors import InputError
from scratchnet.optim import AdamW

if TYPE_CHECKING:
    from scratchnet.training import Run

NAMES = ("layers", "numpy_inplace", "native")
AUTO = "auto"


class Engine(Protocol):
    """What every engine has."""

    def advance(self, first: int, last: int) -> list[float]:
        """Make the updates first to last - 1, counted from 0 over all epochs; their losses.

        What is computed must not depend on where a stretch begins and ends.
        """


def why_not(name: str) -> str | None:
    """Why an engine can't be used on this machine, as one sentence; None if it can."""
    if name != "native":
        return None
    from scratchnet.engines import native  # whose answer may take a second

    return native.why_not()


def resolve(name: str, device: str) -> str:
    """The engine of a name, where "auto" is the fastest for a device on this machine.

    On the CPU that is `native` where there is a C compiler, else `numpy_inplace`.

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


def make(name: str, run: Run) -> Engine:
    """The engine of a name, for a run.

    Raises:
        InputError: there is no such engine, or not for this run, or not on this machine.
    """
    name = resolve(name, run.device)
    engine: Engine = importlib.import_module(f"scratchnet.engines.{name}").Engine(run)
    return engine


def check_plain_adam(name: str, run: Run) -> None:
    """Raise InputError unless a run is on the CPU, under Adam or AdamW without rarer options."""
    optimizer = run.optimizer
    if run.device != "cpu":
        raise InputError(f"engine {name}: works on the CPU only, not on {run.device}")
    if optimizer.amsgrad or optimizer.maximize or optimizer.eps == 0:
        raise InputError(f"engine {name}: has neither amsgrad nor maximize nor eps = 0")
    if optimizer.weight_decay and not isinstance(optimizer, AdamW):
        raise InputError(f"engine {name}: has AdamW's weight decay only")
