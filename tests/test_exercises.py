"""The exercises: what is right passes, what is wrong is told its cause, and the text is true."""

from __future__ import annotations

import ast
import importlib.util
import itertools
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
import pytest

from scratchnet import functional
from scratchnet.study import course, mistakes
from scratchnet.study.course import Exercise
from scratchnet.study.exercises.pretend_cupy import GpuArray, PretendCupy, Refused
from scratchnet.study.verdicts import Verdict

Wrong: TypeAlias = tuple[str, dict[str, Any], str]

SOLUTIONS = Path(__file__).parent / "study" / "solutions"
COURSE = {exercise.name: exercise for exercise in course.load()}
STYLES = ("1", "2", "3")
SEEDS = 67  # three styles are 201 runs

each_exercise = pytest.mark.parametrize("exercise", COURSE.values(), ids=COURSE.keys())


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CHECKS = {name: load(exercise.check) for name, exercise in COURSE.items()}


def verdict(name: str, learner: ModuleType, seed: int = 0) -> Verdict:
    """The first that is not ok, or the last."""
    verdicts: Iterator[Verdict] = CHECKS[name].check(learner, seed)
    last = None
    for last in verdicts:
        if not last.ok:
            break
    assert last is not None
    return last


def solution(name: str, style: str = "2") -> ModuleType:
    return load(SOLUTIONS / name / f"{style}.py")


def changed(name: str, changes: dict[str, Any]) -> ModuleType:
    """A solution with something else in it; "TWICE.loss" is an entry of a dict."""
    learner = solution(name)
    for key, value in changes.items():
        of, _, entry = key.partition(".")
        if entry:
            entries = getattr(learner, of)
            entries[int(entry) if entry.isdigit() else entry] = value
        else:
            setattr(learner, of, value)
    return learner


# ------------------------------------------------------------------------------------ the template


def test_there_are_sixteen() -> None:
    assert [exercise.number for exercise in COURSE.values()] == list(range(1, 17))


@each_exercise
def test_the_template_is_not_ok_and_says_what_to_do(exercise: Exercise, tmp_path: Path) -> None:
    file = tmp_path / exercise.file_name
    file.write_bytes(exercise.template)
    found = verdict(exercise.name, load(file))
    assert not found.ok
    assert found.name not in ("exception", "unknown")
    assert "Traceback" not in str(found)
    if exercise.number in (12, 16):  # where something is there that works, but not well enough
        assert found.name.startswith("survives") or found.name == "an implicit conversion"
    else:
        assert found.name == "to do"
        assert re.search("write|type in", found.message)


@each_exercise
def test_the_template_needs_nothing_but_numpy(exercise: Exercise) -> None:
    tree = ast.parse(exercise.template)
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    imported = [node.names[0].name for node in ast.walk(tree) if isinstance(node, ast.Import)]
    assert set(imported) <= {"numpy"}


@each_exercise
def test_a_file_without_its_functions_is_told_so(exercise: Exercise) -> None:
    empty = ModuleType("empty")
    empty.__file__ = f"here/{exercise.name}.py"
    found = verdict(exercise.name, empty)
    assert not found.ok
    assert found.name in ("missing", "to do", "no dict")
    if found.name == "missing":
        assert f"scratchnet study reset {int(exercise.name[:2])} gives you" in found.hint
        assert "in your file, nor any other; expected" in found.message


def test_a_function_of_another_name_may_have_been_renamed() -> None:
    learner = solution("01_finite_difference")
    vars(learner)["gradient"] = vars(learner).pop("slope")
    found = verdict("01_finite_difference", learner)
    assert found.message.startswith("there is no function slope in your file; expected")
    assert found.hint.startswith("was it renamed?")


# --------------------------------------------------------------------------------- right and wrong


@each_exercise
def test_right_answers_in_three_styles_are_never_blamed(exercise: Exercise) -> None:
    for style, seed in itertools.product(STYLES, range(SEEDS)):
        found = verdict(exercise.name, solution(exercise.name, style), seed)
        assert found.ok, f"style {style}, seed {seed}: {found}"


def test_of_the_chain_only_the_four_results_must_have_their_names() -> None:
    def mine(x: Any, target: Any, W1: Any, b1: Any, W2: Any, b2: Any) -> dict[str, Any]:
        arrays = network_with()(x, target, W1, b1, W2, b2)
        results = {name: arrays[name] for name in ("dW2", "db2", "dW1", "db1")}
        return results | {"dz2": None, "dh": None}

    assert verdict("09_chain", changed("09_chain", {"network_backward": mine})).ok


@pytest.mark.parametrize("kind", [list, np.array])
def test_two_numbers_may_be_returned_in_a_list_or_an_array(kind: Callable[..., Any]) -> None:
    def mine(g: float, x: float, w: float) -> Any:
        return kind([g * w, g * x])

    assert verdict("03_linear", changed("03_linear", {"scalar_backward": mine})).ok


@pytest.mark.parametrize("kind", [int, float, np.int64, np.float64, np.array])
def test_a_number_may_be_numpys(kind: Callable[..., Any]) -> None:
    mine = {"RATIO": kind(1), "NET": kind(0)}
    assert verdict("14_fresh_adam", changed("14_fresh_adam", mine)).ok


def test_a_prediction_may_be_what_fresh_makes_of_it() -> None:
    fresh = solution("14_fresh_adam").fresh
    large, small = fresh(np.zeros(2), np.array([[100, 0.01]]))
    down = -fresh(np.zeros(1), np.array([[3.0], [-1.0]] * 50))[0]
    mine = {"RATIO": large / small, "NET": down / 1e-3}
    assert verdict("14_fresh_adam", changed("14_fresh_adam", mine)).ok


def test_a_sum_may_be_a_fraction() -> None:
    def mine(x: Any, w: Any) -> Any:
        return sum(Fraction(float(a)) * Fraction(float(b)) for a, b in zip(x, w, strict=True))

    assert verdict("15_rounding", changed("15_rounding", {"true_sum": mine})).ok


def test_an_entry_may_be_an_array_of_one_number() -> None:
    def mine(grad_output: Any, x: Any, h: int, d: int) -> Any:
        return grad_output[:, [h]].T @ x[:, [d]]

    assert verdict("03_linear", changed("03_linear", {"grad_weight_entry": mine})).ok


def test_a_prediction_may_be_typed_in_as_a_word() -> None:
    assert verdict("10_predict", changed("10_predict", {"TWICE.loss": "SAME"})).ok


def _in_place(loss: Any, weight: Any, index: Any, h: float) -> Any:
    weight[index] += h
    up = loss(weight)
    weight[index] -= 2 * h
    return (up - loss(weight)) / (2 * h)


def _jacobian_in_a_row(p: Any) -> Any:
    return p * (1 - p)


def _first_row(array: Any) -> Any:
    """What a return inside the loop leaves of it."""
    return np.concatenate([array[:1], np.zeros_like(array[1:])])


def _long_way(logits: Any, target: Any) -> Any:
    p = functional.softmax_forward(logits)
    rows = [
        (-(np.arange(len(q)) == y).astype(float) / q) @ (np.diag(q) - np.outer(q, q))
        for q, y in zip(p, target, strict=True)
    ]
    return np.array(rows) / len(rows)


