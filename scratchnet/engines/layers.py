"""The readable engine, and the definition of what is right: `nn` and `optim`, step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scratchnet.training import Run


class Engine:
    """`Run.update` for every batch, on NumPy or CuPy."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def advance(self, first: int, last: int) -> list[float]:
        """Make the updates first to last - 1; their losses."""
        return [self.run.update(x, y, lr) for x, y, lr in self.run.batches(first, last)]
