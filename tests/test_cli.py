"""The command line, as real processes: what it leaves, what it says, and what survives a kill."""

from __future__ import annotations

import csv
import gzip
import json
import os
import pty
import random
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from reference import mnist_nn
from scratchnet import backend, checkpoint, engines, mnist
from scratchnet.checkpoint import SavedRun
from scratchnet.errors import InputError

ROOT = Path(__file__).parent.parent
COMMAND = [sys.executable, "-m", "scratchnet"]
# Long enough to be caught in the middle, short enough to be repeated.
SMALL = ["--limit", "4000", "--batch-size", "16", "--epochs", "8", "--device", "cpu"]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}
NO_GPU = backend.why_no_gpu() is not None
CPU_ENGINES = [name for name in engines.NAMES if name not in engines.CUDA]


def start(*arguments: object, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        cwd=cwd,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def scratchnet(*arguments: object, cwd: Path, fails: bool = False) -> tuple[str, str]:
    """Run a command to its end; its output and error output."""
    process = start(*arguments, cwd=cwd)
    out, err = process.communicate(timeout=120)
    assert (process.returncode != 0) == fails, err
    return out, err


def one_line_error(*arguments: object, cwd: Path) -> str:
    """The error of a command that fails, which is one line and no traceback."""
    _, err = scratchnet(*arguments, cwd=cwd, fails=True)
    assert err.startswith("Error: "), err
    assert err.count("\n") == 1, err
    return err


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with default options."""
    folder = tmp_path_factory.mktemp("trained")
    out, err = scratchnet("train", "--out", "run", cwd=folder)
    assert "validation accuracy 96" in out
    assert err == "", "no progress bar where there is no terminal"
    return folder / "run"


def test_train_leaves_all_its_results(trained: Path) -> None:
    assert sorted(path.name for path in trained.iterdir()) == [
        "checkpoint.safetensors",
        "confusion.png",
        "losses.csv",
        "losses.png",
        "mistakes.png",
        "model.safetensors",
        "summary.json",
        "weights.png",
    ]
    summary = json.loads((trained / "summary.json").read_text())
    assert summary["validation_accuracy"] >= 0.961
    assert summary["test_accuracy"] >= 0.955
    assert summary["recipe"] == "one-cycle"
    assert summary["engine"] == "layers"
    assert summary["steps"] == 782
    assert summary["seed"] == 0
    assert summary["device"] in ("cpu", "cuda")
    assert summary["seconds"] > 0
    assert summary["versions"]["numpy"] == np.__version__
    rows = list(csv.DictReader((trained / "losses.csv").read_text().splitlines()))
    assert [int(row["step"]) for row in rows] == list(range(1, 783))
    losses = [float(row["loss"]) for row in rows]
    assert np.mean(losses[-50:]) < 0.3 < losses[0]
    assert max(float(row["learning_rate"]) for row in rows) == pytest.approx(0.01, rel=1e-4)
    for path in trained.glob("*.png"):
        with Image.open(path) as image:
            image.load()
            assert min(image.size) >= 400


def test_evaluate_repeats_the_accuracy_of_training(trained: Path) -> None:
    summary = json.loads((trained / "summary.json").read_text())
    for path in (trained, trained / "model.safetensors"):
        out, _ = scratchnet("evaluate", path, cwd=trained)
        about, validation, test = out.splitlines()
        assert about == "on the bundled MNIST"
        assert validation.endswith(f"accuracy {summary['validation_accuracy']:.2%}")
        assert test.endswith(f"accuracy {summary['test_accuracy']:.2%}")


def test_evaluate_takes_a_model_that_pytorch_saved(tmp_path: Path) -> None:
    network, test = mnist_nn.Mnist_NN(), mnist.load().test
    safetensors.torch.save_file(network.state_dict(), tmp_path / "theirs.safetensors")
    with torch.no_grad():
        logits = network(torch.from_numpy(mnist.to_float(test.images)))
    accuracy = (logits.argmax(dim=1).numpy() == test.labels).mean()
    out, _ = scratchnet("evaluate", "theirs.safetensors", cwd=tmp_path)
    # Of the 10,000 pairs of logits, one may be equal but for rounding.
    found = float(out.splitlines()[-1].split()[-1].rstrip("%")) / 100
    assert abs(found - accuracy) < 1.5e-4


def test_predict_reads_pictures_of_digits(trained: Path, tmp_path: Path) -> None:
    test = mnist.load().test
    for digit in (3, 7):
        image = test.images[test.labels == digit][0].reshape(28, 28)
        picture = Image.fromarray(255 - image).resize((200, 200), Image.Resampling.BICUBIC)
        picture.save(tmp_path / f"{digit}.png")
    out, _ = scratchnet("predict", trained, "3.png", "7.png", cwd=tmp_path)
    assert "3.png: 3, confidence " in out
    assert "7.png: 7, confidence " in out
    assert len(out.splitlines()) == 2 * 29, "28 rows of the picture, and the answer"


def test_predict_tells_of_a_bad_picture_and_reads_the_others(trained: Path, tmp_path: Path) -> None:
    image = mnist.load().test.images[0].reshape(28, 28)
    Image.fromarray(image).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_text("no picture")
    out, err = scratchnet("predict", trained, "bad.png", "good.png", cwd=tmp_path, fails=True)
    assert "good.png: 7" in out
    assert err.startswith("Error: bad.png")
    assert err.count("\n") == 1


def test_a_run_without_out_takes_the_next_free_folder(tmp_path: Path) -> None:
    for number in (1, 2):
        scratchnet("train", "--limit", 64, cwd=tmp_path)
        assert (tmp_path / "runs" / str(number) / "summary.json").exists()


def test_a_run_never_overwrites_another(trained: Path) -> None:
    before = (trained / "summary.json").read_bytes()
    assert "holds a run already" in one_line_error(
        "train", "--out", trained, "--seed", 1, cwd=trained
    )
    out, _ = scratchnet("train", "--resume", trained, cwd=trained)
    assert "complete" in out
    assert (trained / "summary.json").read_bytes() == before


def results(folder: Path) -> dict[str, bytes]:
    return {
        name: (folder / name).read_bytes()
        for name in ("checkpoint.safetensors", "model.safetensors", "losses.csv")
    }


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The results of a small run that nothing interrupted."""
    return of_unbroken(tmp_path_factory.mktemp("unbroken"), "layers")


def of_unbroken(folder: Path, engine: str) -> dict[str, bytes]:
    scratchnet("train", *SMALL, "--engine", engine, "--out", "run", cwd=folder)
    return results(folder / "run")


def step_of(folder: Path) -> int:
    """How far a run has been saved; 0 if not at all."""
    try:
        return len(SavedRun.read(folder)._arrays["losses"])
    except InputError:
        return 0


@pytest.mark.parametrize("engine", CPU_ENGINES)
def test_a_run_killed_again_and_again_ends_with_the_same_bytes(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, engine: str
) -> None:
    """SIGKILL wherever the process happens to be, once it has come further than the last time."""
    unbroken = of_unbroken(tmp_path_factory.mktemp("unbroken"), engine)
    arguments = ["train", *SMALL, "--engine", engine, "--out", "run"]
    rng = random.Random(engine)
    kill_again_and_again(tmp_path / "run", arguments, step_of, [7, 50, 130], (300, 900), rng)
    assert results(tmp_path / "run") == unbroken


def kill_again_and_again(
    out: Path,
    arguments: Sequence[object],
    reached: Callable[[Path], int],
    save_every: Sequence[int],
    more: tuple[int, int],
    rng: random.Random,
) -> None:
    """Start a run in a folder, kill it when that has come so many steps further, go on with it."""
    kills = 0
    while True:
        process = start(*arguments, "--save-every", rng.choice(save_every), cwd=out.parent)
        enough = reached(out) + rng.randrange(*more)
        while process.poll() is None and reached(out) < enough:
            pass
        process.kill()
        process.communicate()
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
        kills += 1
        arguments = ["train", "--resume", out.name]
    assert kills >= 2


@pytest.mark.parametrize("moment", [1, 2, 3, 4, 11, 14])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_between_two_files_loses_nothing(
    tmp_path: Path, unbroken: dict[str, bytes], moment: int, when: str
) -> None:
    """SIGKILL just before or just after the n-th file is put in its place: the worst moments.

    Five checkpoints are two files each, losses.csv is the 11th, and the 14th is a picture.
    """
    program = f"""
import os, signal
from scratchnet.cli import main
replace, count = os.replace, 0
def killed(*paths):
    global count
    count += 1
    if count == {moment} and {when == "before"}: os.kill(os.getpid(), signal.SIGKILL)
    replace(*paths)
    if count == {moment}: os.kill(os.getpid(), signal.SIGKILL)
os.replace = killed
main()
"""
    arguments = ["train", *SMALL, "--out", "run"]
    killed = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=tmp_path, env=ENVIRONMENT, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    if (tmp_path / "run" / checkpoint.RUN).exists():
        arguments = ["train", "--resume", "run"]
    scratchnet(*arguments, cwd=tmp_path)
    assert results(tmp_path / "run") == unbroken
    assert len(list((tmp_path / "run").glob("*"))) == 8
    assert "complete" in scratchnet("train", "--resume", "run", cwd=tmp_path)[0]


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_saves_and_says_how_to_go_on(
    tmp_path: Path, unbroken: dict[str, bytes], kind: signal.Signals
) -> None:
    # Saving at every second step makes the run last long enough to be interrupted in its midst.
    process = start("train", *SMALL, "--out", "run", "--save-every", 2, cwd=tmp_path)
    while step_of(tmp_path / "run") == 0:
        assert process.poll() is None
    process.send_signal(kind)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + kind
    assert "interrupted after step" in err
    command = err.split("go on with: scratchnet ")[1].split()
    assert 0 < step_of(tmp_path / "run") < 2000
    scratchnet(*command, cwd=tmp_path)
    assert results(tmp_path / "run") == unbroken


INTERRUPTED = """
import runpy, sys
class Interrupting:
    def find_spec(self, name, *_):
        if name == "{name}":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupting())
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(
    ("command", "imported"),
    [
        ("scratchnet doctor", "numpy"),
        ("scratchnet doctor", "scratchnet.doctor"),
        ("scratchnet study page", "scratchnet.study.page_facts"),
        ("reference", "torch"),
        ("reference --steps 1", "reference.twin"),
        ("benchmarks", "numpy"),
        ("benchmarks", "benchmarks.experiments"),
    ],
)
def test_ctrl_c_is_told_in_one_line_wherever_it_comes(
    tmp_path: Path, command: str, imported: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED.format(name=imported), *command.split()],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 128 + signal.SIGINT
    assert done.stderr == "\ninterrupted; to have the rest, start it again\n"


def on_a_terminal(*arguments: object, cwd: Path) -> str:
    """All that a command writes to its error output, if that is a terminal."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 120))
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        cwd=cwd,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # Linux's end of a terminal
            break
        if not part:
            break
        shown += part
    os.close(ours)
    assert process.wait() == 0
    return shown.decode()


def test_a_terminal_shows_loss_accuracy_speed_and_time_left(tmp_path: Path) -> None:
    text = on_a_terminal("train", *SMALL, "--out", "run", cwd=tmp_path)
    assert "loss " in text
    assert "accuracy " in text
    assert "step/s" in text
    assert "<00:" in text, "the time left"
    assert "2000/2000" in text


def test_a_diverging_run_stops_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    options = ["--recipe", "adam", "--lr", "1e30", "--limit", 640, "--save-every", 1]
    err = one_line_error("train", *options, "--out", "run", cwd=tmp_path)
    assert "at step" in err
    assert "try a smaller --lr" in err
    assert "stays in run" in err
    model = checkpoint.load_model(tmp_path / "run", "cpu").model
    assert all(np.isfinite(value).all() for value in model.state_dict().values())
    assert not (tmp_path / "run" / "summary.json").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--epochs", 0], "epochs is 0"),
        (["--lr", "nan"], "lr is nan"),
        (["--lr", -1], "lr is -1.0"),
        (["--hidden", 0], "hidden is 0"),
        (["--limit", 0], "limit is 0"),
        (["--seeds", 0], "seeds is 0; expected 1 to 10,000"),
        (["--seeds", 10**9], "seeds is 1000000000; expected 1 to 10,000"),
        (["--seeds", 2, "--epochs", 0], "epochs is 0"),
        (["--data", "nowhere"], "nowhere: is not a folder"),
        (["--resume", "nowhere"], "there is no such file"),
    ],
)
def test_bad_input_is_told_in_one_line_and_nothing_is_left(
    tmp_path: Path, options: list[object], words: str
) -> None:
    assert words in one_line_error("train", *options, cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_limit_above_all_images_is_told(tmp_path: Path) -> None:
    write_set(tmp_path / "set")
    for limit, told in ((11, "limit is 11; there are 10 images: all are used\n"), (10, "")):
        out, err = scratchnet("train", "--data", "set", "--limit", limit, cwd=tmp_path)
        assert ", 10 images," in out
        assert err == told


def write_set(folder: Path, images: int = 12, labels: int = 12) -> None:
    """A small data set in MNIST's format: a bright row whose height is the class."""
    folder.mkdir(parents=True)
    for prefix in ("train", "t10k"):
        kinds = np.arange(images) % 10
        pixels = np.zeros((images, 28, 28), np.uint8)
        pixels[np.arange(images), 2 * kinds + 3] = 255
        header = b"".join(size.to_bytes(4, "big") for size in (images, 28, 28))
        content = b"\0\0\x08\x03" + header + pixels.tobytes()
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(content)
        content = b"\0\0\x08\x01" + labels.to_bytes(4, "big") + bytes(range(10)) * labels
        content = content[: 8 + labels]
        (folder / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(content))


def test_another_data_set_is_learned_and_found_again(tmp_path: Path) -> None:
    write_set(tmp_path / "Rows" / "raw", images=1200, labels=1200)
    options = ["--data", "Rows", "--out", "run", "--epochs", 5, "--recipe", "adam", "--lr", 0.01]
    scratchnet("train", *options, cwd=tmp_path)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["data"] == "Rows"
    assert summary["test_accuracy"] == 1
    (tmp_path / "elsewhere").mkdir()
    scratchnet("train", "--resume", "../run", "--epochs", 6, cwd=tmp_path / "elsewhere")
    assert step_of(tmp_path / "run") == 6 * 16
    for data in (["--data", "Rows/raw"], []):
        out, _ = scratchnet("evaluate", "run", *data, cwd=tmp_path)
        assert out.count("accuracy 100.00%") == 2, "without --data, the set that it was trained on"
    (tmp_path / "Rows").rename(tmp_path / "Moved")
    assert "is not a folder" in one_line_error("evaluate", "run", cwd=tmp_path)
    scratchnet("train", "--resume", "run", "--epochs", 7, "--data", "Moved", cwd=tmp_path)
    assert "of at least 7" in one_line_error(
        "train", "--resume", "run", "--epochs", 6, "--data", "Moved", cwd=tmp_path
    )


def test_a_bad_data_set_is_told_and_nothing_is_trained(tmp_path: Path) -> None:
    write_set(tmp_path / "set", images=12, labels=11)
    err = one_line_error("train", "--data", "set", "--out", "run", cwd=tmp_path)
    assert "train-labels-idx1-ubyte.gz: has 11 labels for the 12 images" in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("option", ["--lr", "--hidden", "--seed", "--seeds", "--limit"])
def test_a_resumed_run_keeps_its_options(trained: Path, option: str) -> None:
    err = one_line_error("train", "--resume", trained, option, 1, cwd=trained)
    assert f"{option}: can't be changed in a resumed run" in err


def test_a_damaged_checkpoint_is_told_and_left_as_it_is(trained: Path, tmp_path: Path) -> None:
    for name, command in (("checkpoint", ["train", "--resume"]), ("model", ["evaluate"])):
        content = bytearray((trained / f"{name}.safetensors").read_bytes())
        content[-100] ^= 1
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(content)
        assert "damaged" in one_line_error(*command, ".", cwd=tmp_path)
        assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        (((50, 700), (10, 50)), "with 700 inputs and 10 classes"),
        (((50, 784), (12, 50)), "with 784 inputs and 12 classes"),
        (((50, 784), (10, 50), np.nan), "lin2.bias is not finite"),
    ],
)
def test_a_model_for_other_pictures_is_told(
    tmp_path: Path, shapes: tuple[Any, ...], words: str
) -> None:
    (hidden, inputs), (classes, _), *bias = shapes
    network = mnist_nn.Mnist_NN(inputs, hidden, classes)
    if bias:
        torch.nn.init.constant_(network.lin2.bias, *bias)
    safetensors.torch.save_file(network.state_dict(), tmp_path / "m")
    Image.new("L", (30, 30)).save(tmp_path / "i.png")
    for arguments in (["evaluate", "m"], ["predict", "m", "i.png"]):
        assert words in one_line_error(*arguments, cwd=tmp_path)


