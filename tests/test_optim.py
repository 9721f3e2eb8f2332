"""Optimizers and the schedule: PyTorch's, step by step, in float64 and in float32."""

from __future__ import annotations

import copy
import math
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reference.bounds import Dtype, unit_roundoff
from scratchnet import nn, optim
from scratchnet.backend import Array, to_numpy
from tests.strategies import dtypes, seeds

Shapes = list[tuple[int, ...]]

fractions = st.sampled_from([0.0, 0.5, 0.9, 0.99])
shapes = st.lists(
    st.sampled_from([(1,), (7,), (3, 2), (2, 2)]), min_size=1, max_size=3
)  # of one to three parameters

ADAM = {
    "lr": st.sampled_from([0.0, 1e-3, 1e-2, 1.0]),
    "betas": st.tuples(fractions, st.sampled_from([0.0, 0.9, 0.99, 0.999])),
    "eps": st.sampled_from([1e-10, 1e-8, 1e-3]),
    "weight_decay": st.sampled_from([0.0, 1e-2, 0.5]),
    "amsgrad": st.booleans(),
    "maximize": st.booleans(),
}
SGD = {
    "lr": ADAM["lr"],
    "momentum": fractions,
    "dampening": fractions,
    "weight_decay": ADAM["weight_decay"],
    "maximize": st.booleans(),
}
KINDS = {
    "Adam": st.fixed_dictionaries({}, optional=ADAM),
    "AdamW": st.fixed_dictionaries({}, optional=ADAM),
    "SGD": st.fixed_dictionaries({}, optional=SGD),
    "SGD with nesterov": st.fixed_dictionaries(
        {"momentum": st.sampled_from([0.5, 0.9]), "nesterov": st.just(True)},
        optional={name: SGD[name] for name in ("lr", "weight_decay", "maximize")},
    ),
}
configurations = st.sampled_from(sorted(KINDS)).flatmap(
    lambda kind: st.tuples(st.just(kind.split()[0]), KINDS[kind])
)


def gradients(rng: np.random.Generator, shape: tuple[int, ...], dtype: type) -> Array:
    """Scales 10^U(-11, 2), entry by entry, so that some are near eps; 20 % zeros."""
    values = rng.normal(size=shape) * 10 ** rng.uniform(-11, 2, shape)
    return np.where(rng.random(shape) < 0.2, 0, values).astype(dtype)


class Pair:
    """The same parameters under our optimizer and under PyTorch's, and how far they may part.

    |difference| <= T u (8 |p| + 64 T κ s): each of T steps rounds p at most a few times, and an
    update, of a size up to s, a few dozen times. p and s are the largest of the run. κ is the
    condition of Adam's g + weight_decay · p, whose cancelled digits the division by √v brings up.
    """

    def __init__(
        self, xp: ModuleType, kind: str, options: dict[str, Any], values: list[Array], flat: bool
    ) -> None:
        self.xp = xp
        self.ours = [nn.Parameter(xp.asarray(value)) for value in values]
        if flat:
            nn.flatten(self.ours)
        self.theirs = [torch.from_numpy(value.copy()).requires_grad_() for value in values]
        self.optimizer = getattr(optim, kind)(self.ours, **options)
        self.optimizer_torch = getattr(torch.optim, kind)(self.theirs, foreach=False, **options)
        self.dtype: Dtype = np.float32 if values[0].dtype == np.float32 else np.float64
        self.weight_decay = options.get("weight_decay", 0.0) if kind == "Adam" else 0.0
        self.sign = -1 if options.get("maximize") else 1
        self.steps, self.largest, self.moved, self.condition = 0, 0.0, 0.0, 1.0

    def step(self, grads: list[Array | None]) -> None:
        before = [theirs.copy() for _, theirs in self.values()]
        for ours, theirs, grad in zip(self.ours, self.theirs, grads, strict=True):
            ours.grad = None if grad is None else self.xp.asarray(grad)
            theirs.grad = None if grad is None else torch.from_numpy(grad.copy())
        self.optimizer.step()
        self.optimizer_torch.step()
        self.steps += 1
        for p, grad, (_, after) in zip(before, grads, self.values(), strict=True):
            self.largest = max(self.largest, abs(after).max(), abs(p).max())
            self.moved = max(self.moved, abs(after - p).max())
            if grad is not None:
                decay = self.weight_decay * p
                total, parts = abs(self.sign * grad + decay), abs(grad) + abs(decay)
                ratio = parts[total > 0] / total[total > 0]
                self.condition = max(self.condition, ratio.max(initial=1.0))

    def assert_together(self) -> None:
        u, t = unit_roundoff(self.dtype), self.steps
        bound = t * u * (8 * self.largest + 64 * t * self.condition * self.moved)
        for ours, theirs in self.values():
            assert abs(ours - theirs).max() <= bound

    def values(self) -> list[tuple[Array, Array]]:
        """Ours and theirs, parameter by parameter."""
        return [
            (to_numpy(ours.data), theirs.detach().numpy())
            for ours, theirs in zip(self.ours, self.theirs, strict=True)
        ]