def _short_way(of_p: str, shift: Callable[..., Any]) -> Callable[..., Any]:
    """(p - y) / N, with p made in one of two ways, and something other than the maximum off."""

    def backward(logits: Any, target: Any) -> Any:
        z = logits - shift(logits, target)
        if of_p == "e / sum":
            p = _shifted(z, 0)
        else:
            p = np.exp(z - np.log(np.exp(z).sum(axis=1, keepdims=True)))
        return _p_minus_y(p, target) / len(p)

    return backward


def network_with(**lines: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    """The network, with some lines changed."""
    right: dict[str, Callable[..., Any]] = {
        "z1": lambda x, W1, b1, **_: x @ W1.T + b1,
        "h": lambda z1, **_: np.maximum(z1, 0),
        "z2": lambda h, W2, b2, **_: h @ W2.T + b2,
        "dz2": lambda z2, target, **_: functional.cross_entropy_backward(z2, target),
        "dW2": lambda dz2, h, **_: dz2.T @ h,
        "db2": lambda dz2, **_: dz2.sum(axis=0),
        "dh": lambda dz2, W2, **_: dz2 @ W2,
        "dz1": lambda dh, z1, **_: np.where(z1 > 0, dh, 0),
        "dW1": lambda dz1, x, **_: dz1.T @ x,
        "db1": lambda dz1, **_: dz1.sum(axis=0),
    }

    def backward(x: Any, target: Any, W1: Any, b1: Any, W2: Any, b2: Any) -> dict[str, Any]:
        values = {"x": x, "target": target, "W1": W1, "b1": b1, "W2": W2, "b2": b2}
        for name, line in (right | lines).items():
            values[name] = line(**values)
        return values

    return backward


def _respelt(**names: str) -> Callable[..., dict[str, Any]]:
    """The network, with other names in its dict."""

    def backward(*arguments: Any) -> dict[str, Any]:
        arrays = network_with()(*arguments)
        return {names.get(name, name): array for name, array in arrays.items()}

    return backward


def _adam(**wrong: Any) -> Callable[..., Any]:
    """One step of Adam, with something else in it."""

    def step(p: Any, g: Any, m: Any, v: Any, t: int) -> Any:
        beta1, beta2 = wrong.get("betas", (0.9, 0.999))
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        t = t + wrong.get("t", 0)
        with np.errstate(all="ignore"):
            of_m = np.float64(1 - beta1**t) if wrong.get("correct", True) else 1
            of_v = np.float64(1 - beta2**t) if wrong.get("correct", True) else 1
            root = np.sqrt(v / of_v + 1e-8) if wrong.get("inside") else np.sqrt(v / of_v) + 1e-8
            new_p = p - 1e-3 * (m / of_m) / root
        return (new_p, m / of_m, v) if wrong.get("stored") else (new_p, m, v)

    return step


def _descend(p: Any, gradients: Any, *, m: Any = 0.0, v: Any = 0.0, t: int = 1) -> Any:
    """A persistent Adam whose t stays what it is."""
    for g in gradients:
        p, m, v = _adam()(p, g, m, v, t)
    return p


def _exchanging(p: Any, gradients: Any) -> Any:
    """A persistent Adam that takes v for m, and m for v."""
    m = v = np.zeros_like(p)
    for t, g in enumerate(gradients, start=1):
        with np.errstate(invalid="ignore"):
            p, v, m = _adam()(p, g, m, v, t)
    return p


def _persistent_from(t: int) -> Callable[..., Any]:
    """A persistent Adam whose first step has another t."""

    def persistent(p: Any, gradients: Any) -> Any:
        m = v = 0.0
        for i, g in enumerate(gradients):
            p, m, v = _adam()(p, g, m, v, t + i)
        return p

    return persistent


def _in_place_persistent(p: Any, gradients: Any) -> Any:
    m = v = 0.0
    for t, g in enumerate(gradients, start=1):
        new_p, m, v = _adam()(p, g, m, v, t)
        p[...] = new_p
    return p


def _test_by(check: Callable[[Any, Any], Any], *, shapes: Any = ((5, 7, 3), (4, 4, 4))) -> Any:
    """A test of linear_backward that compares by check, on random numbers of some shapes."""

    def test(linear_backward: Any) -> None:
        rng = np.random.default_rng(3)
        for n, d, h in shapes:
            g, x, weight = (rng.normal(size=shape) for shape in ((n, h), (n, d), (h, d)))
            expected = (g @ weight, g.T @ x, g.sum(axis=0))
            for a, b in zip(linear_backward(g, x, weight), expected, strict=True):
                check(a, b)

    return test


def _near(found: Any, expected: Any) -> None:
    assert np.allclose(found, expected, rtol=1e-9, atol=1e-9)


def _near_in_shape(found: Any, expected: Any) -> None:
    assert found.shape == expected.shape
    _near(found, expected)


def _loose(found: Any, expected: Any) -> None:
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0.05, atol=0.05)


def _equal(found: Any, expected: Any) -> None:
    assert (found == expected).all()


def _sum_is_equal(found: Any, expected: Any) -> None:
    assert abs(found - 2 * expected).max() < 1e-9


def _or(fail: Callable[[str], Any]) -> Callable[[Any, Any], None]:
    """Calls something else than an assert, if two arrays differ."""

    def check(found: Any, expected: Any) -> None:
        if found.shape != expected.shape or not np.allclose(found, expected, 1e-9, 1e-9):
            fail("they differ")

    return check


def _said(linear_backward: Any) -> bool:
    one = np.ones((1, 1))
    return bool(linear_backward(one, one, one)[0] == 1)


def _bound(x: Any, w: Any) -> Any:
    return len(x) * 2.0**-24 * abs(x.astype(float) * w.astype(float)).sum()


def _sum(x: Any, w: Any) -> Any:
    return (x.astype(float) * w.astype(float)).sum()


def _cupy(change: str) -> Callable[..., Any]:
    """A right answer to exercise 16, but for one of the rules."""

    def answer(xp: Any, logits: Any, target: Any) -> Any:
        n, c = logits.shape
        if change == "float32":
            logits = logits.astype(xp.float32)
        z = logits - logits.max(axis=1, keepdims=True)
        log_p = z - xp.log(xp.exp(z).sum(axis=1, keepdims=True))
        y = (target[:, None] == xp.arange(c)).astype(logits.dtype)
        if change == "np.arange":
            y = (target[:, None] == np.arange(c)).astype(logits.dtype)
        if change == "np.asarray":
            y = np.asarray(y)
        if change == "index":
            y[np.arange(n), 0] += 0
        if change == "zeros":
            y = y + xp.zeros((n, c))
        loss = -(y * log_p).sum() / n
        if change == "float":
            loss = float(loss)
        if change == "item":
            loss = xp.asarray(loss.item() if hasattr(loss, "item") else loss)
        if change == "mask":
            loss = -log_p[y == 1].sum() / n
        if change == "if" and loss > 100:
            loss = 100 * loss
        gradient = (xp.exp(log_p) - y) / n
        if change == "loop":
            gradient = xp.stack([gradient[i] * 1 for i in range(n)])
        if change == "get" and xp is not np:
            gradient = gradient.get()
        if change == "not averaged":
            gradient = gradient * n
        if change == "three":
            return loss, gradient, n
        if change == "the loss only" and xp is not np:
            return loss
        if change == "a number" and xp is not np:
            loss = 1.0
        return loss, gradient

    return answer


