"""Compare results with PyTorch's, number by number, against bounds that were derived: yours too.

Whoever has written backprop, or one function of it, asks here whether it is right:

    from reference import compare

    def my_linear_backward(grad_output, x, weight):
        return grad_output @ weight, grad_output.T @ x, grad_output.sum(axis=0)

    print(compare.function("linear_backward", my_linear_backward))

The name is one of scratchnet.functional's, and the arguments and results are that function's. A
whole model and an optimizer's step have `model` and `adam`. Each returns a `Report`: printed, a
table of what was found; `report.ok` says whether everything is within its bound, and
`report.failures` where it is not.

A bound is the sum of what the two sides may be off by rounding (`bounds`, and `propagation` through
a network): within it a difference is not a mistake, and beyond it not rounding.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from reference import bounds, propagation, step
from reference.bounds import Classification, Dtype
from scratchnet.backend import Array
from scratchnet.study import diagnose
from scratchnet.study.answers import is_changed
from scratchnet.study.subjects import PARAMETERS

Parameters = Mapping[str, Array]


@dataclass(frozen=True)
class Difference:
    """One array of ours, or yours, beside PyTorch's.

    Attributes:
        name: what it is.
        place: where it was found: the instance, or the step.
        shape: PyTorch's.
        exact: whether all values are equal.
        largest: the largest absolute difference.
        ulps: the largest difference in units of the last place of the larger of the two values.
        share: the largest difference as a share of its bound; more than 1 is a mistake.
        index: where that is.
        mine, theirs, bound: the values there.
        problem: why there is nothing to compare: a wrong shape or type, or an exception; "" if all
            is well.
    """

    name: str
    place: str
    shape: tuple[int, ...]
    exact: bool = False
    largest: float = np.nan
    ulps: float = np.nan
    share: float = np.inf
    index: tuple[int, ...] = ()
    mine: float = np.nan
    theirs: float = np.nan
    bound: float = np.nan
    problem: str = ""

    @property
    def ok(self) -> bool:
        """Whether the array is PyTorch's, up to rounding."""
        return not self.problem and self.share <= 1

    def __str__(self) -> str:
        where = f"{self.place}: {self.name}"
        if self.problem:
            return f"{where} {self.problem}"
        place = f"{where}{list(self.index) if self.index else ''}"
        if not np.isfinite(self.mine - self.theirs):
            return f"{place} is {self.mine:.9g}; PyTorch's is {self.theirs:.9g}"
        return (
            f"{place} is {self.mine:.9g}; PyTorch's is {self.theirs:.9g}, and "
            f"the difference of {abs(self.mine - self.theirs):.3g} is {self.share:.3g} times its "
            f"bound of {self.bound:.3g}"
        )


def difference(name: str, place: str, mine: Any, theirs: Array, bound: Array) -> Difference:
    """Compare an array with PyTorch's.

    Args:
        name, place: what and where it is.
        mine: the array under test.
        theirs: PyTorch's, whose shape and dtype are expected.
        bound: how far apart the two may be, in the shape of theirs.
    """
    if type(mine) is float and not theirs.shape:
        mine = theirs.dtype.type(mine)
    if type(mine) is not np.ndarray and not isinstance(mine, np.generic):
        problem = f"is of type {type(mine).__name__}; expected a NumPy array, as np.array makes it"
        return Difference(name, place, theirs.shape, problem=problem)
    if mine.shape != theirs.shape or mine.dtype != theirs.dtype:
        problem = f"is {mine.dtype} {mine.shape}; expected {theirs.dtype} {theirs.shape}"
        return Difference(name, place, theirs.shape, problem=problem)
    if not mine.size:
        return Difference(name, place, theirs.shape, True, 0.0, 0.0, 0.0)
    mine = np.asarray(mine)
    same = (mine == theirs) | (np.isnan(mine) & np.isnan(theirs))
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        apart = np.where(same, 0, np.abs(mine.astype(np.float64) - theirs))
        apart = np.where(np.isnan(apart), np.inf, apart)
        ulps = apart / np.spacing(np.maximum(np.abs(mine), np.abs(theirs))).astype(np.float64)
        share = np.where(same | np.isposinf(bound), 0, apart / bound)
    index = np.unravel_index(int(np.argmax(share)), share.shape)
    return Difference(
        name,
        place,
        theirs.shape,
        exact=bool(same.all()),
        largest=float(apart.max()),
        ulps=float(np.nan_to_num(np.where(same, 0, ulps), nan=np.inf).max()),
        share=float(share[index]),
        index=tuple(int(i) for i in index),
        mine=float(mine[index]),
        theirs=float(theirs[index]),
        bound=float(np.broadcast_to(bound, share.shape)[index]),
    )


