"""An outside suite: the cases that PyTorch tests its own modules and optimizers with.

They lie in the installed wheel, in torch.testing._internal: constructor arguments, inputs, for many
a reference function, and arguments that must be refused. Nobody chose them with scratchnet in mind.
Each case in float32 and in float64 either runs here, or is left out for a reason in `REASONS`; the
end of pytest's output has the counts, and `-rs` the reasons.

OneCycleLR has no cases there: PyTorch's optimizer tests are run with other schedules.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import itertools
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from dataclasses import replace as with_
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

from reference import bounds
from reference.bounds import Classification, Dtype
from scratchnet import backend, functional, nn, optim
from scratchnet.backend import Array
from tests.test_functional import assert_within, torch_with_gradients
from tests.test_optim import Pair, gradients

# The name of each class, and how many of its cases fit at least, in the two dtypes together:
# as many as in torch 2.14. With fewer, something has moved, and the suite would pass for nothing.
MODULES = {
    "Linear": 4,
    "ReLU": 8,
    "Sigmoid": 8,
    "Softmax": 4,
    "LogSoftmax": 4,
    "CrossEntropyLoss": 30,
}
OPTIMIZERS = {"Adam": 10, "AdamW": 10, "SGD": 16}


@dataclass(frozen=True)
class Case:
    """One of PyTorch's cases in one dtype."""

    name: str  # of the class
    dtype: Dtype
    info: Any  # the class' entry in PyTorch's table
    sample: Any  # the arguments
    error: Any = None  # what PyTorch raises, for arguments that must be refused

    @property
    def label(self) -> str:
        described: str = self.sample.desc or (self.error.error_regex if self.error else "plain")
        return described.replace("__", "_")

    @property
    def id(self) -> str:
        return f"{self.name}-{self.label}-{self.dtype.__name__}"

    @property
    def options(self) -> dict[str, Any]:
        """The constructor's keyword arguments."""
        sample = self.sample
        options: dict[str, Any] = (
            sample.kwargs if self.name in OPTIMIZERS else sample.constructor_input.kwargs
        )
        return options

    @property
    def arguments(self) -> tuple[Any, ...]:
        """The constructor's positional arguments."""
        return tuple(self.sample.constructor_input.args)

    @property
    def inputs(self) -> list[torch.Tensor]:
        """What the module is called with: x, and for a loss the target."""
        given = self.sample.forward_input
        return [*given.args, *given.kwargs.values()]

    @property
    def reason(self) -> str | None:
        """Why the case doesn't fit; None if it does."""
        reasons = REASONS["optimizer" if self.name in OPTIMIZERS else self.name]
        return next((reason for reason, applies in reasons.items() if applies(self)), None)


# ------------------------------------------------------------------------ what doesn't fit, and why


def moved(xp: ModuleType, value: Any) -> Any:
    return xp.asarray(value.numpy()) if isinstance(value, torch.Tensor) else value


def classification(case: Case, grad_output: Array | float) -> Classification:
    """A case of the cross-entropy as `bounds` takes it."""
    logits, target = (tensor.numpy() for tensor in case.inputs)
    options = {name: moved(np, value) for name, value in case.options.items()}
    return Classification.of(logits, target, **options, grad_output=grad_output)


def axes(case: Case) -> int:
    return case.inputs[0].dim()


def is_of_probabilities(case: Case) -> bool:
    x, target = case.inputs
    return target.is_floating_point() and target.shape == x.shape


def is_along_another_axis(case: Case) -> bool:
    dim = {**dict(zip(["dim"], case.arguments, strict=False)), **case.options}["dim"]
    return bool(dim % axes(case) != axes(case) - 1)


def parameters(case: Case) -> list[Any]:
    """What the optimizer is to train; most cases leave it to the test."""
    given = case.sample.params
    return [] if given is None or isinstance(given, torch.Tensor) else list(given)


def has_tensor(case: Case) -> bool:
    groups = (v if isinstance(v, tuple) else (v,) for v in case.options.values())
    return any(isinstance(v, torch.Tensor) for group in groups for v in group)


