"""Every engine equals `layers`, however the run is cut into stretches."""

from __future__ import annotations

import itertools
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reference.bounds import Dtype
from reference.lockstep import FADED, Lockstep
from scratchnet import backend, engines, optim
from scratchnet.backend import Array
from scratchnet.engines import native
from scratchnet.errors import InputError
from scratchnet.mnist import Split
from scratchnet.training import RECIPES, Diverged, Options, Run
from tests.strategies import LAYOUTS, dtypes, lay_out, seeds
from tests.test_training import some_images


def usable(name: str) -> Any:
    reason = engines.why_not(name)
    return pytest.param(name, marks=pytest.mark.skipif(bool(reason), reason=str(reason)))


ALL = [usable(name) for name in engines.NAMES if name not in engines.CUDA]  # see test_cuda.py
OTHERS = ALL[1:]

options = st.builds(
    Options,
    recipe=st.sampled_from([*RECIPES]),
    epochs=st.just(3),
    batch_size=st.integers(1, 9) | st.sampled_from([64, 65, 130]),
    hidden=st.integers(1, 30),
    seed=st.integers(0, 1000),
    lr=st.sampled_from([None, 1e-3, 3e-2]),
)
counts = st.integers(5, 25) | st.integers(70, 140)


def state(run: Run) -> list[Array]:
    """Parameters and moments, flat."""
    return [run.model.parameters()[0].buffer.data, *run.optimizer.vectors.values()]


def copy(run: Run) -> list[Array]:
    """The same on the CPU."""
    return [backend.to_numpy(array).copy() for array in state(run)]


def assert_layers_in_float64(
    engine: str, options: Options, split: Split, data: st.DataObject
) -> None:
    """Losses to 1e-11 and parameters to 1e-9 over up to 12 steps, ragged batches among them: the
    bounds under which `layers` is held to PyTorch. Halfway the engines take turns."""
    ours, layers = (Run(options, split, engines.device(engine), np.float64) for _ in range(2))
    last = min(12, layers.total_steps)
    turn = data.draw(st.integers(1, last))
    swapped = data.draw(st.sampled_from([engine, "layers"]))
    losses = engines.make(engine, ours).advance(0, turn)
    losses += engines.make(swapped, ours).advance(turn, last)
    expected = engines.make("layers", layers).advance(0, last)
    np.testing.assert_allclose(losses, expected, rtol=0, atol=1e-11)
    for mine, theirs in zip(copy(ours), copy(layers), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-9)
    assert ours.optimizer.steps == layers.optimizer.steps
    assert ours.optimizer.lr == layers.optimizer.lr


@pytest.mark.parametrize("engine", OTHERS)
@settings(max_examples=40)
@given(options=options, seed=seeds, count=counts, data=st.data())
def test_an_engine_is_layers_in_float64(
    engine: str, options: Options, seed: int, count: int, data: st.DataObject
) -> None:
    assert_layers_in_float64(engine, options, some_images(seed, count), data)


def assert_within_bounds(
    engine: str, options: Options, split: Split, dtype: Dtype, scale: int, steps: int
) -> None:
    """Loss, moments and parameters beside PyTorch's, from each state that `layers` comes to."""
    lockstep = Lockstep.start(options, split, dtype, "cpu", engine)
    lockstep.run.model.parameters()[0].buffer.data *= scale
    for _ in lockstep.steps(min(steps, lockstep.run.total_steps)):
        for each in lockstep.report.differences[-13:]:
            assert each.name.startswith(f"{engine}: ")
            assert each.ok, str(each)


SCALES = st.sampled_from([1, 1, 300])  # of the parameters; with the last exp of a logit overflows


@pytest.mark.parametrize("engine", OTHERS)
@given(
    options=options,
    seed=seeds,
    dtype=dtypes,
    count=counts,
    scale=SCALES,
    steps=st.integers(1, 5),
)
def test_a_step_of_an_engine_is_within_the_composed_bound(
    engine: str, options: Options, seed: int, dtype: Dtype, count: int, scale: int, steps: int
) -> None:
    assert_within_bounds(engine, options, some_images(seed, count), dtype, scale, steps)


