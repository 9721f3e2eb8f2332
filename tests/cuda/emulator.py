"""CUDA kernels on the CPU: their sources compiled by the system's C++ compiler, with emulate.h.

`Program` and `capture` have the interface of scratchnet.engines.cuda; arrays are NumPy's. Who runs
when is drawn from a seed, and each seed gives an execution that CUDA allows, if not a likely one:

    for seed in range(12):
        with emulator.settings(seed=seed):
            ...

A kernel that does what CUDA forbids, or whose threads wait for ever, raises KernelError. What
AddressSanitizer and UndefinedBehaviorSanitizer find ends the process: see `sanitized`.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import itertools
import mmap
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

import scratchnet.engines

KERNELS = Path(scratchnet.engines.__file__).parent / "kernels"
HEADER = Path(__file__).with_name("emulate.h")
SCHEDULES = ("random", "run-ahead", "starve")  # as in emulate.h
MOST_THREADS, MOST_SHARED = 1024, 227 << 10  # of a block: what the largest GPUs have
SANITIZE = "SCRATCHNET_EMULATOR_SANITIZE"  # in the environment: 1 is the default of `sanitize`
STACK = 64 << 10  # bytes, twice what a function may take
COMPILE = (
    "-std=c++17",
    "-fPIC",
    "-fvisibility=hidden",
    "-fno-strict-aliasing",  # kernels read four floats as a float4
    "-fno-math-errno",
    "-ffp-contract=off",  # so that results don't depend on the compiler
)
FAST = ("-O2",)
SANITIZED = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
KERNEL = re.compile(  # the attributes are __global__ in emulate.h
    r"__attribute__\(\(noinline, used\)\)\s+void\s+(\w+)\s*\(\s*(?:const\s+)?(\w+)\s+\w+\s*\)"
)
ENTRY = """
extern "C" __attribute__((visibility("default")))
const char *emulate_{kernel}(const emulate::Launch &launch)
{{
    return emulate::run(launch, sizeof({struct}), [](const void *arguments) {{
        {kernel}(*static_cast<const {struct} *>(arguments));
    }});
}}
"""


class KernelError(Exception):
    """A kernel has done what CUDA does not allow, does not end, or can't be launched so."""


class NotBuilt(Exception):
    """There is no library, and the message says why."""


# ----------------------------------------------------------------------------------------- settings


@dataclass(frozen=True)
class Settings:
    """How kernels are built and run.

    Attributes:
        seed: of all choices. In one of three schedules anybody may go on, in one a block runs as
            far as it can, in one a warp of each block goes on only when nobody else can. In half
            of them stores into other blocks arrive as late as they can.
        sanitize: whether AddressSanitizer and UndefinedBehaviorSanitizer look on.
    """

    seed: int = 0
    sanitize: bool = os.environ.get(SANITIZE) == "1"

    @property
    def schedule(self) -> int:
        return self.seed % len(SCHEDULES)

    @property
    def late(self) -> bool:
        return self.seed // len(SCHEDULES) % 2 == 1

    def __str__(self) -> str:
        return f"seed {self.seed}, {SCHEDULES[self.schedule]}{', late stores' * self.late}"


DEFAULT = Settings()
_settings = ContextVar("settings", default=DEFAULT)


@contextlib.contextmanager
def settings(*, seed: int | None = None, sanitize: bool | None = None) -> Iterator[None]:
    """For what is built and launched inside; None leaves a setting as it is."""
    chosen = _settings.get()
    if seed is not None:
        chosen = replace(chosen, seed=seed)
    if sanitize is not None:
        chosen = replace(chosen, sanitize=sanitize)
    token = _settings.set(chosen)
    try:
        yield
    finally:
        _settings.reset(token)


# ----------------------------------------------------------------------------------------- launches


