"""Training: the order of the samples and the learning rates are made beforehand, as arrays.

A run is then one line an epoch, `losses = [update(x, y, lr) for ...]`, and can be stopped after any
update and taken up again, or be repeated by another library with the same work.
"""

from __future__ import annotations

import copy
import functools
import math
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from scratchnet import backend, engines, functional, mnist
from scratchnet.backend import Array
from scratchnet.errors import InputError
from scratchnet.mnist import Split
from scratchnet.nn import CrossEntropyLoss, Mnist_NN, Module, Parameter
from scratchnet.optim import Adam, AdamW, OneCycleLR


class Diverged(ArithmeticError):
    """The loss, or a parameter, is no longer a finite number."""


@dataclass(frozen=True)
class Normalization:
    """Pixels to inputs: (pixel / 255 - mean) / std. The default leaves them in [0, 1]."""

    mean: float = 0.0
    std: float = 1.0

    @classmethod
    def of(cls, images: npt.NDArray[np.uint8]) -> Normalization:
        """The one after which these images have mean 0 and standard deviation 1."""
        counts = np.bincount(images.ravel()).tolist()
        n, total, squares = (sum(k**power * c for k, c in enumerate(counts)) for power in (0, 1, 2))
        # In integers, so that images of one colour have no variance by rounding.
        return cls(total / n / 255, math.sqrt(n * squares - total**2) / n / 255 or 1.0)

    @property
    def scale(self) -> float:
        """And pixels to inputs in one go: scale · pixel + shift."""
        return 1 / (255 * self.std)

    @property
    def shift(self) -> float:
        """See `scale`."""
        return -self.mean / self.std

    def __call__(self, images: Array, dtype: npt.DTypeLike = np.float32) -> Array:
        """Images (N, 784) uint8 to inputs (N, 784), on the same device."""
        x = mnist.to_float(images, dtype)
        if self != Normalization():
            x -= self.mean
            x /= self.std
        return x


@dataclass(frozen=True)
class Recipe:
    """A way to train.

    Attributes:
        about: what it is, in a sentence.
        lr: the default learning rate; for a schedule, its peak.
        optimizer: makes the optimizer from parameters and a learning rate.
        normalize: whether the inputs get mean 0 and standard deviation 1.
        one_cycle: whether the learning rate follows OneCycleLR.
        renew: whether every update makes a new optimizer, as the tutorial's does.
    """

    about: str
    lr: float
    optimizer: Callable[[list[Parameter], float], Adam]
    normalize: bool = False
    one_cycle: bool = False
    renew: bool = False


RECIPES = {
    "one-cycle": Recipe(
        "AdamW under a learning rate that rises and falls once, on normalized inputs",
        lr=1e-2,
        optimizer=lambda parameters, lr: AdamW(
            parameters, lr, betas=(0.9, 0.99), weight_decay=0.01
        ),
        normalize=True,
        one_cycle=True,
    ),
    "adam": Recipe(
        "Adam, kept from update to update, at a constant learning rate",
        lr=1e-3,
        optimizer=lambda parameters, lr: Adam(parameters, lr),
    ),
    "tutorial": Recipe(
        "the tutorial's update: a new Adam each time, so that each number moves by lr",
        lr=1e-3,
        optimizer=lambda parameters, lr: Adam(parameters, lr),
        renew=True,
    ),
}


