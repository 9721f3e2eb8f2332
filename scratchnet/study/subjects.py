"""What can be judged: the truth of each array, and random instances to try an answer on.

An `Operation` is the mathematics of one array, whose arguments have the names that they have in
`scratchnet.functional`. A `Subject` is what a person writes: a chain of `Step`s, each an operation
on inputs and on the arrays of the steps before it. `linear_backward` has three steps,
`network_backward` has eleven, from z1 to db1.

The truth is computed by `scratchnet.functional` in float64. Beside it goes its *size*: the same
sums with absolute values in place of their terms. A right answer may add the terms in another
order, or in another way, and round differently: by a few roundings a term, each at most u times the
size, where u is 2^-53, and 2^-24 in float32.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from scratchnet import functional, mnist
from scratchnet.backend import Array

Values: TypeAlias = dict[str, Any]
Index: TypeAlias = tuple[int, ...]
Terms: TypeAlias = list[tuple[str, float]]


def _nothing(*_: Any, **__: Any) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Operation:
    """The mathematics of one array.

    The callables that take v, s or names are given namespaces, by the names of the arguments: of
    their values, of the values' sizes, and of what the arguments are called in a subject.

    Attributes:
        name: by which `mistakes.of` knows it.
        right: right(**arguments) is the array.
        size: size(v, s) is its size.
        of: the arguments that it is made of, if they are not all of right's.
        derived: derived(**arguments) are further values that wrong formulas ask for.
        terms: terms(v, names, index) is the sum that makes the entry, or None.
        loss: where the array is a gradient, loss(**arguments) is the number whose gradient it is,
        to: and the argument to which.
        marks: marks(v, names) are sets of entries that have something in common.
    """

    name: str
    right: Callable[..., Any]
    size: Callable[[Any, Any], Any]
    of: tuple[str, ...] = ()
    derived: Callable[..., Values] = _nothing
    terms: Callable[[Any, Any, Index], Terms] | None = None
    loss: Callable[..., Any] | None = None
    to: str = ""
    marks: Callable[[Any, Any], dict[str, Array]] = _nothing


class Step(NamedTuple):
    """An operation within a subject.

    name: of the array.
    operation: how it is made.
    axes: the letters of its axes.
    names: what the operation's arguments are called in the subject, if otherwise.
    letters: what its axes are called, if otherwise.
    """

    name: str
    operation: Operation
    axes: str
    names: Mapping[str, str] = MappingProxyType({})
    letters: Mapping[str, str] = MappingProxyType({})


class Setting(NamedTuple):
    """What an instance is like; no two sizes are equal, so that a shape names itself.

    name: as it stands in a message.
    n, d, h, c: samples, features, hidden units or outputs, classes.
    special: "zeros", "large", "digits", "far", "steep", "nan" or "nothing left".
    options: which keyword arguments it has.
    strict: whether it needs what a learner may do without: inf and nan as in `functional`.
    t, scale: of Adam's step, its number and how large the gradients are.
    """

    name: str
    n: int = 5
    d: int = 7
    h: int = 3
    c: int = 4
    special: str = ""
    options: tuple[str, ...] = ()
    strict: bool = False
    t: int = 1
    scale: float = 1.0


class Instance(NamedTuple):
    """Values to try an answer on: the arguments by name, and those that go by keyword."""

    name: str
    inputs: Values
    options: Values


@dataclass(frozen=True)
class Subject:
    """What a person writes: a function of inputs that returns the arrays of some steps.

    Attributes:
        name: what it is called.
        inputs: the arguments in their order, and the letters of their axes.
        steps: from the inputs to the last array.
        results: the arrays that must be returned, in a tuple in this order, or in a dict.
        draw: draw(generator, setting) are an instance's inputs and options.
        settings: what is drawn.
        known: values that are not arguments, since they are always the same.
        given: the arguments that the function gets; all of the inputs if empty.
        notes: for the letter of an axis, note(values, index) is what can be said of an index.
        family: mistakes of its own are those of "family.step".
    """

    name: str
    inputs: Mapping[str, str]
    steps: tuple[Step, ...]
    results: tuple[str, ...]
    draw: Callable[[Draw], tuple[Values, Values]]
    settings: tuple[Setting, ...]
    known: Mapping[str, Any] = field(default_factory=dict)
    given: tuple[str, ...] = ()
    notes: Mapping[str, Callable[[Values, int], str]] = field(default_factory=dict)
    family: str = ""

    def dims(self, inputs: Mapping[str, Any]) -> dict[str, int]:
        """The sizes of inputs by their letters."""
        shapes = {letters: np.shape(inputs[name]) for name, letters in self.inputs.items()}
        pairs = (zip(letters, shape, strict=False) for letters, shape in shapes.items())
        return {letter: size for pair in pairs for letter, size in pair}

    def instances(self, seed: int, strict: bool = False) -> list[Instance]:
        """An instance of each setting, the strict ones only where asked for."""
        settings = [setting for setting in self.settings if strict or not setting.strict]
        generators = np.random.default_rng(seed).spawn(len(settings))
        return [
            Instance(setting.name, *self.draw(Draw(setting, generator)))
            for setting, generator in zip(settings, generators, strict=True)
        ]


PRIMES = Setting("N=5, D=7, H=3, C=4")
EQUAL = Setting("all sizes 4", 4, 4, 4, 4)  # a forgotten transpose: a wrong value and no error
ZEROS = Setting("exact zeros", special="zeros")
ONE = Setting("one sample", n=1)
LARGE = Setting("logits in the thousands", special="large")  # whose exp overflows, or vanishes
DIGITS = Setting("real digits in float32", 8, 784, 16, 10, special="digits")
FAR = Setting("logits thousands apart", special="far", strict=True)  # whose p underflows
NAN = Setting("inf and nan", special="nan", strict=True)
COMMON = (PRIMES, EQUAL, ZEROS, ONE, DIGITS)


class Draw:
    """Random values for a setting."""

    def __init__(self, setting: Setting, rng: np.random.Generator) -> None:
        self.setting, self.rng = setting, rng
        self.n, self.d, self.h, self.c = setting[1:5]

    def dense(self, *shape: int) -> Array:
        """Normal values; float32 beside real digits."""
        values = self.rng.normal(size=shape)
        return values.astype(np.float32) if self.setting.special == "digits" else values

    def normal(self, *shape: int) -> Array:
        """The same, but in the setting "zeros" half of them are 0."""
        values = self.dense(*shape)
        if self.setting.special == "zeros":
            values[self.rng.random(shape) < 0.5] = 0
        return values

    def weight(self, *shape: int) -> Array:
        """A weight, or a bias: of real digits so small that what comes out is moderate."""
        small = self.setting.special == "digits"
        return self.normal(*shape) / np.float32(np.sqrt(self.d)) if small else self.normal(*shape)

    def x(self) -> Array:
        """(N, D) inputs."""
        if self.setting.special == "digits":
            chosen = self.rng.choice(len(digits()), self.n, replace=False)
            return mnist.to_float(digits()[chosen])
        return self.normal(self.n, self.d)

    def around_zero(self) -> Array:
        """(N, H) inputs of a ReLU; in the setting "zeros" some are 0 or near it, a unit is dead."""
        if self.setting.special == "digits":
            return functional.linear_forward(self.x(), self.weight(self.h, self.d))
        x = self.rng.normal(size=(self.n, self.h))
        if self.setting.special == "zeros":
            edges = (0.0, 0.0, 0.0, -0.0, 1e-7, -1e-7, 1e-30, -1e-30)
            live = x[:, 1:]
            live.flat[self.rng.permutation(live.size)[: len(edges)]] = edges
            x[:, 0] = -abs(x[:, 0])
        return x

    def logits(self) -> Array:
        """(N, C) logits."""
        if self.setting.special == "digits":
            return functional.linear_forward(self.x(), self.weight(self.c, self.d))
        logits = 2 * self.normal(self.n, self.c)
        if self.setting.special == "large":
            rows = 1 + self.rng.permutation(self.n)
            logits += 1000 * np.where(rows % 2, rows, -rows)[:, None]
        if self.setting.special == "far":
            logits += 1000 * self.rng.permuted(np.tile(np.arange(self.c), (self.n, 1)), axis=1)
        return logits

    def target(self) -> Array:
        """(N,) labels."""
        return self.rng.integers(0, self.c, self.n)


@functools.cache
def digits() -> Array:
    """MNIST's test images, (10000, 784) uint8: reading them takes less than all."""
    images = mnist.read_idx(mnist.BUNDLED / "t10k-images-idx3-ubyte.gz", 3)
    return images.reshape(len(images), -1)


