"""All that is true on the study page: a batch through a trained network, in float64.

The page only shows these numbers, and adds up the terms of a sum before the reader's eyes. What is
here: the arrays of each stage, PyTorch's beside them where it is installed, the gradients that a
planted bug would give, and those of the reader's own function.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from scratchnet import checkpoint, functional, mnist
from scratchnet.backend import Array
from scratchnet.checkpoint import SavedModel
from scratchnet.errors import InputError
from scratchnet.mnist import Split
from scratchnet.study import autograd, diagnose, mistakes, sandbox
from scratchnet.study.answers import Answer
from scratchnet.study.mistakes import Formula, Mistake
from scratchnet.study.sandbox import Ruling
from scratchnet.study.subjects import PARAMETERS, SHOWN, Instance
from scratchnet.study.truth import Chain, Truth
from scratchnet.training import Options, Run, evaluate, predict

SAMPLES = 8
UNSURE = 3  # of them, with the label's p nearest to 1/2
MOST_HIDDEN = 64  # so that the page stays below 2 MB
LARGEST = 1e6  # number on it: more digits have no room, and its sums are made in float64 only
BUG_STEPS = 200
BUG_RECIPE = "adam"

STEPS = {step.name: step for step in SHOWN.steps}
GRADIENTS = ("dz2", "dW2", "db2", "dh", "dz1", "dW1", "db1")

# With each of these but the last the loss falls, and the first digits of it look well. Each has the
# right line and the wrong one, in the names of the network; p is the softmax of z2, y is one-hot.
DZ2 = "dz2 = (p - y) / N"
BUGS = {
    "relu_backward_without_mask": ("dz1 = np.where(z1 > 0, dh, 0)", "dz1 = dh"),
    "cross_entropy_backward_not_averaged": (DZ2, "dz2 = p - y"),
    "linear_backward_grad_bias_descends": (
        "db1, db2 = dz1.sum(axis=0), dz2.sum(axis=0)",
        "db1, db2 = -dz1.sum(axis=0), -dz2.sum(axis=0)",
    ),
    "network_dW2_of_z1": ("dW2 = dz2.T @ h", "dW2 = dz2.T @ z1"),
    "cross_entropy_backward_slope_of_sigmoid": (DZ2, "dz2 = (p - y) / N * p * (1 - p)"),
    "cross_entropy_backward_without_softmax": (DZ2, "dz2 = (z2 - y) / N"),
    "linear_backward_grad_weight_last_sample_only": (
        "dW1, dW2 = dz1.T @ x, dz2.T @ h",
        "dW1, dW2 = np.outer(dz1[-1], x[-1]), np.outer(dz2[-1], h[-1])",
    ),
    "cross_entropy_backward_sign": (DZ2, "dz2 = (y - p) / N"),
}


class Training(NamedTuple):
    """How a run went: the loss of each update, and the accuracy on the validation images."""

    losses: list[float]
    accuracy: float


class Gradients(NamedTuple):
    """Gradients that may be wrong, beside the true ones.

    found: by their names; only those that were made, and have the right shape.
    wrong: for each of them, a mask of the entries that rounding can't explain.
    """

    found: dict[str, Array]
    wrong: dict[str, Array]


class Bug(NamedTuple):
    """A planted bug: the mistake, what it does to this batch, and a run with it.

    verdict: what `diagnose` says of these gradients.
    """

    mistake: Mistake
    gradients: Gradients
    verdict: str
    training: Training


class Mine(NamedTuple):
    """The reader's own gradients.

    file: where they come from.
    gradients: as far as there are any.
    ruling: the last verdict on his function, by the check of the exercise.
    output: what his file has printed.
    """

    file: Path
    gradients: Gradients
    ruling: Ruling
    output: str


class Comparison(NamedTuple):
    """PyTorch's array less ours, and by how much rounding may move them apart."""

    difference: Array
    bound: Array

    @property
    def share(self) -> float:
        """The largest difference as a share of its bound."""
        return float((abs(self.difference) / self.bound).max())


class Facts(NamedTuple):
    """Everything on the page.

    network: where the network comes from, in words.
    normalization: how pixels became inputs, in words.
    inputs: x (N, D), target (N,), W1 (H, D), b1 (H,), W2 (C, H), b2 (C,), all but target float64.
    truths: of each step's name, the array and its bound.
    torch: of each step's name, PyTorch's array beside it; None if it is not installed.
    right: a run without a bug.
    bugs: with their runs.
    mine: the reader's own gradients, if he gave a file.
    """

    network: str
    normalization: str
    inputs: dict[str, Array]
    truths: dict[str, Truth]
    torch: dict[str, Comparison] | None
    right: Training
    bugs: list[Bug]
    mine: Mine | None = None

    @property
    def predicted(self) -> Array:
        """(N,) the class that the network takes each sample for."""
        return self.truths["p"].value.argmax(axis=1)


