"""`python -m benchmarks`: how fast is scratchnet beside PyTorch and others, and why."""

from __future__ import annotations

import dataclasses
import importlib.util
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from benchmarks import contenders, machine, report, results
from benchmarks.worker import PATIENCE
from scratchnet import backend
from scratchnet.cli import OneLineErrors
from scratchnet.errors import InputError
from scratchnet.training import RECIPES, Options

if TYPE_CHECKING:
    from benchmarks.experiments import Setting

BEGIN = time.perf_counter()
ON_GPU = ("ladder", "networks")  # only


@click.command(cls=OneLineErrors, context_settings={"show_default": True, "max_content_width": 100})
@click.option("--sweep", type=click.Choice(["batch", "hidden"]), help="Vary a size.")
@click.option(
    "--epochs",
    type=click.IntRange(min=2),
    help="Train so many epochs in one go, and time each: do later ones take longer? Try 20.",
)
@click.option("--accuracy", is_flag=True, help="Time from a cold start to 96.1 % accuracy.")
@click.option("--breakdown", is_flag=True, help="Where the time goes, beside the machine's limits.")
@click.option(
    "--ladder", is_flag=True, help="Each rung on a GPU: time, launches, bytes, share of the limit."
)
@click.option("--networks", is_flag=True, help="Several networks in one launch, on a GPU.")
@click.option(
    "--all", "every", is_flag=True, help="All experiments, and contenders that compile for minutes."
)
@click.option(
    "--contenders",
    "patterns",
    metavar="NAME,...",
    help="Which, such as 'scratchnet-*,pytorch-fused'.  [default: the experiment's own]",
)
@click.option(
    "--threads",
    metavar="N,...",
    default="1,all",
    help="Each contender takes part with each of these numbers; 'all' are the physical cores.",
)
@click.option("--rounds", type=click.IntRange(min=1), help="[default: the experiment's own]")
@click.option(
    "--patience", type=float, default=PATIENCE, help="Seconds for a contender to prepare."
)
@click.option("--recipe", type=click.Choice([*RECIPES]), default="adam", help="Of training.")
@click.option("--batch-size", type=click.IntRange(min=1), default=64, help="Images an update.")
@click.option("--hidden", type=click.IntRange(min=1), default=50, help="Hidden units.")
@click.option("--limit", type=click.IntRange(min=1), help="The first so many images only.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Of weights and orders.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", help="Where.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file to write.  [default: one named after date, machine and experiment in "
    "benchmarks/results]",
)
@click.option("--list", "listed", is_flag=True, help="List the contenders, and who can run here.")
def main(
    sweep: str | None,
    epochs: int | None,
    accuracy: bool,
    breakdown: bool,
    ladder: bool,
    networks: bool,
    every: bool,
    patterns: str | None,
    threads: str,
    rounds: int | None,
    patience: float,
    recipe: str,
    batch_size: int,
    hidden: int,
    limit: int | None,
    seed: int,
    device: str,
    out: Path | None,
    listed: bool,
) -> None:
    """Time scratchnet beside PyTorch, JAX and others at the same work.

    Without options: an epoch of MNIST at batch 64, in a few minutes. Each contender has a
    process of its own; they take turns, in random order, for several rounds. A time counts only if
    all losses and the final weights agree with PyTorch's in float64. All raw times go into a JSON
    file, and a table to stdout; python -m benchmarks.report draws the plots.
    """
    if listed:
        _list(recipe, device)
        return
    if importlib.util.find_spec("torch") is None:
        raise InputError(
            "PyTorch is not installed, and it is the reference: pip install '.[bench]'"
        )
    from benchmarks.experiments import Setting

    asked = {
        "compare": False,
        "sweep-batch": sweep == "batch",
        "sweep-hidden": sweep == "hidden",
        "epochs": epochs is not None,
        "accuracy": accuracy,
        "breakdown": breakdown,
        "ladder": ladder,
        "networks": networks,
    }
    names = [name for name in asked if asked[name]] or ["compare"]
    if every:
        names = [name for name in asked if device == "cuda" or name not in ON_GPU]
    for name in names:
        if name in ON_GPU and device != "cuda":
            raise InputError(f"--{name}: is about a GPU; expected --device cuda")
    if device == "cuda":
        backend.cupy()  # which says now if there is none
    if out and len(names) > 1:
        raise InputError(f"--out: is one file for {len(names)} experiments; leave it out")
    if out and not out.parent.is_dir():
        raise InputError(f"{out}: its folder does not exist; make it first")
    options = Options(recipe, batch_size=batch_size, hidden=hidden, limit=limit, seed=seed)
    contenders.select(patterns)  # which says now if a name is unknown
    setting = Setting(
        options,
        device,
        _threads(threads),
        rounds,
        patterns,
        every,
        seed,
        machine.Calibration(),
        _say,
        patience,
    )
    for name in names:
        own = dataclasses.replace(setting, calibration=machine.Calibration())
        if name == "epochs":
            own = dataclasses.replace(
                own, options=dataclasses.replace(options, epochs=epochs or 20)
            )
        record = _record(name, own)
        file = results.save(record, out)  # first of all
        click.echo(f"{report.as_text(record)}\n\nEvery time: {file}")
        if record["interrupted"]:
            sys.exit(130)


def _record(name: str, setting: Setting) -> results.Record:
    """Run an experiment."""
    from benchmarks.experiments import EXPERIMENTS

    command = shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])
    before = results.header(name, setting.device, command)
    found = EXPERIMENTS[name](setting)
    after = {"load_after": machine.load(), "noise": setting.calibration.verdict()}
    return before | after | found


def _threads(text: str) -> list[int]:
    """ "1,all" as numbers, each once."""
    found = []
    for word in text.split(","):
        if word != "all" and not (word.isdecimal() and int(word)):
            raise InputError(f"--threads: {word!r} is no number of threads; expected such as 1,all")
        found.append(machine.cores() if word == "all" else int(word))
    return sorted(set(found))


def _say(text: str) -> None:
    click.echo(f"{time.perf_counter() - BEGIN:6.1f} s  {text}", err=True)


def _list(recipe: str, device: str) -> None:
    for entry in contenders.ENTRIES:
        reason = entry.missing() or entry.unfit(recipe, device)
        note = "" if entry.quick else "; only if asked for, or with --all"
        click.echo(f"{entry.name:<33} {reason or 'runs here'}{note}")
