"""What the checks of the exercises share: finding the learner's functions, and judging them.

Most functions are judged by `diagnose.function`: see `judge`. For what it has no subject, the check
has a right formula and a few wrong ones of its own: see `judge_by`. What is typed in, a shape or a
prediction, is compared by the check itself. The verdicts are of the same kind in all three: a cause
with a name, and a sentence that tells it.
"""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from scratchnet.backend import Array
from scratchnet.study import diagnose
from scratchnet.study.answers import is_changed, line_of
from scratchnet.study.verdicts import Finding, Verdict, apart

Function: TypeAlias = Callable[..., Any]

# All values are of the order of 1, and sums have far less than a million terms: rounding in float64
# is below 1e6 · 2^-53 = 1e-10, in whatever order one sums.
SLACK = 1e-9


class Cause(NamedTuple):
    """A wrong answer that is known: what it gives, and what is wrong with it, in a sentence."""

    gives: Function
    message: str


@dataclass(frozen=True)
class Plain(Verdict):
    """A verdict on what is not tried on instances."""

    @property
    def message(self) -> str:
        """What is wrong, or that nothing is."""
        return self.findings[0].message if self.findings else f"{self.subject} is right"


def right(subject: str) -> Verdict:
    """The verdict that nothing is wrong."""
    return Plain(subject, ())


def wrong(subject: str, cause: str, message: str, hint: str = "", **evidence: Any) -> Verdict:
    """A verdict with one finding; evidence may hold the line of the learner's code."""
    where = {"line": evidence.pop("line")} if evidence.get("line") else {}
    finding = Finding(subject, cause, message, where=where, evidence=evidence, hint=hint)
    return Plain(subject, (), (finding,))


def to_do(subject: str, what: str, line: int | None = None) -> Verdict:
    """The verdict that something is still to be written."""
    return wrong(subject, "to do", f"{subject} is still to be done: {what}", line=line)


# ------------------------------------------------------------------------------------- functions


def find(learner: ModuleType, name: str, *parameters: str) -> Function | Verdict:
    """The learner's function, if it can be called with so many arguments; else why it can't."""
    function = getattr(learner, name, None)
    if not callable(function):
        number = re.match(r"\d+", Path(getattr(learner, "__file__", "")).name)
        reset = f"scratchnet study reset {int(number[0]) if number else 'N'}"
        has_others = any(map(inspect.isfunction, vars(learner).values()))
        which, why = ("", "was it renamed?") if has_others else (", nor any other", "is it empty?")
        message = (
            f"there is no function {name} in your file{which}; expected "
            f"{name}({', '.join(parameters)})"
        )
        hint = f"{why} {reset} gives you the exercise as it was, and keeps your file"
        return wrong(name, "missing", message, hint=hint)
    try:
        inspect.signature(function).bind(*parameters)
    except TypeError:
        own = inspect.signature(function)
        message = f"{name} takes {own}; expected {name}({', '.join(parameters)})"
        return wrong(name, "arguments", message, line=_first_line(function))
    except ValueError:  # not written in Python: it has no signature to look at
        pass
    return function


def judge(
    subject: str,
    learner: ModuleType,
    name: str,
    *,
    seed: int = 0,
    strict: bool = False,
    parameters: Sequence[str] = (),
    adapt: Callable[[Function], Function] = lambda function: function,
) -> Verdict:
    """Judge a function by diagnose.function.

    Args:
        subject: a key of diagnose.SUBJECTS.
        learner: the learner's file.
        name: of the function in it.
        seed, strict: as for diagnose.function.
        parameters: of the learner's function; by default the subject's.
        adapt: makes of the learner's function one that takes and returns what the subject does.
    """
    of_subject = diagnose.SUBJECTS[subject]
    function = find(learner, name, *(parameters or of_subject.given or of_subject.inputs))
    if isinstance(function, Verdict):
        return function
    verdict = diagnose.function(subject, adapt(function), seed=seed, strict=strict)
    error = verdict.evidence.get("error")
    if isinstance(error, NotImplementedError):
        return unwritten(name, error)
    return renamed(verdict, name)


def renamed(verdict: Verdict, name: str) -> Verdict:
    """A verdict of diagnose's, in which the function has the learner's name for it."""
    findings = []
    for finding in verdict.findings:
        of_all = finding.message.startswith(f"{verdict.subject} ")
        message = finding.message.removeprefix(verdict.subject)
        findings.append(replace(finding, message=name + message) if of_all else finding)
    return replace(verdict, subject=name, findings=tuple(findings))


def judge_by(
    name: str,
    mine: Function | Verdict,
    right_formula: Function,
    causes: Mapping[str, Cause],
    instances: Iterable[tuple[Any, ...]],
) -> Verdict:
    """Judge a function by a right formula, and a wrong answer by wrong ones.

    Args:
        name: of the function.
        mine: the function, or why there is none.
        right_formula: what it should give.
        causes: what wrong formulas give, by their names.
        instances: the arguments of each call.
    """
    if isinstance(mine, Verdict):
        return mine
    calls = []
    for arguments in instances:
        found = ask(name, mine, *arguments)
        if isinstance(found, Verdict):
            return found
        calls.append((arguments, found, right_formula(*copies(arguments))))
    misses = [call for call in calls if not same(call[1], call[2])]
    if not misses:
        return right(name)
    for cause, (gives, message) in causes.items():
        if all(same(found, gives(*copies(arguments))) for arguments, found, _ in calls):
            return wrong(name, cause, f"{name}: {message}", **_entry(*misses[0][1:]))
    return _unknown(name, *misses[0][1:])


