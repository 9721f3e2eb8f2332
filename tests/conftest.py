"""What all tests share: the array modules they run on, and Hypothesis' profiles."""

import contextlib
from collections.abc import Generator, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings
from threadpoolctl import threadpool_limits

from scratchnet import backend
from tests import strict_cupy

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
        "strict",
        pytest.param(
            "cupy",
            marks=pytest.mark.skipif(CUPY_MISSING is not None, reason=f"no GPU: {CUPY_MISSING}"),
        ),
    ],
)
def xp(request: pytest.FixtureRequest) -> ModuleType:
    """The array module under test: each test that takes `xp` runs on NumPy and on CuPy.

    In between it runs on a CuPy that needs no GPU: see tests/strict_cupy.py.
    """
    if request.param == "cupy":
        return backend.cupy()
    return strict_cupy.cupy if request.param == "strict" else np


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """For a test on the strict CuPy, and no longer, that is CuPy. A fifth of the examples will do:
    the values are NumPy's, which has them all."""
    callspec = getattr(item, "callspec", None)
    if callspec is None or callspec.params.get("xp") != "strict":
        return (yield)
    with strict_cupy.installed(), _fewer_examples(getattr(item, "obj", None)):
        return (yield)


@contextlib.contextmanager
def _fewer_examples(test: Any) -> Iterator[None]:
    name = "_hypothesis_internal_use_settings"  # where Hypothesis' own pytest plugin sets them too
    given = getattr(test, name, None)
    if given is None:
        yield
        return
    setattr(test, name, settings(given, max_examples=max(given.max_examples // 5, 1)))
    try:
        yield
    finally:
        setattr(test, name, given)
