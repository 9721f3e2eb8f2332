"""The benchmarks time only who does the same work, survive any contender, and report what is so."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import multiprocessing
import operator
import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from benchmarks import (
    agreement,
    emulated,
    equality,
    experiments,
    figures,
    gpu_campaign,
    gpu_limits,
    harness,
    kernel_stages,
    kernels,
    ladder,
    machine,
    needed,
    networks,
    report,
    results,
    rungs,
    short_runs,
    starts,
    statistics,
    summary,
    tables,
    traffic,
    worker,
)
from benchmarks.agreement import Standard
from benchmarks.command import main
from benchmarks.contenders import ENTRIES, Entry, pytorch_cuda_graph, scratchnet_engine, select
from benchmarks.gpu_campaign import Part
from benchmarks.gpu_clock import Watch
from benchmarks.rungs import LAYOUTS, RUNGS, Rung
from benchmarks.task import PARAMETERS, Outcome, Task, accuracy, probe, training
from reference.twin import Twin
from scratchnet import backend, engines, mnist
from scratchnet.cli import OneLineErrors
from scratchnet.engines import cuda, cuda_epoch, cuda_fused
from scratchnet.errors import InputError
from scratchnet.training import RECIPES, Options, Run, evaluate
from tests import strict_cupy
from tests.cuda import emulator
from tests.cuda.engines import AMPERE

DATA = mnist.load()
SLOW = bool(os.environ.get("SCRATCHNET_SLOW_TESTS"))
IMAGES = 656  # ten batches of 64 and one of 16


def task_of(recipe: str = "adam", **options: Any) -> Task:
    given = {"limit": IMAGES, "epochs": 2} | options
    return Task.of(Options(recipe, **given), "cpu", DATA.train)


# ------------------------------------------------------------------------------------- the task


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_task_is_the_runs(recipe: str) -> None:
    task = task_of(recipe, batch_size=100)
    run = Run(task.options, DATA.train, "cpu")
    batches = [
        (step, task.order[epoch, batch])
        for epoch in range(2)
        for step, batch in task.batches(epoch)
    ]
    assert [step for step, _ in batches] == list(range(run.total_steps)) == list(range(task.steps))
    for (step, chosen), (x, y, lr) in zip(batches, run.batches(0, run.total_steps), strict=True):
        assert (task.normalization(task.images[chosen]) == x).all()
        assert (task.labels[chosen] == y).all()
        assert task.lrs[step] == lr
    assert task.normalized == run.recipe.normalize
    assert tuple(task.initial) == PARAMETERS


def test_rates_are_adams_step() -> None:
    task = task_of("one-cycle")
    m, v, p, t = 0.3, 0.04, 2.0, 5
    (beta1, beta2), lr = task.betas, task.lrs[t - 1]
    rate, eps, keep = task.rates()[t - 1]
    expected = (1 - lr * 0.01) * p - lr * m / (1 - beta1**t) / (
        (v / (1 - beta2**t)) ** 0.5 + task.eps
    )
    assert keep * p - rate * m / (v**0.5 + eps) == pytest.approx(expected, rel=1e-14)


def test_rates_of_a_new_adam_in_each_step_are_those_of_its_first() -> None:
    rates = task_of("tutorial").rates()
    assert (rates == rates[0]).all()


@pytest.mark.parametrize(
    ("batch_size", "limit", "expected"),
    [(64, None, 656), (512, None, 5120 + 336), (50_000, None, 50_000), (64, 128, 128), (1, 9, 9)],
)
def test_a_probe_has_the_tasks_batch_sizes(
    batch_size: int, limit: int | None, expected: int
) -> None:
    options = Options("adam", batch_size=batch_size, limit=limit)
    made = probe(options, 50_000)
    assert (made.limit, made.epochs) == (expected, 2)
    assert (limit or 50_000) % batch_size == expected % batch_size


def test_more_images_than_are_for_training_are_all() -> None:
    assert len(training(Options(limit=50_000)).labels) == 50_000
    everything = training(Options(limit=50_001))
    assert len(everything.labels) == 60_000
    assert (everything.images[:50_000] == DATA.train.images).all()
    assert (everything.labels[50_000:] == DATA.validation.labels).all()


def test_accuracy_is_evaluates() -> None:
    task = task_of()
    run = Run(task.options, DATA.train, "cpu")
    expected = evaluate(run.model, DATA.validation, run.normalization).accuracy
    assert accuracy(task.initial, DATA.validation, run.normalization) == expected


# ------------------------------------------------------------------------------------ agreement


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_reference_is_the_one_of_the_equivalence_tests(recipe: str) -> None:
    """To 1e-12: 22 updates in float64 that differ in the order of some operations at most."""
    task = task_of(recipe)
    run = Run(task.options, DATA.train, "cpu", np.float64)
    start = {name: value.astype(np.float64) for name, value in task.initial.items()}
    run.model.load_state_dict(start)
    twin = Twin(run)
    losses = [twin.update(x, y, lr) for x, y, lr in run.batches(0, run.total_steps)]
    found = agreement.reference(task, task.steps)
    np.testing.assert_allclose(found.losses, losses, rtol=0, atol=1e-12)
    for name, value in twin.model.state_dict().items():
        np.testing.assert_allclose(found.parameters[name], value.numpy(), rtol=0, atol=1e-12)


def train(task: Task, mistake: str = "") -> Outcome:
    """The task in NumPy and float64, with a mistake that people make."""
    p = {name: value.astype(np.float64) for name, value in task.initial.items()}
    m = {name: np.zeros_like(value) for name, value in p.items()}
    v = {name: np.zeros_like(value) for name, value in p.items()}
    beta1, beta2 = task.betas
    beta2 = 0.99 if mistake == "wrong beta2" else beta2
    losses = []
    order = task.order[::-1] if mistake == "the epochs' orders swapped" else task.order
    late = task.steps - 2
    for epoch in range(len(order)):
        for step, batch in task.batches(epoch):
            chosen = order[epoch, batch]
            if mistake == "a batch twice" and step == 1:
                chosen = order[epoch, : len(chosen)]
            if mistake == "the last batch a full one" and len(chosen) < task.batch_size:
                chosen = order[epoch, -task.batch_size :]
            loss, grads = backward(task, p, chosen, mistake)
            losses.append(loss)
            if (mistake, step) in (("first update skipped", 0), ("late update skipped", late)):
                continue
            t = 1 if task.renew else step + 1
            if task.renew and mistake != "Adam kept":
                m, v = ({name: 0 * value for name, value in each.items()} for each in (m, v))
            c1 = 1.0 if mistake == "m not corrected" else 1 - beta1**t
            c2 = 1.0 if mistake == "v not corrected" else 1 - beta2**t
            if mistake == "correction in float32":
                c1 = float(1 - np.float32(beta1) ** np.float32(t))
                c2 = float(1 - np.float32(beta2) ** np.float32(t))
            lr = task.lrs[step] * {"lr 1 % too high": 1.01, "lr 1 % too low": 0.99}.get(mistake, 1)
            decay = 0.0 if mistake == "no weight decay" else task.weight_decay
            for name, g in grads.items():
                m[name] = beta1 * m[name] + (1 - beta1) * g
                v[name] = beta2 * v[name] + (1 - beta2) * g * g
                root = np.sqrt(v[name] / c2)
                p[name] = (1 - lr * decay) * p[name] - lr / c1 * m[name] / (root + task.eps)
    return Outcome(np.array(losses), p)


def backward(
    task: Task, p: dict[str, Any], chosen: Any, mistake: str
) -> tuple[float, dict[str, Any]]:
    w1, b1, w2, b2 = (p[name] for name in PARAMETERS)
    x = task.images[chosen] / (256 if mistake == "pixels / 256" else 255)
    if mistake != "not normalized":
        x = (x - task.normalization.mean) / task.normalization.std
    n, y = len(chosen), task.labels[chosen]
    hidden = np.maximum(x @ w1.T + b1, 0)
    z = hidden @ w2.T + b2
    z -= z.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(z).sum(axis=1, keepdims=True))
    loss = float((log_sum[:, 0] - z[np.arange(n), y]).mean())
    dz = np.exp(z - log_sum)
    dz[np.arange(n), y] -= 1
    if mistake != "gradient not divided by N":
        dz /= n
    dh = (dz @ w2) * (hidden > 0)
    if mistake == "no ReLU in backward":
        dh = dz @ w2
    grads = (dh.T @ x, dh.sum(0), dz.T @ hidden, dz.sum(0))
    return loss * (n if mistake == "loss not divided by N" else 1), dict(
        zip(PARAMETERS, grads, strict=True)
    )


@pytest.fixture(scope="module")
def standards() -> dict[str, tuple[Task, Standard]]:
    """Of the probe of each recipe."""
    made = {}
    for recipe in RECIPES:
        task = Task.of(probe(Options(recipe), 50_000), "cpu", DATA.train)
        made[recipe] = task, Standard(task)
    return made


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("honest", ["", "correction in float32"])
def test_the_honest_agree(
    honest: str, recipe: str, standards: dict[str, tuple[Task, Standard]]
) -> None:
    """By a factor of ten and more. No honest error is larger than the correction in float32."""
    task, standard = standards[recipe]
    found = standard.judge(train(task, honest))
    assert found.ok, found
    assert found.share < 0.1
    assert found.steps == task.steps == 22


MISTAKES = {
    "lr 1 % too high": RECIPES,
    "lr 1 % too low": RECIPES,
    "m not corrected": RECIPES,
    "v not corrected": RECIPES,
    "wrong beta2": ("adam",),  # one-cycle has 0.99, and a first step does not depend on it
    "gradient not divided by N": RECIPES,
    "loss not divided by N": RECIPES,
    "first update skipped": ("adam", "tutorial"),  # one-cycle's first is as good as none
    "late update skipped": RECIPES,
    "a batch twice": RECIPES,
    "the epochs' orders swapped": RECIPES,
    "the last batch a full one": RECIPES,
    "no ReLU in backward": RECIPES,
    "pixels / 256": RECIPES,
    "not normalized": ("one-cycle",),
    "no weight decay": ("one-cycle",),
    "Adam kept": ("tutorial",),
}


@pytest.mark.parametrize(
    ("mistake", "recipe"),
    [(mistake, recipe) for mistake, recipes in MISTAKES.items() for recipe in recipes],
)
def test_the_mistaken_disagree(
    mistake: str, recipe: str, standards: dict[str, tuple[Task, Standard]]
) -> None:
    task, standard = standards[recipe]
    found = standard.judge(train(task, mistake))
    assert not found.ok
    assert not found.problem
    assert found.share > 1.5


def test_what_can_not_be_compared_disagrees() -> None:
    task = task_of(limit=64, epochs=1)
    standard = Standard(task)
    right = agreement.reference(task, task.steps)
    assert standard.judge(right).ok
    more = dataclasses.replace(right, losses=np.append(right.losses, 1.0))
    assert "2,) losses for 1" in str(standard.judge(more))
    nan = dataclasses.replace(right, losses=right.losses * np.nan)
    assert "not finite" in str(standard.judge(nan))
    transposed = {name: value.T for name, value in right.parameters.items()}
    assert "shapes" in str(standard.judge(dataclasses.replace(right, parameters=transposed)))
    assert not any(standard.judge(wrong).ok for wrong in (more, nan))


def test_of_the_tutorials_long_runs_the_first_losses_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "MOST_STEPS_OF_RENEW", 5)
    task = task_of("tutorial")
    standard, right = Standard(task), agreement.reference(task, task.steps)
    later = right.losses.copy()
    later[6:] += 1
    found = standard.judge(dataclasses.replace(right, losses=later))
    assert found.ok
    assert (found.steps, found.weights) == (5, None)
    assert not standard.judge(dataclasses.replace(right, losses=right.losses + 1)).ok


# ----------------------------------------------------------------------------------- statistics


def test_spread() -> None:
    found = statistics.spread([4.0, 1.0, 2.0, 3.0, 5.0])
    assert found == statistics.Spread(1, 2, 3, 4, 5, 5)
    assert found.relative == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("count", "low", "high", "level"),
    [(1, 1, 1, 0), (5, 1, 5, 0.9375), (6, 1, 6, 0.96875), (9, 2, 8, 0.9609375), (20, 6, 15, None)],
)
def test_the_interval_is_the_sign_tests(
    count: int, low: float, high: float, level: float | None
) -> None:
    """For 20 the table of Conover (Practical Nonparametric Statistics) has 6 and 15, 95.9 %."""
    times = {r: float(r + 1) for r in range(count)}
    found = statistics.paired(times, dict.fromkeys(range(count), 1.0))
    assert found is not None
    assert (found.low, found.high, found.count) == (low, high, count)
    assert found.level == pytest.approx(0.9586 if level is None else level, abs=1e-4)


def test_ratios_are_paired_by_round() -> None:
    """A round in which everything is ten times slower leaves the ratio."""
    found = statistics.paired({0: 2.0, 1: 20.0, 2: 2.0}, {1: 10.0, 2: 1.0, 3: 7.0})
    assert found is not None
    assert (found.median, found.count) == (2.0, 2)
    assert statistics.paired({0: 1.0}, {1: 1.0}) is None


# ----------------------------------------------------------------------------- who can take part


def test_what_is_not_installed_is_skipped_by_name() -> None:
    entry = Entry("x", "no.such.module", packages=("no_such_package",))
    assert entry.missing() == "no_such_package is not installed: pip install no_such_package"
    entry = Entry("x", "no.such.module", commands=("no-such-compiler",))
    assert "no-such-compiler is found: install a compiler" in str(entry.missing())
    point = harness.measure(Options("adam", limit=64), [entry], [1], rounds=1)
    assert [(r.status, r.timed) for r in point.results] == [("skipped", {})]


def test_what_can_not_do_a_task_says_so() -> None:
    (entry,) = select("sklearn")
    assert entry.unfit("adam", "cpu") is None
    assert entry.unfit("one-cycle", "cpu") == "can't do recipe one-cycle, only adam"
    assert entry.unfit("adam", "cuda") == "runs on cpu only"


def test_select() -> None:
    assert [entry.name for entry in select("pytorch-fused,jax-s*")] == [
        "pytorch-fused", "jax-step", "jax-scan", "jax-scan-1", "jax-scan-32", "jax-scan-graphs",
    ]  # fmt: skip
    assert select(None, quick=False) == ENTRIES
    with pytest.raises(InputError, match="'nobody' is unknown; expected some of scratchnet-layers"):
        select("pytorch-*,nobody")


# ------------------------------------------------------------------------ contenders, end to end

TESTED = [
    entry for entry in ENTRIES if entry.quick and "cpu" in entry.devices and "adam" in entry.recipes
]


@pytest.fixture(scope="module")
def at_work() -> harness.Point:
    """All that can run here, each in its process, on ten batches and a smaller one."""
    entries = [entry for entry in TESTED if SLOW or entry.name != "pytorch-compile"]
    return harness.measure(Options("adam", limit=IMAGES), entries, [1], rounds=1)


@pytest.mark.parametrize("entry", TESTED, ids=lambda entry: entry.name)
def test_a_contender_does_the_task(entry: Entry, request: pytest.FixtureRequest) -> None:
    if entry.missing():
        pytest.skip(str(entry.missing()))
    if entry.name == "pytorch-compile" and not SLOW:
        pytest.skip("compiles for ten seconds: set SCRATCHNET_SLOW_TESTS=1")
    point: harness.Point = request.getfixturevalue("at_work")
    (result,) = (result for result in point.results if result.name == entry.name)
    assert result.status == "ok", result.reason
    assert result.probe
    assert result.task
    assert result.probe.share < 0.1
    assert result.task.share < 0.1
    (timed,) = result.timed.values()
    assert 0 < timed.seconds < 60
    assert timed.epoch_seconds[0] <= timed.seconds
    assert 2**24 < timed.peak_memory < 2**34
    assert timed.idle_cpu_seconds < 0.05  # it sleeps while others are timed
    assert timed.harness_cpu_seconds < 0.05
    assert result.about


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("variant", ["1", "8"])
def test_the_updates_that_are_captured_in_a_graph_are_right(variant: str, recipe: str) -> None:
    """On the CPU, without graphs; twice, since a graph's memory is used again."""
    contender = pytorch_cuda_graph.Contender(variant)
    task = task_of(recipe)
    standard = Standard(task)
    contender.prepare(task, 1)
    try:
        for _ in range(2):
            contender.reset()
            for epoch in range(2):
                contender.epoch(epoch)
            assert standard.judge(contender.collect()).share < 0.1
    finally:
        torch.set_flush_denormal(False)  # other tests look at such numbers