# ----------------------------------------------------------------------------------------- linear


def _of_linear(grad_output: Array, x: Array, weight: Array, bias: Array) -> Any:
    """A number whose gradients are those of linear_backward: Σ grad_output · y."""
    return (grad_output * functional.linear_forward(x, weight, bias)).sum()


def _no_bias(weight: Array) -> Values:
    return {"bias": np.zeros(len(weight))}


LINEAR = Operation(
    "linear_forward.y",
    functional.linear_forward,
    lambda v, s: s.x @ s.weight.T + s.bias,
    terms=lambda v, names, at: [
        *(
            (f"{names.x}[{at[0]}, {d}] · {names.weight}[{at[1]}, {d}]", v.x[at[0], d] * w)
            for d, w in enumerate(v.weight[at[1]])
        ),
        (f"{names.bias}[{at[1]}]", v.bias[at[1]]),
    ],
)
GRAD_X = Operation(
    "linear_backward.grad_x",
    lambda grad_output, x, weight: functional.linear_backward(grad_output, x, weight)[0],
    lambda v, s: s.grad_output @ s.weight,
    of=("grad_output", "weight"),
    derived=_no_bias,
    terms=lambda v, names, at: [
        (f"{names.grad_output}[{at[0]}, {h}] · {names.weight}[{h}, {at[1]}]", g * w)
        for h, (g, w) in enumerate(zip(v.grad_output[at[0]], v.weight[:, at[1]], strict=True))
    ],
    loss=_of_linear,
    to="x",
)
GRAD_WEIGHT = Operation(
    "linear_backward.grad_weight",
    lambda grad_output, x, weight: functional.linear_backward(grad_output, x, weight)[1],
    lambda v, s: s.grad_output.T @ s.x,
    of=("grad_output", "x"),
    derived=_no_bias,
    terms=lambda v, names, at: [
        (f"{names.grad_output}[{n}, {at[0]}] · {names.x}[{n}, {at[1]}]", g * x)
        for n, (g, x) in enumerate(zip(v.grad_output[:, at[0]], v.x[:, at[1]], strict=True))
    ],
    loss=_of_linear,
    to="weight",
)
GRAD_BIAS = Operation(
    "linear_backward.grad_bias",
    lambda grad_output, x, weight: functional.linear_backward(grad_output, x, weight)[2],
    lambda v, s: s.grad_output.sum(axis=0),
    of=("grad_output",),
    derived=_no_bias,
    terms=lambda v, names, at: [
        (f"{names.grad_output}[{n}, {at[0]}]", g) for n, g in enumerate(v.grad_output[:, at[0]])
    ],
    loss=_of_linear,
    to="bias",
)

