"""Statements that a mutant of scratchnet lived without. See tests/mutation."""

from __future__ import annotations

import gzip
import inspect
import json
import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reference.bounds import Dtype
from scratchnet import functional, mnist, nn, optim
from scratchnet.backend import Array, to_numpy
from scratchnet.errors import InputError
from scratchnet.mnist import Split
from scratchnet.training import RECIPES, Diverged, Normalization, Options, Run, evaluate
from tests.strategies import dtypes, seeds
from tests.test_functional import FUNCTIONS, Function, arguments
from tests.test_mnist import idx
from tests.test_optim import configurations
from tests.test_training import device, some_images

# Refusals name what they refuse.


def arrays_by_name(function: Function) -> dict[str, Array]:
    names = [*inspect.signature(function).parameters]
    return dict(zip(names, arguments(function).values(), strict=False))


EVERY_FUNCTION: list[Any] = [*FUNCTIONS]
ARRAYS = {function: arrays_by_name(function) for function in EVERY_FUNCTION}
ARRAYS[functional.cross_entropy_forward]["weight"] = np.ones(3)
ARRAYS[functional.cross_entropy_backward]["weight"] = np.ones(3)
ARRAYS[functional.cross_entropy_backward]["grad_output"] = np.ones(())
LINEAR = (functional.linear_forward, functional.linear_backward)
EVERY_ARGUMENT = [(function, name) for function, arrays in ARRAYS.items() for name in arrays]


def call(xp: ModuleType, function: Function, **changes: Array) -> Any:
    arrays = ARRAYS[function] | changes
    return function(**{name: xp.asarray(array) for name, array in arrays.items()})


# The x of an elementwise function may have any shape: it is grad_output that does not fit.
@pytest.mark.parametrize(
    ("function", "name"), [(f, name) for f, name in EVERY_ARGUMENT if name != "x" or f in LINEAR]
)
def test_a_wrong_shape_is_told_with_the_name_of_its_argument(
    xp: ModuleType, function: Function, name: str
) -> None:
    call(xp, function)
    with pytest.raises(ValueError, match=f"^{name} has shape "):
        call(xp, function, **{name: ARRAYS[function][name][None]})


# The grad_output of the loss may be a number, and is of any dtype.
@pytest.mark.parametrize(
    ("function", "name"),
    [(f, name) for f, name in EVERY_ARGUMENT if ARRAYS[f][name].shape],
)
def test_a_wrong_dtype_is_told_with_the_name_of_its_argument(
    xp: ModuleType, function: Function, name: str
) -> None:
    first, array = next(iter(ARRAYS[function])), ARRAYS[function][name]
    with pytest.raises(TypeError, match=f"^{name} has dtype float16; expected "):
        call(xp, function, **{name: array.astype(np.float16)})
    if name not in (first, "target"):
        words = f"^{name} has dtype float32, but {first} has float64; "
        with pytest.raises(TypeError, match=words):
            call(xp, function, **{name: array.astype(np.float32)})


@pytest.mark.parametrize(
    ("kind", "name"),
    [("Adam", "lr"), ("Adam", "eps"), ("AdamW", "weight_decay"), ("SGD", "momentum")],
)
def test_a_negative_option_is_told_by_its_name(kind: str, name: str) -> None:
    optimizer = getattr(optim, kind)
    with pytest.raises(ValueError, match=f"^{name} is -0.5; expected"):
        optimizer([nn.Parameter(np.ones(1))], **{name: -0.5})
    assert getattr(optimizer([nn.Parameter(np.ones(1))], **{name: 0.0}), name) == 0


def test_the_least_options_of_a_run_are_taken() -> None:
    least = Options(epochs=1, batch_size=1, hidden=1, limit=1, seed=0, lr=5e-324)
    assert Run(least, some_images(0, 2), "cpu").total_steps == 1


def test_a_label_is_compared_with_ignore_index_as_an_integer(xp: ModuleType) -> None:
    """2^53 + 1 is 2^53 in float64. The loss of equal logits is log 3, rounded a few times."""
    logits, target = xp.ones((2, 3)), xp.asarray([2**53, 0])
    if xp is np:
        with pytest.raises(IndexError, match=f"^target.0. is {2**53}; expected"):
            functional.cross_entropy_forward(logits, target, ignore_index=2**53 + 1)
    else:
        loss = functional.cross_entropy_forward(logits, target, ignore_index=2**53 + 1)
        assert np.isnan(float(loss))
    loss = functional.cross_entropy_forward(logits, target, ignore_index=2**53)
    assert float(loss) == pytest.approx(np.log(3), rel=2**-50)


