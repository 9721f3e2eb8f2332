"""Bounds on the rounding error of each operation, computed in one precision from given inputs.

The model: fl(a o b) = (a o b)(1 + d) with |d| <= u, and exp and log are within 4 ulp (NumPy's
documented bound). Write 1 + t_k for any number between (1 - u)^k and (1 - u)^-k, for real k >= 0:

- products and quotients add the indices, (1 + t_j)(1 + t_k)^(+-1) = 1 + t_(j+k);
- a sum of C terms of one sign keeps the largest index, and adds C - 1 in whatever order it is done;
- |t_k| <= gamma_k = k u / (1 - k u), and so is |log(1 + t_k)|; e^(+-k u) is a 1 + t_k;
- 4 ulp is 8 u, so exp and log have the index 9 (a ninth covers the second order of 1 - 8u).

In place of its relative error, an operation that underflows has an absolute one of at most `tiny`,
the smallest normal number (flushing subnormals to zero is allowed). These are the terms `eta`.

The reference is PyTorch in float64 on the same inputs, which has rounding errors of its own, so a
tolerance is the bound in the precision of the result plus the bound in float64. The bounds
themselves are computed in float64, whose error is far below the slack of the counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from scratchnet.backend import Array

Dtype: TypeAlias = type[np.float32] | type[np.float64]


def unit_roundoff(dtype: Dtype) -> float:
    """u: 2^-24 in float32, 2^-53 in float64."""
    return float(np.finfo(dtype).eps) / 2


def gamma(k: Any, dtype: Dtype) -> Any:
    """gamma_k = k u / (1 - k u), for a number or an array k; from k u = 1 on it says nothing."""
    ku = np.minimum(k * unit_roundoff(dtype), 1 - 1e-16)
    return np.where(ku < 1 - 1e-15, ku / (1 - ku), 1e100)[()]


def eta(k: Any, dtype: Dtype) -> Any:
    """The absolute error of k underflows."""
    return k * float(np.finfo(dtype).tiny)


def tolerance(bound: Callable[..., Array], dtype: Dtype, *inputs: Any) -> Array:
    """The error of a result in dtype, plus that of its reference in float64."""
    return bound(dtype, *inputs) + bound(np.float64, *inputs)


def linear(dtype: Dtype, x: Array, weight: Array, bias: Array | None) -> Array:
    """gamma_(D+1) (|x| |W|^T + |b|): D products, D - 1 additions, and one more for the bias.

    Where every term is 0, nothing is rounded: that 0 is exact.
    """
    terms = x.shape[1] + 1
    size = np.abs(x) @ np.abs(weight).T + (0 if bias is None else np.abs(bias))
    return np.where(size == 0, 0, gamma(terms, dtype) * size + eta(terms, dtype))


def linear_grad_x(dtype: Dtype, grad_output: Array, weight: Array) -> Array:
    """gamma_H |g| |W|: an inner product of length H for each entry."""
    terms = grad_output.shape[1]
    return np.asarray(
        gamma(terms, dtype) * (np.abs(grad_output) @ np.abs(weight)) + eta(terms, dtype)
    )


def linear_grad_weight(dtype: Dtype, grad_output: Array, x: Array) -> Array:
    """gamma_N |g|^T |x|: an inner product over the batch for each entry."""
    terms = len(x)
    return np.asarray(gamma(terms, dtype) * (np.abs(grad_output).T @ np.abs(x)) + eta(terms, dtype))


def linear_grad_bias(dtype: Dtype, grad_output: Array) -> Array:
    """gamma_N sum_i |g_i|: a sum over the batch (additions do not underflow)."""
    return np.asarray(gamma(len(grad_output), dtype) * np.abs(grad_output).sum(axis=0))


def sigmoid(dtype: Dtype, x: Array) -> Array:
    """gamma_11 s: exp 9, an addition and a division 1 each.

    e/(1 + e) = 1/(1 + 1/e), so the form for negative x has the same index. Underflow: of exp, and
    of the quotient; where exp(-x) overflows, s itself is below tiny.
    """
    return np.asarray(gamma(11, dtype) * _sigmoid(x) + eta(2, dtype))


def sigmoid_backward(dtype: Dtype, grad_output: Array, x: Array) -> Array:
    """gamma_25 |g| s: g s (1 - s) with a computed s has s t_11 left over where 1 - s cancels.

    s(1 + t_11) (1 - s(1 + t_11)) with a subtraction and two products is within
    s ((1 - s) gamma_14 + s gamma_25); e/(1 + e)^2 has the index 24. Underflow: s twice, s(1 - s),
    and the product with g.
    """
    size = np.abs(grad_output)
    return np.asarray(gamma(25, dtype) * size * _sigmoid(x) + eta(4 * (1 + size), dtype))


def softmax(dtype: Dtype, x: Array) -> Array:
    """gamma_K p, with the index K of `_probability_index`. Underflow: of C exps and a quotient."""
    classes = x.shape[-1]
    return np.asarray(gamma(_probability_index(x), dtype) * _softmax(x) + eta(classes + 4, dtype))


def softmax_backward(dtype: Dtype, grad_output: Array, x: Array) -> Array:
    """gamma_(2K+C+3) p_i (|g_i| + sum_j |g_j| p_j), K the largest index of the row.

    p_i (g_i - sum_j g_j p_j): an inner product of length C with computed p_j has the index K + C;
    p_i adds K, and the subtraction, the product and p g - p (sum) the last 3. Underflow: each p is
    off by (C + 4) tiny, which meets |g| twice, and each product once.
    """
    classes = x.shape[-1]
    p, size = _softmax(x), np.abs(grad_output)
    k = _probability_index(x).max(axis=-1, keepdims=True)
    mean, total = (size * p).sum(axis=-1, keepdims=True), size.sum(axis=-1, keepdims=True)
    return np.asarray(
        gamma(2 * k + classes + 3, dtype) * p * (size + mean)
        + eta((classes + 4) * 2 * (1 + size + total), dtype)
    )


def log_softmax(dtype: Dtype, x: Array) -> Array:
    """gamma_2 |z| + gamma_10 ln C + gamma_(C+ln C+18), where z = x - max and log p = z - log S.

    z has one rounding, and the last subtraction another. S = sum_j e^(z_j) is in [1, C] and has the
    index ln C + C + 8 (see `_probability_index`), which its logarithm turns into an absolute error;
    log itself has 9, relative to log S <= ln C, and the last subtraction 1. Underflow: C exps in a
    sum of at least 1.
    """
    classes = x.shape[-1]
    return np.asarray(
        gamma(2, dtype) * -_shifted(x)
        + gamma(10, dtype) * np.log(classes)
        + gamma(classes + np.log(classes) + 18, dtype)
        + eta(classes + 1, dtype)
    )


def log_softmax_backward(dtype: Dtype, grad_output: Array, x: Array) -> Array:
    """gamma_1 |g_i| + gamma_(K+C+1) p_i sum_j |g_j|.

    g_i - p_i sum_j g_j: C - 1 additions, K for p_i, a product and a subtraction. Underflow: of p,
    by (C + 4) tiny, and of the product.
    """
    classes = x.shape[-1]
    size = np.abs(grad_output)
    total = size.sum(axis=-1, keepdims=True)
    return np.asarray(
        gamma(1, dtype) * size
        + gamma(_probability_index(x) + classes + 1, dtype) * _softmax(x) * total
        + eta((classes + 5) * (1 + total), dtype)
    )


@dataclass(frozen=True)
class Classification:
    """The arguments of a cross-entropy, and an upstream gradient for its loss."""

    logits: Array
    target: Array
    weight: Array | None
    ignore_index: int
    reduction: str
    label_smoothing: float
    grad_output: Array | float

    @classmethod
    def of(
        cls,
        logits: Array,
        target: Array,
        *,
        weight: Array | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        grad_output: Array | float = 1.0,
    ) -> Classification:
        """One with the defaults of torch.nn.functional.cross_entropy."""
        return cls(logits, target, weight, ignore_index, reduction, label_smoothing, grad_output)

    @property
    def options(self) -> dict[str, Any]:
        """The keyword arguments shared by the forward, the backward and PyTorch."""
        names = ("weight", "ignore_index", "reduction", "label_smoothing")
        return {name: getattr(self, name) for name in names}

    @property
    def counted(self) -> Array:
        """Which rows aren't ignored."""
        return np.asarray(self.target.astype(np.int64) != self.ignore_index)

    @property
    def target_weights(self) -> Array:
        """t in loss_i = -sum_c t_ic log p_ic: (1 - s) w_y at the label, plus s/C w_c everywhere."""
        classes, s = self.logits.shape[1], self.label_smoothing
        w = np.ones(classes) if self.weight is None else self.weight.astype(np.float64)
        at_label = np.arange(classes) == self.target.astype(np.int64)[:, None]
        return np.where(self.counted[:, None], (1 - s) * w * at_label + s / classes * w, 0.0)

    @property
    def denominator(self) -> np.float64:
        """What the sum of the losses is divided by: for a mean, the weights of the labels."""
        if self.reduction != "mean":
            return np.float64(1)
        kept = self.target[self.counted]
        total = len(kept) if self.weight is None else self.weight[kept].sum(dtype=np.float64)
        return np.float64(total)


