"""What was measured, as JSON: one file a run, with every raw time.

A file is an object with

    schema          1
    experiment      a name in EXPERIMENTS
    device          "cpu", "cuda", or "rehearsal": see `emulated`, whose times say nothing
    command         what made it
    date            ISO 8601, UTC
    machine         see `machine.describe`
    load_before, load_after     load averages of 1, 5 and 15 minutes
    noise           `machine.Calibration.verdict`: seconds, relative_spread, noisy
    interrupted     whether Ctrl-C ended it early

and, for "compare", the sweeps, "epochs", "breakdown" and "ladder",

    points          a list, a task each:
        task            the options of scratchnet.training.Options
        steps
        contenders      a list, one for each contender and number of threads:
            name, threads, about, prepare_seconds
            status          "ok", "skipped", "disagrees" or "failed"; reason: why, if not "ok"
            agreement       probe and task: see `agreement.Agreement`
            runs            round, and the fields of `worker.Timed`; all times in seconds

"breakdown" has besides

    stages          a list: name, threads, seconds {stage: [of each round, all steps together]}
    limits          a list, one for each number of threads: see `machine.Limits`; on a GPU one, see
                    `gpu_limits.GpuLimits`

"ladder", whose points are an epoch of full batches and the way to the required accuracy,

    gpu             for each point a list: name, threads, values {what: [of each round]}, where what
                    is "seconds", "launches", "kernels" or "accuracy": see `worker.Server.gpu`
    required        the validation accuracy to reach
    limits          as of "breakdown"

"networks"

    task            the options of each
    networks        a list: rung, networks (how many), status, reason, steps, seconds and
                    gpu_seconds, of each round and of all networks together

"rungs"

    seed            of the first of the random cases
    cases, mnist    lists of what was compared: see `equality`

"campaign"

    parts           a list: name, status, seconds

and "accuracy"

    required        the validation accuracy to reach
    starts          a list, one for each contender, number of threads and round:
        name, threads, round, about
        status, reason      as above; "failed" too if the accuracy is not reached
        first_seconds       from the start of the process until the accuracy is known, with empty
                            caches; again_seconds: with the caches that the first has left
        import_seconds      of it, until the contender is imported and the data loaded
        warm_seconds        a list: training and evaluation in the same process, once more each
        accuracy            on the validation images

"kernels" has none of these from machine on, but

    nvrtc           the version of the compiler; options: what it was given beside constants
    variants        a list: see `benchmarks.kernels.figures`
"""

from __future__ import annotations

import datetime
import json
import os
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.worker import REHEARSAL
from scratchnet import files
from scratchnet.errors import InputError

SCHEMA = 1
FOLDER = Path(__file__).parent / "results"
ON_BOTH = ("compare", "sweep-batch", "sweep-hidden", "epochs", "accuracy", "breakdown")  # devices
EXPERIMENTS = (*ON_BOTH, "ladder", "networks", "rungs", "campaign", "kernels")
REHEARSED = "rehearsal"

Record = dict[str, Any]


def now() -> str:
    """The time as it stands in a record."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def header(experiment: str, device: str, command: str) -> Record:
    """What every record of a run begins with; its `noise` and whether it was `interrupted` follow.

    In a rehearsal the device says so.
    """
    return {
        "schema": SCHEMA,
        "experiment": experiment,
        "device": REHEARSED if os.environ.get(REHEARSAL) else device,
        "command": command,
        "date": now(),
        "machine": machine.describe(),
        "load_before": machine.load(),
    }


def save(record: Record, file: Path | None = None) -> Path:
    """Write a record, by default to FOLDER under its date, machine and experiment.

    Raises:
        InputError: it can't be written.
    """
    if file is None:
        date = record["date"][:19].translate(str.maketrans("", "", "-:"))
        name = f"{date}-{machine.short_name(record['machine'])}-{record['experiment']}.json"
        file = FOLDER / name
        file.parent.mkdir(exist_ok=True)
    files.write(file, (json.dumps(record, indent=1, allow_nan=False) + "\n").encode())
    return file


def read(file: Path) -> Record:
    """A record.

    Raises:
        InputError: the file is none of this schema.
    """
    try:
        record = json.loads(file.read_bytes())
        schema, experiment = record["schema"], record["experiment"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file}: is no record of a benchmark ({error!r})") from error
    if schema != SCHEMA or experiment not in EXPERIMENTS:
        raise InputError(
            f"{file}: has schema {schema} and experiment {experiment!r}; expected schema {SCHEMA} "
            f"and one of {', '.join(EXPERIMENTS)}"
        )
    made: Record = record
    return made


def newest(folder: Path) -> dict[str, Record]:
    """The latest record of each experiment in a folder, and of those that a CPU can make too, of
    one on a GPU as "NAME-cuda". Rehearsals do not count.
    """
    found: dict[str, Record] = {}
    for file in sorted(folder.glob("*.json")):
        record = read(file)
        name, device = record["experiment"], record["device"]
        if device == REHEARSED:
            continue
        name += "-cuda" if name in ON_BOTH and device == "cuda" else ""
        if name not in found or record["date"] >= found[name]["date"]:
            found[name] = record
    names = [*ON_BOTH, *(f"{name}-cuda" for name in ON_BOTH), *EXPERIMENTS[len(ON_BOTH) :]]
    return {name: found[name] for name in names if name in found}
