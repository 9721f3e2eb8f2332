"""What a trained network leaves for reading, and what several leave together.

In a folder the summary is written last: where there is one, all the rest is there.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

import scratchnet
from scratchnet import backend, files, functional, training
from scratchnet.mnist import Mnist, Split
from scratchnet.training import Run

SUMMARY = "summary.json"
Summary = Mapping[str, Any]


class Result(NamedTuple):
    """How a network does on images that it was not trained on: mean loss, share read right."""

    validation_loss: float
    validation_accuracy: float
    test_loss: float
    test_accuracy: float


def is_complete(folder: Path, runs: Iterable[Run]) -> bool:
    """Whether nothing is left to do for the run of a folder, or for the runs of several seeds."""
    steps = read_summary(folder).get("steps")  # a run that is to be longer than it was has more
    return all(steps == run.total_steps == run.step for run in runs)


def read_summary(folder: Path) -> Summary:
    """What summary.json tells; nothing if it isn't there, or is none, to be written anew."""
    try:
        summary = json.loads((folder / SUMMARY).read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return summary if isinstance(summary, dict) else {}


def evaluate(run: Run, splits: Mnist) -> Result | None:
    """How the network of a run does; None if it diverged."""
    if run.diverged:
        return None
    validation, test = (
        training.evaluate(run.model, split, run.normalization)
        for split in (splits.validation, splits.test)
    )
    return Result(validation.loss, validation.accuracy, test.loss, test.accuracy)


def write(
    folder: Path, run: Run, result: Result | None, test: Split | None, session: Summary
) -> None:
    """Write losses.csv, four pictures and summary.json of one network.

    Args:
        folder: where to.
        run: a run that is done. If it diverged there are no pictures, and the summary says how.
        result: from `evaluate`.
        test: images for the pictures of its mistakes; None for no pictures.
        session: what the summary is to tell besides.

    Raises:
        InputError: a file can't be written.
    """
    files.write(folder / "losses.csv", _losses_csv(run).encode())
    if result and test:
        _draw(folder, run, test)
    told = result._asdict() if result else {"diverged": run.diverged}
    _write_summary(folder, run, session, {"steps": run.step, **told})


def write_seeds(
    folder: Path, runs: Sequence[Run], results: Sequence[Result | None], session: Summary
) -> None:
    """Write seeds.csv, seeds.png and summary.json of several networks.

    Args:
        folder: where to.
        runs: the runs, which differ in their seeds.
        results: of each run, from `evaluate`.
        session: what the summary is to tell besides.

    Raises:
        InputError: a file can't be written.
    """
    files.write(folder / "seeds.csv", _seeds_csv(runs, results).encode())
    _plots().seeds(
        folder / "seeds.png",
        [run.options.seed for run in runs],
        [run.losses for run in runs],
        [result.validation_accuracy if result else np.nan for result in results],
        runs[0].steps_per_epoch,
    )
    told = {
        "seed": [run.options.seed for run in runs],
        "steps": runs[0].total_steps,
        "diverged_seeds": [run.options.seed for run in runs if run.diverged],
        **spread(results),
    }
    _write_summary(folder, runs[0], session, told)


def spread(results: Iterable[Result | None]) -> dict[str, dict[str, float]]:
    """Median, lowest and highest of each field of Result; of no network, nothing."""
    fields = zip(*(result for result in results if result), strict=True)
    return {
        name: {"median": float(np.median(values)), "lowest": min(values), "highest": max(values)}
        for name, values in zip(Result._fields, fields, strict=False)
    }


def _write_summary(folder: Path, run: Run, session: Summary, told: Summary) -> None:
    summary = {
        **dataclasses.asdict(run.options),
        "lr": run.lr,
        "device": run.device,
        "engine": run.engine,
        "normalization": dataclasses.asdict(run.normalization),
        **session,
        **told,
        "versions": _versions(run.device),
    }
    files.write(folder / SUMMARY, (json.dumps(summary, indent=2) + "\n").encode())


def _versions(device: str) -> dict[str, str]:
    versions = {
        "scratchnet": scratchnet.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
    return versions | ({"cupy": backend.cupy().__version__} if device == "cuda" else {})


def _plots() -> ModuleType:
    # A notebook names a backend in the environment, which matplotlib may not find from here.
    os.environ["MPLBACKEND"] = "agg"
    from scratchnet import plots  # brings matplotlib, which takes half a second

    return plots


def _draw(folder: Path, run: Run, test: Split) -> None:
    plots = _plots()
    plots.losses(folder / "losses.png", run.losses, run.lrs, run.steps_per_epoch)
    plots.weights(folder / "weights.png", backend.to_numpy(run.model.lin1.weight.data))
    logits = training.predict(run.model, test.images, run.normalization)
    plots.confusion(folder / "confusion.png", test.labels, logits.argmax(axis=1))
    probabilities = functional.softmax_forward(logits)
    plots.mistakes(folder / "mistakes.png", test.images, test.labels, probabilities)


def _losses_csv(run: Run) -> str:
    lines = ["step,epoch,learning_rate,loss"]
    for step, (lr, loss) in enumerate(zip(run.lrs.tolist(), run.losses, strict=False)):
        lines.append(f"{step + 1},{step // run.steps_per_epoch + 1},{lr!r},{loss!r}")
    return "\n".join(lines) + "\n"


def _seeds_csv(runs: Sequence[Run], results: Sequence[Result | None]) -> str:
    """A network a row; what there is not is left empty."""
    lines = [",".join(("seed", *Result._fields, "diverged_at_step"))]
    for run, result in zip(runs, results, strict=True):
        values = [repr(value) for value in result] if result else [""] * len(Result._fields)
        diverged = str(run.step) if run.diverged else ""
        lines.append(",".join((str(run.options.seed), *values, diverged)))
    return "\n".join(lines) + "\n"