# ------------------------------------------------------------------------------- relu and sigmoid


def _open_and_closed(v: Any, names: Any) -> dict[str, Array]:
    return {
        f"where {names.x} > 0": v.x > 0,
        f"where {names.x} is exactly 0": v.x == 0,
        f"where {names.x} <= 0": v.x <= 0,
    }


RELU = Operation(
    "relu_forward.y",
    functional.relu_forward,
    lambda v, s: np.where(v.x > 0, s.x, 0),
    marks=_open_and_closed,
)
RELU_GRAD = Operation(
    "relu_backward.grad_x",
    functional.relu_backward,
    lambda v, s: np.where(v.x <= 0, 0, s.grad_output),
    terms=lambda v, names, at: [
        (f"{names.grad_output}{[*at]}", v.grad_output[at])
        if v.x[at] > 0
        else (f"nothing, since {names.x}{[*at]} is {v.x[at]:.3g}", 0.0)
    ],
    loss=lambda grad_output, x: (grad_output * functional.relu_forward(x)).sum(),
    to="x",
    marks=_open_and_closed,
)
SIGMOID_GRAD = Operation(
    "sigmoid_backward.grad_x",
    functional.sigmoid_backward,
    lambda v, s: abs(functional.sigmoid_backward(s.grad_output, v.x)),
    loss=lambda grad_output, x: (grad_output * functional.sigmoid_forward(x)).sum(),
    to="x",
)

# ------------------------------------------------------------------------ softmax and log_softmax


def _softmax_parts(x: Array) -> Values:
    z = x - x.max(axis=-1, keepdims=True)
    p, log_p = functional.softmax_forward(x), functional.log_softmax_forward(x)
    return {"z": z, "e": np.exp(z), "p": p, "log_p": log_p}