def gather(path: Path | None, digit: int, seed: int) -> Facts:
    """All but the reader's own gradients.

    Args:
        path: of a model or a run; None to train one now, by the default recipe.
        digit: the class of the first sample.
        seed: of the choice of the other samples, and of all that is trained here.

    Raises:
        InputError: there is no usable model at the path, or no such digit.
    """
    with threadpool_limits(1, user_api="blas"):  # for products this small
        bundled = mnist.load()
        if path is None:
            saved, words = _trained(bundled, seed)
            split = bundled.validation
        else:
            saved, words = _loaded(path)
            split = mnist.load(saved.data).validation if saved.data else bundled.validation
        inputs = _inputs(saved, _choose(saved, split, digit, seed))
        chain = _chain(inputs)
        truths = {name: chain.truth(step) for name, step in STEPS.items()}
        for name, truth in truths.items():
            if not (abs(truth.value) <= LARGEST).all():  # which nan isn't, either
                raise InputError(
                    f"{words}: the network's {name} on this batch has numbers above {LARGEST:g}, "
                    "or nan; expected a trained network: give another --checkpoint"
                )
        return Facts(
            network=words,
            normalization=_normalization(saved),
            inputs=inputs,
            truths=truths,
            torch=_beside_pytorch(inputs, truths),
            right=_train({}, bundled, seed),
            bugs=[_bug(mistakes.BY_NAME[name], inputs, truths, bundled, seed) for name in BUGS],
        )


# -------------------------------------------------------------------------- the network, the batch


def _trained(splits: mnist.Mnist, seed: int) -> tuple[SavedModel, str]:
    run = Run(Options(seed=seed), splits.train, "cpu")
    for _ in run.train():
        pass
    accuracy = evaluate(run.model, splits.validation, run.normalization).accuracy
    words = (
        f"trained when this page was made: recipe {run.options.recipe}, one epoch of "
        f"{len(run.labels):,} digits, seed {seed}; {accuracy:.2%} of the validation digits right"
    )
    return SavedModel(run.model, run.normalization), words


def _loaded(path: Path) -> tuple[SavedModel, str]:
    saved = checkpoint.load_model(path, "cpu")
    (hidden, inputs), (classes, _) = saved.model.lin1.weight.shape, saved.model.lin2.weight.shape
    if (inputs, classes) != (784, 10) or hidden > MOST_HIDDEN:
        raise InputError(
            f"{path}: is a network of {inputs}-{hidden}-{classes}; expected 784 pixels, at most "
            f"{MOST_HIDDEN} hidden units and 10 digits: train one with --hidden 50"
        )
    return saved, f"loaded from {path}"


def _normalization(saved: SavedModel) -> str:
    mean, std = saved.normalization.mean, saved.normalization.std
    return "pixel / 255" if (mean, std) == (0, 1) else f"(pixel / 255 − {mean:.4f}) / {std:.4f}"


def _choose(saved: SavedModel, split: Split, digit: int, seed: int) -> Split:
    """The batch: the digit asked for, some by chance, and some that the network is unsure of.

    Of those that it is sure of it has nothing to learn: their gradients are nearly 0.
    """
    rng = np.random.default_rng(seed)
    logits = predict(saved.model, split.images, saved.normalization)
    losses = functional.cross_entropy_forward(logits, split.labels, reduction="none")
    wanted = np.flatnonzero(split.labels == digit)
    if not len(wanted):
        raise InputError(f"digit {digit}: there is none among the images; expected another --digit")
    first = rng.choice(wanted)
    others = np.setdiff1d(np.arange(len(losses)), first)
    by_doubt = others[np.argsort(abs(np.exp(-losses[others]) - 0.5))]
    unsure = rng.choice(by_doubt[:100], UNSURE, replace=False)
    rest = rng.choice(np.setdiff1d(others, unsure), SAMPLES - 1 - UNSURE, replace=False)
    chosen = [first, *rest, *unsure]
    return Split(split.images[chosen], split.labels[chosen])


