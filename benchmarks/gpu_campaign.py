"""`python -m benchmarks.gpu_campaign FOLDER`: all that wants a GPU, nine minutes a call.

The property tests on CuPy, every rung against the one below, the lock-step with PyTorch, every
contender, the ladder, where its time goes, the sanitizer, and sweeps, in the order of their
importance. Each part has its own time, and leaves what it has when that is over: a log, its
records, and a line in FOLDER's campaign record, named after the machine. What there was no time for
is done in the next call with the same folder. No network is needed.

With --rehearse each part is done without a GPU, at the smallest size: see `emulated`.

Not yet run on a GPU.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import needed

if __name__ == "__main__":
    needed.tell_missing()  # all of it, before the first import fails

import click

from benchmarks import machine, report, results, tables
from scratchnet.cli import OneLineErrors
from scratchnet.errors import InputError

SECONDS = 520.0  # for all parts of a call
GRACE = 15.0  # seconds to leave what there is, after the interrupt
LEAST = 10.0  # seconds without which a part is not begun
REHEARSAL = 900.0  # seconds of each part, since the emulator is slow
WITHOUT_TIME = "no time left"
TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")
SANITIZER = "compute-sanitizer"
CUDA_FOLDERS = ("/usr/local/cuda", "/opt/cuda")


@dataclass(frozen=True)
class Part:
    """A module to run, and how many seconds it may take.

    Attributes:
        small: arguments to add in a rehearsal, where later ones replace earlier ones.
        emulated: whether a rehearsal is in the emulator.
        before: what the module is run under, which a rehearsal does without; None if it is missing.
    """

    name: str
    module: str
    arguments: tuple[str, ...]
    seconds: float
    small: tuple[str, ...] = ()
    emulated: bool = True
    before: tuple[str, ...] | None = ()

    def command(self, rehearse: bool) -> list[str]:
        """What to start."""
        if not rehearse:
            return [*(self.before or ()), sys.executable, "-m", self.module, *self.arguments]
        runner = ["benchmarks.emulated"] if self.emulated else []
        return [sys.executable, "-m", *runner, self.module, *self.arguments, *self.small]


def parts(folder: Path, name: str) -> list[Part]:
    """All parts; those that leave records do so in the folder, named after the machine."""
    return [
        Part("tests", "pytest", _tests(), 120, ("--collect-only", "-n", "0"), emulated=False),
        Part(
            "rungs",
            "benchmarks.equality",
            ("--seconds", "60", "--out", f"{folder}/{name}-rungs.json"),
            100,
            (*SMALL, "--steps", "3", "--cases", "2"),
        ),
        *_lockstep(folder),
        _benchmark("compare", folder, name, 150, ("--patience", "100"), (*FEW, "--limit", "128")),
        _benchmark("ladder", folder, name, 90, ("--ladder", "--patience", "40"), TINY),
        _benchmark("breakdown", folder, name, 40, ("--breakdown", "--patience", "30"), TINY),
        _benchmark("networks", folder, name, 40, ("--networks",), TINY),
        *_sanitizer(),
        _benchmark("sweep-batch", folder, name, 120, ("--sweep", "batch"), (*CPU, "--limit", "64")),
        _benchmark(
            "sweep-hidden", folder, name, 120, ("--sweep", "hidden"), (*CPU, "--limit", "64")
        ),
        _benchmark("accuracy", folder, name, 120, ("--accuracy", "--rounds", "1"), CPU),
    ]


FEW = ("--contenders", "scratchnet-layers,scratchnet-cuda_epoch", "--rounds", "1")
SMALL = ("--batch-size", "16", "--hidden", "9")
TINY = (*SMALL, "--rounds", "1", "--limit", "112", "--patience", "300")
CPU = ("--device", "cpu", "--contenders", "scratchnet-numpy_inplace", "--rounds", "1")


def _tests() -> tuple[str, ...]:
    """The property tests on CuPy, and the engines' on a GPU; side by side, where that can be."""
    several = ("-n", "8") if importlib.util.find_spec("xdist") else ()
    chosen = ("-k", "(cupy and not strict) or GPU", "--hypothesis-profile=ci")
    no_browser = ("--ignore=tests/test_page.py",)  # which none of them needs
    return (*chosen, *no_browser, "-q", "--durations=5", *several)


def _lockstep(folder: Path) -> Iterator[Part]:
    """Beside PyTorch, number by number: CuPy, PyTorch on the GPU, and the engines' own kernels."""
    small = (*SMALL, "--device", "cpu", "--steps", "2", "--data", f"{folder}/logs/data")
    for engine, dtype in (
        ("layers", "float64"),
        ("cuda_fused", "float64"),
        ("cuda_epoch", "float32"),
    ):
        chosen = ("--device", "cuda", "--engine", engine, "--dtype", dtype)
        file = f"{folder}/logs/lockstep-{engine}.json"
        yield Part(f"lockstep-{engine}", "reference", (*chosen, "--json", file), 30, small)


def _benchmark(
    experiment: str,
    folder: Path,
    name: str,
    seconds: float,
    arguments: tuple[str, ...],
    small: tuple[str, ...],
) -> Part:
    out = ("--device", "cuda", "--threads", "1", "--out", f"{folder}/{name}-{experiment}.json")
    return Part(experiment, "benchmarks", (*out, *arguments), seconds, small)