def test_a_pipe_for_a_model_is_told_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "is not a file" in one_line_error("evaluate", "pipe", cwd=tmp_path)


def test_two_processes_dont_train_in_one_folder(tmp_path: Path) -> None:
    first = start("train", *SMALL, "--out", "run", cwd=tmp_path)
    while step_of(tmp_path / "run") == 0:
        assert first.poll() is None
    assert "another process" in one_line_error("train", "--resume", "run", cwd=tmp_path)
    first.kill()
    first.communicate()
    scratchnet("train", "--resume", "run", cwd=tmp_path)


def test_a_backend_of_a_notebooks_does_no_harm(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "train", "--limit", "64", "--out", "run"],
        cwd=tmp_path,
        env=ENVIRONMENT | {"MPLBACKEND": "module://not_installed.backend"},
        check=False,
    )
    assert done.returncode == 0
    assert (tmp_path / "run" / "mistakes.png").exists()


def test_more_memory_than_there_is_is_told_in_one_line(tmp_path: Path) -> None:
    for option in ("--hidden", "--epochs"):
        assert "memory" in one_line_error("train", option, 10**14, cwd=tmp_path)


def test_doctor_tells_what_is_there_and_what_would_bring_the_rest(tmp_path: Path) -> None:
    out, _ = scratchnet("doctor", cwd=tmp_path)
    findings = {line[:13].strip(): line[13:].strip() for line in out.splitlines()}
    assert findings["NumPy"] == np.__version__
    assert "thread(s)" in findings["BLAS"]
    assert findings["PyTorch"] == torch.__version__.split("+")[0]
    if NO_GPU:
        assert findings["device"] == "cpu"
        assert findings["CuPy"].startswith(("not installed; ", "installed, but "))
        assert "pip install" in findings["CuPy"]
    else:
        assert findings["device"] == "cuda"
        assert "GiB" in findings["GPU 0"]


@pytest.mark.skipif(not NO_GPU, reason="there is a GPU")
@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_a_gpu_that_is_not_there_is_an_error(trained: Path, command: str) -> None:
    arguments = [trained] if command == "evaluate" else []
    err = one_line_error(command, *arguments, "--device", "cuda", cwd=trained)
    assert "device cuda: " in err
    assert "scratchnet doctor" in err


def test_only_what_is_needed_is_imported(tmp_path: Path) -> None:
    program = (
        "import sys, scratchnet.cli\n"
        "print(sorted({'torch', 'torchvision', 'matplotlib', 'PIL', 'cupy'} & sys.modules.keys()))"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    assert found.stdout == "[]\n"
