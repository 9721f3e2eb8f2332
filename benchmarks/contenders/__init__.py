"""The contenders: a table of names, and what each has to be able to do.

A contender's module has a class `Contender`, made from the `variant` of its entry. It imports its
library at the top, so it is imported only in the process that runs it.
"""

from __future__ import annotations

import importlib
import importlib.util
import shutil
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Protocol

from benchmarks import rungs
from benchmarks.task import Outcome, Task
from scratchnet import backend, engines
from scratchnet.errors import InputError
from scratchnet.training import RECIPES

HERE = "benchmarks.contenders."
CLANG = ("clang",)
CXX = ("c++", "g++", "clang++")
PIP = {"sklearn": "scikit-learn"}


class Contender(Protocol):
    """Trains a task. Only `epoch` and `collect` are timed, from a fresh `reset` on."""

    def about(self) -> str:
        """Library, version and options."""

    def prepare(self, task: Task, threads: int) -> None:
        """Load the data onto the device, and compile what can be compiled beforehand."""

    def reset(self) -> None:
        """Go back to the initial parameters and an optimizer without memory."""

    def epoch(self, number: int) -> None:
        """Make an epoch's updates: gather, convert and normalize its batches, and train on them."""

    def collect(self) -> Outcome:
        """The losses of all updates and the parameters, on the host."""


@dataclass(frozen=True)
class Entry:
    """A contender that may or may not be able to run here.

    Attributes:
        name: in tables and in --contenders.
        module: where its class `Contender` is.
        variant: which of the module's contenders it is.
        packages: what it imports. commands: programs, of which it needs one.
        devices: where it can train. recipes: which it can do; the others are beyond its library.
        quick: whether it takes part without being asked for; the others compile for minutes, or
            add little.
    """

    name: str
    module: str
    variant: str = ""
    packages: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    devices: tuple[str, ...] = ("cpu",)
    recipes: tuple[str, ...] = tuple(RECIPES)
    quick: bool = True

    def missing(self) -> str | None:
        """Why it can't run on this machine, as one sentence; None if it can."""
        for package in self.packages:
            if importlib.util.find_spec(package) is None:
                return f"{package} is not installed: pip install {PIP.get(package, package)}"
        if self.commands and not any(map(shutil.which, self.commands)):
            return f"none of {', '.join(self.commands)} is found: install a compiler"
        if self.module.endswith(".scratchnet_engine"):
            return engines.why_not(rungs.named(self.variant).engine)
        return None

    def unfit(self, recipe: str, device: str) -> str | None:
        """Why it can't do a task, as one sentence; None if it can."""
        if device not in self.devices:
            return f"runs on {' and '.join(self.devices)} only"
        if recipe not in self.recipes:
            return f"can't do recipe {recipe}, only {' and '.join(self.recipes)}"
        if device == "cuda":
            return _no_cuda("cupy" if self.module.endswith(".scratchnet_engine") else "torch")
        return None

    def load(self) -> Contender:
        """Import it, in whichever process this is."""
        made: Contender = importlib.import_module(self.module).Contender(self.variant)
        return made


def _no_cuda(library: str) -> str | None:
    """Why a library can't use the GPU; JAX is asked only where it runs."""
    if library == "cupy":
        return backend.why_no_gpu()
    import torch

    return None if torch.cuda.is_available() else "PyTorch finds no GPU"


BOTH = ("cpu", "cuda")
TORCH, JAX = ("torch",), ("jax",)
_EAGER, _COMPILE = HERE + "pytorch_eager", HERE + "pytorch_compile"
_WHOLE, _GRAPH = HERE + "pytorch_whole_step", HERE + "pytorch_cuda_graph"
_LESS_THAN_TUTORIAL = ("adam", "one-cycle")

_ENGINE = HERE + "scratchnet_engine"


def _devices(engine: str) -> tuple[str, ...]:
    if engine == "layers":
        return BOTH
    return ("cuda",) if engine in engines.CUDA else ("cpu",)


