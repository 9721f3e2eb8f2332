"""What a GPU can do at best, and so the least time that an update can take on it."""

from __future__ import annotations

from dataclasses import dataclass

from scratchnet import backend
from scratchnet.errors import InputError

# Multiply-adds of 32 bits that a multiprocessor makes in a clock, by compute capability. Source:
# CUDA C++ Programming Guide, "Arithmetic Instructions", the table of throughputs.
LANES = dict.fromkeys(("70", "72", "75", "80"), 64) | dict.fromkeys(
    ("86", "87", "89", "90", "100", "103", "110", "120", "121"), 128
)


@dataclass(frozen=True)
class GpuLimits:
    """Of one GPU.

    Attributes:
        multiprocessors: how many it has.
        clock: their highest, in Hz.
        lanes: multiply-adds of 32 bits of each in a clock.
    """

    multiprocessors: int
    clock: float
    lanes: int

    @classmethod
    def measure(cls) -> GpuLimits:
        """Those of the current GPU.

        Raises:
            InputError: there is no GPU, or of a kind whose arithmetic is not known here.
        """
        device = backend.cupy().cuda.Device()
        capability, attributes = device.compute_capability, device.attributes
        if capability not in LANES:
            raise InputError(
                f"a GPU of compute capability {capability} is not in benchmarks/gpu_limits.py; "
                "expected one that is: add it from CUDA's table"
            )
        return cls(
            attributes["MultiProcessorCount"],
            attributes["ClockRate"] * 1e3,
            LANES[capability],
        )

    def flops(self, multiprocessors: int | None = None) -> float:
        """Operations a second of so many multiprocessors, or of all; a multiply-add is two."""
        return 2 * (multiprocessors or self.multiprocessors) * self.lanes * self.clock
