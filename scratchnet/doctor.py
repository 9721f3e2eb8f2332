"""What scratchnet finds on this machine, and for what it misses, why and what would bring it."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from importlib import metadata

import numpy as np
import threadpoolctl

import scratchnet
from scratchnet import backend, engines
from scratchnet.engines import cuda, native, native_build


def report() -> Iterator[tuple[str, str]]:
    """Name and finding, line by line: scratchnet and its libraries, C, then the GPU's parts."""
    yield "scratchnet", scratchnet.__version__
    yield "Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield "NumPy", np.__version__
    yield "BLAS", _blas()
    yield (
        "PyTorch",
        _version("torch")
        or ("missing; only the tests and reference/ use it: pip install torch torchvision"),
    )
    yield from _native()
    driver = _driver_version()
    yield "CUDA driver", driver if isinstance(driver, str) else f"for CUDA {_cuda(driver)}"
    reason = backend.why_no_gpu()
    wheel = "cupy-cuda12x" if isinstance(driver, int) and driver < 13000 else "cupy-cuda13x"
    if reason:
        remedy = f'only a GPU needs it: pip install "{wheel}[ctk]"'
        what = reason.removeprefix("CuPy is ")
        yield "CuPy", f"{what}; {remedy if reason == backend.NO_CUPY else 'see CUDA driver'}"
        yield "GPU engines", f"none without a GPU: {', '.join(engines.CUDA)}"
        yield "device", "cpu"
        return
    cupy = backend.cupy()
    yield "CuPy", cupy.__version__
    yield "CUDA runtime", _cuda(cupy.cuda.runtime.runtimeGetVersion())
    for i in range(cupy.cuda.runtime.getDeviceCount()):
        properties = cupy.cuda.runtime.getDeviceProperties(i)
        memory = properties["totalGlobalMem"] / 2**30
        yield f"GPU {i}", f"{properties['name'].decode()}, {memory:.0f} GiB"
    limits = cuda.limits()
    yield (
        "GPU engines",
        f"{', '.join(engines.CUDA)}; {'with' if limits.clusters else 'without'} thread-block "
        f"clusters, {limits.shared >> 10} KiB of shared memory a block, {limits.blocks} blocks",
    )
    yield "device", "cuda"


def _native() -> Iterator[tuple[str, str]]:
    reason = native.why_not()
    if reason:
        yield "engine auto", f"numpy_inplace, since {reason}"
        return
    yield "C compiler", " ".join(native_build.compiler())
    yield (
        "engine auto",
        f"native, on the CPU; compiled libraries are in {native_build.cache_folder()}",
    )


def _blas() -> str:
    pools = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
    if not pools:
        return "NumPy's own, which threadpoolctl does not know"
    return ", ".join(
        f"{pool['internal_api']} {pool['version'] or 'of unknown version'}, "
        f"{pool['num_threads']} thread(s)"
        for pool in pools
    )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _driver_version() -> int | str:
    """The newest CUDA that the driver supports, 13020 for 13.2; or why there is none."""
    name = "nvcuda.dll" if platform.system() == "Windows" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(name)
    except OSError:
        return (
            f"missing ({name} is not found); only a GPU of NVIDIA's needs it: on Debian, "
            "apt install nvidia-driver"
        )
    version = ctypes.c_int()
    error = driver.cuDriverGetVersion(ctypes.byref(version))
    return f"{name} is there, but answers with error {error}" if error else version.value


def _cuda(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"