def _size_of_log_p(x: Array) -> Array:
    """Of x's size: both x and the logarithm of the sum of exp may be as large as the row's x."""
    return x + x.max(axis=-1, keepdims=True) + np.log(x.shape[-1]) + 1


def _size_of_p(x: Array, size: Array) -> Array:
    """p times one more than the error of its exponent, since exp turns it into a relative one."""
    return functional.softmax_forward(x) * (1 + 2 * size.max(axis=-1, keepdims=True))


def _sum(array: Array) -> Array:
    return array.sum(axis=-1, keepdims=True)


SOFTMAX = Operation(
    "softmax_forward.p",
    functional.softmax_forward,
    lambda v, s: _size_of_p(v.x, s.x),
    derived=_softmax_parts,
)
SOFTMAX_GRAD = Operation(
    "softmax_backward.grad_x",
    functional.softmax_backward,
    lambda v, s: (
        _size_of_p(v.x, s.x) * (s.grad_output + _sum(s.grad_output * _size_of_p(v.x, s.x)))
    ),
    derived=_softmax_parts,
    terms=lambda v, names, at: [
        (f"{names.grad_output}[{at[0]}, {k}] · p[{k}] ((k = c) - p[{at[1]}])", g * p * j)
        for k, (g, p, j) in enumerate(
            zip(v.grad_output[at[0]], v.p[at[0]], _row(at[1], v.p[at[0]]), strict=True)
        )
    ],
    loss=lambda grad_output, x: (grad_output * functional.softmax_forward(x)).sum(),
    to="x",
)
LOG_SOFTMAX = Operation(
    "log_softmax_forward.log_p",
    functional.log_softmax_forward,
    lambda v, s: _size_of_log_p(s.x),
    derived=_softmax_parts,
)
LOG_SOFTMAX_GRAD = Operation(
    "log_softmax_backward.grad_x",
    functional.log_softmax_backward,
    lambda v, s: s.grad_output + _size_of_p(v.x, s.x) * _sum(s.grad_output),
    derived=_softmax_parts,
    terms=lambda v, names, at: [
        (f"{names.grad_output}[{at[0]}, {k}] · ((k = c) - p[{at[1]}])", g * j)
        for k, (g, j) in enumerate(zip(v.grad_output[at[0]], _row(at[1], v.p[at[0]]), strict=True))
    ],
    loss=lambda grad_output, x: (grad_output * functional.log_softmax_forward(x)).sum(),
    to="x",
)


def _row(c: int, p: Array) -> Array:
    """δ_kc - p[c] for each k."""
    return (np.arange(len(p)) == c) - p[c]


# ---------------------------------------------------------------------------------- cross-entropy


def _cross_entropy_parts(
    logits: Array,
    target: Array,
    weight: Array | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    grad_output: Any = 1.0,
) -> Values:
    """All that wrong formulas ask for, as `functional` computes it."""

    def wanted(smoothing: float) -> tuple[Array, Array, Array]:
        return functional._wanted(logits, target, weight, ignore_index, smoothing)

    q, weight, total = wanted(label_smoothing)
    grad_output = np.asarray(grad_output, np.float64)
    scale = grad_output / total if reduction == "mean" else grad_output
    a = np.where(q == 0, 0, weight * q * scale.reshape(-1, 1))
    others = {"q": q, "one_hot": wanted(0.0)[0], "total": total, "scale": scale, "a": a}
    upstream = {"grad_output": grad_output, "ones": np.ones_like(grad_output)}
    options = {"weight": weight, "reduction": reduction}
    return _softmax_parts(logits) | others | upstream | options


def _label_marks(v: Any, names: Any) -> dict[str, Array]:
    label = v.target[:, None] == np.arange(v.logits.shape[1])
    return {"at the samples' own labels": label, "beside the samples' own labels": ~label}