# -------------------------------------------------------------------------- workers that misbehave

BAD = """
import os, threading
from benchmarks.contenders.scratchnet_engine import Contender as Good

class Contender(Good):
    def __init__(self, variant):
        super().__init__("numpy_inplace")
        self.variant, self.runs = variant, 0

    def epoch(self, number):
        self.runs += number == 0
        super().epoch(number)
        if self.variant == "late" and self.runs == 4:
            self.losses[-1] += 1
        if self.variant == "nan":
            self.losses[0] = float("nan")
        if self.variant == "raises":
            raise RuntimeError("no more\\nof this")
        if self.variant == "dies":
            os._exit(7)
        if self.variant == "hangs" and self.runs == 4:
            threading.Event().wait()
"""


@pytest.fixture
def bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Entry]:
    """Makes contenders that are good at first."""
    (tmp_path / "bad_contenders.py").write_text(BAD)
    monkeypatch.syspath_prepend(str(tmp_path))
    return lambda variant: Entry(variant, "bad_contenders", variant)


def test_the_others_go_on(bad: Callable[[str], Entry], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "LEAST_PATIENCE", 3.0)
    entries = [bad(name) for name in ("raises", "dies", "hangs", "late", "nan", "good")]
    heard: list[str] = []
    point = harness.measure(Options("adam", limit=64), entries, [1], rounds=2, say=heard.append)
    found = {result.name: result for result in point.results}
    assert found["raises"].reason == "RuntimeError: no more of this"
    assert found["dies"].reason == "its process has ended with status 7"
    assert found["hangs"].reason == "gave no answer for 3 s, and was ended"
    assert [found[name].status for name in ("raises", "dies", "hangs")] == ["failed"] * 3
    assert found["late"].status == "disagrees"
    assert "update 0 is off by" in found["late"].reason
    assert not found["late"].timed
    assert found["nan"].reason == "probe: a loss or a weight is not finite"
    assert found["good"].status == "ok"
    assert [*found["good"].timed] == [0, 1]
    assert multiprocessing.active_children() == []
    assert any("RuntimeError: no more of this" in line for line in heard)
    json.dumps(point.as_json(), allow_nan=False)


