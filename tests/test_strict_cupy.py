"""`layers` on CuPy without a hidden copy, proved without a GPU: see tests/strict_cupy.py.

A training step that NumPy and this stand-in both make, with equal values, calls no function and no
argument that CuPy lacks, gives nothing of NumPy's to CuPy nor the reverse, and waits for no value
but the loss that it returns.
"""

from __future__ import annotations

import inspect
import operator
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from scratchnet import backend, checkpoint, functional, nn, optim
from scratchnet.backend import Array, to_numpy
from scratchnet.training import RECIPES, Options, Run, evaluate
from tests import strict_cupy
from tests.planted.catalogue import Bug
from tests.strict_cupy import read_backs
from tests.test_training import some_images

ROOT = Path(__file__).parents[1]
# Enough for Adam to forget what has faded, which it does every 64th step.
STEPS = 66


@pytest.fixture(autouse=True)
def xp() -> Iterator[ModuleType]:
    """In this file, always the stand-in."""
    with strict_cupy.installed() as module:
        yield module


# It is no more lenient than CuPy.


@pytest.fixture(scope="module")
def real() -> ModuleType:
    """CuPy itself, which tells without a GPU too what it has."""
    module: ModuleType = pytest.importorskip("cupy")
    return module


def parameters(function: Any) -> list[str]:
    return [*inspect.signature(function).parameters]


def test_every_function_and_argument_is_one_of_cupys(real: ModuleType) -> None:
    for name in strict_cupy.CONSTANTS:
        assert repr(getattr(real, name)) == repr(getattr(strict_cupy.cupy, name))
    for name in strict_cupy.UFUNCS:
        assert isinstance(getattr(real, name), real.ufunc)
        for keyword in ("out=None", "dtype=None", "casting='same_kind'"):
            assert keyword in getattr(real, name).__doc__
    for function in strict_cupy.FUNCTIONS:
        theirs = parameters(getattr(real, function.__name__))
        assert parameters(function) == theirs[: len(parameters(function))]
    public = {name for name in vars(strict_cupy.cupy) if not name.startswith("_")}
    functions = {function.__name__ for function in strict_cupy.FUNCTIONS}
    assert public == {"ndarray", *strict_cupy.CONSTANTS, *strict_cupy.UFUNCS, *functions}


def test_every_method_and_argument_of_an_array_is_one_of_cupys(real: ModuleType) -> None:
    ours = {name for name in vars(strict_cupy.ndarray) if not name.startswith("_")}
    assert ours <= set(dir(real.ndarray))
    special = {name for name, value in vars(strict_cupy.ndarray).items() if callable(value)}
    assert special <= set(dir(real.ndarray))
    assert not hasattr(real.ndarray, "__index__")
    for name, arguments in strict_cupy.METHODS.items():
        signature = getattr(real.ndarray, name).__doc__.splitlines()[0]
        assert set(arguments.split()) <= set(re.findall(r"(\w+)=", signature))
    names = "astype", "copy", "flatten", "ravel", "repeat", "reshape", "take", "transpose"
    for name in names:
        signature = getattr(real.ndarray, name).__doc__.splitlines()[0]
        theirs = re.findall(r"[(,] \*?(\w+)", signature)
        assert set(parameters(getattr(strict_cupy.ndarray, name))) <= {"self", *theirs}


REFUSED: dict[str, Callable[[Any, Any], object]] = {
    "numpy.asarray": lambda xp, a: np.asarray(a),
    "a ufunc of NumPy": lambda xp, a: np.exp(a),
    "a function of NumPy": lambda xp, a: np.where(a > 0, a, 0),
    "a reduction of NumPy": lambda xp, a: np.sum(a),
    "numpy.shape": lambda xp, a: np.shape(a),
    "numpy.zeros_like": lambda xp, a: np.zeros_like(a),
    "a NumPy array on the right": lambda xp, a: a + np.ones(3),
    "a NumPy array on the left": lambda xp, a: np.ones(3) + a,
    "a NumPy array in comparison": lambda xp, a: a < np.ones(3),
    "a NumPy array in place": lambda xp, a: a.__iadd__(np.ones(3)),
    "in place, in a NumPy array": lambda xp, a: np.ones(3).__iadd__(a),
    "a NumPy array in a function": lambda xp, a: xp.exp(np.ones(3)),
    "a NumPy array in where": lambda xp, a: xp.where(a > 0, a, np.ones(3)),
    "a NumPy array of no axes": lambda xp, a: a * np.array(2.0),
    "a list": lambda xp, a: a * [1.0, 2.0, 3.0],
    "a NumPy array to assign": lambda xp, a: a.__setitem__(..., np.ones(3)),
    "assigning to a NumPy array": lambda xp, a: np.ones(3).__setitem__(..., a),
    "a NumPy array as an index": lambda xp, a: a[np.arange(2)],
    "an index of Python": lambda xp, a: [1, 2, 3][a.argmax()],
    "a range": lambda xp, a: range(a.argmax()),
    "a slice up to an array": lambda xp, a: a[: a.argmax()],
    "where= of a ufunc": lambda xp, a: xp.sqrt(a, where=a > 0),
    "initial= of a sum": lambda xp, a: a.sum(initial=0.0),
    "mode= of take": lambda xp, a: a.take(xp.arange(2), mode="wrap"),
    "an iteration over a number": lambda xp, a: [*a.sum()],
    "numpy.longdouble": lambda xp, a: a * np.longdouble(1),
}


