"""How the engines for the GPU come to their kernels: compile, launch, capture; and what they share.

The kernels are CUDA C in `kernels`, and NVRTC compiles them through CuPy, for this GPU and with all
sizes as constants, at first use (half a second; CuPy keeps the result for the next time). The tests
put another `Program` and `capture` here, which run the same sources on the CPU.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from scratchnet import backend
from scratchnet.backend import Array
from scratchnet.engines import check_data, check_plain_adam

if TYPE_CHECKING:
    from scratchnet.training import Run

DEVICE = "cuda"  # where these engines work; "cpu" in tests without a GPU
KERNELS = Path(__file__).parent / "kernels"
STATIC_SHARED = 48 << 10  # bytes of shared memory that need no asking for
NON_PORTABLE_CLUSTER_SIZE = 14  # CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED
REALS = {"float32": "float", "float64": "double"}


def source(file: str | Path) -> str:
    """The text of a .cu file in `kernels`, with the .cuh files that it includes in their places.

    One text, since CuPy's cache of compiled kernels would not notice a change in an included file.
    """
    parts = []
    for number, line in enumerate((KERNELS / file).read_text().splitlines(), start=1):
        include = re.fullmatch(r'#include "(\w+\.cuh)"', line)
        if include:
            included = (KERNELS / include[1]).read_text()
            parts += [f'#line 1 "{include[1]}"', included, f'#line {number + 1} "{file}"']
        else:
            parts.append(line)
    return "\n".join(parts) + "\n"


class NotLaunched(RuntimeError):
    """A kernel can't be launched on this GPU in this way."""


class Program:
    """The kernels of a .cu file, compiled for this GPU.

    Args:
        file: its name in `kernels`.
        constants: what to define for it, as by -D.
        cooperative: whether all blocks of a launch must run at the same time.
    """

    def __init__(
        self, file: str, constants: Mapping[str, int | str], cooperative: bool = False
    ) -> None:
        self.module = backend.cupy().RawModule(
            code=source(file),
            options=tuple(f"-D{name}={value}" for name, value in constants.items()),
            enable_cooperative_groups=cooperative,
        )
        self.functions: dict[str, Any] = {}

    def launch(
        self, kernel: str, arguments: np.void, *, blocks: int, threads: int, shared: int = 0
    ) -> None:
        """Start a kernel on the current stream, and don't wait for it.

        Args:
            kernel: its name.
            arguments: its one argument, a struct.
            blocks: of the grid.
            threads: of a block.
            shared: bytes of dynamic shared memory for each block.

        Raises:
            NotLaunched: the GPU can't run it so.
        """
        function = self.function(kernel)
        try:
            if shared > STATIC_SHARED:
                function.max_dynamic_shared_size_bytes = shared
            function((blocks,), (threads,), (arguments,), shared_mem=shared)
        except backend.cupy().cuda.driver.CUDADriverError as error:
            raise NotLaunched(f"{kernel} with {blocks} blocks: {error}") from error

    def wait(self) -> None:
        """Wait for what was launched on the current stream: a kernel that fails tells it late.

        Raises:
            NotLaunched: it has failed.
        """
        cupy = backend.cupy()
        try:
            cupy.cuda.get_current_stream().synchronize()
        except cupy.cuda.runtime.CUDARuntimeError as error:
            raise NotLaunched(f"a kernel has failed: {error}") from error

    def allow_large_clusters(self, kernel: str) -> None:
        """Allow clusters of more than 8 blocks, which not every GPU can run.

        Raises:
            NotLaunched: this one can't.
        """
        driver = importlib.import_module("cupy_backends.cuda.api.driver")
        try:
            driver.funcSetAttribute(self.function(kernel).kernel.ptr, NON_PORTABLE_CLUSTER_SIZE, 1)
        except driver.CUDADriverError as error:
            raise NotLaunched(f"{kernel} in large clusters: {error}") from error

    def function(self, kernel: str) -> Any:
        """CuPy's object for a kernel."""
        if kernel not in self.functions:
            self.functions[kernel] = self.module.get_function(kernel)
        return self.functions[kernel]