def _sanitizer() -> Iterator[Part]:
    """Each tool of compute-sanitizer over short runs of each engine."""
    file = shutil.which(SANITIZER) or shutil.which(
        SANITIZER, path=os.pathsep.join(f"{folder}/bin" for folder in CUDA_FOLDERS)
    )
    for tool in TOOLS:
        before = (file, "--tool", tool, "--error-exitcode", "1") if file else None
        small = ("--limit", "20")
        yield Part(tool, "benchmarks.short_runs", ("--limit", "640"), 60, small, before=before)


def run(part: Part, folder: Path, left: float, rehearse: bool = False) -> dict[str, Any]:
    """Run a part, for at most so many seconds. Its output goes to FOLDER/logs/NAME.log."""
    if part.before is None and not rehearse:
        return {"name": part.name, "status": f"skipped: {SANITIZER} is not found"}
    if left < LEAST:
        return {"name": part.name, "status": WITHOUT_TIME}
    allowed = REHEARSAL if rehearse else min(part.seconds, left)
    begin = time.perf_counter()
    command = part.command(rehearse)
    with (folder / "logs" / f"{part.name}.log").open("wb") as log:
        log.write(f"{shlex.join(command)}\n".encode())
        log.flush()
        process = subprocess.Popen(
            command,
            cwd=machine.ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
        try:
            code = process.wait(allowed)
            status = "ok" if code == 0 else f"exit status {code}"
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


@click.command(cls=OneLineErrors, context_settings={"show_default": True})
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--parts", "names", metavar="NAME,...", help="Only these, once more if need be.")
@click.option("--seconds", type=float, default=SECONDS, help="For this call.")
@click.option(
    "--rehearse", is_flag=True, help="Without a GPU, in the emulator, as small as can be."
)
def main(folder: Path, names: str | None, seconds: float, rehearse: bool) -> None:
    """Run everything on this machine's GPU, and leave records and logs in FOLDER.

    A second call with the same folder goes on with the parts that were not begun. The exit status
    is 1 if a part did not end well, and 2 if there is no GPU, or a package is missing.
    """
    begin = time.perf_counter()
    record = _record(rehearse)
    name = machine.short_name(record["machine"])
    folder = folder.resolve()
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}-campaign.json"
    done = _before(file, record)
    if rehearse:
        _small_data(folder / "logs" / "data")
    wanted = _wanted(parts(folder, name), names, done, seconds)
    for part in wanted:
        click.echo(f"{part.name} ...")
        left = REHEARSAL if rehearse else seconds - (time.perf_counter() - begin) - GRACE
        if left < part.seconds and part is not wanted[0]:
            left = 0  # the next call has all the time that it may need
        done[part.name] = run(part, folder, left, rehearse)
        results.save(record | {"parts": [*done.values()]}, file)
        click.echo(f"{part.name}: {done[part.name]['status']}")
    record |= {"parts": [*done.values()], "interrupted": False}
    results.save(record, file)
    click.echo(f"\n{report.as_text(record)}\n\n{tables.goals(results.newest(folder))}")
    bad = [each for each in done.values() if not each["status"].startswith(("ok", "skipped"))]
    sys.exit(1 if bad else 0)


def _record(rehearse: bool) -> results.Record:
    """The campaign's record before its first part.

    Raises:
        InputError: there is no GPU.
    """
    command = shlex.join(["python", "-m", "benchmarks.gpu_campaign", *sys.argv[1:]])
    found = results.header("campaign", results.REHEARSED if rehearse else "cuda", command)
    if not rehearse and found["machine"]["gpu"] is None:
        raise InputError(
            "no GPU: nvidia-smi is not found here, or lists none; expected a machine with a GPU of "
            "NVIDIA's and its driver"
        )
    noise: dict[str, Any] = {"seconds": [], "relative_spread": None, "noisy": None}
    return found | {"noise": noise, "interrupted": True, "parts": []}


def _before(file: Path, record: results.Record) -> dict[str, dict[str, Any]]:
    """The parts that were run by earlier calls.

    Raises:
        InputError: they were run on other code, or on another machine.
    """
    if not file.exists():
        return {}
    before = results.read(file)
    for what in ("gpu", "commit"):
        if before["machine"][what] != record["machine"][what]:
            raise InputError(
                f"{file}: is of {what} {before['machine'][what]}, and this is "
                f"{record['machine'][what]}; expected the same, or a new folder"
            )
    return {each["name"]: each for each in before["parts"] if each["status"] != WITHOUT_TIME}


def _wanted(
    every: list[Part], names: str | None, done: dict[str, Any], seconds: float
) -> list[Part]:
    """Those not begun yet, or those named; one that is named alone may take all the time."""
    if names is None:
        return [part for part in every if part.name not in done]
    known = {part.name: part for part in every}
    for name in names.split(","):
        if name not in known:
            raise InputError(f"part {name!r} is unknown; expected some of {', '.join(known)}")
    wanted = [known[name] for name in names.split(",")]
    return wanted if len(wanted) > 1 else [replace(wanted[0], seconds=seconds)]


def _small_data(folder: Path) -> None:
    """MNIST's first images, as IDX files."""
    from scratchnet import mnist

    folder.mkdir(exist_ok=True)
    for prefix, count in (("train", 60), ("t10k", 20)):
        images, labels = (array[:count] for array in mnist.load().train)
        for kind, array in (("images-idx3", images.reshape(-1, 28, 28)), ("labels-idx1", labels)):
            header = bytes([0, 0, 8, array.ndim]) + b"".join(
                size.to_bytes(4, "big") for size in array.shape
            )
            file = folder / f"{prefix}-{kind}-ubyte"
            file.write_bytes(header + array.astype("uint8").tobytes())


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # which ends the part
    main(prog_name="python -m benchmarks.gpu_campaign")
