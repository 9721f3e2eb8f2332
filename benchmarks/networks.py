"""Several networks, of other seeds, in one launch, since one takes a part of the GPU only."""

from __future__ import annotations

import itertools
import time
from typing import Any

from benchmarks import rungs
from benchmarks.gpu_clock import Watch
from benchmarks.harness import Say
from benchmarks.rungs import LAYOUTS, Rung
from benchmarks.task import training
from scratchnet.engines import cuda, cuda_epoch
from scratchnet.training import Options, Run

COUNTS = (1, 2, 4, 8, 16)

Losses = dict[int, list[float]]  # by seed


def measure(options: Options, rounds: int, say: Say) -> tuple[list[dict[str, Any]], bool]:
    """Each layout with each number of networks, see `results`; and whether Ctrl-C ended it."""
    found: list[dict[str, Any]] = []
    alone: dict[str, Losses] = {rung.name: {} for rung in LAYOUTS}
    try:
        for rung, count in itertools.product(reversed(LAYOUTS), COUNTS):
            entry = {"rung": rung.name, "networks": count, "status": "ok", "reason": ""}
            try:
                entry |= _measure(rung, options, count, rounds, alone[rung.name])
            except rungs.NOT_HERE as error:
                entry |= {"status": "skipped", "reason": str(error)}
            except Exception as error:  # whatever a GPU refuses, the others' numbers stay
                entry |= {"status": "failed", "reason": f"{type(error).__name__}: {error}"}
            say(f"{rung.name}, {count} network(s): {entry['reason'] or 'done'}")
            found.append(entry)
    except KeyboardInterrupt:
        say("interrupted; what was measured so far is kept")
        return found, True
    return found, False


def _measure(
    rung: Rung, options: Options, count: int, rounds: int, alone: Losses
) -> dict[str, Any]:
    """Seconds for all of the networks together, by the host's clock and the GPU's.

    A network's losses must be the same, bit for bit, however many train beside it.
    """
    first = Run(options, training(options), cuda.DEVICE)
    runs = [first, *(first.with_seed(options.seed + more) for more in range(1, count))]
    with rungs.only(rung):
        fleet = cuda_epoch.Fleet(runs)
    steps, watch = first.total_steps, Watch()
    with watch.on():
        losses = dict(zip((run.options.seed for run in runs), fleet.advance(0, steps), strict=True))
    different = [seed for seed in losses if losses[seed] != alone.setdefault(seed, losses[seed])]
    if different:
        raise RuntimeError(f"seeds {different} have other losses beside other networks")
    seconds, gpu_seconds = [], []
    for _ in range(rounds):
        begin = time.perf_counter()
        fleet.advance(0, steps)
        seconds.append(time.perf_counter() - begin)
        watch.begin(watch.launches)
        with watch.on():
            fleet.advance(0, steps)
        gpu_seconds += watch.seconds()
    return {"steps": steps, "seconds": seconds, "gpu_seconds": gpu_seconds}
