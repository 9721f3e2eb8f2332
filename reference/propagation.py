"""Rounding errors followed through a network: each result with a bound of its own error.

`bounds` tells how far one operation is off, from inputs that are exact. In a network the inputs are
results, and off already. An `Estimate` is a value with a bound on how far any computation of it in
one dtype may be from the exact one; each function here takes estimates and returns one, adding

- what the errors of its inputs do to its output, by the function's own slope, and
- what it rounds itself, by `bounds`, for the largest inputs that the errors allow.

Two computations of the same thing, scratchnet's and PyTorch's, are then at most two errors apart.
Values are computed in float64, and may be off by as much as the estimate says where that is the
dtype: so a sign is certain only where a value exceeds twice its error.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from reference import bounds
from reference.bounds import Classification, Dtype, gamma
from scratchnet import functional
from scratchnet.backend import Array


class Estimate(NamedTuple):
    """A value, and how far a computation of it may be off, in its shape, both float64."""

    value: Array
    error: Array

    @property
    def size(self) -> Array:
        """The largest absolute value that the error allows."""
        return np.abs(self.value) + self.error


def exact(value: Array) -> Estimate:
    """An input, which both sides got bit for bit."""
    value = np.asarray(value, np.float64)
    return Estimate(value, np.zeros_like(value))


def linear(dtype: Dtype, x: Estimate, weight: Array, bias: Array | None) -> Estimate:
    """y = x Wᵀ + b: an error e of x becomes e |W|ᵀ."""
    weight = weight.astype(np.float64)
    bias = None if bias is None else bias.astype(np.float64)
    value = functional.linear_forward(x.value, weight, bias)
    return Estimate(value, x.error @ np.abs(weight).T + bounds.linear(dtype, x.size, weight, bias))


def linear_backward(
    dtype: Dtype, grad: Estimate, x: Estimate, weight: Array
) -> tuple[Estimate, Estimate, Estimate]:
    """Products of two estimates: |g'x' - gx| <= e_g (|x| + e_x) + |g| e_x, summed as they are."""
    weight = weight.astype(np.float64)
    values = functional.linear_backward(grad.value, x.value, weight)
    spread = grad.error.T @ x.size + np.abs(grad.value).T @ x.error
    errors = (
        grad.error @ np.abs(weight) + bounds.linear_grad_x(dtype, grad.size, weight),
        spread + bounds.linear_grad_weight(dtype, grad.size, x.size),
        grad.error.sum(axis=0) + bounds.linear_grad_bias(dtype, grad.size),
    )
    grad_x, grad_weight, grad_bias = map(Estimate, values, errors)
    return grad_x, grad_weight, grad_bias


def relu(x: Estimate) -> Estimate:
    """No rounding and a slope of at most 1; nothing comes through where x is surely below 0."""
    error = np.where(x.value + 2 * x.error <= 0, 0, x.error)
    return Estimate(functional.relu_forward(x.value), error)


def relu_backward(grad: Estimate, x: Estimate) -> Estimate:
    """g where x > 0. Where the sign of x is not certain, both 0 and g are right answers."""
    uncertain = (x.error > 0) & (np.abs(x.value) <= 2 * x.error)
    error = np.where(uncertain, grad.size, np.where(x.value > 0, grad.error, 0))
    return Estimate(functional.relu_backward(grad.value, x.value), error)


def sigmoid(dtype: Dtype, x: Estimate) -> Estimate:
    """The slope is at most 1/4; σ(x + e) <= σ(x) exp(e), and so the rounding error grows."""
    error = x.error / 4 + bounds.sigmoid(dtype, x.value) * np.exp(x.error)
    return Estimate(functional.sigmoid_forward(x.value), error)


def sigmoid_backward(dtype: Dtype, grad: Estimate, x: Estimate) -> Estimate:
    """σ' = σ(1 - σ) changes by a factor of at most exp(e), since (log σ')' = 1 - 2σ."""
    ones = np.ones_like(x.value)
    slope = functional.sigmoid_backward(ones, x.value)
    error = slope * (np.exp(x.error) * grad.error + np.expm1(x.error) * np.abs(grad.value))
    rounding = bounds.sigmoid_backward(dtype, grad.size, x.value) * np.exp(x.error)
    return Estimate(functional.sigmoid_backward(grad.value, x.value), error + rounding)