def capture(work: Callable[[], None]) -> Callable[[], None]:
    """Record the launches that `work` makes as a CUDA graph; returns what launches them all again.

    Nothing runs meanwhile. Kernels must have been launched once before, and arguments are recorded
    as they are.
    """
    stream = backend.cupy().cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        work()
        graph = stream.end_capture()
    launch: Callable[[], None] = graph.launch
    return launch


def address(array: Array) -> int:
    """Where an array's numbers begin, on its device."""
    return array.ctypes.data if isinstance(array, np.ndarray) else array.data.ptr


def struct(**fields: Array | np.generic) -> np.void:
    """A C struct of NumPy's scalars, structs among them, and of arrays by their addresses."""
    values = {
        name: value if isinstance(value, np.generic) else np.uint64(address(value))
        for name, value in fields.items()
    }
    made = np.zeros(
        1, np.dtype([(name, value.dtype) for name, value in values.items()], align=True)
    )
    for name, value in values.items():
        made[name] = value
    scalar: np.void = made[0]
    return scalar


def ceil_div(n: int, by: int) -> int:
    """How many pieces of this size hold n."""
    return -(-n // by)


def sizes(run: Run) -> dict[str, int]:
    """The constants INPUTS, UNITS and CLASSES."""
    (units, inputs), (classes, _) = run.model.lin1.weight.shape, run.model.lin2.weight.shape
    return {"INPUTS": inputs, "UNITS": units, "CLASSES": classes}


def check(name: str, run: Run) -> None:
    """Raise InputError unless an engine for the GPU can make this run's updates."""
    check_plain_adam(name, run, DEVICE)
    check_data(run)


def steps(run: Run, first: int, last: int) -> npt.NDArray[np.float64]:
    """What the updates first to last - 1 need to know beside their batches: struct Step a row."""
    optimizer = run.optimizer
    beta1, beta2 = optimizer.betas
    t = optimizer.steps[0] + np.arange(1.0, last - first + 1)
    if run.recipe.renew:
        t[:] = 1
    lrs = run.lrs[first:last]
    begin = np.arange(first, last) % run.steps_per_epoch * run.options.batch_size
    n = np.minimum(run.options.batch_size, len(run.labels) - begin)
    return np.column_stack(
        [
            lrs / (1 - beta1**t),
            np.sqrt(1 - beta2**t),
            1 - lrs * optimizer.weight_decay,
            1 / n,
        ]
    )


def real(run: Run) -> type[np.float32] | type[np.float64]:
    """The type of a run's numbers, real in the kernels."""
    return np.float32 if np.dtype(run.dtype) == np.float32 else np.float64


def optimizer_struct(run: Run) -> np.void:
    """struct Optimizer."""
    number, (beta1, beta2) = real(run), run.optimizer.betas
    return struct(
        beta1=number(beta1),
        beta2=number(beta2),
        one_minus_beta1=number(1 - beta1),
        one_minus_beta2=number(1 - beta2),
        eps=number(run.optimizer.eps),
        renew=np.int32(run.recipe.renew),
    )


def means(losses: Array, samples: int) -> list[float]:
    """The loss of each update from the losses (updates, N) of its samples, so many in all."""
    n = losses.shape[1]
    each = backend.to_numpy(losses).ravel()[:samples].astype(np.float64)
    starts = np.arange(0, samples, n)
    counts = np.diff(np.append(starts, samples))
    means: list[float] = (np.add.reduceat(each, starts) / counts).tolist()
    return means


class Limits(NamedTuple):
    """What a GPU has: thread-block clusters or not, bytes of shared memory that a block can get,
    and how many blocks can run at the same time if each takes a multiprocessor for itself."""

    clusters: bool
    shared: int
    blocks: int


def limits() -> Limits:
    """Those of the current GPU."""
    device = backend.cupy().cuda.Device()
    return Limits(
        int(device.compute_capability) >= 90,
        device.attributes["MaxSharedMemoryPerBlockOptin"],
        device.attributes["MultiProcessorCount"],
    )
