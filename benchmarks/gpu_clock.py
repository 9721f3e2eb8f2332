"""How long the GPU is at work, and what is launched: seen from outside, so engines know nothing.

Times are those between two CUDA events, which the GPU itself notes down when it comes to them, in
the order of its work.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from scratchnet import backend
from scratchnet.engines import cuda


class Watch:
    """Counts what the engines launch within `with watch.on()`, and times it.

    Of graphs it sees those that are made there too.

    Attributes:
        launches: of kernels and graphs by the host, since `begin`.
        kernels: that the GPU runs for them.
    """

    def __init__(self) -> None:
        self._recorded: int | None = None  # kernels, while a graph is made
        self.begin()

    def begin(self, *marks: int) -> None:
        """Count from 0, and note the time before the first launch and after those with a number
        among the marks.
        """
        self.marks, self.launches, self.kernels = marks, 0, 0
        self._events: list[Any] = []

    @contextlib.contextmanager
    def on(self) -> Iterator[None]:
        """Watch all engines."""
        launch, capture = cuda.Program.launch, cuda.capture

        @functools.wraps(launch)
        def watched(*args: Any, **options: Any) -> None:
            if self._recorded is None:
                self._launch(functools.partial(launch, *args, **options), 1)
            else:
                launch(*args, **options)
                self._recorded += 1

        def capturing(work: Callable[[], None]) -> Callable[[], None]:
            self._recorded = 0
            try:
                replay, kernels = capture(work), self._recorded
            finally:
                self._recorded = None
            return lambda: self._launch(replay, kernels)

        with (
            mock.patch.object(cuda.Program, "launch", watched),
            mock.patch.object(cuda, "capture", capturing),
        ):
            yield

    def _launch(self, start: Callable[[], None], kernels: int) -> None:
        if self.marks and not self.launches:
            self._events.append(_now())
        start()
        self.launches += 1
        self.kernels += kernels
        if self.launches in self.marks:
            self._events.append(_now())

    def seconds(self) -> list[float]:
        """Between each two marks that followed one another; waits for the last."""
        return [_between(*two) for two in zip(self._events, self._events[1:], strict=False)]


def around(work: Callable[[], object]) -> float:
    """Seconds on the GPU from before some work to after it."""
    begin = _now()
    work()
    return _between(begin, _now())


def _now() -> Any:
    event = backend.cupy().cuda.Event()
    event.record()
    return event


def _between(begin: Any, end: Any) -> float:
    end.synchronize()
    return float(backend.cupy().cuda.get_elapsed_time(begin, end)) / 1e3