class Launch(ctypes.Structure):
    """The struct of the same name in emulate.h."""

    _fields_ = (
        ("arguments", ctypes.c_char_p),
        ("bytes", ctypes.c_size_t),
        ("stacks", ctypes.c_void_p),
        ("stack", ctypes.c_size_t),
        ("blocks", ctypes.c_int),
        ("threads", ctypes.c_int),
        ("shared", ctypes.c_int),
        ("together", ctypes.c_int),
        ("cooperative", ctypes.c_int),
        ("seed", ctypes.c_uint),
        ("schedule", ctypes.c_int),
        ("late", ctypes.c_int),
        ("flush", ctypes.c_int),
    )


class Program:
    """The kernels of a .cu file, compiled for the CPU.

    Args:
        file: its name in scratchnet/engines/kernels, or a path.
        constants: what to define for it, as by -D. BLOCKS is the number of blocks that run
            together, as a cluster or a grid; by default each runs by itself. Unless REAL is double,
            subnormal numbers count as 0, as a GPU's of type float do.
        cooperative: whether its kernels may use grid_sync.

    Raises:
        NotBuilt: there is no compiler, or it fails.
    """

    def __init__(
        self, file: str, constants: Mapping[str, int | str], cooperative: bool = False
    ) -> None:
        self.file = KERNELS / file  # which is a path that begins with a root, if that is given
        self.together = int(constants.get("BLOCKS", 1))
        self.flush = constants.get("REAL") != "double"
        self.cooperative = cooperative
        self.compiled = _library(self.file, constants)

    def launch(
        self, kernel: str, arguments: np.void, *, blocks: int, threads: int, shared: int = 0
    ) -> None:
        """Run a kernel to its end; or within `capture`, note it.

        Args:
            kernel: its name.
            arguments: its one argument, a struct; pointers are addresses of NumPy arrays.
            blocks: of the grid.
            threads: of a block.
            shared: bytes of dynamic shared memory for each block.

        Raises:
            KernelError: there is no such kernel, it can't be launched so, or it does wrong.
        """
        baked = arguments.tobytes()

        def run() -> None:
            self._run(kernel, baked, blocks, threads, shared)

        recorded = _recorded.get()
        if recorded is None:
            run()
        else:
            recorded.append(run)

    def wait(self) -> None:
        """A launch has run to its end, and has told what was wrong."""

    def allow_large_clusters(self, kernel: str) -> None:
        """Let a kernel be launched in clusters of more than 8 blocks; here it may be anyway."""

    def _run(self, kernel: str, arguments: bytes, blocks: int, threads: int, shared: int) -> None:
        self._check(kernel, blocks, threads, shared)
        chosen = _settings.get()
        stack = STACK * (2 if self.compiled.sanitized else 1)  # red zones take room
        launch = Launch(
            arguments=arguments,
            bytes=len(arguments),
            stacks=_memory_for_stacks(stack * threads * min(blocks, self.together)),
            stack=stack,
            blocks=blocks,
            threads=threads,
            shared=shared,
            together=self.together,
            cooperative=self.cooperative,
            seed=chosen.seed,
            schedule=chosen.schedule,
            late=chosen.late,
            flush=self.flush,
        )
        entry = self.compiled.loaded[f"emulate_{kernel}"]
        entry.argtypes, entry.restype = [ctypes.POINTER(Launch)], ctypes.c_char_p
        error = entry(launch)
        if error is not None:
            raise KernelError(f"{self.file.name}, {kernel}: {error.decode()} ({chosen})")

    def _check(self, kernel: str, blocks: int, threads: int, shared: int) -> None:
        what = f"{self.file.name}, {kernel}: "
        if kernel not in self.compiled.kernels:
            names = ", ".join(self.compiled.kernels) or "none that takes one struct"
            raise KernelError(f"{what}no such kernel; expected one of the file's: {names}")
        if blocks < 1:
            raise KernelError(f"{what}{blocks} blocks; expected 1 or more")
        if not 1 <= threads <= MOST_THREADS:
            raise KernelError(f"{what}{threads} threads; expected 1 to {MOST_THREADS}")
        if not 0 <= shared <= MOST_SHARED:
            raise KernelError(f"{what}{shared} bytes of shared memory; expected 0 to {MOST_SHARED}")


