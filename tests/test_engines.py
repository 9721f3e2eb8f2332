"""Every engine equals `layers`, however the run is cut into stretches."""

from __future__ import annotations

import itertools
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reference import compare, step
from reference.bounds import Dtype, gamma
from scratchnet import engines, optim
from scratchnet.backend import Array
from scratchnet.errors import InputError
from scratchnet.training import RECIPES, Diverged, Options, Run
from tests.strategies import dtypes, seeds
from tests.test_training import some_images

OTHERS = [name for name in engines.NAMES if name != "layers"]

options = st.builds(
    Options,
    recipe=st.sampled_from([*RECIPES]),
    epochs=st.just(3),
    batch_size=st.integers(1, 9),
    hidden=st.integers(1, 30),
    seed=st.integers(0, 1000),
    lr=st.sampled_from([None, 1e-3, 3e-2]),
)


def state(run: Run) -> list[Array]:
    """Parameters and moments, flat."""
    return [run.model.parameters()[0].buffer.data, *run.optimizer.vectors.values()]


def copy(run: Run) -> list[Array]:
    return [array.copy() for array in state(run)]


@pytest.mark.parametrize("engine", OTHERS)
@settings(max_examples=40)
@given(options=options, seed=seeds, count=st.integers(5, 25), data=st.data())
def test_an_engine_is_layers_in_float64(
    engine: str, options: Options, seed: int, count: int, data: st.DataObject
) -> None:
    """Losses to 1e-11 and parameters to 1e-9 over up to 12 steps, ragged batches among them: the
    bounds under which `layers` is held to PyTorch. Halfway the engines take turns."""
    ours, layers = (Run(options, some_images(seed, count), "cpu", np.float64) for _ in range(2))
    last = min(12, layers.total_steps)
    turn = data.draw(st.integers(0, last))
    swapped = data.draw(st.sampled_from([engine, "layers"]))
    losses = engines.make(engine, ours).advance(0, turn)
    losses += engines.make(swapped, ours).advance(turn, last)
    expected = engines.make("layers", layers).advance(0, last)
    np.testing.assert_allclose(losses, expected, rtol=0, atol=1e-11)
    for mine, theirs in zip(state(ours), state(layers), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-9)
    assert ours.optimizer.steps == layers.optimizer.steps
    assert ours.optimizer.lr == layers.optimizer.lr


@pytest.mark.parametrize("engine", OTHERS)
@given(options=options, seed=seeds, dtype=dtypes, before=st.integers(0, 4))
def test_a_step_of_an_engine_is_within_the_composed_bound(
    engine: str, options: Options, seed: int, dtype: Dtype, before: int
) -> None:
    """From one state: the loss, and the first moment, which is linear in the gradient, so that its
    bound is the gradient's times 1 - β₁ and its own rounding. The inputs are normalized alike."""
    run = Run(options, some_images(seed, 20), "cpu", dtype)
    engines.make("layers", run).advance(0, min(before, run.total_steps - 1))
    first = min(before, run.total_steps - 1)
    parameters = run.model.state_dict()
    betas, renew = run.optimizer.betas, run.recipe.renew
    m = 0 * run.optimizer.vectors["exp_avg"] if renew else run.optimizer.vectors["exp_avg"].copy()
    ((x, target, _),) = run.batches(first, first + 1)
    limits = step.estimate(dtype, parameters, x, target)

    (loss,) = engines.make(engine, run).advance(first, first + 1)
    value, error = limits["loss"]
    assert abs(loss - value) <= 2 * error
    gradients = [limits[f"grad {name}"] for name in parameters]
    value = np.concatenate([grad.value.ravel() for grad in gradients])
    error = np.concatenate([grad.error.ravel() for grad in gradients])
    # √(1 - β₂) goes into the upstream gradient and out of the moment: four roundings more.
    size = np.abs(m) + (1 - betas[0]) * (np.abs(value) + error)
    bound = 2 * ((1 - betas[0]) * error + gamma(8, dtype) * size) + 1e-30
    expected = (betas[0] * m + (1 - betas[0]) * value).astype(dtype)
    each = compare.difference("m", "", run.optimizer.vectors["exp_avg"], expected, bound)
    assert each.ok, str(each)


@pytest.mark.parametrize("engine", engines.NAMES)
@settings(max_examples=20)
@given(options=options, seed=seeds, dtype=dtypes, data=st.data())
def test_where_a_stretch_ends_changes_no_bit(
    engine: str, options: Options, seed: int, dtype: Dtype, data: st.DataObject
) -> None:
    whole, cut = (Run(options, some_images(seed, 60), "cpu", dtype) for _ in range(2))
    losses = engines.make(engine, whole).advance(0, whole.total_steps)
    stops = data.draw(st.sets(st.integers(1, whole.total_steps - 1), max_size=3))
    pieces, made = [], 0
    for stop in [*sorted(stops), cut.total_steps]:
        pieces += engines.make(engine, cut).advance(made, stop)
        made = stop
    assert pieces == losses
    for mine, theirs in zip(copy(cut), copy(whole), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("every", [1, 3, 7, None])
def test_a_stretch_ends_at_each_multiple_that_is_asked_for(every: int | None) -> None:
    run = Run(Options("adam", epochs=5, batch_size=8), some_images(0, 60), "cpu")
    ends = list(itertools.accumulate(run.train(every=every)))
    assert ends[-1] == run.total_steps == len(run.losses) == 40
    assert set(range(every or 40, 40, every or 40)) <= set(ends)


def test_stretches_double_while_they_take_less_than_a_twentieth_of_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stretches(seconds: float) -> list[int]:
        clock = itertools.count(1.0, seconds)
        monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
        return list(Run(Options("adam", epochs=2, batch_size=8), some_images(0, 60), "cpu").train())

    assert stretches(0.0) == [1, 2, 4, 8, 1]
    assert stretches(0.06) == [1] * 16


@pytest.mark.parametrize("engine", OTHERS)
@pytest.mark.parametrize("lr", [1e30, 1e38])
def test_an_engine_that_diverges_says_where(engine: str, lr: float) -> None:
    options = Options("adam", epochs=50, batch_size=8, lr=lr)
    run = Run(options, some_images(0, 40), "cpu", engine=engine)
    with pytest.raises(Diverged, match=r"step \d+ of 250"):
        list(run.train())
    assert np.isfinite(run.losses).all()


def test_moments_that_fade_away_become_0_and_not_subnormal() -> None:
    run = Run(Options("adam", epochs=40, batch_size=8), some_images(0, 16), "cpu")
    m, v = run.optimizer.vectors.values()
    m[:5], v[:5] = 1e-36, 1e-40  # of pixels that never have ink: their gradient is 0
    run.images[:] = 0
    engines.make("numpy_inplace", run).advance(0, 65)
    assert (m[:5] == 0).all()
    assert (v[:5] == 0).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [({"amsgrad": True}, "amsgrad"), ({"maximize": True}, "maximize"), ({"eps": 0.0}, "eps = 0")],
)
def test_what_an_engine_lacks_is_told(change: dict[str, Any], words: str) -> None:
    run = Run(Options("adam"), some_images(0, 8), "cpu")
    run.optimizer = optim.Adam(run.model.parameters(), **change)
    with pytest.raises(InputError, match=words):
        engines.make("numpy_inplace", run)
    run.optimizer = optim.Adam(run.model.parameters(), weight_decay=0.1)
    with pytest.raises(InputError, match="AdamW's weight decay"):
        engines.make("numpy_inplace", run)
    with pytest.raises(InputError, match="'fast' is unknown; expected one of layers"):
        engines.make("fast", run)
