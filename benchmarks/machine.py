"""What machine this is, how fast it can be at best, and how much it was disturbed."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

from benchmarks import statistics

ROOT = Path(__file__).parents[1]
PACKAGES = (
    "numpy", "scratchnet", "torch", "triton", "jax", "jaxlib", "scikit-learn", "autograd",
    "tinygrad", "cupy-cuda12x", "cupy-cuda13x", "threadpoolctl",
)  # fmt: skip
COMPILERS = ("cc", "gcc", "clang", "c++", "nvcc")
NOISY = 0.05  # of the calibration loop's median: the distance of its quartiles


def describe() -> dict[str, Any]:
    """Processor, memory, system, compilers, GPU, versions and the commit; None if unknown."""
    return {
        "cpu": _cpu(),
        "cores": cores(),
        "logical_cpus": os.cpu_count(),
        "memory_bytes": _memory(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "blas": _blas(),
        "packages": _packages(),
        "compilers": {name: _first_line(name, "--version") for name in COMPILERS},
        "gpu": _first_line(
            "nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"
        ),
        # The variable is for a copy of the files without their history.
        "commit": _first_line("git", "-C", str(ROOT), "rev-parse", "HEAD")
        or os.environ.get("SCRATCHNET_COMMIT"),
        "uncommitted_changes": bool(
            _output(
                "git", "-C", str(ROOT), "status", "--porcelain", "--", ".", ":!benchmarks/results"
            )
        ),
    }


def short_name(machine: dict[str, Any]) -> str:
    """A name for files: the GPU's or the processor's, and the number of cores."""
    name = (machine["gpu"] or "").split(",")[0] or f"{machine['cpu']} {machine['cores']} cores"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def cores() -> int:
    """Physical cores that this process may use: two threads of one share its arithmetic."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    siblings = set()
    for cpu in os.sched_getaffinity(0):
        file = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        siblings.add(file.read_text() if file.exists() else str(cpu))
    return len(siblings)


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        brand = _first_line("sysctl", "-n", "machdep.cpu.brand_string")  # macOS
        return brand or platform.processor() or platform.machine()


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _blas() -> list[str]:
    return [
        f"{pool['internal_api']} {pool['version']} {pool.get('architecture', '')}".strip()
        for pool in threadpool_info()
        if pool["user_api"] == "blas"
    ]


def _packages() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _output(*command: str) -> str | None:
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _first_line(*command: str) -> str | None:
    return (_output(*command) or "").partition("\n")[0] or None


def load() -> list[float] | None:
    """The load averages of 1, 5 and 15 minutes, where the system has them."""
    return list(os.getloadavg()) if hasattr(os, "getloadavg") else None


class Calibration:
    """A loop that is the same in every round: what changes its time is the machine.

    Matrix products of a step's size in the cache, on one thread: about 20 ms.
    """

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.x = rng.standard_normal((64, 784), np.float32)
        self.w = rng.standard_normal((784, 50), np.float32)
        self.out = np.empty((64, 50), np.float32)
        self.seconds: list[float] = []
        self._loop()

    def _loop(self) -> float:
        with threadpool_limits(1):
            begin = time.perf_counter()
            for _ in range(400):
                np.matmul(self.x, self.w, out=self.out)
            return time.perf_counter() - begin

    def measure(self) -> None:
        """Once more."""
        self.seconds.append(self._loop())

    def verdict(self) -> dict[str, Any]:
        """All times, and whether the machine was noisy: quartiles more than 5 % apart."""
        if not self.seconds:
            return {"seconds": [], "relative_spread": None, "noisy": None}
        spread = statistics.spread(self.seconds).relative
        return {"seconds": self.seconds, "relative_spread": spread, "noisy": spread > NOISY}


@dataclass(frozen=True)
class Limits:
    """What this machine does at best; the best of several tries of each.

    threads: of matrix products. flops: a second, of a float32 product of two 1024x1024 matrices.
    copied_in_cache, copied_in_memory: bytes read and written a second by one thread, of 256 KiB
    and of 128 MiB.
    """

    threads: int
    flops: float
    copied_in_cache: float
    copied_in_memory: float

    @classmethod
    def measure(cls, threads: int) -> Limits:
        """In about a second."""
        with threadpool_limits(threads):
            flops = _flops(1024)
        return cls(threads, flops, _copied(2**18, 2000), _copied(2**27, 1))


def _flops(n: int) -> float:
    a = np.ones((n, n), np.float32)
    out = np.empty_like(a)
    return 2 * n**3 / _best(lambda: np.matmul(a, a, out=out), 1)


def _copied(size: int, times: int) -> float:
    source, target = np.ones(size, np.uint8), np.zeros(size, np.uint8)
    return 2 * size / _best(lambda: np.copyto(target, source), times)


def _best(function: Callable[[], object], times: int) -> float:
    """Seconds of one call at best, in 7 rounds."""
    rounds = []
    for _ in range(7):
        begin = time.perf_counter()
        for _ in range(times):
            function()
        rounds.append((time.perf_counter() - begin) / times)
    return min(rounds)