@given(
    configuration=configurations,
    dtype=dtypes,
    seed=seeds,
    shapes=shapes,
    steps=st.sampled_from([1, 2, 3, 12]),
    flat=st.booleans(),
    missing=st.booleans(),
)
def test_every_optimizer_is_pytorchs(
    xp: ModuleType,
    configuration: tuple[str, dict[str, Any]],
    dtype: Dtype,
    seed: int,
    shapes: Shapes,
    steps: int,
    flat: bool,
    missing: bool,
) -> None:
    kind, options = configuration
    rng = np.random.default_rng(seed)
    values: list[Array] = [rng.normal(size=shape).astype(dtype) for shape in shapes]
    pair = Pair(xp, kind, options, values, flat)
    for _ in range(steps):
        grads: list[Array | None] = [gradients(rng, shape, dtype) for shape in shapes]
        pair.step([None if missing and rng.random() < 0.5 else grad for grad in grads])
    pair.assert_together()


@given(seed=seeds, shapes=shapes, steps=st.sampled_from([1, 2, 3, 12]))
def test_adam_is_pytorchs_in_float64_entry_by_entry(
    xp: ModuleType, seed: int, shapes: Shapes, steps: int
) -> None:
    """|difference| <= T (8u |p| + 64 u lr T): a step is at most lr · (a few), rounded a few dozen
    times, whatever the gradient's scale, since it is m / √v."""
    rng, lr, u = np.random.default_rng(seed), 1e-3, unit_roundoff(np.float64)
    pair = Pair(xp, "Adam", {"lr": lr}, [rng.normal(size=shape) for shape in shapes], True)
    for _ in range(steps):
        pair.step([gradients(rng, shape, np.float64) for shape in shapes])
    for ours, theirs in pair.values():
        assert (abs(ours - theirs) <= steps * (8 * u * abs(theirs) + 64 * u * lr * steps)).all()


@given(seed=seeds, shapes=shapes, steps=st.sampled_from([1, 2, 3, 12]))
def test_adam_is_pytorchs_in_float32_entry_by_entry(
    xp: ModuleType, seed: int, shapes: Shapes, steps: int
) -> None:
    """|difference| <= 2 u T (|p| + lr T) in both precisions' own u, as measured and derived for
    float32: the two differ by the rounding of p in each step, and by that of the update."""
    rng, lr, u = np.random.default_rng(seed), 1e-3, unit_roundoff(np.float32)
    values: list[Array] = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    pair = Pair(xp, "Adam", {"lr": lr}, values, True)
    for _ in range(steps):
        pair.step([gradients(rng, shape, np.float32) for shape in shapes])
    for ours, theirs in pair.values():
        assert ours.dtype == np.float32
        assert (abs(ours - theirs) <= 2 * u * steps * (abs(theirs) + lr * steps)).all()


