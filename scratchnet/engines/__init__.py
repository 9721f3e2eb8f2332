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

if TYPE_CHECKING:
    from scratchnet.training import Run

NAMES = ("layers", "numpy_inplace")


class Engine(Protocol):
    """What every engine has."""

    def advance(self, first: int, last: int) -> list[float]:
        """Make the updates first to last - 1, counted from 0 over all epochs; their losses.

        What is computed must not depend on where a stretch begins and ends.
        """


def make(name: str, run: Run) -> Engine:
    """The engine of a name, for a run.

    Raises:
        InputError: there is no such engine, or not for this run.
    """
    if name not in NAMES:
        raise InputError(f"engine {name!r} is unknown; expected one of {', '.join(NAMES)}")
    engine: Engine = importlib.import_module(f"scratchnet.engines.{name}").Engine(run)
    return engine