@pytest.mark.parametrize("use", REFUSED.values(), ids=REFUSED)
def test_what_cupy_refuses_is_refused(xp: ModuleType, use: Callable[[Any, Any], object]) -> None:
    with pytest.raises(TypeError):
        use(xp, xp.asarray(np.array([2.0, 1.0, 0.0])))


def test_what_cupy_has_not_is_not_there(xp: ModuleType) -> None:
    for name in ("errstate", "float128", "longdouble"):
        with pytest.raises(AttributeError):
            getattr(xp, name)
    with pytest.raises(ValueError, match="Unsupported dtype"):
        xp.asarray(["text"])


READ_BACKS: dict[str, Callable[[Any], object]] = {
    "float": lambda a: float(a[0]),
    "int": lambda a: int(a[0]),
    "bool": lambda a: bool(a[0] > 0),
    "item": lambda a: a[0].item(),
    "tolist": lambda a: a.tolist(),
    "get": lambda a: a.get(),
    "repr": lambda a: f"{a}",
    "mask": lambda a: a[a > 0],
}


@pytest.mark.parametrize("how", READ_BACKS)
def test_a_read_back_is_noted_with_its_line(xp: ModuleType, how: str) -> None:
    a = xp.asarray([2.0])
    with read_backs() as noted:
        READ_BACKS[how](a)
    ((found, line, place),) = noted
    assert found == how
    assert line.startswith(f'"{how}": lambda a: ')
    assert place.startswith("test_strict_cupy.py:")


def test_assigning_to_a_mask_waits_for_its_count_and_copyto_does_not(xp: ModuleType) -> None:
    a, b = xp.arange(3.0), xp.arange(3.0)
    with read_backs() as noted:
        a[a < 1.5] = 7
    assert [found.line for found in noted] == ["a[a < 1.5] = 7"]
    with read_backs() as noted:
        xp.copyto(b, 7, where=b < 1.5)
    assert noted == []
    assert to_numpy(a).tolist() == to_numpy(b).tolist() == [7, 7, 2]


def test_arrays_behave_as_cupys_do(xp: ModuleType) -> None:
    here = np.arange(6.0).reshape(2, 3)
    a = xp.asarray(here)
    here[:] = 0
    with read_backs() as noted:
        results = a.sum(), a[1, 2], a.max(axis=-1)[0], a[0] @ a[1], xp.where(a > 2, a, 0).mean()
        a[1, 2][...] = 7  # a view
        wrapped = a.T[xp.asarray([0, 3, -1])][:, 1], a[xp.asarray([2])], a.take(xp.asarray([6]))
        rows = [*a]
    assert noted == []
    assert [(type(r), r.shape) for r in results] == 5 * [(xp.ndarray, ())]
    assert [r.item() for r in results] == [15, 7, 2, 14, 2]
    assert [w.tolist() for w in wrapped] == [[3, 3, 7], [[0, 1, 2]], [0]]
    assert [row.tolist() for row in rows] == [[0, 1, 2], [3, 4, 7]]


def test_subnormal_numbers_of_float32_are_0_to_a_kernel(xp: ModuleType) -> None:
    for dtype, kept in ((np.float32, False), (np.float64, True)):
        tiny = xp.asarray([np.finfo(dtype).tiny], dtype)
        assert bool((tiny / 2 > 0).all()) == kept
        halved = xp.asarray(to_numpy(tiny) / 2)
        assert bool((halved > 0).all()) == kept
        assert (to_numpy(halved.copy()) > 0).all(), "a copy is not a kernel's"


def test_python_numbers_have_no_dtype_and_numpys_have(xp: ModuleType) -> None:
    a = xp.ones(2, dtype=np.float32)
    for same in (a * 0.3, 1 - a, xp.where(a > 0, a, 0), a**2, xp.where(a > 0, xp.nan, a)):
        assert same.dtype == np.float32
    assert (np.float64(0.3) * a).dtype == (a * np.float64(0.3)).dtype == np.float64
    assert (xp.asarray(np.array([0, 255], np.uint8)) < -100).tolist() == [False, False]