ROWWISE: dict[str, Callable[[Case], bool]] = {
    "an invalid dim; scratchnet's takes none": lambda case: case.error is not None,
    "a number, which has no last axis": lambda case: axes(case) == 0,
    "an axis other than the last": is_along_another_axis,
}
BY_TORCH_ALONE = {"foreach", "fused", "capturable", "differentiable"}

REASONS: dict[str, dict[str, Callable[[Case], bool]]] = {
    "Linear": {
        "no batch dimension": lambda case: axes(case) == 1,
        "more than 2 dimensions": lambda case: axes(case) > 2,
    },
    "ReLU": {},
    "Sigmoid": {},
    "Softmax": ROWWISE,
    "LogSoftmax": ROWWISE,
    "CrossEntropyLoss": {
        "class probabilities as target": is_of_probabilities,
        "no batch dimension": lambda case: axes(case) == 1,
        "more than 2 dimensions": lambda case: axes(case) > 2,
    },
    "optimizer": {
        "parameter groups": lambda case: any(isinstance(p, dict) for p in parameters(case)),
        "named parameters": lambda case: any(isinstance(p, tuple) for p in parameters(case)),
        "an option that is a tensor": has_tensor,
        "foreach, fused, capturable or differentiable": lambda case: bool(
            BY_TORCH_ALONE & case.options.keys()
        ),
        "an option that scratchnet hasn't": lambda case: bool(
            case.options.keys() - inspect.signature(getattr(optim, case.name)).parameters.keys()
        ),
    },
}

# Cases that fit, and that scratchnet doesn't pass.
DIFFERENCES: dict[tuple[str, str], str] = {}


# ----------------------------------------------------------------------------- where they come from


def import_tables() -> Iterator[tuple[str, Any]]:
    """PyTorch's entry for each class.

    These private modules need expecttest, which is in the extra `test`. On import they may warn,
    and read pytest's arguments as their own; and from then on they forbid assignments to
    torch.backends, which no test makes.
    """
    with warnings.catch_warnings(), mock.patch.object(sys, "argv", sys.argv[:1]):
        warnings.simplefilter("ignore")
        of_modules = importlib.import_module("torch.testing._internal.common_modules")
        of_optimizers = importlib.import_module("torch.testing._internal.common_optimizers")
    for info in of_modules.module_db:
        if info.module_cls in [getattr(torch.nn, name) for name in MODULES]:
            yield info.module_cls.__name__, info
    for info in of_optimizers.optim_db:
        if info.optim_cls in [getattr(torch.optim, name) for name in OPTIMIZERS]:
            yield info.optim_cls.__name__, info


def draw(name: str, info: Any, dtype: Dtype, seed: int) -> list[Case]:
    """The cases of a class, with random inputs."""
    options: dict[str, Any] = {"device": "cpu", "dtype": getattr(torch, dtype.__name__)}
    if name in OPTIMIZERS:
        make, refuse = info.optim_inputs_func, info.optim_error_inputs_func
    else:
        make, refuse = info.module_inputs_func, getattr(info, "module_error_inputs_func", None)
        options |= {"module_info": info, "requires_grad": False, "training": True}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        cases = [Case(name, dtype, info, sample) for sample in make(**options)]
        for error in refuse(**options) if refuse else []:
            kind = "optimizer" if name in OPTIMIZERS else "module"
            cases.append(Case(name, dtype, info, getattr(error, f"{kind}_error_input"), error))
    return cases


def is_nan(case: Case) -> bool:
    """A mean of samples that are all ignored."""
    fits = case.name == "CrossEntropyLoss" and not case.error and not case.reason
    return fits and classification(case, 1.0).denominator == 0


def draw_numbers(name: str, info: Any, dtype: Dtype) -> list[Case]:
    """The same in each run: by the first seed whose losses are numbers."""
    draws = (draw(name, info, dtype, seed) for seed in itertools.count())
    return next(cases for cases in draws if not any(map(is_nan, cases)))