@dataclass(frozen=True)
class Options:
    """What determines a run, together with the data and the device.

    Attributes:
        recipe: a name in RECIPES.
        epochs: passes over the training images.
        batch_size: samples an update; the last batch of an epoch may be smaller.
        lr: learning rate; None for the recipe's own.
        hidden: units of the hidden layer.
        seed: of the initial parameters and of the order of the samples.
        limit: train on the first so many images; None for all.

    Raises:
        InputError: a value is out of its range.
    """

    recipe: str = "one-cycle"
    epochs: int = 1
    batch_size: int = 64
    lr: float | None = None
    hidden: int = 50
    seed: int = 0
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.recipe not in RECIPES:
            raise InputError(f"recipe {self.recipe!r} is unknown; expected {', '.join(RECIPES)}")
        for name, least in (("epochs", 1), ("batch_size", 1), ("hidden", 1), ("limit", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(f"{name} is {value}; expected at least {least}")
        if self.seed < 0:
            raise InputError(f"seed is {self.seed}; expected 0 or more")
        if self.lr is not None and not 0 < self.lr < math.inf:
            raise InputError(f"lr is {self.lr}; expected a finite number above 0")


@dataclass
class Run:
    """A training run: the model, its optimizer, and how far they have come.

    Attributes:
        options, split, dtype: as given.
        device: "cpu" or "cuda"; given as for `nn.Linear`.
        engine: what makes the updates, a name in engines.NAMES, default "layers"; of "auto" comes
            the fastest here.
        model: Mnist_NN.
        normalization: of its inputs.
        lr: the learning rate; of a schedule, the peak.
        lrs: (total_steps,) the learning rate of each update.
        losses: the loss of each update so far; its length is the position of the run.
        diverged: how it diverged, after which the run is of no more use; None if it hasn't.
    """

    options: Options
    split: Split
    device: str = "auto"
    dtype: npt.DTypeLike = np.float32
    engine: str = "layers"
    losses: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.device = backend.resolve(self.device)
        self.engine = engines.resolve(self.engine, self.device)
        images, labels = self.split
        images, labels = images[: self.options.limit], labels[: self.options.limit]
        self.recipe = RECIPES[self.options.recipe]
        self.normalization = Normalization.of(images) if self.recipe.normalize else Normalization()
        # Compiled engines find a pixel by its address, so rows must lie one behind the other.
        self.images = backend.asarray(np.ascontiguousarray(images), self.device)
        self.labels = backend.asarray(labels, self.device)
        self._begin()

    def _begin(self) -> None:
        """Make all that hangs on the seed, or is changed by training."""
        options = self.options
        self.diverged: str | None = None
        self.order = functools.lru_cache(maxsize=1)(_order)  # so that each run keeps its own
        self.model = Mnist_NN(
            hidden=options.hidden,
            device=self.device,
            dtype=self.dtype,
            generator=np.random.default_rng(options.seed),
        )
        self.model.lin1.needs_grad_x = False  # the pixels are not to be changed
        self.loss_func = CrossEntropyLoss()
        self.lr = self.recipe.lr if options.lr is None else options.lr
        self.optimizer = self.recipe.optimizer(self.model.parameters(), self.lr)
        self.steps_per_epoch = math.ceil(len(self.labels) / options.batch_size)
        self.total_steps = options.epochs * self.steps_per_epoch
        self.lrs = np.full(self.total_steps, self.lr)
        if self.recipe.one_cycle:
            schedule = OneCycleLR(self.optimizer, self.lr, self.total_steps, cycle_momentum=False)
            self.lrs[:] = [schedule.at(step)[0] for step in range(self.total_steps)]

    def with_seed(self, seed: int) -> Run:
        """A new run that differs in the seed alone, and has the same images without a copy."""
        other = copy.copy(self)
        other.options, other.losses = replace(self.options, seed=seed), []
        other.data_crc32 = self.data_crc32
        other._begin()
        return other

    @functools.cached_property
    def data_crc32(self) -> int:
        """A checksum of all the training data, by which to know it again."""
        return zlib.crc32(self.split.labels.data, zlib.crc32(self.split.images.data))

    @property
    def step(self) -> int:
        """How many updates have been made."""
        return len(self.losses)

    def batches(self, first: int, last: int) -> Iterator[tuple[Array, Array, float]]:
        """Inputs (N, 784), labels (N,) and learning rate of the updates first to last - 1.

        Updates are counted from 0 over all epochs. Each epoch has an order of its own, which hangs
        on the seed and the epoch alone: the position is all there is to remember of it.
        """
        for step in range(first, last):
            chosen = backend.asarray(self.chosen(step), self.device)
            x = self.normalization(self.images[chosen], self.dtype)
            yield x, self.labels[chosen], float(self.lrs[step])

    def chosen(self, step: int, updates: int = 1) -> npt.NDArray[np.int64]:
        """The samples (N,) of an update, or of several of one epoch, by their numbers."""
        epoch, position = divmod(step, self.steps_per_epoch)
        start = position * self.options.batch_size
        order = self.order(self.options.seed, epoch, len(self.labels))
        return order[start : start + updates * self.options.batch_size]

    @backend.ieee
    def update(self, x: Array, y: Array, lr: float) -> float:
        """One step down the gradient of the loss on a batch; returns the loss before it."""
        if self.recipe.renew:
            self.optimizer = self.recipe.optimizer(self.model.parameters(), lr)
        else:
            self.optimizer.forget_faded()
        self.optimizer.lr = lr
        loss = self.loss_func(self.model(x), y)
        self.model.backward(self.loss_func.backward())
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()

    def train(self, every: int | None = None) -> Iterator[int]:
        """Make the updates that are left, a stretch for each turn of the caller's loop.

        Args:
            every: end a stretch at each multiple of so many updates; None for where it suits.

        Yields:
            How many updates were made: as many as take about a tenth of a second.

        Raises:
            Diverged: a loss is nan or infinite. The run is then of no more use.
            InputError: the engine is unknown, or does not fit this run.
        """
        yield from train([self], every)
        if self.diverged:
            raise Diverged(self.diverged)

    def record(self, losses: list[float]) -> None:
        """Take the losses of the next updates, up to one that is nan or infinite."""
        for loss in losses:
            if not math.isfinite(loss):
                self.diverged = self._divergence(f"the loss is {loss}")
                return
            self.losses.append(loss)

    def check(self) -> None:
        """Raise Diverged if a parameter is nan or infinite, which the next loss would show."""
        for name, values in self.model.state_dict().items():
            if not np.isfinite(backend.to_numpy(values)).all():
                self.diverged = self._divergence(f"{name} is not finite")
                raise Diverged(self.diverged)

    def _divergence(self, what: str) -> str:
        lr = self.lrs[min(self.step, self.total_steps - 1)]
        return (
            f"seed {self.options.seed}: {what} at step {self.step} of {self.total_steps}, learning "
            f"rate {lr:.3g}; expected a finite number: try a smaller --lr, such as "
            f"{min(self.lr / 10, self.recipe.lr):.1g}"
        )


def train(runs: Sequence[Run], every: int | None = None) -> Iterator[int]:
    """Make the updates that are left of several runs, a stretch for each turn of the caller's loop.

    The runs keep in step; any that are behind come level first. A run that diverges is left out
    from there on, while the others go on: its `diverged` tells.

    Args:
        runs: with the same number of steps, engine and device.
        every: end a stretch at each multiple of so many updates; None for where it suits.

    Yields:
        How many updates were made of each run, or of each that is behind: as many as take about a
        tenth of a second.

    Raises:
        ValueError: the runs differ in their number of steps, engine or device.
        InputError: the engine is unknown, or does not fit these runs.
    """
    kinds = {(run.total_steps, run.engine, run.device) for run in runs}
    if len(kinds) != 1:
        raise ValueError(f"runs have (steps, engine, device) {sorted(kinds)}; expected one kind")
    ((total, _, _),) = kinds
    while going := [run for run in runs if run.step < total and not run.diverged]:
        first, last = sorted({total, *(run.step for run in going)})[:2]
        yield from _in_step([run for run in going if run.step == first], last, every or total)


def _in_step(runs: list[Run], last: int, every: int) -> Iterator[int]:
    """Make the updates before `last` of runs at the same step, until one of them diverges."""
    made, stretch = engines.make_together(runs), 1
    while (first := runs[0].step) < last and not any(run.diverged for run in runs):
        begin = time.perf_counter()
        stop = min(first + stretch, (first // every + 1) * every, last)
        for run, losses in zip(runs, made.advance(first, stop), strict=True):
            run.record(losses)
        if all(run.diverged for run in runs):
            return
        if time.perf_counter() - begin < 0.05:
            stretch *= 2
        yield stop - first


def _order(seed: int, epoch: int, count: int) -> npt.NDArray[np.int64]:
    """The order of so many samples in an epoch, counted from 0."""
    return np.random.default_rng([seed, epoch + 1]).permutation(count)


class Evaluation(NamedTuple):
    """How a model does on a split: mean loss, share of right answers, and logits (N, C)."""

    loss: float
    accuracy: float
    logits: npt.NDArray[np.floating]


def evaluate(model: Module, split: Split, normalization: Normalization) -> Evaluation:
    """Loss and accuracy of a model over a whole split, whose last batch counts by its size."""
    logits = predict(model, split.images, normalization)
    losses = functional.cross_entropy_forward(logits, split.labels, reduction="none")
    accuracy = (logits.argmax(axis=1) == split.labels).mean()
    return Evaluation(float(losses.mean(dtype=np.float64)), float(accuracy), logits)


def predict(
    model: Module, images: npt.NDArray[np.uint8], normalization: Normalization
) -> npt.NDArray[np.floating]:
    """The logits (N, C) of images (N, 784) uint8, on the CPU.

    A backward that the model is still to make belongs to the same forward as before.
    """
    model = copy.deepcopy(model)  # to forget with it what its layers save for a backward
    parameter = model.parameters()[0].data
    device = backend.device_of(parameter)
    logits = []
    for start in range(0, len(images), 10_000):  # 31 MB of float32 inputs at a time
        part = backend.asarray(images[start : start + 10_000], device)
        logits.append(backend.to_numpy(model(normalization(part, parameter.dtype))))
    return np.concatenate(logits)