WRONG: list[Wrong] = [
    ("01_finite_difference", {"slope": _in_place}, "inputs changed"),
    *(
        ("01_finite_difference", {"slope": slope}, f"finite_difference_{cause}")
        for cause, slope in {
            "divided_by_h": lambda loss, weight, index, h: 2 * _slope(loss, weight, index, h),
            "sign": lambda loss, weight, index, h: -_slope(loss, weight, index, h),
            "not_divided": lambda loss, weight, index, h: 2 * h * _slope(loss, weight, index, h),
            "of_all_weights": lambda loss, w, index, h: (loss(w + h) - loss(w - h)) / (2 * h),
            "forward": lambda loss, w, index, h: (loss(_up(w, index, h)) - loss(w)) / h,
        }.items()
    ),
    *(
        ("01_finite_difference", {"slope": slope}, cause)
        for cause, slope in (
            ("another h", lambda loss, w, index, h: _slope(loss, w, index, 1e-5)),
            ("another h", lambda loss, w, index, h: _slope(loss, w, index, min(h, 0.05))),
            (
                "finite_difference_rounded_down",
                lambda loss, w, index, h: _slope(loss, w, index, h) // 1,
            ),
            (  # of which a cubic loss tells nothing, but it nudges by h
                "unknown",
                lambda loss, w, index, h: (
                    (4 * _slope(loss, w, index, h) - _slope(loss, w, index, 2 * h)) / 3
                ),
            ),
            ("results", lambda loss, w, index, h: [_slope(loss, w, index, h)]),
            ("results", lambda loss, w, index, h: None),
            ("results", lambda loss, w, index, h: [[1], [2, 3]]),
        )
    ),
    ("02_shapes", {"z1": ("H", "N")}, "transposed"),
    ("02_shapes", {"dW1": ("D", "H")}, "transposed"),
    ("02_shapes", {"db1": ("N", "H")}, "not summed over the samples"),
    ("02_shapes", {"dW2": ("N", "H")}, "not summed over the samples"),
    ("02_shapes", {"db2": "C"}, "no comma"),
    ("02_shapes", {"db1": (1, "H")}, "an axis of 1"),
    ("02_shapes", {"loss": ("N",)}, "not averaged"),
    ("02_shapes", {"dh": ("N", "C")}, "the shape of another array"),
    ("02_shapes", {"z2": ("N", "H")}, "the shape of another array"),
    ("02_shapes", {"h": ("N", "D")}, "an axis that was summed over"),
    ("02_shapes", {"p": ("C",)}, "number of axes"),
    ("02_shapes", {"z1": (64, 50)}, "no letters"),
    ("02_shapes", {"z1": 64}, "no shape"),
    ("02_shapes", {"z1": (np.array([1, 2]), "H")}, "no letters"),
    ("02_shapes", {"z1": np.array(["N", "H"])}, "no shape"),
    ("02_shapes", {"z1": (("N", "H"),)}, "no letters"),
    ("02_shapes", {"z1": {"N": "H"}}, "no shape"),
    ("02_shapes", {"summed_in_dh": np.array([1, 2])}, "no letter"),
    ("02_shapes", {"summed_in_dW2": "H"}, "an axis that stays"),
    ("02_shapes", {"summed_in_dh": "D"}, "an axis of neither"),
    ("03_linear", {"scalar_backward": lambda g, x, w: (g * x, g * w)}, "results swapped"),
    (
        "03_linear",
        {"scalar_backward": lambda g, x, w: (w, x)},
        "without the upstream gradient",
    ),
    ("03_linear", {"scalar_backward": lambda g, x, w: (g, g)}, "passed on"),
    ("03_linear", {"scalar_backward": lambda g, x, w: g * w}, "results"),
    (
        "03_linear",
        {"grad_weight_entry": lambda g, x, h, d: g[-1, h] * x[-1, d]},
        "linear_backward_grad_weight_last_sample_only",
    ),
    (
        "03_linear",
        {"grad_weight_entry": lambda g, x, h, d: g[:, h] @ x[:, d] / len(x)},
        "linear_backward_grad_weight_averaged",
    ),
    (
        "03_linear",
        {"grad_weight_entry": lambda g, x, h, d: g[:, h].sum() * x[:, d].sum()},
        "linear_backward_grad_weight_of_sums",
    ),
    (
        "03_linear",
        {"grad_x_entry": lambda g, weight, n, d: weight[:, d].sum()},
        "linear_backward_grad_x_without_upstream",
    ),
    ("03_linear", {"grad_x_entry": lambda g, weight, n, d: g[n]}, "shape"),
    ("03_linear", {"grad_x_entry": lambda g, weight, n, d: None}, "results"),
    # Right for N = 5 and H = 3, as in the first instance.
    (
        "03_linear",
        {"grad_x_entry": lambda g, w, n, d: sum(g[n, h] * w[h, d] for h in range(3))},
        "unknown",
    ),
    ("03_linear", {"scalar_backward": lambda g, x, w: (0, 0)}, "unknown"),
    ("03_linear", {"grad_x_entry": lambda g, weight, n, d: "1"}, "results"),
    ("03_linear", {"grad_x_entry": lambda g, weight, n, d: g[n, d]}, "exception"),
    (
        "03_linear",
        {"grad_x_entry": lambda g, weight, n, d: np.float32(g[n] @ weight[:, d])},
        "precision",
    ),
    ("03_linear", {"scalar_backward": lambda g, x, w: (None, None)}, "results"),
    ("03_linear", {"scalar_backward": lambda g, x, w: np.array([g * x, g * w])}, "results swapped"),
    (
        "03_linear",
        {"grad_weight": lambda g, x: x.T @ g},
        "linear_backward_grad_weight_transposed",
    ),
    (
        "03_linear",
        {"grad_x": lambda g, weight: g @ weight.T},
        "linear_backward_grad_x_weight_transposed",
    ),
    ("03_linear", {"grad_x": lambda g: g}, "arguments"),
    ("04_bias", {"grad_bias": lambda g: g.mean(axis=0)}, "linear_backward_grad_bias_averaged"),
    ("04_bias", {"grad_bias": lambda g: g}, "linear_backward_grad_bias_not_summed"),
    ("04_bias", {"grad_bias": lambda g: g.sum()}, "linear_backward_grad_bias_one_number"),
    (
        "04_bias",
        {"grad_bias": lambda g: g.sum(axis=0, keepdims=True)},
        "linear_backward_grad_bias_keepdims",
    ),
    ("04_bias", {"grad_offset": lambda g: g.sum(axis=0)}, "over the wrong axis"),
    ("04_bias", {"grad_offset": lambda g: g.sum(axis=1, keepdims=True)}, "keepdims"),
    ("04_bias", {"grad_offset": lambda g: g[0].sum()}, "the first number only"),
    ("04_bias", {"grad_offset": lambda g: [g[0].sum()]}, "a list of the first"),
    ("04_bias", {"grad_offset": lambda g: _first_row(g.sum(axis=1))}, "0 after the first"),
    ("04_bias", {"grad_scale": lambda g, z: g[0] * z[0]}, "the first sample only"),
    ("04_bias", {"grad_scale": lambda g, z: g.sum(axis=0)}, "without z"),
    ("04_bias", {"grad_scale": lambda g, z: g.sum(0) * z.sum(0)}, "sums before the product"),
    ("04_bias", {"grad_scale": lambda g, z: g.T @ z}, "a matrix product"),
    ("04_bias", {"grad_scale": lambda g, z: (g * z).sum(axis=0) + 1}, "unknown"),
    ("04_bias", {"grad_offset": lambda g: g.astype(np.float32).sum(axis=1)}, "precision"),
    ("04_bias", {"grad_scale": lambda g, z: [str(s) for s in (g * z).sum(axis=0)]}, "results"),
    ("05_relu", {"relu_forward": lambda x: np.minimum(x, 0)}, "relu_forward_minimum"),
    ("05_relu", {"relu_forward": abs}, "relu_forward_absolute_value"),
    (
        "05_relu",
        {"relu_forward": mistakes.BY_NAME["relu_forward_in_place"].wrong["relu_forward.y"]},
        "relu_forward_in_place",
    ),
    (
        "05_relu",
        {"relu_backward": lambda g, x: np.where(x >= 0, g, 0)},
        "relu_backward_passes_at_0",
    ),
    (
        "05_relu",
        {"relu_backward": lambda g, x: np.where(g > 0, g, 0)},
        "relu_backward_mask_of_the_upstream",
    ),
    ("05_relu", {"relu_backward": lambda g, x: g}, "relu_backward_without_mask"),
    ("05_relu", {"relu_backward": lambda g, x: 1.0 * (x > 0)}, "relu_backward_without_upstream"),
    (
        "06_softmax",
        {"softmax_forward": lambda x: np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)},
        "softmax_forward_without_maximum",
    ),
    (
        "06_softmax",
        {
            "softmax_forward": mistakes.BY_NAME["softmax_forward_one_maximum_for_all"].wrong[
                "softmax_forward.p"
            ]
        },
        "softmax_forward_one_maximum_for_all",
    ),
    (
        "06_softmax",
        {"softmax_forward": lambda x: mistakes.softmax(x, axis=0)},
        "softmax_forward_down_the_columns",
    ),
    ("06_softmax", {"softmax_forward": mistakes.sigmoid}, "softmax_forward_sigmoid"),
    (
        "06_softmax",
        {"softmax_forward": lambda x: np.exp(x - x.max(axis=1, keepdims=True))},
        "softmax_forward_not_normalized",
    ),
    *(  # each finite in rows that are large as a whole, or near each other
        ("06_softmax", {"softmax_forward": lambda x, shift=shift: _shifted(x, shift(x))}, "nan")
        for shift in (
            lambda x: x.min(axis=1, keepdims=True),
            lambda x: x.mean(axis=1, keepdims=True),
            lambda x: abs(x).max(axis=1, keepdims=True),
        )
    ),
    ("07_cross_entropy_long_way", {"grad_p": lambda p, label: -1 / p}, "every class"),
    (
        "07_cross_entropy_long_way",
        {"grad_p": lambda p, label: (np.arange(len(p)) == label) / p},
        "without the minus",
    ),
    ("07_cross_entropy_long_way", {"grad_p": lambda p, label: -1 / p[label]}, "one number"),
    ("07_cross_entropy_long_way", {"jacobian": _jacobian_in_a_row}, "a row of it"),
    *(
        ("07_cross_entropy_long_way", {"jacobian": jacobian}, cause)
        for cause, jacobian in (
            ("p[k] twice", lambda p: p[:, None] * (np.eye(len(p)) - p[:, None])),
            ("p[c] twice", lambda p: np.diag(p) - p * p),
            ("a dot product", lambda p: np.diag(p) - p.T @ p),
            ("integers", lambda p: (np.diag(p) - np.outer(p, p)).astype(int)),
            ("the first row only", lambda p: _first_row(np.diag(p) - np.outer(p, p))),
            ("the first entry only", lambda p: _first_row(np.diag(p * (1 - p)))),
        )
    ),
    (
        "07_cross_entropy_long_way",
        {
            "grad_p": lambda p, label: np.array(
                [-float(k == label) / p[k] for k in range(len(p))], int
            )
        },
        "integers",
    ),
    (
        "07_cross_entropy_long_way",
        {"grad_p": lambda p, label: _first_row(-1.0 * (np.arange(len(p)) == label) / p)},
        "the first class only",
    ),
    ("07_cross_entropy_long_way", {"jacobian": lambda p: np.diag(p * (1 - p))}, "diagonal only"),
    (
        "07_cross_entropy_long_way",
        {"jacobian": lambda p: np.diag(p) + np.outer(p, p)},
        "plus",
    ),
    ("07_cross_entropy_long_way", {"jacobian": lambda p: np.eye(len(p)) - p}, "the bracket only"),
    (
        "07_cross_entropy_long_way",
        {"cross_entropy_backward": lambda z, y: _long_way(z, y) * len(z)},
        "cross_entropy_backward_not_averaged",
    ),
    (
        "07_cross_entropy_long_way",
        {"cross_entropy_backward": lambda z, y: -_long_way(z, y)},
        "cross_entropy_backward_sign",
    ),
    ("08_cross_entropy", {"cross_entropy_backward": _long_way}, "the long way"),
    (  # of one sample it is nan, but first comes that it is wrong of five
        "08_cross_entropy",
        {"cross_entropy_backward": lambda z, y: _p_minus_y(_shifted(z, z.max()), y) / (len(z) - 1)},
        "unknown",
    ),
    *(
        ("08_cross_entropy", {"cross_entropy_backward": backward}, cause)
        for cause, backward in {
            "unknown": lambda z, y: _p_minus_y(functional.softmax_forward(z) + 1e-9, y) / len(z),
            "cross_entropy_backward_without_maximum": lambda z, y: (
                _p_minus_y(_shifted(z, 0), y) / len(z)
            ),
        }.items()
    ),
    *(  # short ways that are lost where p[label] is 0, or where a sum of exp is
        ("08_cross_entropy", {"cross_entropy_backward": _short_way(of_p, shift)}, "nan")
        for of_p, shift in (
            ("e / sum", lambda z, y: abs(z).max(axis=1, keepdims=True)),
            ("e / sum", lambda z, y: z[np.arange(len(z)), y][:, None]),
            ("exp of log p", lambda z, y: abs(z).max(axis=1, keepdims=True)),
            ("exp of log p", lambda z, y: z.max()),
        )
    ),
    *(
        (
            "08_cross_entropy",
            {"cross_entropy_backward": backward},
            f"cross_entropy_backward_{cause}",
        )
        for cause, backward in {
            "not_averaged": lambda z, y: functional.cross_entropy_backward(z, y) * len(z),
            "sign": lambda z, y: -functional.cross_entropy_backward(z, y),
            "without_one_hot": lambda z, y: functional.softmax_forward(z) / len(z),
            "averaged_over_classes": lambda z, y: (
                functional.cross_entropy_backward(z, y) / z.shape[1]
            ),
            "p_not_averaged": lambda z, y: (
                functional.softmax_forward(z) - np.eye(z.shape[1])[y] / len(z)
            ),
            "one_hot_in_whole_columns": lambda z, y: _whole_columns(z, y),
        }.items()
    ),
    *(
        ("09_chain", {"network_backward": network_with(**{array: line})}, cause)
        for array, line, cause in (
            ("dW2", lambda dz2, z1, **_: dz2.T @ z1, "network_dW2_of_z1"),
            ("dz1", lambda dh, **_: dh, "relu_backward_without_mask"),
            ("dW1", lambda dh, x, **_: dh.T @ x, "network_dW1_of_dh"),
            # Which raises, but where all sizes are equal.
            ("dh", lambda dz2, W2, **_: dz2 @ W2.T, "linear_backward_grad_x_weight_transposed"),
            ("db2", lambda dz2, **_: dz2.mean(axis=0), "linear_backward_grad_bias_averaged"),
            (
                "dz2",
                lambda z2, target, **_: functional.cross_entropy_backward(z2, target) * len(z2),
                "cross_entropy_backward_not_averaged",
            ),
            ("db1", lambda **_: None, "to do"),
        )
    ),
    *(
        ("09_chain", {"network_backward": _respelt(**names)}, "another name")
        for names in ({"dh": "dH"}, {"dz2": "dz_2"}, {"db1": "dB1"})
    ),
    # The lines are judged as far as they are there.
    (
        "09_chain",
        {
            "network_backward": network_with(
                dW2=lambda dz2, h, **_: h.T @ dz2, dW1=lambda **_: None, db1=lambda **_: None
            )
        },
        "linear_backward_grad_weight_transposed",
    ),
    # N - 1 is C in the first instance.
    (
        "09_chain",
        {
            "network_backward": network_with(
                dz2=lambda z2, target, **_: (
                    functional.cross_entropy_backward(z2, target) * len(z2) / max(len(z2) - 1, 1)
                ),
                db1=lambda **_: None,
            )
        },
        "unknown",
    ),
    # On every instance: with N = H = C = 4 alone, of one sample alone, at exact zeros alone.
    *(
        (
            "09_chain",
            {"network_backward": network_with(**{array: line, "db1": lambda **_: None})},
            cause,
        )
        for array, line, cause in (
            (
                "dW2",
                lambda dz2, h, **_: (h.T @ dz2) if dz2.shape == h.shape else dz2.T @ h,
                "unknown",
            ),
            ("db2", lambda dz2, **_: dz2.sum(axis=0) if len(dz2) > 1 else dz2, "shape"),
            (
                "dz1",
                lambda dh, z1, **_: np.where(z1 >= 0, dh, 0),
                "relu_backward_passes_at_0",
            ),
        )
    ),
    ("10_predict", {"TWICE.loss": "double"}, "the mean forgotten"),
    ("10_predict", {"TWICE.dz2": "same"}, "the mean forgotten"),
    ("10_predict", {"TWICE.dW2": "half"}, "the sum forgotten"),
    ("10_predict", {"FLIP.z2": "other"}, "the label in the forward"),
    ("10_predict", {"FLIP.dz2[1]": "other"}, "the samples coupled"),
    ("10_predict", {"FLIP.dW2[2]": "other"}, "the classes coupled"),
    ("10_predict", {"DEAD.dh[:, 0]": "zero"}, "the mask too early"),
    ("10_predict", {"DEAD.dW2[:, 0]": "other"}, "the input forgotten"),
    ("10_predict", {"DEAD.dW1[0]": "other"}, "the mask forgotten"),
    ("10_predict", {"DEAD.db2": "same"}, "the units uncoupled"),
    ("10_predict", {"DEAD.db2": 7}, "no prediction"),
    ("10_predict", {"TWICE.loss": np.array([1, 2])}, "no prediction"),
    ("10_predict", {"TWICE.loss": ["same"]}, "no prediction"),
    ("10_predict", {"DEAD.db2": None}, "to do"),
    ("11_bug_hunt", {"REPORTS.1": "O"}, "not O"),
    ("11_bug_hunt", {"REPORTS.3": "A"}, "not A"),
    ("11_bug_hunt", {"REPORTS.6": "K"}, "not K"),
    ("11_bug_hunt", {"REPORTS.10": "H"}, "not H"),
    ("11_bug_hunt", {"REPORTS.12": "the first"}, "no suspect"),
    ("11_bug_hunt", {"REPORTS.12": None}, "to do"),
    ("11_bug_hunt", {"REPORTS.12": np.array(["A", "M"])}, "no suspect"),
    ("11_bug_hunt", {"REPORTS.12": ["M"]}, "no suspect"),
    (
        "12_kill_the_bug",
        {"test_linear_backward": _test_by(_near)},
        "survives: linear_backward_grad_bias_keepdims",
    ),
    (
        "12_kill_the_bug",
        {"test_linear_backward": _test_by(_loose)},
        "survives: linear_backward_grad_weight_half_precision",
    ),
    (
        "12_kill_the_bug",
        {"test_linear_backward": _test_by(_near_in_shape, shapes=((1, 7, 3),))},
        "survives: linear_backward_grad_bias_averaged",
    ),
    ("12_kill_the_bug", {"test_linear_backward": _test_by(_equal)}, "asks for equality"),
    ("12_kill_the_bug", {"test_linear_backward": _test_by(_sum_is_equal)}, "the right one fails"),
    (
        "12_kill_the_bug",
        {"test_linear_backward": _test_by(_near_in_shape, shapes=((0, 7, 3),))},
        "survives: linear_backward_grad_weight_last_sample_lost",
    ),
    (
        "12_kill_the_bug",
        {"test_linear_backward": _test_by(_or(pytest.skip))},
        "survives: linear_backward_grad_bias_averaged",
    ),
    (
        "12_kill_the_bug",
        {"test_linear_backward": lambda f: pytest.fail("always")},
        "the right one fails",
    ),
    ("12_kill_the_bug", {"test_linear_backward": lambda f: pytest.skip("always")}, "exception"),
    ("12_kill_the_bug", {"test_linear_backward": lambda f: sys.exit(1)}, "exception"),
    ("12_kill_the_bug", {"test_linear_backward": _said}, "returns"),
    ("12_kill_the_bug", {"test_linear_backward": lambda f: f(1)}, "exception"),
    ("13_adam_step", {"adam_step": _adam(correct=False)}, "adam_not_corrected"),
    ("13_adam_step", {"adam_step": _adam(inside=True)}, "adam_eps_inside_the_root"),
    ("13_adam_step", {"adam_step": _adam(t=-1)}, "adam_t_starts_at_0"),
    ("13_adam_step", {"adam_step": _adam(betas=(0.999, 0.9))}, "adam_betas_swapped"),
    ("13_adam_step", {"adam_step": _adam(stored=True)}, "adam_m_stored_corrected"),
    (
        "14_fresh_adam",
        {"fresh": lambda p, g: solution("14_fresh_adam").persistent(p, g)},
        "it remembers",
    ),
    ("14_fresh_adam", {"fresh": lambda p, g: p - 1e-3 * np.sign(g).sum(axis=0)}, "the plain sign"),
    ("14_fresh_adam", {"fresh": lambda p, g: p - 1e-3 * g.sum(axis=0)}, "gradient descent"),
    (
        "14_fresh_adam",
        {"persistent": lambda p, g: solution("14_fresh_adam").fresh(p, g)},
        "it forgets",
    ),
    ("14_fresh_adam", {"persistent": _descend}, "t does not count"),
    ("14_fresh_adam", {"persistent": _exchanging}, "m and v exchanged"),
    ("14_fresh_adam", {"persistent": lambda p, g: p}, "unchanged"),
    ("14_fresh_adam", {"fresh": lambda p, g: p.copy()}, "unchanged"),
    ("14_fresh_adam", {"persistent": _in_place_persistent}, "inputs changed"),
    ("14_fresh_adam", {"RATIO": 10_000}, "the size of the gradient"),
    *(
        ("14_fresh_adam", {"persistent": _persistent_from(t)}, cause)
        for t, cause in ((0, "t from 0"), (-1, "nan"), (2, "t from 2"))
    ),
    ("14_fresh_adam", {"RATIO": np.int64(10_000)}, "the size of the gradient"),
    ("14_fresh_adam", {"RATIO": True}, "no number"),
    ("14_fresh_adam", {"RATIO": np.True_}, "no number"),
    ("14_fresh_adam", {"RATIO": [1]}, "no number"),
    ("14_fresh_adam", {"NET": np.nan}, "no number"),
    ("14_fresh_adam", {"RATIO": "1"}, "no number"),
    ("14_fresh_adam", {"NET": 100}, "the mean of the gradients"),
    ("14_fresh_adam", {"NET": 3}, "prediction"),
    ("14_fresh_adam", {"NET": 0.1}, "the units"),
    ("14_fresh_adam", {"NET": 0.05}, "not whole"),
    ("14_fresh_adam", {"RATIO": 1.4}, "not whole"),
    ("15_rounding", {"true_sum": lambda x, w: float(x @ w)}, "in float32"),
    ("15_rounding", {"true_sum": lambda x, w: float(np.sum(x * w))}, "in float32, in pairs"),
    ("15_rounding", {"true_sum": lambda x, w: float(x[0]) * float(w[0])}, "the first term only"),
    ("15_rounding", {"true_sum": lambda x, w: (x * w).astype(float).sum()}, "products in float32"),
    ("15_rounding", {"bound": lambda x, w: len(x) * 2.0**-24 * abs(_sum(x, w))}, "of the result"),
    ("15_rounding", {"bound": lambda x, w: _bound(x, w) / len(x)}, "one rounding only"),
    ("15_rounding", {"bound": lambda x, w: _bound(x, w) * 2.0**-29}, "of float64"),
    ("15_rounding", {"bound": lambda x, w: _bound(x, w) * 100}, "too wide"),
    ("15_rounding", {"bound": lambda x, w: _bound(x, w) / 3}, "too narrow"),
    ("15_rounding", {"bound": lambda x, w: abs(x * w)}, "shape"),
    ("15_rounding", {"bound": lambda x, w: "D * U"}, "results"),
    ("15_rounding", {"bound": lambda x, w: np.inf}, "nan"),
    ("15_rounding", {"bound": lambda x, w: len(x) * 2.0**-24 * (abs(x) @ w)}, "too narrow"),
    ("15_rounding", {"true_sum": lambda x, w: (x * w)[::-1].sum()}, "precision"),
    *(
        ("15_rounding", {"is_right": judge}, cause)
        for cause, judge in (
            # nan is taken, but that is not what is too wide
            ("refuses rounding", lambda f, x, w: not abs(f - _sum(x, w)) > 0.1 * _bound(x, w)),
            ("too lenient", lambda f, x, w: not abs(f - _sum(x, w)) > 20 * _bound(x, w)),
            ("reversed", lambda f, x, w: bool(abs(f - _sum(x, w)) >= _bound(x, w))),
            ("reversed", lambda f, x, w: bool(abs(f - _sum(x, w)) > 1e-4)),
            ("reversed", lambda f, x, w: bool(f != _sum(x, w))),
            # a narrow width is no equality, nor is never
            (
                "refuses rounding",
                lambda f, x, w: bool(abs(f - _sum(x, w)) <= len(x) * 2.0**-24 * _sum(x, w)),
            ),
            ("refuses rounding", lambda f, x, w: False),
            ("one side only", lambda f, x, w: bool(_sum(x, w) - f <= _bound(x, w))),
            ("one side only", lambda f, x, w: bool(f >= _sum(x, w))),
            (
                "too lenient",
                lambda f, x, w: bool(abs(abs(f) - abs(_sum(x, w))) <= _bound(x, w)),
            ),
            ("too lenient", lambda f, x, w: True),
        )
    ),
    (
        "15_rounding",
        {"is_right": lambda found, x, w: bool(found == _sum(x, w))},
        "asks for equality",
    ),
    (
        "15_rounding",
        {"is_right": lambda found, x, w: bool(np.isclose(found, _sum(x, w), rtol=1e-5))},
        "refuses rounding",
    ),
    (
        "15_rounding",
        {"is_right": lambda found, x, w: not abs(found - _sum(x, w)) > _bound(x, w)},
        "takes nan",
    ),
    (
        "15_rounding",
        {"is_right": lambda found, x, w: bool(found - _sum(x, w) <= _bound(x, w))},
        "one side only",
    ),
    ("15_rounding", {"is_right": lambda found, x, w: found == found}, "too lenient"),
    (  # the same for a sum of 3 terms and one of 784, and for terms of 1 and of 2^24
        "15_rounding",
        {"is_right": lambda found, x, w: bool(abs(found - _sum(x, w)) <= 1e-4)},
        "both ways",
    ),
    (
        "15_rounding",
        {"is_right": lambda found, x, w: bool(abs(found - _sum(x, w)) > _bound(x, w))},
        "reversed",
    ),
    *(
        ("16_numpy_to_cupy", {"loss_and_gradient": _cupy(change)}, cause)
        for change, cause in {
            "np.arange": "a NumPy array",
            "np.asarray": "an implicit conversion",
            "index": "a NumPy index",
            "zeros": "another dtype",
            "float": "it looks",
            "item": "it looks",
            "mask": "it looks",
            "if": "it looks",
            "loop": "it loops",
            "get": "it looks",
            "not averaged": "cross_entropy_backward_not_averaged",
            "float32": "another dtype",
            "three": "results",
            "the loss only": "results",
            "a number": "not on the GPU",
        }.items()
    ),
]