def find() -> tuple[list[Case], str]:
    """All cases; or none, and what has gone wrong."""
    try:
        tables, dtypes = list(import_tables()), (np.float32, np.float64)
        return [c for table in tables for t in dtypes for c in draw_numbers(*table, t)], ""
    except (ImportError, AttributeError, TypeError) as error:
        return [], (
            f"torch {torch.__version__}'s own cases can't be read: {error!r}. Is all of "
            "scratchnet[test] installed? Then this release has moved them."
        )


CASES, TROUBLE = find()
LEFT_OUT = [case for case in CASES if case.reason]
FITTING = [case for case in CASES if not case.reason]


def fitting(names: dict[str, int], *, refused: bool) -> pytest.MarkDecorator:
    chosen = [c for c in FITTING if c.name in names and (c.error is not None) == refused]
    return pytest.mark.parametrize("case", chosen, ids=[case.id for case in chosen])


# -------------------------------------------------------------------------------------- the modules


class LogSoftmax(nn.Module):
    """A layer of the function, since scratchnet has none."""

    def forward(self, x: Array) -> Array:
        self._saved = x
        return functional.log_softmax_forward(x)

    def backward(self, grad_output: Array) -> Array:
        return functional.log_softmax_backward(grad_output, self._saved)


def torch_module(case: Case) -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module: torch.nn.Module = case.info.module_cls(*case.arguments, **case.options)
    return module.to(getattr(torch, case.dtype.__name__))


def our_module(xp: ModuleType, case: Case, weights: dict[str, Array]) -> Any:
    """The same layer or loss, with the same weights."""
    if case.name == "Linear":
        device = "cpu" if xp is np else "cuda"
        layer = nn.Linear(*case.arguments, **case.options, device=device, dtype=case.dtype)
        layer.load_state_dict({name: xp.asarray(value) for name, value in weights.items()})
        return layer
    if case.name == "CrossEntropyLoss":
        there = {name: moved(xp, value) for name, value in case.options.items()}
        return nn.CrossEntropyLoss(**there)
    return LogSoftmax() if case.name == "LogSoftmax" else getattr(nn, case.name)()


def error_bounds(
    dtype: Dtype, case: Case, weights: dict[str, Array], grad_output: Array
) -> list[Array]:
    """How far the output and the gradients of x and of the weights, computed in dtype, may be off.

    ReLU is exact.
    """
    x = case.inputs[0].numpy()
    if case.name == "Linear":
        weight, bias = weights["weight"], weights.get("bias")
        return [
            bounds.linear(dtype, x, weight, bias),
            bounds.linear_grad_x(dtype, grad_output, weight),
            bounds.linear_grad_weight(dtype, grad_output, x),
            bounds.linear_grad_bias(dtype, grad_output),
        ][: 2 + len(weights)]
    if case.name == "ReLU":
        return [np.zeros_like(x), np.zeros_like(x)]
    if case.name == "CrossEntropyLoss":
        problem = classification(case, grad_output)
        positive, condition = positively_weighted(problem)
        errors = bounds.cross_entropy, bounds.cross_entropy_backward
        return [np.asarray(condition**2 * error(dtype, positive)) for error in errors]
    name = "log_softmax" if case.name == "LogSoftmax" else case.name.lower()
    backward = getattr(bounds, f"{name}_backward")(dtype, grad_output, x)
    return [getattr(bounds, name)(dtype, x), backward]


def positively_weighted(problem: Classification) -> tuple[Classification, float]:
    """The problem with |w| for the class weights w, and κ = Σ|w_y| / |Σ w_y|, 1 except for a mean.

    PyTorch draws weights of both signs, for which the bounds aren't made. With them the numerator's
    error is no larger than with |w|; the denominator is κ times smaller, and its relative error,
    which counts κ times as much, again meets a loss that may be κ times larger: κ² in all.
    """
    if problem.weight is None:
        return problem, 1.0
    positive = with_(problem, weight=np.abs(problem.weight))
    return positive, positive.denominator / abs(problem.denominator)