# Optimizers: exact on dyadic numbers, where no operation rounds.


@pytest.mark.parametrize(("nesterov", "dampening"), [(False, 0.0), (False, 0.25), (True, 0.0)])
def test_sgd_with_momentum_is_its_formula_exactly(
    xp: ModuleType, nesterov: bool, dampening: float
) -> None:
    """Five steps with momentum 1/2 on the gradients 1 to 5: less than 20 binary digits each."""
    parameter = nn.Parameter(xp.asarray(np.zeros(1)))
    optimizer = optim.SGD([parameter], 1.0, 0.5, dampening, nesterov=nesterov)
    p = b = Fraction(0)
    for g in range(1, 6):
        parameter.grad = xp.asarray([float(g)])
        optimizer.step()
        b = Fraction(g) if g == 1 else b / 2 + (1 - Fraction(dampening)) * g
        p -= g + b / 2 if nesterov else b
        assert float(parameter.data[0]) == p


@given(configuration=configurations, seed=seeds)
def test_to_climb_is_to_descend_the_negated_gradient(
    xp: ModuleType, configuration: tuple[str, dict[str, Any]], seed: int
) -> None:
    """Negation is exact: equal bit for bit."""
    kind, options = configuration
    results = []
    for sign, maximize in ((1, False), (-1, True)):
        rng = np.random.default_rng(seed)
        parameter = nn.Parameter(xp.asarray(rng.normal(size=5)))
        optimizer = getattr(optim, kind)([parameter], **options | {"maximize": maximize})
        for _ in range(3):
            parameter.grad = xp.asarray(sign * rng.normal(size=5))
            optimizer.step()
        results.append(to_numpy(parameter.data))
    np.testing.assert_array_equal(results[0], results[1])


def stepped(xp: ModuleType, optimizer: optim.Optimizer, count: int) -> optim.Optimizer:
    """The optimizer after `count` steps, with gradients that fall: amsgrad keeps the largest v."""
    for step in range(count):
        for parameter in optimizer.parameters:
            parameter.grad = xp.full(parameter.shape, 0.5**step)
        optimizer.step()
    return optimizer


def test_amsgrad_goes_on_from_its_state(xp: ModuleType) -> None:
    first, second = (
        optim.Adam([nn.Parameter(xp.ones(3))], betas=(0.5, 0.5), amsgrad=True) for _ in range(2)
    )
    stepped(xp, first, 3)
    second.load_state_dict(first.state_dict())
    second.parameters[0].data = first.parameters[0].data
    for optimizer in (first, second):
        stepped(xp, optimizer, 1)
    ours, theirs = (to_numpy(optimizer.parameters[0].data) for optimizer in (first, second))
    np.testing.assert_array_equal(ours, theirs)
    plain = optim.Adam([nn.Parameter(xp.ones(3))])
    with pytest.raises(ValueError, match="amsgrad=True"):
        plain.load_state_dict(first.state_dict())
    with pytest.raises(ValueError, match="amsgrad=False"):
        first.load_state_dict(plain.state_dict())


def test_torchs_state_of_sgd_may_lack_one_momentum_and_any_count(xp: ModuleType) -> None:
    """What it leaves None is no state, for that parameter alone; what it has is one step old."""
    optimizer = optim.SGD([nn.Parameter(xp.ones(2)) for _ in range(2)], momentum=0.5)
    state = torch.optim.SGD([torch.ones(2), torch.ones(2)], momentum=0.5).state_dict()
    state["state"] = {0: {"momentum_buffer": None}, 1: {"momentum_buffer": torch.ones(2)}}
    optimizer.load_state_dict(state)
    assert optimizer.steps == [0, 1]
    assert optimizer.state_dict()["state"].keys() == {1}
    np.testing.assert_array_equal(
        to_numpy(optimizer.state_dict()["state"][1]["momentum_buffer"]), 1
    )