@dataclass
class Report:
    """Differences, in the order in which they were found.

    Attributes:
        differences: all of them.
        cause: of those that are wrong, in words, where `scratchnet.study.diagnose` was asked.
    """

    differences: list[Difference] = field(default_factory=list)
    cause: str = ""

    @property
    def ok(self) -> bool:
        """Whether every array is PyTorch's, up to rounding."""
        return not self.failures

    @property
    def failures(self) -> list[Difference]:
        """The arrays that are not, the first one found first."""
        return [difference for difference in self.differences if not difference.ok]

    def by_name(self) -> dict[str, list[Difference]]:
        """The differences of each array, over all places."""
        groups: dict[str, list[Difference]] = {}
        for each in self.differences:
            groups.setdefault(each.name, []).append(each)
        return groups

    def rows(self) -> Iterator[tuple[str, ...]]:
        """A summary of each array, under HEADINGS."""
        for name, group in self.by_name().items():
            exact = sum(each.exact for each in group)
            shapes = {each.shape for each in group}
            yield (
                name,
                "ok" if all(each.ok for each in group) else "WRONG",
                str(group[0].shape) if len(shapes) == 1 else f"{len(shapes)} shapes",
                f"{exact} of {len(group)}",
                *_worst(group),
            )

    def __str__(self) -> str:
        """The summary as a table, the first failure, and the cause if it is known."""
        rows = [HEADINGS, *self.rows()]
        widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        if self.failures:
            lines += ["", f"The first of {len(self.failures)} that are wrong:"]
            lines += [str(self.failures[0])]
        if self.cause:
            lines += ["", self.cause]
        return "\n".join(lines)


def _worst(group: list[Difference]) -> tuple[str, str, str]:
    """The largest difference, ulps and share of the bound; dashes where nothing was compared."""
    if any(each.problem for each in group):
        return "-", "-", "-"
    share = max(each.share for each in group)
    return (
        f"{max(each.largest for each in group):.1e}",
        f"{max(each.ulps for each in group):.3g}",
        f"{share:.2%}" if share <= 1 else f"{share:.2g} times",
    )


HEADINGS = ("array", "verdict", "shape", "exact", "difference", "ulps", "of bound")


# ------------------------------------------------------------------------------------- functions


class Case(NamedTuple):
    """Arguments and options, and for each result by its name PyTorch's value and a bound."""

    arguments: tuple[Array, ...]
    expected: dict[str, tuple[Array, Array]]
    options: Mapping[str, Any] = {}


class Instance(NamedTuple):
    """Sizes and values to try a function on; different primes, so that a shape names itself."""

    name: str
    n: int = 5
    d: int = 7
    h: int = 3
    scale: float = 1.0
    zeros: float = 0.0  # share of entries that are exactly 0, as after a ReLU


INSTANCES = (
    Instance("N=5, D=7, H=C=3"),
    Instance("all sizes 4", 4, 4, 4),  # a forgotten transpose gives a wrong value, and no error
    Instance("one sample", n=1),
    Instance("half of the entries 0", zeros=0.5),
    Instance("values around 10", scale=10.0),
    Instance("values around 0.001", scale=0.001),
    Instance("values around 1000", scale=1000.0),  # whose exp overflows
)


class Draw:
    """Random arrays for an instance."""

    def __init__(self, instance: Instance, seed: int, dtype: Dtype) -> None:
        self.instance, self.dtype = instance, dtype
        self.rng = np.random.default_rng(seed)

    def normal(self, *shape: int) -> Array:
        """Values of the instance's scale, some of them 0."""
        values = self.instance.scale * self.rng.normal(size=shape)
        return np.where(self.rng.random(shape) < self.instance.zeros, 0, values).astype(self.dtype)


def _linear(draw: Draw) -> tuple[Case, Case]:
    n, d, h = draw.instance[1:4]
    x, weight, bias, grad = draw.normal(n, d), draw.normal(h, d), draw.normal(h), draw.normal(n, h)
    y, grads = _autograd(torch.nn.functional.linear, grad, x, weight, bias)
    limits = (
        bounds.linear_grad_x(draw.dtype, grad, weight),
        bounds.linear_grad_weight(draw.dtype, grad, x),
        bounds.linear_grad_bias(draw.dtype, grad),
    )
    names = ("grad_x", "grad_weight", "grad_bias")
    return (
        Case((x, weight, bias), {"y": (y, bounds.linear(draw.dtype, x, weight, bias))}),
        Case((grad, x, weight), dict(zip(names, zip(grads, limits, strict=True), strict=True))),
    )


