"""The rungs of the ladder side by side: what each launches and moves, how long it takes, and how
far that is from what the GPU can do.

**The limit** of an update is the time that its products take with every 32-bit multiply-add unit of
the GPU at work; of a rung's own multiprocessors, with theirs. Bytes set none: all that an update
moves fits into a GPU's cache. Launches and bytes need no GPU; times do, and are those of a record.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmarks import statistics, summary, traffic
from benchmarks.gpu_limits import GpuLimits
from benchmarks.rungs import RUNGS, Rung
from benchmarks.statistics import Spread
from benchmarks.traffic import Traffic
from scratchnet.training import Options

Record = dict[str, Any]

STEPS = 937  # full batches of 64 in all 60,000 images


@dataclass(frozen=True)
class Times:
    """Of a rung that was measured.

    Attributes:
        wall, gpu: microseconds an update, by the host's clock and by the GPU's.
        least, own: microseconds that an update takes at least, on this GPU, and on as many of its
            multiprocessors as the rung uses.
        accurate: milliseconds of GPU time after which a network has `accuracy` on the validation
            images; None if that was not measured.
    """

    wall: Spread
    gpu: Spread
    least: float
    own: float
    accurate: float | None = None
    accuracy: float | None = None


@dataclass(frozen=True)
class Row:
    """A rung. Its traffic is computed; launches and kernels are counted, if it ran."""

    name: str
    traffic: Traffic
    times: Times | None = None


def rows(record: Record | None = None) -> list[Row]:
    """All rungs in their order, with the times of a record, if there is one."""
    if record is None:
        return [Row(rung.name, traffic.of(rung, Options("adam"), STEPS)) for rung in RUNGS]
    return [_row(rung, record) for rung in RUNGS]


def _row(rung: Rung, record: Record) -> Row:
    name, point = f"scratchnet-{rung.name}", record["points"][0]
    options, steps = Options(**point["task"]), point["steps"]
    moved = traffic.of(rung, options, steps)
    wall = next((row.us for row in summary.rows(point) if row.name == name), None)
    values = _values(record, 0, name)
    if wall is None or not values:
        return Row(rung.name, moved)
    if "launches" in values:
        launches, kernels = (values[key][0] / steps for key in ("launches", "kernels"))
        moved = Traffic(launches, kernels, moved.moved, moved.exchanged)
    limits, accurate = GpuLimits(**record["limits"][0]), _values(record, 1, name)
    flops = summary.flops(point["task"])
    times = Times(
        wall=wall,
        gpu=statistics.spread([seconds / steps * 1e6 for seconds in values["seconds"]]),
        least=flops / limits.flops() * 1e6,
        own=flops / limits.flops(rung.blocks or None) * 1e6,
        accurate=statistics.spread(accurate["seconds"]).median * 1e3 if accurate else None,
        accuracy=min(accurate["accuracy"]) if accurate else None,
    )
    return Row(rung.name, moved, times)


def _values(record: Record, point: int, name: str) -> dict[str, list[float]]:
    """A contender's answers at a point; {} if it has given none."""
    answers = record["gpu"][point] if point < len(record["gpu"]) else []
    return next((each["values"] for each in answers if each["name"] == name), {})
