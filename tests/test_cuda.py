"""The engines for a GPU equal `layers`, and their kernels don't depend on who runs when.

Where there is no GPU, the kernels' own sources run on the CPU, a fiber a thread: see tests/cuda.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from reference.bounds import Dtype
from scratchnet import engines, mnist
from scratchnet.cli import main
from scratchnet.engines import cuda, cuda_epoch, cuda_graph
from scratchnet.errors import InputError
from scratchnet.mnist import Split
from scratchnet.training import RECIPES, Options, Run
from tests.cuda import emulator
from tests.cuda.engines import AMPERE, FORMS, HOPPER, TURING, Form, param, running
from tests.strategies import dtypes, seeds
from tests.test_engines import (
    LACKS,
    LARGE,
    SCALES,
    assert_an_eps_that_would_count_as_0_is_refused,
    assert_divergence_is_told,
    assert_lack_is_told,
    assert_layers_in_float64,
    assert_moments_fade_to_0,
    assert_no_bit_hangs_on_stretches,
    assert_same_for_images_in_every_layout,
    assert_within_bounds,
    copy,
)
from tests.test_training import some_images

SEEDS = range(12)  # of schedules: each kind of them twice, with stores that come early and late
EPOCH_FORMS = [form for form in FORMS if form.engine == "cuda_epoch"]
EMULATED = [form for form in FORMS if form.limits]

# Batch size and width. Kernels are compiled anew for each, so there are only a few: one of each; a
# padded tile; the tutorial's; more samples than there is room for in one tile a thread.
SHAPES = ((1, 1), (5, 3), (64, 50), (70, 100))


@pytest.fixture(scope="module", params=[*map(param, FORMS)])
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    with running(request.param):
        yield request.param.engine


@pytest.fixture(scope="module", params=[param(f) for f in FORMS if f.engine != "cuda_epoch"])
def float64_engine(request: pytest.FixtureRequest) -> Iterator[str]:
    with running(request.param):
        yield request.param.engine


@st.composite
def problems(draw: st.DrawFn) -> tuple[Options, Split]:
    """Two epochs of one to three updates, the last of which is as a rule smaller."""
    batch_size, hidden = draw(st.sampled_from(SHAPES))
    options = Options(
        recipe=draw(st.sampled_from([*RECIPES])),
        epochs=2,
        batch_size=batch_size,
        hidden=hidden,
        seed=draw(st.integers(0, 1000)),
        lr=draw(st.sampled_from([None, 1e-3, 3e-2])),
    )
    return options, some_images(draw(seeds), draw(st.integers(2, 3 * batch_size + 2)))


def dtypes_of(engine: str) -> st.SearchStrategy[Dtype]:
    return st.just(np.float32) if engine == "cuda_epoch" else dtypes


@settings(max_examples=10)
@given(problem=problems(), seed=seeds, data=st.data())
def test_an_engine_is_layers_in_float64(
    float64_engine: str, problem: tuple[Options, Split], seed: int, data: st.DataObject
) -> None:
    with emulator.settings(seed=seed):
        assert_layers_in_float64(float64_engine, *problem, data)


@settings(max_examples=15)
@given(problem=problems(), seed=seeds, scale=SCALES, data=st.data())
def test_a_step_is_within_the_composed_bound(
    engine: str, problem: tuple[Options, Split], seed: int, scale: int, data: st.DataObject
) -> None:
    """Also where exp of a logit overflows."""
    with emulator.settings(seed=seed):
        assert_within_bounds(engine, *problem, data.draw(dtypes_of(engine)), scale, steps=4)


@settings(max_examples=5)
@given(problem=problems(), data=st.data())
def test_where_a_stretch_ends_changes_no_bit(
    engine: str, problem: tuple[Options, Split], data: st.DataObject
) -> None:
    options, split = problem
    split = Split(*(np.concatenate([part, part]) for part in split))  # two updates, or more
    assert_no_bit_hangs_on_stretches(engine, options, split, data.draw(dtypes_of(engine)), data)


def test_how_images_lie_in_memory_changes_no_bit(engine: str) -> None:
    options = Options("adam", epochs=2, batch_size=5, hidden=3)
    assert_same_for_images_in_every_layout(engine, options, some_images(0, 13))


def test_what_fills_up_a_batch_has_no_part_in_an_update(engine: str) -> None:
    """The hidden units of white images are 0 here, so that W2 is of no consequence to the bit. Of
    black ones, such as fill up a batch, they are not, and then a large W2 has infinite logits."""
    images, labels = some_images(0, 5)
    ends = []
    for size in (0, 1e30):
        run = Run(
            Options("adam", batch_size=5, hidden=3),
            Split(np.full_like(images, 255), labels),
            engines.device(engine),
        )
        w1, b1, w2, _ = (parameter.data for parameter in run.model.parameters())
        w1[...], b1[...] = -1e10, 1e10
        w2[::2], w2[1::2] = size, -size
        losses = engines.make(engine, run).advance(0, 1)
        parameters, *moments = copy(run)
        assert np.isfinite(parameters).all()
        ends.append([np.array(losses), *moments])
    for small, large in zip(*ends, strict=True):
        np.testing.assert_array_equal(small, large)


def test_moments_that_fade_away_become_0_and_only_those(engine: str) -> None:
    assert_moments_fade_to_0(engine, 0, np.float32)


@pytest.mark.parametrize("lr", LARGE)
def test_an_engine_that_diverges_says_where(engine: str, lr: float) -> None:
    assert_divergence_is_told(engine, lr)


@LACKS
def test_what_an_engine_lacks_is_told(engine: str, change: dict[str, Any], words: str) -> None:
    assert_lack_is_told(engine, change, words)


def test_an_eps_that_would_count_as_0_is_refused(engine: str) -> None:
    assert_an_eps_that_would_count_as_0_is_refused(engine, np.float32)


def train(options: Options, split: Split, engine: str, dtype: Any = np.float32) -> list[Any]:
    """Losses, parameters and moments after all updates."""
    run = Run(options, split, engines.device(engine), dtype)
    losses = engines.make(engine, run).advance(0, run.total_steps)
    return [np.array(losses), *copy(run)]


@pytest.mark.parametrize("form", [*map(param, EMULATED)])
@pytest.mark.parametrize("shape", [(64, 50), (9, 17)])
def test_twenty_updates_have_the_same_bits_under_every_schedule(
    form: Form, shape: tuple[int, int]
) -> None:
    """And are as near to float64 as `layers` is in float32: the errors of both are of the same
    roundings in another order, and so within a factor of ten."""
    batch_size, hidden = shape
    options = Options("one-cycle", epochs=4, batch_size=batch_size, hidden=hidden)
    split = some_images(3, 5 * batch_size - batch_size // 3)
    found = []
    with running(form):
        for seed in SEEDS:
            with emulator.settings(seed=seed):
                found.append(train(options, split, form.engine))
    for other in found[1:]:
        for first, second in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(first, second)
    exact = train(options, split, "layers", np.float64)
    layers = train(options, split, "layers")
    for ours, theirs, truth in zip(found[0], layers, exact, strict=True):
        assert abs(ours - truth).max() <= 10 * abs(theirs - truth).max()


@pytest.mark.parametrize("form", [*map(param, FORMS)])
def test_the_first_twenty_batches_of_mnist_have_the_losses_of_layers(form: Form) -> None:
    """From each state that `layers` comes to within the composed bound; and in a run of its own as
    near to float64's as `layers`' own in float32, up to a factor of ten."""
    options = Options("one-cycle", limit=20 * 64)
    split = mnist.load().train
    with running(form):
        assert_within_bounds(form.engine, options, split, np.float32, 1, steps=20)
        ours = train(options, split, form.engine)[0]
    layers, exact = (
        train(options, split, "layers", dtype)[0] for dtype in (np.float32, np.float64)
    )
    assert len(ours) == 20
    assert abs(ours - exact).max() <= 10 * abs(layers - exact).max()


@pytest.mark.parametrize("form", [*map(param, EPOCH_FORMS)])
@pytest.mark.parametrize("room", [16, 40, 132])
def test_networks_side_by_side_are_the_same_as_alone(form: Form, room: int) -> None:
    """However many blocks the GPU has room for at a time."""
    if form.limits:
        form = replace(form, limits=form.limits._replace(blocks=room))
    split = some_images(5, 150)
    several = [
        Options("adam", batch_size=64, seed=seed, lr=lr)
        for seed, lr in ((0, 1e-3), (1, 1e-2), (2, 1e-3))
    ]
    with running(form):
        runs = [Run(options, split, engines.device(form.engine)) for options in several]
        losses = cuda_epoch.Fleet(runs).advance(0, 3)
        for run, mine, options in zip(runs, losses, several, strict=True):
            alone = train(options, split, form.engine)
            for first, second in zip([np.array(mine), *copy(run)], alone, strict=True):
                np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("form", [*map(param, EMULATED[2:3])])
def test_networks_that_differ_in_more_than_seed_and_rate_are_refused(form: Form) -> None:
    split = some_images(0, 20)
    with running(form):
        run = Run(Options(), split, "cpu")
        for options, images in (
            (Options(hidden=51), split),
            (Options("adam"), split),
            (Options(), some_images(0, 20)),
        ):
            with pytest.raises(InputError, match="more than seed and learning rate"):
                cuda_epoch.Fleet([run, Run(options, images, "cpu")])
        other = Run(Options(), split, "cpu")
        other.optimizer.betas = (0.8, 0.99)
        with pytest.raises(InputError, match="more than seed and learning rate"):
            cuda_epoch.Fleet([run, other])


@pytest.mark.parametrize("form", [*map(param, EMULATED[:1])])
@pytest.mark.parametrize(
    ("limits", "largest", "expected"),
    [
        (HOPPER, 16, (True, 16)),
        (HOPPER, 8, (True, 8)),
        (HOPPER, 0, (False, 16)),
        (cuda.Limits(True, 101_376, 170), 16, (True, 16)),
        (cuda.Limits(True, 101_376, 170), 8, (False, 16)),  # two buffers of pixels are too many
        (AMPERE, 16, (False, 16)),
        (TURING, 16, (False, 16)),
    ],
)
def test_the_fastest_layout_that_fits_is_taken(
    form: Form, limits: cuda.Limits, largest: int, expected: tuple[bool, int]
) -> None:
    with running(Form("cuda_epoch", limits, largest)):
        layout = cuda_epoch.Fleet([Run(Options(), some_images(0, 20), "cpu")]).layout
    assert (layout.cluster, layout.blocks) == expected


@pytest.mark.parametrize("form", [*map(param, EMULATED[:1])])
@pytest.mark.parametrize(
    ("options", "dtype", "limits", "words"),
    [
        (Options(), np.float64, HOPPER, "float32 only, not in float64"),
        (Options(hidden=1000), np.float32, HOPPER, "bytes of shared memory"),
        (Options(batch_size=1000), np.float32, TURING, "bytes of shared memory"),
        (Options(batch_size=1, hidden=220), np.float32, HOPPER, "registers"),
        (Options(), np.float32, AMPERE._replace(blocks=15), "can't run at once"),
    ],
)
def test_what_does_not_fit_falls_back_to_the_graph_and_says_why(
    form: Form, options: Options, dtype: Any, limits: cuda.Limits, words: str
) -> None:
    with running(Form("cuda_epoch", limits)):
        run = Run(options, some_images(0, 20), "cpu", dtype)
        with pytest.warns(UserWarning, match=f"{words}.*; cuda_graph takes its place"):
            made = engines.make("cuda_epoch", run)
        assert isinstance(made, cuda_graph.Engine)
        with pytest.raises(InputError, match=words):
            cuda_epoch.Fleet([run])


WHOLE = cuda_epoch.Layout(cluster=True, blocks=16, batch=64, inputs=784, units=50, classes=10)


@pytest.mark.parametrize("form", [*map(param, EMULATED[:1])])
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"SHARED_BYTES": WHOLE.shared + 4}, "cuda_epoch.py has computed another size"),
        (replace(WHOLE, units=250).constants(), "m and v must fit into registers"),
        (replace(WHOLE, classes=132).constants(), "the lanes of a warp send four classes each"),
        (replace(WHOLE, blocks=4, batch=12).constants(), "a warp has 8 tiles of samples"),
    ],
)
def test_what_the_epoch_kernel_relies_on_is_checked_when_it_is_compiled(
    form: Form, changes: dict[str, int], words: str
) -> None:
    """As of a layout that slips through `why_not`."""
    with pytest.raises(emulator.NotBuilt, match=words):
        emulator.Program("epoch.cu", WHOLE.constants() | changes)


@pytest.mark.parametrize("form", [*map(param, EMULATED[1:2])])
def test_a_graph_is_recorded_once_and_again_when_what_it_was_given_has_moved(
    form: Form, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph holds the addresses that it was given, and a new optimizer has new moments."""
    recorded = []

    def capture(work: Any) -> Any:
        recorded.append(1)
        return emulator.capture(work)

    options = Options("adam", epochs=2, batch_size=1, hidden=1)
    with running(form):
        monkeypatch.setattr(cuda, "capture", capture)
        ours, layers = (Run(options, some_images(0, 100), "cpu", np.float64) for _ in range(2))
        pair = [
            (run, engines.make(name, run))
            for run, name in ((ours, "cuda_graph"), (layers, "layers"))
        ]
        for begin, end in itertools.pairwise((0, 32, 65, 97, 135, 200)):
            for run, made in pair:
                if begin == 135:
                    run.optimizer = run.recipe.optimizer(run.model.parameters(), 1e-3)
                made.advance(begin, end)
            assert len(recorded) == (0 if end == 32 else 1 if end < 200 else 2)
            for mine, theirs in zip(copy(ours), copy(layers), strict=True):
                np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-9)


