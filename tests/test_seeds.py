"""Several networks at once, as real processes: each is the network alone, whatever interrupts."""

from __future__ import annotations

import csv
import json
import random
import shutil
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scratchnet import checkpoint, files, mnist
from scratchnet import results as outcome
from scratchnet.checkpoint import SavedRun
from scratchnet.results import Result
from scratchnet.training import Options, Run
from tests.test_cli import (
    CPU_ENGINES,
    ENVIRONMENT,
    kill_again_and_again,
    on_a_terminal,
    one_line_error,
    results,
    scratchnet,
    start,
    step_of,
    write_set,
)

SEEDS = (3, 4)
OPTIONS = ["--limit", 640, "--epochs", 20, "--batch-size", 16, "--device", "cpu"]  # 800 steps
TRAIN = ["train", *OPTIONS, "--seed", 3, "--seeds", 2, "--out", "set"]
FIELDS = ("validation_loss", "validation_accuracy", "test_loss", "test_accuracy")


def folders(folder: Path) -> list[Path]:
    return [folder / f"seed-{seed}" for seed in SEEDS]


def of_all(folder: Path) -> list[dict[str, bytes]]:
    return [results(each) for each in folders(folder)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of two networks, of the seeds 3 and 4."""
    folder = tmp_path_factory.mktemp("trained")
    out, err = scratchnet(*TRAIN, cwd=folder)
    assert "2 seeds from 3 on" in out
    assert err == ""
    return folder / "set"


@pytest.mark.parametrize("engine", CPU_ENGINES)
def test_each_network_is_the_one_that_is_trained_alone(
    trained: Path, tmp_path: Path, engine: str
) -> None:
    """To the byte, in model, checkpoint and losses."""
    if engine != "layers":
        scratchnet(*TRAIN, "--engine", engine, cwd=tmp_path)
        trained = tmp_path / "set"
    for seed, several in zip(SEEDS, of_all(trained), strict=True):
        arguments = [*OPTIONS, "--engine", engine, "--seed", seed, "--out", f"alone-{seed}"]
        scratchnet("train", *arguments, cwd=tmp_path)
        assert several == results(tmp_path / f"alone-{seed}")


def test_every_network_has_its_folder_and_all_have_a_table_and_a_picture(
    trained: Path,
) -> None:
    names = ["seed-3", "seed-4", "seeds.csv", "seeds.png", "summary.json"]
    assert sorted(path.name for path in trained.iterdir()) == names
    for folder in folders(trained):
        inside = sorted(path.name for path in folder.iterdir())
        assert inside == [
            "checkpoint.safetensors",
            "losses.csv",
            "model.safetensors",
            "summary.json",
        ]
    with Image.open(trained / "seeds.png") as image:
        image.load()
        assert min(image.size) >= 400


def test_the_table_and_the_summary_tell_what_each_network_does(trained: Path) -> None:
    single = [json.loads((folder / "summary.json").read_text()) for folder in folders(trained)]
    rows = list(csv.DictReader((trained / "seeds.csv").read_text().splitlines()))
    summary = json.loads((trained / "summary.json").read_text())
    assert [int(row["seed"]) for row in rows] == [*SEEDS]
    for name in FIELDS:
        values = [each[name] for each in single]
        assert [float(row[name]) for row in rows] == values
        assert summary[name]["median"] == pytest.approx(statistics.median(values), rel=1e-15)
        assert (summary[name]["lowest"], summary[name]["highest"]) == (min(values), max(values))
        assert len({*values}) > 1
    assert (summary["seed"], summary["diverged_seeds"]) == ([3, 4], [])
    assert (summary["steps"], summary["networks"], summary["epochs"]) == (800, 2, 20)
    for seed, each in zip(SEEDS, single, strict=True):
        assert (each["seed"], each["steps"], each["networks"]) == (seed, 800, 2)


def test_the_spread_is_that_of_the_networks_that_did_not_diverge() -> None:
    found = [Result(0.5, 0.9, 1, 0.1), None, Result(0.2, 0.7, 3, 0.2), Result(0.3, 0.6, 2, 0.6)]
    spread = outcome.spread(found)
    assert spread["validation_loss"] == {"median": 0.3, "lowest": 0.2, "highest": 0.5}
    assert spread["test_accuracy"] == {"median": 0.2, "lowest": 0.1, "highest": 0.6}
    assert [*spread] == [*FIELDS]
    assert outcome.spread([None, None]) == {}


def test_one_of_several_networks_is_a_run_like_any_other(trained: Path) -> None:
    summary = json.loads((trained / "seed-4" / "summary.json").read_text())
    out, _ = scratchnet("evaluate", "seed-4", cwd=trained)
    assert out.splitlines()[2].endswith(f"accuracy {summary['test_accuracy']:.2%}")
    assert "complete" in scratchnet("train", "--resume", "seed-4", cwd=trained)[0]
    err = one_line_error("evaluate", "--device", "cpu", ".", cwd=trained)
    assert ".: holds 2 networks; expected one of them, such as seed-3" in err


def test_a_folder_of_several_networks_is_never_overwritten(trained: Path, tmp_path: Path) -> None:
    before = (trained / "summary.json").read_bytes()
    assert "complete" in scratchnet("train", "--resume", trained, cwd=trained)[0]
    for seeds in (1, 2, 64):
        err = one_line_error(*TRAIN, "--seeds", seeds, "--out", trained, cwd=trained)
        assert "holds a run already" in err
    assert (trained / "summary.json").read_bytes() == before
    shutil.copy(trained / "summary.json", tmp_path)
    assert "holds a run already" in one_line_error(*TRAIN, "--out", tmp_path, cwd=trained)
    assert [*tmp_path.iterdir()] == [tmp_path / "summary.json"]


def test_what_another_start_has_left_is_not_taken_for_a_network(tmp_path: Path) -> None:
    for seed in (3, 7):
        (tmp_path / "set" / f"seed-{seed}").mkdir(parents=True)
    err = one_line_error(*TRAIN, cwd=tmp_path)
    assert err.startswith("Error: set/seed-7: would count as one of the networks; ")
    assert len([*tmp_path.glob("set/*")]) == 2
    (tmp_path / "set" / "seed-7").rmdir()
    assert "2 seeds from 3 on" in scratchnet(*TRAIN, cwd=tmp_path)[0]


@pytest.mark.parametrize("gone", [3, 4])
def test_a_network_that_is_gone_is_told_and_can_be_trained_anew(
    trained: Path, tmp_path: Path, gone: int
) -> None:
    """The summary tells that it was there."""
    shutil.copytree(trained, tmp_path / "set")
    shutil.rmtree(tmp_path / "set" / f"seed-{gone}")
    err = one_line_error("train", "--resume", "set", cwd=tmp_path)
    assert err.startswith(f"Error: set/seed-{gone}: is missing; ")
    (tmp_path / "set" / f"seed-{gone}").mkdir()
    scratchnet("train", "--resume", "set", cwd=tmp_path)
    assert of_all(tmp_path / "set") == of_all(trained)


def test_a_gap_between_seeds_is_told_before_there_is_a_summary(tmp_path: Path) -> None:
    save(tmp_path / "set", *map(small_run, (3, 6)))
    (tmp_path / "set" / "seed-abc").mkdir()  # of no seed
    for seed in (4, 5):
        err = one_line_error("train", "--resume", "set", cwd=tmp_path)
        assert err.startswith(f"Error: set/seed-{seed}: is missing; ")
        (tmp_path / "set" / f"seed-{seed}").mkdir()
    assert "4 seeds from 3 on" in scratchnet("train", "--resume", "set", cwd=tmp_path)[0]


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"steps": 800'])
def test_a_summary_that_tells_nothing_is_written_anew(
    trained: Path, tmp_path: Path, content: str
) -> None:
    shutil.copytree(trained, tmp_path / "set")
    (tmp_path / "set" / "summary.json").write_text(content)
    scratchnet("train", "--resume", "set", cwd=tmp_path)
    assert json.loads((tmp_path / "set" / "summary.json").read_text())["seed"] == [*SEEDS]


def least_step(folder: Path) -> int:
    return min(step_of(each) for each in folders(folder))


def test_networks_killed_again_and_again_end_with_the_same_bytes(
    trained: Path, tmp_path: Path
) -> None:
    """SIGKILL wherever the process happens to be, once it has come further than the last time."""
    rng = random.Random(0)
    kill_again_and_again(tmp_path / "set", TRAIN, least_step, [7, 20, 45], (100, 300), rng)
    assert of_all(tmp_path / "set") == of_all(trained)


def changed(program: str, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command with some of its functions replaced."""
    whole = f"import os, signal\nfrom scratchnet.cli import main\n{program}\nmain()"
    return subprocess.run(
        [sys.executable, "-c", whole, *map(str, arguments)],
        cwd=cwd,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("moment", [1, 3, 7, 11, 15])
def test_a_kill_between_two_files_loses_nothing(trained: Path, tmp_path: Path, moment: int) -> None:
    """SIGKILL just before the n-th file is put in its place.

    Two networks are two files each, at the steps 0, 400 and 800: with the third, the seventh and
    the 11th missing the second network is behind, or was not saved at all. With the 13th begins
    what is for reading, six files each.
    """
    program = f"""
count, replace = 0, os.replace
def killed(*paths):
    global count
    count += 1
    if count == {moment}: os.kill(os.getpid(), signal.SIGKILL)
    replace(*paths)
os.replace = killed
"""
    arguments = [*TRAIN, "--save-every", 400]
    killed = changed(program, *arguments, cwd=tmp_path)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "set" / "summary.json").exists()
    scratchnet(*(arguments if moment == 1 else ["train", "--resume", "set"]), cwd=tmp_path)
    assert of_all(tmp_path / "set") == of_all(trained)
    assert len(list((tmp_path / "set").glob("*/*"))) == 2 * 4
    assert "complete" in scratchnet("train", "--resume", "set", cwd=tmp_path)[0]


def test_ctrl_c_saves_all_and_says_how_to_go_on(trained: Path, tmp_path: Path) -> None:
    """While the first of them makes update 123, when neither has been saved since step 0."""
    program = """
from scratchnet.engines.layers import Engine
advance = Engine.advance
def interrupted(engine, first, last):
    if engine.run.options.seed == 3 and first <= 123 < last: os.kill(os.getpid(), signal.SIGINT)
    return advance(engine, first, last)
Engine.advance = interrupted
"""
    stopped = changed(program, *TRAIN, cwd=tmp_path)
    assert stopped.returncode == 128 + signal.SIGINT
    step = int(stopped.stderr.split("interrupted after step ")[1].split()[0])
    assert 123 < step < 500
    assert [step_of(each) for each in folders(tmp_path / "set")] == [step] * 2
    scratchnet(*stopped.stderr.split("go on with: scratchnet ")[1].split(), cwd=tmp_path)
    assert of_all(tmp_path / "set") == of_all(trained)


def small_run(seed: int, recipe: str = "adam") -> Run:
    options = Options(recipe, batch_size=64, limit=640, seed=seed)  # ten steps
    return Run(options, mnist.load().train, "cpu")


def save(folder: Path, *runs: Run) -> None:
    """As the command leaves them that is killed."""
    for run in runs:
        path = checkpoint.seed_folder(folder, run.options.seed)
        path.mkdir(parents=True)
        checkpoint.save_run(path / checkpoint.RUN, run)
        checkpoint.save_model(path / checkpoint.MODEL, run.model, run.normalization)


def exploding(run: Run) -> Run:
    """Its numbers are finite, and the products of the next update are not."""
    run.model.parameters()[0].buffer.data[:] = 1e38
    return run


def test_the_others_are_finished_when_one_diverges(tmp_path: Path) -> None:
    save(tmp_path / "set", small_run(3), exploding(small_run(4)), small_run(5))
    process = start("train", "--resume", "set", cwd=tmp_path)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "median validation accuracy" in out
    assert err.startswith("Error: 1 of 3 networks diverged, see set/seeds.csv; the first: seed 4: ")
    assert "at step 0 of 10" in err
    assert "try a smaller --lr" in err
    rows = list(csv.DictReader((tmp_path / "set" / "seeds.csv").read_text().splitlines()))
    assert [row["diverged_at_step"] for row in rows] == ["", "0", ""]
    assert [bool(row["test_accuracy"]) for row in rows] == [True, False, True]
    summary = json.loads((tmp_path / "set" / "summary.json").read_text())
    assert summary["diverged_seeds"] == [4]
    accuracies = [float(row["validation_accuracy"]) for row in (rows[0], rows[2])]
    assert summary["validation_accuracy"]["median"] == pytest.approx(np.mean(accuracies), rel=1e-15)
    told = json.loads((tmp_path / "set" / "seed-4" / "summary.json").read_text())
    assert told["diverged"] in err
    assert "validation_accuracy" not in told
    again = start("train", "--resume", "set", cwd=tmp_path)
    assert err == again.communicate(timeout=120)[1]
    assert again.returncode == 1
    err = one_line_error("train", "--resume", "set/seed-4", cwd=tmp_path)
    assert "seed 4: " in err
    assert "checkpoint of step 0 stays in set/seed-4" in err
    scratchnet("train", "--limit", 640, "--recipe", "adam", "--seed", 5, "--out", "5", cwd=tmp_path)
    assert results(tmp_path / "set" / "seed-5")["model.safetensors"] == (
        (tmp_path / "5" / "model.safetensors").read_bytes()
    )


def test_where_every_network_diverges_their_losses_are_all_that_is_left(tmp_path: Path) -> None:
    process = start(*TRAIN, "--recipe", "adam", "--lr", "1e30", "--save-every", 1, cwd=tmp_path)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "every network diverged" in out
    assert err.startswith("Error: 2 of 2 networks diverged")
    names = {path.name for path in (tmp_path / "set").iterdir()}
    assert names == {"seed-3", "seed-4", "seeds.csv", "seeds.png", "summary.json"}
    for folder in folders(tmp_path / "set"):
        assert len((folder / "losses.csv").read_text().splitlines()) > 1
        model = checkpoint.load_model(folder, "cpu").model
        assert all(np.isfinite(value).all() for value in model.state_dict().values())


def test_one_network_can_go_on_alone_and_the_others_catch_up(tmp_path: Path) -> None:
    """Up to its last epoch: it may have been prolonged."""
    save(tmp_path / "set", *map(small_run, SEEDS))
    (tmp_path / "set" / "seed-5").mkdir()  # not yet saved when the process was killed
    scratchnet("train", "--resume", "set/seed-4", "--epochs", 2, cwd=tmp_path)
    assert [step_of(each) for each in folders(tmp_path / "set")] == [0, 20]
    out, _ = scratchnet("train", "--resume", "set", cwd=tmp_path)
    assert "3 seeds from 3 on" in out
    assert "20 steps" in out
    for seed in (*SEEDS, 5):
        saved = SavedRun.read(tmp_path / "set" / f"seed-{seed}")
        assert (saved.options.seed, saved.options.epochs) == (seed, 2)
        assert step_of(tmp_path / "set" / f"seed-{seed}") == 20
    scratchnet("train", "--resume", "set", "--epochs", 3, cwd=tmp_path)
    assert least_step(tmp_path / "set") == 30


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (lambda: small_run(4, "tutorial"), "was started with Options(recipe='tutorial'"),
        (lambda: small_run(7), "seed=7"),
    ],
)
def test_a_network_that_is_not_of_these_is_told(
    tmp_path: Path, other: Callable[[], Run], words: str
) -> None:
    save(tmp_path / "set", *map(small_run, SEEDS))
    checkpoint.save_run(tmp_path / "set" / "seed-4" / checkpoint.RUN, other())
    err = one_line_error("train", "--resume", "set", cwd=tmp_path)
    assert "seed-4" in err
    assert words in err
    assert least_step(tmp_path / "set") == 0


