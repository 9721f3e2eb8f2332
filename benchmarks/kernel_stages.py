"""Where the time of cuda_epoch goes: its kernel with a look at the clock after each stage.

The kernel that is read and that trains knows nothing of this: the lines are put into a copy of its
text. They are no more than a register read, an addition and a move in each thread; that the copy
makes the same updates is tested. Leaving a stage out would tell less: stages overlap, and the
blocks of a cluster wait for one another's bytes for ever if one does not send.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt

from benchmarks import rungs
from benchmarks.gpu_clock import Watch
from benchmarks.rungs import Rung
from scratchnet import backend
from scratchnet.engines import cuda, cuda_epoch, within_epochs
from scratchnet.training import Run

FILE = "epoch.cu"
STAGES = ("gather", "forward", "wait", "head", "backward", "update", "rest")
MOST_LAPS = max(rung.blocks for rung in rungs.LAYOUTS) * len(STAGES)  # which lie where labels lay

CLOCK = """
struct Laps {
    unsigned last, of[STAGES];
};

__device__ __forceinline__ unsigned clock_now()
{
#ifdef __CUDA_ARCH__
    unsigned now;
    asm volatile("mov.u32 %0, %%clock;" : "=r"(now)::"memory");
    return now;
#else
    static unsigned now;
    return ++now;
#endif
}

__device__ __forceinline__ void lap(Laps &laps, int stage)
{
    const unsigned now = clock_now();
    laps.of[stage] += now - laps.last;
    laps.last = now;
}

"""

# The labels are of no more use when a block has done with its last update, for which it has had
# something from every other block.
REPORT = """    if (threadIdx.x == 0)
        for (int i = 0; i < STAGES; ++i)
            e.network.labels[e.rank * STAGES + i] = int(laps.of[i]);
"""

NEXT_PIXELS = (
    "            unpack(s.x[(t + 1) % 2], pixels, a, e.rank);    "
    "// while partial sums are under way\n"
)
SYNC = "        __syncthreads();\n"

# After which text of the kernel which stage has ended.
ENDS = (
    ("    begin_exchange(e);\n", "rest"),
    ("            load_pixels(pixels, e, t + 1);\n", "gather"),
    ("        forward(e, x);\n", "forward"),
    (NEXT_PIXELS, "gather"),
    ("        receive_partial(e, t);\n", "wait"),
    ("        head(e, labels, step, t);\n", "head"),
    ("        receive_heads(e, t);\n", "wait"),
    (f"        backward(s);\n{SYNC}", "backward"),
    (f"        update(s, x, moments, a.optimizer, step);\n{SYNC}", "update"),
    (f"            unpack(s.x[0], pixels, a, e.rank);\n    {SYNC}        }}\n", "gather"),
)
LAST = "    store_model(e, moments);\n    end_exchange();\n"


def source() -> str:
    """The kernel's text, with the clock.

    Raises:
        ValueError: the text is no longer as it is expected here.
    """
    text = (cuda.KERNELS / FILE).read_text()
    constants = f"\nconstexpr int STAGES = {len(STAGES)};\n"
    text = _after(text, "#define IN_CLUSTERS\n#endif\n", constants + CLOCK)
    text = _after(text, "    uint4 pixels[LOADS];\n", "    Laps laps = {clock_now()};\n")
    for end, stage in ENDS:
        text = _after(text, end, _lap(stage))
    return _after(text, LAST, _lap("rest") + REPORT)


def _lap(stage: str) -> str:
    return f"    lap(laps, {STAGES.index(stage)});\n"


def _after(text: str, place: str, more: str) -> str:
    """The text with more after a place in it that occurs once."""
    if text.count(place) != 1:
        raise ValueError(
            f"{FILE} has {text.count(place)} times {place!r}; expected once: "
            "benchmarks/kernel_stages.py must follow the kernel"
        )
    return text.replace(place, place + more)


@contextlib.contextmanager
def clocked() -> Iterator[None]:
    """Within it cuda_epoch is compiled with the clock."""
    program = cuda.Program
    with tempfile.TemporaryDirectory() as folder:
        for header in cuda.KERNELS.glob("*.cuh"):
            shutil.copy(header, folder)
        file = Path(folder, FILE)
        file.write_text(source())

        def make(_: str, *arguments: Any, **options: Any) -> cuda.Program:
            return program(str(file), *arguments, **options)

        with mock.patch.object(cuda, "Program", make):
            yield


def measure(run: Run, rung: Rung) -> dict[str, float]:
    """Make all of a run's updates, and return the seconds of each stage: the means of the blocks.

    "gather" has the kernel of that name too. A stage ends for a thread when it goes on; what is
    shown is the first thread's, whose warp has work in all of them.

    Raises:
        ValueError: the run has too few images.
    """
    if len(run.labels) < MOST_LAPS:
        raise ValueError(f"{len(run.labels)} images; expected {MOST_LAPS}, to have room for clocks")
    with clocked(), rungs.only(rung):
        fleet = cuda_epoch.Fleet([run])
    seconds = dict.fromkeys(STAGES, 0.0)
    for begin, end in within_epochs(run, 0, run.total_steps):
        for first in range(begin, end, cuda_epoch.UPDATES):
            watch = Watch()
            watch.begin(1, 2)
            with watch.on():
                fleet.advance(first, min(first + cuda_epoch.UPDATES, end))
            gather, train = watch.seconds()
            shares = laps(fleet).sum(axis=0) / laps(fleet).sum()
            seconds["gather"] += gather
            for stage, share in zip(STAGES, shares.tolist(), strict=True):
                seconds[stage] += share * train
    return seconds


def laps(fleet: cuda_epoch.Fleet) -> npt.NDArray[np.int64]:
    """What the last launch has left: clocks (blocks, stages)."""
    count = fleet.layout.blocks * len(STAGES)
    clocks = backend.to_numpy(fleet.label_of[0, :count]).view(np.uint32)
    return clocks.reshape(-1, len(STAGES)).astype(np.int64)
