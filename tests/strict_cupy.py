"""A stand-in for CuPy on a machine without a GPU: NumPy inside, and no more lenient than CuPy 14.

What CuPy refuses is refused: NumPy's functions, NumPy's arrays as operands, and whatever names and
arguments CuPy has not. Where CuPy makes the host wait for the GPU to hand over a value, the line
that asked for it is noted: see `read_backs`. Where CuPy is lenient at a hidden cost (it takes an
index from the host's memory, and passes numpy.exp on to cupy.exp), this is not.

The facts are from the source of CuPy 14.2, in the file named beside each of them. `cupy` is the
module; `with installed():` has scratchnet take it for CuPy, and its arrays for a GPU's.
"""

from __future__ import annotations

import contextlib
import linecache
import operator
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, NamedTuple, NoReturn, TypeAlias

import numpy as np
import pytest

from scratchnet import backend

Host: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Function: TypeAlias = Callable[..., Any]

cupy = ModuleType("cupy", "The functions and the array type: see tests/strict_cupy.py.")

DTYPES = "?bBhHiIlLqQefdFD"  # cupy/_core/_dtype.pyx: no longdouble, no strings, no objects
SCALARS = (bool, int, float, complex, np.generic)


class ReadBack(NamedTuple):
    """A value that was waited for: by which method, and by which line of which file."""

    how: str
    line: str
    place: str


_noted: list[list[ReadBack]] = []


@contextlib.contextmanager
def read_backs() -> Iterator[list[ReadBack]]:
    """The list of what is read back from now until the end of the block."""
    _noted.append([])
    try:
        yield _noted[-1]
    finally:
        _noted.pop()


@contextlib.contextmanager
def installed() -> Iterator[ModuleType]:
    """In this block CuPy is here, and this is it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "cupy", cupy)
        patch.setattr(backend, "why_no_gpu", lambda: None)
        yield cupy


def _quiet() -> np.errstate:
    return np.errstate(all="ignore")  # a GPU tells no one of an overflow, or of 0 / 0


def _note(how: str) -> None:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename == __file__:
        frame = frame.f_back
    if frame is None or not _noted:
        return
    file, number = frame.f_code.co_filename, frame.f_lineno
    place = f"{Path(file).name}:{number}"
    _noted[-1].append(ReadBack(how, linecache.getline(file, number).strip(), place))


class ndarray:
    """An array on the GPU, as it looks from the host. Its methods are below, in `METHODS`."""

    __slots__ = ("_host",)
    _host: Host
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    ndim: int

    __hash__ = None  # type: ignore[assignment]
    __array_ufunc__ = None  # stricter than CuPy, whose own passes numpy.exp on to cupy.exp

    def __array__(self, *_: object, **__: object) -> NoReturn:
        # core.pyx, in these words.
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. "
            "Please use `.get()` to construct a NumPy array explicitly."
        )

    def __array_function__(self, function: Any, *_: object) -> NoReturn:
        # Stricter than CuPy, which passes on what it has.
        raise TypeError(f"numpy.{function.__name__} got a CuPy array; expected cupy's own function")

    # What the host has to wait for: core.pyx, `_ndarray_base.get` and what calls it. There is no
    # __index__, so range(a[0]) is a TypeError.

    def get(self) -> Host:
        _note("get")
        return self._host.copy()

    def item(self) -> Any:
        _note("item")
        return self._host.item()

    def tolist(self) -> Any:
        _note("tolist")
        return self._host.tolist()

    def __float__(self) -> float:
        _note("float")
        return float(self._host)

    def __int__(self) -> int:
        _note("int")
        return int(self._host)

    def __bool__(self) -> bool:
        _note("bool")
        return bool(self._host)

    def __repr__(self) -> str:
        _note("repr")
        return repr(self._host)

    # And what it need not wait for.

    def __len__(self) -> int:
        return len(self._host)

    def __iter__(self) -> Iterator[ndarray]:
        if not self.ndim:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: Any) -> ndarray:
        return _there(self._host[_on_host(index, self.shape)])

    def __setitem__(self, index: Any, value: Any) -> None:
        chosen = _on_host(index, self.shape)
        if any(isinstance(i, np.ndarray) and i.dtype != bool for i in chosen):
            # core.pyx: which value is stored at an index that occurs twice is undefined.
            raise TypeError("assignment to integer indices is not in this stand-in")
        with _quiet():
            self._host[chosen] = _operand(value)

    def reshape(self, *shape: Any, order: Any = "C") -> ndarray:
        return _there(self._host.reshape(*shape, order=order))

    def transpose(self, *axes: Any) -> ndarray:
        return _there(self._host.transpose(*axes))

    def take(self, indices: ndarray, axis: int | None = None) -> ndarray:
        # _routines_indexing.pyx, _take_kernel_core: an index out of range wraps silently.
        return _there(self._host.take(_operand(indices), axis, mode="wrap"))

    def repeat(self, repeats: int, axis: int | None = None) -> ndarray:
        # _routines_manipulation.pyx: for a list of counts their sum is waited for.
        return _there(self._host.repeat(operator.index(repeats), axis))

    def astype(self, dtype: Any, order: Any = "K", copy: bool = True) -> ndarray:
        if not copy and self.dtype == np.dtype(dtype):
            return self
        with _quiet():
            return _there(self._host.astype(dtype, order))

    def copy(self, order: Any = "C") -> ndarray:
        return _there(self._host.copy(order))

    def flatten(self, order: Any = "C") -> ndarray:
        return _there(self._host.flatten(order))

    def ravel(self, order: Any = "C") -> ndarray:
        return _there(self._host.ravel(order))

    def __deepcopy__(self, _: object) -> ndarray:
        return self.copy()


def _there(values: Any) -> ndarray:
    """NumPy's result as an array on the GPU. A scalar becomes an array of no axes."""
    host = np.asarray(values)
    if host.dtype.char not in DTYPES:
        raise ValueError(f"Unsupported dtype {host.dtype}")  # _scalar.pyx, get_typename
    array = ndarray()
    array._host = host
    return array


