"""From the raw times of a record to the numbers that are shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmarks import statistics
from benchmarks.gpu_limits import GpuLimits
from benchmarks.rungs import LAYOUTS
from benchmarks.statistics import Ratio, Spread

BASELINE = "pytorch-fused"
STAGES = ("gather", "forward", "head", "backward", "adam", "update", "wait", "rest")

Record = dict[str, Any]
Seconds = dict[int, float]


@dataclass(frozen=True)
class Row:
    """A contender at a task.

    times: seconds by round. us: microseconds an update. speed: how many times as fast as the
    baseline at its best number of threads, paired by round. Both None if it was not timed.
    memory: bytes at most.
    """

    name: str
    threads: int
    status: str
    reason: str
    times: Seconds
    us: Spread | None
    speed: Ratio | None
    memory: int


def rows(point: Record) -> list[Row]:
    """All contenders of a point, in its order."""
    reference = baseline(point)
    found = []
    for contender in point["contenders"]:
        times = _times(contender) if contender["status"] == "ok" else {}
        us = [seconds / point["steps"] * 1e6 for seconds in times.values()]
        found.append(
            Row(
                contender["name"],
                contender["threads"],
                contender["status"],
                contender["reason"],
                times,
                statistics.spread(us) if us else None,
                statistics.paired(reference, times) if times else None,
                max((run["peak_memory"] for run in contender["runs"]), default=0),
            )
        )
    return found


def _times(contender: Record) -> Seconds:
    return {run["round"]: run["seconds"] for run in contender["runs"]}


def baseline(point: Record) -> Seconds:
    """The baseline's times with the number of threads that suits it best; {} if it has none."""
    times = [
        _times(contender)
        for contender in point["contenders"]
        if contender["name"] == BASELINE and contender["status"] == "ok" and contender["runs"]
    ]
    return min(times, key=lambda each: statistics.spread([*each.values()]).median, default={})


def median(row: Row) -> float:
    """Microseconds an update; infinite if not timed."""
    return row.us.median if row.us else float("inf")


def best(point: Record) -> list[Row]:
    """Of each timed contender the row with the number of threads that suits it best, by speed."""
    by_name: dict[str, Row] = {}
    for row in sorted(rows(point), key=median):
        if row.us:
            by_name.setdefault(row.name, row)
    return list(by_name.values())


def untimed(record: Record) -> list[str]:
    """Who was not timed, and why: "tinygrad: skipped: clang is not found", each once."""
    lines = []
    for contender in [c for point in record.get("points", []) for c in point["contenders"]]:
        lines.append((contender["name"], contender["status"], contender["reason"]))
    for start in record.get("starts", []):
        lines.append((start["name"], start["status"], start["reason"]))
    for each in record.get("networks", []):
        lines.append((f"{each['rung']}, {each['networks']}", each["status"], each["reason"]))
    return [f"{n}: {s}: {r}" for n, s, r in dict.fromkeys(lines) if s != "ok"]


@dataclass(frozen=True)
class Parts:
    """Where the time of an update goes: microseconds by stage; "rest" is what is between them.

    "update" is the parameters' gradients and "adam" in one, where a kernel has both in one.
    """

    name: str
    threads: int
    stages: dict[str, float]
    total: float


def parts(record: Record) -> list[Parts]:
    """Of each contender that could tell, medians over the rounds, fastest first."""
    (point,) = record["points"]
    found = []
    for entry in record["stages"]:
        us = {
            stage: statistics.spread(entry["seconds"][stage]).median / point["steps"] * 1e6
            for stage in STAGES
            if stage in entry["seconds"]
        }
        found.append(Parts(entry["name"], entry["threads"], us, sum(us.values())))
    return sorted(found, key=lambda each: each.total)


def flops(options: Record) -> int:
    """Of the products of an update on a full batch: x W1ᵀ and W1's gradient, and W2's three."""
    n, hidden = options["batch_size"], options["hidden"]
    return 2 * n * (2 * 784 * hidden + 3 * hidden * 10)


@dataclass(frozen=True)
class AtBest:
    """With so much of the machine, so many operations a second, and an update's products in us."""

    where: str
    flops: float
    us: float


def at_best(record: Record) -> list[AtBest]:
    """What the machine of a breakdown can do at most; of a GPU, also some multiprocessors."""
    found = []
    for limit in record["limits"]:
        if "threads" in limit:
            count = limit["threads"]
            found.append((f"{count} thread{'s' if count > 1 else ''}", limit["flops"]))
            continue
        gpu = GpuLimits(**limit)
        found.append((f"all {gpu.multiprocessors} multiprocessors", gpu.flops()))
        blocks = sorted({rung.blocks for rung in LAYOUTS}, reverse=True)
        found += [(f"{count} multiprocessors", gpu.flops(count)) for count in blocks]
    total = flops(record["points"][0]["task"])
    return [AtBest(where, speed, total / speed * 1e6) for where, speed in found]