def _cost(
    logits: Array,
    target: Array,
    grad_output: Array,
    weight: Array,
    reduction: functional.Reduction,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> Any:
    loss = functional.cross_entropy_forward(
        logits,
        target,
        weight=weight,
        reduction=reduction,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
    )
    return (grad_output * loss).sum()


CROSS_ENTROPY = Operation(
    "cross_entropy_forward.loss",
    functional.cross_entropy_forward,
    lambda v, s: (abs(v.a) * _size_of_log_p(s.logits)).sum(),
    derived=_cross_entropy_parts,
)
CROSS_ENTROPY_GRAD = Operation(
    "cross_entropy_backward.grad_logits",
    functional.cross_entropy_backward,
    lambda v, s: _size_of_p(v.logits, s.logits) * _sum(abs(v.a)) + abs(v.a),
    derived=_cross_entropy_parts,
    terms=lambda v, names, at: [
        (f"p[{at[0]}, {at[1]}] · the sample's share of the mean", v.p[at] * v.a[at[0]].sum()),
        ("the label's, minus its share" if v.a[at] else "not the label", -v.a[at]),
    ],
    loss=_cost,
    to="logits",
    marks=_label_marks,
)

# ------------------------------------------------------------------ optimizers, finite differences

ADAM = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}  # PyTorch's, and the paper's


def _corrections(t: int, beta1: float, beta2: float) -> Values:
    return {"of_m": 1 - beta1**t, "of_v": 1 - beta2**t}


def _adam_p(
    p: Array, new_m: Array, new_v: Array, t: int, lr: float, beta1: float, beta2: float, eps: float
) -> Array:
    denominator = np.sqrt(new_v) / np.sqrt(1 - beta2**t) + eps
    return p - lr / (1 - beta1**t) * (new_m / denominator)


def _size_of_adam_p(v: Any, s: Any) -> Array:
    """The parameter, and the step times 1000: 1 - βᵗ has lost as many digits at most."""
    step = v.lr / (1 - v.beta1**v.t) * s.new_m / (np.sqrt(v.new_v / (1 - v.beta2**v.t)) + v.eps)
    return s.p + step / (1 - v.beta2)


ADAM_M = Operation(
    "adam.m",
    lambda m, g, beta1: beta1 * m + (1 - beta1) * g,
    lambda v, s: v.beta1 * s.m + (1 - v.beta1) * s.g,
    terms=lambda v, names, at: [
        (f"beta1 · m{[*at]}", v.beta1 * v.m[at]),
        (f"(1 - beta1) · g{[*at]}", (1 - v.beta1) * v.g[at]),
    ],
)
ADAM_V = Operation(
    "adam.v",
    lambda v, g, beta2: beta2 * v + (1 - beta2) * g * g,
    lambda v, s: v.beta2 * s.v + (1 - v.beta2) * s.g**2,
    terms=lambda v, names, at: [
        (f"beta2 · v{[*at]}", v.beta2 * v.v[at]),
        (f"(1 - beta2) · g{[*at]}²", (1 - v.beta2) * v.g[at] ** 2),
    ],
)
ADAM_P = Operation(
    "adam.p",
    _adam_p,
    _size_of_adam_p,
    of=("p", "new_m", "new_v", "t"),
    derived=_corrections,
    terms=lambda v, names, at: [
        (f"p{[*at]}", v.p[at]),
        (
            f"-lr · m / (√v + eps), corrected, of m = {v.new_m[at]:.4g} and v = {v.new_v[at]:.4g}",
            -v.lr / v.of_m * v.new_m[at] / (np.sqrt(v.new_v[at] / v.of_v) + v.eps),
        ),
    ],
)
SGD = Operation(
    "sgd.p",
    lambda p, g, lr: p - lr * g,
    lambda v, s: s.p + v.lr * s.g,
    terms=lambda v, names, at: [
        (f"{names.p}{[*at]}", v.p[at]),
        (f"-lr · {names.g}{[*at]}", -v.lr * v.g[at]),
    ],
)


def _nudged(weight: Array, index: Index, h: float) -> Values:
    nudge = np.zeros_like(weight)
    nudge[index] = h
    return {"above": weight + nudge, "below": weight - nudge}


def _slope(loss: Callable[[Array], Any], weight: Array, index: Index, h: float) -> Any:
    nudged = _nudged(weight, index, h)
    return (loss(nudged["above"]) - loss(nudged["below"])) / (2 * h)


SLOPE = Operation(
    "finite_difference.slope",
    _slope,
    # The loss is a sum of fourth powers, so its terms are no larger than it is, over 2 h.
    lambda v, s: (v.loss(v.above) + v.loss(v.below)) / (2 * v.h),
    derived=_nudged,
    terms=lambda v, names, at: [
        ("loss(above) / 2 h", v.loss(v.above) / (2 * v.h)),
        ("-loss(below) / 2 h", -v.loss(v.below) / (2 * v.h)),
    ],
)

# --------------------------------------------------------------------------------------- subjects