def _inputs(saved: SavedModel, batch: Split) -> dict[str, Array]:
    """Of the network too: its parameters as float32 has them, so that the page has them exactly."""
    state = saved.model.state_dict()
    parameters = {
        name: state[key].astype(np.float32).astype(np.float64) for name, key in PARAMETERS.items()
    }
    x = saved.normalization(batch.images, np.float64)
    return {"x": x, "target": batch.labels, **parameters}


# ------------------------------------------------------------------------------------ wrong ones


def _chain(inputs: Mapping[str, Array]) -> Chain:
    return Chain(SHOWN, Answer(Instance("this batch", dict(inputs), {})))


def _spoilt(mistake: Mistake) -> dict[str, Formula]:
    """The wrong formula of each step that a mistake spoils, which may be one in both layers."""
    return {
        name: mistake.wrong[operation]
        for name, step in STEPS.items()
        for operation in (step.operation.name, f"{SHOWN.family}.{name}")
        if operation in mistake.wrong
    }


def _train(wrong: Mapping[str, Formula], splits: mnist.Mnist, seed: int) -> Training:
    """Really train Mnist_NN, with wrong formulas in its backward."""
    run = Run(Options(BUG_RECIPE, seed=seed), splits.train, "cpu")
    named = dict(run.model.named_parameters())
    parameters = {name: named[key] for name, key in PARAMETERS.items()}
    losses = []
    for x, target, _ in run.batches(0, BUG_STEPS):
        inputs = {"x": x, "target": target} | {name: p.data for name, p in parameters.items()}
        values = _chain(inputs).follow(wrong, SHOWN.steps[-1])
        losses.append(float(values["loss"]))
        for name, parameter in parameters.items():
            parameter.grad = values[f"d{name}"].astype(np.float32)
        run.optimizer.step()
    return Training(losses, evaluate(run.model, splits.validation, run.normalization).accuracy)


def _bug(
    mistake: Mistake,
    inputs: Mapping[str, Array],
    truths: Mapping[str, Truth],
    splits: mnist.Mnist,
    seed: int,
) -> Bug:
    wrong = _spoilt(mistake)
    made = _chain(inputs).follow(wrong, SHOWN.steps[-1])
    found = {name: made[name] for name in GRADIENTS}
    verdict = diagnose.arrays("network_backward", found, inputs)
    return Bug(mistake, _beside(found, truths), verdict.message, _train(wrong, splits, seed))


def _beside(found: Mapping[str, Array], truths: Mapping[str, Truth]) -> Gradients:
    """Gradients beside the true ones; what has not the right shape is left out."""
    fitting = {
        name: found[name]
        for name in GRADIENTS
        if name in found and found[name].shape == truths[name].value.shape
    }
    wrong = {
        name: ~(abs(array - truths[name].value) <= truths[name].bound)  # so that nan is wrong, too
        for name, array in fitting.items()
    }
    return Gradients(fitting, wrong)


def ask(file: Path, facts: Facts) -> Mine:
    """What the reader's own network_backward makes of the batch, in a process of its own.

    Raises:
        InputError: there is no such file.
    """
    found, run = _answer(file, facts.inputs)
    return Mine(file, _beside(found, facts.truths), run.ruling, run.output)


def expect_answer(file: Path) -> None:
    """Ask for the gradients of a small batch, for which nothing has to be trained.

    Raises:
        InputError: there is no such file, or it makes none.
    """
    found, run = _answer(file, SHOWN.instances(seed=0)[0].inputs)
    if not found:
        raise InputError(f"{file}: {run.ruling.message}")


def _answer(file: Path, inputs: Mapping[str, Array]) -> tuple[dict[str, Array], sandbox.Run]:
    """What a file's network_backward makes of a batch, and the run of it."""
    judge = Path(__file__).with_name("page_mine.py")
    lists = {name: array.tolist() for name, array in inputs.items()}
    run = sandbox.run(file, judge, function="judge", arguments=[lists])
    found = [result for result in run.results if isinstance(result, dict)]
    return {name: np.array(value) for each in found for name, value in each.items()}, run


# ---------------------------------------------------------------------------------------- PyTorch


def _beside_pytorch(
    inputs: Mapping[str, Array], truths: Mapping[str, Truth]
) -> dict[str, Comparison] | None:
    """Autograd's arrays beside ours, if PyTorch is installed."""
    theirs = autograd.arrays(inputs)
    if theirs is None:
        return None
    return {
        # Each side may be off by the bound.
        name: Comparison(theirs[name] - truth.value, 2 * truth.bound)
        for name, truth in truths.items()
    }
