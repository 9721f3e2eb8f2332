"""The rungs of the ladder on a GPU: the same updates, each time with less in between.

From one to the next: `layers` launches a kernel for each operation of the text; `cuda_fused` three
for an update; `cuda_graph` the same three, recorded; `cuda_epoch` one for an epoch, whose blocks
exchange what they need through memory (grid) or from one to another (cluster).
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from unittest import mock

import numpy as np
import numpy.typing as npt

from scratchnet.engines import Replaced, cuda_epoch
from scratchnet.engines.cuda import NotLaunched
from scratchnet.engines.cuda_epoch import Layout
from scratchnet.errors import InputError
from scratchnet.training import Run


@dataclass(frozen=True)
class Rung:
    """An engine, and of cuda_epoch a layout.

    Attributes:
        name: of its contender, without "scratchnet-".
        engine: a name in engines.NAMES.
        cluster, blocks: as in cuda_epoch.Layout; 0 blocks for the fastest that the GPU takes, or
            where there is nothing to choose.
    """

    name: str
    engine: str
    cluster: bool = False
    blocks: int = 0

    def computes_in(self, dtype: npt.DTypeLike) -> bool:
        """Whether it does in this dtype at all."""
        return self.engine != "cuda_epoch" or np.dtype(dtype) == np.float32


RUNGS = (
    Rung("layers", "layers"),
    Rung("cuda_fused", "cuda_fused"),
    Rung("cuda_graph", "cuda_graph"),
    Rung("cuda_epoch-grid", "cuda_epoch", False, 16),
    Rung("cuda_epoch-cluster-8", "cuda_epoch", True, 8),
    Rung("cuda_epoch-cluster-16", "cuda_epoch", True, 16),
)
NOT_HERE = (Replaced, InputError, NotLaunched)
LAYOUTS = tuple(rung for rung in RUNGS if rung.blocks)


def named(name: str) -> Rung:
    """The rung of a name; of an engine's own name, that engine as it chooses for itself."""
    return next((rung for rung in RUNGS if rung.name == name), Rung(name, name))


@contextlib.contextmanager
def only(rung: Rung) -> Iterator[None]:
    """Within it cuda_epoch has no other layout than the rung's, and no engine takes its place.

    Where this GPU can't make a run's updates in this way, one of NOT_HERE is raised, and says why.
    """
    every = cuda_epoch.layouts

    def layouts(run: Run) -> list[Layout]:
        return [
            own
            for own in every(run)
            if not rung.blocks or (own.cluster, own.blocks) == (rung.cluster, rung.blocks)
        ]

    with mock.patch.object(cuda_epoch, "layouts", layouts), warnings.catch_warnings():
        warnings.simplefilter("error", Replaced)
        yield
