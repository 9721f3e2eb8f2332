"""Waiting until an editor has saved a file, by looking at it now and then.

Editors save in several ways: into the file; into a new one that takes its place; twice, since a
formatter comes after. So a file has been saved if its time, its size or its number on the disk is
another, and it counts as soon as two looks in a row find it the same.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

EVERY = 0.1  # seconds between two looks
GONE = 10  # looks after which a file that isn't there is missed


class Stamp(NamedTuple):
    """What changes when a file is saved: the time in ns, the size in bytes, the file's number."""

    time: int
    size: int
    number: int


def stamp(path: Path) -> Stamp | None:
    """The stamp of a file, or None if it isn't there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return Stamp(found.st_mtime_ns, found.st_size, found.st_ino)


class Watched:
    """A file, from now on.

    Args:
        path: of the file.
        pause: is called between two looks; waits.
        look: makes a stamp of a path; default `stamp`.
    """

    def __init__(
        self,
        path: Path,
        pause: Callable[[], None],
        look: Callable[[Path], Stamp | None] = stamp,
    ) -> None:
        self.path, self.pause, self.look = path, pause, look
        self.seen = look(path)

    def wait(self, missing: Callable[[], None]) -> None:
        """Return when the file has been saved since the last time, or since the beginning.

        Args:
            missing: is called, once, if the file isn't there for a while.
        """
        latest, absent = self.seen, 0
        while True:
            self.pause()
            before, latest = latest, self.look(self.path)
            absent = absent + 1 if latest is None else 0
            if absent == GONE:
                missing()
            if latest is not None and latest == before and latest != self.seen:
                self.seen = latest
                return
