"""`python -m benchmarks.kernels`: what the compiler makes of each CUDA kernel, for each GPU.

No GPU is needed: NVRTC compiles for any, and ptxas, which is in it, tells how many registers a
kernel takes and what it puts into memory for want of them. All that goes into results/kernels.json,
and tests/test_nvrtc.py holds it equal to what is compiled anew.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import click

from benchmarks import results, tables
from scratchnet.cli import OneLineErrors
from scratchnet.engines import cuda
from scratchnet.engines.cuda_epoch import Layout
from scratchnet.errors import InputError

FILE = results.FOLDER / "kernels.json"

# Bytes of shared memory that a block can get, by compute capability: CUDA C++ Programming Guide,
# table "Technical Specifications per Compute Capability".
SHARED = {75: 64 << 10, 80: 163 << 10, 90: 227 << 10, 100: 227 << 10, 120: 99 << 10}
BLOCKS = 16  # at once, which all GPUs have room for

# What CuPy 14 adds to a program's own options (cupy/cuda/compiler.py and cupy/_core/core.pyx), but
# for folders of headers, of which the kernels include none.
OPTIONS = ("--std=c++17", "-ftz=true", "--device-as-default-execution-space")
TELL = "--ptxas-options=-v"  # changes nothing in the code

INPUTS, UNITS, CLASSES, BATCH = 784, 50, 10, 64  # the tutorial's
SHAPES = (  # of epoch.cu: batch and units
    (BATCH, UNITS),
    (BATCH, 104),  # two tiles a thread
    (128, UNITS),
    (1, UNITS),
    (BATCH, 1),
)
LAYOUTS = ((True, 16), (True, 8), (False, 16))  # as in cuda_epoch.layouts

USAGE = re.compile(
    r"Compiling entry function '(\w+)'.*?"
    r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads.*?"
    r"Used (\d+) registers([^\n]*)",
    re.DOTALL,
)
NO_WARNING = re.compile(r"ptxas info|(ptxas\s+\.)?\s+\d+ bytes stack frame|\s*$")


@dataclass(frozen=True)
class Variant:
    """A .cu file with the constants of a shape, for a GPU.

    architecture: its compute capability, times ten.
    layout: of epoch.cu; None stands for fused.cu, at the tutorial's shape.
    real: the type of its numbers, "float" or "double".
    """

    architecture: int
    layout: Layout | None = None
    real: str = "float"

    @property
    def file(self) -> str:
        """In scratchnet/engines/kernels."""
        return "epoch.cu" if self.layout else "fused.cu"

    @property
    def constants(self) -> dict[str, int | str]:
        """What the engine defines."""
        if self.layout:
            return {**self.layout.constants()}
        return {"REAL": self.real, "INPUTS": INPUTS, "UNITS": UNITS, "CLASSES": CLASSES}

    @property
    def form(self) -> str:
        """How blocks exchange, or the type of numbers."""
        if not self.layout:
            return {"float": "float32", "double": "float64"}[self.real]
        return f"{'cluster' if self.layout.cluster else 'grid'} of {self.layout.blocks}"

    @property
    def fits(self) -> bool:
        """Whether an engine would launch it on such a GPU."""
        return self.layout is None or self.layout.why_not(limits(self.architecture)) is None

    def __str__(self) -> str:
        shape = f", batch {self.layout.batch}, {self.layout.units} units" if self.layout else ""
        return f"{self.file}, {self.form}{shape}, sm_{self.architecture}"


def limits(architecture: int) -> cuda.Limits:
    """Of the GPUs of a compute capability."""
    return cuda.Limits(architecture >= 90, SHARED[architecture], BLOCKS)


def variants() -> Iterator[Variant]:
    """All that are compiled: at the tutorial's shape each that compiles, elsewhere what fits."""
    for architecture in SHARED:
        for real in cuda.REALS.values():
            yield Variant(architecture, real=real)
        for batch, units in SHAPES:
            for cluster, blocks in LAYOUTS:
                layout = Layout(cluster, blocks, batch, INPUTS, units, CLASSES)
                made = Variant(architecture, layout)
                compiles = limits(architecture).clusters or not cluster
                if made.fits or (compiles and (batch, units) == (BATCH, UNITS)):
                    yield made


@dataclass(frozen=True)
class Usage:
    """What a kernel takes: registers of a thread; the others in bytes.

    static_shared: of a block, beside what is given at launch. stack, spill_stores, spill_loads: of
    a thread, in local memory.
    """

    registers: int
    static_shared: int
    stack: int
    spill_stores: int
    spill_loads: int


