"""`python -m benchmarks.gpu_campaign FOLDER`: all that wants a GPU, in less than nine minutes.

The property tests on CuPy, the lock-step with PyTorch, every contender, the memory checker, and
sweeps, in the order of their importance. Each part has its own time, and leaves what it has when
that is over: a log, its records, and a line in FOLDER/campaign.json. No network is needed.

Not yet run on a GPU.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks import machine
from scratchnet import files
from scratchnet.cli import OneLineErrors

SECONDS = 520.0  # for all parts
GRACE = 15.0  # seconds to leave what there is, after the interrupt
LEAST = 10.0  # seconds without which a part is not begun


@dataclass(frozen=True)
class Part:
    """A command, and how many seconds it may take."""

    name: str
    command: tuple[str, ...]
    seconds: float


def parts(folder: Path) -> list[Part]:
    """All parts; those that write files do so in the folder."""
    python = sys.executable
    benchmarks = (python, "-m", "benchmarks", "--device", "cuda", "--threads", "1")
    found = [
        Part(
            "tests",
            (
                python,
                "-m",
                "pytest",
                "-k",
                "cupy",
                "--hypothesis-profile=ci",
                "-q",
                "--durations=5",
            ),
            110,
        ),
        Part(
            "lockstep",
            (python, "-m", "reference", "--device", "cuda", "--json", f"{folder}/lockstep.json"),
            50,
        ),
        Part("compare", (*benchmarks, "--out", f"{folder}/compare.json"), 170),
    ]
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer:
        train = (python, "-m", "scratchnet", "train", "--device", "cuda", "--limit", "640")
        found.append(
            Part(
                "memcheck",
                (sanitizer, "--error-exitcode", "1", *train, "--out", f"{folder}/memcheck-run"),
                60,
            )
        )
    for sweep in ("batch", "hidden"):
        out = f"{folder}/sweep-{sweep}.json"
        found.append(Part(f"sweep-{sweep}", (*benchmarks, "--sweep", sweep, "--out", out), 120))
    accuracy = (*benchmarks, "--accuracy", "--rounds", "1")
    found.append(Part("accuracy", (*accuracy, "--out", f"{folder}/accuracy.json"), 120))
    return found


def run(part: Part, folder: Path, left: float) -> dict[str, Any]:
    """Run a part, for at most so many seconds. Its output goes to FOLDER/NAME.log."""
    if left < LEAST:
        return {"name": part.name, "status": "no time left"}
    allowed = min(part.seconds, left)
    begin = time.perf_counter()
    with (folder / f"{part.name}.log").open("wb") as log:
        process = subprocess.Popen(
            part.command,
            cwd=machine.ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = f"exit status {process.wait(allowed)}"
        except subprocess.TimeoutExpired:
            status = f"ended after {allowed:.0f} s"
        finally:
            _end(process)
    seconds = time.perf_counter() - begin
    return {"name": part.name, "status": status, "seconds": round(seconds, 1)}


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ctrl-C first, upon which the benchmarks write what they have; then the end, for its group."""
    with contextlib.suppress(ProcessLookupError):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@click.command(cls=OneLineErrors)
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def main(folder: Path) -> None:
    """Run everything on this machine's GPU, and leave records and logs in FOLDER.

    The exit status is 1 if a part did not end well, and 2 if there is no GPU.
    """
    begin = time.perf_counter()
    found = machine.describe()
    if found["gpu"] is None:
        click.echo(
            "no GPU: nvidia-smi is not found here, or lists none; expected a machine with a GPU of "
            "NVIDIA's and its driver",
            err=True,
        )
        sys.exit(2)
    folder.mkdir(parents=True, exist_ok=True)
    folder = folder.resolve()
    done: list[dict[str, Any]] = []
    for part in parts(folder):
        left = SECONDS - (time.perf_counter() - begin)
        done.append(run(part, folder, left - GRACE))
        click.echo(f"{part.name}: {done[-1]['status']}")
        report = {"machine": found, "parts": done}
        files.write(folder / "campaign.json", (json.dumps(report, indent=1) + "\n").encode())
    sys.exit(0 if all(each["status"] == "exit status 0" for each in done) else 1)


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.gpu_campaign")