def _of_rows(
    function: Callable[[Tensor], Tensor],
    forward_bound: Callable[..., Array],
    backward_bound: Callable[..., Array],
) -> Callable[[Draw], tuple[Case, Case]]:
    """A function of x (N, C) alone."""

    def make(draw: Draw) -> tuple[Case, Case]:
        shape = draw.instance.n, draw.instance.h
        x, grad = draw.normal(*shape), draw.normal(*shape)
        y, (grad_x,) = _autograd(function, grad, x)
        return (
            Case((x,), {"y": (y, forward_bound(draw.dtype, x))}),
            Case((grad, x), {"grad_x": (grad_x, backward_bound(draw.dtype, grad, x))}),
        )

    return make


def _cross_entropy(draw: Draw, **options: Any) -> tuple[Case, Case]:
    n, _, classes = draw.instance[1:4]
    logits, target = draw.normal(n, classes), draw.rng.integers(0, classes, n)
    problem = Classification.of(logits, target, **options)
    backward_options = dict(options)
    if problem.reduction == "none":  # a loss for each sample needs a gradient for each
        backward_options["grad_output"] = draw.normal(n)
        problem = dataclasses.replace(problem, grad_output=backward_options["grad_output"])
    weight = None if problem.weight is None else torch.from_numpy(problem.weight)
    loss, (grad,) = _autograd(
        lambda x: torch.nn.functional.cross_entropy(
            x, torch.from_numpy(target), **(problem.options | {"weight": weight})
        ),
        np.asarray(problem.grad_output, draw.dtype),
        logits,
    )
    with np.errstate(divide="ignore", invalid="ignore"):  # the mean of nothing is nan
        loss_bound = bounds.cross_entropy(draw.dtype, problem)
        grad_bound = bounds.cross_entropy_backward(draw.dtype, problem)
    return (
        Case((logits, target), {"loss": (loss, loss_bound)}, options),
        Case((logits, target), {"grad_logits": (grad, grad_bound)}, backward_options),
    )


def _autograd(
    function: Callable[..., Tensor], grad_output: Array, *arrays: Array
) -> tuple[Array, list[Array]]:
    """PyTorch's value of a function, and the gradients of all its arguments."""
    leaves = [torch.from_numpy(array.copy()).requires_grad_() for array in arrays]
    y = function(*leaves)
    grads = torch.autograd.grad(y, leaves, torch.from_numpy(grad_output.copy()))
    return y.detach().numpy(), [grad.numpy() for grad in grads]


def _nothing(_: Dtype, *arrays: Array) -> Array:
    return np.zeros_like(arrays[-1])  # no rounding, so no difference


FUNCTIONS: dict[str, Callable[..., tuple[Case, Case]]] = {
    "linear": _linear,
    "relu": _of_rows(torch.relu, _nothing, _nothing),
    "sigmoid": _of_rows(torch.sigmoid, bounds.sigmoid, bounds.sigmoid_backward),
    "softmax": _of_rows(
        functools.partial(torch.softmax, dim=-1), bounds.softmax, bounds.softmax_backward
    ),
    "log_softmax": _of_rows(
        functools.partial(torch.log_softmax, dim=-1),
        bounds.log_softmax,
        bounds.log_softmax_backward,
    ),
    "cross_entropy": _cross_entropy,
}


