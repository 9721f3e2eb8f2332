"""`python -m benchmarks.report`: the recorded results as tables in README.md, and as plots.

A table goes between the lines `<!-- benchmarks: NAME -->` and `<!-- end -->`, where NAME is an
experiment's, with "-cuda" behind it if it ran on a GPU and could have run on a CPU; or "targets".
"ladder" and "targets" have a table without a record too, and no times in it. Without such lines
nothing is written for it. The plots go into the folder of the results, under the same names.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click

from benchmarks import figures, results, tables
from benchmarks.machine import ROOT
from benchmarks.results import Record
from scratchnet import files
from scratchnet.cli import OneLineErrors
from scratchnet.errors import InputError

MARKED = re.compile(r"(<!-- benchmarks: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def as_text(record: Record) -> str:
    """A record's table, for people."""
    return tables.table(record)


def updated(text: str, records: dict[str, Record]) -> str:
    """A Markdown text with the tables of the records where they are marked.

    Raises:
        InputError: a table is marked for which there is no record.
    """

    def table(match: re.Match[str]) -> str:
        return f"{match[1]}{_table(match[2], records)}\n{match[3]}"

    return MARKED.sub(table, text)


def _table(name: str, records: dict[str, Record]) -> str:
    if name == "targets":
        return tables.goals(records)
    if name in records:
        return tables.table(records[name])
    if name == "ladder":
        return tables.ladder_without_a_gpu()
    raise InputError(
        f"a table {name} is marked, but there is no record of it; expected one of "
        f"{', '.join(records) or 'none'}: run python -m benchmarks first"
    )


def made(readme: Path, folder: Path) -> dict[Path, bytes]:
    """What the README and the plots have to contain, by file."""
    records = results.newest(folder)
    found = {readme: updated(readme.read_text("utf-8"), records).encode()}
    for name, record in records.items():
        figure = figures.draw(record)
        if figure is not None:
            found[folder / f"{name}.svg"] = figure
    return found


def stale(readme: Path, folder: Path) -> list[Path]:
    """The files that differ from what the records say."""
    return [
        file
        for file, content in made(readme, folder).items()
        if not file.exists() or file.read_bytes() != content
    ]


@click.command(cls=OneLineErrors, context_settings={"show_default": True})
@click.option(
    "--results",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=results.FOLDER,
    help="The folder with the records, and for the plots.",
)
@click.option(
    "--readme",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=ROOT / "README.md",
    help="The file with the marked tables.",
)
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 if something would change.")
def main(folder: Path, readme: Path, check: bool) -> None:
    """Write the newest record of each experiment into the README and the plots."""
    changed = stale(readme, folder)
    for file, content in made(readme, folder).items():
        if file in changed and not check:
            files.write(file, content)
    for file in changed:
        click.echo(f"{file}: {'differs from the records' if check else 'written'}")
    if not changed:
        click.echo("all is as the records say")
    sys.exit(1 if check and changed else 0)


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.report")
