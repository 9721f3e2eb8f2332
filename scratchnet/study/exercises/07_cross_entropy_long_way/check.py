"""Exercise 7: the two steps for one sample are judged here, the batch by diagnose."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from scratchnet.backend import Array
from scratchnet.functional import softmax_forward
from scratchnet.study.exercises.checking import Cause, find, judge, judge_by
from scratchnet.study.mistakes import first_only
from scratchnet.study.verdicts import Verdict


def at_label(p: Array, label: int, value: Any) -> Array:
    """0, and the value at the label."""
    grad = np.zeros_like(p)
    grad[label] = value
    return grad


GRAD_P = {
    "without the minus": Cause(
        lambda p, label: at_label(p, label, 1 / p[label]),
        "the sign is wrong: if p of the label grows, does the loss grow?",
    ),
    "every class": Cause(
        lambda p, label: -1 / p,
        "all classes have a slope, but the loss of a sample contains only one of its p",
    ),
    "not the slope": Cause(
        lambda p, label: at_label(p, label, -np.log(p[label])),
        "that is the loss itself, -log p; what is its slope?",
    ),
    "minus 1": Cause(
        lambda p, label: at_label(p, label, -1.0),
        "at the label stands -1: that is the slope of -p, and the loss is -log p",
    ),
    "of p - y": Cause(
        lambda p, label: p - at_label(p, label, 1.0),
        "that is the gradient of the logits, where you will arrive; this is the first step only",
    ),
    "one number": Cause(
        lambda p, label: -1 / p[label],
        "that is the slope along the label's p; the others have one, too, though a dull one",
    ),
    "the first class only": Cause(
        lambda p, label: at_label(p, label, -1 / p[label] * (label == 0)),
        "it is 0, but for a label 0: is the return inside the loop?",
    ),
}
JACOBIAN = {
    "diagonal only": Cause(
        lambda p: np.diag(p * (1 - p)),
        "only the diagonal is there; if one logit grows, do the other classes keep their p?",
    ),
    "a row of it": Cause(
        lambda p: p * (1 - p),
        "that is the diagonal, (C,); there are C · C pairs of a probability and a logit",
    ),
    "without the diagonal": Cause(
        lambda p: -np.outer(p, p),
        "the terms with k = c are missing: they have one more than the others",
    ),
    "plus": Cause(
        lambda p: np.diag(p) + np.outer(p, p),
        "the sign beside the diagonal is wrong: if one logit grows, do the other p grow?",
    ),
    "diagonal of 1": Cause(
        lambda p: np.eye(len(p)) - np.outer(p, p),
        "on the diagonal a factor is missing: the whole bracket is multiplied by p[k]",
    ),
    "the bracket only": Cause(
        lambda p: np.eye(len(p)) - p,
        "the factor p[k] in front of the bracket is missing",
    ),
    "p[k] twice": Cause(
        lambda p: np.diag(p) - (p * p)[:, None],
        "p[k]² is subtracted in all of row k; inside the bracket stands p[c], of the column",
    ),
    "p[c] twice": Cause(
        lambda p: np.diag(p) - p * p,
        "p[c]² is subtracted in all of column c; J[k, c] has p[k] · p[c] there, of all pairs",
    ),
    "a dot product": Cause(
        lambda p: np.diag(p) - p @ p,
        "Σ p² is subtracted everywhere: p @ p is one number, and p.T is p, as p has one axis; "
        "J has p[k] · p[c] there, of all pairs",
    ),
    "the first row only": Cause(
        lambda p: first_only(np.diag(p) - np.outer(p, p)),
        "the rows after the first are 0: is the return inside the loop?",
    ),
    "the first entry only": Cause(
        lambda p: first_only(np.diag(p * (1 - p))),
        "all entries after the first are 0: is the return inside the inner loop?",
    ),
}


def check(learner: ModuleType, seed: int = 0) -> Iterator[Verdict]:
    """Verdicts on the three functions."""
    rng = np.random.default_rng(seed)
    # Among seven classes no p is above 1/2 then: cut off to an integer, -1/p is not -1 everywhere.
    samples = [softmax_forward(rng.uniform(-0.8, 0.8, c)) for c in (4, 3, 7)]
    labelled = [(p, label) for label, p in enumerate(samples)]
    mine = find(learner, "grad_p", "p", "label")
    yield judge_by(
        "grad_p", mine, lambda p, label: at_label(p, label, -1 / p[label]), GRAD_P, labelled
    )
    mine = find(learner, "jacobian", "p")
    rows = [(p,) for p in samples]
    yield judge_by("jacobian", mine, lambda p: np.diag(p) - np.outer(p, p), JACOBIAN, rows)
    yield judge("cross_entropy_backward", learner, "cross_entropy_backward", seed=seed)