def detour(case: Case) -> int:
    """How many times our bound the error of the case's reference function may be.

    Its LogSoftmax is log(exp(x) / Σ): with C classes log p has the error 9u |log p|, where we have
    2u |z|, and the gradient g/p · p the index 2C + 40 in g, where we have 1. The others go our way.
    """
    return 2 * case.inputs[0].shape[-1] + 40 if case.name == "LogSoftmax" else 1


@fitting(MODULES, refused=False)
def test_module_is_pytorchs_and_the_references(
    xp: ModuleType, case: Case, request: pytest.FixtureRequest
) -> None:
    """The output, and for a random upstream gradient the gradients of x and of the weights."""
    expect(case, request, xp)
    module = torch_module(case)
    weights = {name: p.detach().numpy() for name, p in module.named_parameters()}
    x, *target = case.inputs
    shape = module(*case.inputs).shape
    g = np.asarray(np.random.default_rng(0).normal(size=shape), case.dtype)

    ours = our_module(xp, case, weights)
    results = [ours(*(moved(xp, tensor) for tensor in case.inputs)), ours.backward(xp.asarray(g))]
    results += [p.grad for _, p in ours.named_parameters()] if weights else []
    actual = [backend.to_numpy(xp.asarray(result)) for result in results]
    assert {result.dtype for result in actual} == {np.dtype(case.dtype)}

    arrays = x.numpy(), *weights.values()
    bound, wide = (error_bounds(t, case, weights, g) for t in (case.dtype, np.float64))
    precise = copy.deepcopy(module).double()

    def in_float64(x: torch.Tensor, *p: torch.Tensor) -> torch.Tensor:
        named = dict(zip(weights, p, strict=True))
        y: torch.Tensor = torch.func.functional_call(precise, named, (x, *target))
        return y

    expected = torch_with_gradients(in_float64, g, *arrays, dtype=np.float64)
    for result, truth, error, rest in zip(actual, expected, bound, wide, strict=True):
        assert_within(result, truth, error + rest)

    if case.sample.reference_fn is None:
        return
    # Without the wrapper, which copies its inputs and so cuts off their gradients.
    function = case.sample.reference_fn.__wrapped__
    # Some references write over exp(x), whose backward needs it.
    with torch.autograd.graph.allow_mutation_on_saved_tensors():
        expected = torch_with_gradients(
            lambda x, *p: function(module, p, x, *target), g, *arrays, dtype=case.dtype
        )
    for result, truth, error in zip(actual, expected, bound, strict=True):
        assert_within(result, truth, error + detour(case) * error)


@fitting(MODULES, refused=True)
def test_module_refuses_what_pytorchs_refuses(
    xp: ModuleType, case: Case, request: pytest.FixtureRequest
) -> None:
    expect(case, request, xp)
    with pytest.raises(case.error.error_type, match=case.error.error_regex):
        torch_module(case)(*case.inputs)
    with pytest.raises((TypeError, ValueError), match="expected"):
        our_module(xp, case, {})(*(moved(xp, tensor) for tensor in case.inputs))


# ----------------------------------------------------------------------------------- the optimizers


@fitting(OPTIMIZERS, refused=False)
def test_optimizer_is_pytorchs_in_twelve_steps(
    xp: ModuleType, case: Case, request: pytest.FixtureRequest
) -> None:
    """On the weight and the bias that PyTorch's own test has, with random gradients."""
    expect(case, request, xp)
    rng, shapes = np.random.default_rng(0), [(10, 5), (10,)]
    values = [np.asarray(rng.normal(size=shape), case.dtype) for shape in shapes]
    pair = Pair(xp, case.name, case.options, values, True)
    for _ in range(12):
        pair.step([gradients(rng, shape, case.dtype) for shape in shapes])
    # The bound of Pair.assert_together, which has the u of float64, with that of either dtype.
    u, steps = bounds.unit_roundoff(case.dtype), pair.steps
    bound = steps * u * (8 * pair.largest + 64 * steps * pair.condition * pair.moved)
    for (ours, theirs), value in zip(pair.values(), values, strict=True):
        assert ours.dtype == theirs.dtype == case.dtype
        assert (theirs != value).any()
        assert abs(ours - theirs).max() <= bound


