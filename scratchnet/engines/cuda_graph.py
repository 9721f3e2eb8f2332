"""The three kernels of `cuda_fused`, many updates at a time in a CUDA graph.

A launch costs the host a few microseconds, and an update of three small kernels is over before the
next is launched. A graph is a recording of launches that the GPU repeats by itself.

Not yet run on a GPU; the tests run its kernels on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from scratchnet.engines import cuda, cuda_fused


class Engine(cuda_fused.Engine):
    """The updates of `cuda_fused`, from a graph of UPDATES of them; what is left over one by one.

    Raises:
        InputError: as `cuda_fused.Engine`.
    """

    name = "cuda_graph"
    UPDATES = 32  # so the host launches a graph in the time of many updates

    recorded: bytes | None = None  # the arguments that are in the graph
    graph: Callable[[], None]

    def _make(self, arguments: np.void, updates: int) -> None:
        """So many updates."""
        if updates > self.UPDATES and self.recorded != arguments.tobytes():
            super()._make(arguments, 1)  # kernels can't be captured before their first launch
            updates -= 1
            self._record(arguments)
        if self.recorded == arguments.tobytes():
            graphs, updates = divmod(updates, self.UPDATES)
            for _ in range(graphs):
                self.graph()
        super()._make(arguments, updates)

    def _record(self, arguments: np.void) -> None:
        make = super()._make
        self.graph = cuda.capture(lambda: make(arguments, self.UPDATES))
        self.recorded = arguments.tobytes()