def test_there_may_be_more_networks_than_files_can_be_open(tmp_path: Path) -> None:
    program = "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))"
    write_set(tmp_path / "few")
    options = ["--data", "few", "--seeds", 64, "--device", "cpu", "--out", "set"]
    done = changed(program, "train", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "set" / "seeds.csv").read_text().splitlines()) == 1 + 64


def test_two_networks_of_several_may_be_trained_alone_and_then_not_all(tmp_path: Path) -> None:
    save(tmp_path / "set", *map(small_run, SEEDS))
    with files.lock(tmp_path / "set", shared=True), files.lock(tmp_path / "set" / "seed-3"):
        scratchnet("train", "--resume", "set/seed-4", cwd=tmp_path)
        for folder in ("set", "set/seed-3"):
            assert "another process" in one_line_error("train", "--resume", folder, cwd=tmp_path)


def test_a_network_is_not_trained_by_two_processes(tmp_path: Path) -> None:
    first = start(*TRAIN, "--save-every", 2, cwd=tmp_path)
    while least_step(tmp_path / "set") == 0:
        assert first.poll() is None
    for folder in ("set", "set/seed-4"):
        assert "another process" in one_line_error("train", "--resume", folder, cwd=tmp_path)
    inside = tmp_path / "set" / "seed-4"
    assert "another process" in one_line_error("train", "--resume", ".", cwd=inside)
    first.kill()
    first.communicate()


def test_a_terminal_shows_the_median_loss(tmp_path: Path) -> None:
    text = on_a_terminal(*TRAIN, cwd=tmp_path)
    assert "median loss " in text
    assert "800/800" in text
    assert "accuracy" not in text