def _operand(value: Any) -> Any:
    """An operand as NumPy takes it: an array that is there already, or a scalar."""
    if isinstance(value, ndarray):
        return value._host
    if isinstance(value, SCALARS) and not isinstance(value, np.longdouble):
        return value
    raise TypeError(f"Unsupported type {type(value)}")  # _kernel.pyx and _scalar.pyx, CScalar


def _on_host(index: Any, shape: tuple[int, ...]) -> tuple[Any, ...]:
    """An index as NumPy takes it. It ends in `...`, so that an integer gives a view, no scalar."""
    items = index if isinstance(index, tuple) else (index,)
    result: list[Any] = []
    axis = 0
    for position, item in enumerate(items):
        if isinstance(item, np.ndarray):
            # CuPy would copy it to the GPU, unseen.
            raise TypeError("a NumPy array as the index of a CuPy array: move it with asarray")
        chosen = np.asarray(item) if isinstance(item, list) else item
        if isinstance(chosen, ndarray):
            chosen = chosen._host
        if isinstance(chosen, np.ndarray) and chosen.dtype == bool:
            # _routines_indexing.pyx, _prepare_mask_indexing_single: int(mask_scanned[-1]), of a
            # mask to read and of a mask to write.
            _note("mask")
            axis += chosen.ndim
        elif isinstance(chosen, np.ndarray):
            chosen = chosen % max(shape[axis], 1)  # it wraps, as in `take`
            axis += 1
        elif chosen is Ellipsis:
            axis = len(shape) - sum(later is not None for later in items[position + 1 :])
        elif chosen is not None:
            axis += 1
        result.append(chosen)
    return (*result, *((...,) if not any(item is Ellipsis for item in items) else ()))


def _computed(function: Function, *operands: Any, out: ndarray | None = None, **how: Any) -> Any:
    """A function of arrays that are there, as a kernel computes it."""
    with _quiet():
        result = _flushed(function(*(_flushed(_operand(x)) for x in operands), **how))
    if out is None:
        return _there(result)
    np.copyto(out._host, result)  # which may lose digits, but not turn into another kind
    return out


def _flushed(value: Any) -> Any:
    """cuda/compiler.py, -ftz=true: to a kernel the subnormal numbers of float32 are 0."""
    if getattr(value, "dtype", None) != np.float32:
        return value
    return value * (np.abs(value) >= np.finfo(np.float32).tiny)


def _ufunc(function: Function) -> Function:
    # _kernel.pyx, ufunc.__call__: there is no where=.
    def run(*operands: Any, out: Any = None, dtype: Any = None, casting: Any = "same_kind") -> Any:
        return _computed(function, *operands, out=out, dtype=dtype, casting=casting)

    return run


def _reduction(name: str, parameters: str) -> Function:
    """A method with CuPy's parameters, which are fewer than NumPy's."""
    names = parameters.split()

    def method(self: ndarray, *args: Any, **kwargs: Any) -> Any:
        given = dict(zip(names, args, strict=False)) | kwargs
        if len(args) > len(names) or not given.keys() <= set(names):
            raise TypeError(f"ndarray.{name} got {args} and {kwargs}; expected {parameters}")
        return _computed(lambda host, **how: getattr(host, name)(**how), self, **given)

    return method


PROPERTIES = ("shape", "dtype", "ndim", "size", "itemsize", "nbytes", "strides")
METHODS = {
    "all": "axis out keepdims",
    "any": "axis out keepdims",
    "argmax": "axis out keepdims",
    "argmin": "axis out keepdims",
    "clip": "min max out",
    "max": "axis out keepdims",
    "mean": "axis dtype out keepdims",
    "min": "axis out keepdims",
    "sum": "axis dtype out keepdims",
}
OPERATORS = {
    "add": np.add,
    "and": np.bitwise_and,
    "floordiv": np.floor_divide,
    "matmul": np.matmul,
    "mod": np.remainder,
    "mul": np.multiply,
    "or": np.bitwise_or,
    "pow": np.power,
    "sub": np.subtract,
    "truediv": np.true_divide,
    "xor": np.bitwise_xor,
}
COMPARISONS = {
    "eq": np.equal,
    "ge": np.greater_equal,
    "gt": np.greater,
    "le": np.less_equal,
    "lt": np.less,
    "ne": np.not_equal,
}
UNARY = {"abs": np.abs, "invert": np.invert, "neg": np.negative, "pos": np.positive}