@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW"])
def test_without_decay_an_infinite_number_does_not_reach_the_state(
    xp: ModuleType, kind: str
) -> None:
    """0 · inf is nan: a decay of 0 must not be computed. A step from inf leads nowhere else."""
    options = {"momentum": 0.5} if kind == "SGD" else {}
    parameter = nn.Parameter(xp.asarray([np.inf, 1.0]))
    optimizer = getattr(optim, kind)([parameter], weight_decay=0.0, **options)
    stepped(xp, optimizer, 2)
    for value in optimizer.state_dict()["state"][0].values():
        assert np.isfinite(to_numpy(xp.asarray(value))).all()
    assert parameter.data[0] == np.inf


class Counted(optim.Adam):
    """Adam that keeps the lengths of the vectors it updates."""

    def update(self, p: Array, g: Array, step: int, *state: Array) -> None:
        self.lengths = [*getattr(self, "lengths", ()), len(p)]
        super().update(p, g, step, *state)


def test_neighbours_are_updated_as_one_vector(xp: ModuleType) -> None:
    """A model in one step, and in two where a parameter in its middle has no gradient."""
    parameters = nn.Mnist_NN(4, 3, 2, device=device(xp)).parameters()
    optimizer = Counted(parameters)
    stepped(xp, optimizer, 1)
    assert optimizer.lengths == [12 + 3 + 6 + 2]
    for parameter in (parameters[0], parameters[2], parameters[3]):
        parameter.grad = xp.ones(parameter.shape)
    parameters[1].grad = None
    optimizer.step()
    assert optimizer.lengths[1:] == [12, 6 + 2]


@pytest.mark.parametrize("chosen", [[0, 2], [1, 0], [3, 1, 2], [2, 3, 0]])
def test_an_optimizer_of_some_parameters_in_any_order_moves_just_these(
    xp: ModuleType, chosen: list[int]
) -> None:
    """Of four in one buffer; as it would move them, each in its own buffer, bit for bit."""
    shapes = [(2, 3), (2,), (6,), (1,)]
    together, apart = ([nn.Parameter(xp.ones(shape)) for shape in shapes] for _ in range(2))
    nn.flatten(together)
    for parameters in (together, apart):
        stepped(xp, optim.Adam([parameters[i] for i in chosen]), 3)
    for i, (one, other) in enumerate(zip(together, apart, strict=True)):
        np.testing.assert_array_equal(to_numpy(one.data), to_numpy(other.data))
        assert bool((one.data == 1).all()) == (i not in chosen)


# The schedule.


def schedule(total: int, max_lr: float = 0.1, **options: Any) -> optim.OneCycleLR:
    return optim.OneCycleLR(optim.SGD([nn.Parameter(np.ones(1))]), max_lr, total, **options)


@pytest.mark.parametrize("pct_start", [0.0, 1.0])
@pytest.mark.parametrize("total", [2, 3, 10])
@pytest.mark.filterwarnings("ignore:Detected call of")
def test_one_cycle_may_be_all_climb_or_all_fall_as_pytorchs(pct_start: float, total: int) -> None:
    ours = schedule(total, pct_start=pct_start)
    optimizer_torch = torch.optim.SGD([torch.ones(1, requires_grad=True)], momentum=0.9)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer_torch, 0.1, total, pct_start=pct_start)
    for step in range(total):
        assert [ours.at(step)[0]] == theirs.get_last_lr()
        if step < total - 1:
            theirs.step()
    assert ours.at(total) == ours.at(total - 1)


@pytest.mark.parametrize("three_phase", [False, True])
@pytest.mark.parametrize("half", [2, 5, 50])
def test_one_cycle_reaches_its_peak_exactly(half: int, three_phase: bool) -> None:
    """The climb ends at goal. The fall would begin at goal + (max_lr - goal): one in seven differs
    by a rounding where goal is a third."""
    options = {"pct_start": 0.5, "div_factor": 3.0, "final_div_factor": 1.0}
    for max_lr in np.random.default_rng(half).uniform(1e-3, 1, 100).tolist():
        ours = schedule(2 * half, max_lr, three_phase=three_phase, **options)
        assert ours.at(half - 1)[0] == max_lr