@dataclass(frozen=True)
class Compiled:
    """What NVRTC made of a variant: its messages, PTX, and the program itself."""

    log: str
    ptx: str
    cubin: bytes

    @property
    def usage(self) -> dict[str, Usage]:
        """Of each kernel, in the order of the source, which is not that of the log."""
        found = {}
        for name, stack, stores, loads, registers, rest in reversed(USAGE.findall(self.log)):
            shared = re.search(r"(\d+) bytes smem", rest)
            static = int(shared[1]) if shared else 0
            found[name] = Usage(int(registers), static, int(stack), int(stores), int(loads))
        return found

    @property
    def warnings(self) -> list[str]:
        """The lines of the log that are no figures."""
        return [line for line in self.log.splitlines() if not NO_WARNING.match(line)]


def version() -> str:
    """NVRTC's, as it stands in all PTX that it makes."""
    ptx = compiled(next(variants())).ptx
    (found,) = re.findall(r"Cuda compilation tools, release \S+, V(\S+)", ptx)
    return str(found)


@functools.cache
def why_not() -> str | None:
    """Why nothing can be compiled here, as one sentence; None if it can."""
    try:
        from cuda.bindings import nvrtc

        nvrtc.nvrtcVersion()
    except ImportError as error:
        return f"cuda-bindings can't be imported ({error}); see the extra test in pyproject.toml"
    except RuntimeError as error:
        return f"NVRTC is not found ({' '.join(str(error).split())}); install nvidia-cuda-nvrtc"
    return None


@functools.cache
def compiled(variant: Variant) -> Compiled:
    """Compile as CuPy does, in about half a second.

    Raises:
        InputError: NVRTC is not installed.
        RuntimeError: NVRTC finds an error; the message is its own.
    """
    reason = why_not()
    if reason:
        raise InputError(reason)
    from cuda.bindings import nvrtc

    options = [f"-D{name}={value}" for name, value in variant.constants.items()]
    options += [*OPTIONS, f"-arch=sm_{variant.architecture}", TELL]
    text, name = cuda.source(variant.file).encode(), variant.file.encode()
    (program,) = _call(nvrtc, "CreateProgram", text, name, 0, [], [])
    try:
        (status,) = nvrtc.nvrtcCompileProgram(
            program, len(options), [option.encode() for option in options]
        )
        log = _get(nvrtc, program, "ProgramLog").rstrip(b"\0").decode()
        if status:
            raise RuntimeError(f"{variant}: {status.name}\n{log}")
        ptx = _get(nvrtc, program, "PTX").rstrip(b"\0").decode()
        return Compiled(log, ptx, _get(nvrtc, program, "CUBIN"))
    finally:
        _call(nvrtc, "DestroyProgram", program)


def _call(nvrtc: ModuleType, name: str, *arguments: Any) -> Any:
    """A function of NVRTC, which returns a status first."""
    status, *values = getattr(nvrtc, f"nvrtc{name}")(*arguments)
    if status:
        raise RuntimeError(f"nvrtc{name}: {status.name}")
    return values


def _get(nvrtc: ModuleType, program: Any, what: str) -> bytes:
    (size,) = _call(nvrtc, f"Get{what}Size", program)
    buffer = bytearray(size)
    _call(nvrtc, f"Get{what}", program, buffer)
    return bytes(buffer)


def figures(variant: Variant) -> dict[str, Any]:
    """A variant's entry in the record."""
    made, layout = compiled(variant), variant.layout
    return {
        "file": variant.file,
        "form": variant.form,
        "batch": layout.batch if layout else None,
        "units": layout.units if layout else UNITS,
        "architecture": variant.architecture,
        "fits": variant.fits,
        "shared": layout.shared if layout else 0,
        "cubin": len(made.cubin),
        "kernels": {name: asdict(usage) for name, usage in made.usage.items()},
    }


def record() -> results.Record:
    """Of all variants."""
    with click.progressbar([*variants()], file=sys.stderr) as chosen:
        entries = [figures(variant) for variant in chosen]
    return {
        "schema": results.SCHEMA,
        "experiment": "kernels",
        "device": "cpu",
        "command": "python -m benchmarks.kernels",
        "date": results.now(),
        "nvrtc": version(),
        "options": [*OPTIONS],
        "variants": entries,
    }


@click.command(cls=OneLineErrors, context_settings={"show_default": True})
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=FILE,
    help="The file to write.",
)
def main(out: Path) -> None:
    """Compile each kernel for each GPU, and record what it takes. About half a minute."""
    made = record()
    results.save(made, out)
    click.echo(f"{tables.table(made)}\n\nwritten to {out}")


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.kernels")
