"""`python -m benchmarks.emulated MODULE ARGUMENTS`: a rehearsal, where there is no GPU.

Runs a module as `python -m MODULE ARGUMENTS` does, but the engines for a GPU run their kernels in
the emulator of the tests, on NumPy arrays, and what else is asked of CuPy is answered by the few
lines below. So what a GPU is needed for can be tried without one; its times say nothing, and its
records are marked as rehearsals.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

from benchmarks.worker import REHEARSAL
from scratchnet import backend


class Event:
    """For cupy.cuda.Event. Nothing is asynchronous here."""

    def record(self) -> None:
        """Note the time."""
        self.at = time.perf_counter()

    def synchronize(self) -> None:
        """Do nothing: it is over."""


H100 = SimpleNamespace(
    compute_capability="90", attributes={"MultiProcessorCount": 132, "ClockRate": 1_980_000}
)
CUDA = SimpleNamespace(
    Event=Event,
    get_elapsed_time=lambda begin, end: (end.at - begin.at) * 1e3,
    Device=lambda: H100,
    set_allocator=lambda allocator: None,
)
CUPY: Any = SimpleNamespace(cuda=CUDA)


def _cupy() -> Any:
    """CUPY, or the tests' own stand-in for arrays, where that is installed."""
    from tests import strict_cupy

    found = sys.modules.get("cupy")
    return found if found is strict_cupy.cupy else CUPY


@contextlib.contextmanager
def gpu() -> Iterator[None]:
    """Within it, and in the workers that are started within it, there seems to be a GPU."""
    from tests.cuda.engines import Form, running

    with (
        running(Form("cuda_epoch")),
        mock.patch.object(backend, "why_no_gpu", return_value=None),
        mock.patch.object(backend, "cupy", _cupy),
        mock.patch.dict(os.environ, {REHEARSAL: "1"}),
    ):
        yield


if __name__ == "__main__":
    module, sys.argv = sys.argv[1], sys.argv[1:]
    with gpu():
        runpy.run_module(module, run_name="__main__", alter_sys=True)