def _up(weight: Any, index: Any, h: float) -> Any:
    weight = weight.copy()
    weight[index] += h
    return weight


def _slope(loss: Any, weight: Any, index: Any, h: float) -> Any:
    return (loss(_up(weight, index, h)) - loss(_up(weight, index, -h))) / (2 * h)


def _shifted(x: Any, shift: Any) -> Any:
    """A softmax from which something else than the maximum is subtracted."""
    e = np.exp(x - shift)
    return e / e.sum(axis=1, keepdims=True)


def _p_minus_y(p: Any, target: Any) -> Any:
    return p - np.eye(p.shape[1])[target]


def _whole_columns(logits: Any, target: Any) -> Any:
    p = functional.softmax_forward(logits)
    p[:, target] -= 1
    return p / len(p)


@pytest.mark.parametrize(
    ("name", "changes", "cause"),
    WRONG,
    ids=[f"{name}: {', '.join(changes)}: {cause}" for name, changes, cause in WRONG],
)
def test_a_wrong_answer_is_told_its_cause(name: str, changes: dict[str, Any], cause: str) -> None:
    for seed in range(5):
        found = verdict(name, changed(name, changes), seed)
        assert not found.ok
        assert cause in (found.name, *found.names), f"seed {seed}: {found.name}: {found}"


