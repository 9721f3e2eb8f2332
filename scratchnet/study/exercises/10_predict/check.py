"""Exercise 10: predictions, compared with what the experiments do, and wrong ones explained."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from scratchnet import functional
from scratchnet.backend import Array
from scratchnet.study.exercises.checking import right, to_do, wrong
from scratchnet.study.verdicts import Verdict

WORDS = ("same", "half", "double", "zero", "other")

# Of each question the thoughts that lead to wrong predictions: their name, and what they forget.
# "" is for any other prediction.
WHY: dict[tuple[str, str], dict[str, tuple[str, str]]] = {
    ("TWICE", "loss"): {
        "double": ("the mean forgotten", "the sum doubles, but the loss is no sum"),
        "half": ("the sum forgotten", "N doubles, but so does what is divided by it"),
        "": ("the mean forgotten", "compare the mean of 1 and 3 with that of 1, 1, 3 and 3"),
    },
    ("TWICE", "dz2"): {
        "same": ("the mean forgotten", "the sample is as before, but its share of the mean is not"),
        "double": ("the sum forgotten", "this is the row of one sample, which is there twice now"),
        "": ("the mean forgotten", "how much does the loss depend on one sample out of N?"),
    },
    ("TWICE", "dW2"): {
        "half": ("the sum forgotten", "each term is half as large, but how many terms are there?"),
        "double": ("the mean forgotten", "there are twice as many terms, but how large is each?"),
        "": ("the mean forgotten", "dW2 is a sum over the samples: count its terms, and weigh one"),
    },
    ("TWICE", "db1"): {
        "half": ("the sum forgotten", "each term is half as large, but how many terms are there?"),
        "double": ("the mean forgotten", "there are twice as many terms, but how large is each?"),
        "": ("the mean forgotten", "db1 is a sum over the samples: count its terms, and weigh one"),
    },
    ("FLIP", "z2"): {
        "": ("the label in the forward", "go through the forward lines: where is the label used?"),
    },
    ("FLIP", "dz2[0]"): {
        "same": ("the label ignored", "(p - y) / N: y is not what it was"),
        "": ("the label ignored", "(p - y) / N: which of the numbers in this row change?"),
    },
    ("FLIP", "dz2[1]"): {
        "": ("the samples coupled", "does the loss of sample 1 know of sample 0's label?"),
    },
    ("FLIP", "dW2[2]"): {
        "": (
            "the classes coupled",
            "the softmax couples the classes, but p is made before any label is seen. Which "
            "columns of dz2 have changed?",
        ),
    },
    ("FLIP", "dW1"): {
        "same": ("the way back cut off", "dh is made of all of dz2, and dW1 of dh"),
        "": ("one factor for all", "dz2[0] has changed in two places: does a factor come of it?"),
    },
    ("DEAD", "dW1[0]"): {
        "same": ("the mask forgotten", "what does dz1 look like, where z1 is below 0?"),
        "other": ("the mask forgotten", "what does dz1 look like, where z1 is below 0?"),
        "": ("the mask forgotten", "dW1[0] is a sum over n of dz1[n, 0] · x[n]"),
    },
    ("DEAD", "dW1[1]"): {
        "same": (
            "the units uncoupled",
            "without unit 0 the network says something else: p changes",
        ),
        "zero": ("one mask for all", "unit 1 is open as before"),
        "": ("the units uncoupled", "follow p, dz2, dh, dz1 to this row"),
    },
    ("DEAD", "dW2[:, 0]"): {
        "same": (
            "the input forgotten",
            "dW2[c, 0] is a sum of dz2[n, c] · h[n, 0]: what is h now?",
        ),
        "other": (
            "the input forgotten",
            "dW2[c, 0] is a sum of dz2[n, c] · h[n, 0]: what is h now?",
        ),
        "": ("the input forgotten", "dW2[c, 0] is a sum of dz2[n, c] · h[n, 0]: what is h now?"),
    },
    ("DEAD", "dh[:, 0]"): {
        "zero": (
            "the mask too early",
            "dh is dz2 @ W2: is there a mask in it? What if h[n, 0] itself were nudged?",
        ),
        "same": (
            "the units uncoupled",
            "without unit 0 the network says something else: p changes",
        ),
        "": ("the mask too early", "dh is dz2 @ W2, and nothing else"),
    },
    ("DEAD", "db2"): {
        "zero": (
            "one mask for all",
            "b2 comes after the hidden units, and every class has its own",
        ),
        "": ("the units uncoupled", "db2 is the sum of dz2: has p changed?"),
    },
}


def check(learner: ModuleType, seed: int = 0) -> Iterator[Verdict]:
    """A verdict on each prediction."""
    truth = outcomes(seed)
    for (experiment, array), reasons in WHY.items():
        typed = getattr(learner, experiment, None)
        if not isinstance(typed, dict):
            message = f"{experiment} = {typed!r}; expected a dict, as it was at first"
            yield wrong(experiment, "no dict", message)
            return
        yield of_prediction(
            f'{experiment}["{array}"]', typed.get(array), truth[experiment, array], reasons
        )


def of_prediction(
    name: str, typed: Any, truth: str, reasons: dict[str, tuple[str, str]]
) -> Verdict:
    """Compare a prediction."""
    if typed is None:
        return to_do(name, "type in SAME, HALF, DOUBLE, ZERO or OTHER")
    word = typed.lower() if isinstance(typed, str) else ""
    if word not in WORDS:
        message = f"{name} is {typed!r}; expected SAME, HALF, DOUBLE, ZERO or OTHER"
        return wrong(name, "no prediction", message)
    if word == truth:
        return right(name)
    cause, why = reasons.get(word, reasons[""])
    return wrong(name, cause, f"{name} is not {word.upper()}: {why}")


def outcomes(seed: int) -> dict[tuple[str, str], str]:
    """What the experiments do to the arrays, found by doing them."""
    rng = np.random.default_rng(seed)
    x, target = rng.uniform(-1, 1, size=(3, 4)), np.array([0, 1, 2])
    W1, W2, b2 = (rng.uniform(-1, 1, size=shape) for shape in ((2, 4), (3, 2), 3))
    b1 = np.array([5.0, 6.0])  # above 4 · 1 · 1, so that both units are open
    before = network(x, target, W1, b1, W2, b2)
    after = {
        "TWICE": network(np.repeat(x, 2, axis=0), np.repeat(target, 2), W1, b1, W2, b2),
        "FLIP": network(x, np.array([1, 1, 2]), W1, b1, W2, b2),
        "DEAD": network(x, target, W1, np.array([-100.0, 6.0]), W2, b2),
    }
    return {
        (experiment, array): outcome(
            part(before, array, experiment), part(after[experiment], array, experiment)
        )
        for experiment, array in WHY
    }


def network(x: Array, target: Array, W1: Array, b1: Array, W2: Array, b2: Array) -> dict[str, Any]:
    """The arrays of the network that are asked for."""
    z1 = functional.linear_forward(x, W1, b1)
    h = functional.relu_forward(z1)
    z2 = functional.linear_forward(h, W2, b2)
    loss = functional.cross_entropy_forward(z2, target)
    dz2 = functional.cross_entropy_backward(z2, target)
    dh, dW2, db2 = functional.linear_backward(dz2, h, W2)
    dz1 = functional.relu_backward(dh, z1)
    _, dW1, db1 = functional.linear_backward(dz1, x, W1)
    return {name: value for name, value in locals().items() if name not in ("x", "target")}


def part(arrays: dict[str, Any], array: str, experiment: str) -> Array:
    """Such as dW1[0]; of dz2 in the first experiment the first sample's row."""
    name, _, index = array.partition("[")
    value = np.asarray(arrays[name])
    if array == "dz2" and experiment == "TWICE":
        return value[0]
    if not index:
        return value
    return value[:, 0] if index == ":, 0]" else value[int(index[0])]


def outcome(before: Array, after: Array) -> str:
    """Which of the words describes a change."""
    if np.allclose(after, before, rtol=1e-9, atol=0):
        return "same"
    if np.allclose(after, before / 2, rtol=1e-9, atol=0):
        return "half"
    if np.allclose(after, before * 2, rtol=1e-9, atol=0):
        return "double"
    return "other" if after.any() else "zero"