def cross_entropy(dtype: Dtype, logits: Estimate, problem: Classification) -> Estimate:
    """Each -log p changes by at most 2e, e the row's largest error: its logit, and the sum.

    The rounding, gamma_2 |z| and gamma_(C+2N+8) |log p| in `bounds.cross_entropy`, is that of
    differences z and logarithms up to 2e larger: gamma_(C+2N+10) · 2e more.
    """
    problem = replace(problem, logits=logits.value)
    value = functional.cross_entropy_forward(problem.logits, problem.target, **problem.options)
    samples, classes = logits.value.shape
    slope = 1 + gamma(classes + 2 * samples + 10, dtype)
    moved = slope * 2 * logits.error.max(axis=1) * problem.target_weights.sum(axis=1)
    if problem.reduction != "none":
        moved = moved.sum() / problem.denominator
    return Estimate(np.asarray(value), moved + bounds.cross_entropy(dtype, problem))


def cross_entropy_backward(dtype: Dtype, logits: Estimate, problem: Classification) -> Estimate:
    """(p T - t) g / den: p changes by a factor of at most exp(2e), e the row's largest error.

    And its index in `bounds`, 28 at least, by 4e: together the rounding grows by less than exp(3e).
    """
    problem = replace(problem, logits=logits.value)
    value = functional.cross_entropy_backward(
        problem.logits, problem.target, **problem.options, grad_output=problem.grad_output
    )
    e = np.minimum(logits.error.max(axis=1, keepdims=True), 100)  # which no p survives anyway
    factor = np.expm1(2 * e)
    total = problem.target_weights.sum(axis=1, keepdims=True) / problem.denominator
    upstream = np.abs(np.asarray(problem.grad_output)).reshape(-1, 1)
    moved = factor * functional.softmax_forward(logits.value) * total * upstream
    return Estimate(value, moved + bounds.cross_entropy_backward(dtype, problem) * np.exp(3 * e))


class AdamState(NamedTuple):
    """What an update of Adam leaves behind."""

    exp_avg: Estimate
    exp_avg_sq: Estimate
    parameter: Estimate


def adam(
    dtype: Dtype,
    p: Array,
    g: Array | Estimate,
    m: Array,
    v: Array,
    step: int,
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float = 0.0,
    decoupled: bool = False,
    faded: tuple[float, float] = (0.0, 0.0),
) -> AdamState:
    """One update from exact p, m and v, as Adam (or AdamW, if decoupled) makes it.

    Whoever computed the gradient updates by his own g', within e of the exact one, which is within
    e of g. So the error is how far the result moves with g', and what is rounded at any such g'.
    Moments m and v as small as `faded` may have been taken for 0, which is lost as what underflows.

    g + wd p rounds wd, the product and the sum: gamma_3. m = β₁ m + (1 - β₁) g rounds β, each
    product and the sum, and as m + (1 - β₁)(g - m) a difference more: gamma_4 of the parts. v:
    β₂ v + (1 - β₂) g², gamma_5, all positive. p: decay, p - lr wd p in one piece or in two, and the
    last subtraction: gamma_4 of the parts. t stays below 2^24, where PyTorch's count of steps ends.
    """
    p, m, v = (np.asarray(array, np.float64) for array in (p, m, v))
    g = g if isinstance(g, Estimate) else exact(g)
    beta1, beta2 = betas
    decay = 0.0 if decoupled else weight_decay
    decay_error = gamma(3, dtype) * (g.size + decay * np.abs(p)) + bounds.eta(1, dtype)
    grad = Estimate(g.value + decay * p, g.error + decay_error * bool(decay))

    m_lost, v_lost = (bounds.eta(4, dtype) + each for each in faded)
    m_new = beta1 * m + (1 - beta1) * grad.value
    most = np.abs(grad.value) + 2 * grad.error
    m_error = gamma(4, dtype) * (np.abs(m) + (1 - beta1) * most)
    m_error = m_error + (1 - beta1) * grad.error + m_lost

    v_new = beta2 * v + (1 - beta2) * grad.value**2
    v_error = (1 - beta2) * 2 * most * grad.error
    v_error = v_error + gamma(5, dtype) * (v_new + v_error) + v_lost

    u = _update(dtype, grad, m, v, m_lost, v_lost, step, lr, betas, eps)
    shrink = lr * weight_decay if decoupled else 0.0
    p_error = gamma(4, dtype) * ((1 + shrink) * np.abs(p) + u.size) + u.error
    p_new = Estimate((1 - shrink) * p - u.value, np.where(u.error < np.inf, p_error, np.inf))
    return AdamState(Estimate(m_new, m_error), Estimate(v_new, v_error), p_new)