ENTRIES = (
    *(Entry(f"scratchnet-{name}", _ENGINE, name, devices=_devices(name)) for name in engines.NAMES),
    *(
        Entry(f"scratchnet-{rung.name}", _ENGINE, rung.name, devices=("cuda",), quick=False)
        for rung in rungs.LAYOUTS
    ),
    Entry("pytorch-default", _EAGER, "default", TORCH, devices=BOTH),
    Entry("pytorch-foreach", _EAGER, "foreach", TORCH, devices=BOTH),
    Entry("pytorch-fused", _EAGER, "fused", TORCH, devices=BOTH),
    Entry("pytorch-tutorial", _EAGER, "tutorial", TORCH, devices=BOTH, recipes=("tutorial",)),
    Entry("pytorch-compile", _COMPILE, "default", TORCH, CXX, BOTH),
    Entry(
        "pytorch-compile-max",
        _COMPILE,
        "max-autotune-no-cudagraphs",
        TORCH,
        CXX,
        BOTH,
        quick=False,
    ),
    Entry("pytorch-compile-graphs", _COMPILE, "reduce-overhead", TORCH, CXX, ("cuda",)),
    Entry("pytorch-whole-step", _WHOLE, "1", TORCH, CXX, BOTH),
    Entry("pytorch-whole-step-8", _WHOLE, "8", TORCH, CXX, BOTH, quick=False),
    Entry("pytorch-graph-1", _GRAPH, "1", TORCH, devices=("cuda",)),
    Entry("pytorch-graph-8", _GRAPH, "8", TORCH, devices=("cuda",)),
    Entry("pytorch-graph-compiled-1", _GRAPH, "compiled 1", TORCH, CXX, ("cuda",)),
    Entry("pytorch-graph-compiled-8", _GRAPH, "compiled 8", TORCH, CXX, ("cuda",)),
    Entry("jax-step", HERE + "jax_xla", "step", JAX, devices=BOTH),
    Entry("jax-scan", HERE + "jax_xla", "scan 4", JAX, devices=BOTH),
    Entry("jax-scan-1", HERE + "jax_xla", "scan 1", JAX, devices=BOTH, quick=False),
    Entry("jax-scan-32", HERE + "jax_xla", "scan 32", JAX, devices=("cuda",)),
    Entry("jax-scan-graphs", HERE + "jax_xla", "scan 8 graphs", JAX, devices=("cuda",)),
    Entry("sklearn", HERE + "scikit_learn", "", ("sklearn",), recipes=("adam",)),
    Entry("autograd", HERE + "hips_autograd", "", ("autograd",)),
    Entry("tinygrad", HERE + "tinygrad_jit", "", ("tinygrad",), CLANG, recipes=_LESS_THAN_TUTORIAL),
    Entry(
        "tinygrad-beam",
        HERE + "tinygrad_jit",
        "beam",
        ("tinygrad",),
        CLANG,
        recipes=_LESS_THAN_TUTORIAL,
        quick=False,
    ),
)


def select(patterns: str | None, quick: bool = True) -> tuple[Entry, ...]:
    """The entries whose name fits one of the patterns, such as "pytorch-*,jax-scan".

    Args:
        patterns: shell patterns with commas between; None for those that take part by themselves.
        quick: whether None leaves out those that are not `quick`.

    Raises:
        InputError: a pattern fits none.
    """
    if patterns is None:
        return tuple(entry for entry in ENTRIES if entry.quick or not quick)
    wanted = patterns.split(",")
    for pattern in wanted:
        if not any(fnmatchcase(entry.name, pattern) for entry in ENTRIES):
            names = ", ".join(entry.name for entry in ENTRIES)
            raise InputError(f"contender {pattern!r} is unknown; expected some of {names}")
    return tuple(
        entry for entry in ENTRIES if any(fnmatchcase(entry.name, pattern) for pattern in wanted)
    )
