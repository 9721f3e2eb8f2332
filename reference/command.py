"""`python -m reference`: scratchnet and PyTorch in lock-step, every number beside its bound."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from reference.bounds import Dtype
from reference.lockstep import Lockstep, free_run
from reference.page import as_json, explain
from scratchnet import backend, engines, files, mnist
from scratchnet.cli import OneLineErrors, data_option, device_option
from scratchnet.errors import InputError
from scratchnet.training import RECIPES, Options

DTYPES: dict[str, Dtype] = {"float32": np.float32, "float64": np.float64}
file_option = click.Path(dir_okay=False, path_type=Path)


@click.command(cls=OneLineErrors, context_settings={"show_default": True})
@click.option("--steps", type=click.IntRange(min=1), default=100, help="Steps in lock-step.")
@click.option("--recipe", type=click.Choice([*RECIPES]), default="one-cycle", help="Of training.")
@click.option("--hidden", type=int, default=50, help="Hidden units.")
@click.option("--batch-size", type=int, default=64, help="Images an update.")
@click.option("--seed", type=int, default=0, help="Of the weights and of the order.")
@click.option("--dtype", type=click.Choice([*DTYPES]), default="float64", help="Of all arrays.")
@device_option
@click.option(
    "--engine",
    type=click.Choice(engines.NAMES),
    default="layers",
    help="Another than layers stands beside it: its losses, moments and parameters.",
)
@data_option
@click.option("--json", "json_file", type=file_option, help="Leave every difference in a file.")
@click.option("--html", "html_file", type=file_option, help="Leave a page with plots.")
def main(
    steps: int,
    dtype: str,
    device: str,
    engine: str,
    data: Path | None,
    json_file: Path | None,
    html_file: Path | None,
    **options: Any,
) -> None:
    """Train with scratchnet and with PyTorch side by side, and compare every number of every step:
    activations, loss, gradients, Adam's moments and parameters.

    The exit status is 1 if a difference is larger than rounding can explain, and 2 if nothing
    could be compared.
    """
    for file in (json_file, html_file):
        if file and not file.parent.is_dir():
            raise InputError(f"{file}: its folder does not exist; make it first")
    device = backend.resolve(device)
    split = mnist.load(data).train
    chosen = Options(**options)
    steps_per_epoch = math.ceil(len(split.labels) / chosen.batch_size)
    chosen = dataclasses.replace(chosen, epochs=math.ceil(steps / steps_per_epoch))
    torch.set_float32_matmul_precision("highest")

    if engine == "cuda_epoch" and dtype != "float32":
        raise InputError("engine cuda_epoch: computes in float32 only: add --dtype float32")
    free_device = device if engine == "layers" else engines.device(engine)

    lockstep = Lockstep.start(chosen, split, DTYPES[dtype], device, engine)
    with threadpool_limits(1, user_api="blas"):
        for _ in tqdm(lockstep.steps(steps), total=steps, unit="step", disable=None):
            pass
        # Float32 can drift by itself, so a verdict on the free run comes from float64.
        drifts = [
            free_run(chosen, split, DTYPES[name], free_device, engine)
            for name in dict.fromkeys((dtype, "float32" if engine == "cuda_epoch" else "float64"))
        ]

    report = lockstep.report
    configuration = {
        "recipe": chosen.recipe,
        "engine": engine,
        "sides": ", ".join([*lockstep.sides, "PyTorch CPU"]),
        "dtype": dtype,
        "network": f"784-{chosen.hidden}-10",
        "batch size": chosen.batch_size,
        "seed": chosen.seed,
        "steps": steps,
    }
    click.echo("In lock-step, every step from the same state:\n")
    click.echo(str(report))
    whose = "" if engine == "layers" else f" of {engine}"
    click.echo(f"\nFree run{whose}, the largest difference of any parameter:")
    for drift in drifts:
        click.echo(explain(drift))
    if json_file:
        content = json.dumps(as_json(report, drifts, configuration), allow_nan=False)
        files.write(json_file, content.encode())
    if html_file:
        os.environ["MPLBACKEND"] = "agg"  # a notebook's may not be installed here
        from reference.page import as_html

        files.write(html_file, as_html(report, drifts, configuration).encode())
    ok = report.ok and all(drift.ok for drift in drifts)
    click.echo(f"\nscratchnet and PyTorch are {'equal up to rounding' if ok else 'NOT equal'}.")
    sys.exit(0 if ok else 1)