def _draw_linear(draw: Draw) -> tuple[Values, Values]:
    values = {"x": draw.x(), "weight": draw.weight(draw.h, draw.d), "bias": draw.weight(draw.h)}
    return values, {}


def _draw_linear_backward(draw: Draw) -> tuple[Values, Values]:
    grad_output = draw.normal(draw.n, draw.h)
    return {"grad_output": grad_output, "x": draw.x(), "weight": draw.weight(draw.h, draw.d)}, {}


def _draw_relu(draw: Draw) -> tuple[Values, Values]:
    return {"x": 8 * draw.around_zero()}, {}


def _draw_relu_backward(draw: Draw) -> tuple[Values, Values]:
    x = draw.around_zero()
    grad_output = draw.dense(*x.shape)
    if draw.setting.special == "nan":
        grad_output.flat[:6] = (1, np.inf, -np.inf, np.nan, np.inf, np.nan)
        x.flat[:6] = (np.nan, np.nan, -1, -1, 1, 1)
    return {"grad_output": grad_output, "x": x}, {}


def _draw_sigmoid_backward(draw: Draw) -> tuple[Values, Values]:
    x = draw.around_zero()
    return {
        "grad_output": draw.normal(*x.shape),
        "x": 30 * x if draw.setting.special == "steep" else x,
    }, {}


def _draw_softmax(draw: Draw) -> tuple[Values, Values]:
    return {"x": draw.logits()}, {}


def _draw_softmax_backward(draw: Draw) -> tuple[Values, Values]:
    return {"grad_output": draw.normal(draw.n, draw.c), "x": draw.logits()}, {}


