"""Writing a file whole or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from scratchnet.errors import InputError


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
            f"{path}: can't be written ({error.strerror or error}); expected a file name in a "
            "folder with space left that can be written to; choose another"
        ) from error
    finally:
        with contextlib.suppress(OSError):  # it is gone, or its folder never was
            beside.unlink()
