"""The mathematics of backprop: every function's forward pass, and its backward pass beside it.

A network is a chain of functions that ends in one number, the loss L. Backprop asks each function
one question. Given grad_output = ∂L/∂y, how the loss changes with your *output*, what is ∂L/∂x, how
it changes with your *input*? The chain rule answers: sum over all the outputs that x reaches,

    ∂L/∂x[i] = Σ_j  ∂L/∂y[j] · ∂y[j]/∂x[i].

So X_backward takes grad_output, of y's shape, and the inputs of X_forward, and returns gradients
of the inputs' shapes. Nothing is remembered between the two, and no argument is changed.

Shapes: N batch, D features in, H features out, C classes. Arrays are NumPy's or CuPy's; all but
class numbers have one dtype, float32 or float64, which the results have too. inf and nan go the
way that IEEE 754 sends them, as in PyTorch, and no warning is printed. Every function raises
TypeError for another dtype and ValueError for shapes that do not fit.

Read from top to bottom: `linear` and `relu` are the layers, `softmax` and `log_softmax` lead to
`cross_entropy`, whose gradient is the short and famous p - q. The loss is a mean over the batch, so
each sample's gradient is divided by N, and the learning rate need not change with the batch size.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np

from scratchnet.backend import Array, get_array_module, ieee

Reduction: TypeAlias = Literal["mean", "sum", "none"]

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
INTEGERS = (np.dtype(np.int64), np.dtype(np.uint8))


# ------------------------------------------------------------------------------------------ linear


@ieee
def linear_forward(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """Linear layer: y = x Wᵀ + b, that is, y[n, h] = Σ_d x[n, d] W[h, d] + b[h].

    Args:
        x: (N, D), a sample a row.
        weight: (H, D), a row per output, as in torch.nn.Linear.
        bias: (H,), added to every row; None for no bias.

    Returns:
        y: (N, H).
    """
    _check_floats(x=x, weight=weight, bias=bias)
    _check_linear(x, weight, bias)
    y = x @ weight.T
    if bias is not None:
        y += bias
    return y


@ieee
def linear_backward(
    grad_output: Array, x: Array, weight: Array, *, needs_grad_x: bool = True
) -> tuple[Any, Array, Array]:
    """Gradients of y = x Wᵀ + b.

    From y[n, h] = Σ_d x[n, d] W[h, d] + b[h]:
        ∂y[n, h]/∂x[n, d] = W[h, d]   x[n, d] reaches every h:   ∂L/∂x = grad_output W
        ∂y[n, h]/∂W[h, d] = x[n, d]   W[h, d] serves every n:    ∂L/∂W = grad_outputᵀ x
        ∂y[n, h]/∂b[h]    = 1         b[h] serves every n too:   ∂L/∂b = Σ_n grad_output[n]
    A parameter used for N samples collects N terms: that is where sums over the batch come from.

    Args:
        grad_output: ∂L/∂y, (N, H).
        x: (N, D), as given to `linear_forward`.
        weight: (H, D), likewise.
        needs_grad_x: default True. False where x is data, as in a first layer: grad_x is then None,
            and one product of three is saved.

    Returns:
        (grad_x, grad_weight, grad_bias), of shapes (N, D), (H, D), (H,).
    """
    _check_floats(grad_output=grad_output, x=x, weight=weight)
    _check_linear(x, weight)
    _check_shape("grad_output", grad_output, (len(x), len(weight)), "(N, H)")
    grad_x = grad_output @ weight if needs_grad_x else None
    grad_weight = grad_output.T @ x
    grad_bias = grad_output.sum(axis=0)
    return grad_x, grad_weight, grad_bias


# ------------------------------------------------------------------------------ relu and sigmoid


@ieee
def relu_forward(x: Array) -> Array:
    """Rectified linear unit: y = max(x, 0), elementwise. nan stays nan and -0.0 stays -0.0.

    Args:
        x: any shape.

    Returns:
        y: x's shape.
    """
    _check_floats(x=x)
    return get_array_module(x).where(x < 0, 0, x)


@ieee
def relu_backward(grad_output: Array, x: Array) -> Array:
    """Gradient of y = max(x, 0): grad_output where x > 0, and 0 where x <= 0.

    y follows x where x > 0 (slope 1) and is constant where x < 0 (slope 0). At 0 there is no
    derivative; PyTorch takes 0, and so do we. It is computed by choosing, with `where`, and not
    by multiplying: grad_output * (x > 0) would be inf · 0 = nan for an infinite grad_output.

    Args:
        grad_output: ∂L/∂y, x's shape.
        x: any shape, as given to `relu_forward`.

    Returns:
        grad_x: x's shape. Where x is nan, grad_output passes, as in PyTorch.
    """
    _check_floats(grad_output=grad_output, x=x)
    _check_shape("grad_output", grad_output, x.shape, "x's shape")
    return get_array_module(x).where(x <= 0, 0, grad_output)


@ieee
def sigmoid_forward(x: Array) -> Array:
    """Logistic sigmoid: σ(x) = 1 / (1 + exp(-x)), elementwise.

    With e = exp(-|x|), which can't overflow, σ is 1 / (1 + e) for x >= 0 and e / (1 + e) below.

    Args:
        x: any shape.

    Returns:
        y: x's shape, in [0, 1].
    """
    _check_floats(x=x)
    xp = get_array_module(x)
    e = xp.exp(-xp.abs(x))
    return xp.where(x < 0, e, 1) / (1 + e)


@ieee
def sigmoid_backward(grad_output: Array, x: Array) -> Array:
    """Gradient of y = σ(x): grad_output · σ(x) σ(-x).

    dσ/dx = exp(-x) / (1 + exp(-x))² = σ(x) (1 - σ(x)), and 1 - σ(x) = σ(-x). The last form does
    not subtract, so it keeps its digits where σ(x) is nearly 1.

    Args:
        grad_output: ∂L/∂y, x's shape.
        x: any shape, as given to `sigmoid_forward`.

    Returns:
        grad_x: x's shape.
    """
    _check_floats(grad_output=grad_output, x=x)
    _check_shape("grad_output", grad_output, x.shape, "x's shape")
    return grad_output * sigmoid_forward(x) * sigmoid_forward(-x)


# ----------------------------------------------------------------------- softmax and log_softmax


@ieee
def softmax_forward(x: Array) -> Array:
    """Softmax over the last axis: p[c] = exp(x[c]) / Σ_k exp(x[k]).

    A constant added to a whole row cancels, so the row's maximum is subtracted first: the largest
    exponent is then 0, and exp can't overflow.

    Args:
        x: (..., C), usually (N, C).

    Returns:
        p: x's shape; no entry is negative, and each row sums to 1.
    """
    _check_floats(x=x)
    e = get_array_module(x).exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


@ieee
def softmax_backward(grad_output: Array, x: Array) -> Array:
    """Gradient of p = softmax(x): p · (grad_output - Σ_k grad_output[k] p[k]).

    Every output depends on every input of its row: ∂p[k]/∂x[c] = p[k] (δ_kc - p[c]), where δ_kc
    is 1 if k = c and else 0. Then
        ∂L/∂x[c] = Σ_k grad_output[k] p[k] (δ_kc - p[c])
                 = p[c] (grad_output[c] - Σ_k grad_output[k] p[k]).
    A grad_output that is the same for all classes gives 0, since p sums to 1 whatever x is.

    Args:
        grad_output: ∂L/∂p, x's shape.
        x: (..., C), as given to `softmax_forward`.

    Returns:
        grad_x: x's shape; each row sums to 0.
    """
    _check_floats(grad_output=grad_output, x=x)
    _check_shape("grad_output", grad_output, x.shape, "x's shape")
    p = softmax_forward(x)
    return p * (grad_output - (grad_output * p).sum(axis=-1, keepdims=True))


@ieee
def log_softmax_forward(x: Array) -> Array:
    """Logarithm of the softmax over the last axis: log p[c] = x[c] - log Σ_k exp(x[k]).

    Taken in one piece, since log(softmax(x)) is -inf as soon as p underflows to 0.

    Args:
        x: (..., C), usually (N, C).

    Returns:
        log_p: x's shape.
    """
    _check_floats(x=x)
    xp = get_array_module(x)
    shifted = x - x.max(axis=-1, keepdims=True)
    return shifted - xp.log(xp.exp(shifted).sum(axis=-1, keepdims=True))


@ieee
def log_softmax_backward(grad_output: Array, x: Array) -> Array:
    """Gradient of log p = log_softmax(x): grad_output - p Σ_k grad_output[k].

    ∂log p[k]/∂x[c] = δ_kc - p[c], summed against grad_output[k].

    Args:
        grad_output: ∂L/∂(log p), x's shape.
        x: (..., C), as given to `log_softmax_forward`.

    Returns:
        grad_x: x's shape; each row sums to 0.
    """
    _check_floats(grad_output=grad_output, x=x)
    _check_shape("grad_output", grad_output, x.shape, "x's shape")
    return grad_output - softmax_forward(x) * grad_output.sum(axis=-1, keepdims=True)


# --------------------------------------------------------------------------------- cross-entropy


@ieee
def cross_entropy_forward(
    logits: Array,
    target: Array,
    *,
    weight: Array | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    label_smoothing: float = 0.0,
) -> Array:
    """Softmax cross-entropy: how surprised the network is by the right answers.

    With log p = log_softmax(logits), sample n with label y costs -log p[n, y]. In full:
        loss[n] = -Σ_c weight[c] q[n, c] log p[n, c],
    where q[n] is the distribution wanted: 1 at the label, or, smoothed by s = label_smoothing,
    1 - s + s/C at the label and s/C elsewhere. The mean is weighted by the labels' class weights:
        L = Σ_n loss[n] / Σ_n weight[y_n],
    which without weights is Σ_n loss[n] / N. Source: torch.nn.CrossEntropyLoss.

    Args:
        logits: (N, C), before any softmax.
        target: (N,) class numbers 0..C-1, int64 or uint8.
        weight: (C,) weight of each class; None for 1.
        ignore_index: samples with this label count neither in the sum nor in N; default -100.
        reduction: "mean" (default), "sum", or "none" for one loss a sample.
        label_smoothing: s in [0, 1]; default 0.

    Returns:
        The loss, a scalar of logits' dtype; (N,) for reduction "none". The mean of no samples at
        all, or of samples without weight, is nan, as in PyTorch.

    Raises:
        IndexError: a label is neither in 0..C-1 nor ignore_index. On the GPU, where to raise it
            would be to wait for the GPU in each step, the loss of that sample is nan instead.
    """
    _check_cross_entropy(logits, target, weight, ignore_index, reduction, label_smoothing)
    xp = get_array_module(logits)
    q, weight, total = _wanted(logits, target, weight, ignore_index, label_smoothing)
    # Where q is 0 a -inf in log p does no harm: 0 · -inf would be nan.
    loss = xp.where(q == 0, 0, weight * q * -log_softmax_forward(logits)).sum(axis=-1)
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    # A total of 0 has no mean, though with smoothing the sum may be positive.
    return xp.where(total == 0, xp.nan, loss.sum() / total)


@ieee
def cross_entropy_backward(
    logits: Array,
    target: Array,
    *,
    weight: Array | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    label_smoothing: float = 0.0,
    grad_output: Array | float = 1.0,
) -> Array:
    """Gradient of the softmax cross-entropy: (p - q) / N for each sample.

    Let a[n, c] = weight[c] q[n, c], divided by Σ_n weight[y_n] for the mean: what the loss takes of
    each -log p[n, c]. So ∂L/∂(log p) = -a, and log_softmax's gradient makes of it
        ∂L/∂logits[n, c] = p[n, c] Σ_k a[n, k] - a[n, c].
    Without weights Σ_k q[n, k] = 1, and this is (p - q) / N: the exponential, the logarithm and the
    whole Jacobian of the softmax have cancelled.

    Args:
        logits: (N, C), and all options, as given to `cross_entropy_forward`.
        target: (N,) class numbers.
        weight: (C,) or None.
        ignore_index: label of the samples left out; their gradient is 0.
        reduction: "mean", "sum" or "none".
        label_smoothing: s in [0, 1].
        grad_output: ∂L/∂loss: a scalar, default 1; (N,) for reduction "none".

    Returns:
        grad_logits: (N, C).

    Raises:
        IndexError: a label is neither in 0..C-1 nor ignore_index. On the GPU the gradient of that
            sample is nan instead.
    """
    _check_cross_entropy(logits, target, weight, ignore_index, reduction, label_smoothing)
    xp = get_array_module(logits)
    scale = xp.asarray(grad_output, dtype=logits.dtype)
    _check_shape("grad_output", scale, (len(logits),) if reduction == "none" else (), "the loss's")
    q, weight, total = _wanted(logits, target, weight, ignore_index, label_smoothing)
    if reduction == "mean":
        scale = scale / total
    # Where q is 0 an infinite scale, as when nothing is left to divide by, does no harm either.
    a = xp.where(q == 0, 0, weight * q * scale.reshape(-1, 1))
    return softmax_forward(logits) * a.sum(axis=-1, keepdims=True) - a


def _wanted(
    logits: Array,
    target: Array,
    weight: Array | None,
    ignore_index: int,
    label_smoothing: float,
) -> tuple[Array, Array, Array]:
    """What the loss wants of each sample.

    Returns:
        q: (N, C), the distribution wanted of each row, or 0 throughout where it is ignored; on the
            GPU nan throughout where the label is wrong.
        weight: (C,), the class weights, 1 where none are given.
        total: what the mean divides by, Σ_n weight[y_n] over the rows that are not ignored.
    """
    xp = get_array_module(logits)
    classes = logits.shape[1]
    if weight is None:
        weight = xp.ones(classes, dtype=logits.dtype)
    kept = _kept(target, ignore_index)[:, None]
    is_label = target[:, None] == xp.arange(classes)
    one_hot = is_label.astype(logits.dtype)
    q = xp.where(kept, (1 - label_smoothing) * one_hot + label_smoothing / classes, 0)
    if xp is not np:  # where `_check_target` has not refused a wrong label
        q = xp.where(kept & ~is_label.any(axis=1, keepdims=True), xp.nan, q)
    total = xp.where(kept & is_label, weight, 0).sum()
    return q, weight, total


def _kept(target: Array, ignore_index: int) -> Array:
    # int64, since a uint8 label can't be compared with -100 on every array module.
    return target.astype(np.int64, copy=False) != ignore_index


# --------------------------------------------------------------- checks, apart from the mathematics


def _check_floats(**arrays: Array | None) -> None:
    """All the arrays given have one dtype, float32 or float64."""
    first, dtype = "", None
    for name, array in arrays.items():
        if array is None:
            continue
        get_array_module(array)
        if array.dtype not in FLOATS:
            raise TypeError(
                f"{name} has dtype {array.dtype}; expected float32 or float64: "
                f"use {name}.astype('float32')"
            )
        if dtype is None:
            first, dtype = name, array.dtype
        elif array.dtype != dtype:
            raise TypeError(
                f"{name} has dtype {array.dtype}, but {first} has {dtype}; "
                f"expected one dtype for all: use {first}.astype({name}.dtype), or the reverse"
            )


def _check_shape(name: str, array: Array, expected: tuple[int, ...], meaning: str) -> None:
    if array.shape != expected:
        raise ValueError(f"{name} has shape {array.shape}; expected {expected}, {meaning}")


def _check_linear(x: Array, weight: Array, bias: Array | None = None) -> None:
    if x.ndim != 2:
        raise ValueError(
            f"x has shape {x.shape}; expected (N, D), a sample a row: use x[None] for one sample"
        )
    if weight.ndim != 2 or weight.shape[1] != x.shape[1]:
        raise ValueError(
            f"weight has shape {weight.shape}; expected (H, {x.shape[1]}) for x {x.shape}: "
            "a row per output, a column per feature of x"
        )
    if bias is not None:
        _check_shape("bias", bias, (len(weight),), "one number per row of weight")


def _check_cross_entropy(
    logits: Array,
    target: Array,
    weight: Array | None,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
) -> None:
    _check_floats(logits=logits, weight=weight)
    if logits.ndim != 2 or logits.shape[1] == 0:
        raise ValueError(
            f"logits has shape {logits.shape}; expected (N, C), a sample a row, C >= 1"
        )
    if weight is not None:
        _check_shape("weight", weight, (logits.shape[1],), "one weight per class")
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction is {reduction!r}; expected 'mean', 'sum' or 'none'")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing is {label_smoothing}; expected a number in [0, 1]")
    _check_target(target, logits, ignore_index)


def _check_target(target: Array, logits: Array, ignore_index: int) -> None:
    """The labels' dtype and shape, and on the CPU their range: see `_wanted` for the GPU."""
    xp = get_array_module(target)
    samples, classes = logits.shape
    if target.dtype not in INTEGERS:
        raise TypeError(
            f"target has dtype {target.dtype}; expected class numbers in int64 or uint8: "
            "use target.astype('int64')"
        )
    _check_shape("target", target, (samples,), "one class number per row of logits")
    if xp is not np:
        return
    wrong = _kept(target, ignore_index) & ((target < 0) | (target >= classes))
    if wrong.any():
        where = int(wrong.argmax())
        raise IndexError(
            f"target[{where}] is {int(target[where])}; expected a class number in "
            f"0..{classes - 1}, or ignore_index {ignore_index}"
        )
