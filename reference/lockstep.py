"""Two libraries in lock-step: from one state, one batch, every number of both side by side.

Each step starts all sides from the same state, scratchnet's on NumPy, so that each number is judged
by what this step alone can have rounded; and the optimizers get the same gradient. An engine shows
no gradient: its update, whole, is judged by what both sides can have rounded in theirs and in the
optimizer. The free run is the other experiment: both libraries go their own way from the same
start, and the distance is watched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from reference import propagation, step
from reference.bounds import Dtype
from reference.compare import Report, difference
from reference.propagation import Estimate
from reference.twin import Twin
from scratchnet import backend, engines
from scratchnet.backend import Array
from scratchnet.mnist import Split
from scratchnet.optim import AdamW
from scratchnet.training import Options, Run

Arrays = dict[str, Array]

MOMENTS = ("exp_avg", "exp_avg_sq")
STABLE = 1e-9  # how far two stable float64 runs may drift apart
CHAOTIC_FROM = 50  # steps, after which the tutorial's recipe doubles every difference
# Moments m and v below these an engine may take for 0, as numpy_inplace does every 64th step. Far
# below them is what else an engine may lose: by flushing subnormal numbers, or, scaling gradients
# by √(1 - β₂) > 1/32, by underflows that are so many times larger.
FADED = (1e-30, 1e-36)


@dataclass(frozen=True)
class Step:
    """What all sides of a step start from.

    Attributes:
        x, y: the batch.
        parameters: by name.
        optimizer: scratchnet's state_dict; None for a new optimizer.
        t: the number of the optimizer's step, from 1.
        settings: of the optimizer: lr, betas, eps, weight_decay, and whether that is decoupled.
    """

    x: Array
    y: Array
    parameters: Arrays
    optimizer: dict[str, Any] | None
    t: int
    settings: dict[str, Any]

    @classmethod
    def of(cls, run: Run, number: int, x: Array, y: Array, lr: float) -> Step:
        """A run's next step, its number from 1, on a batch and with a learning rate."""
        optimizer = run.optimizer
        return cls(
            x,
            y,
            run.model.state_dict(),
            None if run.recipe.renew else optimizer.state_dict(),
            1 if run.recipe.renew else number,
            {
                "lr": lr,
                "betas": tuple(optimizer.betas),
                "eps": optimizer.eps,
                "weight_decay": optimizer.weight_decay,
                "decoupled": isinstance(optimizer, AdamW),
            },
        )

    def limits_of_engine(self, run: Run) -> dict[str, Estimate]:
        """How far off by rounding an engine may be that makes this step, in all that it shows."""
        dtype = _dtype(run)
        inputs = step.inputs(dtype, self.x, run.normalization)
        limits = step.estimate(dtype, self.parameters, inputs, self.y)
        return limits | _limits(dtype, self, _gradients(self, limits), FADED)

    def triples(
        self, grads: Mapping[str, Any]
    ) -> Iterator[tuple[tuple[str, str, str], tuple[Any, ...]]]:
        """For each parameter the names of its three arrays, and (p, g, m, v)."""
        for i, (name, p) in enumerate(self.parameters.items()):
            state = self.optimizer["state"].get(i, {}) if self.optimizer else {}
            m, v = (backend.to_numpy(state.get(kind, np.zeros_like(p))) for kind in MOMENTS)
            yield (name, f"exp_avg {name}", f"exp_avg_sq {name}"), (p, grads[name], m, v)


class Scratchnet:
    """scratchnet on one device, set to a given state at each step."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def gradients(self, at: Step) -> Arrays:
        """Everything from activations to gradients, by hand."""
        self.run.model.load_state_dict(at.parameters)
        return step.of_scratchnet(self.run.model, at.x, at.y)

    def update(self, at: Step, grads: Arrays) -> Arrays:
        """Parameters and moments after the optimizer's step along given gradients."""
        run = self.run
        run.model.load_state_dict(at.parameters)
        if at.optimizer is None:
            run.optimizer = run.recipe.optimizer(run.model.parameters(), at.settings["lr"])
        else:
            run.optimizer.load_state_dict(at.optimizer)
        for name, parameter in run.model.named_parameters():
            parameter.grad = backend.asarray(grads[name], run.device)
        run.optimizer.lr = at.settings["lr"]
        run.optimizer.step()
        run.optimizer.zero_grad()
        return _state(run)


class Engine:
    """One of scratchnet's other engines, set to a given state at each step.

    Where each update has a new optimizer, the moments of the last one are there for it to forget.
    """

    def __init__(self, run: Run) -> None:
        self.run, self.made = run, engines.make(run.engine, run)

    def advance(self, at: Step, number: int) -> Arrays:
        """The loss of an update, and parameters and moments after it."""
        self.run.model.load_state_dict(at.parameters)
        if at.optimizer is not None:
            self.run.optimizer.load_state_dict(at.optimizer)
        (loss,) = self.made.advance(number - 1, number)
        return {"loss": np.asarray(loss, self.run.dtype)} | _state(self.run)


class PyTorch:
    """PyTorch on one device, set to a given state at each step."""

    def __init__(self, device: str) -> None:
        self.device = device

    def gradients(self, at: Step) -> Arrays:
        """Everything from activations to gradients, by autograd."""
        return step.of_pytorch(step.network(at.parameters, self.device), at.x, at.y)

    def update(self, at: Step, grads: Arrays) -> Arrays:
        """Parameters and moments after the optimizer's step along given gradients."""
        found: Arrays = {}
        for names, (p, g, m, v) in at.triples(grads):
            results = step.adam_of_pytorch(p, g, m, v, at.t, device=self.device, **at.settings)
            found |= zip(names, results, strict=True)
        return found