def function(
    name: str,
    mine: Callable[..., Any],
    *,
    dtype: Dtype = np.float64,
    seed: int = 0,
    **options: Any,
) -> Report:
    """Compare a function of yours with PyTorch on several random instances.

    Args:
        name: what it computes: a name in scratchnet.functional, such as "linear_backward" or
            "cross_entropy_forward"; arguments, results and their order are as there.
        mine: the function. Arguments are NumPy arrays; it must not change them.
        dtype: float64 (default) or float32.
        seed: of the random values.
        options: for cross-entropy, its ignore_index, reduction and label_smoothing, which `mine`
            is then called with too; for reduction "none" the backward gets a grad_output besides.

    Returns:
        A report with a row for each result and, without options, the cause of what is wrong.

    Raises:
        ValueError: the name is not one of them, or the dtype; or there are options that the
            function lacks.
    """
    family, _, direction = name.rpartition("_")
    allowed = {"ignore_index", "reduction", "label_smoothing"} if family == "cross_entropy" else {}
    if options.keys() - allowed:
        raise ValueError(
            f"options {sorted(options.keys() - allowed)} of {name} can't be compared; "
            f"expected {sorted(allowed) or 'none'}"
        )
    if dtype not in (np.float32, np.float64):
        raise ValueError(f"dtype is {dtype}; expected numpy.float32 or numpy.float64")
    if family not in FUNCTIONS or direction not in ("forward", "backward"):
        raise ValueError(
            f"{name!r} is unknown; expected one of {', '.join(FUNCTIONS)}, with _forward or "
            "_backward behind it"
        )
    report = Report()
    for instance in INSTANCES:
        forward, backward = FUNCTIONS[family](Draw(instance, seed, dtype), **options)
        case = forward if direction == "forward" else backward
        report.differences += _try(instance.name, mine, case)
    if not report.ok and not options and name in diagnose.SUBJECTS:
        report.cause = _cause(name, mine, seed)
    return report


def _cause(name: str, mine: Callable[..., Any], seed: int) -> str:
    """What diagnosis finds; "" if it finds nothing wrong, for its instances are others."""
    verdict = diagnose.function(name, mine, seed=seed)
    return "" if verdict.ok else str(verdict)


def _try(place: str, mine: Callable[..., Any], case: Case) -> Iterator[Difference]:
    """Call the function under test, and compare what it returns, or say why that can't be done."""

    def fail(problem: str) -> list[Difference]:
        return [
            Difference(name, place, theirs.shape, problem=problem)
            for name, (theirs, _) in case.expected.items()
        ]

    arguments = tuple(argument.copy() for argument in case.arguments)
    try:
        results = mine(*arguments, **case.options)
    except (Exception, SystemExit) as error:
        words = " ".join(str(error).split()) or "no message"
        yield from fail(f"is missing: {type(error).__name__}: {words}")
        return
    if any(is_changed(b, a) for a, b in zip(arguments, case.arguments, strict=True)):
        yield from fail("can't be judged: the function has changed its arguments")
        return
    if results is None:
        yield from fail("is missing: None was returned; is there a return?")
        return
    if not isinstance(results, tuple):
        several = isinstance(results, list) and len(case.expected) > 1
        results = tuple(results) if several else (results,)
    if len(results) != len(case.expected):
        expected = ", ".join(case.expected)
        yield from fail(f"can't be told: {len(results)} result(s); expected {expected}")
        return
    for result, (name, (theirs, bound)) in zip(results, case.expected.items(), strict=True):
        # Both sides may be off by the bound.
        yield difference(name, place, result, theirs, 2 * bound)


# ----------------------------------------------------------------------------------------- model


def model(
    forward: Callable[[Parameters, Array], Array],
    backward: Callable[[Parameters, Array, Array], Parameters],
    *,
    dtype: Dtype = np.float64,
    seed: int = 0,
) -> Report:
    """Compare a whole Mnist_NN of yours, loss included, with PyTorch's.

    Args:
        forward: forward(parameters, x) -> logits (N, C), where parameters are "lin1.weight" (H, D),
            "lin1.bias" (H,), "lin2.weight" (C, H) and "lin2.bias" (C,), and x is (N, D).
        backward: backward(parameters, x, target) -> the gradient of the mean cross-entropy, by the
            same names.
        dtype: float64 (default) or float32.
        seed: of the random values.

    Returns:
        A report with a row for the logits and one for each gradient, and the cause of what is
        wrong.
    """
    report = Report()
    for instance in INSTANCES:
        if instance.scale > 10:  # where the logits' errors in float32 are larger than 1
            continue
        draw, (n, d, h) = Draw(instance, seed, dtype), instance[1:4]
        classes = h + 1
        shapes = ((h, d), (h,), (classes, h), (classes,))
        parameters = {
            name: draw.normal(*shape) for name, shape in zip(step.PARAMETERS, shapes, strict=True)
        }
        parameters["lin1.weight"][0] = 0  # a unit that is exactly 0 for every sample,
        parameters["lin1.bias"][0] = 0  # where ReLU's gradient is 0 by agreement
        x, target = draw.normal(n, d), draw.rng.integers(0, classes, n)
        theirs = step.of_pytorch(step.network(parameters), x, target)
        limits = step.estimate(dtype, parameters, x, target)
        names = {"logits": "lin2"} | {name: f"grad {name}" for name in parameters}
        expected = {mine: (theirs[name], limits[name].error) for mine, name in names.items()}

        def both(x: Array, target: Array, parameters: Parameters = parameters) -> tuple[Array, ...]:
            copies = {name: value.copy() for name, value in parameters.items()}
            logits, gradients = forward(copies, x), backward(copies, x, target)
            for name, value in parameters.items():
                if is_changed(value, copies[name]):
                    raise ValueError(f"{name} has been changed; expected gradients only")
            if not isinstance(gradients, dict) or gradients.keys() != parameters.keys():
                found = sorted(gradients) if isinstance(gradients, dict) else type(gradients)
                raise ValueError(f"backward returned {found}; expected a dict of {[*parameters]}")
            return logits, *(gradients[name] for name in parameters)

        report.differences += _try(instance.name, both, Case((x, target), expected))
    if any(each.name != "logits" for each in report.failures):
        report.cause = _cause_of_gradients(backward, seed)
    return report


