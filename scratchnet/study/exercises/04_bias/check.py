"""Exercise 4: the bias is judged by diagnose, its two relatives here."""

from collections.abc import Iterator
from types import ModuleType

import numpy as np

from scratchnet.study.exercises.checking import Cause, find, judge, judge_by
from scratchnet.study.mistakes import first_only
from scratchnet.study.verdicts import Verdict

RETURN = "only the first {} is there: is the return inside the loop?"


OFFSET = {
    "over the wrong axis": Cause(
        lambda g: g.sum(axis=0),
        "it sums over the samples, but each sample has an offset of its own",
    ),
    "averaged": Cause(
        lambda g: g.mean(axis=1),
        "it is a mean; each of the paths counts in full",
    ),
    "not summed": Cause(
        lambda g: g,
        "it is not summed: an offset is used for a whole row, so it has as many paths",
    ),
    "keepdims": Cause(
        lambda g: g.sum(axis=1, keepdims=True),
        "it is a matrix of one column; a gradient has its array's shape, (N,)",
    ),
    "one number": Cause(
        lambda g: g.sum(),
        "it sums over everything; which axis was offset stretched along?",
    ),
    "one path only": Cause(
        lambda g: g[:, 0],
        "it is the first column only: an offset is added to every column",
    ),
    "the first number only": Cause(lambda g: g[0].sum(), RETURN.format("number")),
    "a list of the first": Cause(lambda g: g[:1].sum(axis=1), RETURN.format("number")),
    "0 after the first": Cause(lambda g: first_only(g.sum(axis=1)), RETURN.format("number")),
}
SCALE = {
    "without z": Cause(
        lambda g, z: g.sum(axis=0),
        "that is the bias's: if scale grows by a little, y grows by z times that",
    ),
    "sums before the product": Cause(
        lambda g, z: g.sum(axis=0) * z.sum(axis=0),
        "it multiplies two sums: each path has its own slope, so multiply first, and then sum",
    ),
    "over the wrong axis": Cause(
        lambda g, z: (g * z).sum(axis=1),
        "it sums along the rows; scale is the same for all rows",
    ),
    "not summed": Cause(
        lambda g, z: g * z,
        "it is not summed: scale is used for every row, so it has as many paths",
    ),
    "averaged": Cause(
        lambda g, z: (g * z).mean(axis=0),
        "it is a mean; each of the paths counts in full",
    ),
    "without the upstream gradient": Cause(
        lambda g, z: z.sum(axis=0),
        "these are the slopes of y; how does the loss change with y?",
    ),
    "one number": Cause(
        lambda g, z: (g * z).sum(),
        "it sums over everything; which axis was scale stretched along?",
    ),
    "a matrix product": Cause(
        lambda g, z: g.T @ z,
        "that is a matrix product, which mixes the columns; scale[h] touches column h only",
    ),
    "the first sample only": Cause(lambda g, z: g[0] * z[0], RETURN.format("sample")),
    "0 after the first": Cause(
        lambda g, z: first_only((g * z).sum(axis=0)), RETURN.format("number")
    ),
}


def check(learner: ModuleType, seed: int = 0) -> Iterator[Verdict]:
    """Verdicts on the three functions."""
    rng = np.random.default_rng(seed)
    pairs = [tuple(rng.normal(size=(2, n, h))) for n, h in ((5, 3), (4, 4), (1, 3))]
    singles = [(g,) for g, _ in pairs]
    yield judge("linear_backward.grad_bias", learner, "grad_bias", seed=seed)
    mine = find(learner, "grad_offset", "grad_output")
    yield judge_by("grad_offset", mine, lambda g: g.sum(axis=1), OFFSET, singles)
    mine = find(learner, "grad_scale", "grad_output", "z")
    yield judge_by("grad_scale", mine, lambda g, z: (g * z).sum(axis=0), SCALE, pairs)