_recorded: ContextVar[list[Callable[[], None]] | None] = ContextVar("recorded", default=None)


def capture(work: Callable[[], None]) -> Callable[[], None]:
    """Record the launches that `work` makes; returns what launches them all again.

    Nothing runs meanwhile. Arguments are recorded as they are, as in a CUDA graph.
    """
    launches: list[Callable[[], None]] = []
    token = _recorded.set(launches)
    try:
        work()
    finally:
        _recorded.reset(token)

    def replay() -> None:
        for launch in launches:
            launch()

    return replay


_stacks: list[mmap.mmap] = []


def _memory_for_stacks(size: int) -> int:
    """The address of so many bytes, which all libraries use in turn."""
    if not _stacks or len(_stacks[0]) < size:
        _stacks[:] = [mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)]
        _stacks[0].madvise(mmap.MADV_NOHUGEPAGE)  # most of a stack is never touched
    return ctypes.addressof(ctypes.c_char.from_buffer(_stacks[0]))


# ---------------------------------------------------------------------------------------- libraries


class Library(NamedTuple):
    """A compiled file, and its kernels: each NAME has an entry emulate_NAME."""

    loaded: ctypes.PyDLL  # which keeps Python's lock: a library runs one launch at a time
    kernels: tuple[str, ...]
    sanitized: bool


@functools.cache
def why_not() -> str | None:
    """Why kernels can't run here, as one sentence; None if they can."""
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"):
        return f"the emulator runs on Linux, on x86_64 and aarch64; this is {platform.platform()}"
    try:
        _output([*_compiler(), *COMPILE, "-fsyntax-only", "-x", "c++", str(HEADER)])
    except NotBuilt as error:
        return str(error)
    return None


@functools.cache
def why_not_sanitized() -> str | None:
    """Why `sanitized` can't be used here, as one sentence; None if it can."""
    if why_not() or _is_sanitized():
        return why_not()
    try:
        done = sanitized(["-c", "import numpy"])
    except NotBuilt as error:
        return str(error)
    if done.returncode:
        return f"Python does not run with AddressSanitizer here: {done.stderr.strip()}"
    return None


