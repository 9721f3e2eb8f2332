"""The questions that can be asked: which tasks, which contenders, and what is kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks import harness, starts
from benchmarks.contenders import Entry, select
from benchmarks.harness import Say
from benchmarks.machine import Calibration, Limits
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


@dataclass(frozen=True)
class Setting:
    """What all experiments are told.

    rounds, patterns: None for the experiment's own. threads: of the contenders, one after another.
    every: whether to take those contenders too that compile for minutes.
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

    def entries(self, own: str | None) -> tuple[Entry, ...]:
        """The chosen contenders, or the experiment's own, that run on the device."""
        if self.patterns is not None:
            return select(self.patterns)
        entries = select(own, quick=not self.every)
        return tuple(entry for entry in entries if self.device in entry.devices)

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
    limits = [Limits.measure(count) for count in setting.threads]
    stages: dict[tuple[str, int], dict[str, list[float]]] = {}
    point = setting.point(setting.options, "scratchnet-*,pytorch-fused", 7, stages=stages)
    return _points([point]) | {
        "stages": [
            {"name": name, "threads": threads, "seconds": seconds}
            for (name, threads), seconds in stages.items()
        ],
        "limits": [dataclasses.asdict(limit) for limit in limits],
    }


EXPERIMENTS: dict[str, Callable[[Setting], dict[str, Any]]] = {
    "compare": compare,
    "sweep-batch": sweep_batch,
    "sweep-hidden": sweep_hidden,
    "epochs": epochs,
    "accuracy": accuracy,
    "breakdown": breakdown,
}
