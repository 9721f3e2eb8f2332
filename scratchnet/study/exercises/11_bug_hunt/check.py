"""Exercise 11: the suspects are run, and of a wrong guess it is told what it would not do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from scratchnet.study.exercises.checking import right, to_do, wrong
from scratchnet.study.verdicts import Verdict

RIGHT = {
    "z1": "z1 = x @ W1.T + b1",
    "h": "h = np.maximum(z1, 0)",
    "z2": "z2 = h @ W2.T + b2",
    "e": "e = np.exp(z2 - z2.max(axis=1, keepdims=True))",
    "p": "p = e / e.sum(axis=1, keepdims=True)",
    "loss": "loss = -np.log(p[range(N), target]).mean()",
    "dz2": "dz2 = (p - y) / N",
    "dW2": "dW2 = dz2.T @ h",
    "db2": "db2 = dz2.sum(axis=0)",
    "dh": "dh = dz2 @ W2",
    "dz1": "dz1 = np.where(z1 > 0, dh, 0)",
    "dW1": "dW1 = dz1.T @ x",
    "db1": "db1 = dz1.sum(axis=0)",
}
SUSPECTS = {
    "A": ("dz2", "dz2 = p - y"),
    "B": ("dz2", "dz2 = (y - p) / N"),
    "C": ("dz2", "dz2 = p / N"),
    "D": ("p", "p = e / e.sum(axis=0)"),
    "E": ("dW2", "dW2 = dz2.T @ z1"),
    "F": ("db2", "db2 = dz2.mean(axis=0)"),
    "G": ("dh", "dh = dz2 @ W2.T"),
    "H": ("dz1", "dz1 = dh"),
    "I": ("dz1", "dz1 = np.where(dh > 0, dh, 0)"),
    "J": ("dz1", "dz1 = np.where(z1 >= 0, dh, 0)"),
    "K": ("dW1", "dW1 = dz1.T @ x / N"),
    "L": ("db1", "db1 = dz1.sum()"),
    "M": ("dh", "W2 = W2 - lr * dW2; dh = dz2 @ W2"),
    "N": ("dW1", "dW1 = dW1 + dz1.T @ x"),
    "O": ("dz2", "dz2 = p / N; dz2[:, target] -= 1 / N"),
    "P": ("db1", "db1 = dz1[0]"),
}
UPDATE = (
    *(f"{name} = {name} - lr * d{name}" for name in ("W1", "b1", "b2")),
    "W2 = W2 if early else W2 - lr * dW2",  # M has updated it already
)
GRADIENTS = ("dz2", "dW2", "db2", "dh", "dz1", "dW1", "db1")

Values: TypeAlias = dict[str, Any]


class Run:
    """A few steps of training with a suspect's line in the place of the right one.

    Attributes:
        steps: all values after each step, each with what all of them should be in this step.
        error: what a step has raised.
    """

    def __init__(self, letter: str, start: Values, steps: int = 1) -> None:
        step, line = SUSPECTS[letter]
        lines = "\n".join([*(RIGHT | {step: line}).values(), *UPDATE])
        values = {"np": np, "dW1": 0, "early": letter == "M", **start}
        self.steps: list[tuple[Values, Values]] = []
        self.error: Exception | None = None
        for _ in range(steps):
            truth = dict(values)
            exec("\n".join(RIGHT.values()), truth)
            try:
                exec(lines, values)
            except ValueError as error:
                self.error = error
                return
            self.steps.append((dict(values), truth))

    def is_right(self, name: str, step: int = 0) -> bool:
        """Whether an array is as it should be."""
        return self.ratio(name, step) == 1

    def ratio(self, name: str, step: int = 0) -> float | None:
        """By what factor an array is off, if it is the same for all of it."""
        if step >= len(self.steps):
            return None
        found, truth = (np.asarray(values[name]) for values in self.steps[step])
        if found.shape != truth.shape:
            return None
        for factor in (1, -1, len(self.steps[step][0]["x"])):
            if np.allclose(found, factor * truth, rtol=1e-9, atol=1e-12):
                return factor
        return None

    def error_of(self, name: str) -> float:
        """The largest difference from the truth, in the first step."""
        if not self.steps or np.shape(self.steps[0][0][name]) != np.shape(self.steps[0][1][name]):
            return np.inf
        found, truth = self.steps[0]
        return float(abs(found[name] - truth[name]).max())


class Lab:
    """Where a suspect is put to the test: the same start for all."""

    def __init__(self, letter: str, seed: int) -> None:
        self.letter, self.seed = letter, seed

    def run(self, n: int = 5, h: int = 3, steps: int = 1, **changes: Any) -> Run:
        """Train from random values; unit 0 is open for every sample, the last is closed."""
        rng = np.random.default_rng(self.seed)
        x, target = rng.uniform(-0.5, 0.5, (n, 7)), rng.permutation(np.arange(n) % 4)
        W1 = rng.uniform(-0.5, 0.5, (h, 7))
        W2, b2 = rng.uniform(-1, 1, (4, h)), rng.uniform(-1, 1, 4)
        b1 = np.zeros(h)
        b1[0], b1[-1] = 2.0, -2.0  # beyond the 7 · 0.5 · 0.5 that x and W1 can make
        x[:2] = W1[1] * np.array([[1.0], [-1.0]])[:n]  # unit 1 is open for sample 0, closed for 1
        start: Values = {"x": x, "target": target, "W1": W1, "b1": b1, "W2": W2, "b2": b2}
        start |= {"lr": 0.1} | changes
        start["N"] = len(start["x"])
        start["y"] = np.eye(4)[start["target"]]
        return Run(self.letter, start, steps)

    def blank(self) -> Run:
        """Train from b1 = 0 with a blank image."""
        return self.run(x=np.zeros((1, 7)), target=np.array([1]), b1=np.zeros(3))


class Claim(NamedTuple):
    """A sentence of a report, and whether it holds for a suspect."""

    text: str
    holds: Callable[[Lab], bool]


def all_right(run: Run, but: str = "", step: int = 0) -> bool:
    """Whether all gradients are right, but perhaps one."""
    return all(run.is_right(name, step) for name in GRADIENTS if name != but)


def of_first(run: Run, test: Callable[[Values], Any]) -> bool:
    """Whether something is true of the values of the first step."""
    return bool(run.steps) and bool(test(run.steps[0][0]))


def only(name: str) -> Callable[[Lab], bool]:
    """Whether this gradient is wrong, and no other."""
    return lambda lab: all_right(lab.run(), but=name) and not lab.run().is_right(name)


def any_negative(lab: Lab, name: str) -> bool:
    """Whether an array has a negative entry, from one of several starts."""
    runs = [Lab(lab.letter, seed).run() for seed in range(lab.seed, lab.seed + 10)]
    return not all(of_first(run, lambda values: np.all(values[name] >= 0)) for run in runs)


def rises(lab: Lab) -> bool:
    """Whether the loss is larger after each of the first steps."""
    losses = [values["loss"] for values, _ in lab.run(steps=3, lr=0.01).steps]
    return len(losses) == 3 and bool((np.diff(losses) > 0).all())


def column_0_is_right(lab: Lab) -> bool:
    """Whether dW2 is right where it belongs to unit 0, which is open for every sample."""
    found, truth = lab.run().steps[0]
    return np.allclose(found["dW2"][:, 0], truth["dW2"][:, 0], rtol=1e-9)


def shrinks_with_lr(lab: Lab) -> bool:
    """Whether dW1 is off in proportion to the learning rate."""
    large, small = (lab.run(lr=lr).error_of("dW1") for lr in (0.1, 0.01))
    return large > 1e-9 and abs(10 * small / large - 1) < 1e-6


REPORTS: dict[int, tuple[str, list[Claim]]] = {
    1: (
        "A",
        [
            Claim(
                "all gradients are 5 times too large",
                lambda lab: all(lab.run().ratio(name) == 5 for name in GRADIENTS),
            ),
            Claim("with one sample all gradients are right", lambda lab: all_right(lab.run(1))),
        ],
    ),
    2: (
        "B",
        [
            Claim("the loss rises from the first step", rises),
            Claim(
                "all gradients have the right size",
                lambda lab: all(lab.run().ratio(name) in (1, -1) for name in GRADIENTS),
            ),
        ],
    ),
    3: (
        "C",
        [
            Claim(
                "each row of dz2 sums to 1/5",
                lambda lab: of_first(lab.run(), lambda v: np.allclose(v["dz2"].sum(axis=1), 1 / 5)),
            ),
            Claim("db2 has no negative entry", lambda lab: not any_negative(lab, "db2")),
        ],
    ),
    4: (
        "D",
        [
            Claim(
                "with one sample p is 1 for every class",
                lambda lab: of_first(lab.run(1), lambda v: (v["p"] == 1).all()),
            )
        ],
    ),
    5: (
        "E",
        [
            Claim("dW2 is the only gradient that is wrong", only("dW2")),
            Claim(
                "its column of a unit that is open for every sample is right",
                column_0_is_right,
            ),
        ],
    ),
    6: (
        "F",
        [
            Claim("db2 is the only gradient that is wrong", only("db2")),
            Claim("with one sample it is right", lambda lab: lab.run(1).is_right("db2")),
        ],
    ),
    7: (
        "G",
        [
            Claim("it stops with a ValueError", lambda lab: lab.run().error is not None),
            Claim(
                "with 4 hidden units it runs, and dh is wrong",
                lambda lab: bool(lab.run(h=4).steps) and not lab.run(h=4).is_right("dh"),
            ),
        ],
    ),
    8: (
        "H",
        [
            Claim(
                "the weights of a unit that is closed for every sample change",
                lambda lab: of_first(lab.run(), lambda v: np.any(np.atleast_2d(v["dW1"])[-1])),
            ),
            Claim(
                "dW2 and db2 are right",
                lambda lab: lab.run().is_right("dW2") and lab.run().is_right("db2"),
            ),
            Claim("dz1 has negative entries", lambda lab: any_negative(lab, "dz1")),
        ],
    ),
    9: (
        "I",
        [
            Claim("dz1 has no negative entry", lambda lab: not any_negative(lab, "dz1")),
            Claim("dh is right", lambda lab: lab.run().is_right("dh")),
        ],
    ),
    10: (
        "J",
        [
            Claim("all gradients are right", lambda lab: all_right(lab.run())),
            Claim(
                "from b1 = 0, and a blank image as the only sample, b1 changes",
                lambda lab: of_first(lab.blank(), lambda v: np.any(v["db1"])),
            ),
        ],
    ),
    11: (
        "N",
        [
            Claim("in the first step all gradients are right", lambda lab: all_right(lab.run())),
            Claim(
                "in the second step dW1 is wrong",
                lambda lab: not lab.run(steps=2).is_right("dW1", step=1),
            ),
        ],
    ),
    12: (
        "M",
        [
            Claim(
                "dW2 and db2 are right",
                lambda lab: lab.run().is_right("dW2") and lab.run().is_right("db2"),
            ),
            Claim("dW1 is wrong by a tenth as much, if lr is a tenth as large", shrinks_with_lr),
        ],
    ),
}


def check(learner: ModuleType, seed: int = 0) -> Iterator[Verdict]:
    """A verdict on each report's culprit."""
    typed = getattr(learner, "REPORTS", None)
    if not isinstance(typed, dict):
        yield wrong("REPORTS", "no dict", f"REPORTS = {typed!r}; expected a dict, as at first")
        return
    for number, (culprit, claims) in REPORTS.items():
        yield of_guess(number, typed.get(number), culprit, claims, seed)


def of_guess(number: int, typed: Any, culprit: str, claims: list[Claim], seed: int) -> Verdict:
    """Compare a guess; a wrong one is run, to see what it would not do."""
    name = f"report {number}"
    if typed is None:
        return to_do(name, f'type in the letter of the line, such as {number}: "A"')
    letter = typed.strip().upper() if isinstance(typed, str) else ""
    if letter not in SUSPECTS:
        return wrong(name, "no suspect", f"{name}: {typed!r} is no suspect; expected A to P")
    if letter == culprit:
        return right(name)
    lab = Lab(letter, seed)
    _, line = SUSPECTS[letter]
    error = lab.run().error
    if error:  # then there are no gradients of which a claim could be true or not
        stops = f"it stops with a {type(error).__name__}, and nobody reports that here"
        return wrong(name, f"not {letter}", f"{name} is not {letter}: with {line} {stops}")
    refuted = next(claim.text for claim in claims if not claim.holds(lab))
    message = f"{name} is not {letter}: with {line} it is not so that {refuted}"
    return wrong(name, f"not {letter}", message, claim=refuted)
