"""Exercise 15: why "not exact" need not be wrong.

float32 keeps 24 bits, so each operation may be off by a part in 2**24 of its
result: U = 2**-24. A sum in another order rounds differently, and NumPy, PyTorch
and a GPU all have orders of their own. So two right implementations differ, and the
question is never whether they are equal, but whether rounding can explain the
difference.

It can, up to a bound that you can compute. A product x[i] · w[i] is rounded once;
then the term goes through at most D - 1 additions, which round again: D times in
all, each by a part U of what is there. So the sum is off by at most

    D · U · Σ_i |x[i] · w[i]|

Mind the absolute values: the sum may be small because large terms cancel, and they
have been rounded.

Somebody has computed the sum of x[i] · w[i] in float32, in an order that you don't
know, and found `found`. Is it right?

    x, w           (D,), float32
    true_sum       the sum in float64, where rounding is 2**29 times smaller
    bound          by how much a right float32 answer may be off
    is_right       True if found is no further from the true sum than that

By hand, D = 3, with numbers that float32 holds exactly. It can't hold 16777217,
which is 2**24 + 1:

    x = [16777216, 1, -16777216]
    w = [1, 1, 1]
    true_sum(x, w) = 1
    bound(x, w) = 3 * 2**-24 * (16777216 + 1 + 16777216) = 6.0000002
    is_right(0, x, w) = True      # from left to right: 16777216 + 1 is 16777216, minus that is 0
    is_right(8, x, w) = False

Nothing right about 0, is there? It is off by 100 %, and yet it is what a right
program gives.

To check it: scratchnet study 15
"""

import numpy as np

U = float(np.finfo(np.float32).eps) / 2  # 2**-24


def true_sum(x, w):
    """The sum of x[i] · w[i], in float64."""
    raise NotImplementedError


def bound(x, w):
    """By how much that sum may be off, if it is computed in float32."""
    raise NotImplementedError


def is_right(found, x, w):
    """Whether rounding in float32 explains the difference."""
    raise NotImplementedError
