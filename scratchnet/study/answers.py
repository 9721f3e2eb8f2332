"""Asking a function: what it returns, raises, changes and remembers, before any truth is known."""

from __future__ import annotations

import inspect
import re
import sysconfig
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from scratchnet import backend
from scratchnet.backend import Array
from scratchnet.study.subjects import Instance, Subject, Values
from scratchnet.study.verdicts import Finding

# Of a traceback, the learner's own code is what is in none of these.
OTHERS = (
    str(Path(backend.__file__).parent),
    str(Path(np.__file__).parent),
    *(sysconfig.get_path(key) for key in ("stdlib", "platstdlib", "purelib", "platlib")),
)


@dataclass
class Answer:
    """What a function has made of an instance.

    Attributes:
        instance: the instance.
        found: the arrays that it has returned, in float64, by name.
        integers, single: the names of those that were of integers, of float32.
        problem: why what it has returned can't be read; "" if it can.
        error: what it has raised.
        changed: the inputs that it has changed.
        only_rounded: whether they were put back, and differ by rounding only.
        is_by_name: whether the results have come by their names, in a dict.
    """

    instance: Instance
    found: dict[str, Array] = field(default_factory=dict)
    integers: set[str] = field(default_factory=set)
    single: set[str] = field(default_factory=set)
    problem: str = ""
    error: BaseException | None = None
    changed: tuple[str, ...] = ()
    only_rounded: bool = False
    is_by_name: bool = False

    @property
    def u(self) -> float:
        """The unit roundoff of the least precise array that took part: 2^-53, or 2^-24."""
        inputs = [value for value in self.instance.inputs.values() if isinstance(value, np.ndarray)]
        is_single = self.single or any(value.dtype == np.float32 for value in inputs)
        return 2.0**-24 if is_single else 2.0**-53

    def take(self, returned: Mapping[str, Any]) -> None:
        """Keep arrays as float64, or say why one is none."""
        for name, value in returned.items():
            try:
                array = backend.asarray(value, "cpu")
            except Exception:  # a list of unequal lists, or a tensor that must not be read
                array = np.asarray(None)
            if array.dtype.kind not in "fiub":
                kind = type(value).__name__
                of = f" of {array.dtype}" if isinstance(value, np.ndarray) else ""
                self.problem = f"returns {name} as {kind}{of}; expected an array of floats"
                return
            if array.dtype.kind != "f":
                self.integers.add(name)
            if array.dtype == np.float32:
                self.single.add(name)
            self.found[name] = np.array(array, np.float64)


def accepts(mine: Callable[..., Any], options: Values) -> bool:
    """Whether a function has parameters of these names; **kwargs alone is none."""
    if not options:
        return True
    try:
        return options.keys() <= inspect.signature(mine).parameters.keys()
    except (TypeError, ValueError):  # of a function that is not written in Python
        return False


def ask(subject: Subject, mine: Callable[..., Any], instance: Instance) -> Answer:
    """Call the function with copies of the instance's values, and keep what it returns."""
    answer = Answer(instance)
    names = subject.given or tuple(subject.inputs)
    arguments = {name: copy(instance.inputs[name]) for name in names}
    options = {name: copy(value) for name, value in instance.options.items()}
    _spoil_free_memory(subject, instance)
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            returned = mine(*arguments.values(), **options)
    except (Exception, SystemExit) as error:
        answer.error = error
        return answer
    before, after = instance.inputs | instance.options, arguments | options
    answer.changed = tuple(name for name in after if is_changed(before[name], after[name]))
    answer.only_rounded = all(_is_rounded(before[name], after[name]) for name in answer.changed)
    answer.is_by_name = isinstance(returned, Mapping)
    returned = _by_name(returned, subject.results)
    if isinstance(returned, str):
        answer.problem = returned
    else:
        steps = [step.name for step in subject.steps]
        answer.take({name: value for name, value in returned.items() if name in steps})
    return answer


def _spoil_free_memory(subject: Subject, instance: Instance) -> None:
    """Leave nan where np.empty may look for an array's memory: a truth of before may be there.

    NumPy keeps the last seven blocks of each small size, and larger ones are the allocator's.
    """
    dims = subject.dims(instance.inputs)
    for step in subject.steps:
        for dtype in (np.float32, np.float64):
            shape = [dims[letter] for letter in step.axes]
            _ = [np.full(shape, np.nan, dtype) for _ in range(8)]


def _by_name(returned: Any, names: tuple[str, ...]) -> Mapping[str, Any] | str:
    """What was returned, by the names of the results; or why that can't be."""
    expected = f"expected {', '.join(names)}"
    if returned is None:
        return f"returns None; {expected}: is there a return?"
    if isinstance(returned, Mapping):
        missing = [name for name in names if name not in returned]
        return f"returns a dict without {', '.join(missing)}; {expected}" if missing else returned
    stacked = isinstance(returned, np.ndarray) and len(returned.shape) > 1
    several = isinstance(returned, tuple) or (
        len(names) > 1 and (isinstance(returned, list) or (stacked and len(returned) == len(names)))
    )
    values = tuple(returned) if several else (returned,)
    if len(values) != len(names):
        return f"returns {len(values)} value{'s' * (len(values) != 1)}; {expected}"
    return dict(zip(names, values, strict=True))


