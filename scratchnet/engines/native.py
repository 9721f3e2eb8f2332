"""The step of `layers` in C, many steps in one call: native.c, which is written to be read.

It is compiled at first use: see native_build.py.

Numbers below the normal range, 1.2e-38 in float32 and 2.2e-308 in float64, count as 0, since
some processors are many times slower with them; fading moments become so small. In float32 an m
that is lost moves its parameter by less than lr/(1 - β₁ᵗ) · 1.2e-38 / eps <= 1.2e-29 lr, and a v
changes √v + eps √(1 - β₂ᵗ) by less than 1.1e-19, a part in 10⁹ (for eps = 1e-8 and the usual
betas).
"""

from __future__ import annotations

import ctypes
import functools
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from scratchnet.engines import (
    check_data,
    check_plain_adam,
    have_stepped,
    native_build,
    within_epochs,
)
from scratchnet.engines.native_build import NotBuilt

if TYPE_CHECKING:
    from scratchnet.training import Run

REALS = {"float32": "float", "float64": "double"}
STAGES = ("gather", "forward", "head", "backward", "adam", "wait")
ROWS, MOST_THREADS, CACHE_LINE = 5, 64, 64  # as in native.c


class Engine:
    """Updates of `Mnist_NN` under Adam or AdamW in C, on as many cores as there are and help.

    Attributes:
        threads: of the next stretch; default OMP_NUM_THREADS, or else the number of cores; never
            more than there is work for. The results don't depend on it.

    Raises:
        InputError: it can't be built here, or the run has something that this engine lacks.
    """

    def __init__(self, run: Run) -> None:
        check_plain_adam("native", run)
        self.run = run
        self.compiled = load(np.dtype(run.dtype).name)
        check_data(run)
        self.labels = run.labels.astype(np.int64)
        hidden = run.model.lin1.weight.shape[0]
        self.threads = min(_cores(), -(-hidden // ROWS), MOST_THREADS)
        self.arena = np.empty(0, np.uint8)

    def advance(self, first: int, last: int) -> list[float]:
        """Make the updates first to last - 1; their losses."""
        losses = np.empty(last - first)
        self._stretches(first, last, losses, None)
        return losses.tolist()

    def stages(self, first: int, last: int) -> dict[str, float]:
        """Make the same updates, and return the seconds that each stage took the first thread."""
        seconds = np.zeros(len(STAGES))
        self._stretches(first, last, np.empty(last - first), seconds)
        return dict(zip(STAGES, seconds.tolist(), strict=True))

    def _stretches(
        self, first: int, last: int, losses: npt.NDArray[Any], seconds: npt.NDArray[Any] | None
    ) -> None:
        """One call for each epoch."""
        for begin, end in within_epochs(self.run, first, last):
            self._call(begin, end, losses[begin - first : end - first], seconds)

    def _call(
        self, first: int, last: int, losses: npt.NDArray[Any], seconds: npt.NDArray[Any] | None
    ) -> None:
        run, optimizer = self.run, self.run.optimizer
        order = run.chosen(first, last - first)
        stretch = Stretch(
            inputs=run.images.shape[1],
            hidden=run.model.lin2.weight.shape[1],
            classes=run.model.lin2.weight.shape[0],
            samples=len(order),
            batch_size=run.options.batch_size,
            steps=last - first,
            images=_address(run.images),
            labels=_address(self.labels),
            order=_address(order),
            scale=run.normalization.scale,
            shift=run.normalization.shift,
            p=_address(run.model.parameters()[0].buffer.data),
            m=_address(optimizer.vectors["exp_avg"]),
            v=_address(optimizer.vectors["exp_avg_sq"]),
            lrs=_address(run.lrs[first:last]),
            beta1=optimizer.betas[0],
            beta2=optimizer.betas[1],
            eps=optimizer.eps,
            weight_decay=optimizer.weight_decay,
            t=optimizer.steps[0],
            renew=run.recipe.renew,
            losses=_address(losses),
            seconds=None if seconds is None else _address(seconds),
            threads=max(1, min(self.threads, MOST_THREADS)),
        )
        self._make_arena(self.compiled.arena_size(ctypes.byref(stretch)))
        stretch.arena = _address(self.arena)
        self.compiled.train(ctypes.byref(stretch))
        if not np.isfinite(losses).all():
            self.arena = np.empty(0, np.uint8)  # its padding may be nan now
        have_stepped(run, last, stretch.steps)

    def _make_arena(self, size: int) -> None:
        """Zeros to begin with; what is padding stays 0 from call to call."""
        if len(self.arena) != size:
            memory = np.zeros(size + CACHE_LINE, np.uint8)
            start = -memory.ctypes.data % CACHE_LINE
            self.arena = memory[start : start + size]


class Stretch(ctypes.Structure):
    """The struct of the same name in native.c."""

    _fields_ = (
        [(name, ctypes.c_int64) for name in ("inputs", "hidden", "classes")]
        + [(name, ctypes.c_int64) for name in ("samples", "batch_size", "steps")]
        + [(name, ctypes.c_void_p) for name in ("images", "labels", "order")]
        + [(name, ctypes.c_double) for name in ("scale", "shift")]
        + [(name, ctypes.c_void_p) for name in ("p", "m", "v", "lrs")]
        + [(name, ctypes.c_double) for name in ("beta1", "beta2", "eps", "weight_decay")]
        + [(name, ctypes.c_int64) for name in ("t", "renew")]
        + [(name, ctypes.c_void_p) for name in ("losses", "seconds", "arena")]
        + [("threads", ctypes.c_int64)]
    )


def _address(array: npt.NDArray[Any]) -> int:
    return array.ctypes.data


def _cores() -> int:
    """How many threads may run at once, unless OMP_NUM_THREADS says how many shall."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdecimal() and int(wanted):
        return int(wanted)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@functools.cache
def why_not() -> str | None:
    """Why the engine can't be used here, as one sentence; None if it can. Builds it if need be."""
    try:
        load("float32")
    except NotBuilt as error:
        return str(error)
    return None


@functools.cache
def load(dtype: str) -> ctypes.CDLL:
    """The compiled C for a dtype, "float32" or "float64"; compiled now if it has never been.

    Raises:
        NotBuilt: there is no compiler, it fails, or the cache folder can't be written to.
    """
    file = native_build.build(f"-DREAL={REALS[dtype]}")
    try:
        loaded = ctypes.CDLL(str(file))
    except OSError as error:
        raise NotBuilt(f"engine native: its library can't be loaded: {error}") from error
    loaded.train.argtypes = loaded.arena_size.argtypes = [ctypes.POINTER(Stretch)]
    loaded.train.restype, loaded.arena_size.restype = None, ctypes.c_int64
    return loaded
