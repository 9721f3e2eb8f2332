"""What each array should be, given the arrays that the learner has made before it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from scratchnet.backend import Array
from scratchnet.study.answers import Answer, copy, is_changed
from scratchnet.study.mistakes import Formula
from scratchnet.study.subjects import Instance, Step, Subject, Values


class Truth(NamedTuple):
    """An array as it should be, and by how much a right answer may round differently."""

    value: Array
    bound: Array


@functools.cache
def parameters(formula: Callable[..., Any]) -> tuple[list[str], list[str]]:
    """The names of all parameters of a formula, and of those without a default."""
    found = inspect.signature(formula).parameters.values()
    return [p.name for p in found], [p.name for p in found if p.default is p.empty]


def call(formula: Callable[..., Any], values: Values) -> Any:
    """A formula of the values that its parameters name."""
    names, _ = parameters(formula)
    return formula(**{name: values[name] for name in names if name in values})


def renamed(step: Step, values: Values) -> Values:
    """Values by the names that the operation of a step has for them, besides their own."""
    return values | {own: values[name] for own, name in step.names.items() if name in values}


def for_formulas(step: Step, values: Values) -> Values:
    """All that a wrong formula of this step may ask for."""
    own = {argument: values[name] for argument, name in step.names.items() if name in values}
    return values | call(step.operation.derived, values | own) | own


class Chain:
    """The steps of a subject, followed from an instance's inputs to the last array.

    Where the learner has returned an array, it is what the next steps start from. That is what
    "right, given your dz1" means.
    """

    def __init__(self, subject: Subject, answer: Answer) -> None:
        self.subject, self.answer = subject, answer
        self._truths: dict[frozenset[tuple[str, Formula]], dict[str, Truth]] = {}

    def inputs(self) -> Values:
        """Copies of the inputs in float64, of the options, and of what everyone knows."""
        instance = self.answer.instance
        values = dict(self.subject.known) | instance.inputs | instance.options
        return {
            name: np.array(value, np.float64) if _is_float(value) else copy(value)
            for name, value in values.items()
        }

    def follow(self, wrong: Mapping[str, Formula], until: Step) -> Values:
        """Inputs and arrays up to a step, as they are if some steps are done by wrong formulas."""
        values = self.inputs()
        for step in self.subject.steps:
            if step.name in wrong:
                made = call(wrong[step.name], for_formulas(step, values))
            else:
                made = call(step.operation.right, renamed(step, values))
            made = np.asarray(made, np.float64)
            if step is until:
                return values | {step.name: made}
            values[step.name] = self._found(step, made)
        raise LookupError(f"{self.subject.name} has no step {until.name}")

    def truth(self, step: Step, assumed: Mapping[str, Formula] | None = None) -> Truth:
        """An array as it should be, given the learner's upstream arrays.

        Args:
            step: which.
            assumed: the wrong formulas, by steps' names, that explain what is not returned.
        """
        key = frozenset((assumed or {}).items())
        if key not in self._truths:
            self._truths[key] = dict(self._all_truths(assumed or {}))
        return self._truths[key][step.name]

    def _all_truths(self, assumed: Mapping[str, Formula]) -> Iterator[tuple[str, Truth]]:
        values, u = self.inputs(), self.answer.u
        sizes = {name: abs(value) for name, value in values.items() if _is_float(value)}
        roundings = _roundings(self.subject, self.answer.instance)
        underflow = float(np.finfo(np.float64 if u < 2.0**-24 else np.float32).tiny)
        for step in self.subject.steps:
            v = for_formulas(step, values)
            s = sizes | {arg: sizes[name] for arg, name in step.names.items() if name in sizes}
            formula = assumed.get(step.name, step.operation.right)
            made = np.asarray(call(formula, v), np.float64)
            size = np.asarray(step.operation.size(SimpleNamespace(**v), SimpleNamespace(**s)))
            yield step.name, Truth(made, roundings * (u * size + underflow))
            values[step.name] = self._found(step, made)
            sizes[step.name] = size if values[step.name] is made else abs(values[step.name])

    def _found(self, step: Step, made: Array) -> Array:
        """The learner's array, if it can stand in the place of one that was made."""
        found = self.answer.found.get(step.name)
        return made if found is None or found.shape != made.shape else found.copy()

    def upstream(self, step: Step) -> Values:
        """What a formula of this step may ask for."""
        return for_formulas(step, self.follow({}, step))

    def changed(self, values: Values) -> set[str]:
        """The inputs that are not as they were."""
        return {name for name, value in self.inputs().items() if is_changed(value, values[name])}


def _is_float(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


def _roundings(subject: Subject, instance: Instance) -> int:
    """How many roundings an array can have at most, in units of u times its size.

    A sum of n terms has n, in whatever order it is taken. From a network's inputs to its last
    gradient each size is summed over once or twice (C in the softmax and in dh, the others in one
    product each), and other ways of writing, such as a Jacobian, double that: 4 times the sum of
    all sizes, and as much again for the truth, which is rounded, too. Products, quotients, exp and
    log, of a few ulps each, are less than 64.
    """
    return 8 * sum(subject.dims(instance.inputs).values()) + 64


# ---------------------------------------------------------------------------- found beside truth


class Seen(NamedTuple):
    """An array on one instance: as it was found, and as it should be given what is upstream."""

    chain: Chain
    found: Array
    truth: Truth

    @property
    def instance(self) -> str:
        """The instance's name."""
        return self.chain.answer.instance.name

    @property
    def dims(self) -> dict[str, int]:
        """Its sizes by their letters."""
        return self.chain.subject.dims(self.chain.answer.instance.inputs)

    @property
    def is_single(self) -> bool:
        """Whether float32 took part."""
        return self.chain.answer.u > 2.0**-53

    @property
    def fits(self) -> bool:
        """Whether it has the right shape, so that entries can be compared."""
        return self.found.shape == self.truth.value.shape

    @property
    def is_right(self) -> bool:
        """Whether it has the right shape, and rounding explains all of the difference."""
        return is_right(self.found, self.truth)

    @property
    def wrong_entries(self) -> Array:
        """A mask of the entries that rounding can't explain."""
        return _wrong_entries(self.found, self.truth)


class Case(NamedTuple):
    """An array of a subject, on every instance on which it was found."""

    step: Step
    seen: list[Seen]

    @property
    def wrong(self) -> list[Seen]:
        """The instances on which it is wrong."""
        return [each for each in self.seen if not each.is_right]


def is_right(found: Array, truth: Truth) -> bool:
    """Whether an array has the right shape, and rounding explains all of the difference."""
    return found.shape == truth.value.shape and not _wrong_entries(found, truth).any()


def _wrong_entries(found: Array, truth: Truth) -> Array:
    """inf and nan have to be just where they are in the truth."""
    near = abs(found - truth.value) <= truth.bound
    alike = (found == truth.value) | (np.isnan(found) & np.isnan(truth.value))
    return np.asarray(~(near | alike))
