"""What all tests share: the array modules they run on, and Hypothesis' profiles."""

from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import settings
from threadpoolctl import threadpool_limits

from scratchnet import backend

settings.register_profile("ci", deadline=None, max_examples=100, derandomize=True)
settings.register_profile("dev", deadline=None, max_examples=100, print_blob=True)
settings.register_profile("nightly", deadline=None, max_examples=10_000, print_blob=True)
settings.load_profile("dev")

# The arrays are small: more threads would only wait for one another.
torch.set_num_threads(1)
threadpool_limits(1)

CUPY_MISSING = backend.why_no_gpu()


@pytest.fixture(
    scope="session",
    params=[
        "numpy",
        pytest.param(
            "cupy",
            marks=pytest.mark.skipif(CUPY_MISSING is not None, reason=f"no GPU: {CUPY_MISSING}"),
        ),
    ],
)
def xp(request: pytest.FixtureRequest) -> ModuleType:
    """The array module under test: each test that takes `xp` runs on NumPy and on CuPy."""
    if request.param == "cupy":
        return backend.cupy()
    return np