@pytest.mark.parametrize(
    ("gradient", "share"), [(1e-8, 0.5), (1e-6, 0.990099), (1.0, 1.0), (1e20, 1.0), (3e38, 0.0)]
)
@pytest.mark.parametrize("sign", [1, -1])
def test_adams_first_step_is_lr_but_for_eps_and_overflow(
    xp: ModuleType, gradient: float, share: float, sign: int
) -> None:
    """lr g / (|g| + eps): half of lr at g = eps. At 3e38 g² overflows, and nothing moves."""
    with np.errstate(over="ignore"):
        pair = Pair(xp, "Adam", {"lr": 1.0}, [np.zeros(1, np.float32)], True)
        pair.step([np.array([sign * gradient], np.float32)])
    ((ours, theirs),) = pair.values()
    assert ours == pytest.approx(-sign * share, rel=1e-6)
    assert ours == pytest.approx(theirs, rel=4 * unit_roundoff(np.float32))


def test_a_parameter_without_gradient_is_passed_over_and_keeps_no_state(xp: ModuleType) -> None:
    pair = Pair(xp, "Adam", {}, [np.ones(2), np.ones(3), np.ones(2)], True)
    g = np.array([1.0, 2.0])
    pair.step([g, None, g])
    pair.step([g, None, None])
    assert sorted(pair.optimizer.state_dict()["state"]) == [0, 2]
    assert pair.optimizer.steps == [2, 0, 1]
    pair.step([g, np.arange(3.0), g])
    for ours, theirs in pair.values():
        np.testing.assert_allclose(ours, theirs, rtol=1e-15)


@given(configuration=configurations, seed=seeds)
def test_one_flat_buffer_is_the_same_as_separate_ones(
    xp: ModuleType, configuration: tuple[str, dict[str, Any]], seed: int
) -> None:
    """Every operation is elementwise, so where an element lies can't matter: equal bit for bit."""
    kind, options = configuration
    results = []
    for flat in (False, True):
        rng = np.random.default_rng(seed)
        parameters = [nn.Parameter(xp.asarray(rng.normal(size=shape))) for shape in [(3, 2), (5,)]]
        if flat:
            nn.flatten(parameters)
        optimizer = getattr(optim, kind)(parameters, **options)
        for _ in range(3):
            for parameter in parameters:
                parameter.grad = xp.asarray(gradients(rng, parameter.shape, np.float64))
            optimizer.step()
        results.append([to_numpy(parameter.data) for parameter in parameters])
    for separate, together in zip(*results, strict=True):
        np.testing.assert_array_equal(separate, together)


@given(configuration=configurations, seed=seeds, direction=st.sampled_from(["ours", "theirs"]))
def test_a_state_goes_on_in_the_other_library(
    xp: ModuleType, configuration: tuple[str, dict[str, Any]], seed: int, direction: str
) -> None:
    """Three steps on one side, the state carried over, three more on both: they stay together."""
    kind, options = configuration
    rng = np.random.default_rng(seed)
    pair = Pair(xp, kind, options, [rng.normal(size=(3, 2)), rng.normal(size=4)], True)
    grads: list[list[Array | None]] = [
        [gradients(rng, (3, 2), np.float64), gradients(rng, (4,), np.float64)] for _ in range(6)
    ]
    for step in range(3):
        pair.step(grads[step])
    # Into an optimizer with other options and another past, which must all be replaced.
    if direction == "theirs":
        for parameter, (_, theirs) in zip(pair.ours, pair.values(), strict=True):
            parameter.data = pair.xp.asarray(theirs)
        pair.optimizer = getattr(optim, kind)(pair.ours, lr=0.5, **_needed(options))
        pair.optimizer.load_state_dict(pair.optimizer_torch.state_dict())
    else:
        for tensor, (ours, _) in zip(pair.theirs, pair.values(), strict=True):
            tensor.data = torch.from_numpy(ours.copy())
        pair.optimizer_torch = getattr(torch.optim, kind)(pair.theirs, lr=0.5, **_needed(options))
        pair.optimizer_torch.load_state_dict(_as_torch(pair.optimizer.state_dict()))
    for step in range(3, 6):
        pair.step(grads[step])
    pair.assert_together()