def _update(
    dtype: Dtype,
    grad: Estimate,
    m: Array,
    v: Array,
    m_lost: float,
    v_lost: float,
    step: int,
    lr: float,
    betas: tuple[float, float],
    eps: float,
) -> Estimate:
    """u(g) = lr/c₁ · (β₁ m + (1 - β₁) g) / d, d = √(β₂ v + (1 - β₂) g²) / c₂ + eps.

    Where c₁ = 1 - β₁ᵗ and c₂ = √(1 - β₂ᵗ). The same g is above and below, so the update moves less
    than both: with V = β₂ v + (1 - β₂) g²,

        u' = lr/c₁ / d² · ((1 - β₁) (β₂ v / (c₂ √V) + eps) - β₁ m (1 - β₂) g / (c₂ √V)).

    Over all |g'|, from |g| - 2e to |g| + 2e, v / √V and 1 / d are largest at the least of them, and
    |g'| / √V and |g'| / d at the most. So u moves by at most e times the largest slope; and, where
    the sign of g' is not certain, by no more than |u(g)| and the largest |u(g')|.

    Rounded: d, with 5/2 of V, the root, c₂ (3/2), the quotient and the sum, gamma_7. The update,
    in any order, and also as lr c₂/c₁ · m / (√V + eps c₂), rounds c₁, c₂ (3/2), lr, two products
    and two quotients, gamma_7; and m gamma_4 of its parts. βᵗ may be a product of t factors in
    float64, which 1 - βᵗ magnifies: gamma_t βᵗ/(1 - βᵗ). What V loses moves its root by
    min(lost / √V, √lost), and d is eps at least. Where d may be 0 (eps = 0 and no gradient yet) any
    update is right.
    """
    beta1, beta2 = betas
    rate, c2 = lr / (1 - beta1**step), np.sqrt(1 - beta2**step)
    size, reach = np.abs(grad.value), 2 * grad.error
    least, most = np.maximum(size - reach, 0), size + reach
    root, root_least, root_most = (
        np.sqrt(beta2 * v + (1 - beta2) * each**2) / c2 for each in (size, least, most)
    )
    tiny = np.finfo(float).tiny  # where a root is 0, so is what is divided by it
    slope = (1 - beta1) * (beta2 * v / c2**2 / np.maximum(root_least, tiny) + eps)
    slope += beta1 * np.abs(m) * (1 - beta2) * most / c2**2 / np.maximum(root_most, tiny)
    index = gamma(14, dtype) + _power_error(beta1, step) + _power_error(beta2, step)
    with np.errstate(divide="ignore", invalid="ignore"):
        u = rate * (beta1 * m + (1 - beta1) * grad.value) / (root + eps)
        parts = np.abs(m) / (root_least + eps) + (1 - beta1) * most / (root_most + eps)
        moved = grad.error * rate * slope / (root_least + eps) ** 2
        moved = np.minimum(moved, np.abs(u) + rate * parts)
        d_lost = np.minimum(v_lost / c2**2 / root_least, np.sqrt(v_lost) / c2)
        d = np.maximum(root_least + eps - d_lost, eps)
        rounded = gamma(4, dtype) * rate * parts
        rounded += (np.abs(u) + moved + rounded) * d_lost / d
        rounded += (rate * m_lost + bounds.eta(2, dtype)) / d
        rounded += index * (np.abs(u) + moved + rounded) + bounds.eta(2 + rate, dtype)
    return Estimate(u, np.where(d > 0, moved + rounded, np.inf))


def _power_error(beta: float, step: int) -> float:
    """The relative error of 1 - βᵗ, if βᵗ is a running product in float64."""
    power = beta**step
    return float(gamma(step, np.float64)) * power / (1 - power)