@each_exercise
def test_there_are_four_wrong_answers_to_each_exercise(exercise: Exercise) -> None:
    causes = {cause for name, _, cause in WRONG if name == exercise.name} - {"to do"}
    assert len(causes) >= 4


def test_a_line_of_an_error_is_that_of_the_learners_file(tmp_path: Path) -> None:
    file = tmp_path / "16_numpy_to_cupy.py"
    file.write_bytes(COURSE["16_numpy_to_cupy"].template)
    found = verdict("16_numpy_to_cupy", load(file))
    line = file.read_text().splitlines()[found.where["line"] - 1]
    assert "y[n, target[n]] = 1" in line


# ------------------------------------------------------------------- what a verdict must not betray


def test_what_is_changed_is_named() -> None:
    def mine(x: Any, target: Any, W1: Any, b1: Any, W2: Any, b2: Any) -> dict[str, Any]:
        W2 -= 0.1
        return network_with()(x, target, W1, b1, W2, b2)

    found = verdict("09_chain", changed("09_chain", {"network_backward": mine}))
    assert found.message.startswith("network_backward changes W2: ")


def test_a_wrong_shape_is_refused_without_the_right_one() -> None:
    check = CHECKS["02_shapes"]
    for (name, expected), size in itertools.product(check.SHAPES.items(), (1, 2)):
        for axes in itertools.product("NDHC", repeat=size):
            if "".join(axes) == expected:
                continue
            found = verdict("02_shapes", changed("02_shapes", {name: axes}))
            assert not found.ok
            assert found.message.startswith(f"{name} is not")
            assert len(expected) < 2 or check.written(expected) not in found.message


