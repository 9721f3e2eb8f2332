"""Ctrl-C, for a command that has nothing to save: one line, and the status that a shell has."""

import contextlib
import signal
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def told() -> Iterator[None]:
    """End the process on Ctrl-C, without a traceback."""
    try:
        yield
    except KeyboardInterrupt:
        print("\ninterrupted; to have the rest, start it again", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