def _operator(function: Function) -> Function:
    return lambda self, other: _computed(function, self, other)


def _reflected(function: Function) -> Function:
    return lambda self, other: _computed(function, other, self)


def _in_place(function: Function) -> Function:
    return lambda self, other: _computed(function, self, other, out=self)


def _unary(function: Function) -> Function:
    return lambda self: _computed(function, self)


def _property(name: str) -> property:
    return property(lambda self: getattr(self._host, name))


for name in PROPERTIES:
    setattr(ndarray, name, _property(name))
ndarray.T = property(ndarray.transpose)  # type: ignore[attr-defined]
for name, parameters in METHODS.items():
    setattr(ndarray, name, _reduction(name, parameters))
for name, function in OPERATORS.items():
    setattr(ndarray, f"__{name}__", _operator(function))
    setattr(ndarray, f"__r{name}__", _reflected(function))
    if name != "matmul":  # CuPy has no __imatmul__
        setattr(ndarray, f"__i{name}__", _in_place(function))
for name, function in COMPARISONS.items():
    setattr(ndarray, f"__{name}__", _operator(function))
for name, function in UNARY.items():
    setattr(ndarray, f"__{name}__", _unary(function))


# The functions, with CuPy's parameters or fewer.


def asarray(a: Any, dtype: Any = None, order: Any = None) -> ndarray:
    """A copy there of what is here; what is there already stays where it is."""
    if isinstance(a, ndarray):
        return a.astype(a.dtype if dtype is None else dtype, order or "K", copy=False)
    # core.pyx, _array_default: C order, unless NumPy's array is in Fortran's; native bytes.
    fortran = isinstance(a, np.ndarray) and a.flags.fnc
    host = np.array(a, dtype, copy=None, order=order or ("F" if fortran else "C"))
    return _there(host.astype(host.dtype.newbyteorder("=")))


def where(condition: ndarray, x: Any, y: Any) -> Any:
    """The condition is an array: _sorting/search.py asks it for its astype."""
    return _computed(np.where, condition.astype(bool, copy=False), x, y)


def copyto(dst: ndarray, src: Any, casting: Any = "same_kind", where: Any = None) -> None:
    """One kernel, also with a mask, which is not counted: _manipulation/basic.py."""
    mask = True if where is None else _operand(where)
    np.copyto(dst._host, _operand(src), casting, mask)


def zeros(shape: Any, dtype: Any = float, order: Any = "C") -> ndarray:
    return _there(np.zeros(shape, dtype, order))


def ones(shape: Any, dtype: Any = float, order: Any = "C") -> ndarray:
    return _there(np.ones(shape, dtype, order))


def full(shape: Any, fill_value: Any, dtype: Any = None, order: Any = "C") -> ndarray:
    return _there(np.full(shape, _operand(fill_value), dtype, order))


def empty(shape: Any, dtype: Any = float, order: Any = "C") -> ndarray:
    """Full of what must not be read."""
    return full(shape, np.nan if np.dtype(dtype).kind in "fc" else 99, dtype, order)


def arange(start: Any, stop: Any = None, step: Any = 1, dtype: Any = None) -> ndarray:
    if stop is None:
        start, stop = 0, start
    return _there(np.arange(start, stop, step, dtype=dtype))


def zeros_like(a: ndarray, dtype: Any = None) -> ndarray:
    return _there(np.zeros_like(_operand(a), dtype))


def ones_like(a: ndarray, dtype: Any = None) -> ndarray:
    return _there(np.ones_like(_operand(a), dtype))


def may_share_memory(a: ndarray, b: ndarray) -> bool:
    """By their addresses, which the host knows."""
    return np.may_share_memory(_operand(a), _operand(b))


FUNCTIONS: tuple[Any, ...] = (asarray, where, copyto, may_share_memory, arange)
FUNCTIONS += (zeros, ones, full, empty, zeros_like, ones_like)
UFUNCS = ("abs", "exp", "log", "log2", "maximum", "minimum", "sqrt", "square", "tanh")
CONSTANTS = ("bool_", "float32", "float64", "inf", "int64", "nan", "uint8")

ndarray.__module__ = "cupy"
cupy.ndarray = ndarray  # type: ignore[attr-defined]
vars(cupy).update({function.__name__: function for function in FUNCTIONS})
vars(cupy).update({name: _ufunc(getattr(np, name)) for name in UFUNCS})
vars(cupy).update({name: getattr(np, name) for name in CONSTANTS})