def assert_no_bit_hangs_on_stretches(
    engine: str, options: Options, split: Split, dtype: Dtype, data: st.DataObject
) -> None:
    """Nor on how many threads make them, where an engine has threads."""
    whole, cut = (Run(options, split, engines.device(engine), dtype) for _ in range(2))
    losses = engines.make(engine, whole).advance(0, whole.total_steps)
    stops = data.draw(st.sets(st.integers(1, whole.total_steps - 1), max_size=3))
    pieces, made = [], 0
    for stop in [*sorted(stops), cut.total_steps]:
        piece = engines.make(engine, cut)
        if isinstance(piece, native.Engine):
            piece.threads = data.draw(st.integers(1, 3))
        pieces += piece.advance(made, stop)
        made = stop
    assert pieces == losses
    for mine, theirs in zip(copy(cut), copy(whole), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("engine", ALL)
@settings(max_examples=20)
@given(options=options, seed=seeds, dtype=dtypes, data=st.data())
def test_where_a_stretch_ends_changes_no_bit(
    engine: str, options: Options, seed: int, dtype: Dtype, data: st.DataObject
) -> None:
    assert_no_bit_hangs_on_stretches(engine, options, some_images(seed, 60), dtype, data)


def assert_same_for_images_in_every_layout(engine: str, options: Options, split: Split) -> None:
    """Losses, parameters and moments, to the bit."""
    ends = []
    for layout in LAYOUTS:
        laid_out = Split(lay_out(split.images, layout), split.labels)
        run = Run(options, laid_out, engines.device(engine))
        losses = engines.make(engine, run).advance(0, run.total_steps)
        ends.append([np.array(losses), *copy(run)])
    for arrays in zip(*ends, strict=True):
        for other in arrays[1:]:
            np.testing.assert_array_equal(other, arrays[0])


@pytest.mark.parametrize("engine", ALL)
@settings(max_examples=10)
@given(options=options, seed=seeds, count=st.integers(2, 25))
def test_how_images_lie_in_memory_changes_no_bit(
    engine: str, options: Options, seed: int, count: int
) -> None:
    assert_same_for_images_in_every_layout(engine, options, some_images(seed, count))


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


def assert_divergence_is_told(engine: str, lr: float) -> None:
    options = Options("adam", epochs=50, batch_size=8, lr=lr)
    run = Run(options, some_images(0, 40), engines.device(engine), engine=engine)
    with pytest.raises(Diverged, match=r"step \d+ of 250"):
        list(run.train())
    assert np.isfinite(run.losses).all()


LARGE = (1e30, 1e38)  # learning rates


@pytest.mark.parametrize("engine", OTHERS)
@pytest.mark.parametrize("lr", LARGE)
def test_an_engine_that_diverges_says_where(engine: str, lr: float) -> None:
    assert_divergence_is_told(engine, lr)


def assert_moments_fade_to_0(engine: str, seed: int, dtype: Dtype) -> None:
    """Of pixels that never have ink, whose gradient is 0: m ← β₁ m and v ← β₂ v, unless as small as
    FADED. And 64 steps later nothing is subnormal."""
    images, labels = some_images(0, 16)
    options = Options("adam", epochs=70, batch_size=8, hidden=2)
    run = Run(options, Split(0 * images, labels), engines.device(engine), dtype)
    rng, tiny = np.random.default_rng(seed), np.finfo(dtype).tiny
    first = slice(0, 100)
    before = [10.0 ** rng.uniform(-50, -20, 100) for _ in FADED]
    before[0] *= rng.choice([-1, 1], 100)
    moments = [*run.optimizer.vectors.values()]
    for moment, values in zip(moments, before, strict=True):
        moment[first] = backend.asarray(values.astype(dtype), run.device)
    run.optimizer.steps = [64] * 4
    made = engines.make(engine, run)
    made.advance(64, 65)
    for moment, values, beta, faded in zip(
        copy(run)[1:], before, run.optimizer.betas, FADED, strict=True
    ):
        np.testing.assert_allclose(moment[first], beta * values, rtol=1e-6, atol=faded)
    made.advance(65, 129)
    for moment in copy(run)[1:]:
        assert ((moment == 0) | (np.abs(moment) >= tiny)).all()


@pytest.mark.parametrize("engine", ALL)
@given(seed=seeds, dtype=dtypes)
def test_moments_that_fade_away_become_0_and_only_those(
    engine: str, seed: int, dtype: Dtype
) -> None:
    assert_moments_fade_to_0(engine, seed, dtype)


LACKS = pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"amsgrad": True}, "amsgrad"),
        ({"maximize": True}, "maximize"),
        ({"eps": 0.0}, "eps is 0.0"),
    ],
)


@pytest.mark.parametrize("engine", OTHERS)
@LACKS
def test_what_an_engine_lacks_is_told(engine: str, change: dict[str, Any], words: str) -> None:
    assert_lack_is_told(engine, change, words)


def assert_lack_is_told(engine: str, change: dict[str, Any], words: str) -> None:
    run = Run(Options("adam"), some_images(0, 8), engines.device(engine))
    run.optimizer = optim.Adam(run.model.parameters(), **change)
    with pytest.raises(InputError, match=words):
        engines.make(engine, run)
    run.optimizer = optim.Adam(run.model.parameters(), weight_decay=0.1)
    with pytest.raises(InputError, match="AdamW's weight decay"):
        engines.make(engine, run)
    with pytest.raises(InputError, match="'fast' is unknown; expected one of auto, layers"):
        engines.make("fast", run)


def assert_an_eps_that_would_count_as_0_is_refused(engine: str, dtype: Dtype) -> None:
    """2⁻¹²⁶ or 2⁻¹⁰²² over √(1 - β₂), which is √0.001: where m and v are 0, as at a pixel that is
    always black, a step is then 0 / eps, and would be 0 / 0 if eps counted as 0."""
    images, labels = some_images(0, 40)
    images[:, :5] = 0
    run = Run(
        Options("adam", batch_size=5, hidden=3),
        Split(images, labels),
        engines.device(engine),
        dtype,
    )
    enough, too_little = {"float32": (3.8e-37, 3.7e-37), "float64": (7.1e-307, 7e-307)}[
        np.dtype(dtype).name
    ]
    run.optimizer = optim.Adam(run.model.parameters(), eps=enough)
    assert np.isfinite(engines.make(engine, run).advance(0, 5)).all()
    run.optimizer = optim.Adam(run.model.parameters(), eps=too_little)
    with pytest.raises(
        InputError, match=f"engine {engine}: eps is {too_little}; expected at least"
    ):
        engines.make(engine, run)


@pytest.mark.parametrize("engine", OTHERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_eps_that_would_count_as_0_is_refused(engine: str, dtype: Dtype) -> None:
    assert_an_eps_that_would_count_as_0_is_refused(engine, dtype)
