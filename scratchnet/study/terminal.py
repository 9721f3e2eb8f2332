"""What is printed: as wide as the terminal is, and in colour only where that is wanted."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import click

WIDEST, NARROWEST = 100, 40


def wants_colour() -> bool:
    """Whether standard output is a terminal that has colours, and nobody has said no to them."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") in ("dumb", ""):
        return False
    return sys.stdout is not None and sys.stdout.isatty()


def width() -> int:
    """Characters a line."""
    return max(NARROWEST, min(shutil.get_terminal_size().columns, WIDEST))


def fit(text: str, indent: str = "") -> str:
    """The text with an indent, its paragraphs and the items of its lists as wide as the terminal.

    Lines that are indented by four spaces, formulas and code, stay as they are.
    """
    lines: list[str] = []
    for is_prose, block in itertools.groupby(text.splitlines(), _is_prose):
        if not is_prose:
            lines += [(indent + line).rstrip() for line in block]
            continue
        for part in re.split(r"\n(?=[ ]{0,3}(?:[-*]|\d+\.) )", "\n".join(block)):
            bullet = re.match(r"[ ]*(?:(?:[-*]|\d+\.) )?", part)
            lines += textwrap.wrap(
                " ".join(part.split()),
                width(),
                initial_indent=indent,
                subsequent_indent=indent + " " * len(bullet[0].lstrip() if bullet else ""),
                break_long_words=False,
                break_on_hyphens=False,
            )
    return "\n".join(lines)


def _is_prose(line: str) -> bool:
    return bool(line.strip()) and not line.startswith("    ")


def command(folder: Path, words: str = "") -> str:
    """What to type here for a command of `scratchnet study` that is about a folder's files."""
    is_here = folder.resolve() == Path.cwd()
    where = [] if is_here else ["--folder", shlex.quote(str(folder))]
    return " ".join(["scratchnet study", *where, *words.split()])


def bold(text: str) -> str:
    """A heading."""
    return click.style(text, bold=True)


def good(text: str) -> str:
    """What is right."""
    return click.style(text, fg="green", bold=True)


def bad(text: str) -> str:
    """What is wrong."""
    return click.style(text, fg="yellow", bold=True)


def quiet(text: str) -> str:
    """What matters less."""
    return click.style(text, dim=True)


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """Columns as wide as what is in them, two spaces apart; numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            f"{cell:>{w}}" if cell.isdigit() else f"{cell:{w}}"
            for cell, w in zip(row, widths, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