def test_a_wrong_prediction_is_refused_without_the_right_one() -> None:
    check = CHECKS["10_predict"]
    truth = check.outcomes(0)
    for (experiment, array), word in itertools.product(check.WHY, check.WORDS):
        right = truth[experiment, array]
        found = verdict("10_predict", changed("10_predict", {f"{experiment}.{array}": word}))
        assert found.ok == (word == right)
        if not found.ok:
            assert found.subject == f'{experiment}["{array}"]'
            assert right.upper() not in found.message


def test_predictions_do_not_depend_on_the_random_values() -> None:
    outcomes = [CHECKS["10_predict"].outcomes(seed) for seed in range(50)]
    assert all(each == outcomes[0] for each in outcomes)


# ----------------------------------------------------------------------------------- the bug hunt


@pytest.mark.parametrize("number", range(1, 13))
def test_a_report_fits_one_suspect_only(number: int) -> None:
    hunt = CHECKS["11_bug_hunt"]
    culprit, claims = hunt.REPORTS[number]
    for letter, seed in itertools.product(hunt.SUSPECTS, range(3)):
        lab = hunt.Lab(letter, seed)
        assert all(claim.holds(lab) for claim in claims) == (letter == culprit), (letter, seed)


def test_the_text_of_the_hunt_is_what_is_run() -> None:
    hunt, text = CHECKS["11_bug_hunt"], " ".join(docstring(COURSE["11_bug_hunt"]).split())
    for letter, (_, line) in hunt.SUSPECTS.items():
        assert f"{letter} {line}" in text
    for number, (_, claims) in hunt.REPORTS.items():
        start = text.index(f" {number} ", text.index("The reports:"))
        report = text[start : text.index(f" {number + 1} " if number < 12 else "By hand", start)]
        assert all(claim.text.lower() in report.lower() for claim in claims)


