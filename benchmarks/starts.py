"""From a cold start to 96.1 % validation accuracy: what a user waits for.

A fresh process imports, loads, compiles, trains an epoch of recipe one-cycle on all 50,000 images,
and evaluates. Twice: with empty caches, as after an installation, and with what the first has left.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.contenders import Entry
from benchmarks.harness import Say
from benchmarks.machine import ROOT, Calibration
from benchmarks.worker import environment
from scratchnet.training import Options

REQUIRED = 0.961
PATIENCE = 600.0  # seconds for a process
CACHES = {  # of those that keep compiled code: where they look for it
    "XDG_CACHE_HOME": "xdg",  # scratchnet, tinygrad
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TRITON_CACHE_DIR": "triton",
    "CUPY_CACHE_DIR": "cupy",
}


def measure(
    options: Options,
    entries: Iterable[Entry],
    threads: Sequence[int],
    *,
    device: str,
    rounds: int,
    calibration: Calibration,
    say: Say,
) -> tuple[list[dict[str, Any]], bool]:
    """All starts, and whether Ctrl-C ended it early. The rounds change contenders in turn."""
    starts: list[dict[str, Any]] = []
    pairs = [(entry, count) for entry in entries for count in threads]
    try:
        for number in range(rounds):
            calibration.measure()
            for entry, count in pairs:
                reason = entry.missing() or entry.unfit(options.recipe, device)
                found: dict[str, Any] = {"status": "skipped", "reason": reason}
                if not reason:
                    found = start(entry.name, count, device, options)
                starts.append({"name": entry.name, "threads": count, "round": number, **found})
                say(f"{entry.name}, {count} thread(s): {_describe(found)}")
    except KeyboardInterrupt:
        say("interrupted; what was measured so far is kept")
        return starts, True
    return starts, False


def _describe(found: dict[str, Any]) -> str:
    if found["status"] != "ok":
        return f"{found['status']}: {found['reason']}"
    return (
        f"{found['accuracy']:.2%} after {found['first_seconds']:.1f} s with empty caches, "
        f"{found['again_seconds']:.1f} s with full ones, {min(found['warm_seconds']):.2f} s warm"
    )


def start(name: str, threads: int, device: str, options: Options) -> dict[str, Any]:
    """Start a contender with empty caches and again; see `results`."""
    with tempfile.TemporaryDirectory(prefix="scratchnet-benchmark-") as folder:
        caches = {variable: os.path.join(folder, name) for variable, name in CACHES.items()}
        variables = {**os.environ, **environment(threads), **caches}
        command = [
            sys.executable, "-m", "benchmarks.cold", name, device, str(threads),
            json.dumps(dataclasses.asdict(options)),
        ]  # fmt: skip
        try:
            first, _ = _lines(command, variables)
            again, lines = _lines(command, variables)
        except RuntimeError as error:
            return {"status": "failed", "reason": str(error)}
    reached = min(line["accuracy"] for line in lines)
    ok = reached >= REQUIRED
    return {
        "about": lines[0]["about"],
        "status": "ok" if ok else "failed",
        "reason": "" if ok else f"reached {reached:.2%} only; expected {REQUIRED:.1%}",
        "first_seconds": first,
        "again_seconds": again,
        "import_seconds": lines[0]["imported"],
        "warm_seconds": [line["seconds"] for line in lines if line["warm"]],
        "accuracy": lines[0]["accuracy"],
    }


def _lines(command: list[str], variables: dict[str, str]) -> tuple[float, list[dict[str, Any]]]:
    """The seconds until a process' first line, and all of its lines.

    Raises:
        RuntimeError: it fails, or takes too long.
    """
    begin, seconds, lines = time.perf_counter(), 0.0, []
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            command, cwd=ROOT, env=variables, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        ends = threading.Timer(PATIENCE, process.kill)
        ends.start()
        try:
            assert process.stdout
            for line in process.stdout:
                seconds = seconds or time.perf_counter() - begin
                lines.append(json.loads(line))
            status = process.wait()
        except BaseException:
            process.kill()
            raise
        finally:
            ends.cancel()
        errors.seek(0)
        last = errors.read().decode(errors="replace").strip().splitlines()[-1:]
    if len(lines) != 3:
        raise RuntimeError(f"its process has ended with status {status}: {' '.join(last)}")
    return seconds, lines
