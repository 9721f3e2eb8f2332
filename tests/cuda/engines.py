"""The engines for the GPU, each in the forms in which the tests run it: on the CPU, and on a GPU.

On the CPU the kernels' sources run in the emulator, for GPUs with and without clusters.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from scratchnet import backend
from scratchnet.engines import cuda
from tests.cuda import emulator

HOPPER = cuda.Limits(clusters=True, shared=232_448, blocks=132)  # compute capability 9.0
AMPERE = cuda.Limits(clusters=False, shared=166_912, blocks=108)  # 8.0
TURING = cuda.Limits(clusters=False, shared=65_536, blocks=40)  # 7.5


@dataclass(frozen=True)
class Form:
    """An engine, and what runs its kernels.

    Attributes:
        engine: its name.
        limits: the GPU that is emulated; None for the one that is there.
        largest: blocks of a cluster that this GPU can launch.
    """

    engine: str
    limits: cuda.Limits | None = HOPPER
    largest: int = 16

    def __str__(self) -> str:
        if self.limits is None:
            return f"{self.engine} on a GPU"
        if self.engine != "cuda_epoch":
            return self.engine
        return f"{self.engine} {f'cluster {self.largest}' if self.limits.clusters else 'grid'}"


FORMS = (
    Form("cuda_fused"),
    Form("cuda_graph"),
    Form("cuda_epoch"),
    Form("cuda_epoch", largest=8),
    Form("cuda_epoch", AMPERE),
    *(Form(name, None) for name in ("cuda_fused", "cuda_graph", "cuda_epoch")),
)


def param(form: Form) -> Any:
    """For pytest, skipped where it can't run."""
    reason = backend.why_no_gpu() if form.limits is None else emulator.why_not()
    return pytest.param(
        form, id=str(form), marks=pytest.mark.skipif(bool(reason), reason=f"{reason}")
    )


@contextlib.contextmanager
def running(form: Form) -> Iterator[None]:
    """Within it engines work in this form."""
    if form.limits is None:
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda, "DEVICE", "cpu")
        patch.setattr(cuda, "limits", lambda: form.limits)
        patch.setattr(cuda, "capture", emulator.capture)
        patch.setattr(cuda, "Program", _program(form.limits, form.largest))
        yield


def _program(limits: cuda.Limits, largest: int) -> type[emulator.Program]:
    """One that can launch what that GPU can."""

    class Program(emulator.Program):
        def __init__(
            self, file: str, constants: Mapping[str, int | str], cooperative: bool = False
        ) -> None:
            self.too_large = int(constants.get("CLUSTER", 0)) and int(constants["BLOCKS"]) > largest
            super().__init__(file, constants, cooperative)

        def allow_large_clusters(self, kernel: str) -> None:
            """For this it takes a GPU."""

        def launch(self, kernel: str, *arguments: Any, blocks: int, **options: Any) -> None:
            if kernel == "train" and self.too_large:
                raise cuda.NotLaunched(f"{kernel}: this GPU has no such clusters")
            # CuPy would launch fewer blocks, and only warn.
            assert blocks <= limits.blocks or not self.cooperative
            super().launch(kernel, *arguments, blocks=blocks, **options)

    return Program