def test_a_wrong_guess_is_told_what_the_line_would_not_do() -> None:
    found = verdict("11_bug_hunt", changed("11_bug_hunt", {"REPORTS.1": "F"}))
    assert "all gradients are 5 times too large" in found.message
    assert "dz2.mean(axis=0)" in found.message
    assert "p - y" not in found.message


@pytest.mark.parametrize("number", [n for n in range(1, 13) if n != 7])
def test_of_a_suspect_that_stops_it_is_said_that_it_stops(number: int) -> None:
    found = verdict("11_bug_hunt", changed("11_bug_hunt", {f"REPORTS.{number}": "G"}))
    assert found.name == "not G"
    assert "it stops with a ValueError" in found.message
    assert "it is not so" not in found.message


# ----------------------------------------------------------------------------------- the words


def docstring(exercise: Exercise) -> str:
    text = ast.get_docstring(ast.parse(exercise.template))
    assert text is not None
    return text


@each_exercise
def test_there_are_hints_a_derivation_and_an_explanation(exercise: Exercise) -> None:
    for section in (*course.HINTS, course.WHY, course.EXPLAIN):
        assert len(exercise.words(section)) > 60
    assert exercise.words(course.HINTS[0]).rstrip().endswith(("?", "?)"))
    assert "What goes wrong:" in exercise.words(course.EXPLAIN)
    assert "In scratchnet:" in exercise.words(course.EXPLAIN)


@each_exercise
def test_the_last_hint_is_not_the_answer(exercise: Exercise) -> None:
    hint = "".join("".join(exercise.words(section) for section in course.HINTS).split())
    for style in STYLES:
        source = (SOLUTIONS / exercise.name / f"{style}.py").read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Return) and node.value is not None:
                line = "".join(ast.unparse(node.value).split())
                assert len(line) < 12 or line not in hint


@each_exercise
def test_the_words_fit_a_terminal(exercise: Exercise) -> None:
    words = (exercise.folder / "words.md").read_text(encoding="utf-8")
    assert max(len(line) for line in (words + docstring(exercise)).splitlines()) <= 100


@each_exercise
def test_the_files_that_are_named_are_there(exercise: Exercise) -> None:
    root = Path(course.__file__).parents[2]
    words = exercise.words(course.EXPLAIN)
    named = re.findall(r"\b(?:scratchnet|tests|reference)/[\w/]+\.py", words)
    assert named
    for name in named:
        assert (root / name).exists()


@each_exercise
def test_the_text_names_its_command(exercise: Exercise) -> None:
    assert docstring(exercise).rstrip().endswith(f"scratchnet study {exercise.number}")
    assert docstring(exercise).startswith(f"Exercise {exercise.number}: ")


# ------------------------------------------------------------------------------- the worked entry