def test_ctrl_c_keeps_what_was_measured(bad: Callable[[str], Entry]) -> None:
    def say(text: str) -> None:
        if text == "round 2 of 9":
            raise KeyboardInterrupt

    point = harness.measure(Options("adam", limit=64), [bad("good")], [1], rounds=9, say=say)
    assert point.interrupted
    assert [*point.results[0].timed] == [0]
    assert multiprocessing.active_children() == []


def test_ctrl_c_while_preparing_leaves_no_process(bad: Callable[[str], Entry]) -> None:
    def say(text: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        harness.measure(Options("adam", limit=64), [bad("good")], [1], rounds=1, say=say)
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(
    ("seconds", "rounds", "expected"),
    [(0.1, 9, 9), (1.0, 9, 9), (2.0, 9, 4), (100.0, 9, 3), (100.0, 2, 2), (1.5, 12, 8)],
)
def test_who_is_slow_takes_part_in_fewer_rounds(seconds: float, rounds: int, expected: int) -> None:
    taken = [number for number in range(rounds) if harness.takes_part(number, rounds, seconds)]
    assert len(taken) == expected
    assert np.ptp(np.diff(taken)) <= 1  # evenly


def test_threads_are_told_to_every_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NPROC", "5")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with worker._environment(worker.environment(3)):
        assert (os.environ["NPROC"], os.environ["OMP_NUM_THREADS"]) == ("3", "3")
    assert os.environ["NPROC"] == "5"
    assert "OMP_NUM_THREADS" not in os.environ


# ------------------------------------------------------------------------------ records and report


def run_of(number: int, seconds: float, epochs: int = 1) -> dict[str, Any]:
    return {
        "round": number, "seconds": seconds, "cpu_seconds": seconds, "idle_cpu_seconds": 0.0,
        "epoch_seconds": [seconds / epochs * (1 + 0.1 * e) for e in range(epochs)],
        "peak_memory": 300 * 2**20,
    }  # fmt: skip


def contender_of(
    name: str, threads: int, us: float, status: str = "ok", epochs: int = 1
) -> dict[str, Any]:
    """Nine rounds of 1,000 updates, the rounds up to 8 % slower than the first."""
    runs = [run_of(r, us * 1e-3 * (1 + 0.01 * r), epochs) for r in range(9)]
    return {
        "name": name, "threads": threads, "status": status, "about": "", "prepare_seconds": 1.0,
        "reason": "" if status == "ok" else "for a reason", "agreement": {},
        "runs": runs if status == "ok" else [],
    }  # fmt: skip


def point_of(scale: float = 1.0, **options: Any) -> dict[str, Any]:
    return {
        "task": dataclasses.asdict(Options("adam", **options)),
        "steps": 1000,
        "interrupted": False,
        "contenders": [
            contender_of("scratchnet-native", 1, 100 * scale, epochs=options.get("epochs", 1)),
            contender_of("scratchnet-native", 2, 50 * scale, epochs=options.get("epochs", 1)),
            contender_of("pytorch-fused", 1, 400, epochs=options.get("epochs", 1)),
            contender_of("pytorch-fused", 2, 300, epochs=options.get("epochs", 1)),
            contender_of("tinygrad", 1, 0, "skipped"),
            contender_of("tinygrad", 2, 0, "skipped"),
        ],
    }


def record_of(experiment: str, **content: Any) -> results.Record:
    return {
        "schema": 1,
        "experiment": experiment,
        "device": "cpu",
        "command": "python -m benchmarks",
        "date": "2026-01-02T03:04:05+00:00",
        "machine": {
            "cpu": "A CPU", "cores": 2, "gpu": None, "python": "3.11.1", "commit": "0123456789",
            "uncommitted_changes": False, "packages": {"numpy": "2.1", "torch": "2.6"},
        },
        "load_before": [0.0, 0.0, 0.0],
        "load_after": [1.0, 0.5, 0.1],
        "noise": {"seconds": [0.1, 0.1], "relative_spread": 0.01, "noisy": False},
        "interrupted": False,
        **content,
    }  # fmt: skip


def start_of(name: str, first: float, accuracy: float = 0.9644) -> dict[str, Any]:
    return {
        "name": name, "threads": 1, "round": 0, "about": "", "status": "ok", "reason": "",
        "first_seconds": first, "again_seconds": first / 2, "import_seconds": 0.5,
        "warm_seconds": [0.2, 0.3], "accuracy": accuracy,
    }  # fmt: skip


RECORDS = {
    "compare": record_of("compare", points=[point_of()]),
    "sweep-batch": record_of(
        "sweep-batch", points=[point_of(batch_size=1), point_of(10, batch_size=64)]
    ),
    "sweep-hidden": record_of("sweep-hidden", points=[point_of(hidden=10), point_of(2, hidden=50)]),
    "epochs": record_of("epochs", points=[point_of(epochs=3)]),
    "accuracy": record_of(
        "accuracy",
        required=0.961,
        starts=[start_of("pytorch-fused", 8.0), start_of("scratchnet-native", 3.0)],
    ),
    "breakdown": record_of(
        "breakdown",
        points=[point_of()],
        stages=[
            {
                "name": "scratchnet-native",
                "threads": 2,
                "seconds": {"gather": [0.008], "forward": [0.02], "adam": [0.01], "rest": [0.002]},
            }
        ],
        limits=[{"threads": 2, "flops": 1e12, "copied_in_cache": 1e11, "copied_in_memory": 2e10}],
    ),
}


def test_a_table_says_how_fast_beside_the_baselines_best() -> None:
    text = tables.table(RECORDS["compare"])
    lines = text.splitlines()
    assert lines[0] == "| contender | 1 thread | 2 threads | × `pytorch-fused` | MiB |"
    assert lines[2] == (
        "| `scratchnet-native` | 104 (102-106) | 52.0 (51.0-53.0) | 6.00 (6.00-6.00) | 300 |"
    )
    assert lines[3].startswith("| `pytorch-fused` | 416 (408-424) | 312 (306-318) | 1.00")
    assert "Not timed: tinygrad: skipped: for a reason." in lines
    assert lines[-1] == (
        "A CPU, 2 cores; Python 3.11.1, NumPy 2.1, PyTorch 2.6; commit 0123456, 2026-01-02. "
        "`python -m benchmarks`"
    )
    assert "noisy" not in text


def test_a_table_says_if_the_machine_was_noisy_or_stopped() -> None:
    noise = {"seconds": [1.0, 2.0], "relative_spread": 0.3, "noisy": True}
    text = tables.table(RECORDS["compare"] | {"noise": noise, "interrupted": True})
    assert "**The machine was noisy**: a loop that is always the same varied by 30%." in text
    assert "**Interrupted**" in text


def test_a_sweep_marks_the_fastest() -> None:
    lines = tables.table(RECORDS["sweep-batch"]).splitlines()
    assert lines[0] == "| batch size | `scratchnet-native` | `pytorch-fused` |"
    assert lines[2] == "| 1 | **52.0** | 312 |"
    assert lines[3] == "| 64 | 520 | **312** |"


def test_epochs_are_compared_within_a_run() -> None:
    lines = tables.table(RECORDS["epochs"]).splitlines()
    assert lines[2] == "| `scratchnet-native` | 2 | 17.3 | 20.8 | 1.20 (1.20-1.20) |"


def test_starts_and_stages_have_tables() -> None:
    lines = tables.table(RECORDS["accuracy"]).splitlines()
    assert lines[2] == "| `scratchnet-native` | 1 | 3.00 | 1.50 | 0.50 | 0.25 | 96.44% |"
    lines = tables.table(RECORDS["breakdown"]).splitlines()
    assert lines[0] == "| contender | threads | gather | forward | adam | rest | all |"
    assert lines[2] == "| `scratchnet-native` | 2 | 8.00 | 20.0 | 10.0 | 2.00 | 40.0 |"


def test_the_products_of_an_update() -> None:
    """64 x 784 x 50 multiplications and additions, forward and for W1; three of 64 x 50 x 10."""
    assert summary.flops({"batch_size": 64, "hidden": 50}) == 10_035_200 + 192_000


def test_a_record_without_the_baseline_has_no_ratios() -> None:
    point = point_of()
    point["contenders"] = point["contenders"][:2]
    record = record_of("compare", points=[point])
    assert "| 52.0 (51.0-53.0) | - |" in tables.table(record)
    assert figures.draw(record)
    point["contenders"] = []
    assert figures.draw(record) is None
    assert tables.table(record)


@pytest.mark.parametrize("name", RECORDS)
def test_a_figure_is_the_same_every_time(name: str) -> None:
    first, second = figures.draw(RECORDS[name]), figures.draw(RECORDS[name])
    assert first == second
    if name in ("epochs", "accuracy"):
        assert first is None
    else:
        assert first is not None
        assert b"scratchnet-native" in first


def test_labels_are_moved_apart() -> None:
    found = figures._apart({"a": 1.0, "b": 1.01, "c": 5.0}, 1.1)
    assert found == {"a": 1.0, "b": pytest.approx(1.1), "c": 5.0}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With all records, an old one, and a README."""
    for record in RECORDS.values():
        results.save(record, tmp_path / f"{record['experiment']}.json")
    old = RECORDS["compare"] | {"date": "2025-01-01T00:00:00+00:00", "command": "old"}
    results.save(old, tmp_path / "z-old.json")
    (tmp_path / "README.md").write_text(
        "Before\n<!-- benchmarks: compare -->\nstale\n<!-- end -->\nbetween\n"
        "<!-- benchmarks: epochs -->\n<!-- end -->\nafter\n"
    )
    return tmp_path


def test_the_report_writes_tables_and_plots_once(folder: Path) -> None:
    arguments = ["--results", str(folder), "--readme", str(folder / "README.md")]
    check = CliRunner().invoke(report.main, [*arguments, "--check"])
    assert check.exit_code == 1
    assert "README.md: differs" in check.output
    assert not (folder / "compare.svg").exists()
    assert CliRunner().invoke(report.main, arguments).exit_code == 0
    check = CliRunner().invoke(report.main, [*arguments, "--check"])
    assert (check.exit_code, check.output) == (0, "all is as the records say\n")
    text = (folder / "README.md").read_text()
    assert text.startswith("Before\n<!-- benchmarks: compare -->\n| contender |")
    assert "<!-- end -->\nbetween\n<!-- benchmarks: epochs -->\n| contender |" in text
    assert text.endswith("<!-- end -->\nafter\n")
    assert "stale" not in text
    assert "`old`" not in text
    drawn = {file.stem for file in folder.glob("*.svg")}
    assert drawn == {"compare", "sweep-batch", "sweep-hidden", "breakdown"}


def test_a_table_without_a_record_is_an_error(folder: Path) -> None:
    with pytest.raises(InputError, match="a table none is marked, but there is no record of it"):
        report.updated("<!-- benchmarks: none -->\n<!-- end -->", {})


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"schema": 2, "experiment": "compare"}', '{"schema": 1}']
)
def test_a_file_that_is_no_record_is_an_error(content: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(InputError, match=r"x\.json: "):
        results.newest(tmp_path)


def test_a_gpus_record_has_a_name_of_its_own(tmp_path: Path) -> None:
    results.save(RECORDS["compare"], tmp_path / "a.json")
    results.save(RECORDS["compare"] | {"device": "cuda"}, tmp_path / "b.json")
    assert [*results.newest(tmp_path)] == ["compare", "compare-cuda"]


def test_the_readme_and_the_plots_are_as_the_records_say() -> None:
    assert report.stale(machine.ROOT / "README.md", results.FOLDER) == []


# --------------------------------------------------------------------------------- the commands


def test_the_command_measures_and_records(tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    arguments = [
        "--contenders", "scratchnet-layers,pytorch-tutorial", "--threads", "1", "--rounds", "2",
        "--limit", "130", "--batch-size", "10", "--out", str(file),
    ]  # fmt: skip
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "| `scratchnet-layers` |" in done.stdout
    assert "pytorch-tutorial: skipped: can't do recipe adam, only tutorial" in done.stdout
    record = results.read(file)
    assert figures.draw(record)
    (point,) = record["points"]
    assert (point["steps"], len(point["contenders"][0]["runs"])) == (13, 2)
    assert record["machine"]["cores"] >= 1
    assert len(record["noise"]["seconds"]) == 2


def test_the_command_measures_stages(tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    arguments = [
        "--breakdown", "--contenders", "scratchnet-*", "--threads", "1", "--rounds", "1",
        "--limit", "640", "--out", str(file),
    ]  # fmt: skip
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    record = results.read(file)
    names = {e.name for e in select("scratchnet-*") if "cpu" in e.devices and not e.missing()}
    assert {entry["name"] for entry in record["stages"]} == names
    for entry in record["stages"]:
        assert {"gather", "forward", "backward", "adam", "rest"} <= entry["seconds"].keys()
        assert all(value[0] >= 0 for value in entry["seconds"].values())
    assert record["limits"][0]["flops"] > 1e8


def test_the_command_lists_who_can_run() -> None:
    done = CliRunner().invoke(main, ["--list"], catch_exceptions=False)
    assert done.exit_code == 0
    lines = {line.split()[0]: line for line in done.output.splitlines()}
    assert lines.keys() == {entry.name for entry in ENTRIES}
    assert "runs on cuda only" in lines["pytorch-graph-1"]
    assert lines["scratchnet-layers"].endswith("runs here")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--threads", "1,two"], "'two' is no number of threads"),
        (["--threads", "0"], "'0' is no number of threads"),
        (["--contenders", "nobody"], "contender 'nobody' is unknown"),
        (["--sweep", "batch", "--breakdown", "--out", "x"], "is one file for 2 experiments"),
        (["--out", "no/such/folder/x"], "its folder does not exist"),
    ],
)
def test_wrong_options_are_told_in_a_line(arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert message in done.output
    assert "Traceback" not in done.output


def test_the_sweeps_keep_a_round_short() -> None:
    """At most 1,000 updates of each, and all sizes within the images."""
    asked: list[Options] = []

    class Setting(experiments.Setting):
        def point(self, options: Options, *_: Any, **__: Any) -> harness.Point:
            asked.append(options)
            return harness.Point(options, 0, [])

    setting = Setting(
        Options("adam"), "cpu", [1], None, None, False, 0, machine.Calibration(), print, 60.0
    )
    experiments.sweep_batch(setting)
    assert [options.batch_size for options in asked] == [1, 8, 64, 512, 4096, 50_000]
    assert all((options.limit or 0) <= 1000 * options.batch_size for options in asked)
    asked.clear()
    experiments.sweep_hidden(setting)
    assert [options.hidden for options in asked] == [10, 50, 200, 1000, 4096]
    assert [options.limit for options in asked] == [50_000, 50_000, 32_000, 6400, 2560]


def test_a_start_that_misses_the_accuracy_fails() -> None:
    """Of 640 images nobody learns that much; and with empty caches, and with full ones."""
    found = starts.start("scratchnet-numpy_inplace", 1, "cpu", Options("one-cycle", limit=640))
    assert found["status"] == "failed"
    assert found["reason"].startswith("reached "), found
    assert 0.3 < found["accuracy"] < 0.961
    assert found["first_seconds"] > 0
    assert found["again_seconds"] > found["import_seconds"] > 0  # of the second process
    assert len(found["warm_seconds"]) == 2


def test_a_start_that_breaks_is_reported() -> None:
    found = starts.start("no-such-contender", 1, "cpu", Options("one-cycle"))
    assert found["status"] == "failed"
    assert "ended with status 1: scratchnet.errors.InputError" in found["reason"]


def test_the_machine_is_described() -> None:
    found = machine.describe()
    json.dumps(found, allow_nan=False)
    assert found["packages"]["numpy"] == np.__version__
    assert machine.short_name({"gpu": None, "cpu": "AMD EPYC (x)", "cores": 2}) == (
        "amd-epyc-x-2-cores"
    )
    assert (
        machine.short_name({"gpu": "NVIDIA H100, 570.1", "cpu": "x", "cores": 2}) == "nvidia-h100"
    )


def test_calibration_tells_a_noisy_machine() -> None:
    calibration = machine.Calibration()
    assert calibration.verdict()["noisy"] is None
    calibration.seconds = [1.0, 1.01, 1.0, 1.02]
    assert calibration.verdict()["noisy"] is False
    calibration.seconds = [1.0, 1.3, 1.0, 1.2]
    assert calibration.verdict()["noisy"] is True


# ------------------------------------------------------------------- the GPU's part, without a GPU

SHAPE = {"batch_size": 16, "hidden": 9}  # kernels are compiled for it, once for all that follows
OWN_KERNELS = RUNGS[1:]
no_emulator = pytest.mark.skipif(bool(emulator.why_not()), reason=str(emulator.why_not()))


@pytest.fixture
def no_gpu_needed() -> Iterator[None]:
    """Where kernels run in the emulator."""
    if reason := emulator.why_not():
        pytest.skip(reason)
    with emulated.gpu():
        yield


def prepared(rung: Rung, recipe: str = "adam", **options: Any) -> scratchnet_engine.Contender:
    contender = scratchnet_engine.Contender(rung.name)
    contender.prepare(dataclasses.replace(task_of(recipe, **SHAPE | options), device="cuda"), 1)
    contender.reset()
    return contender


def test_the_engines_for_a_gpu_are_listed_as_needing_one() -> None:
    found = {entry.name: entry for entry in ENTRIES}
    for name in (*engines.CUDA, *(rung.name for rung in LAYOUTS)):
        entry = found[f"scratchnet-{name}"]
        assert entry.unfit("adam", "cpu") == "runs on cuda only"
        if backend.why_no_gpu():
            assert "works on a GPU only" in str(entry.missing())
    assert {name.removeprefix("scratchnet-") for name in found} >= {rung.name for rung in RUNGS}


@pytest.mark.parametrize("rung", RUNGS, ids=lambda rung: rung.name)
def test_a_rung_does_the_task_as_often_as_it_is_reset(rung: Rung, no_gpu_needed: None) -> None:
    """Its engine is made once, with what it has compiled and recorded. 5 updates, the last of 6."""
    contender = prepared(rung, limit=70, epochs=2)
    standard = Standard(contender.task)
    outcomes = []
    for _ in range(2):
        contender.reset()
        for epoch in range(2):
            contender.epoch(epoch)
        outcomes.append(contender.collect())
    assert standard.judge(outcomes[0]).share < 0.1
    assert (outcomes[0].losses == outcomes[1].losses).all()
    if rung.blocks:
        kind = "cluster" if rung.cluster else "grid"
        assert contender.about().endswith(f", {kind} of {rung.blocks} blocks")


def test_an_engine_that_another_takes_the_place_of_is_not_timed(no_gpu_needed: None) -> None:
    with pytest.raises(UserWarning, match="does not fit into this GPU"):
        prepared(rungs.named("cuda_epoch"), hidden=4096, limit=16)


def test_only_the_layout_that_is_asked_for_is_taken(
    no_gpu_needed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda, "limits", lambda: AMPERE)
    with pytest.raises(UserWarning, match="no thread-block clusters"):
        prepared(rungs.named("cuda_epoch-cluster-8"), limit=16)
    assert "grid of 16" in prepared(rungs.named("cuda_epoch"), limit=16).about()


@pytest.mark.parametrize("rung", OWN_KERNELS, ids=lambda rung: rung.name)
def test_launches_are_counted_and_are_what_the_formula_says(
    rung: Rung, no_gpu_needed: None
) -> None:
    """Where there is a graph, of 35 updates: one of 32 and 3 by themselves, of 3 kernels each."""
    updates = 35 if rung.engine == "cuda_graph" else 3
    contender = prepared(rung, limit=updates * 16, epochs=1)
    found = contender.gpu()
    expected = traffic.of(rung, contender.task.options, updates)
    assert found["launches"] / updates == expected.launches
    assert found["kernels"] / updates == expected.kernels
    assert 0 < found["seconds"] < 60
    if rung.engine == "cuda_graph":
        assert (found["launches"], found["kernels"]) == (1 + 3 * 3, 3 * 35)


def test_layers_launches_are_cupys_own(no_gpu_needed: None) -> None:
    contender = prepared(RUNGS[0], limit=32, epochs=1)
    assert contender.gpu().keys() == {"seconds"}


def test_a_watch_times_between_its_marks(no_gpu_needed: None) -> None:
    contender = prepared(rungs.named("cuda_fused"), limit=32, epochs=1)
    watch = Watch()
    watch.begin(1, 6)
    with watch.on():
        contender.epoch(0)
    assert (watch.launches, watch.kernels) == (6, 6)
    first, rest = watch.seconds()
    assert 0 < first < 60
    assert 0 < rest < 60
    contender.epoch(0)
    assert watch.launches == 6  # no more is watched


def test_what_is_asked_of_cupy_is_in_cupy() -> None:
    """The stand-in of the rehearsals has nothing that CuPy has not."""
    cupy = pytest.importorskip("cupy")
    for name in vars(emulated.CUDA):
        assert hasattr(cupy.cuda, name)
    for name in vars(emulated.CUPY):
        assert hasattr(cupy, name)
    for name in vars(emulated.Event):
        assert name.startswith("__") or hasattr(cupy.cuda.Event, name)
    for name in vars(emulated.H100):
        assert hasattr(cupy.cuda.Device, name)
    for key in emulated.H100.attributes:
        assert hasattr(cupy.cuda.runtime, f"cudaDevAttr{key}")


# -------------------------------------------------------------------------- bytes, limits, stages


def test_bytes_of_the_fused_kernels_are_those_of_their_arrays(no_gpu_needed: None) -> None:
    """Each array once for each kernel that reads it, and for each that writes it."""
    options = Options("adam", limit=16, **SHAPE)
    run = Run(options, DATA.train, "cpu", engine="cuda_fused")
    engine = cuda_fused.Engine(run)
    pixels, labels, order = (a.nbytes for a in (run.images, engine.labels, engine.order))
    hidden, grad_hidden = engine.hidden.nbytes, engine.grad_hidden.nbytes
    logits, losses, step = (a.nbytes for a in (engine.grad_logits, engine.losses, engine.steps))
    first, first_bias, second, second_bias = (p.data.nbytes for p in run.model.parameters())
    model = run.model.parameters()[0].buffer.data.nbytes
    hidden_layer = pixels + order + first + first_bias + hidden
    head = hidden + order + labels + second + second_bias + step + losses + logits + grad_hidden
    backward = pixels + order + hidden + logits + grad_hidden + step + 2 * 3 * model
    assert traffic.fused(options) == hidden_layer + head + backward


@pytest.mark.parametrize("rung", LAYOUTS, ids=lambda rung: rung.name)
def test_bytes_of_an_epoch_are_those_of_its_arrays(rung: Rung, no_gpu_needed: None) -> None:
    options, updates = Options("adam", limit=7 * 16, **SHAPE), 7
    run = Run(options, DATA.train, "cpu", engine="cuda_epoch")
    with rungs.only(rung):
        fleet = cuda_epoch.Fleet([run])
    pixels, labels, order = (a.nbytes for a in (fleet.pixels, fleet.label_of, fleet.order))
    gather = run.images.nbytes + fleet.labels.nbytes + order + pixels + labels
    model = run.model.parameters()[0].buffer.data.nbytes
    train = pixels + labels + fleet.steps.nbytes + fleet.losses.nbytes + 2 * 3 * model
    found = traffic.epoch(rung, options, updates)
    exchange = fleet.partial.nbytes * 2 + fleet.heads.nbytes * (1 + rung.blocks)
    assert found.moved == pytest.approx((gather + train) / updates + exchange)
    assert bool(found.exchanged) == rung.cluster == (exchange == 0)


def test_a_cluster_exchanges_what_a_grid_reads() -> None:
    grid, eight, sixteen = (traffic.epoch(rung, Options("adam"), 937) for rung in LAYOUTS)
    shares = (
        16 * 64 * (52 + 52 + 12) * 4
    )  # partial sums, hidden units and grad_logits, to 16 blocks
    assert sixteen.exchanged == shares == 2 * eight.exchanged
    written = (16 * 64 * 52 + 64 * (52 + 12)) * 4
    assert grid.moved - sixteen.moved == shares + written


def test_operations_on_cupy_arrays_are_counted() -> None:
    """Each that makes or changes an array; views are free."""
    xp: Any = strict_cupy.cupy
    x, w, b = (xp.asarray(np.ones(shape, np.float32)) for shape in ((4, 3), (2, 3), 2))
    chosen = xp.asarray(np.array([3, 1]))
    count = traffic._Count(strict_cupy.ndarray)
    seen = []
    with count.on(strict_cupy):
        for work in (
            lambda: x @ w.T,  # 48 + 24 in, 32 out
            lambda: x[1:].reshape(9),
            lambda: x[chosen],  # 24 of x and 16 of numbers in, 24 out
            lambda: x.sum(axis=0),  # 48 in, 12 out
            lambda: b.__iadd__(b),  # 8 and 8 in, 8 out
            lambda: operator.setitem(x, slice(2), 0 * x[:2]),  # 24 and 24, for either
            lambda: xp.zeros(5, np.float32),  # no kernel, 20 out
            lambda: xp.ones(5, np.float32),
        ):
            before = count.kernels, count.moved
            work()
            seen.append((count.kernels - before[0], count.moved - before[1]))
    assert seen == [(1, 104), (0, 0), (1, 64), (1, 60), (1, 24), (2, 96), (0, 20), (1, 20)]
    x[chosen]
    assert count.kernels == 7


def test_an_update_of_layers_is_counted_on_a_full_batch() -> None:
    """Products read x twice and W1 once, and write W1's gradient; Adam reads twelve vectors."""
    found = traffic.layers(Options("adam"))
    assert found.launches == found.kernels > 50
    assert found.moved > 4 * (3 * 64 * 784 + 2 * 50 * 784 + 12 * 39_760)
    assert traffic.layers(Options("one-cycle")).kernels > found.kernels  # which has weight decay


def test_a_gpus_limit_is_its_multiply_adds(no_gpu_needed: None) -> None:
    """NVIDIA's data sheet of the H100 has 67 TFLOP/s in float32."""
    found = gpu_limits.GpuLimits.measure()
    assert found.flops() == pytest.approx(67e12, rel=0.01)
    assert found.flops(16) == found.flops() * 16 / 132


def test_a_gpu_whose_arithmetic_is_not_known_is_an_error(
    no_gpu_needed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emulated.H100, "compute_capability", "999")
    with pytest.raises(InputError, match="compute capability 999 is not in"):
        gpu_limits.GpuLimits.measure()


@pytest.mark.parametrize("rung", LAYOUTS, ids=lambda rung: rung.name)
def test_a_look_at_the_clock_changes_no_bit(rung: Rung, no_gpu_needed: None) -> None:
    options = Options("one-cycle", limit=7 * 16, **SHAPE)
    plain, clocked = (Run(options, DATA.train, "cpu", engine="cuda_epoch") for _ in range(2))
    with rungs.only(rung):
        expected = engines.make("cuda_epoch", plain).advance(0, 7)
        with kernel_stages.clocked():
            fleet = cuda_epoch.Fleet([clocked])
    assert fleet.advance(0, 7) == [expected]
    for mine, theirs in zip(equality._arrays(clocked), equality._arrays(plain), strict=True):
        assert (mine == theirs).all()
    laps = kernel_stages.laps(fleet)
    assert laps.shape == (rung.blocks, len(kernel_stages.STAGES))
    assert (laps > 0).all()


def test_the_stages_are_the_time_of_both_kernels(no_gpu_needed: None) -> None:
    contender = prepared(rungs.named("cuda_epoch-cluster-8"), limit=7 * 16, epochs=1)
    seen: list[float] = []
    seconds = Watch.seconds

    def kept(watch: Watch) -> list[float]:
        seen[:] = seconds(watch)
        return seen

    with mock.patch.object(Watch, "seconds", kept):
        stages = contender.stages()
    assert stages.keys() == set(kernel_stages.STAGES) <= set(summary.STAGES)
    assert sum(stages.values()) == pytest.approx(sum(seen))
    assert all(value > 0 for value in stages.values())
    assert stages["gather"] > seen[0]


def test_too_few_images_leave_no_room_for_the_stages(no_gpu_needed: None) -> None:
    """Sixteen blocks with seven stages each."""
    with pytest.raises(ValueError, match="111 images; expected 112"):
        prepared(rungs.named("cuda_epoch-grid"), limit=111, epochs=1).stages()


def test_the_clock_must_follow_the_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (cuda.KERNELS / "epoch.cu").read_text()
    (tmp_path / "epoch.cu").write_text(text.replace("        head(e, labels, step, t);\n", ""))
    monkeypatch.setattr(cuda, "KERNELS", tmp_path)
    with pytest.raises(ValueError, match=r"0 times '        head\(e, labels, step, t\);"):
        kernel_stages.source()


@pytest.mark.skipif(not importlib.util.find_spec("cuda.bindings"), reason="no cuda-bindings")
def test_with_the_clock_all_numbers_still_have_registers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tutorial's network on a Hopper GPU: nothing is put into memory for want of a register."""
    for header in cuda.KERNELS.glob("*.cuh"):
        shutil.copy(header, tmp_path)
    (tmp_path / "epoch.cu").write_text(kernel_stages.source())
    monkeypatch.setattr(cuda, "KERNELS", tmp_path)
    for rung in LAYOUTS:
        layout = cuda_epoch.Layout(rung.cluster, rung.blocks, 64, 784, 50, 10)
        made = kernels.compiled.__wrapped__(kernels.Variant(90, layout))
        assert made.usage["train"].spill_stores == made.usage["train"].spill_loads == 0


# ------------------------------------------------------------------------ rungs beside one another


def a_case(dtype: type, choose: Callable[[equality.Case], bool] = lambda case: True) -> Any:
    """The first case of a dtype."""
    cases = (equality.Case.draw(seed, **SHAPE) for seed in range(100))
    return next(case for case in cases if case.dtype is dtype and choose(case))


def test_a_case_is_its_seeds() -> None:
    first, second = equality.Case.draw(3), equality.Case.draw(3)
    assert (first.split.images == second.split.images).all()
    assert first.options == second.options
    drawn = [equality.Case.draw(seed) for seed in range(30)]
    assert {case.dtype for case in drawn} == {np.float32, np.float64}
    assert {case.options.recipe for case in drawn} == set(RECIPES)
    assert any(len(case.split.labels) % case.options.batch_size for case in drawn)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_rung_equals_the_one_below(dtype: type, no_gpu_needed: None) -> None:
    """Within the derived bound; and bit for bit, where the same is computed in the same order."""
    found = equality.compare(a_case(dtype))
    names = [rung.name for rung in RUNGS if rung.computes_in(dtype)]
    pairs = [(entry["rung"], entry["below"]) for entry in found["rungs"]]
    assert pairs == [*zip(names[1:], names, strict=False)]
    assert [entry["reason"] for entry in found["rungs"]] == [""] * len(pairs)
    assert all(0 <= entry["share"] <= 1 for entry in found["rungs"])
    assert found["rungs"][1]["exact"]  # cuda_graph
    layouts = [rung.name for rung in LAYOUTS] if dtype is np.float32 else []
    assert [(e["rung"], e["reason"]) for e in found["together"]] == [(n, "") for n in layouts]


def test_a_wrong_rung_is_told_from_the_right_ones(
    no_gpu_needed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A learning rate that is wrong by a thousandth, in cuda_fused and so in cuda_graph."""
    steps = cuda.steps
    rate = np.array([1.001, 1, 1, 1])
    monkeypatch.setattr(cuda, "steps", lambda run, *stretch: steps(run, *stretch) * rate)
    fused, graph = equality.compare(a_case(np.float64))["rungs"]
    assert "update 1: lin" in fused["reason"]
    assert fused["share"] > 1e6
    assert (graph["reason"], graph["exact"]) == ("", True)


def test_what_must_be_the_same_to_the_bit_is(
    no_gpu_needed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(equality, "SAME", {"cuda_fused": "layers"})
    fused, _ = equality.compare(a_case(np.float64))["rungs"]
    assert fused["reason"].startswith("differs from layers, though it computes the same")


def test_only_the_rung_that_computes_the_same_must_be_the_same(
    no_gpu_needed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without cuda_fused, cuda_graph is beside layers, which adds up in another order."""
    found = equality.compare(a_case(np.float64), [RUNGS[0], RUNGS[2]])["rungs"]
    assert [(entry["below"], entry["reason"], entry["exact"]) for entry in found] == [
        ("layers", "", False)
    ]
    entries = [*equality.mnist_in_float64("adam", 2, 16, [RUNGS[0], RUNGS[2]])]
    assert [entry["reason"] for entry in entries] == ["", ""]


def test_if_nothing_was_compared_that_is_an_error(
    tmp_path: Path, no_gpu_needed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda, "limits", lambda: AMPERE)
    arguments = ["--out", f"{tmp_path}/rungs.json", "--steps", "0", "--cases", "1", "--seed", "5"]
    done = CliRunner().invoke(equality.main, [*arguments, "--rungs", "cuda_epoch-cluster-8"])
    assert done.exit_code != 0
    assert "nothing was compared" in done.output


def test_networks_that_disturb_one_another_are_found(
    no_gpu_needed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has the order of the samples of the one before it."""
    network = cuda_epoch.Fleet._network

    def other(fleet: cuda_epoch.Fleet, i: int) -> np.void:
        made = network(fleet, i)
        made["order"] = cuda.address(fleet.order[i - 1])
        return made

    monkeypatch.setattr(cuda_epoch.Fleet, "_network", other)
    case = a_case(np.float32, lambda case: len(case.split.labels) > 20)
    found = equality._together(case, LAYOUTS[1])
    assert found["reason"] == "3 networks together are not what each is alone"


def test_a_rung_that_the_gpu_has_not_is_passed_over_and_one_that_breaks_is_not(
    no_gpu_needed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda, "limits", lambda: AMPERE)
    monkeypatch.setattr(cuda_fused.Engine, "_update", lambda *_: 1 / 0)
    found = equality.compare(a_case(np.float32))
    told = {e["rung"]: (e["reason"], e.get("skipped", "")) for e in found["rungs"]}
    assert told["cuda_fused"] == ("ZeroDivisionError: division by zero", "")
    assert told["cuda_epoch-grid"] == ("", "")
    assert told["cuda_epoch-cluster-16"][0] == ""
    assert "no thread-block clusters" in told["cuda_epoch-cluster-16"][1]
    record = record_of("rungs", seed=1, cases=[found], mnist=[])
    assert {entry["rung"] for entry in equality.failures(record)} == {"cuda_fused", "cuda_graph"}
    lines = tables.table(record).splitlines()
    assert "| `cuda_epoch-cluster-8` | not on this GPU | - | - | - | - | 0 |" in lines


def test_mnist_in_one_go_is_judged(no_gpu_needed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        equality, "_train", lambda rung, task: agreement.reference(task, task.steps)
    )
    right = [*equality.mnist_in_float32("adam", 3, 16, RUNGS)]
    assert [entry["reason"] for entry in right] == [""] * len(RUNGS)

    def wrong(rung: Rung, task: Task) -> Outcome:
        return agreement.reference(task, task.steps, error=0.01 if rung.cluster else 0)

    monkeypatch.setattr(equality, "_train", wrong)
    found = [*equality.mnist_in_float32("adam", 3, 16, RUNGS)]
    assert [rung.cluster for rung in RUNGS] == [bool(entry["reason"]) for entry in found]


def test_the_command_holds_the_rungs_to_one_another(tmp_path: Path, no_gpu_needed: None) -> None:
    file = tmp_path / "rungs.json"
    arguments = [
        "--out", str(file), "--steps", "2", "--cases", "1", "--seed", "0", "--batch-size", "16",
        "--hidden", "9", "--rungs", "layers,cuda_fused,cuda_epoch-cluster-8",
    ]  # fmt: skip
    done = CliRunner().invoke(equality.main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    record = results.read(file)
    assert (record["device"], record["seed"]) == ("rehearsal", 0)
    assert [entry["rung"] for entry in record["mnist"][:3]] == arguments[-1].split(",")
    assert {entry["dtype"] for entry in record["mnist"]} == {"float32", "float64"}
    assert "| `cuda_epoch-cluster-8` | 4 | 0 of 1 |" in done.stdout
    assert "**A rehearsal without a GPU**" in done.stdout
    wrong = CliRunner().invoke(equality.main, [*arguments, "--rungs", "top"])
    assert "rung 'top' is unknown; expected some of layers" in wrong.output


def test_networks_are_timed_if_they_are_what_they_are_alone(
    no_gpu_needed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(networks, "COUNTS", (1, 2))
    monkeypatch.setattr(networks, "LAYOUTS", LAYOUTS[:2])
    options = Options("adam", limit=32, **SHAPE)
    found, interrupted = networks.measure(options, 2, print)
    assert not interrupted
    assert [(each["networks"], each["status"]) for each in found] == [(1, "ok"), (2, "ok")] * 2
    assert all(len(each["seconds"]) == len(each["gpu_seconds"]) == 2 for each in found)
    record = record_of("networks", networks=found, task=dataclasses.asdict(options))
    assert tables.table(record).startswith("| layout | 1 network | 2 networks |")

    advance = cuda_epoch.Fleet.advance

    def noisy(fleet: cuda_epoch.Fleet, *stretch: int) -> list[list[float]]:
        return [[x + len(fleet.runs) for x in losses] for losses in advance(fleet, *stretch)]

    monkeypatch.setattr(cuda_epoch.Fleet, "advance", noisy)
    monkeypatch.setattr(networks, "LAYOUTS", LAYOUTS[1:2])
    found, _ = networks.measure(options, 1, print)
    assert [each["status"] for each in found] == ["ok", "failed"]
    assert "seeds [0] have other losses beside other networks" in found[1]["reason"]


def test_what_the_sanitizer_watches_trains_all_rungs(
    no_gpu_needed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(short_runs, "SHAPES", ((16, 9),))
    done = CliRunner().invoke(short_runs.main, ["--limit", "20"], catch_exceptions=False)
    assert done.exit_code == 0
    assert [line.split(",")[0] for line in done.output.splitlines()] == [
        r.name for r in OWN_KERNELS
    ]
    monkeypatch.setattr(short_runs, "RUNGS", RUNGS[:2])
    monkeypatch.setattr(cuda, "means", lambda *_: [float("nan")] * 2)
    assert CliRunner().invoke(short_runs.main, ["--limit", "20"]).exit_code == 1
    monkeypatch.setattr(short_runs, "RUNGS", ())
    assert CliRunner().invoke(short_runs.main, []).exit_code == 1, "nothing has trained"


# -------------------------------------------------------------------------------------- the ladder

US = dict(zip((rung.name for rung in RUNGS), (400.0, 70.0, 15.0, 9.0, 7.0, 4.0), strict=True))


def ladder_of(without: str = "") -> results.Record:
    """A record in which each rung takes as long as it takes to test a table."""
    options, steps = Options("adam", limit=1000 * 64), 1000
    contenders, first, second = [], [], []
    for rung in RUNGS:
        name, us = f"scratchnet-{rung.name}", US[rung.name]
        status = "failed" if rung.name == without else "ok"
        contenders.append(contender_of(name, 1, 2 * us, status))
        values = {"seconds": [us * 1e-6 * steps] * 9, "accuracy": [0.93] * 9}
        if rung.name != "layers":
            values |= {"launches": [2.0] * 9, "kernels": [3.0 * steps] * 9}
        if status == "ok":
            first.append({"name": name, "threads": 1, "values": values})
            reached = {"seconds": [us / 1e3] * 5, "accuracy": [0.9644, 0.9641]}
            second.append({"name": name, "threads": 1, "values": reached})
    point = {
        "task": dataclasses.asdict(options), "steps": steps, "interrupted": False,
        "contenders": contenders,
    }  # fmt: skip
    limits = {"multiprocessors": 100, "clock": 1e9, "lanes": 128}
    found = record_of(
        "ladder", points=[point, point], gpu=[first, second], required=0.961, limits=[limits]
    )
    return found | {"device": "cuda", "machine": found["machine"] | {"gpu": "A GPU"}}


def test_the_ladders_limits_are_the_gpus_and_the_rungs_own() -> None:
    """10.2 MFLOP at 25.6 TFLOP/s are 0.4 us, on 16 of 100 multiprocessors 2.5, on 8 of them 5."""
    rows = {row.name: row.times for row in ladder.rows(ladder_of())}
    flops = 10_035_200 + 192_000
    for name, share in (("cuda_epoch-cluster-16", 16), ("cuda_epoch-cluster-8", 8)):
        times = rows[name]
        assert times
        assert times.least == pytest.approx(flops / 25.6e12 * 1e6)
        assert times.own == pytest.approx(flops / 25.6e12 * 1e6 * 100 / share)
        assert (times.gpu.median, times.wall.least) == pytest.approx((US[name], 2 * US[name]))
    layers = rows["layers"]
    assert layers
    assert layers.least == layers.own == pytest.approx(flops / 25.6e12 * 1e6)


def test_the_ladder_has_a_table() -> None:
    lines = tables.table(ladder_of(without="cuda_graph")).splitlines()
    assert lines[0].startswith("| rung | launches | kernels | kB moved | kB exchanged | us, GPU |")
    assert lines[3].startswith(
        "| `cuda_fused` | 0.002 | 3 | 1,284 | - | 70.0 | 146 | 0.6% | 0.6% |"
    )
    assert lines[3].endswith("| 70.0 (96.41%) |")
    assert lines[4] == "| `cuda_graph` | 0.055 | 3 | 1,284 | - | - | - | - | - | - |"
    assert "Not timed: scratchnet-cuda_graph: failed: for a reason." in lines
    assert lines[-1].startswith("A GPU, A CPU, 2 cores;")
    # Below the required accuracy there is no time to it.
    record = ladder_of()
    record["gpu"][1][0]["values"]["accuracy"] = [0.95]
    assert tables.table(record).splitlines()[2].endswith("| - |")


def test_without_a_gpu_the_ladder_has_launches_and_bytes_and_no_time() -> None:
    text = report.updated("<!-- benchmarks: ladder -->\n<!-- end -->", {})
    lines = text.splitlines()
    assert lines[1] == "| rung | launches | kernels | kB moved | kB exchanged | us an update |"
    rows = lines[3 : 3 + len(RUNGS)]
    assert all(row.endswith("| not yet run on a GPU |") for row in rows)
    assert rows[2].startswith("| `cuda_graph` | 0.06 | 3 | 1,284 |")
    assert rows[5].startswith("| `cuda_epoch-cluster-16` | 0.0021 | 0.0021 | 155 | 475 |")


def test_the_ladder_has_a_picture_of_what_was_timed() -> None:
    drawn = figures.draw(ladder_of(without="cuda_graph"))
    assert drawn
    for rung in RUNGS:
        assert (rung.name.encode() in drawn) == (rung.name != "cuda_graph")
    for text in (b">70.0<", b">1,284<", b">0.002<", b"of limit"):
        assert text in drawn
    assert figures.draw(record_of("ladder", points=[], gpu=[], limits=[])) is None


def test_stages_of_a_gpu_have_a_table_and_a_picture() -> None:
    rung, seconds = LAYOUTS[2], {stage: [0.001] for stage in kernel_stages.STAGES}
    point = point_of()
    point["contenders"] = [contender_of(f"scratchnet-{rung.name}", 1, 7)]
    record = record_of(
        "breakdown",
        points=[point],
        stages=[{"name": f"scratchnet-{rung.name}", "threads": 1, "seconds": seconds}],
        limits=[{"multiprocessors": 100, "clock": 1e9, "lanes": 128}],
    )
    lines = tables.table(record | {"device": "rehearsal"}).splitlines()
    header = "| contender | gather | forward | head | backward | update | wait | rest | all |"
    assert lines[0] == header
    assert lines[2] == f"| `scratchnet-{rung.name}` | {'1.00 | ' * 7}7.00 |"
    assert "take 0.40 with all 100 multiprocessors, 2.50 with 16 multiprocessors" in lines[4]
    drawn = figures.draw(record)
    assert drawn
    assert b"the products at best, 16 multiprocessors" in drawn


def test_the_targets_are_beside_what_was_measured() -> None:
    lines = tables.goals({}).splitlines()
    assert len(lines) == 2 + 5
    assert all(line.endswith("|  | not yet run on a GPU |") for line in lines[2:])
    point = point_of()
    times = {
        "scratchnet-layers": 300, "pytorch-default": 250, "pytorch-fused": 200,
        "pytorch-graph-1": 40, "pytorch-graph-compiled-8": 30, "scratchnet-cuda_graph": 15,
        "jax-scan": 25, "scratchnet-cuda_epoch": 5,
    }  # fmt: skip
    point["contenders"] = [contender_of(name, 1, us) for name, us in times.items()]
    compared = record_of("compare", points=[point]) | {"device": "cuda"}
    lines = tables.goals({"compare-cuda": compared, "ladder": ladder_of()}).splitlines()
    assert lines[2] == "| `layers` / PyTorch eager | 1 | 1.5 | **no** |"
    assert [line.split(" | ", 1)[1] for line in lines[3:]] == [
        "0.6 | 0.5 | yes |", "0.25 | 0.2 | yes |", "8 | 8.32 | **no** |", "15 | 4 | yes |",
    ]  # fmt: skip


def test_rehearsals_are_marked_and_count_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert results.header("ladder", "cuda", "command")["device"] == "cuda"
    monkeypatch.setenv(worker.REHEARSAL, "1")
    header = results.header("ladder", "cuda", "command")
    assert header["device"] == "rehearsal"
    results.save(ladder_of() | header, tmp_path / "a.json")
    assert results.newest(tmp_path) == {}
    results.save(ladder_of(), tmp_path / "b.json")
    results.save(record_of("campaign", parts=[]) | {"device": "cuda"}, tmp_path / "c.json")
    assert [*results.newest(tmp_path)] == ["ladder", "campaign"]


@no_emulator
def test_workers_tell_the_gpus_time() -> None:
    """A rung in a process of its own, as in the ladder."""
    options = Options("one-cycle", limit=35 * 16, **SHAPE)
    with emulated.gpu():
        entries = select("scratchnet-cuda_graph")
        assert entries[0].missing() is None
        point = harness.measure(options, entries, [1], device="cuda", rounds=1, question="gpu")
    (result,) = point.results
    assert result.status == "ok", result.reason
    answers = point.answers[result.name, 1]
    assert (answers["launches"], answers["kernels"]) == ([10.0], [105.0])
    assert answers["seconds"][0] > 0
    assert 0.1 < answers["accuracy"][0] < 1


def test_who_can_not_answer_fails(bad: Callable[[str], Entry]) -> None:
    point = harness.measure(Options("adam", limit=64), [bad("good")], [1], rounds=1, question="gpu")
    assert point.results[0].status == "failed"


@pytest.mark.parametrize("name", ["ladder", "networks"])
def test_what_is_about_a_gpu_needs_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    done = CliRunner().invoke(main, [f"--{name}"])
    assert (done.exit_code, done.output) == (
        2,
        f"Error: --{name}: is about a GPU; expected --device cuda\n",
    )
    monkeypatch.setattr(backend, "why_no_gpu", lambda: "there is none")
    done = CliRunner().invoke(main, [f"--{name}", "--device", "cuda"])
    assert "device cuda: there is none" in done.output


def test_who_fits_a_pattern_only_is_left_out_where_it_can_not_run() -> None:
    setting = experiments.Setting(
        Options("adam"), "cpu", [1], None, "scratchnet-*,pytorch-graph-1", False, 0,
        machine.Calibration(), print, 60.0,
    )  # fmt: skip
    names = {entry.name for entry in setting.entries(None)}
    assert names == {
        "scratchnet-layers",
        "scratchnet-numpy_inplace",
        "scratchnet-native",
        "pytorch-graph-1",
    }


# ------------------------------------------------------------------------------------ the campaign


def test_the_campaign_needs_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = machine.describe() | {"gpu": None}
    monkeypatch.setattr(machine, "describe", lambda: found)
    done = CliRunner().invoke(gpu_campaign.main, [str(tmp_path / "x")])
    assert done.exit_code == 2
    assert "no GPU: nvidia-smi is not found" in done.output
    assert not (tmp_path / "x").exists()


def test_a_part_of_the_campaign_ends_in_its_time(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    forever = Part("forever", "http.server", ("0",), 0.5)
    found = gpu_campaign.run(forever, tmp_path, left=100)
    assert found["status"] == "ended after 0 s"
    good = Part("good", "platform", (), 30)
    assert gpu_campaign.run(good, tmp_path, left=100)["status"] == "ok"
    log = (tmp_path / "logs" / "good.log").read_text().splitlines()
    assert log == [f"{sys.executable} -m platform", log[1]]
    assert gpu_campaign.run(good, tmp_path, left=1)["status"] == "no time left"
    bad = Part("bad", "no_such_module", (), 30)
    assert gpu_campaign.run(bad, tmp_path, left=100)["status"] == "exit status 1"
    lacking = Part("lacking", "platform", (), 30, before=None)
    assert "compute-sanitizer is not found" in gpu_campaign.run(lacking, tmp_path, 100)["status"]


@pytest.fixture
def campaign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Calls the campaign, on a machine with a GPU, with two parts, of which the second fails."""
    found = machine.describe() | {"gpu": "NVIDIA H100, 570.1"}
    monkeypatch.setattr(machine, "describe", lambda: dict(found))
    fake = [Part("good", "platform", (), 30), Part("bad", "no_such_module", (), 30)]
    monkeypatch.setattr(gpu_campaign, "parts", lambda folder, name: fake)

    def call(*arguments: str, code: int) -> str:
        done = CliRunner().invoke(gpu_campaign.main, [str(tmp_path), *arguments])
        assert done.exit_code == code, done.output
        return done.output

    return call


def test_the_campaign_goes_on_where_it_has_stopped(
    campaign: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign("--seconds", "1", code=1)
    file = tmp_path / "nvidia-h100-campaign.json"
    assert [p["status"] for p in results.read(file)["parts"]] == ["no time left"] * 2
    assert "| `good` | ok |" in campaign("--parts", "good", code=0)
    output = campaign(code=1)
    assert "good ..." not in output
    assert "| `bad` | exit status 1 |" in output
    assert [p["name"] for p in results.read(file)["parts"]] == ["good", "bad"]
    assert "not yet run on a GPU" in output  # the targets
    assert "..." not in campaign(code=1)  # all has been run
    assert "part 'best' is unknown; expected some of good, bad" in campaign(
        "--parts", "best", code=2
    )
    found = machine.describe() | {"commit": "another"}
    monkeypatch.setattr(machine, "describe", lambda: found)
    assert "expected the same, or a new folder" in campaign(code=2)


@pytest.mark.parametrize("option", [[], ["--rehearse"], ["--help"]])
def test_the_campaign_tells_all_that_is_not_installed_at_once(option: list[str]) -> None:
    """In a Python without any packages (-S); CuPy is asked for where there must be a GPU."""
    command = [sys.executable, "-S", "-m", "benchmarks.gpu_campaign", "x", *option]
    environment = {**os.environ, "PYTHONPATH": ""}
    done = subprocess.run(
        command, cwd=machine.ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    packages = [needed.PACKAGES.get(name, name) for name in needed.NEEDED]
    if option:
        packages.remove("cupy-cuda13x")
    assert done.stderr.startswith(f"Error: {', '.join(packages)} not installed: pip install")


def test_the_campaign_needs_all_that_scratchnet_does() -> None:
    project = tomllib.loads((machine.ROOT / "pyproject.toml").read_text())["project"]
    names = {re.split("[>=]", package)[0] for package in project["dependencies"]}
    assert names <= {needed.PACKAGES.get(name, name) for name in needed.NEEDED}


def test_the_campaign_fits_its_time(tmp_path: Path) -> None:
    """The parts that matter most, as a whole; of the others each fits a call."""
    parts = {part.name: part.seconds for part in gpu_campaign.parts(tmp_path, "gpu")}
    first = ("tests", "rungs", "lockstep-layers", "lockstep-cuda_epoch", "compare")
    assert sum(parts[name] for name in first) < gpu_campaign.SECONDS < 540
    assert all(seconds < 200 for seconds in parts.values())
    assert {
        "memcheck",
        "racecheck",
        "synccheck",
        "initcheck",
        "breakdown",
        "networks",
    } <= parts.keys()


def test_a_part_is_not_begun_without_its_time(
    campaign: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But the first of a call is, and one that is shorter and fits."""
    given: list[tuple[str, float]] = []

    def run(part: Part, folder: Path, left: float, rehearse: bool) -> dict[str, Any]:
        given.append((part.name, min(left, part.seconds)))
        return {"name": part.name, "status": "ok" if left else "no time left"}

    three = [Part(name, "", (), seconds) for name, seconds in (("a", 90), ("b", 90), ("c", 20))]
    monkeypatch.setattr(gpu_campaign, "parts", lambda folder, name: three)
    monkeypatch.setattr(gpu_campaign, "run", run)
    campaign("--seconds", "100", code=1)
    assert [round(seconds, -1) for _, seconds in given] == [80, 0, 20]
    campaign("--seconds", "100", code=0)
    assert [(name, round(seconds, -1)) for name, seconds in given[3:]] == [("b", 80)]
    campaign("--seconds", "200", "--parts", "c", code=0)
    assert [(name, round(seconds, -1)) for name, seconds in given[4:]] == [("c", 180)]


@pytest.mark.parametrize("rehearse", [False, True])
def test_each_command_of_the_campaign_is_one(
    rehearse: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its module is there, and takes its arguments."""
    taken: list[dict[str, Any]] = []
    monkeypatch.setattr(OneLineErrors, "invoke", lambda command, ctx: taken.append(ctx.params))
    monkeypatch.setattr(shutil, "which", lambda *_, **__: "/bin/sanitizer")
    for part in gpu_campaign.parts(tmp_path, "gpu"):
        command = part.command(rehearse)
        if part.name in gpu_campaign.TOOLS and not rehearse:
            assert command[:3] == ["/bin/sanitizer", "--tool", part.name]
        where = command.index("-m") + 1 + (rehearse and part.emulated)
        if command[where] == "pytest":
            continue
        monkeypatch.setattr(sys, "argv", command[where:])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # that the module is loaded already
            with pytest.raises(SystemExit) as ended:
                runpy.run_module(command[where], run_name="__main__", alter_sys=True)
        assert ended.value.code == 0, command
    assert len(taken) == len(gpu_campaign.parts(tmp_path, "gpu")) - 1


def test_a_rehearsal_has_data_of_its_own(tmp_path: Path) -> None:
    gpu_campaign._small_data(tmp_path / "data")
    found = mnist.load(tmp_path / "data")
    assert (len(found.train.labels), len(found.validation.labels)) == (50, 10)
    assert (found.train.images == DATA.train.images[:50]).all()
    assert (found.validation.labels == DATA.train.labels[50:60]).all()


@no_emulator
@pytest.mark.skipif(not SLOW, reason="takes ten minutes: set SCRATCHNET_SLOW_TESTS=1")
def test_the_campaign_can_be_rehearsed(tmp_path: Path) -> None:
    done = CliRunner().invoke(gpu_campaign.main, [str(tmp_path), "--rehearse"])
    assert done.exit_code == 0, done.output