def _draw_cross_entropy(draw: Draw) -> tuple[Values, Values]:
    target, wanted = draw.target(), draw.setting.options
    values: Values = {
        "weight": draw.rng.uniform(0.5, 2.0, draw.c),
        "label_smoothing": 0.1,
        "ignore_index": -100,
        "reduction": "none" if "none" in wanted else "sum",
        "grad_output": draw.rng.normal(size=draw.n if "none" in wanted else ()),
    }
    if "ignore_index" in wanted:
        target[draw.rng.permutation(draw.n)[: draw.n // 2]] = -100
    if draw.setting.special == "nothing left":
        target[:] = -100
    options = {name: value for name, value in values.items() if name in wanted}
    return {"logits": draw.logits(), "target": target}, options


def _draw_network(draw: Draw) -> tuple[Values, Values]:
    """A network and a batch, in the setting "zeros" with a unit at 0 and a dead one.

    No other z1 is so near to 0 that rounding could open or close a unit: that would be as right.
    """
    while True:
        values = {
            "x": draw.x(),
            "target": draw.target(),
            "W1": draw.weight(draw.h, draw.d),
            "b1": draw.weight(draw.h),
            "W2": draw.dense(draw.c, draw.h),
            "b2": draw.dense(draw.c),
        }
        if draw.setting.special == "zeros":
            values["W1"][0], values["b1"][0], values["b1"][1] = 0, 0, -100
        inputs = values["x"], values["W1"], values["b1"]
        size = functional.linear_forward(*map(abs, inputs))
        u = np.finfo(size.dtype).eps / 2
        z1 = functional.linear_forward(*inputs)
        if ((abs(z1) > 2 * (draw.d + 1) * u * size) | (size == 0)).all():
            return values, {}


def _draw_update(draw: Draw) -> tuple[Values, Values]:
    values, _ = _draw_network(draw)
    return values | {"lr": float(draw.rng.uniform(0.05, 0.5))}, {}


def _draw_adam(draw: Draw) -> tuple[Values, Values]:
    t, scale = draw.setting.t, draw.setting.scale
    p, g, m = draw.normal(3, 11)
    v = draw.rng.random(11) * (t > 1)
    return {"p": p, "g": scale * g, "m": scale * m * (t > 1), "v": scale**2 * v, "t": t}, {}


def _draw_finite_difference(draw: Draw) -> tuple[Values, Values]:
    """A loss of fourth powers, whose central difference shows which h it was taken with.

    The slope is the largest of all weights or, in two settings, the smallest: so it has both signs.
    """
    x, weight = draw.dense(draw.n, draw.d), draw.dense(draw.h, draw.d)

    def loss(weight: Array) -> Any:
        return (functional.linear_forward(x, weight) ** 4).sum() / (4 * len(x))

    slopes = functional.linear_backward(functional.linear_forward(x, weight) ** 3, x, weight)[1]
    is_down = draw.setting in (EQUAL, ONE)
    at = slopes.argmin() if is_down else slopes.argmax()
    index = tuple(int(i) for i in np.unravel_index(at, slopes.shape))
    return {"loss": loss, "weight": weight, "index": index, "h": 1e-2 if is_down else 1e-3}, {}


def _label(values: Values, n: int) -> str:
    return f"of label {values['target'][n]}"


def _life(values: Values, h: int) -> str:
    if "z1" not in values:
        return ""
    is_live = (values["z1"][:, h] > 0).any()
    return "that are live" if is_live else "that are dead (z1 <= 0 for every sample)"


LAYER1 = {
    **{"grad_output": "dz1", "weight": "W1", "bias": "b1"},
    **{"grad_weight": "dW1", "grad_bias": "db1"},
}
LAYER2 = {
    **{"grad_output": "dz2", "x": "h", "weight": "W2", "bias": "b2"},
    **{"grad_x": "dh", "grad_weight": "dW2", "grad_bias": "db2"},
}
AXES2 = {"D": "H", "H": "C"}
NETWORK = (
    Step("z1", LINEAR, "NH", LAYER1),
    Step("h", RELU, "NH", {"x": "z1"}),
    Step("z2", LINEAR, "NC", LAYER2, AXES2),
    Step("loss", CROSS_ENTROPY, "", {"logits": "z2"}),
    Step("dz2", CROSS_ENTROPY_GRAD, "NC", {"logits": "z2"}),
    Step("dW2", GRAD_WEIGHT, "CH", LAYER2, AXES2),
    Step("db2", GRAD_BIAS, "C", LAYER2, AXES2),
    Step("dh", GRAD_X, "NH", LAYER2, AXES2),
    Step("dz1", RELU_GRAD, "NH", {"grad_output": "dh", "x": "z1"}),
    Step("dW1", GRAD_WEIGHT, "HD", LAYER1),
    Step("db1", GRAD_BIAS, "H", LAYER1),
)
NETWORK_INPUTS = {"x": "ND", "target": "N", "W1": "HD", "b1": "H", "W2": "CH", "b2": "C"}
# What Mnist_NN calls them.
PARAMETERS = {"W1": "lin1.weight", "b1": "lin1.bias", "W2": "lin2.weight", "b2": "lin2.bias"}
UPDATES = tuple(
    Step(f"new_{name}", SGD, NETWORK_INPUTS[name], {"p": name, "g": f"d{name}"})
    for name in PARAMETERS
)
SOFTMAX_SETTINGS = (*COMMON, LARGE, FAR)
OPTIONS = (
    Setting("class weights", options=("weight",)),
    Setting("ignored samples", options=("ignore_index",)),
    Setting("label smoothing", options=("label_smoothing",)),
    Setting("reduction sum", options=("reduction",)),
)
EVERY_OPTION = ("weight", "ignore_index", "label_smoothing")
NOTHING_LEFT = Setting(
    "all samples ignored", special="nothing left", options=("ignore_index",), strict=True
)
BACKWARD_OPTIONS = (
    Setting("an upstream gradient", options=("grad_output",)),
    Setting("reduction none", options=("reduction", "none", "grad_output")),
    Setting("every option", options=(*EVERY_OPTION, "grad_output")),
)
ADAM_SETTINGS = (
    Setting("step 1"),
    Setting("step 2", t=2),
    Setting("step 1, gradients around 1e-8", scale=1e-8),
    Setting("step 3, gradients around 1e-8", t=3, scale=1e-8),
    Setting("step 100", t=100, scale=1e-2),
    Setting("step 3, half of the values 0", t=3, special="zeros"),
    Setting("step 10 in float32", t=10, special="digits"),
)

LINEAR_BACKWARD = (
    Step("grad_x", GRAD_X, "ND"),
    Step("grad_weight", GRAD_WEIGHT, "HD"),
    Step("grad_bias", GRAD_BIAS, "H"),
)
LINEAR_INPUTS = {"grad_output": "NH", "x": "ND", "weight": "HD"}


def _one(
    step: Step,
    inputs: Mapping[str, str],
    draw: Callable[[Draw], tuple[Values, Values]],
    *settings: Setting,
) -> Subject:
    """A subject of one step, named after its operation."""
    name = step.operation.name.split(".")[0]
    return Subject(name, inputs, (step,), (step.name,), draw, settings)


SUBJECTS = {
    subject.name: subject
    for subject in (
        _one(
            Step("y", LINEAR, "NH"), {"x": "ND", "weight": "HD", "bias": "H"}, _draw_linear, *COMMON
        ),
        Subject(
            "linear_backward",
            LINEAR_INPUTS,
            LINEAR_BACKWARD,
            ("grad_x", "grad_weight", "grad_bias"),
            _draw_linear_backward,
            COMMON,
        ),
        *(
            Subject(
                f"linear_backward.{step.name}",
                LINEAR_INPUTS,
                (step,),
                (step.name,),
                _draw_linear_backward,
                COMMON,
                given=given,
            )
            for step, given in zip(
                LINEAR_BACKWARD,
                (("grad_output", "weight"), ("grad_output", "x"), ("grad_output",)),
                strict=True,
            )
        ),
        _one(Step("y", RELU, "NH"), {"x": "NH"}, _draw_relu, *COMMON),
        _one(
            Step("grad_x", RELU_GRAD, "NH"),
            {"grad_output": "NH", "x": "NH"},
            _draw_relu_backward,
            *COMMON,
            NAN,
        ),
        _one(
            Step("grad_x", SIGMOID_GRAD, "NH"),
            {"grad_output": "NH", "x": "NH"},
            _draw_sigmoid_backward,
            *COMMON,
            Setting("inputs around 30", special="steep", strict=True),
        ),
        _one(Step("p", SOFTMAX, "NC"), {"x": "NC"}, _draw_softmax, *SOFTMAX_SETTINGS),
        _one(
            Step("grad_x", SOFTMAX_GRAD, "NC"),
            {"grad_output": "NC", "x": "NC"},
            _draw_softmax_backward,
            *SOFTMAX_SETTINGS,
        ),
        _one(Step("log_p", LOG_SOFTMAX, "NC"), {"x": "NC"}, _draw_softmax, *SOFTMAX_SETTINGS),
        _one(
            Step("grad_x", LOG_SOFTMAX_GRAD, "NC"),
            {"grad_output": "NC", "x": "NC"},
            _draw_softmax_backward,
            *SOFTMAX_SETTINGS,
        ),
        _one(
            Step("loss", CROSS_ENTROPY, ""),
            {"logits": "NC", "target": "N"},
            _draw_cross_entropy,
            *SOFTMAX_SETTINGS,
            *OPTIONS,
            Setting("every option", options=EVERY_OPTION),
        ),
        _one(
            Step("grad_logits", CROSS_ENTROPY_GRAD, "NC"),
            {"logits": "NC", "target": "N"},
            _draw_cross_entropy,
            *SOFTMAX_SETTINGS,
            *OPTIONS,
            *BACKWARD_OPTIONS,
            NOTHING_LEFT,
        ),
        Subject(
            "network_backward",
            NETWORK_INPUTS,
            NETWORK,
            ("dW1", "db1", "dW2", "db2"),
            _draw_network,
            COMMON,
            notes={"N": _label, "H": _life},
            family="network",
        ),
        Subject(
            "network_update",
            NETWORK_INPUTS | {"lr": ""},
            NETWORK + UPDATES,
            tuple(step.name for step in UPDATES),
            _draw_update,
            COMMON,
            notes={"N": _label, "H": _life},
            family="network",
        ),
        Subject(
            "adam",
            {"p": "K", "g": "K", "m": "K", "v": "K", "t": ""},
            (Step("new_m", ADAM_M, "K"), Step("new_v", ADAM_V, "K"), Step("new_p", ADAM_P, "K")),
            ("new_p", "new_m", "new_v"),
            _draw_adam,
            ADAM_SETTINGS,
            known=ADAM,
        ),
        _one(
            Step("slope", SLOPE, ""),
            {"loss": "", "weight": "HD", "index": "", "h": ""},
            _draw_finite_difference,
            PRIMES,
            EQUAL,
            ONE,
            Setting("N=3, D=2, H=5", 3, 2, 5),
        ),
    )
}

# The network's backward, with p as a stage of its own: so it is shown.
SHOWN = replace(
    SUBJECTS["network_backward"],
    steps=(*NETWORK[:3], Step("p", SOFTMAX, "NC", {"x": "z2"}), *NETWORK[3:]),
)
