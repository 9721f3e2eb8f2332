"""What was measured, as JSON: one file a run, with every raw time.

A file is an object with

    schema          1
    experiment      "compare", "sweep-batch", "sweep-hidden", "epochs", "accuracy" or "breakdown"
    device          "cpu" or "cuda"
    command         what made it
    date            ISO 8601, UTC
    machine         see `machine.describe`
    load_before, load_after     load averages of 1, 5 and 15 minutes
    noise           `machine.Calibration.verdict`: seconds, relative_spread, noisy
    interrupted     whether Ctrl-C ended it early

and, but for "accuracy",

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
    limits          a list, one for each number of threads: see `machine.Limits`

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
"""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

from benchmarks.machine import short_name
from scratchnet import files
from scratchnet.errors import InputError

SCHEMA = 1
FOLDER = Path(__file__).parent / "results"
EXPERIMENTS = ("compare", "sweep-batch", "sweep-hidden", "epochs", "accuracy", "breakdown")

Record = dict[str, Any]


def now() -> str:
    """The time as it stands in a record."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def save(record: Record, file: Path | None = None) -> Path:
    """Write a record, by default to FOLDER under its date, machine and experiment.

    Raises:
        InputError: it can't be written.
    """
    if file is None:
        date = record["date"][:19].translate(str.maketrans("", "", "-:"))
        name = f"{date}-{short_name(record['machine'])}-{record['experiment']}.json"
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
    """The latest record of each experiment in a folder; of one on a GPU as "NAME-cuda"."""
    found: dict[str, Record] = {}
    for file in sorted(folder.glob("*.json")):
        record = read(file)
        name = record["experiment"] + ("-cuda" if record["device"] == "cuda" else "")
        if name not in found or record["date"] >= found[name]["date"]:
            found[name] = record
    names = [name + suffix for suffix in ("", "-cuda") for name in EXPERIMENTS]
    return {name: found[name] for name in names if name in found}