def copy(value: Any) -> Any:
    """A copy of an array; everything else is as it is."""
    return value.copy() if isinstance(value, np.ndarray) else value


def is_changed(before: Any, after: Any) -> bool:
    """Whether an array has changed, to the last bit."""
    if not isinstance(before, np.ndarray):
        return False
    return before.shape != after.shape or before.tobytes() != after.tobytes()


def _is_rounded(before: Array, after: Array) -> bool:
    """Whether three sums, + h - 2 h + h, may have left the difference, with h as large as it."""
    if before.shape != after.shape or before.dtype.kind != "f":
        return False
    slack = 3 * np.finfo(before.dtype).eps * abs(before[np.isfinite(before)]).max(initial=0)
    return np.allclose(after, before, rtol=0, atol=slack, equal_nan=True)


# -------------------------------------------------------------------------------------- findings


def unreadable(subject: Subject, answer: Answer) -> Finding:
    """The finding that what was returned is not what is expected."""
    evidence = {"instance": answer.instance.name}
    return Finding("", "results", f"{subject.name} {answer.problem}", evidence=evidence)


def disordered(subject: Subject, place: Mapping[str, str], is_by_name: bool) -> list[Finding]:
    """The finding that each result is right, but stands where its place is; none if all stand well.

    Args:
        subject: what was judged.
        place: for each result, as which it was returned.
        is_by_name: whether in a dict, which has no order.
    """
    swapped = {was: name for name, was in place.items()}
    moved = [f"{was} is what {name} should be" for was, name in swapped.items() if was != name]
    if not moved:
        return []
    if is_by_name:
        message = f"{subject.name}: {' and '.join(moved)}: right arrays under other names"
        return [Finding("", "order", message, hint="look at the names in the dict")]
    given = ", ".join(swapped[name] for name in subject.results)
    expected = ", ".join(subject.results)
    message = (
        f"{subject.name} returns {given}, each of them right; expected {expected}, in this order"
    )
    return [Finding("", "order", message, hint="look at the return")]


def raised(subject: Subject, answer: Answer) -> Finding:
    """What was raised, in which line, and which sizes it speaks of."""
    error, place = answer.error, answer.instance.name
    words = " ".join(str(error).split()) or "no message"
    sizes = [
        f"{size} is {letter}"
        for letter, size in subject.dims(answer.instance.inputs).items()
        if size > 2 and size in _sizes(words)
    ]
    line = line_of(error)
    at = f" in line {line}" if line else ""
    meaning = f" ({', '.join(sizes)})" if sizes else ""
    return Finding(
        "",
        "exception",
        f"{subject.name} raises {type(error).__name__}{at}: {words}{meaning}, on '{place}'",
        where={"line": line} if line else {},
        evidence={"instance": place, "error": error},
        hint=_hint(words, bool(sizes)),
    )


def _hint(words: str, of_sizes: bool) -> str:
    """Where to look, of two messages of NumPy's that say little to who has not met them."""
    if "truth value of an array" in words:
        return "max, min, if and `and` take one number: np.maximum and np.where take every entry"
    return "look at the shapes of what meets in that line" if of_sizes else ""


def _sizes(words: str) -> set[int]:
    """The numbers in a message that are sizes, as far as its words tell."""
    if not re.search(r"\b(shape|size)s?\b", words):
        return set()
    rest = re.sub(r"\b(index|axis|dim) -?\d+", "", words)
    return {int(number) for number in re.findall(r"(?<![\w.])\d+(?![\w.])", rest)}


def line_of(error: BaseException | None) -> int | None:
    """The last line of the learner's own code that an error went through."""
    frames = traceback.extract_tb(error.__traceback__) if error else []
    own = [frame.lineno for frame in frames if not frame.filename.startswith(OTHERS)]
    return own[-1] if own else None


@backend.ieee
def compare_calls(first: Answer, second: Answer) -> Finding | None:
    """The finding that a second call with the same inputs gives another answer."""
    if first.error or first.problem:
        return None
    for name, found in first.found.items():
        again = second.found.get(name)
        if again is not None and _nearly_equal(again, found):
            continue
        evidence: dict[str, Any] = {"instance": first.instance.name}
        cause = "something is kept between calls, or random, or never set in an array of np.empty"
        if again is not None and found.any() and _nearly_equal(again, 2 * found):
            cause = "it is twice the first, so the calls add up; start anew in each"
            evidence["ratio"] = 2.0
        return Finding(
            name,
            "second call",
            f"{name} is another at the second call with the same inputs: {cause}",
            where={"step": name},
            evidence=evidence,
            hint="look for global variables, default arguments that are lists or arrays, += on "
            "arrays made outside, and random numbers",
        )
    return None


def _nearly_equal(a: Array, b: Array) -> bool:
    """Up to what another place in memory may do to the order of sums, in float32 too.

    A sum of the 784 pixels of a digit is off by a few times √784 2^-24 = 2e-6 of what is in it.
    """
    if a.shape != b.shape:
        return False
    slack = 1e-5 * abs(b[np.isfinite(b)]).max(initial=0)
    return np.allclose(a, b, rtol=0, atol=slack, equal_nan=True)
