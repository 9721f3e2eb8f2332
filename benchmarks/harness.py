"""Contenders take turns: rounds in random order, one at a time, and only who agrees is timed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks import machine, task
from benchmarks.agreement import Agreement, Standard
from benchmarks.contenders import Entry
from benchmarks.machine import Calibration
from benchmarks.task import Outcome, Task
from benchmarks.worker import PATIENCE, Failed, Ready, Timed, Worker
from scratchnet.training import Options

Say = Callable[[str], None]
LEAST_ROUNDS = 3
LONG = 1.0  # seconds: whose run takes longer takes part in fewer rounds


@dataclass
class Result:
    """What became of a contender with a number of threads.

    Attributes:
        status: "ok"; "skipped" if it can't run here or can't do the task; "disagrees" or "failed".
        reason: why it has no times, or no more.
        probe, task: its agreement with the reference; `task` is the worst of all of its runs.
        timed: the runs by the number of their round.
    """

    name: str
    threads: int
    status: str = "ok"
    reason: str = ""
    about: str = ""
    prepare_seconds: float | None = None
    probe: Agreement | None = None
    task: Agreement | None = None
    timed: dict[int, Timed] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """See `results`."""
        runs = [{"round": r, **dataclasses.asdict(timed)} for r, timed in self.timed.items()]
        agreement = {
            name: None if found is None else dataclasses.asdict(found)
            for name, found in (("probe", self.probe), ("task", self.task))
        }
        return {
            "name": self.name,
            "threads": self.threads,
            "status": self.status,
            "reason": self.reason,
            "about": self.about,
            "prepare_seconds": self.prepare_seconds,
            "agreement": agreement,
            "runs": runs,
        }


@dataclass
class Point:
    """One task and all contenders' results.

    answers: to a question, of each contender and number of threads: the numbers of each round.
    """

    options: Options
    steps: int
    results: list[Result]
    interrupted: bool = False
    answers: dict[tuple[str, int], dict[str, list[float]]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """See `results`."""
        return {
            "task": dataclasses.asdict(self.options),
            "steps": self.steps,
            "interrupted": self.interrupted,
            "contenders": [result.as_json() for result in self.results],
        }


class Judge:
    """The references of a task and of its probe."""

    def __init__(self, options: Options, device: str) -> None:
        data = task.training(options)
        self.probe_options = task.probe(options, len(data.labels))
        of_task = Task.of(options, device, data)
        self.steps = of_task.steps
        self.probe, self.task = (
            Standard(Task.of(self.probe_options, device, data)),
            Standard(of_task),
        )

    def hear(self, result: Result, ready: Ready) -> None:
        """Judge a contender's first two runs."""
        result.about, result.prepare_seconds = ready.about, ready.prepare_seconds
        result.probe, result.task = self.probe.judge(ready.probe), self.task.judge(ready.first)
        for what, found in (("probe", result.probe), ("task", result.task)):
            if not found.ok and result.status == "ok":
                result.status, result.reason = "disagrees", f"{what}: {found}"

    def check(self, result: Result, outcome: Outcome) -> bool:
        """Judge a timed run."""
        found = self.task.judge(outcome)
        if result.task is None or found.share > result.task.share:
            result.task = found
        if not found.ok:
            result.status, result.reason, result.timed = "disagrees", f"task: {found}", {}
        return found.ok


def measure(
    options: Options,
    entries: Iterable[Entry],
    threads: Sequence[int],
    *,
    device: str = "cpu",
    rounds: int = 9,
    seed: int = 0,
    calibration: Calibration | None = None,
    say: Say = lambda text: None,
    patience: float = PATIENCE,
    question: str = "",
) -> Point:
    """Let contenders with each number of threads train a task in turns.

    Args:
        options: of the task.
        entries: the contenders.
        threads: each contender takes part once with each.
        device: "cpu" or "cuda".
        rounds: how many; LEAST_ROUNDS or more, unless fewer are asked for.
        seed: of the order within rounds.
        calibration: measured in every round, before the contenders.
        say: told of progress, line by line.
        patience: seconds for a contender to prepare.
        question: put to each after its run of a round, see `Worker.answer`; default none.

    Returns:
        What was measured; after Ctrl-C in the rounds, so far.
    """
    # BLAS threads of this process would wait actively beside the contenders.
    with threadpool_limits(1):
        return _measure(
            options, entries, threads, device, rounds, seed, calibration, say, patience, question
        )