def cross_entropy(dtype: Dtype, problem: Classification) -> Array:
    """sum_ic t_ic (e_ic + gamma_(C+2N+8) (|log p_ic| + e_ic)) / den, e the bound of log_softmax.

    All terms -t_ic log p_ic have one sign. Their index: 1 - s and s/C are rounded twice each, two
    products, the sum of both parts 1, the sums C - 1 and N - 1, the denominator N - 1, the division
    1. N is 1 for the reduction "none". Underflow: log p by (C + 1) tiny, and the products.
    """
    t, den, terms = problem.target_weights, problem.denominator, _terms(problem)
    lp = _log_softmax(problem.logits)
    e = log_softmax(dtype, problem.logits)
    classes = lp.shape[1]
    rows = (t * (e + gamma(classes + 2 * terms + 8, dtype) * (e - lp))).sum(axis=1)
    rows += eta((classes + 2) * (t.sum(axis=1) + classes), dtype)
    return np.asarray(rows if problem.reduction == "none" else rows.sum() / den)


def cross_entropy_backward(dtype: Dtype, problem: Classification) -> Array:
    """|g| (p T gamma_(K+C+N+12) + t gamma_(N+12)) / den, with T_i = sum_c t_ic.

    g (p T - t) / den: t has the index 5 (1 - s and s/C rounded twice each, a product, a sum), T
    adds C - 1, p has K, a product and a subtraction 1 each, the denominator N - 1, the division 1,
    g is rounded and multiplied. N is 1 for the reduction "none". Underflow: p by (C + 4) tiny, and
    each product.
    """
    t, den, terms = problem.target_weights, problem.denominator, _terms(problem)
    size = np.broadcast_to(np.abs(problem.grad_output), len(t))[:, None]
    total = t.sum(axis=1, keepdims=True)
    classes = t.shape[1]
    index = _probability_index(problem.logits) + classes + terms + 12
    spread = _softmax(problem.logits) * total * gamma(index, dtype) + t * gamma(terms + 12, dtype)
    lost = eta((classes + 4) * (total + 2) * (size + 1) * (1 / den + 1), dtype)
    return np.asarray(size * spread / den + lost)