def _needed(options: dict[str, Any]) -> dict[str, Any]:
    """The options that decide which state vectors there are."""
    return {name: options[name] for name in ("amsgrad", "momentum") if name in options}


def _as_torch(state_dict: dict[str, Any]) -> dict[str, Any]:
    state = copy.deepcopy(state_dict)
    for entry in state["state"].values():
        for name, value in entry.items():
            entry[name] = torch.tensor(float(value) if name == "step" else to_numpy(value))
    return state


def test_a_loaded_state_is_a_copy_and_a_failed_load_changes_nothing(xp: ModuleType) -> None:
    def stepped() -> tuple[nn.Parameter, optim.Adam]:
        parameter = nn.Parameter(xp.asarray(np.ones(3)))
        optimizer = optim.Adam([parameter])
        parameter.grad = xp.asarray(np.arange(3.0))
        optimizer.step()
        return parameter, optimizer

    (_, first), (_, second) = stepped(), stepped()
    state = first.state_dict()
    second.step()
    assert first.state_dict()["state"][0]["step"] == 1
    second.load_state_dict(state)
    second.step()
    np.testing.assert_array_equal(
        to_numpy(first.state_dict()["state"][0]["exp_avg"]), to_numpy(state["state"][0]["exp_avg"])
    )
    for damage in (
        lambda s: s["state"][0].pop("exp_avg_sq"),
        lambda s: s["state"][0].update(exp_avg=np.zeros(4)),
        lambda s: s["param_groups"][0].pop("eps"),
        lambda s: s["param_groups"].append(s["param_groups"][0]),
        lambda s: s["param_groups"][0].update(params=[0, 1]),
        lambda s: s["param_groups"][0].update(amsgrad=True),
        lambda s: s["state"].update({1: s["state"][0]}),
    ):
        damaged = {
            "state": {0: dict(state["state"][0])},
            "param_groups": [dict(state["param_groups"][0], lr=7.0)],
        }
        damage(damaged)  # type: ignore[no-untyped-call]
        with pytest.raises((KeyError, ValueError)):
            first.load_state_dict(damaged)
        assert first.lr == 1e-3


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("Adam", {"lr": -1e-3}),
        ("Adam", {"lr": math.nan}),
        ("Adam", {"betas": (1.0, 0.9)}),
        ("Adam", {"betas": (0.9, 1.0)}),
        ("Adam", {"betas": (0.9, -0.1)}),
        ("Adam", {"eps": -1e-8}),
        ("AdamW", {"weight_decay": -1.0}),
        ("SGD", {"momentum": -0.1}),
        ("SGD", {"nesterov": True}),
        ("SGD", {"nesterov": True, "momentum": 0.9, "dampening": 0.1}),
    ],
)
def test_options_out_of_range_are_refused(kind: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        getattr(optim, kind)([nn.Parameter(np.ones(1))], **options)


def test_parameters_that_make_no_optimizer_are_refused() -> None:
    one = nn.Parameter(np.ones(1))
    with pytest.raises(ValueError, match="no parameters"):
        optim.Adam([])
    with pytest.raises(ValueError, match="twice"):
        optim.Adam([one, one])
    with pytest.raises(ValueError, match="one dtype"):
        optim.Adam([one, nn.Parameter(np.ones(1, np.float32))])
    with pytest.raises(TypeError, match="got a tuple"):
        optim.SGD(nn.Linear(1, 1).named_parameters())  # type: ignore[arg-type]


def test_a_numpy_learning_rate_leaves_float32_alone(xp: ModuleType) -> None:
    """numpy.float64 is not a weak scalar: unconverted, the update would be made in float64."""
    results = []
    for lr in (0.3, np.float64(0.3)):
        parameter = nn.Parameter(xp.asarray(np.ones(5, np.float32)))
        parameter.grad = xp.asarray(np.arange(5, dtype=np.float32))
        optimizer = optim.AdamW([parameter])
        optimizer.lr = lr
        optimizer.step()
        results.append(to_numpy(parameter.data))
    np.testing.assert_array_equal(results[0], results[1])


@given(
    total=st.integers(2, 200),
    options=st.fixed_dictionaries(
        {},
        optional={
            "pct_start": st.sampled_from([0.1, 0.25, 0.3, 0.5, 0.9]),
            "anneal_strategy": st.sampled_from(["cos", "linear"]),
            "cycle_momentum": st.booleans(),
            "base_momentum": st.sampled_from([0.5, 0.85]),
            "max_momentum": st.sampled_from([0.9, 0.95]),
            "div_factor": st.sampled_from([2.0, 25.0]),
            "final_div_factor": st.sampled_from([10.0, 1e4]),
            "three_phase": st.booleans(),
        },
    ),
    kind=st.sampled_from(["Adam", "SGD"]),
)
@pytest.mark.filterwarnings("ignore:Detected call of")
def test_one_cycle_is_pytorchs_at_every_step(
    total: int, options: dict[str, Any], kind: str
) -> None:
    """The same formula in the same order, in Python's floats on both sides: equal bit for bit."""
    optimizer = getattr(optim, kind)([nn.Parameter(np.ones(1))])
    optimizer_torch = getattr(torch.optim, kind)([torch.ones(1, requires_grad=True)])
    share = options.get("pct_start", 0.3)
    end = share * total - 1
    if end == 0 or (options.get("three_phase") and 2 * end >= total - 1):
        return  # PyTorch divides by 0, or runs a phase backwards
    ours = optim.OneCycleLR(optimizer, 0.1, total, **options)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer_torch, 0.1, total, **options)
    group = optimizer_torch.param_groups[0]
    for _ in range(total):
        assert ours.get_last_lr() == theirs.get_last_lr() == [optimizer.lr]
        if kind == "Adam":
            assert tuple(optimizer.betas) == tuple(group["betas"])
        else:
            assert optimizer.momentum == group["momentum"]
        ours.step()
        theirs.step()
    assert ours.get_last_lr() == [ours.at(total - 1)[0]], "kept, where PyTorch's runs on"
    with pytest.raises(ValueError, match="at most total_steps"):
        ours.step()
    with pytest.raises(ValueError, match="total"):
        theirs.step()