@pytest.mark.parametrize("strategy", ["cos", "linear"])
@pytest.mark.parametrize(("total", "pct_start"), [(10, 0.1), (2, 0.5), (1, 1.0)])
def test_a_climb_of_one_update_starts_at_the_peak(
    total: int, pct_start: float, strategy: str
) -> None:
    """It ends where it begins, at update 0. PyTorch divides by 0."""
    ours = schedule(total, pct_start=pct_start, anneal_strategy=strategy)
    assert ours.at(0) == (0.1, 0.85)


def test_a_step_too_many_changes_nothing() -> None:
    ours = schedule(2)
    ours.step()
    ours.step()
    before = ours.state_dict(), ours.get_last_lr()
    with pytest.raises(ValueError, match="at most total_steps = 2"):
        ours.step()
    assert (ours.state_dict(), ours.get_last_lr()) == before


def test_the_state_of_a_schedule_is_plain_values_without_its_optimizer() -> None:
    state = schedule(5).state_dict()
    assert json.dumps(state)
    assert "optimizer" not in state
    assert state["last_epoch"] == 0


# Layers.


def test_a_state_from_the_cpu_comes_to_the_device_of_its_model(xp: ModuleType) -> None:
    model = nn.Mnist_NN(4, 3, 2, device=device(xp), generator=0)
    state = {name: to_numpy(value) + 1 for name, value in model.state_dict().items()}
    model.load_state_dict(state)
    for name, value in model.state_dict().items():
        assert isinstance(value, xp.ndarray)
        np.testing.assert_array_equal(to_numpy(value), state[name], strict=True)


# Training.


@pytest.mark.parametrize("value", range(256))
def test_images_of_one_colour_are_centred_and_not_scaled(value: int) -> None:
    """A variance that is 0 only up to rounding would divide other images by 1e-17."""
    for count in (1, 2, 3):
        found = Normalization.of(np.full((count, 784), value, np.uint8))
        assert found.mean == pytest.approx(value / 255, rel=1e-15)
        assert found.std == 1


@pytest.mark.parametrize(("recipe", "normalized"), [("one-cycle", True), ("adam", False)])
def test_only_the_recipes_that_say_so_normalize_the_images_of_the_run(
    xp: ModuleType, recipe: str, normalized: bool
) -> None:
    split = some_images(0, 20)
    run = Run(Options(recipe, limit=10), split, device(xp), np.float64)
    ((x, _, _),) = run.batches(0, 1)
    pixels = split.images[:10] / 255
    mean, std = (pixels.mean(), pixels.std()) if normalized else (0.0, 1.0)
    assert run.normalization.mean == pytest.approx(mean, rel=1e-12)
    assert run.normalization.std == pytest.approx(std, rel=1e-12)
    assert float(x.mean()) == pytest.approx((pixels.mean() - mean) / std, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "kind", "lr", "options", "flags"),
    [
        ("one-cycle", optim.AdamW, 1e-2, ((0.9, 0.99), 0.01), (True, True, False)),
        ("adam", optim.Adam, 1e-3, ((0.9, 0.999), 0.0), (False, False, False)),
        ("tutorial", optim.Adam, 1e-3, ((0.9, 0.999), 0.0), (False, False, True)),
    ],
)
def test_a_recipe_means_the_same_in_every_version(
    name: str,
    kind: type[optim.Adam],
    lr: float,
    options: tuple[tuple[float, float], float],
    flags: tuple[bool, bool, bool],
) -> None:
    """A checkpoint has its recipe's name alone."""
    recipe = RECIPES[name]
    optimizer = recipe.optimizer([nn.Parameter(np.ones(1))], 0.5)
    assert type(optimizer) is kind
    assert (recipe.lr, optimizer.lr) == (lr, 0.5)
    assert (optimizer.betas, optimizer.weight_decay) == options
    assert (optimizer.eps, optimizer.amsgrad, optimizer.maximize) == (1e-8, False, False)
    assert (recipe.normalize, recipe.one_cycle, recipe.renew) == flags


def test_the_checksum_covers_every_image_and_label() -> None:
    split, images, labels = some_images(0, 3), some_images(0, 3).images, some_images(0, 3).labels
    images[1, 215] ^= 1
    labels[2] = 9 - labels[2]
    checksums = {
        Run(Options(seed=seed), changed, "cpu").data_crc32
        for changed in (split, Split(images, split.labels), Split(split.images, labels))
        for seed in (0, 1)
    }
    assert len(checksums) == 3


