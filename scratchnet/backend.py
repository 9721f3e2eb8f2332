"""Which array module, and so which device, an array lives on. The only file that imports cupy.

NumPy arrays live on the CPU ("cpu"), CuPy arrays on the GPU ("cuda"). Nothing moves by itself from
one to the other: `asarray` and `to_numpy` are the two ways across.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from collections.abc import Callable
from contextvars import ContextVar
from types import ModuleType
from typing import Any, ParamSpec, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from scratchnet.errors import InputError

# A NumPy array, or a CuPy array: CuPy has no types of its own, and the same methods.
Array: TypeAlias = npt.NDArray[Any]

DEVICES = ("auto", "cpu", "cuda")
_NUMPY = (np.ndarray, np.generic)
NO_CUPY = "CuPy is not installed"

P = ParamSpec("P")
R = TypeVar("R")
_is_quiet = ContextVar("_is_quiet", default=False)


def ieee(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator for functions to which inf and nan are answers, so that NumPy need not warn.

    What such a function calls is quiet already, and is not made so again, which takes 2 us.
    """

    @functools.wraps(function)
    def quiet(*args: P.args, **kwargs: P.kwargs) -> R:
        if _is_quiet.get():
            return function(*args, **kwargs)
        token = _is_quiet.set(True)
        try:
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                return function(*args, **kwargs)
        finally:
            _is_quiet.reset(token)

    return quiet


@functools.cache
def why_no_gpu() -> str | None:
    """Why no GPU can be used, as one sentence; None if one can.

    The first call with CuPy installed imports it and asks the driver, which takes about a second.
    """
    if importlib.util.find_spec("cupy") is None:
        return NO_CUPY
    try:
        cupy = importlib.import_module("cupy")
        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:  # CuPy without a driver, or one that does not fit, raises many kinds
        return f"CuPy is installed, but finds no GPU ({' '.join(str(error).split())})"
    return None if count else "CuPy is installed, but the driver lists no GPU"


def cupy() -> ModuleType:
    """CuPy itself.

    Raises:
        InputError: no GPU can be used; the message says why.
    """
    reason = why_no_gpu()
    if reason:
        raise InputError(f"device cuda: {reason}; see `scratchnet doctor`, or use device cpu")
    return importlib.import_module("cupy")


def resolve(device: str = "auto") -> str:
    """Turn "auto", "cpu" or "cuda" into the device that will be used, "cpu" or "cuda".

    Raises:
        InputError: device is none of the three, or is "cuda" and no GPU can be used.
    """
    if device not in DEVICES:
        raise InputError(f"device {device!r} is unknown; expected one of {', '.join(DEVICES)}")
    if device == "auto":
        return "cuda" if why_no_gpu() is None else "cpu"
    if device == "cuda":
        cupy()
    return device


def array_module(device: str) -> ModuleType:
    """The module whose arrays live on a device: numpy for "cpu", cupy for "cuda"."""
    return cupy() if resolve(device) == "cuda" else np


def get_array_module(array: Array) -> ModuleType:
    """numpy or cupy, by the type of an array (or of a NumPy scalar, which counts as one).

    Raises:
        TypeError: the argument is neither a NumPy nor a CuPy array.
    """
    if isinstance(array, _NUMPY):
        return np
    module = sys.modules.get("cupy")
    if module is not None and isinstance(array, module.ndarray):
        return module
    raise TypeError(
        f"expected a NumPy or CuPy array, got {type(array).__name__}; convert it with numpy.asarray"
    )


def device_of(array: Array) -> str:
    """The device an array lives on: "cpu" or "cuda"."""
    return "cpu" if get_array_module(array) is np else "cuda"


def to_numpy(array: Array) -> Array:
    """The array on the CPU: itself if it is there, else a copy from the GPU."""
    return array if device_of(array) == "cpu" else array.get()  # type: ignore[attr-defined]


def asarray(values: Any, device: str) -> Array:
    """Values, an array or anything that numpy.asarray takes, as an array on a device."""
    if device == "cuda":
        return cupy().asarray(values)
    return values.get() if hasattr(values, "get") else np.asarray(values)
