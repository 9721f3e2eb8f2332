"""What exercise 16 runs on instead of a GPU: an array module as strict as CuPy, that takes notes.

NumPy is inside. What CuPy refuses is refused: to become a NumPy array unasked, or to meet one. What
CuPy does but makes the program wait for, such as float(a), is done and noted. numpy.exp of such an
array is passed on to this module's exp, as CuPy passes it on. Each operation counts as one launch.
It has the functions that a network needs, and says so if asked for another.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from typing import Any, NoReturn

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from scratchnet.backend import Array

MAKERS = ("arange", "array", "asarray", "empty", "eye", "full", "ones", "zeros")
_FUNCTIONS = (
    "abs add all amax amin any argmax argmin argsort clip concatenate cumsum divide dot einsum "
    "empty_like equal exp expand_dims full_like isfinite isinf isnan log log1p logical_and "
    "logical_not logical_or matmul max maximum mean min minimum multiply negative ones_like outer "
    "power prod repeat reshape sign sqrt square squeeze stack subtract sum take take_along_axis "
    "tanh tile transpose where zeros_like"
)
CONSTANTS = ("bool_", "e", "float32", "float64", "inf", "int32", "int64", "nan", "newaxis", "pi")
_METHODS = (
    "all any argmax argmin argsort astype clip copy cumsum dot flatten max mean min prod ravel "
    "repeat reshape squeeze sum take transpose"
)
FUNCTIONS, METHODS = _FUNCTIONS.split(), _METHODS.split()
VIEWS = {"expand_dims", "ravel", "reshape", "squeeze", "transpose"}  # these launch nothing


class Refused(TypeError):
    """What CuPy refuses with a TypeError, or does unseen; `cause` is what check.py calls it."""

    def __init__(self, cause: str, message: str) -> None:
        self.cause = cause
        super().__init__(message)


class PretendCupy:
    """The module.

    Attributes:
        launches: how many operations have been started.
        looks: who has waited for a value: what was called, and in which line.
    """

    def __init__(self) -> None:
        self.launches = 0
        self.looks: list[tuple[str, int | None]] = []

    def __getattr__(self, name: str) -> Any:
        if name in CONSTANTS:
            return getattr(np, name)
        if name == "ndarray":
            return GpuArray
        if name in MAKERS:
            return lambda *args, **kwargs: self.make(name, *args, **kwargs)
        if name in FUNCTIONS:
            return lambda *args, **kwargs: self.run(name, getattr(np, name), *args, **kwargs)
        raise AttributeError(
            f"this stand-in for CuPy has no {name}; there are {' '.join(FUNCTIONS)}"
        )

    def make(self, name: str, *args: Any, **kwargs: Any) -> GpuArray:
        """A new array. asarray and array may bring over a NumPy array, since they say so."""
        self.launches += 1
        args = tuple(a.host if isinstance(a, GpuArray) else a for a in args)
        return GpuArray(self, np.asarray(getattr(np, name)(*args, **kwargs)))

    def run(self, name: str, function: Any, *args: Any, **kwargs: Any) -> Any:
        """A function of arrays that are there."""
        self.launches += name not in VIEWS
        out = kwargs.pop("out", None)
        given = [self.host(name, a) for a in args]
        result = function(*given, **{key: self.host(name, a) for key, a in kwargs.items()})
        if out is None:
            return GpuArray(self, np.asarray(result))
        target = out[0] if isinstance(out, tuple) else out
        np.copyto(self.host(name, target), result, casting="same_kind")
        return target

    def host(self, name: str, value: Any) -> Any:
        """The NumPy array inside; a NumPy array itself is refused, as CuPy refuses it."""
        if isinstance(value, GpuArray):
            return value.host
        if isinstance(value, list | tuple) and any(isinstance(a, GpuArray) for a in value):
            return [self.host(name, a) for a in value]
        if isinstance(value, np.ndarray) and value.ndim:
            raise Refused(
                "a NumPy array",
                f"Unsupported type {type(value)} ({name} got one beside an array of xp's)",
            )
        return value

    def look(self, how: str) -> None:
        """Note that a value is waited for, and by which line."""
        frames = traceback.extract_stack()
        own = [frame.lineno for frame in frames if frame.filename != __file__]
        self.looks.append((how, own[-1] if own else None))


class GpuArray(NDArrayOperatorsMixin):
    """An array on the pretended GPU. Operators come from the mixin, through __array_ufunc__."""

    def __init__(self, xp: PretendCupy, host: Array) -> None:
        self.xp, self.host = xp, host

    def __array_ufunc__(self, ufunc: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        if method != "__call__":
            raise Refused("a function of NumPy", f"numpy.{ufunc.__name__}.{method} of xp's array")
        return self.xp.run(ufunc.__name__, ufunc, *args, **kwargs)

    def __array_function__(self, function: Any, _: Any, args: Any, kwargs: Any) -> Any:
        if function.__name__ not in FUNCTIONS:
            message = f"numpy.{function.__name__} got an array of xp's, and xp has no such function"
            raise Refused("a function of NumPy", message)
        return getattr(self.xp, function.__name__)(*args, **kwargs)

    def __array__(self, *_: object, **__: object) -> NoReturn:
        raise Refused(
            "an implicit conversion",
            "Implicit conversion to a NumPy array is not allowed",
        )

    def __getattr__(self, name: str) -> Any:
        if name in METHODS:
            method = getattr(type(self.host), name)
            return lambda *args, **kwargs: self.xp.run(name, method, self, *args, **kwargs)
        raise AttributeError(f"this stand-in for CuPy has no {name} of an array")

    @property
    def shape(self) -> tuple[int, ...]:
        """Known without asking the GPU, as are the next three."""
        return self.host.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype."""
        return self.host.dtype

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self.host.ndim

    @property
    def size(self) -> int:
        """The number of entries."""
        return self.host.size

    @property
    def T(self) -> GpuArray:
        """Transposed, a view."""
        return GpuArray(self.xp, self.host.T)

    def __len__(self) -> int:
        return len(self.host)

    def __iter__(self) -> Iterator[GpuArray]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: Any) -> GpuArray:
        return GpuArray(self.xp, np.asarray(self.host[self._index(index)]))

    def __setitem__(self, index: Any, value: Any) -> None:
        self.xp.launches += 1
        self.host[self._index(index)] = self.xp.host("assignment", value)

    def _index(self, index: Any) -> Any:
        """What NumPy takes as an index; a mask has to be counted, so it is waited for."""
        items = index if isinstance(index, tuple) else (index,)
        if any(isinstance(item, np.ndarray) for item in items):
            message = (
                "an array of xp's has one of NumPy's as its index; CuPy copies it over, unseen"
            )
            raise Refused("a NumPy index", message)
        arrays = [item for item in items if isinstance(item, GpuArray)]
        self.xp.launches += bool(arrays)
        if any(array.dtype == bool for array in arrays):
            self.xp.look("a mask as an index")
        chosen = tuple(item.host if isinstance(item, GpuArray) else item for item in items)
        return chosen if isinstance(index, tuple) else chosen[0]

    # What the program waits for.

    def get(self) -> Array:
        """A NumPy array of it."""
        self.xp.look(".get()")
        return self.host.copy()

    def item(self) -> Any:
        """The one number in it."""
        self.xp.look(".item()")
        return self.host.item()

    def tolist(self) -> Any:
        """The numbers in it."""
        self.xp.look(".tolist()")
        return self.host.tolist()

    def __float__(self) -> float:
        self.xp.look("float()")
        return float(self.host)

    def __int__(self) -> int:
        self.xp.look("int()")
        return int(self.host)

    def __bool__(self) -> bool:
        self.xp.look("an if, or bool()")
        return bool(self.host)

    def __repr__(self) -> str:
        self.xp.look("print or repr")
        return repr(self.host)