def sanitized(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments, and with AddressSanitizer around all arrays and kernels.

    `sanitize` is True in there by default.

    Raises:
        NotBuilt: the compiler has no AddressSanitizer.
    """
    libraries = [_of_compiler(_asan()), _of_compiler("libstdc++.so.6")]
    environment = {
        "LD_PRELOAD": ":".join(libraries),
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONMALLOC": "malloc",
        SANITIZE: "1",
    }
    if _is_clang():
        environment["ASAN_SYMBOLIZER_PATH"] = str(_symbolizer())
    return subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def _is_sanitized() -> bool:
    return hasattr(ctypes.CDLL(None), "__asan_init")


def _library(file: Path, constants: Mapping[str, int | str]) -> Library:
    sanitize = _settings.get().sanitize
    if sanitize and not _is_sanitized():
        raise NotBuilt("sanitize is True, but AddressSanitizer is not in here; use `sanitized`")
    text = _preprocessed(file, [f"-D{name}={value}" for name, value in constants.items()])
    kernels = KERNEL.findall(text)
    text += "".join(ENTRY.format(kernel=kernel, struct=struct) for kernel, struct in kernels)
    return Library(_loaded(text, sanitize), tuple(name for name, _ in kernels), sanitize)


def _preprocessed(file: Path, macros: list[str]) -> str:
    """The text of a kernel file after all #include, with emulate.h in the place of ptx.cuh."""
    with tempfile.TemporaryDirectory(dir=_folder()) as copy:
        for source in [*file.parent.glob("*.cu"), *file.parent.glob("*.cuh")]:
            shutil.copy(source, copy)
        Path(copy, "ptx.cuh").write_text(f'#include "{HEADER}"\n')
        return _output([*_compiler(), *COMPILE, *macros, "-E", "-x", "c++", file.name], copy)


_numbers = itertools.count()


@functools.cache
def _loaded(text: str, sanitize: bool) -> ctypes.PyDLL:
    number = next(_numbers)
    source, library = _folder() / f"{number}.ii", _folder() / f"{number}.so"
    source.write_text(text)
    inputs = ["-x", "c++-cpp-output", str(source), "-x", "none", str(_machine(sanitize))]
    _output([*_compiler(), *_options(sanitize), "-shared", "-o", str(library), *inputs])
    return ctypes.PyDLL(str(library))


@functools.cache
def _machine(sanitize: bool) -> Path:
    """What runs the kernels of all libraries, which sanitizers only need to know of."""
    compiled = _folder() / f"machine-{sanitize}.o"
    options = ["-DEMULATE_MACHINE", *(["-DEMULATE_ASAN"] if sanitize else [])]
    command = [*_compiler(), *_options(False), *options]
    _output([*command, "-c", "-x", "c++", str(HEADER), "-o", str(compiled)])
    return compiled


@functools.cache
def _folder() -> Path:
    folder = tempfile.mkdtemp(prefix="scratchnet-emulator-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _compiler() -> list[str]:
    """The C++ compiler: the command in CXX, or the first of c++, g++ and clang++."""
    command = shlex.split(os.environ.get("CXX", ""))
    for name in [command[0]] if command else ["c++", "g++", "clang++"]:
        found = shutil.which(name)
        if found:
            return [found, *command[1:]]
    missing = command[0] if command else "a C++ compiler"
    raise NotBuilt(f"{missing} is not found; install one (on Debian: apt install g++), or set CXX")


def _options(sanitize: bool) -> list[str]:
    frame = f"frame-larger-than={STACK // 2}"
    if _is_clang():
        frames, special = [f"-W{frame}", "-Werror=frame-larger-than"], "-shared-libasan"
    else:
        frames, special = [f"-Werror={frame}"], "-fsanitize=bounds-strict"
    return [*COMPILE, *frames, *_fma(), *([*SANITIZED, special] if sanitize else FAST)]


@functools.cache
def _fma() -> list[str]:
    """fma is one instruction where this CPU has it, and the C library's function elsewhere.

    Both round once, so that the results are the same.
    """
    with contextlib.suppress(OSError):
        if re.search(r"^flags\b.*\bfma\b", Path("/proc/cpuinfo").read_text(), re.MULTILINE):
            return ["-mfma"]
    return []


def _is_clang() -> bool:
    return "clang" in _output([*_compiler(), "--version"])


def _asan() -> str:
    return f"libclang_rt.asan-{platform.machine()}.so" if _is_clang() else "libasan.so"


def _of_compiler(library: str) -> str:
    """The path of one of the compiler's own libraries."""
    path = Path(_output([*_compiler(), f"-print-file-name={library}"]).strip())
    if not path.is_absolute():
        raise NotBuilt(f"{_compiler()[0]} has no {library}")
    return str(path.resolve())


@functools.cache
def _symbolizer() -> Path:
    """What clang's sanitizers ask for line numbers; with AddressSanitizer in it, it may hang."""
    program = _output([*_compiler(), "-print-prog-name=llvm-symbolizer"]).strip()
    script = _folder() / "llvm-symbolizer"
    script.write_text(f'#!/bin/sh\nunset LD_PRELOAD\nexec {shlex.quote(program)} "$@"\n')
    script.chmod(0o755)
    return script


def _output(command: list[str], folder: str | None = None) -> str:
    """What a command of the compiler's prints, and which no sanitizer shall slow down."""
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise NotBuilt(f"{shlex.join(command)}:\n{done.stderr}")
    return done.stdout