def ask(name: str, mine: Function, *arguments: Any) -> Any | Verdict:
    """What a function returns; a verdict if it raises, returns nothing, or changes an argument."""
    given = copies(arguments)
    try:
        with np.errstate(all="ignore"):
            found = mine(*given)
    except NotImplementedError as error:
        return unwritten(name, error)
    except (Exception, SystemExit) as error:
        words = " ".join(str(error).split()) or "no message"
        line = line_of(error)
        at = f" in line {line}" if line else ""
        message = f"{name} raises {type(error).__name__}{at}: {words}"
        return wrong(name, "exception", message, line=line, error=error)
    if found is None:
        return wrong(name, "results", f"{name} returns None: is there a return?")
    changed = [is_changed(*pair) for pair in zip(arguments, given, strict=True)]
    if any(changed):
        what = " and ".join(itertools.compress(_parameters(mine), changed)) or "what it is given"
        message = f"{name} changes {what}: work on a copy, or write a - b, not a -= b"
        return wrong(name, "inputs changed", message)
    return found


def _parameters(function: Function) -> list[str]:
    """The names of a function's parameters; none of one that is not written in Python."""
    try:
        return [*inspect.signature(function).parameters]
    except ValueError:
        return []


def unwritten(name: str, error: BaseException) -> Verdict:
    """The verdict on a function that raises NotImplementedError, as the template does."""
    line = line_of(error)
    return to_do(name, f"write it in the place of `raise NotImplementedError` (line {line})", line)


def _first_line(function: Function) -> int | None:
    code = getattr(function, "__code__", None)
    return code.co_firstlineno if code else None


def copies(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments, with copies of the arrays."""
    return tuple(a.copy() if isinstance(a, np.ndarray) else a for a in arguments)


# --------------------------------------------------------------------------------------- results


def same(found: Any, expected: Any) -> bool:
    """Whether results, arrays or tuples of arrays, have equal shapes and nearly equal values."""
    if isinstance(expected, tuple):
        parts = _parts(found)
        return len(parts) == len(expected) and all(map(same, parts, expected))
    a, b = floats(found), floats(expected)
    if a is None or b is None or a.shape != b.shape:
        return False
    slack = SLACK * max(1.0, abs(b[np.isfinite(b)]).max(initial=0))
    return bool(np.isclose(a, b, rtol=0, atol=slack, equal_nan=True).all())


def floats(value: Any) -> Array | None:
    """Numbers as an array of float64; None if they are none. NumPy would take None and "1", too."""
    try:
        array = np.asarray(value)
        real = array.dtype == object and all(isinstance(each, Real) for each in array.flat)
        return array.astype(np.float64) if real or array.dtype.kind in "fiub" else None
    except Exception:  # rows of unequal lengths, or whatever an object of the learner's raises
        return None


def number(name: str, found: Any) -> float | Verdict:
    """The one number that a function has returned; a verdict if it is not one, or none."""
    array = floats(found)
    if array is None:
        return wrong(name, "results", f"{name} is {_kind(found)}; expected a number")
    if array.size != 1:
        return wrong(name, "shape", f"{name} has shape {array.shape}; expected one number")
    return float(array.item())


def _kind(value: Any) -> str:
    """What is no number, such as "of type str", or "an array of object"."""
    is_array = isinstance(value, np.ndarray)
    return f"an array of {value.dtype}" if is_array else f"of type {type(value).__name__}"


def _parts(found: Any) -> list[Any]:
    """Several results, in a tuple, a list or an array; none if it is one only."""
    several = isinstance(found, tuple | list) or (isinstance(found, np.ndarray) and found.ndim)
    return list(found) if several else []


def _unknown(name: str, found: Any, expected: Any) -> Verdict:
    """The verdict on an answer that no known cause explains: its shape, dtype, or one entry."""
    if isinstance(expected, tuple):
        parts = _parts(found)
        if len(parts) != len(expected):
            return wrong(
                name, "results", f"{name} returns {found!r}; expected {len(expected)} values"
            )
        first = next(i for i, part in enumerate(parts) if not same(part, expected[i]))
        return _unknown(f"{name}, result {first + 1}", parts[first], expected[first])
    a, b = floats(found), np.asarray(expected, np.float64)
    if a is None:
        message = f"{name} is {_kind(found)}; expected numbers of shape {b.shape}"
        return wrong(name, "results", message)
    if a.shape != b.shape:
        return wrong(name, "shape", f"{name} has shape {a.shape}; expected {b.shape}")
    dtype = np.asarray(found).dtype
    if dtype.kind in "iu" and (a.ndim or a.any()) and (a == np.trunc(b)).all():
        message = f"{name} is of integers, so everything after the point is cut off"
        return wrong(name, "integers", message)
    if dtype in (np.float16, np.float32):  # how near is near enough would need a bound of its own
        message = f"{name} is {dtype}, which has too few digits to be judged; expected float64"
        return wrong(name, "precision", message)
    evidence = _entry(a, b)
    at = f"{name}{[*evidence['index']]}" if evidence["index"] else name
    mine, truth = apart(evidence["found"], evidence["expected"])
    message = f"{at} is {mine}; expected {truth}"
    kind = "nan" if np.isnan(a).any() and not np.isnan(b).any() else "unknown"
    return wrong(name, kind, message, **evidence)


def _entry(found: Any, expected: Any) -> dict[str, Any]:
    """The entry that is furthest off, where entries can be compared."""
    a, b = floats(found), floats(expected)
    if a is None or b is None or a.shape != b.shape:
        return {}
    off = np.where(np.isnan(a), np.inf, abs(a - b))
    index = tuple(map(int, np.unravel_index(np.argmax(off), off.shape)))
    return {"index": index, "found": float(a[index]), "expected": float(b[index])}