@dataclass
class Lockstep:
    """Sides that are held to PyTorch on the CPU, step by step.

    Attributes:
        run: scratchnet's on NumPy, whose results are the next step's state.
        sides: by name; the run's own is the first.
        engine: one that makes each update too, beside the sides; or None.
        report: all differences so far; a difference's place is its step, counted from 1.
    """

    run: Run
    sides: dict[str, Scratchnet | PyTorch]
    engine: Engine | None = None
    report: Report = field(default_factory=Report)

    @classmethod
    def start(
        cls, options: Options, split: Split, dtype: Dtype, device: str, engine: str = "layers"
    ) -> Lockstep:
        """Sides before their first step: two on the CPU, and on "cuda" two more on the GPU.

        Raises:
            InputError: the engine is unknown, or can't be used here.
        """
        run = Run(options, split, "cpu", dtype)
        sides: dict[str, Scratchnet | PyTorch] = {"NumPy": Scratchnet(run)}
        if device == "cuda":
            sides["CuPy"] = Scratchnet(Run(options, split, "cuda", dtype))
            sides["PyTorch CUDA"] = PyTorch("cuda")
        if engine == "layers":
            return cls(run, sides)
        return cls(run, sides, Engine(Run(options, split, engines.device(engine), dtype, engine)))

    def steps(self, count: int) -> Iterator[int]:
        """Make so many steps, and yield each one's number when it has been compared."""
        dtype, theirs = _dtype(self.run), PyTorch("cpu")
        for number, (x, y, lr) in enumerate(self.run.batches(0, count), start=1):
            at = Step.of(self.run, number, x, y, lr)
            found = {name: side.gradients(at) for name, side in self.sides.items()}
            expected = theirs.gradients(at)
            self._judge(number, found, expected, step.estimate(dtype, at.parameters, x, y))

            grads = _gradients(at, found["NumPy"])
            found = {name: side.update(at, grads) for name, side in self.sides.items()}
            self._judge(number, found, theirs.update(at, grads), _limits(dtype, at, grads))

            if self.engine:
                found = {self.engine.run.engine: self.engine.advance(at, number)}
                loss = {"loss": expected["loss"]}
                expected = loss | theirs.update(at, _gradients(at, expected))
                self._judge(number, found, expected, at.limits_of_engine(self.run))
            yield number

    def _judge(
        self,
        number: int,
        found: Mapping[str, Arrays],
        theirs: Arrays,
        limits: Mapping[str, Estimate],
    ) -> None:
        for side, mine in found.items():
            alone = side == "NumPy" and len(self.sides) == 1
            prefix = "" if alone else f"{side}: "
            for name, value in theirs.items():
                # Each of the two may be off by the error.
                bound = 2 * limits[name].error
                self.report.differences.append(
                    difference(prefix + name, f"step {number}", mine[name], value, bound)
                )


def _state(run: Run) -> Arrays:
    """Parameters and moments, on the CPU."""
    state = run.optimizer.state_dict()["state"]
    found = run.model.state_dict()
    for i, name in enumerate(run.model.state_dict()):
        found |= {f"{kind} {name}": state[i][kind] for kind in MOMENTS}
    return {name: backend.to_numpy(value) for name, value in found.items()}


def _dtype(run: Run) -> Dtype:
    return np.float32 if np.dtype(run.dtype) == np.float32 else np.float64


def _gradients(at: Step, found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: found[f"grad {name}"] for name in at.parameters}


def _limits(
    dtype: Dtype,
    at: Step,
    grads: Mapping[str, Array | Estimate],
    faded: tuple[float, float] = (0.0, 0.0),
) -> dict[str, Estimate]:
    found: dict[str, Estimate] = {}
    for names, (p, g, m, v) in at.triples(grads):
        after = propagation.adam(dtype, p, g, m, v, at.t, faded=faded, **at.settings)
        estimates = (after.parameter, after.exp_avg, after.exp_avg_sq)
        found |= zip(names, estimates, strict=True)
    return found


@dataclass(frozen=True)
class Drift:
    """How far two whole runs have drifted apart.

    Attributes:
        dtype: of both, by its name.
        losses: the difference of the losses at each step.
        parameters: the largest difference of any parameter after each step.
        judged: how many steps must stay within STABLE: in float64 all, or the first 50 where the
            recipe is chaotic; in float32 none, since rounding alone has been seen to do more.
    """

    dtype: str
    losses: list[float]
    parameters: list[float]
    judged: int

    @property
    def ok(self) -> bool:
        """Whether the runs have stayed together as long as that can be asked."""
        # NumPy's max of numbers and a nan is nan, and so beyond the limit.
        return bool(np.max(self.parameters[: self.judged], initial=0.0) <= STABLE)


def free_run(
    options: Options, split: Split, dtype: Dtype, device: str = "cpu", engine: str = "layers"
) -> Drift:
    """Train once with scratchnet and once with PyTorch, from the same start on the same batches."""
    run = Run(options, split, device, dtype, engine)
    twin, made = Twin(run, device), engines.make(engine, run)
    losses, parameters = [], []
    for number, batch in enumerate(run.batches(0, run.total_steps)):
        (loss,) = made.advance(number, number + 1)
        losses.append(abs(loss - twin.update(*batch)))
        parameters.append(twin.distance(run))
    steps = min(CHAOTIC_FROM, run.total_steps) if run.recipe.renew else run.total_steps
    return Drift(np.dtype(dtype).name, losses, parameters, steps if dtype is np.float64 else 0)
