"""The library of wrong formulas: what people believe, and what then comes out.

Each entry is a name, the belief, how to mend it, and the wrong formula, below the right one of its
operation. `diagnose` recognizes a wrong answer by computing what each entry would have given; the
tests plant the same mistakes, by the same names, into copies of scratchnet.

A formula asks for what it needs by the names of its parameters:

- the arguments of its operation, named as in `scratchnet.functional`;
- of a softmax, z = x - its row's maximum, e = exp(z), p and log_p;
- of a cross-entropy, which may have options, p and log_p; q (N, C), the distribution wanted of each
  row, and one_hot, the same without smoothing; total, the N of the mean; scale, the upstream
  gradient divided by it, without options 1 / N; ones, 1 in the upstream gradient's place; a (N, C),
  what the loss takes of each -log p, which is q times weight times scale;
- of a finite difference, above and below, the weight with one entry nudged up and down;
- of Adam's step, new_m and new_v, the moments after it, of_m = 1 - beta1ᵗ and of_v = 1 - beta2ᵗ;
- in a network, x, target, W1, b1, W2, b2, the forward values z1, h, z2, and of the gradients dz2,
  dW2, db2, dh, dz1 those that come before; lr where it updates, which elsewhere needs a default.

Only NumPy is imported, so that the library can be read without the code that it is about.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

Formula: TypeAlias = Callable[..., Any]


@dataclass(frozen=True)
class Mistake:
    """An entry of the library.

    Attributes:
        name: where a planted bug of the tests makes this mistake, it has the same name.
        belief: what whoever makes it believes, one sentence.
        mend: what is wrong and how to mend it, one sentence.
        wrong: the wrong formula of each operation that it spoils, nearly always of one.
    """

    name: str
    belief: str
    mend: str
    wrong: dict[str, Formula]


BY_NAME: dict[str, Mistake] = {}
RIGHT: dict[str, str] = {}  # the right formula of each operation, as text


def of(operation: str) -> list[Mistake]:
    """The mistakes that spoil an operation, such as "linear_backward.grad_weight"."""
    return [entry for entry in BY_NAME.values() if operation in entry.wrong]


def text(formula: Formula) -> str:
    """A wrong formula as Python text, to be shown beside the right one."""
    if formula.__code__.co_filename != __file__:
        raise ValueError(f"{formula} is no formula of this library")
    node = _functions()[formula.__code__.co_firstlineno]
    return ast.unparse(node.body if isinstance(node, ast.Lambda) else node)


@functools.cache
def _functions() -> dict[int, ast.Lambda | ast.FunctionDef]:
    """The functions of this file by their first lines."""
    nodes = ast.walk(ast.parse(Path(__file__).read_text(encoding="utf-8")))
    return {n.lineno: n for n in nodes if isinstance(n, ast.Lambda | ast.FunctionDef)}


def _add(operation: str, right: str, entries: Iterable[tuple[str, str, str, Formula]]) -> None:
    RIGHT[operation] = right
    for name, belief, mend, wrong in entries:
        if name in BY_NAME:
            raise ValueError(f"there are two mistakes {name}; expected another name")
        BY_NAME[name] = Mistake(name, belief, mend, {operation: wrong})


def _also(name: str, operation: str, wrong: Formula) -> None:
    BY_NAME[name].wrong[operation] = wrong


# ---------------------------------------------------- parts of formulas, and those of several lines


def softmax(x: Any, axis: int | None = -1) -> Any:
    """The right softmax, over an axis that may be the wrong one; over all entries if None."""
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def shares(e: Any) -> Any:
    """Each row divided by its sum."""
    return e / e.sum(axis=-1, keepdims=True)


def sigmoid(x: Any) -> Any:
    """σ(x) to its last digit."""
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


def through_softmax(p: Any, grad_output: Any) -> Any:
    """The right gradient of p = softmax(x), of parts that may be wrong."""
    return p * (grad_output - (grad_output * p).sum(axis=-1, keepdims=True))


def taken(weight: Any, q: Any, scale: Any) -> Any:
    """What a cross-entropy takes of each -log p, of parts that may be wrong."""
    return np.where(q == 0, 0, weight * q * np.reshape(scale, (-1, 1)))


def of_cross_entropy(p: Any, a: Any) -> Any:
    """The right gradient of a cross-entropy, of parts that may be wrong."""
    return p * a.sum(axis=-1, keepdims=True) - a


def adam_step(p: Any, m: Any, v: Any, lr: Any, eps: Any, of_m: Any = 1, of_v: Any = 1) -> Any:
    """The right step of Adam, of parts that may be wrong."""
    return p - lr / of_m * (m / (np.sqrt(v) / np.sqrt(of_v) + eps))


def _product(dtype: str, a: Any, b: Any) -> Any:
    return (a.astype(dtype) @ b.astype(dtype)).astype("float64")


def first_only(grad: Any) -> Any:
    """The first row or number, and 0 after it: what a return inside a loop leaves."""
    first = np.zeros_like(grad)
    first[:1] = grad[:1]
    return first


def _last_row_lost(grad_output: Any, weight: Any) -> Any:
    grad_x = grad_output @ weight
    grad_x[-1:] = 0
    return grad_x


def _relu_forward_in_place(x: Any) -> Any:
    x[x < 0] = 0
    return x


def _relu_backward_in_place(grad_output: Any, x: Any) -> Any:
    grad_output[x <= 0] = 0
    return grad_output


def _whole_columns(p: Any, a: Any, scale: Any, target: Any) -> Any:
    grad = p * a.sum(axis=-1, keepdims=True)
    grad[:, target] -= scale
    return grad


def _t_starts_at_0(
    p: Any, new_m: Any, new_v: Any, t: Any, lr: Any, beta1: Any, beta2: Any, eps: Any
) -> Any:
    of_m, of_v = (np.float64(1 - beta ** (t - 1)) for beta in (beta1, beta2))
    return adam_step(p, new_m, new_v, lr, eps, of_m, of_v)


def _put_in_the_place(loss: Any, weight: Any, index: Any, h: Any) -> Any:
    up, down = weight.copy(), weight.copy()
    up[index], down[index] = h, -h
    return (loss(up) - loss(down)) / (2 * h)


def _nudged_by(own: float, loss: Any, weight: Any, index: Any) -> Any:
    up, down = weight.copy(), weight.copy()
    up[index] += own
    down[index] -= own
    return (loss(up) - loss(down)) / (2 * own)


def _not_put_back(loss: Any, weight: Any, index: Any, h: Any) -> Any:
    weight[index] += h
    at_above = loss(weight)
    weight[index] -= h
    return (at_above - loss(weight)) / (2 * h)


# fmt: off

# ------------------------------------------------------------------------------------------- linear

_add("linear_forward.y", "x @ weight.T + bias", (
    ("linear_forward_without_bias",
     "The bias can be left out.",
     "The bias is missing: add it to every row.",
     lambda x, weight: x @ weight.T),
    ("linear_forward_bias_twice",
     "The bias is added here, whether or not someone has added it already.",
     "The bias is there twice: add it once.",
     lambda x, weight, bias: x @ weight.T + 2 * bias),
    ("linear_forward_bias_down_the_columns",
     "Each sample gets a bias of its own.",
     "The bias runs down the columns: it has a number per output, so leave it (H,), a row.",
     lambda x, weight, bias: x @ weight.T + bias[:, None]),
    ("linear_forward_weight_not_transposed",
     "The weight is stored as (in, out), so y = x W.",
     "The weight is (H, D), a row per output: multiply by its transpose.",
     lambda x, weight, bias: x @ weight + bias),
    ("linear_forward_half_precision",
     "float16 is exact enough to multiply in.",
     "It is multiplied in float16, which has three digits: keep the dtype of the arguments.",
     lambda x, weight, bias: _product("float16", x, weight.T) + bias),
    ("linear_forward_single_precision",
     "float32 is exact enough, whatever dtype the user wants.",
     "It is multiplied in float32: keep the dtype of the arguments.",
     lambda x, weight, bias: _product("float32", x, weight.T) + bias),
))

_add("linear_backward.grad_x", "grad_output @ weight", (
    ("linear_backward_grad_x_weight_transposed",
     "The forward has the weight transposed, so the backward has, too.",
     "The weight is transposed: going back, each output h hands weight[h] to the inputs, so "
     "multiply by the weight itself.",
     lambda grad_output, weight: grad_output @ weight.T),
    ("linear_backward_grad_x_elementwise",
     "∂y/∂x = W, so the gradient is multiplied by W, entry by entry.",
     "It is multiplied entry by entry: x[n, d] reaches every output h, so sum over h, which is a "
     "matrix product.",
     lambda grad_output, weight: grad_output * weight),
    ("linear_backward_grad_x_passed_through",
     "What comes from above goes on below as it is.",
     "The upstream gradient is passed on unchanged: multiply it by the weight.",
     lambda grad_output: +grad_output),
    ("linear_backward_grad_x_last_row_lost",
     "range(n - 1) reaches every sample.",
     "The last sample's row is 0: run over all N samples.",
     _last_row_lost),
    ("linear_backward_grad_x_without_upstream",
     "∂y/∂x = W, and that is the answer.",
     "The upstream gradient is missing: multiply it by the weight.",
     lambda grad_output, weight: np.ones_like(grad_output) @ weight),
    ("linear_backward_grad_x_averaged",
     "Every gradient is a mean over the batch.",
     "It is divided by N: each sample has its own grad_x, and nothing is averaged.",
     lambda grad_output, weight: grad_output @ weight / len(grad_output)),
    ("linear_backward_grad_x_descends",
     "Gradient descent has a minus, so the gradient has one.",
     "The sign is wrong: the minus belongs to the update, not to the gradient.",
     lambda grad_output, weight: -grad_output @ weight),
    ("linear_backward_results_swapped",
     "The weight's gradient is returned first.",
     "The results are swapped: return grad_x, grad_weight, grad_bias, in this order.",
     lambda grad_output, x: grad_output.T @ x),
    ("linear_backward_grad_x_is_grad_weight",
     "∂y/∂x has an x in it.",
     "It is the weight's gradient: x[n, d] counts weight[h, d] in output h, so multiply "
     "grad_output by the weight.",
     lambda grad_output, x: grad_output.T @ x),
    ("linear_backward_grad_x_first_sample_only",
     "What is returned within the loop is returned for every sample.",
     "Only the first sample's row is there, the others are 0: go over all N. (Is there a return "
     "within the loop?)",
     lambda grad_output, weight: first_only(grad_output @ weight)),
    ("linear_backward_grad_x_first_output_only",
     "What is returned within the loop has been added up.",
     "Only the first output's term is there: add up over all H outputs. (Is there a return within "
     "the loop?)",
     lambda grad_output, weight: np.outer(grad_output[:, 0], weight[0])),
    ("linear_backward_grad_x_last_output_only",
     "Each output's term replaces the one before.",
     "Only the last output's term is there: add up over all H outputs. (Is there a = for +=, or a "
     "start at 0 within the loop?)",
     lambda grad_output, weight: np.outer(grad_output[:, -1], weight[-1])),
))

_add("linear_backward.grad_weight", "grad_output.T @ x", (
    ("linear_backward_grad_weight_transposed",
     "xᵀ g and gᵀ x are the same.",
     "It is transposed: a gradient has its array's shape, so it is grad_outputᵀ x, (H, D).",
     lambda grad_output, x: x.T @ grad_output),
    ("linear_backward_grad_weight_not_transposed",
     "The transpose is there to please the shapes, and here the shapes fit.",
     "grad_output is not transposed: the sum goes over the samples, so N must be the inner "
     "dimension of the product.",
     lambda grad_output, x: grad_output @ x),
    ("linear_backward_grad_weight_of_weight",
     "y = x W is symmetric, so W's gradient is made with W.",
     "It is made with the weight: the factor of weight[h, d] is x[n, d], so use x.",
     lambda grad_output, weight: grad_output.T @ weight),
    ("linear_backward_grad_weight_averaged",
     "The layer takes the mean over the batch, though the loss has taken it already.",
     "There is a 1/N too many: the loss's mean has put it into grad_output, so leave it out.",
     lambda grad_output, x: grad_output.T @ x / len(x)),
    ("linear_backward_grad_weight_last_sample_lost",
     "x[:-1] is all of x.",
     "The last sample is left out: sum over all N.",
     lambda grad_output, x: grad_output[:-1].T @ x[:-1]),
    ("linear_backward_grad_weight_descends",
     "Gradient descent has a minus, so the gradient has one.",
     "The sign is wrong: the minus belongs to the update, not to the gradient.",
     lambda grad_output, x: -grad_output.T @ x),
    ("linear_backward_grad_weight_half_precision",
     "Gradients are noisy anyway: float16 will do.",
     "It is computed in float16, which has three digits: keep the dtype of the arguments.",
     lambda grad_output, x:
        (grad_output.T.astype("float16") @ x.astype("float16")).astype("float64")),
    ("linear_backward_grad_weight_without_upstream",
     "∂y/∂W = x, and that is the answer.",
     "The upstream gradient is missing: multiply x by it before summing over the samples.",
     lambda grad_output, x: np.ones_like(grad_output).T @ x),
    ("linear_backward_grad_weight_elementwise",
     "The gradient is multiplied by x, entry by entry.",
     "It is multiplied entry by entry: weight[h, d] serves every sample, so sum over n, which is a "
     "matrix product.",
     lambda grad_output, x: grad_output * x),
    ("linear_backward_grad_weight_of_means",
     "The mean of products is the product of means.",
     "The means are taken before the product: multiply sample by sample, and then sum.",
     lambda grad_output, x: np.outer(grad_output.mean(axis=0), x.mean(axis=0))),
    ("linear_backward_grad_weight_of_sums",
     "The sum of products is the product of sums.",
     "The sums are taken before the product: multiply sample by sample, and then sum.",
     lambda grad_output, x: np.outer(grad_output.sum(axis=0), x.sum(axis=0))),
    ("linear_backward_grad_weight_last_sample_only",
     "Each sample's gradient replaces the one before.",
     "Only the last sample is there: add the samples' terms up. (Is there a = for +=, or a start "
     "at 0 within the loop?)",
     lambda grad_output, x: np.outer(grad_output[-1], x[-1])),
    ("linear_backward_grad_weight_first_sample_only",
     "One sample is as good as another, so the first will do.",
     "Only the first sample is there: sum over all N. (Is there a return within the loop?)",
     lambda grad_output, x: np.outer(grad_output[0], x[0])),
    ("linear_backward_grad_weight_first_output_only",
     "What is returned within the loop is returned for every output.",
     "Only the first output's row is there, the others are 0: go over all H. (Is there a return "
     "within the loop?)",
     lambda grad_output, x: first_only(grad_output.T @ x)),
    ("linear_backward_grad_weight_is_grad_x",
     "The weight's gradient has the weight in it.",
     "It is the gradient to x: weight[h, d] counts x[n, d] in output h, so it is grad_outputᵀ x.",
     lambda grad_output, weight: grad_output @ weight),
))

_add("linear_backward.grad_bias", "grad_output.sum(axis=0)", (
    ("linear_backward_grad_bias_averaged",
     "The bias is shared by the batch, so its gradient is the mean.",
     "It is a mean: the loss's mean has put 1/N into grad_output already, so sum.",
     lambda grad_output: grad_output.mean(axis=0)),
    ("linear_backward_grad_bias_over_the_wrong_axis",
     "The sum goes along each row.",
     "The sum goes along the wrong axis: a bias is shared by the samples, so sum over them, axis "
     "0.",
     lambda grad_output: grad_output.sum(axis=1)),
    ("linear_backward_grad_bias_keepdims",
     "A row is as good as a vector.",
     "It is a matrix of one row: a gradient has its array's shape, (H,), so leave keepdims out.",
     lambda grad_output: grad_output.sum(axis=0, keepdims=True)),
    ("linear_backward_grad_bias_first_sample_only",
     "The bias is the same for every sample, so one sample tells its gradient.",
     "Only the first sample is there: sum over all N. (Is there a return within the loop?)",
     lambda grad_output: grad_output[0].copy()),
    ("linear_backward_grad_bias_last_sample_lost",
     "The last row is at -1 and is not included.",
     "The last sample is left out: sum over all N.",
     lambda grad_output: grad_output[:-1].sum(axis=0)),
    ("linear_backward_grad_bias_not_summed",
     "∂y/∂b = 1, so the upstream gradient is the answer.",
     "It is not summed: the forward broadcasts the bias to N rows, so the backward sums N rows.",
     lambda grad_output: grad_output.copy()),
    ("linear_backward_grad_bias_one_number",
     "sum() knows which axis is meant.",
     "Everything is summed to one number: sum over the samples only, axis=0.",
     lambda grad_output: grad_output.sum()),
    ("linear_backward_grad_bias_without_upstream",
     "∂y/∂b = 1, so N samples make N.",
     "The upstream gradient is missing: sum it over the samples.",
     lambda grad_output: np.ones_like(grad_output).sum(axis=0)),
    ("linear_backward_grad_bias_last_sample_only",
     "Each sample's gradient replaces the one before.",
     "Only the last sample is there: add the samples' terms up. (Is there a = for +=, or a start "
     "at 0 within the loop?)",
     lambda grad_output: grad_output[-1].copy()),
    ("linear_backward_grad_bias_first_output_only",
     "What is returned within the loop is returned for every output.",
     "Only the first output's entry is there, the others are 0: go over all H. (Is there a return "
     "within the loop?)",
     lambda grad_output: first_only(grad_output.sum(axis=0))),
    ("linear_backward_grad_bias_descends",
     "Gradient descent has a minus, so the gradient has one.",
     "The sign is wrong: the minus belongs to the update, not to the gradient.",
     lambda grad_output: -grad_output.sum(axis=0)),
))

# --------------------------------------------------------------------------------------------- relu

_add("relu_forward.y", "np.where(x < 0, 0, x)", (
    ("relu_forward_leaky",
     "A small slope below 0 does no harm.",
     "There is a slope of 0.01 below 0: ReLU is 0 there.",
     lambda x: np.where(x < 0, 0.01 * x, x)),
    ("relu_forward_absolute_value",
     "Rectifying turns the negative half around.",
     "This is |x|: ReLU is 0 below 0.",
     lambda x: np.where(x < 0, -x, x)),
    ("relu_forward_capped_at_6",
     "Activations stay below 6.",
     "It is cut off at 6: ReLU has no upper end.",
     lambda x: np.clip(x, 0, 6)),
    ("relu_forward_minimum",
     "ReLU is min(x, 0).",
     "The wrong half is kept: ReLU keeps what is above 0.",
     lambda x: np.minimum(x, 0)),
    ("relu_forward_dead_zone",
     "What is as small as 1e-6 is 0.",
     "Small positive x are taken for 0: compare with 0 itself.",
     lambda x: np.where(x < 1e-6, 0, x)),
    ("relu_forward_mask",
     "ReLU is 1 where x > 0.",
     "It is the mask, 1 where x > 0: that is the slope, and ReLU itself is x there.",
     lambda x: x > 0),
    ("relu_forward_largest_of_the_column",
     "np.max(x, 0) is max(x, 0) of each entry.",
     "It is the largest of each column: np.max(x, 0) looks along axis 0, and np.maximum(x, 0) "
     "compares each entry with 0.",
     lambda x: x.max(axis=0)),
    ("relu_forward_in_place",
     "Nobody needs the input again.",
     "It changes its input, which the backward needs: return a new array.",
     _relu_forward_in_place),
))

_add("relu_backward.grad_x", "np.where(x <= 0, 0, grad_output)", (
    ("relu_backward_passes_at_0",
     "At 0 the slope is 1.",
     "The gradient passes where x is exactly 0: it has to be 0 there, so compare with x > 0.",
     lambda grad_output, x: np.where(x < 0, 0, grad_output)),
    ("relu_backward_half_at_0",
     "At 0 the slope is in the middle, 1/2.",
     "Half of the gradient passes where x is exactly 0: PyTorch's convention, and ours, is 0.",
     lambda grad_output, x: np.where(x <= 0, (x == 0) * grad_output / 2, grad_output)),
    ("relu_backward_without_mask",
     "ReLU has no parameters, so its backward has nothing to do.",
     "Nothing is masked: the gradient has to be 0 where x <= 0.",
     lambda grad_output: grad_output.copy()),
    ("relu_backward_mask_of_the_upstream",
     "What is negative is cut off: the gradient.",
     "The mask is made of the gradient: make it of x, which the forward has cut off.",
     lambda grad_output: np.where(grad_output <= 0, 0, grad_output)),
    ("relu_backward_mask_inverted",
     "0 where x > 0.",
     "The mask is inverted: the gradient passes where x > 0, and is 0 elsewhere.",
     lambda grad_output, x: np.where(x > 0, 0, grad_output)),
    ("relu_backward_mask_inverted_but_at_0",
     "0 where x >= 0.",
     "The mask is inverted: the gradient passes where x > 0, and is 0 elsewhere, at 0, too.",
     lambda grad_output, x: np.where(x < 0, grad_output, 0)),
    ("relu_backward_by_mask",
     "g · (x > 0) is 0 wherever the unit is closed.",
     "inf · 0 is nan: choose with where instead of multiplying by the mask.",
     lambda grad_output, x: grad_output * (x > 0)),
    ("relu_backward_without_upstream",
     "The derivative of ReLU is 0 or 1, and that is the answer.",
     "The upstream gradient is missing: return it, masked, and not the mask.",
     lambda x: (x > 0).astype(x.dtype)),
    ("relu_backward_times_x",
     "The forward's formula serves the backward: max(x, 0) · g.",
     "It is multiplied by x: the slope is 1 where x > 0, whatever x is.",
     lambda grad_output, x: np.where(x <= 0, 0, grad_output * x)),
    ("relu_backward_times_x_without_mask",
     "Going back, the gradient is multiplied by what went into the forward.",
     "It is multiplied by x, and not masked: the slope is 1 where x > 0, and 0 elsewhere.",
     lambda grad_output, x: grad_output * x),
    ("relu_backward_leaky",
     "A closed unit learns a little.",
     "A hundredth of the gradient passes where x <= 0: ReLU lets nothing through there.",
     lambda grad_output, x: np.where(x <= 0, 0.01 * grad_output, grad_output)),
    ("relu_backward_dead_zone",
     "What is as small as 1e-6 is 0.",
     "Small positive x are taken for 0: compare with 0 itself.",
     lambda grad_output, x: np.where(x <= 1e-6, 0, grad_output)),
    ("relu_backward_nan_to_zero",
     "Where x is nan there is no gradient.",
     "The gradient is 0 where x is nan: it has to pass there, as in PyTorch, so that a nan is "
     "seen.",
     lambda grad_output, x: np.where(x > 0, grad_output, 0)),
    ("relu_backward_in_place",
     "The upstream gradient is used up.",
     "It changes grad_output, which others may need: return a new array.",
     _relu_backward_in_place),
    ("relu_backward_forward_again",
     "Backward is forward once more.",
     "This is relu(x), the forward: return grad_output where x > 0.",
     lambda x: np.where(x <= 0, 0, x)),
    ("relu_backward_both_masks",
     "What is negative is cut off, x and the gradient alike.",
     "The gradient is masked twice, by x and by itself: a negative gradient passes, too.",
     lambda grad_output, x: np.where((x <= 0) | (grad_output <= 0), 0, grad_output)),
    ("relu_backward_of_absolute_value",
     "ReLU is an absolute value.",
     "The sign is turned where x < 0: nothing passes there.",
     lambda grad_output, x: grad_output * np.sign(x)),
    ("relu_backward_mask_of_the_unit",
     "A unit is open for the whole batch or closed for it.",
     "The mask is one per unit: make it one per sample and unit, x > 0.",
     lambda grad_output, x: np.where((x > 0).any(axis=0), grad_output, 0)),
    ("relu_backward_first_sample_only",
     "What is returned within the loop is returned for every sample.",
     "Only the first sample's row is there, the others are 0: go over all N. (Is there a return "
     "within the loop?)",
     lambda grad_output, x: first_only(np.where(x <= 0, 0, grad_output))),
))

# ------------------------------------------------------------------------------------------ sigmoid

_add("sigmoid_backward.grad_x", "grad_output / ((1 + np.exp(x)) * (1 + np.exp(-x)))", (
    ("sigmoid_backward_of_its_output",
     "x is σ's output here, so the slope is x (1 - x).",
     "x is taken for the output: compute σ(x) first.",
     lambda grad_output, x: grad_output * (x * (1 - x))),
    ("sigmoid_backward_one_minus",
     "1 - σ(x) has as many digits as σ(-x).",
     "Where σ(x) is nearly 1, the digits cancel in 1 - σ(x): use σ(-x).",
     lambda grad_output, x: grad_output * sigmoid(x) * (1 - sigmoid(x))),
    ("sigmoid_backward_without_upstream",
     "The derivative of σ is the answer.",
     "The upstream gradient is missing: multiply by it.",
     lambda x: sigmoid(x) * sigmoid(-x)),
    ("sigmoid_backward_of_tanh",
     "The slope is 1 - y², as for tanh.",
     "1 - y² is tanh's slope: σ's is y (1 - y).",
     lambda grad_output, x: grad_output * (1 - sigmoid(x) ** 2)),
    ("sigmoid_backward_of_its_logarithm",
     "The slope is 1 - σ(x); the other factor cancels.",
     "The factor σ(x) is missing: the slope is σ(x) (1 - σ(x)).",
     lambda grad_output, x: grad_output * sigmoid(-x)),
))

# ------------------------------------------------------------------------------------------ softmax

_add("softmax_forward.p", "e / e.sum(axis=-1, keepdims=True)", (
    ("softmax_forward_without_maximum",
     "Subtracting the maximum cancels, so it can be left out.",
     "exp overflows: subtract each row's maximum first.",
     lambda x: np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True)),
    ("softmax_forward_one_maximum_for_all",
     "One maximum is enough for the whole batch.",
     "Rows far below the batch's maximum vanish, and 0/0 is nan: subtract each row's own.",
     lambda x: np.exp(x - x.max()) / np.exp(x - x.max()).sum(axis=-1, keepdims=True)),
    ("softmax_forward_over_the_batch",
     "The probabilities of a class add up to 1.",
     "The sum goes over the samples: a sample's probabilities add up to 1, axis=-1.",
     lambda e: e / e.sum(axis=0)),
    ("softmax_forward_down_the_columns",
     "The first axis is the one to normalize.",
     "The sum goes over the samples: a sample's probabilities add up to 1, axis=-1.",
     lambda x: softmax(x, axis=0)),
    ("softmax_forward_one_sum_for_all",
     "All probabilities of the batch add up to 1.",
     "One sum serves all: give each row its own, axis=-1 and keepdims=True.",
     lambda e: e / e.sum()),
    ("softmax_forward_one_maximum_and_sum_for_all",
     "One maximum and one sum are enough for the whole batch.",
     "One maximum and one sum serve all: give each row its own of both, axis=-1 and keepdims=True.",
     lambda x: softmax(x, axis=None)),
    ("softmax_forward_epsilon_below",
     "An epsilon in the denominator does no harm.",
     "There is a 1e-8 in the denominator: with the maximum subtracted the sum is at least 1, so "
     "leave it out.",
     lambda e: e / (e.sum(axis=-1, keepdims=True) + 1e-8)),
    ("softmax_forward_powers_of_2",
     "Any base will do.",
     "These are powers of 2: use exp.",
     lambda z: np.exp2(z) / np.exp2(z).sum(axis=-1, keepdims=True)),
    ("softmax_forward_sigmoid",
     "A probability is 1 / (1 + exp(-x)).",
     "This is the sigmoid of each logit: divide exp(x) by the sum over the classes.",
     lambda x: sigmoid(x)),
    ("softmax_forward_not_normalized",
     "Exponentials of shifted logits are probabilities.",
     "It is not divided by the row's sum: the probabilities have to add up to 1.",
     lambda e: e),
    ("softmax_forward_one_maximum_not_normalized",
     "Exponentials of logits below 0 are probabilities.",
     "It is not divided by the row's sum, and one maximum serves all: give each row its own of "
     "both.",
     lambda x: np.exp(x - x.max())),
    ("softmax_forward_shifted_above_only",
     "Only the numerator can overflow.",
     "The maximum is subtracted above and not below, so it does not cancel: divide by the sum of "
     "what stands above.",
     lambda x, e: e / np.exp(x).sum(axis=-1, keepdims=True)),
    ("softmax_forward_maximum_of_the_column",
     "x.max(axis=0) is the maximum of each row.",
     "Each class's maximum is subtracted, which does not cancel within a row: subtract the row's, "
     "axis=-1 and keepdims=True.",
     lambda x: shares(np.exp(x - x.max(axis=0)))),
    ("softmax_forward_divided_by_maximum",
     "Dividing by the maximum cancels, as subtracting it does.",
     "The logits are divided by the row's maximum, which does not cancel: subtract it.",
     lambda x: shares(np.exp(x / x.max(axis=-1, keepdims=True)))),
    ("softmax_forward_logarithm",
     "The loss takes log p, so the softmax returns it.",
     "It is the logarithm of the softmax: return p itself.",
     lambda log_p: log_p),
    ("softmax_forward_logarithm_of_p",
     "The loss takes log p, so the softmax takes the logarithm.",
     "There is a logarithm too many: return p itself.",
     lambda p: np.log(p)),
    ("softmax_forward_without_exp",
     "Dividing by the sum makes probabilities.",
     "exp is missing: logits may be negative, so take exp first.",
     lambda x: x / x.sum(axis=-1, keepdims=True)),
))

_add("softmax_backward.grad_x",
     "p * (grad_output - (grad_output * p).sum(axis=-1, keepdims=True))", (
    ("softmax_backward_diagonal",
     "Each output depends on its own input only: p (1 - p).",
     "Only the diagonal of the Jacobian is there: every output depends on every input of its row, "
     "through the sum below.",
     lambda grad_output, p: p * ((1 - p) * grad_output)),
    ("softmax_backward_sum_without_p",
     "The sum of the upstream gradient is subtracted, without weights.",
     "The sum lacks its weights: each grad_output[k] counts p[k].",
     lambda grad_output, p: p * (grad_output - grad_output.sum(axis=-1, keepdims=True))),
    ("softmax_backward_sum_over_the_batch",
     "The sum goes over the samples.",
     "The sum goes over the samples: it goes over a row's classes, axis=-1 and keepdims=True.",
     lambda grad_output, p: p * (grad_output - (grad_output * p).sum(axis=0))),
    ("softmax_backward_of_cross_entropy",
     "The gradient of the softmax is p - q.",
     "p - y is the gradient of softmax and cross-entropy together: here it is any upstream "
     "gradient times the Jacobian.",
     lambda grad_output, p: p - grad_output),
    ("softmax_backward_without_the_outer_p",
     "p stands in the sum, and once is enough.",
     "The factor p in front is missing: ∂p[k]/∂x[c] = p[k] (δ - p[c]) has two.",
     lambda grad_output, p: grad_output - (grad_output * p).sum(axis=-1, keepdims=True)),
    ("softmax_backward_only_p",
     "The derivative of exp is exp, so the slope is p.",
     "What comes through the denominator is missing: subtract p times the row's sum of grad_output "
     "· p.",
     lambda grad_output, p: p * grad_output),
    ("softmax_backward_plus",
     "∂p[k]/∂x[c] is p[k] (δ_kc + p[c]).",
     "The sign of the sum is wrong: a larger x[c] takes from the other outputs.",
     lambda grad_output, p: p * (grad_output + (grad_output * p).sum(axis=-1, keepdims=True))),
    ("softmax_backward_without_upstream",
     "The derivative of the softmax, p (1 - p), is the answer.",
     "The upstream gradient is missing, and the Jacobian's off-diagonal: see each p[k] as a "
     "function of each x[c].",
     lambda p: p * (1 - p)),
    ("softmax_backward_of_its_output",
     "x is the softmax's output here.",
     "x is taken for the output: compute p = softmax(x) first.",
     lambda grad_output, x: through_softmax(x, grad_output)),
    ("softmax_backward_down_the_columns",
     "The first axis is the one to normalize.",
     "p is a softmax over the samples: a sample's probabilities add up to 1, axis=-1.",
     lambda grad_output, x: through_softmax(softmax(x, axis=0), grad_output)),
))

# -------------------------------------------------------------------------------------- log_softmax

_add("log_softmax_forward.log_p", "z - np.log(e.sum(axis=-1, keepdims=True))", (
    ("log_softmax_forward_logarithm_of_softmax",
     "The logarithm of the softmax is log(softmax(x)).",
     "Where p underflows to 0 its logarithm is -inf: take both in one piece, x - log Σ exp(x).",
     lambda p: np.log(p)),
    ("log_softmax_forward_epsilon_inside",
     "log(p + 1e-12) keeps the infinity away and is otherwise the same.",
     "There is a 1e-12 in the logarithm: take both in one piece, x - log Σ exp(x).",
     lambda p: np.log(p + 1e-12)),
    ("log_softmax_forward_clipped",
     "No probability is below 1e-15.",
     "p is clipped: take both in one piece, x - log Σ exp(x).",
     lambda p: np.log(p.clip(1e-15))),
    ("log_softmax_forward_without_maximum",
     "Logits are small, so exp won't overflow.",
     "exp overflows: subtract each row's maximum first.",
     lambda x: x - np.log(np.exp(x).sum(axis=-1, keepdims=True))),
    ("log_softmax_forward_maximum_added_once",
     "The maximum is subtracted inside the logarithm and can be forgotten outside.",
     "The maximum is subtracted in one place only: log Σ exp(x - m) needs x - m beside it.",
     lambda x, e: x - np.log(e.sum(axis=-1, keepdims=True))),
    ("log_softmax_forward_one_maximum_for_all",
     "One maximum is enough for the whole batch.",
     "Rows far below the batch's maximum vanish, and log 0 is -inf: subtract each row's own.",
     lambda x: x - x.max() - np.log(np.exp(x - x.max()).sum(axis=-1, keepdims=True))),
    ("log_softmax_forward_in_bits",
     "A logarithm is a logarithm.",
     "This is a logarithm to base 2: use log.",
     lambda z, e: z - np.log2(e.sum(axis=-1, keepdims=True))),
    ("log_softmax_forward_down_the_columns",
     "The first axis is the one to normalize.",
     "The sum goes over the samples: a sample's probabilities add up to 1, axis=-1.",
     lambda x: np.log(softmax(x, axis=0))),
))

_add("log_softmax_backward.grad_x", "grad_output - p * grad_output.sum(axis=-1, keepdims=True)", (
    ("log_softmax_backward_without_sum",
     "The gradient is g - p, since the upstream gradient adds up to 1.",
     "p lacks its factor: multiply it by the row's sum of grad_output.",
     lambda grad_output, p: grad_output - p),
    ("log_softmax_backward_diagonal",
     "Each output depends on its own input only: g (1 - p).",
     "Only the diagonal of the Jacobian is there: p[c] takes part in every output of its row, so "
     "multiply it by the sum of grad_output.",
     lambda grad_output, p: grad_output - p * grad_output),
    ("log_softmax_backward_sum_over_the_batch",
     "The sum goes over the samples.",
     "The sum goes over the samples: it goes over a row's classes, axis=-1 and keepdims=True.",
     lambda grad_output, p: grad_output - p * grad_output.sum(axis=0)),
    ("log_softmax_backward_with_log_p",
     "The backward uses the forward's output, log p.",
     "log p stands where p belongs: take its exponential.",
     lambda grad_output, log_p: grad_output - log_p * grad_output.sum(axis=-1, keepdims=True)),
    ("log_softmax_backward_stops_at_p",
     "The derivative of a logarithm is 1/p.",
     "It stops at p: 1/p is the logarithm's slope, and the softmax's Jacobian comes after it.",
     lambda grad_output, p: grad_output / p),
))

# ------------------------------------------------------------------------------------ cross-entropy

_add("cross_entropy_forward.loss", "-(a * log_p).sum()", (
    ("cross_entropy_forward_softmax_twice",
     "The loss gets probabilities, so the logits go through a softmax first.",
     "There is a softmax too many: the logits go into log_softmax as they are.",
     lambda a, p: -(a * np.log(softmax(p))).sum()),
    ("cross_entropy_forward_epsilon_inside",
     "log(p + 1e-12) keeps the infinity away and is otherwise the same.",
     "There is a 1e-12 in the logarithm: use log_softmax, in one piece.",
     lambda a, p: -(a * np.log(p + 1e-12)).sum()),
    ("cross_entropy_forward_clipped",
     "p is kept in [1e-7, 1 - 1e-7], which changes nothing that matters.",
     "p is clipped: use log_softmax, in one piece.",
     lambda a, p: -(a * np.log(p.clip(1e-7, 1 - 1e-7))).sum()),
    ("cross_entropy_forward_logarithm_of_softmax",
     "The loss is -log(softmax(x)), computed as it is written.",
     "Where p underflows to 0 its logarithm is -inf: use log_softmax, in one piece.",
     lambda a, p: -np.where(a == 0, 0, a * np.log(p)).sum()),
    ("cross_entropy_forward_sign",
     "The loss is the log-likelihood.",
     "The sign is wrong: the loss is -log p, which is never negative.",
     lambda a, log_p: (a * log_p).sum()),
    ("cross_entropy_forward_mean_over_classes",
     "The mean goes over all numbers there are.",
     "It is divided by C as well: the mean goes over the samples.",
     lambda a, log_p: -(a * log_p).mean(axis=-1).sum()),
    ("cross_entropy_forward_sum_by_default",
     "The reduction is a sum unless one says otherwise.",
     "It is a sum over the batch: the loss is the mean, so divide by N.",
     lambda weight, q, log_p: -(weight * q * log_p).sum()),
    ("cross_entropy_forward_without_logarithm",
     "The loss is 1 - p of the label, on average.",
     "1 - p stands for the logarithm: the loss is -log p.",
     lambda a, p: (a * (1 - p)).sum()),
    ("cross_entropy_forward_of_p",
     "The loss is -p of the label, on average.",
     "The logarithm is missing: the loss is -log p.",
     lambda a, p: -(a * p).sum()),
    ("cross_entropy_forward_whole_columns",
     "log_p[:, target] picks each row's own label.",
     "log_p[:, target] takes whole columns, N x N numbers: use log_p[range(N), target].",
     lambda log_p, target: -log_p[:, target].mean()),
    ("cross_entropy_forward_binary",
     "Every class is a question of yes or no.",
     "The other classes' log(1 - p) are counted: only the label's -log p is.",
     lambda q, p: -(q * np.log(p) + (1 - q) * np.log(1 - p)).sum() / len(q)),
    ("cross_entropy_forward_in_bits",
     "A logarithm is a logarithm.",
     "This is a logarithm to base 2: use log.",
     lambda a, log_p: -(a * log_p).sum() / np.log(2)),
    ("cross_entropy_forward_squared",
     "The loss is the squared distance to the one-hot vector.",
     "These are squared errors: the loss is -log p of the label.",
     lambda q, p: ((p - q) ** 2).sum() / len(q)),
))

_add("cross_entropy_backward.grad_logits", "p * a.sum(axis=-1, keepdims=True) - a", (
    ("cross_entropy_backward_not_averaged",
     "The mean is the forward's business.",
     "The 1/N is missing: the loss is a mean over the batch, so divide by N.",
     lambda p, q, weight, grad_output: of_cross_entropy(p, taken(weight, q, grad_output))),
    ("cross_entropy_backward_averaged_over_classes",
     "The gradient has N · C numbers, so it is divided by N · C.",
     "It is divided by C as well: the loss is a mean over the samples, so divide by N.",
     lambda p, a, reduction: of_cross_entropy(p, a / a.shape[1] if reduction == "mean" else a)),
    ("cross_entropy_backward_averaged_over_classes_only",
     "The mean goes over the classes.",
     "It is divided by C in the place of N: the loss is a mean over the samples, so divide by N.",
     lambda p, q, weight, grad_output, reduction:
        of_cross_entropy(
            p, taken(weight, q, grad_output / (p.shape[1] if reduction == "mean" else 1)))),
    ("cross_entropy_backward_averaged_twice",
     "The loss divides by N, and so does its gradient, each for itself.",
     "It is divided by N twice: once is enough.",
     lambda p, a, total, reduction: of_cross_entropy(p, a / total if reduction == "mean" else a)),
    ("cross_entropy_backward_fixed_batch_size",
     "A batch has 64 samples.",
     "It is divided by 64: divide by the number of rows, which may be another.",
     lambda p, q, weight, grad_output, reduction:
        of_cross_entropy(p, taken(weight, q, grad_output / (64 if reduction == "mean" else 1)))),
    ("cross_entropy_backward_none_is_averaged",
     "Every gradient is divided by N but that of a sum.",
     "With reduction none it is divided by N: only the mean is.",
     lambda p, a, total, reduction: of_cross_entropy(p, a / total if reduction == "none" else a)),
    ("cross_entropy_backward_without_one_hot",
     "The gradient is p.",
     "It is p, shared among the samples: subtract 1 at each row's own class, before dividing by N.",
     lambda p, a: p * a.sum(axis=-1, keepdims=True)),
    ("cross_entropy_backward_sign",
     "The gradient is q - p.",
     "The sign is wrong: it is p - y; the minus of the descent belongs to the update.",
     lambda p, a: -of_cross_entropy(p, a)),
    ("cross_entropy_backward_softmax_twice",
     "The logits are probabilities by now, and softmax makes sure of it.",
     "There is a softmax too many: p is the softmax of the logits, once.",
     lambda p, a: of_cross_entropy(softmax(p), a)),
    ("cross_entropy_backward_one_hot_in_whole_columns",
     "p[:, y] -= 1 subtracts 1 at each row's own label.",
     "p[:, y] are whole columns: subtract 1 at p[range(N), y].",
     _whole_columns),
    ("cross_entropy_backward_with_log_p",
     "The backward uses the forward's log p.",
     "log p stands where p belongs: take its exponential.",
     lambda log_p, a: of_cross_entropy(log_p, a)),
    ("cross_entropy_backward_p_not_averaged",
     "p - q, where only q is divided by N.",
     "p is not divided by N: divide the whole difference.",
     lambda p, a: p - a),
    ("cross_entropy_backward_q_not_averaged",
     "p - q/N or (p - q)/N: a matter of brackets, and p/N - q is the same.",
     "y is not divided by N: divide the whole difference.",
     lambda p, a, q: p * a.sum(axis=-1, keepdims=True) - q),
    ("cross_entropy_backward_ignored_rows_learn",
     "Every row's p has the factor 1/N, ignored or not.",
     "Ignored rows get a gradient: theirs is 0, p included.",
     lambda p, a, scale: p * np.reshape(scale, (-1, 1)) - a),
    ("cross_entropy_backward_class_weight_missing",
     "Class weights change the loss, not its gradient.",
     "The class weights are missing: each sample's gradient has its label's.",
     lambda p, q, scale: of_cross_entropy(p, taken(1, q, scale))),
    ("cross_entropy_backward_without_upstream",
     "The loss is the end of the chain, so its upstream gradient is 1.",
     "The upstream gradient is missing: multiply by grad_output.",
     lambda p, q, weight, ones, total, reduction:
        of_cross_entropy(p, taken(weight, q, ones / total if reduction == "mean" else ones))),
    ("cross_entropy_backward_without_smoothing",
     "Smoothing changes the loss, not its gradient.",
     "The smoothing is missing: y is smoothed here, too.",
     lambda p, one_hot, weight, scale: of_cross_entropy(p, taken(weight, one_hot, scale))),
    ("cross_entropy_backward_slope_of_sigmoid",
     "The error is multiplied by p (1 - p), as with squared errors.",
     "There is a factor p (1 - p) too many: it has cancelled against the logarithm's 1/p.",
     lambda p, a: of_cross_entropy(p, a) * p * (1 - p)),
    ("cross_entropy_backward_stops_at_p",
     "The derivative of -log p is -1/p, and that is the gradient.",
     "It stops at p: go on through the softmax to the logits.",
     lambda p, a: -a / p),
    ("cross_entropy_backward_zero_over_zero",
     "Rows without a target come out as 0 by themselves.",
     "0 · inf is nan where no sample is left: choose 0 with where.",
     lambda p, q, weight, scale: of_cross_entropy(p, weight * q * np.reshape(scale, (-1, 1)))),
    ("cross_entropy_backward_label_only",
     "Only the label's logit matters to the loss.",
     "Only the label's entry is there: the other logits are in the softmax's sum, so theirs is p / "
     "N.",
     lambda p, a: np.where(a == 0, 0, of_cross_entropy(p, a))),
    ("cross_entropy_backward_of_class_numbers",
     "The gradient is p minus the target.",
     "The class number itself is subtracted: subtract a one-hot row, 1 at the label.",
     lambda p, target, scale: (p - target[:, None]) * np.reshape(scale, (-1, 1))),
    ("cross_entropy_backward_labels_from_1",
     "Class numbers start at 1.",
     "The 1 is subtracted one column to the left: classes are numbered from 0.",
     lambda p, a: of_cross_entropy(p, np.roll(a, -1, axis=1))),
    ("cross_entropy_backward_without_softmax",
     "The gradient is the prediction minus the target, and the logits are the prediction.",
     "The softmax is missing: p is softmax(logits).",
     lambda logits, a: of_cross_entropy(logits, a)),
    ("cross_entropy_backward_of_sigmoid",
     "A probability is 1 / (1 + exp(-x)).",
     "p is the sigmoid of each logit: use the softmax over the classes.",
     lambda logits, a: of_cross_entropy(sigmoid(logits), a)),
    ("cross_entropy_backward_down_the_columns",
     "The first axis is the one to normalize.",
     "p is a softmax over the samples: a sample's probabilities add up to 1, axis=-1.",
     lambda logits, a: of_cross_entropy(softmax(logits, axis=0), a)),
    ("cross_entropy_backward_of_squares",
     "The loss is the squared distance, so its gradient is 2 (p - q).",
     "There is a factor 2 too many: it belongs to squared errors.",
     lambda p, a: 2 * of_cross_entropy(p, a)),
    ("cross_entropy_backward_without_maximum",
     "Subtracting the maximum cancels, so it can be left out.",
     "exp overflows: subtract each row's maximum first.",
     lambda logits, a:
        of_cross_entropy(np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True), a)),
    ("cross_entropy_backward_first_sample_only",
     "What is returned within the loop is returned for every sample.",
     "Only the first sample's row is there, the others are 0: go over all N. (Is there a return "
     "within the loop?)",
     lambda p, a: first_only(of_cross_entropy(p, a))),
))

# ---------------------------------------------------------------------------------- a whole network

_add("network.z1", "x @ W1.T + b1", (
    ("network_z1_after_relu",
     "z1 is not needed any more when h is there, so h may take its place.",
     "The ReLU has changed z1 in place, or h is returned for it: keep both.",
     lambda x, W1, b1: np.maximum(x @ W1.T + b1, 0)),
))

_add("network.dW2", "dz2.T @ h", (
    ("network_dW2_of_z1",
     "The second layer's input is what the first one gave, z1.",
     "z1 stands where h belongs: the second layer's input comes after the ReLU.",
     lambda dz2, z1: dz2.T @ z1),
))

_add("network.dh", "dz2 @ W2", (
    ("network_dh_through_W1",
     "A layer's gradient goes on through the next layer's weight, W1.",
     "W1 stands where W2 belongs: dh goes back through the layer that h went into.",
     lambda dz2, W1: dz2 @ W1),
    ("network_dh_masked",
     "dh already has the ReLU's mask.",
     "The ReLU's mask is in it: dh is the gradient before the mask, dz1 after it.",
     lambda dz2, W2, z1: np.where(z1 <= 0, 0, dz2 @ W2)),
    ("network_weight_updated_too_early",
     "The second layer is updated as soon as its gradient is there, and then one goes on.",
     "The weight has been updated already: all gradients are taken at the weights of the forward, "
     "and the updates come last.",
     lambda dz2, W2, dW2, lr=0.1: dz2 @ (W2 - lr * dW2)),
    ("network_weight_updated_too_early_by_all_of_its_gradient",
     "The gradient is the step, and the weight is updated as soon as it is there.",
     "The weight has been updated already: all gradients are taken at the weights of the forward, "
     "and the updates come last.",
     lambda dz2, W2, dW2: dz2 @ (W2 - dW2)),
    ("network_weight_updated_too_early_by_a_hundredth",
     "The learning rate is 0.01, and the weight is updated as soon as its gradient is there.",
     "The weight has been updated already: all gradients are taken at the weights of the forward, "
     "and the updates come last.",
     lambda dz2, W2, dW2: dz2 @ (W2 - 0.01 * dW2)),
    ("network_weight_updated_too_early_by_a_thousandth",
     "The learning rate is 0.001, and the weight is updated as soon as its gradient is there.",
     "The weight has been updated already: all gradients are taken at the weights of the forward, "
     "and the updates come last.",
     lambda dz2, W2, dW2: dz2 @ (W2 - 0.001 * dW2)),
))

_add("network.dW1", "dz1.T @ x", (
    ("network_dW1_of_dh",
     "ReLU has no parameters, so its backward may be passed by.",
     "dh stands where dz1 belongs: the first layer's output is z1, before the ReLU.",
     lambda dh, x: dh.T @ x),
))

_add("network.db1", "dz1.sum(axis=0)", (
    ("network_db1_of_dh",
     "ReLU has no parameters, so its backward may be passed by.",
     "dh stands where dz1 belongs: the first layer's output is z1, before the ReLU.",
     lambda dh: dh.sum(axis=0)),
))

# --------------------------------------------------------------------------------- gradient descent

_add("sgd.p", "p - lr * g", (
    ("sgd_climbs",
     "The gradient points to where the loss falls.",
     "It climbs: subtract lr times the gradient.",
     lambda p, g, lr: p + lr * g),
    ("sgd_without_lr",
     "The gradient is the step.",
     "The learning rate is missing: subtract lr times the gradient.",
     lambda p, g: p - g),
    ("sgd_moves_a_copy",
     "p = p - ... changes the parameter.",
     "The parameter is as it was: return the new one.",
     lambda p: p.copy()),
))

# --------------------------------------------------------------------------------------------- Adam

_add("adam.m", "beta1 * m + (1 - beta1) * g", (
    ("adam_betas_swapped",
     "β₁ belongs to the squares.",
     "The betas are exchanged: β₁ = 0.9 belongs to m, β₂ = 0.999 to v.",
     lambda m, g, beta2: beta2 * m + (1 - beta2) * g),
    ("adam_m_is_a_sum",
     "m is momentum: β₁ m + g.",
     "m is a sum: it is a mean of the gradients, so g has the factor 1 - β₁.",
     lambda m, g, beta1: beta1 * m + g),
    ("adam_moments_made_anew",
     "m and v are local variables of an update.",
     "The old moments are forgotten: they have to outlive the update.",
     lambda g, beta1: (1 - beta1) * g),
    ("adam_m_mostly_new",
     "The weights of old and new are exchanged.",
     "The old m has the factor 1 - β₁: β₁ belongs to the old m, 1 - β₁ to g.",
     lambda m, g, beta1: (1 - beta1) * m + beta1 * g),
    ("adam_m_stored_corrected",
     "The corrected m takes the place of m.",
     "The corrected m is stored: keep m itself, and correct a copy for the step.",
     lambda m, g, t, beta1: (beta1 * m + (1 - beta1) * g) / (1 - beta1**t)),
    ("adam_m_and_v_exchanged",
     "The larger of both means belongs to the squares, and the names are a matter of taste.",
     "m and v are exchanged: m is the mean of g, v of g².",
     lambda v, g, beta2: beta2 * v + (1 - beta2) * g * g),
    ("adam_m_is_v",
     "Both means are of the squares.",
     "It is v: m is the mean of g.",
     lambda v, g, beta2: beta2 * v + (1 - beta2) * g * g),
    ("adam_m_with_beta2",
     "Both means have the same β.",
     "m is made with β₂: its own is β₁ = 0.9.",
     lambda m, g, beta2: beta2 * m + (1 - beta2) * g),
    ("adam_m_made_anew",
     "m is the part of g that counts.",
     "The old m is forgotten: it has the factor β₁.",
     lambda g, beta1: (1 - beta1) * g),
    ("adam_old_m_returned",
     "Whoever makes a new m has changed m.",
     "m is returned as it was: return the new one.",
     lambda m: m.copy()),
))

_add("adam.v", "beta2 * v + (1 - beta2) * g * g", (
    ("adam_v_of_absolute_values",
     "v is a mean of |g|.",
     "v is made of |g|: it is the mean of g².",
     lambda v, g, beta2: beta2 * v + (1 - beta2) * np.abs(g)),
    ("adam_v_of_g",
     "v is a mean of g, as m is.",
     "v is made of g: it is the mean of g².",
     lambda v, g, beta2: beta2 * v + (1 - beta2) * g),
    ("adam_v_of_twice_g",
     "g * 2 is g².",
     "v is made of 2 g: it is the mean of g², which is g**2.",
     lambda v, g, beta2: beta2 * v + (1 - beta2) * g * 2),
    ("adam_v_one_for_all",
     "A parameter has one step size.",
     "One v serves all entries: each number has its own.",
     lambda v, g, beta2: beta2 * v + (1 - beta2) * (g * g).mean()),
    ("adam_v_of_deviations",
     "v is the variance: the mean of (g - m)².",
     "m is subtracted first: v is the mean of g² itself.",
     lambda v, g, new_m, beta2: beta2 * v + (1 - beta2) * (g - new_m) * (g - new_m)),
    ("adam_v_of_m",
     "v is the mean of m².",
     "v is made of m: it is the mean of g².",
     lambda v, new_m, beta2: beta2 * v + (1 - beta2) * new_m * new_m),
    ("adam_v_with_beta1",
     "Both means have the same β.",
     "v is made with β₁: its own is β₂ = 0.999.",
     lambda v, g, beta1: beta1 * v + (1 - beta1) * g * g),
    ("adam_v_stored_corrected",
     "The corrected v takes the place of v.",
     "The corrected v is stored: keep v itself, and correct a copy for the step.",
     lambda v, g, t, beta2: (beta2 * v + (1 - beta2) * g * g) / (1 - beta2**t)),
    ("adam_v_is_a_sum",
     "v is β₂ v + g².",
     "v is a sum: it is a mean of the squares, so g² has the factor 1 - β₂.",
     lambda v, g, beta2: beta2 * v + g * g),
    ("adam_v_is_m",
     "Both means are of the gradient.",
     "It is m: v is the mean of g².",
     lambda m, g, beta1: beta1 * m + (1 - beta1) * g),
    ("adam_v_made_anew",
     "v is the part of g² that counts.",
     "The old v is forgotten: it has the factor β₂.",
     lambda g, beta2: (1 - beta2) * g * g),
    ("adam_old_v_returned",
     "Whoever makes a new v has changed v.",
     "v is returned as it was: return the new one.",
     lambda v: v.copy()),
))

_add("adam.p", "p - lr / of_m * (new_m / (np.sqrt(new_v) / np.sqrt(of_v) + eps))", (
    ("adam_m_not_corrected",
     "m needs no correction.",
     "m is not corrected: divide it by 1 - β₁ᵗ.",
     lambda p, new_m, new_v, lr, eps, of_v: adam_step(p, new_m, new_v, lr, eps, 1, of_v)),
    ("adam_v_not_corrected",
     "v needs no correction.",
     "v is not corrected: divide it by 1 - β₂ᵗ.",
     lambda p, new_m, new_v, lr, eps, of_m: adam_step(p, new_m, new_v, lr, eps, of_m, 1)),
    ("adam_not_corrected",
     "A few steps on, the moments are right by themselves.",
     "Neither moment is corrected: divide m by 1 - β₁ᵗ and v by 1 - β₂ᵗ.",
     lambda p, new_m, new_v, lr, eps: adam_step(p, new_m, new_v, lr, eps)),
    ("adam_m_corrected_without_power",
     "m is divided by 1 - β₁ at each step.",
     "The correction of m lacks its power: it is 1 - β₁ᵗ.",
     lambda p, new_m, new_v, lr, beta1, eps, of_v:
        adam_step(p, new_m, new_v, lr, eps, 1 - beta1, of_v)),
    ("adam_v_corrected_without_power",
     "v is divided by 1 - β₂ at each step.",
     "The correction of v lacks its power: it is 1 - β₂ᵗ.",
     lambda p, new_m, new_v, lr, beta2, eps, of_m:
        adam_step(p, new_m, new_v, lr, eps, of_m, 1 - beta2)),
    ("adam_corrected_without_powers",
     "Both are divided by 1 - β at each step.",
     "The corrections lack their powers: they are 1 - β₁ᵗ and 1 - β₂ᵗ.",
     lambda p, new_m, new_v, lr, beta1, beta2, eps:
        adam_step(p, new_m, new_v, lr, eps, 1 - beta1, 1 - beta2)),
    ("adam_m_corrected_by_product",
     "β₁ * t is β₁ᵗ.",
     "The correction of m has β₁ · t in it: it is 1 - β₁ᵗ, a power.",
     lambda p, new_m, new_v, t, lr, beta1, eps, of_v:
        adam_step(p, new_m, new_v, lr, eps, 1 - beta1 * t, of_v)),
    ("adam_corrected_by_products",
     "β * t is βᵗ.",
     "It is nan from the second step on, as 1 - β₂ · t makes it, which is negative then: the "
     "corrections are 1 - β₁ᵗ and 1 - β₂ᵗ, with powers.",
     lambda p, new_m, new_v, t, lr, beta1, beta2, eps:
        adam_step(p, new_m, new_v, lr, eps, 1 - beta1 * t, 1 - beta2 * t)),
    ("adam_m_multiplied_by_its_correction",
     "m is corrected by a factor, 1 - β₁ᵗ.",
     "m is multiplied by 1 - β₁ᵗ: it is too small at first, so divide by that.",
     lambda p, new_m, new_v, lr, eps, of_m, of_v:
        adam_step(p, new_m, new_v, lr, eps, 1 / of_m, of_v)),
    ("adam_v_multiplied_by_its_correction",
     "v is corrected by a factor, 1 - β₂ᵗ.",
     "v is multiplied by 1 - β₂ᵗ: it is too small at first, so divide by that.",
     lambda p, new_m, new_v, lr, eps, of_m, of_v:
        adam_step(p, new_m, new_v, lr, eps, of_m, 1 / of_v)),
    ("adam_multiplied_by_the_corrections",
     "Both are corrected by a factor, 1 - βᵗ.",
     "m and v are multiplied by 1 - βᵗ: they are too small at first, so divide by that.",
     lambda p, new_m, new_v, lr, eps, of_m, of_v:
        adam_step(p, new_m, new_v, lr, eps, 1 / of_m, 1 / of_v)),
    ("adam_m_corrected_with_beta2",
     "Both means have the same β.",
     "m is corrected with β₂: divide it by 1 - β₁ᵗ.",
     lambda p, new_m, new_v, lr, eps, of_v: adam_step(p, new_m, new_v, lr, eps, of_v, of_v)),
    ("adam_v_corrected_with_beta1",
     "Both means have the same β.",
     "v is corrected with β₁: divide it by 1 - β₂ᵗ.",
     lambda p, new_m, new_v, lr, eps, of_m: adam_step(p, new_m, new_v, lr, eps, of_m, of_m)),
    ("adam_v_corrected_without_root",
     "√v is divided by 1 - β₂ᵗ, as m is by 1 - β₁ᵗ.",
     "√v is divided by 1 - β₂ᵗ, and not by its root: correct v before the root, and once.",
     lambda p, new_m, new_v, lr, eps, of_m, of_v:
        adam_step(p, new_m, new_v, lr, eps, of_m, of_v**2)),
    ("adam_eps_inside_the_root",
     "√(v + eps) is √v + eps.",
     "eps is inside the root: add it to the root.",
     lambda p, new_m, new_v, lr, eps, of_m, of_v:
        adam_step(p, new_m, new_v / of_v + eps, lr, 0, of_m)),
    ("adam_eps_squared_inside_the_root",
     "√(v + eps²) is √v + eps.",
     "eps² is inside the root: add eps to the root.",
     lambda p, new_m, new_v, lr, eps, of_m, of_v:
        adam_step(p, new_m, new_v / of_v + eps**2, lr, 0, of_m)),
    ("adam_eps_folded_into_the_correction",
     "The correction of √v may come after eps is added, as in the paper's faster form.",
     "eps is added before the correction: correct √v first.",
     lambda p, new_m, new_v, lr, eps, of_m, of_v:
        p - lr / of_m * new_m / ((np.sqrt(new_v) + eps) / np.sqrt(of_v))),
    ("adam_eps_is_1e_7_by_default",
     "eps is 1e-7, as in Keras.",
     "eps is 1e-7: here it is 1e-8.",
     lambda p, new_m, new_v, lr, of_m, of_v: adam_step(p, new_m, new_v, lr, 1e-7, of_m, of_v)),
    ("adam_without_eps",
     "√v is never 0.",
     "eps is missing: add it to the root.",
     lambda p, new_m, new_v, lr, of_m, of_v: adam_step(p, new_m, new_v, lr, 0, of_m, of_v)),
    ("adam_eps_added_to_the_quotient",
     "m / √v + eps is m / (√v + eps).",
     "eps is added to the quotient: put √v + eps in brackets.",
     lambda p, new_m, new_v, lr, eps, of_m, of_v:
        adam_step(p, new_m, new_v, lr, 0, of_m, of_v) - lr * eps),
    ("adam_eps_added_to_p",
     "lr m / √v + eps is lr m / (√v + eps).",
     "eps is added to p: put √v + eps in brackets.",
     lambda p, new_m, new_v, lr, eps, of_m, of_v:
        adam_step(p, new_m, new_v, lr, 0, of_m, of_v) + eps),
    ("adam_without_root",
     "m is divided by v.",
     "The root is missing: divide by √v.",
     lambda p, new_m, new_v, lr, eps, of_m, of_v:
        p - lr / of_m * new_m / (new_v / np.sqrt(of_v) + eps)),
    ("adam_corrected_v_without_root",
     "m is divided by the corrected v.",
     "The root is missing, though v is corrected: divide by √(v / (1 - β₂ᵗ)).",
     lambda p, new_m, new_v, lr, eps, of_m, of_v: p - lr / of_m * new_m / (new_v / of_v + eps)),
    ("adam_climbs",
     "The gradient points to where the loss falls.",
     "It climbs: subtract the step.",
     lambda p, new_m, new_v, lr, eps, of_m, of_v: adam_step(p, new_m, new_v, -lr, eps, of_m, of_v)),
    ("adam_moves_a_copy",
     "p = p - ... changes the parameter.",
     "The parameter is as it was: return the new one.",
     lambda p: p.copy()),
    ("adam_looks_ahead",
     "The step is taken along the next m, as with Nesterov.",
     "The step is along β₁ m + (1 - β₁) g once more: take it along m.",
     lambda p, g, new_m, new_v, lr, beta1, eps, of_m, of_v:
        adam_step(p, beta1 * new_m + (1 - beta1) * g, new_v, lr, eps, of_m, of_v)),
    ("adam_t_starts_at_2",
     "The step is counted before and after the update.",
     "t is one too many: the first step has t = 1.",
     lambda p, new_m, new_v, t, lr, beta1, beta2, eps:
        adam_step(p, new_m, new_v, lr, eps, 1 - beta1 ** (t + 1), 1 - beta2 ** (t + 1))),
    ("adam_t_starts_at_0",
     "Steps are counted from 0.",
     "t is one too few: the first step has t = 1, or the corrections divide by 0.",
     _t_starts_at_0),
    ("adam_along_g",
     "The step is along the gradient; m is for the next one.",
     "g stands where m belongs: the step is along the corrected m.",
     lambda p, g, new_v, lr, eps, of_v: adam_step(p, g, new_v, lr, eps, 1, of_v)),
    ("adam_without_lr",
     "The step has length 1 without a learning rate.",
     "The learning rate is missing: multiply the step by lr.",
     lambda p, new_m, new_v, eps, of_m, of_v: adam_step(p, new_m, new_v, 1, eps, of_m, of_v)),
    ("adam_step_of_old_moments",
     "The step uses the moments, and they are updated afterwards.",
     "The step uses the old moments: update m and v first.",
     lambda p, m, v, lr, eps, of_m, of_v: adam_step(p, m, v, lr, eps, of_m, of_v)),
    ("adam_change_only",
     "The optimizer returns what is added to p.",
     "Only the change is returned: add it to p.",
     lambda p, new_m, new_v, lr, eps, of_m, of_v:
        adam_step(0 * p, new_m, new_v, lr, eps, of_m, of_v)),
    ("adam_corrections_exchanged",
     "β₁ corrects v, and β₂ corrects m.",
     "The corrections are exchanged: 1 - β₁ᵗ belongs to m, 1 - β₂ᵗ to v.",
     lambda p, new_m, new_v, lr, eps, of_m, of_v: adam_step(p, new_m, new_v, lr, eps, of_v, of_m)),
    ("adam_step_along_v",
     "v goes first, and m is what it is divided by.",
     "m and v are exchanged in the step: it goes along m, divided by √v.",
     lambda p, new_m, new_v, lr, eps, of_m, of_v: adam_step(p, new_v, new_m, lr, eps, of_v, of_m)),
))

# ------------------------------------------------------------------------------- finite differences

_add("finite_difference.slope", "(loss(above) - loss(below)) / (2 * h)", (
    ("finite_difference_forward",
     "From one side is as good as from both.",
     "It is a forward difference, whose error is of the order of h: nudge both ways, and divide by "
     "2 h.",
     lambda loss, weight, above, h: (loss(above) - loss(weight)) / h),
    ("finite_difference_backward",
     "From one side is as good as from both.",
     "It is a backward difference, whose error is of the order of h: nudge both ways, and divide "
     "by 2 h.",
     lambda loss, weight, below, h: (loss(weight) - loss(below)) / h),
    ("finite_difference_divided_by_h",
     "The nudge is h, so one divides by h.",
     "From -h to +h it is 2 h: divide by that.",
     lambda loss, above, below, h: (loss(above) - loss(below)) / h),
    ("finite_difference_not_divided",
     "The difference of the losses is the slope.",
     "It is not divided: divide the difference by 2 h.",
     lambda loss, above, below: loss(above) - loss(below)),
    ("finite_difference_divided_by_2",
     "There are two nudges, so one divides by 2.",
     "It is divided by 2 only: the distance between the two nudges is 2 h.",
     lambda loss, above, below: (loss(above) - loss(below)) / 2),
    ("finite_difference_times_h",
     "/ 2 * h divides by 2 h.",
     "It is multiplied by h: / 2 * h divides by 2 and multiplies by h, so put 2 * h in brackets.",
     lambda loss, above, below, h: (loss(above) - loss(below)) / 2 * h),
    ("finite_difference_second_loss_divided",
     "a - b / (2 * h) divides the difference.",
     "Only the second loss is divided: put the difference in brackets.",
     lambda loss, above, below, h: loss(above) - loss(below) / (2 * h)),
    ("finite_difference_rounded_down",
     "// divides.",
     "It is rounded down to a whole number: // does that, so divide with /.",
     lambda loss, above, below, h: (loss(above) - loss(below)) // (2 * h)),
    ("finite_difference_at_the_same_weights",
     "up = weight is a copy of the weights.",
     "It is 0, as it is if both losses are of the same weights: nudge up in one copy and down in "
     "another. (down = up is the same array under another name; weight.copy() is a copy.)",
     lambda: 0.0),
    ("finite_difference_put_in_the_place",
     "weight[index] = h nudges the weight by h.",
     "The weight is h and -h instead of nudged by it: add h to it, and subtract h from it.",
     _put_in_the_place),
    ("finite_difference_own_h",
     "The best h is 1e-5, so it may as well be that.",
     "It is taken with an h of its own, such as 1e-5: nudge by the h that is given.",
     lambda loss, weight, index: _nudged_by(1e-5, loss, weight, index)),
    ("finite_difference_sign",
     "Minus h minus plus h.",
     "The sign is wrong: loss at +h minus loss at -h.",
     lambda loss, above, below, h: (loss(below) - loss(above)) / (2 * h)),
    ("finite_difference_of_all_weights",
     "Adding h to the weight nudges it.",
     "All weights are nudged: nudge one, weight[index].",
     lambda loss, weight, h: (loss(weight + h) - loss(weight - h)) / (2 * h)),
    ("finite_difference_not_put_back",
     "-= h nudges down, wherever the weight stands.",
     "The second loss is that of the weight as it was, but it is divided by 2 h: nudge down by h "
     "from the old value. (After += h, -= h only brings that back.)",
     _not_put_back),
))

_also("linear_backward_results_swapped", "linear_backward.grad_weight",
      lambda grad_output, weight: grad_output @ weight)
_also("adam_betas_swapped", "adam.v",
      lambda v, g, beta1: beta1 * v + (1 - beta1) * g * g)
_also("adam_betas_swapped", "adam.p",
      lambda p, new_m, new_v, lr, eps, of_m, of_v: adam_step(p, new_m, new_v, lr, eps, of_v, of_m))
_also("adam_moments_made_anew", "adam.v",
      lambda g, beta2: (1 - beta2) * g * g)
_also("adam_m_and_v_exchanged", "adam.v",
      lambda m, g, beta1: beta1 * m + (1 - beta1) * g)
_also("adam_m_and_v_exchanged", "adam.p",
      lambda p, new_m, new_v, lr, eps, of_m, of_v: adam_step(p, new_v, new_m, lr, eps, of_v, of_m))