def _cause_of_gradients(
    backward: Callable[[Parameters, Array, Array], Parameters], seed: int
) -> str:
    """What diagnosis finds in the gradients, in its names for them."""

    def network_backward(x: Array, target: Array, *values: Array) -> Any:
        found = backward(dict(zip(step.PARAMETERS, values, strict=True)), x, target)
        if not isinstance(found, dict):
            return found
        return {f"d{short}": found[name] for short, name in PARAMETERS.items() if name in found}

    cause = _cause("network_backward", network_backward, seed)
    theirs = ", ".join(f"d{short}" for short in PARAMETERS)
    return cause and f"{cause}\n({theirs} are the gradients of {', '.join(PARAMETERS.values())}.)"


# ------------------------------------------------------------------------------------- optimizer


def adam(
    mine: Callable[[Array, Array, Array, Array, int], tuple[Array, Array, Array]],
    *,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float | None = None,
    decoupled: bool = False,
    dtype: Dtype = np.float64,
    seed: int = 0,
) -> Report:
    """Compare a step of Adam of yours, or of AdamW, with PyTorch's.

    Args:
        mine: mine(p, g, m, v, t) -> (p, m, v): parameter, gradient and the two moments, all of one
            shape, and the number of the step, which starts at 1; returns the new ones.
        lr, betas, eps, weight_decay: what `mine` uses; PyTorch's defaults, which for weight_decay
            are 0, and 0.01 if decoupled.
        decoupled: whether it is AdamW.
        dtype: float64 (default) or float32.
        seed: of the random values.

    Returns:
        A report with rows for p, m and v, over gradients of all scales, near eps too. With the
        defaults the cause of what is wrong is told.
    """
    report = Report()
    options: dict[str, Any] = {
        "lr": lr,
        "betas": betas,
        "eps": eps,
        "weight_decay": 0.01 * decoupled if weight_decay is None else weight_decay,
        "decoupled": decoupled,
    }
    rng = np.random.default_rng(seed)
    for t in (1, 2, 3, 100):
        for scale in (1e-10, 1e-8, 1e-3, 1e2):
            p, g = rng.normal(size=12).astype(dtype), (scale * rng.normal(size=12)).astype(dtype)
            # Moments of gradients like this one; 0 before the first step.
            m = (scale * rng.normal(size=12) * (t > 1)).astype(dtype)
            v = (scale**2 * rng.random(12) * (t > 1)).astype(dtype)
            theirs = step.adam_of_pytorch(p, g, m, v, t, **options)
            limits = propagation.adam(dtype, p, g, m, v, t, **options)
            errors = (limits.parameter.error, limits.exp_avg.error, limits.exp_avg_sq.error)
            expected = dict(zip("pmv", zip(theirs, errors, strict=True), strict=True))
            place = f"step {t}, gradients around {scale:g}"
            numbered = functools.partial(_numbered, mine, t)
            report.differences += _try(place, numbered, Case((p, g, m, v), expected))
    ours = {"lr": lr, "beta1": betas[0], "beta2": betas[1], "eps": eps}
    if not report.ok and ours == diagnose.SUBJECTS["adam"].known and not options["weight_decay"]:
        report.cause = _cause("adam", mine, seed)
    return report


def _numbered(mine: Callable[..., Any], t: int, *arrays: Array) -> Any:
    return mine(*arrays, t)
