"""The questions that can be asked: which tasks, which contenders, and what is kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks import harness, networks, starts
from benchmarks.contenders import Entry, select
from benchmarks.gpu_limits import GpuLimits
from benchmarks.harness import Say
from benchmarks.ladder import STEPS
from benchmarks.machine import Calibration, Limits
from benchmarks.rungs import LAYOUTS, RUNGS
from scratchnet.training import Options

BATCH_SIZES = (1, 8, 64, 512, 4096, 60_000)
HIDDEN_SIZES = (10, 50, 200, 1000, 4096)
IMAGES = 50_000
STRONGEST = (
    "scratchnet-*,pytorch-fused,pytorch-whole-step,pytorch-compile-graphs,pytorch-graph-compiled-8,"
    "jax-scan"
)
STARTERS = "scratchnet-*,pytorch-default,pytorch-fused,pytorch-whole-step,jax-scan"
SYNCHRONOUS = "scratchnet-*,pytorch-default,pytorch-fused,pytorch-whole-step"
LADDER = ",".join(f"scratchnet-{rung.name}" for rung in RUNGS)
STAGED = {
    "cpu": "scratchnet-*,pytorch-fused",
    "cuda": ",".join(f"scratchnet-{rung.name}" for rung in LAYOUTS),
}


@dataclass(frozen=True)
class Setting:
    """What all experiments are told.

    rounds, patterns: None for the experiment's own. threads: of the contenders, one after another.
    every: whether to take those contenders too that compile for minutes. patience: seconds for a
    contender to prepare.
    """

    options: Options
    device: str
    threads: Sequence[int]
    rounds: int | None
    patterns: str | None
    every: bool
    seed: int
    calibration: Calibration
    say: Say
    patience: float

    def entries(self, own: str | None) -> tuple[Entry, ...]:
        """The chosen contenders, or the experiment's own, that run on the device.

        Who is chosen by name takes part, and is told why not; who fits a pattern only, need not.
        """
        named = (self.patterns or "").split(",")
        entries = select(own if self.patterns is None else self.patterns, quick=not self.every)
        return tuple(e for e in entries if self.device in e.devices or e.name in named)

    def point(self, options: Options, own: str | None, rounds: int, **more: Any) -> harness.Point:
        """Let the contenders take turns at a task."""
        return harness.measure(
            options,
            self.entries(own),
            self.threads,
            device=self.device,
            rounds=self.rounds or rounds,
            seed=self.seed,
            calibration=self.calibration,
            say=self.say,
            patience=self.patience,
            **more,
        )


def _points(points: list[harness.Point]) -> dict[str, Any]:
    return {
        "points": [point.as_json() for point in points],
        "interrupted": any(point.interrupted for point in points),
    }


def compare(setting: Setting) -> dict[str, Any]:
    """Everyone at one task."""
    return _points([setting.point(setting.options, None, 7)])


def _sweep(setting: Setting, tasks: Sequence[Options]) -> dict[str, Any]:
    points = []
    for options in tasks:
        setting.say(f"batch size {options.batch_size}, {options.hidden} hidden units")
        points.append(setting.point(options, STRONGEST, 7))
        if points[-1].interrupted:
            break
    return _points(points)


def sweep_batch(setting: Setting) -> dict[str, Any]:
    """The strongest at batches of 1 image to all; at most 1,000 updates of each."""
    limit = setting.options.limit or IMAGES
    sizes = dict.fromkeys(min(size, limit) for size in BATCH_SIZES)
    return _sweep(
        setting,
        [
            dataclasses.replace(
                setting.options,
                batch_size=size,
                limit=min(limit, 1000 * size),
                epochs=1 if size < 4096 else 3,
            )
            for size in sizes
        ],
    )


def sweep_hidden(setting: Setting) -> dict[str, Any]:
    """The strongest at 10 to 4,096 hidden units; fewer updates of the larger networks."""
    limit, size = setting.options.limit or IMAGES, setting.options.batch_size
    return _sweep(
        setting,
        [
            dataclasses.replace(
                setting.options, hidden=hidden, limit=min(limit, size * max(40, 100_000 // hidden))
            )
            for hidden in HIDDEN_SIZES
        ],
    )


def epochs(setting: Setting) -> dict[str, Any]:
    """Several epochs in one go, each timed: whether later ones take longer."""
    return _points([setting.point(setting.options, SYNCHRONOUS, 3)])


def accuracy(setting: Setting) -> dict[str, Any]:
    """From a cold start to 96.1 % validation accuracy."""
    found, interrupted = starts.measure(
        Options(recipe="one-cycle", seed=setting.options.seed),
        setting.entries(STARTERS),
        setting.threads,
        device=setting.device,
        rounds=setting.rounds or 3,
        calibration=setting.calibration,
        say=setting.say,
    )
    return {"required": starts.REQUIRED, "starts": found, "interrupted": interrupted}


def breakdown(setting: Setting) -> dict[str, Any]:
    """Where the time of an update goes, beside what the machine can do."""
    setting.say("measuring the machine")
    limits: Sequence[Limits | GpuLimits]
    if setting.device == "cuda":
        limits = [GpuLimits.measure()]
    else:
        limits = [Limits.measure(count) for count in setting.threads]
    point = setting.point(setting.options, STAGED[setting.device], 7, question="stages")
    return _points([point]) | {
        "stages": _answers(point, "seconds"),
        "limits": [dataclasses.asdict(limit) for limit in limits],
    }


def _answers(point: harness.Point, what: str) -> list[dict[str, Any]]:
    return [
        {"name": name, "threads": threads, what: values}
        for (name, threads), values in point.answers.items()
    ]


def ladder(setting: Setting) -> dict[str, Any]:
    """Each rung by the host's clock and the GPU's, and the way to 96.1 % accuracy."""
    limits, options = GpuLimits.measure(), setting.options
    full = dataclasses.replace(options, limit=options.limit or STEPS * options.batch_size)
    points = [setting.point(full, LADDER, 11, question="gpu")]
    if not points[0].interrupted:
        accurate = Options(recipe="one-cycle", seed=options.seed, limit=options.limit)
        points.append(setting.point(accurate, LADDER, 3, question="gpu"))
    return _points(points) | {
        "gpu": [_answers(point, "values") for point in points],
        "required": starts.REQUIRED,
        "limits": [dataclasses.asdict(limits)],
    }


def together(setting: Setting) -> dict[str, Any]:
    """Several networks in one launch."""
    found, interrupted = networks.measure(setting.options, setting.rounds or 7, setting.say)
    task = dataclasses.asdict(setting.options)
    return {"task": task, "networks": found, "interrupted": interrupted}


EXPERIMENTS: dict[str, Callable[[Setting], dict[str, Any]]] = {
    "compare": compare,
    "sweep-batch": sweep_batch,
    "sweep-hidden": sweep_hidden,
    "epochs": epochs,
    "accuracy": accuracy,
    "breakdown": breakdown,
    "ladder": ladder,
    "networks": together,
}