def _probability_index(x: Array) -> Array:
    """K = 2|z| + 11 ln C + C + 28, the index of a softmax entry p, for two ways to compute it.

    e^z / S: z = x - max has an absolute error of u|z|, the index |z| after exp, which has 9. In the
    sum S each term has its own u|z_j|. If S_a = sum_j e^(-a|z_j|), then d log S_a / d log a =
    -(H_a - log S_a) >= -ln C, where H_a <= ln C is the entropy of the weights: so S_(1-u) <=
    (1 - u)^(-ln C) S_1, and S has the index ln C + 9 + (C - 1). The quotient: |z| + ln C + C + 18.

    exp(log p): the absolute error of log p over u, and 9: 2|z| + 11 ln C + C + 27, and one for the
    second order of its gammas.
    """
    classes = x.shape[-1]
    return np.asarray(-2 * _shifted(x) + 11 * np.log(classes) + classes + 28)


def _terms(problem: Classification) -> int:
    return 1 if problem.reduction == "none" else len(problem.logits)


def _sigmoid(x: Array) -> Array:
    return np.asarray(np.exp(-np.logaddexp(0, -x.astype(np.float64))))


def _shifted(x: Array) -> Array:
    x = x.astype(np.float64)
    return np.asarray(x - x.max(axis=-1, keepdims=True))


def _log_softmax(x: Array) -> Array:
    z = _shifted(x)
    return np.asarray(z - np.log(np.exp(z).sum(axis=-1, keepdims=True)))


def _softmax(x: Array) -> Array:
    return np.asarray(np.exp(_log_softmax(x)))