@fitting(OPTIMIZERS, refused=True)
def test_optimizer_refuses_what_pytorchs_refuses(
    xp: ModuleType, case: Case, request: pytest.FixtureRequest
) -> None:
    expect(case, request, xp)
    given = case.sample.params
    given = [torch.ones(1, requires_grad=True)] if given is None else given
    with pytest.raises(case.error.error_type, match=case.error.error_regex):
        case.info.optim_cls(given, **case.options)
    ours: dict[torch.Tensor, nn.Parameter] = {
        p: nn.Parameter(xp.asarray(p.detach().numpy()))
        for p in ([given] if isinstance(given, torch.Tensor) else given)
    }
    same: Any = ours[given] if isinstance(given, torch.Tensor) else [ours[p] for p in given]
    with pytest.raises((TypeError, ValueError)):
        getattr(optim, case.name)(same, **case.options)


# --------------------------------------------------------------------------------------- the counts


def expect(case: Case, request: pytest.FixtureRequest, xp: ModuleType) -> None:
    """Count the case, and expect it to fail if it is a known difference."""
    request.node.user_properties.append((COUNTED, heading(case)))
    difference = DIFFERENCES.get((case.name, case.label))
    if difference:
        request.applymarker(pytest.mark.xfail(reason=difference, strict=xp is np))


COUNTED = "PyTorch's case"


def heading(case: Case) -> str:
    return f"{case.name}, refused" if case.error else case.name


class Summary:
    """Adds a table to the end of pytest's output."""

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        def outcomes(kind: str) -> Counter[str]:
            reports = terminalreporter.stats.get(kind, [])
            counted = (dict(report.user_properties).get(COUNTED) for report in reports)
            return Counter(name for name in counted if name)

        found, left_out = (Counter(map(heading, cases)) for cases in (CASES, LEFT_OUT))
        passed, known, failed = (outcomes(kind) for kind in ("passed", "xfailed", "failed"))
        columns = {"found": found, "left out": left_out, "run": passed + known + failed}
        columns |= {"passed": passed, "differ": known}
        terminalreporter.section(f"PyTorch {torch.__version__}'s own cases")
        rows = [(name, [column[name] for column in columns.values()]) for name in found]
        total = [column.total() for column in columns.values()]
        for name, cells in [("in float32 and float64", columns), *rows, ("in all", total)]:
            terminalreporter.write_line(f"{name:26}" + "".join(f"{cell:>10}" for cell in cells))


@pytest.fixture(scope="module", autouse=True)
def _summary(request: pytest.FixtureRequest) -> None:
    if CASES and not request.config.pluginmanager.has_plugin(COUNTED):
        request.config.pluginmanager.register(Summary(), COUNTED)


@pytest.mark.parametrize("case", LEFT_OUT, ids=[case.id for case in LEFT_OUT])
def test_left_out(case: Case) -> None:
    pytest.skip(f"{case.name}: {case.reason}")


def test_all_cases_are_found_and_each_is_run_or_left_out() -> None:
    assert not TROUBLE, TROUBLE
    reasons = Counter(case.reason for case in CASES)
    runs = Counter(case.name for case in FITTING if not case.error)
    assert len(CASES) == len(FITTING) + len(LEFT_OUT) == reasons.total()
    assert reasons[None] == len(FITTING) > 0
    for name, least in (MODULES | OPTIMIZERS).items():
        assert runs[name] >= least, f"{name}: {runs[name]} cases fit, {least} in torch 2.14"
    for name in OPTIMIZERS:
        assert any(c.error and c.name == name for c in FITTING), f"{name}: no case that is refused"
    known = {(case.name, case.label) for case in FITTING}
    assert known >= DIFFERENCES.keys(), "a known difference is no case any more"
