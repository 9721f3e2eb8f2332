"""Writing a file whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from scratchnet.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def lock(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """Keep other processes out of a folder that they would lock too. (Windows: no lock.)

    Args:
        folder: a folder that exists.
        shared: let in those that share it too.

    Raises:
        InputError: another process is in it.
    """
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"{folder}: another process is at work here; expected one at a time: wait for it, "
                "or choose another folder"
            ) from error
        yield
    finally:
        os.close(descriptor)


def write(path: Path, content: bytes) -> None:
    """Write a file such that, killed at any moment, the path holds the old content or the new.

    The content goes to a hidden file beside it, onto the disk, and takes the path's place in one
    step.

    Raises:
        InputError: it can't be written: no such folder, no right, no space. The old file stays.
    """
    beside = path.with_name(f".{path.name}.part")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        raise InputError(
            f"{path}: can't be written ({error.strerror or error}); expected a folder that can be "
            "written to, with space left; free some, or choose another"
        ) from error
    finally:
        with contextlib.suppress(OSError):  # it is gone, or its folder never was
            beside.unlink()