def _measure(
    options: Options,
    entries: Iterable[Entry],
    threads: Sequence[int],
    device: str,
    rounds: int,
    seed: int,
    calibration: Calibration | None,
    say: Say,
    patience: float,
    question: str,
) -> Point:
    point = Point(options, 0, [])
    workers: list[tuple[Worker, Result]] = []
    judge = Judge(options, device)
    point.steps = judge.steps
    try:
        for entry in entries:
            reason = entry.missing() or entry.unfit(options.recipe, device)
            for count in threads:
                result = Result(entry.name, count)
                point.results.append(result)
                if reason:
                    result.status, result.reason = "skipped", reason
                    continue
                worker = Worker(entry, count, options, judge.probe_options, device, patience)
                workers.append((worker, result))
        _prepare(workers, judge, say)
        try:
            for number in range(rounds):
                say(f"round {number + 1} of {rounds}")
                if calibration:
                    calibration.measure()
                _round(number, rounds, seed, workers, judge, say, question, point)
        except KeyboardInterrupt:
            point.interrupted = True
            say("interrupted; what was measured so far is kept")
    finally:
        for worker, _ in workers:
            worker.stop()
    return point


def _prepare(workers: list[tuple[Worker, Result]], judge: Judge, say: Say) -> None:
    """Not more threads at a time than there are cores; nothing is timed yet."""

    def prepare(pair: tuple[Worker, Result]) -> None:
        worker, result = pair
        try:
            judge.hear(result, worker.prepare())
        except Failed as error:
            result.status, result.reason = "failed", str(error)
        if result.status == "ok":
            us = worker.seconds / judge.steps * 1e6
            say(f"{worker.name}: ready in {result.prepare_seconds:.1f} s, {us:.0f} us/step")
        else:
            say(f"{worker.name}: {result.status}: {result.reason}")

    for count in sorted({worker.threads for worker, _ in workers}):
        group = [pair for pair in workers if pair[0].threads == count]
        with ThreadPoolExecutor(max(1, machine.cores() // count)) as pool:
            try:
                list(pool.map(prepare, group))
            except BaseException:
                for worker, _ in workers:  # so that no thread waits for an answer any more
                    worker.process.kill()
                raise


def _round(
    number: int,
    rounds: int,
    seed: int,
    workers: list[tuple[Worker, Result]],
    judge: Judge,
    say: Say,
    question: str,
    point: Point,
) -> None:
    """Everyone once, in an order of this round's own."""
    order = np.random.default_rng([seed, number]).permutation(len(workers))
    for worker, result in (workers[i] for i in order):
        if result.status != "ok" or not takes_part(number, rounds, worker.seconds):
            continue
        try:
            timed, outcome = worker.train()
            if judge.check(result, outcome):
                result.timed[number] = timed
            if question:
                found = point.answers.setdefault((result.name, result.threads), {})
                for name, value in worker.answer(question).items():
                    found.setdefault(name, []).append(value)
        except Failed as error:
            result.status, result.reason = "failed", str(error)
        if result.status != "ok":
            say(f"{worker.name}: {result.status}: {result.reason}")


def takes_part(number: int, rounds: int, seconds: float) -> bool:
    """Whether who takes so long for a run takes part in a round.

    In all rounds up to LONG seconds, then in fewer, evenly spread, down to LEAST_ROUNDS.
    """
    share = max(min(1.0, LONG / seconds), min(1.0, LEAST_ROUNDS / rounds))
    return int((number + 1) * share + 1e-9) > int(number * share + 1e-9)