def test_the_backend_takes_it_for_cupy(xp: ModuleType) -> None:
    assert backend.resolve() == backend.resolve("cuda") == "cuda"
    assert backend.array_module("cuda") is xp
    a = backend.asarray(np.arange(3), "cuda")
    assert backend.get_array_module(a) is xp
    assert backend.device_of(a) == "cuda"
    assert isinstance(backend.asarray(a, "cpu"), np.ndarray)


# What the layers make of it.


def pair(recipe: str, dtype: type) -> tuple[Run, Run]:
    """The same run on the CPU and on the stand-in, of STEPS steps, every second one ragged."""
    options = Options(recipe, epochs=STEPS // 2, batch_size=5, hidden=6)
    here, there = (Run(options, some_images(0, 8), device, dtype) for device in ("cpu", "cuda"))
    return here, there


def assert_equal_runs(here: Run, there: Run) -> None:
    """Losses, parameters and moments, bit for bit."""
    assert here.losses == there.losses
    arrays = [(here.model.parameters()[0].buffer.data, there.model.parameters()[0].buffer.data)]
    arrays += [(v, there.optimizer.vectors[name]) for name, v in here.optimizer.vectors.items()]
    for array, other in arrays:
        assert isinstance(other, strict_cupy.ndarray)
        np.testing.assert_array_equal(array, to_numpy(other), strict=True)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("recipe", RECIPES)
def test_an_update_waits_for_nothing_but_the_loss_that_it_returns(recipe: str, dtype: type) -> None:
    here, there = pair(recipe, dtype)
    with read_backs() as noted:
        assert sum(there.train()) == STEPS
    assert [(found.how, found.line) for found in noted] == STEPS * [("item", "return loss.item()")]
    assert sum(here.train()) == STEPS
    assert_equal_runs(here, there)


OPTIMIZERS: list[tuple[type[optim.Optimizer], dict[str, Any]]] = [
    (optim.SGD, {}),
    (optim.SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    (optim.SGD, {"momentum": 0.9, "dampening": 0.5, "maximize": True}),
    (optim.Adam, {"amsgrad": True, "weight_decay": 0.1}),
    (optim.AdamW, {"maximize": True}),
]


def trained(device: str, kind: type[optim.Optimizer], options: dict[str, Any]) -> Array:
    """The parameters, after three steps in which every layer and every option has had a part."""
    rng = np.random.default_rng(0)
    weight, x, y = rng.uniform(1, 2, 3), rng.normal(size=(5, 4)), np.array([0, 1, 2, -100, 1])
    layers = nn.Linear(4, 3, device=device, dtype=np.float64, generator=rng), nn.Sigmoid()
    model = nn.Sequential(*layers, nn.Softmax(), nn.ReLU())
    loss_func = nn.CrossEntropyLoss(backend.asarray(weight, device), label_smoothing=0.1)
    optimizer = kind(model.parameters(), **options)
    for _ in range(3):
        loss_func(model(backend.asarray(x, device)), backend.asarray(y, device))
        model.backward(loss_func.backward())
        optimizer.step()
        optimizer.zero_grad()
    return model.parameters()[0].buffer.data


@pytest.mark.parametrize(("kind", "options"), OPTIMIZERS)
def test_every_layer_and_optimizer_waits_for_nothing(
    kind: type[optim.Optimizer], options: dict[str, Any]
) -> None:
    with read_backs() as noted:
        there = trained("cuda", kind, options)
    assert noted == []
    np.testing.assert_array_equal(to_numpy(there), trained("cpu", kind, options), strict=True)


def test_log_softmax_and_every_reduction_wait_for_nothing(xp: ModuleType) -> None:
    rng = np.random.default_rng(0)
    x, g, y = rng.normal(size=(5, 5)), rng.normal(size=(5, 5)), rng.integers(0, 5, 5)

    def results(there: Callable[[Array], Array]) -> list[Array]:
        logits, target = there(x), there(y)
        made = [functional.log_softmax_forward(logits)]
        made += [functional.log_softmax_backward(there(g), logits)]
        for reduction, upstream in (("mean", 2.0), ("sum", there(g[0, 0])), ("none", there(g[0]))):
            loss_func = nn.CrossEntropyLoss(reduction=reduction)  # type: ignore[arg-type]
            made += [loss_func(logits, target), loss_func.backward(upstream)]
        return made

    with read_backs() as noted:
        there = results(xp.asarray)
    assert noted == []
    for actual, expected in zip(there, results(np.asarray), strict=True):
        np.testing.assert_array_equal(to_numpy(actual), expected)


def test_a_run_is_saved_and_goes_on_on_either_device(tmp_path: Path) -> None:
    here, there = pair("one-cycle", np.float32)
    for run in (here, there):
        run.losses += [run.update(x, y, lr) for x, y, lr in run.batches(0, 5)]
        checkpoint.save_run(tmp_path / run.device, run)
    begun = [checkpoint.SavedRun.read(tmp_path / device) for device in ("cuda", "cpu")]
    again = [
        run.resume(here.split, device=d) for run, d in zip(begun, ("cpu", "cuda"), strict=True)
    ]
    assert_equal_runs(*again)
    for run in (here, *again):
        list(run.train())
    assert_equal_runs(*again)
    assert_equal_runs(here, again[1])


def test_a_model_is_saved_loaded_and_moved_on_either_device(tmp_path: Path) -> None:
    _, run = pair("adam", np.float64)
    list(run.train())
    checkpoint.save_model(tmp_path / "model", run.model, run.normalization)
    saved = [checkpoint.load_model(tmp_path / "model", device) for device in ("cpu", "cuda")]
    moved = nn.Mnist_NN(hidden=6, device="cpu", dtype=np.float64).to("cuda")
    moved.load_state_dict(saved[0].model.state_dict())
    back = nn.Mnist_NN(hidden=6, device="cuda", dtype=np.float64)
    back.load_state_dict(run.model.state_dict())
    back.to("cpu")
    expected = evaluate(run.model, run.split, run.normalization)
    for model in (*(entry.model for entry in saved), moved, back):
        found = evaluate(model, run.split, run.normalization)
        assert (found.loss, found.accuracy) == (expected.loss, expected.accuracy)
        np.testing.assert_array_equal(found.logits, expected.logits)


def test_the_state_of_an_optimizer_goes_to_either_device() -> None:
    here, there = pair("adam", np.float32)
    for run in (here, there):
        list(run.train())
    for taker in pair("adam", np.float32):
        for giver in (here, there):
            taker.optimizer.load_state_dict(giver.optimizer.state_dict())
            for name, vector in here.optimizer.vectors.items():
                np.testing.assert_array_equal(to_numpy(taker.optimizer.vectors[name]), vector)


# And what it is there for.

PLANTED = [
    ("functional", "relu_forward", "get_array_module(x).where", "np.where", "numpy.where got"),
    ("functional", "sigmoid_forward", "xp.exp(", "np.exp(", "ufuncs"),
    ("functional", "softmax_forward", "get_array_module(x).exp", "np.exp", "ufuncs"),
    ("functional", "_wanted", "xp.arange", "np.arange", "Unsupported type"),
    ("functional", "_wanted", "xp.ones", "np.ones", "Unsupported type"),
    ("functional", "cross_entropy_backward", "xp.asarray", "np.asarray", "Unsupported type"),
    ("functional", "relu_backward", "x <= 0, 0, grad", "x <= float(x.min()), 0, grad", "float"),
    ("functional", "cross_entropy_backward", "scale / total", "scale / total.item()", "item"),
    ("functional", "_check_target", "    return\n", "    pass\n", "bool"),
    ("optim", "Adam.update", "xp.sqrt(v)", "np.sqrt(v)", "ufuncs"),
    ("optim", "Adam.update", "(1 - beta1) * g", "(1 - beta1) * g.get()", "Unsupported type"),
    ("optim", "Adam.update", "self.lr /", "self.lr * m.max().item() /", "item"),
    ("optim", "Adam.forget_faded", "xp.copyto(v, 0, where=v < 1e-36)", "v[v < 1e-36] = 0", "mask"),
]


def planted(file: str, function: str, old: str, new: str) -> tuple[Any, str, Any]:
    """Whose the function is, its name, and what it is with the change in it."""
    area, original = {"functional": ("relu", functional), "optim": ("adam", optim)}[file]
    bug = Bug(file, "", area, function, old, new)
    module = ModuleType(file)
    exec(
        compile(bug.plant((ROOT / "scratchnet" / bug.file).read_text()), file, "exec"), vars(module)
    )
    owner, _, name = function.rpartition(".")
    changed = operator.attrgetter(function)(module)
    return (getattr(original, owner) if owner else original), name, changed


def caught() -> str:
    """How all that the functions above do goes wrong: an error's message, or what is read back."""
    try:
        with read_backs() as noted:
            trained("cuda", optim.Adam, {})
            list(pair("adam", np.float32)[1].train())
    except TypeError as error:
        return str(error)
    return " ".join({found.how for found in noted if found.line != "return loss.item()"})


@pytest.mark.parametrize(("file", "function", "old", "new", "how"), PLANTED)
def test_a_hidden_copy_is_caught(
    monkeypatch: pytest.MonkeyPatch, file: str, function: str, old: str, new: str, how: str
) -> None:
    assert caught() == ""
    monkeypatch.setattr(*planted(file, function, old, new))
    assert how in caught()
