"""`scratchnet study page` on the command line. What it needs is imported when it is called."""

from __future__ import annotations

import os
from pathlib import Path

import click

from scratchnet.errors import InputError


@click.command()
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path),
    help="Folder of a run, or its model.  [default: a network that is trained now]",
)
@click.option("--digit", type=click.IntRange(0, 9), default=3, help="Of the first image.")
@click.option(
    "--mine",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file of yours with network_backward, as in exercise 9: its gradients are shown beside "
    "the true ones.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Of all that is drawn.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default="study.html",
    help="The file to write; one that is there is replaced.",
)
def page(checkpoint: Path | None, digit: int, mine: Path | None, seed: int, out: Path) -> None:
    """Make a page to look at: a batch through the network and back, number by number.

    It is one HTML file, for any browser of 2023 or later, without a network. Wrong gradients of
    --mine are shown on it; if there are none at all, no page is made, and the exit status is 2.
    """
    from scratchnet import files
    from scratchnet.study import page, page_facts

    if not os.access(out.parent, os.W_OK):
        raise InputError(f"{out}: can't be written; expected a folder that can be: choose another")
    if mine is not None:
        page_facts.expect_answer(mine)
    click.echo("training, without a bug and with each of several: some seconds", err=True)
    facts = page_facts.gather(checkpoint, digit, seed)
    if mine is not None:
        facts = facts._replace(mine=page_facts.ask(mine, facts))
        assert facts.mine is not None
        click.echo(f"{mine}: {facts.mine.ruling.message}")
    content = page.render(facts, seed).encode()
    files.write(out, content)
    click.echo(f"{out} ({len(content) / 1e6:.1f} MB): open {out.resolve().as_uri()} in a browser")
