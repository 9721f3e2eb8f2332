"""The work that every contender does, as arrays, so that nothing is left to its own choice."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scratchnet import mnist
from scratchnet.mnist import Split
from scratchnet.optim import AdamW
from scratchnet.training import Normalization, Options, Run

PARAMETERS = ("lin1.weight", "lin1.bias", "lin2.weight", "lin2.bias")
Parameters = Mapping[str, npt.NDArray[np.floating]]


@dataclass(frozen=True)
class Outcome:
    """What training leaves behind.

    losses: (steps,) the loss of every update, before it.
    parameters: the final values by PyTorch's names.
    """

    losses: npt.NDArray[np.float64]
    parameters: Parameters


@dataclass(frozen=True, eq=False)
class Task:
    """Training `Mnist_NN` from given parameters, on given batches, at given learning rates.

    Attributes:
        options: what the rest was made from.
        device: "cpu" or "cuda".
        images: (n, 784) uint8; labels: (n,) int64.
        order: (epochs, n) int64, a permutation for each epoch. Batches are its stretches of
            batch_size; the last of an epoch may be smaller.
        initial: float32 parameters by PyTorch's names, weights (out, in).
        lrs: (steps,) float64, the learning rate of each update.
        betas, eps: Adam's. weight_decay: decoupled, as AdamW's; 0 for Adam.
        normalization: the inputs are (pixel / 255 - mean) / std.
        renew: whether each update makes a new Adam, as the tutorial's does.
    """

    options: Options
    device: str
    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    order: npt.NDArray[np.int64]
    initial: Parameters
    lrs: npt.NDArray[np.float64]
    betas: tuple[float, float]
    eps: float
    weight_decay: float
    normalization: Normalization
    renew: bool

    @classmethod
    def of(cls, options: Options, device: str = "cpu", split: Split | None = None) -> Task:
        """The task that `scratchnet train` has with these options; by default on `training`'s."""
        run = Run(options, training(options) if split is None else split, "cpu")
        each = run.steps_per_epoch
        optimizer = run.optimizer
        return cls(
            options=options,
            device=device,
            images=run.images,
            labels=run.labels,
            order=np.stack([run.chosen(e * each, each) for e in range(options.epochs)]),
            initial=run.model.state_dict(),
            lrs=run.lrs,
            betas=optimizer.betas,
            eps=optimizer.eps,
            weight_decay=optimizer.weight_decay if isinstance(optimizer, AdamW) else 0.0,
            normalization=run.normalization,
            renew=run.recipe.renew,
        )

    @property
    def batch_size(self) -> int:
        """Samples an update."""
        return self.options.batch_size

    @property
    def steps_per_epoch(self) -> int:
        """Updates in an epoch, with the last one's smaller batch."""
        return math.ceil(len(self.labels) / self.batch_size)

    @property
    def steps(self) -> int:
        """Updates in all."""
        return len(self.lrs)

    @property
    def normalized(self) -> bool:
        """Whether the pixels are more than divided by 255."""
        return self.normalization != Normalization()

    def batches(self, epoch: int) -> Iterator[tuple[int, slice]]:
        """The number of each update of an epoch, and where in `order[epoch]` its samples are."""
        for position in range(self.steps_per_epoch):
            start = position * self.batch_size
            step = epoch * self.steps_per_epoch + position
            yield step, slice(start, start + self.batch_size)

    def rates(self) -> npt.NDArray[np.float64]:
        """What changes from update to update, as a table (steps, 3): rate, eps, keep.

        With c1 = 1 - β₁ᵗ and c2 = √(1 - β₂ᵗ), Adam's step is p ← keep · p - rate · m / (√v + eps),
        where rate = lr c2 / c1, eps = Adam's eps · c2 and keep = 1 - lr · weight_decay.
        """
        t = np.ones(self.steps) if self.renew else np.arange(1.0, self.steps + 1)
        c1, c2 = 1 - self.betas[0] ** t, np.sqrt(1 - self.betas[1] ** t)
        return np.stack([self.lrs * c2 / c1, self.eps * c2, 1 - self.lrs * self.weight_decay], 1)


def training(options: Options) -> Split:
    """MNIST's 50,000 images for training; all 60,000 if the options' limit asks for more."""
    data = mnist.load()
    if (options.limit or 0) <= len(data.train.labels):
        return data.train
    (images, labels), (more_images, more_labels) = data.train, data.validation
    return Split(np.concatenate([images, more_images]), np.concatenate([labels, more_labels]))


def probe(options: Options, images: int) -> Options:
    """A short version of a task: two epochs of eleven batches, the last as large as the task's."""
    size = options.batch_size
    count = options.limit or images
    limit = min(count, 10 * size + count % size)
    return dataclasses.replace(options, epochs=2, limit=limit)


def accuracy(parameters: Parameters, split: Split, normalization: Normalization) -> float:
    """The share of a split's images (N, 784) that the network with these parameters reads right."""
    w1, b1, w2, b2 = (parameters[name] for name in PARAMETERS)
    hidden = np.maximum(normalization(split.images) @ w1.T + b1, 0)
    return float(((hidden @ w2.T + b2).argmax(axis=1) == split.labels).mean())
