"""`python -m benchmarks.short_runs`: a few updates of each rung, for compute-sanitizer to watch.

Each array is an allocation of its own, so that what is beyond its end belongs to nobody.
"""

from __future__ import annotations

import sys

import click
import numpy as np

from benchmarks import rungs
from benchmarks.rungs import RUNGS, Rung
from scratchnet import backend, engines, mnist
from scratchnet.cli import OneLineErrors
from scratchnet.engines import cuda
from scratchnet.training import Options, Run

SHAPES = ((64, 50), (5, 3))  # batch size and hidden units: the tutorial's, and with much padding


@click.command(cls=OneLineErrors, context_settings={"show_default": True})
@click.option("--limit", type=click.IntRange(min=1), default=640, help="The first so many images.")
def main(limit: int) -> None:
    """Train each rung but `layers` on a few images, alone and two side by side.

    What a GPU has no room for is passed over, and told. The exit status is 1 if a loss is not
    finite, or if there is none at all.
    """
    backend.cupy().cuda.set_allocator(None)
    losses: list[float] = []
    for rung in RUNGS[1:]:
        for batch_size, hidden in SHAPES:
            options = Options(batch_size=batch_size, hidden=hidden, limit=limit)
            losses += _train(rung, options)
    sys.exit(0 if losses and np.isfinite(losses).all() else 1)


def _train(rung: Rung, options: Options) -> list[float]:
    """The losses of two networks together and of one alone; none if that can't be."""
    what = f"{rung.name}, batch {options.batch_size}, {options.hidden} hidden units"
    first = Run(options, mnist.load().train, cuda.DEVICE, engine=rung.engine)
    try:
        with rungs.only(rung):
            together = engines.make_together([first, first.with_seed(1)])
            alone = engines.make(rung.engine, first.with_seed(2))
    except rungs.NOT_HERE as error:
        click.echo(f"{what}: {error}")
        return []
    one, two = together.advance(0, first.total_steps)
    losses = one + two + alone.advance(0, first.total_steps)
    click.echo(f"{what}: {len(losses)} updates, the last loss {losses[-1]:.4f}")
    return losses


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.short_runs")