def test_one_cycle_climbs_to_its_peak_and_falls_to_nothing() -> None:
    schedule = optim.OneCycleLR(optim.SGD([nn.Parameter(np.ones(1))]), 0.1, 101)
    lrs = np.array([schedule.at(step)[0] for step in range(101)])
    assert lrs[0] == pytest.approx(0.1 / 25)
    assert lrs.max() == pytest.approx(0.1, rel=1e-3)
    assert lrs.argmax() in (29, 30)
    assert lrs[-1] == pytest.approx(0.1 / 25 / 1e4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "neither"),
        ({"epochs": 2}, "neither"),
        ({"total_steps": 0}, "total_steps is 0"),
        ({"total_steps": 5, "pct_start": 1.5}, "pct_start is 1.5"),
        ({"total_steps": 5, "anneal_strategy": "exp"}, "'exp'"),
    ],
)
def test_one_cycle_options_out_of_range_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        optim.OneCycleLR(optim.Adam([nn.Parameter(np.ones(1))]), 0.1, **options)


def test_one_cycle_goes_on_from_its_state_dict() -> None:
    def schedule() -> optim.OneCycleLR:
        optimizer = optim.Adam([nn.Parameter(np.ones(1))])
        return optim.OneCycleLR(optimizer, 0.1, epochs=2, steps_per_epoch=5)

    first, second = schedule(), schedule()
    for _ in range(4):
        first.step()
    second.load_state_dict(first.state_dict())
    first.step()
    second.step()
    assert first.get_last_lr() == second.get_last_lr()
    with pytest.raises(KeyError, match="expected"):
        second.load_state_dict({"last_epoch": 1})
