"""Checkpoints: they come back bit for bit, in PyTorch too, or say what is wrong with them."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference import mnist_nn
from scratchnet import checkpoint
from scratchnet.checkpoint import SavedRun
from scratchnet.errors import InputError
from scratchnet.nn import Mnist_NN
from scratchnet.training import RECIPES, Normalization, Options, Run
from tests.test_training import some_images

SPLIT = some_images(0, 30)


def new_run(recipe: str = "one-cycle", epochs: int = 2) -> Run:
    return Run(Options(recipe, epochs=epochs, batch_size=8, hidden=5), SPLIT, "cpu")


def go_on(run: Run, steps: int) -> Run:
    for _ in zip(range(steps), run.train(every=1), strict=False):
        pass
    return run


def contents(run: Run, path: Path) -> bytes:
    checkpoint.save_run(path, run)
    return path.read_bytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoint")


@settings(max_examples=40)
@given(recipe=st.sampled_from([*RECIPES]), stop=st.integers(0, 8))
def test_a_run_resumed_at_any_step_is_the_unbroken_run(
    folder: Path, recipe: str, stop: int
) -> None:
    unbroken = go_on(new_run(recipe), 8)
    checkpoint.save_run(folder / checkpoint.RUN, go_on(new_run(recipe), stop))
    resumed = SavedRun.read(folder).resume(SPLIT, device="cpu")
    assert resumed.step == stop
    go_on(resumed, 8)
    assert contents(resumed, folder / "a") == contents(unbroken, folder / "b")


@pytest.mark.parametrize("recipe", ["adam", "tutorial"])
def test_a_run_at_a_constant_rate_can_be_prolonged(tmp_path: Path, recipe: str) -> None:
    checkpoint.save_run(tmp_path / checkpoint.RUN, go_on(new_run(recipe), 8))
    longer = SavedRun.read(tmp_path).resume(SPLIT, device="cpu", epochs=4)
    unbroken = go_on(new_run(recipe, epochs=4), 16)
    assert contents(go_on(longer, 16), tmp_path / "a") == contents(unbroken, tmp_path / "b")


@pytest.mark.parametrize(
    ("recipe", "epochs", "words"),
    [("one-cycle", 3, "can't go on to 3"), ("adam", 1, "has made 8 updates already")],
)
def test_epochs_that_dont_fit_a_saved_run_are_refused(
    tmp_path: Path, recipe: str, epochs: int, words: str
) -> None:
    checkpoint.save_run(tmp_path / checkpoint.RUN, go_on(new_run(recipe), 8))
    with pytest.raises(InputError, match=words):
        SavedRun.read(tmp_path).resume(SPLIT, device="cpu", epochs=epochs)


def test_a_run_goes_on_with_its_own_data_only(tmp_path: Path) -> None:
    checkpoint.save_run(tmp_path / checkpoint.RUN, new_run(), tmp_path / "set")
    saved = SavedRun.read(tmp_path)
    assert saved.data == tmp_path / "set"
    with pytest.raises(InputError, match="other training data"):
        saved.resume(some_images(1, 30), device="cpu")


def save_seeds(folder: Path, seeds: list[int]) -> None:
    for seed in seeds:
        path = checkpoint.seed_folder(folder, seed)
        path.mkdir()
        checkpoint.save_run(path / checkpoint.RUN, new_run().with_seed(seed))


def test_the_networks_of_a_folder_are_found_in_the_order_of_their_seeds(tmp_path: Path) -> None:
    save_seeds(tmp_path, [10, 2, 0])
    for name in ("seed-01", "seed-x", "seed-3b", "my-seed-4", "seed--1"):
        (tmp_path / name).mkdir()
    (tmp_path / "seed-5").touch()
    assert checkpoint.seeds_in(tmp_path) == [0, 2, 10]
    assert checkpoint.seeds_in(tmp_path / "seed-0") == []
    assert checkpoint.seeds_in(tmp_path / "nowhere") == []
    runs = checkpoint.read_runs(tmp_path)
    assert [*runs] == [tmp_path / f"seed-{seed}" for seed in (0, 2, 10)]
    assert [saved.options.seed for saved in runs.values()] == [0, 2, 10]


def test_networks_that_were_not_saved_yet_are_left_out_and_of_none_there_is_no_run(
    tmp_path: Path,
) -> None:
    for seed in (1, 2, 3):
        checkpoint.seed_folder(tmp_path, seed).mkdir()
    with pytest.raises(InputError, match=r"seed-1/checkpoint\.safetensors: there is no such file"):
        checkpoint.read_runs(tmp_path)
    (tmp_path / "seed-2").rmdir()
    save_seeds(tmp_path, [2])
    assert [*checkpoint.read_runs(tmp_path)] == [tmp_path / "seed-2"]


def test_a_folder_with_a_run_of_its_own_is_of_this_run(tmp_path: Path) -> None:
    save_seeds(tmp_path, [1])
    checkpoint.save_run(tmp_path / checkpoint.RUN, new_run())
    ((path, saved),) = checkpoint.read_runs(tmp_path).items()
    assert path == tmp_path
    assert saved.options.seed == 0


@pytest.mark.parametrize("read", [checkpoint.load_model, SavedRun.read])
def test_for_one_network_a_folder_of_several_is_refused(
    tmp_path: Path, read: Callable[[Path], object]
) -> None:
    save_seeds(tmp_path, [3, 7])
    with pytest.raises(InputError, match=r"holds 2 networks; expected one .*seed-3$"):
        read(tmp_path)


@settings(max_examples=10)
@given(stop=st.integers(0, 8), longer=st.integers(0, 2))
def test_a_run_restored_beside_another_is_the_unbroken_run(
    folder: Path, stop: int, longer: int
) -> None:
    """Whose last epoch may be a later one."""
    beside = go_on(new_run("adam", epochs=2 + longer), 5)
    checkpoint.save_run(folder / "seed", go_on(new_run("adam").with_seed(3), stop))
    run = beside.with_seed(3)
    SavedRun.read(folder / "seed").restore(run)
    assert run.images is beside.images
    unbroken = go_on(new_run("adam", epochs=2 + longer).with_seed(3), 16)
    assert contents(go_on(run, 16), folder / "a") == contents(unbroken, folder / "b")


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"recipe": "tutorial"}, {"lr": 0.5}, {"batch_size": 7}, {"limit": 9}]
)
def test_a_run_with_other_options_is_not_restored(
    tmp_path: Path, change: dict[str, object]
) -> None:
    run = new_run("adam")
    checkpoint.save_run(tmp_path / checkpoint.RUN, go_on(new_run("adam"), 4))
    other = Run(replace(run.options, **change), SPLIT, "cpu")  # type: ignore[arg-type]
    before = contents(other, tmp_path / "before")
    with pytest.raises(InputError, match="the run was started with Options"):
        SavedRun.read(tmp_path).restore(other)
    assert contents(other, tmp_path / "after") == before


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_model_comes_back_bit_for_bit_in_both_libraries(
    tmp_path: Path, dtype: type[np.floating]
) -> None:
    model = Mnist_NN(7, 5, 3, device="cpu", dtype=dtype)
    path = tmp_path / checkpoint.MODEL
    checkpoint.save_model(path, model, Normalization(0.1, 0.3))
    saved = checkpoint.load_model(tmp_path, "cpu")
    assert saved.normalization == Normalization(0.1, 0.3)
    network = mnist_nn.Mnist_NN(7, 5, 3).to(torch.float32 if dtype is np.float32 else torch.float64)
    network.load_state_dict(safetensors.torch.load_file(path))
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(saved.model.state_dict()[name], value, strict=True)
        np.testing.assert_array_equal(network.state_dict()[name].numpy(), value, strict=True)


def test_a_model_that_pytorch_saved_takes_pixels_as_they_are(tmp_path: Path) -> None:
    network, path = mnist_nn.Mnist_NN(), tmp_path / "theirs.safetensors"
    safetensors.torch.save_file(network.state_dict(), path, {"format": "pt"})
    saved = checkpoint.load_model(path, "cpu")
    assert saved.normalization == Normalization(0.0, 1.0)
    x = np.random.default_rng(0).random((3, 784)).astype(np.float32)
    y = network(torch.from_numpy(x)).detach().numpy()
    # |x||W| summed is below 784/28 = 28 per hidden unit; a few hundred roundings of that size.
    np.testing.assert_allclose(saved.model(x), y, atol=28 * 800 * 2**-24)


@functools.cache
def saved_model(folder: Path) -> bytes:
    path = folder / "whole.safetensors"
    checkpoint.save_model(path, Mnist_NN(4, 3, 2, device="cpu"), Normalization(0.1, 0.3))
    return path.read_bytes()


@given(data=st.data())
def test_a_model_with_a_changed_byte_is_refused_or_means_the_same(
    folder: Path, data: st.DataObject
) -> None:
    """A space of the header may turn into another white space. The name of our own entry is not
    changed: without it the file is one of another program."""
    content = bytearray(saved_model(folder))
    entry = content.index(b"scratchnet")
    changeable = [i for i in range(len(content)) if not entry <= i < entry + len("scratchnet")]
    where = data.draw(st.sampled_from(changeable))
    old, content[where] = content[where], data.draw(st.integers(0, 255))
    path = folder / "changed.safetensors"
    path.write_bytes(content)
    try:
        saved = checkpoint.load_model(path, "cpu")
    except InputError:
        _assert_refused(folder, bytes(content))
    else:
        assert old == content[where] or (old == ord(" ") and chr(content[where]).isspace())
        checkpoint.save_model(path, saved.model, saved.normalization, saved.data)
        assert path.read_bytes() == saved_model(folder)


@given(data=st.data())
def test_a_model_that_is_cut_off_is_refused_and_left_alone(
    folder: Path, data: st.DataObject
) -> None:
    content = saved_model(folder)
    _assert_refused(folder, content[: data.draw(st.integers(0, len(content) - 1))])


def _assert_refused(folder: Path, content: bytes) -> None:
    path = folder / "damaged.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        checkpoint.load_model(path, "cpu")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == content


def weights(**changes: object) -> Callable[[Path], None]:
    """Writes a model's arrays with some changed, or left out if None."""

    def write(path: Path) -> None:
        arrays = Mnist_NN(4, 3, 2, device="cpu").state_dict() | {
            name.replace("_", "."): value for name, value in changes.items()
        }
        kept = {name: np.asarray(v) for name, v in arrays.items() if v is not None}
        safetensors.numpy.save_file(kept, path)

    return write


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_text("hello"),
        lambda path: path.write_bytes(pickle.dumps({"lin1.weight": [1.0]})),
        lambda path: torch.save(mnist_nn.Mnist_NN().state_dict(), path),
        lambda path: checkpoint.save_run(path, new_run()),
        lambda path: safetensors.torch.save_file({"lin1.weight": torch.ones(2).bfloat16()}, path),
        weights(lin1_bias=None),
        weights(lin1_bias=np.zeros(4, np.float32)),
        weights(lin1_weight=np.zeros(3, np.float32)),
        weights(lin3_bias=np.zeros(3, np.float32)),
        weights(lin2_weight=np.zeros((2, 3), np.float64)),
        weights(lin1_weight=np.zeros((3, 4), np.float16)),
        weights(lin1_weight=np.zeros((3, 4), np.int64)),
        weights(lin2_bias=np.zeros((), np.float32)),
    ],
)
def test_what_is_no_model_is_refused_in_one_line(
    tmp_path: Path, write: Callable[[Path], object]
) -> None:
    write(tmp_path / "foreign.safetensors")
    _assert_refused(tmp_path, (tmp_path / "foreign.safetensors").read_bytes())


@pytest.mark.parametrize("read", [checkpoint.load_model, SavedRun.read])
def test_missing_files_and_folders_are_told(tmp_path: Path, read: Callable[[Path], object]) -> None:
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(InputError, match="there is no such file"):
            read(path)


def test_a_model_is_no_checkpoint_of_a_run(tmp_path: Path) -> None:
    for write in (weights(), lambda path: checkpoint.save_model(path, Mnist_NN(), Normalization())):
        write(tmp_path / "model")
        with pytest.raises(InputError, match="not the checkpoint of a run"):
            SavedRun.read(tmp_path / "model")
