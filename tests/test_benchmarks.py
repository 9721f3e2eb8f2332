"""The benchmarks time only who does the same work, survive any contender, and report what is so."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from benchmarks import (
    agreement,
    experiments,
    figures,
    gpu_campaign,
    harness,
    machine,
    report,
    results,
    starts,
    statistics,
    summary,
    tables,
    worker,
)
from benchmarks.__main__ import main
from benchmarks.agreement import Standard
from benchmarks.contenders import ENTRIES, Entry, pytorch_cuda_graph, select
from benchmarks.task import PARAMETERS, Outcome, Task, accuracy, probe
from reference.twin import Twin
from scratchnet import mnist
from scratchnet.errors import InputError
from scratchnet.training import RECIPES, Options, Run, evaluate

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
    names = {entry.name for entry in select("scratchnet-*") if not entry.missing()}
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
        Options("adam"), "cpu", [1], None, None, False, 0, machine.Calibration(), lambda text: None
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
    assert found["first_seconds"] > found["import_seconds"] > 0
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


def test_the_campaign_needs_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "describe", lambda: {"gpu": None})
    done = CliRunner().invoke(gpu_campaign.main, [str(tmp_path / "x")])
    assert done.exit_code == 2
    assert done.output.startswith("no GPU: nvidia-smi is not found")
    assert not (tmp_path / "x").exists()


def test_a_part_of_the_campaign_ends_in_its_time(tmp_path: Path) -> None:
    forever = gpu_campaign.Part("forever", ("cat", "/dev/zero"), 0.2)
    found = gpu_campaign.run(forever, tmp_path, left=100)
    assert found["status"] == "ended after 0 s"
    good = gpu_campaign.Part("good", ("echo", "well"), 10)
    assert gpu_campaign.run(good, tmp_path, left=100)["status"] == "exit status 0"
    assert (tmp_path / "good.log").read_text() == "well\n"
    assert gpu_campaign.run(good, tmp_path, left=1)["status"] == "no time left"


def test_the_campaign_fits_its_time(tmp_path: Path) -> None:
    """The parts that matter most, as a whole; the sweeps take what is left."""
    parts = {part.name: part.seconds for part in gpu_campaign.parts(tmp_path)}
    first = sum(parts[name] for name in ("tests", "lockstep", "compare"))
    assert first < gpu_campaign.SECONDS < 540