def claims(text: str) -> list[list[str]]:
    """The lines of the worked entry, each in the parts that are said to be equal."""
    _, _, after = text.partition("By hand")
    block = list(
        itertools.takewhile(
            lambda line: not line or line.startswith("    "),
            itertools.dropwhile(lambda line: not line.startswith("    "), after.splitlines()),
        )
    )
    lines = [line.partition("  #")[0].strip() for line in block]
    return [line.split(" = ") for line in lines if line]


def tolerance(part: str) -> float:
    """Half of the last digit that is written, but no more than 1e-4."""
    decimals = [len(digits) for digits in re.findall(r"\d\.(\d+)", part)]
    return min(0.51 * 10.0 ** -max(decimals), 1e-4) if decimals else 1e-9


@each_exercise
def test_the_worked_entry_is_true(exercise: Exercise) -> None:
    """Each line is computed, with the functions of a solution; a new name is given its value."""
    own = {name: f for name, f in vars(solution(exercise.name, "1")).items() if callable(f)}
    known = {name: getattr(np, name) for name in ("array", "arange", "exp", "log", "sqrt", "zeros")}
    names: dict[str, Any] = {**known, **own}
    found = claims(docstring(exercise))
    assert found
    for first, *others in found:
        parts = others if first.isidentifier() and first not in names else [first, *others]
        value, *values = [eval(part, names) for part in parts]
        for part, other in zip(parts[1:], values, strict=True):
            a, b = _array(value), _array(other)
            assert a.shape == b.shape
            np.testing.assert_allclose(a, b, rtol=0, atol=tolerance(part), err_msg=part)
        if parts is others:
            names[first] = _array(value) if isinstance(value, list) else value


def _array(value: Any) -> Any:
    return np.asarray(value, np.float64)


def test_the_run_of_exercise_10_shows_what_is_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "10_predict.py"
    file.write_bytes(COURSE["10_predict"].template)
    done = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, check=True)
    assert all(title in done.stdout for title in ("TWICE", "FLIP", "DEAD"))


# ------------------------------------------------------------------------------- exercise 12 and 16


@pytest.mark.parametrize("fail", [pytest.fail, sys.exit])
def test_a_test_may_fail_without_an_assert(fail: Callable[[str], Any]) -> None:
    mine = {"test_linear_backward": _test_by(_or(fail))}
    assert verdict("12_kill_the_bug", changed("12_kill_the_bug", mine)).ok


def test_the_line_of_a_pytest_fail_is_the_learners(tmp_path: Path) -> None:
    file = tmp_path / "12_kill_the_bug.py"
    file.write_text("import pytest\n\ndef test_linear_backward(f):\n    pytest.fail('no')\n")
    assert "in line 4 " in verdict("12_kill_the_bug", load(file)).message


@pytest.mark.parametrize(
    ("test", "hint"),
    [
        (lambda f: None, "does the test call linear_backward?"),
        (_test_by(lambda a, b: np.allclose(a, b)), "is off by"),  # no assert
        (_test_by(_loose), "is off by"),
        (_test_by(_near), "has the shape (1, 3) instead of (3,)"),
        (_test_by(_near_in_shape, shapes=((1, 7, 3),)), "what has to go in"),
        (_test_by(_near_in_shape, shapes=((0, 7, 3),)), "what has to go in"),
    ],
)
def test_the_hint_on_a_survivor_is_true_of_the_test(test: Callable[..., Any], hint: str) -> None:
    found = verdict("12_kill_the_bug", changed("12_kill_the_bug", {"test_linear_backward": test}))
    assert hint in found.hint


def test_a_bug_that_is_shown_is_the_one_that_is_planted() -> None:
    check, rng = CHECKS["12_kill_the_bug"], np.random.default_rng(0)
    given = [rng.normal(size=shape) for shape in ((4, 4), (4, 4), (4, 4))]
    known = dict(zip(("grad_output", "x", "weight"), given, strict=True)) | {"np": np}
    for name in check.BUGS:
        result, formula = check.planted(name)
        found = check.with_bug(name)(*given)[check.RESULTS.index(result)]
        assert (eval(mistakes.text(formula), known) == found).all()


def test_the_bugs_of_exercise_12_are_in_the_library() -> None:
    assert set(CHECKS["12_kill_the_bug"].BUGS) <= mistakes.BY_NAME.keys()


def test_the_stand_in_for_cupy_refuses_what_cupy_refuses() -> None:
    xp = PretendCupy()
    a = xp.arange(3)
    for refused in (
        lambda: a + np.arange(3),
        lambda: np.arange(3) + a,
        lambda: np.arange(3)[a],
        lambda: a[np.arange(2)],
        lambda: np.asarray(a),
        lambda: np.add.at(a, 0, 1),
        lambda: xp.where(a > 0, np.arange(3), a),
    ):
        with pytest.raises(Refused):
            refused()
    assert not xp.looks


def test_the_stand_in_passes_on_what_cupy_passes_on() -> None:
    xp = PretendCupy()
    a = xp.asarray(np.array([1.0, 2.0], np.float32))
    for result in (np.exp(a), np.sum(a), a + np.float32(1), 2 * a, a.sum(), a[None] @ a, -a):
        assert isinstance(result, GpuArray)
        assert result.dtype == np.float32
    a += 1
    a[0] = 5
    assert a.get().tolist() == [5, 3]


def test_the_stand_in_notes_who_looks() -> None:
    xp = PretendCupy()
    a = xp.ones(())
    float(a), int(a), bool(a), a.item(), a.tolist(), a.get(), repr(a), xp.ones(3)[xp.ones(3) > 0]
    assert len(xp.looks) == 8
    assert all(line for _, line in xp.looks)


def test_the_stand_in_counts_launches() -> None:
    xp = PretendCupy()
    a = xp.ones((2, 3))
    assert xp.launches == 1
    a.T.reshape(6)[None][0]  # views
    assert xp.launches == 1
    a.sum() + xp.exp(a)
    assert xp.launches == 4


def test_of_what_is_raised_on_numpy_it_is_said_that_xp_was_numpy() -> None:
    mine = {"loss_and_gradient": lambda xp, logits, target: logits.get()}
    found = verdict("16_numpy_to_cupy", changed("16_numpy_to_cupy", mine))
    assert "with xp = numpy, raises AttributeError" in found.message


def test_what_is_no_pair_is_told_and_not_said_to_raise() -> None:
    mine = {"loss_and_gradient": _cupy("three")}
    found = verdict("16_numpy_to_cupy", changed("16_numpy_to_cupy", mine))
    assert "returns a tuple of 3" in found.message


# --------------------------------------------------------------------------------------- no torch


def test_no_check_imports_torch() -> None:
    code = f"""
    import importlib.util, sys
    from pathlib import Path
    sys.modules["torch"] = None  # an import of it raises
    from scratchnet.study import course
    def load(path):
        spec = importlib.util.spec_from_file_location("file", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    for exercise in course.load():
        learner = load(Path({str(SOLUTIONS)!r}) / exercise.name / "1.py")
        assert all(verdict.ok for verdict in load(exercise.check).check(learner)), exercise.name
    assert "cupy" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)