@given(seed=seeds, epoch=st.integers(0, 2))
def test_the_order_of_an_epoch_is_the_one_of_every_version(seed: int, epoch: int) -> None:
    """A checkpoint remembers the position alone, so another order would break it silently."""
    split = Split(np.arange(12, dtype=np.uint8).repeat(784).reshape(12, 784), np.arange(12) % 10)
    run = Run(Options("adam", epochs=3, batch_size=12, seed=seed), split, "cpu")
    ((x, _, _),) = run.batches(epoch, epoch + 1)
    order = np.random.default_rng([seed, epoch + 1]).permutation(12)
    np.testing.assert_array_equal(np.rint(x[:, 0] * 255), order)


@pytest.mark.parametrize(("lr", "smaller"), [(1e9, "0.01;"), (0.02, "0.002;"), (0.005, "0.0005;")])
@pytest.mark.parametrize("made", [0, 3, 5])
def test_a_run_that_diverges_names_its_learning_rate_and_a_smaller_one(
    made: int, lr: float, smaller: str
) -> None:
    """One that may do: the recipe's own, or less."""
    run = Run(Options(batch_size=2, lr=lr), some_images(0, 10), "cpu")
    run.losses.extend([1.0] * made)
    run.model.lin1.weight.data[0, 0] = np.nan
    rate = f"{run.lrs[min(made, 4)]:.3g}"
    words = f"step {made} of 5, learning rate {rate}; expected a finite number: "
    with pytest.raises(Diverged) as caught:
        run.check()
    assert f"{words}try a smaller --lr, such as {smaller}" in f"{caught.value};"


@given(seed=seeds, dtype=dtypes)
def test_evaluation_is_the_mean_in_float64_of_the_losses_of_its_logits(
    xp: ModuleType, seed: int, dtype: Dtype
) -> None:
    model = nn.Mnist_NN(device=device(xp), dtype=dtype, generator=seed)
    split, normalization = some_images(seed, 20), Normalization(0.1, 0.3)
    result = evaluate(model, split, normalization)
    logits = to_numpy(model(normalization(xp.asarray(split.images), dtype)))
    np.testing.assert_array_equal(result.logits, logits, strict=True)
    losses = functional.cross_entropy_forward(logits, split.labels, reduction="none")
    assert result.loss == losses.astype(np.float64).mean()
    right = [int(np.argmax(row)) == y for row, y in zip(logits, split.labels, strict=True)]
    assert result.accuracy == sum(right) / 20


# MNIST.


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty; expected"),
        (b"<html>", "looks like an HTML page, as a failed download leaves it; expected"),
        (idx(np.zeros(2, np.uint8)), "looks like a labels file (it starts with 00 00 08 01)"),
        (idx(np.zeros((2, 2, 2), np.uint8)), "looks like an images file (it starts with 00 00"),
    ],
)
def test_what_a_file_holds_instead_is_told_behind_its_path(
    tmp_path: Path, content: bytes, words: str, pack: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "file"
    path.write_bytes(pack(content))
    with pytest.raises(InputError, match=f"^{re.escape(f'{path}: {words}')}"):
        mnist.read_idx(path, 2)


@pytest.mark.parametrize(("name", "words"), [("", "has no MNIST files"), ("a", "is not a folder")])
def test_what_is_wrong_with_a_folder_is_told_behind_its_path(
    tmp_path: Path, name: str, words: str
) -> None:
    folder = tmp_path / name
    with pytest.raises(InputError, match=f"^{re.escape(f'{folder}: {words}; looked')}"):
        mnist.load(folder)


@pytest.mark.parametrize("shape", [(6,), (1, 6), (2, 3), (0, 6), (1, 1, 1, 6)])
def test_the_largest_file_is_just_that_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]
) -> None:
    """A size of 0 counts as 1."""
    monkeypatch.setattr(mnist, "MAX_BYTES", 6)
    path = tmp_path / "file"
    path.write_bytes(idx(np.zeros(shape, np.uint8)))
    assert mnist.read_idx(path, len(shape)).shape == shape
    path.write_bytes(idx(np.zeros((*shape[:-1], shape[-1] + 1), np.uint8)))
    with pytest.raises(InputError, match="at most 6"):
        mnist.read_idx(path, len(shape))