@pytest.mark.parametrize("form", [*map(param, EMULATED[:1])])
def test_a_wrong_label_is_told(form: Form) -> None:
    images, labels = some_images(0, 20)
    labels[3] = 10
    with running(form), pytest.raises(InputError, match=r"a label is not in 0\.\.9"):
        engines.make("cuda_fused", Run(Options(), Split(images, labels), "cpu"))


SANITIZED = """
import sys
from tests.cuda.engines import FORMS, running
from tests.cuda import emulator
from tests.test_cuda import train
from tests.test_training import some_images
from scratchnet.training import Options

for form in FORMS:
    if form.limits is None:
        continue
    for batch_size, hidden in ((64, 50), (5, 3), (1, 1)):
        options = Options("one-cycle", batch_size=batch_size, hidden=hidden)
        for seed in (1, 5):
            with running(form), emulator.settings(seed=seed):
                train(options, some_images(0, 2 * batch_size + 1), form.engine)
print("nothing to report")
"""


@pytest.mark.parametrize("form", [*map(param, EMULATED[:1])])
def test_sanitizers_have_nothing_to_report(form: Form) -> None:
    """AddressSanitizer and UndefinedBehaviorSanitizer, over all kernels and NumPy's arrays."""
    done = emulator.sanitized(["-c", SANITIZED])
    assert done.returncode == 0, done.stderr[-3000:]
    assert "nothing to report" in done.stdout


@pytest.mark.parametrize("form", [*map(param, EMULATED[2:3])])
def test_the_command_trains_several_networks_in_one_launch(form: Form, tmp_path: Path) -> None:
    """And says what it could not do so, in a line."""
    runner, out = CliRunner(), str(tmp_path / "networks")
    options = ["train", "--device", "cpu", "--limit", "200", "--engine", "cuda_epoch"]
    with running(form), warnings.catch_warnings():
        warnings.simplefilter("default")
        done = runner.invoke(main, [*options, "--seeds", "2", "--out", out])
        assert done.exit_code == 0, done.output
        assert "engine cuda_epoch" in done.output
        too_wide = [*options, "--hidden", "1000", "--limit", "20", "--out", f"{out}-wide"]
        told = runner.invoke(main, too_wide).output
    for seed in range(2):
        model = load_file(tmp_path / "networks" / f"seed-{seed}" / "model.safetensors")
        assert np.isfinite(model["lin1.weight"]).all()
    assert (tmp_path / "networks" / "seeds.png").exists()
    assert any(
        line.startswith("engine cuda_epoch: the network does not fit into this GPU: ")
        and line.endswith("; cuda_graph takes its place")
        for line in told.splitlines()
    )
