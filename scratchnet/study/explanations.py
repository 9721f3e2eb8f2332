"""Explanations of a wrong array that no mistake of the library explains, and the finding's words.

Each function of EXPLANATIONS takes a case and returns what it has to say, or None if that is
nothing. They are asked in this order, and state what is so on every instance: none guesses.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np

from scratchnet.backend import Array
from scratchnet.study.subjects import Index, Step, Terms, Values
from scratchnet.study.truth import Case, Seen, call, is_right, parameters
from scratchnet.study.verdicts import Finding, Ledger, apart

AXES = {"N": "sample", "D": "feature", "H": "unit", "C": "class", "K": "number"}


def shape(case: Case) -> str | None:
    """The shape is wrong, though perhaps only that; but numbers that are wrong come first."""
    if case.wrong[0].fits:
        return None
    pairs = [(seen.found, seen.truth) for seen in case.wrong]
    if all(found.ndim == 2 and is_right(found.T, truth) for found, truth in pairs):
        return "it is the transpose of the truth"
    if all(
        found.size == truth.value.size and is_right(found.reshape(truth.value.shape), truth)
        for found, truth in pairs
    ):
        return "the numbers are right, and only the axes are not"
    return "only an array of the right shape can be compared"


def nan(case: Case) -> str | None:
    """There is nan or inf where the truth is a number; but numbers that are wrong come first."""
    seen = case.wrong[0]
    lost = ~np.isfinite(seen.found) & np.isfinite(seen.truth.value)
    if not lost.any():
        return None
    return (
        f"{lost.sum()} of {lost.size} entries are nan or inf on '{seen.instance}', "
        "such as come of exp of a large number, a division by 0, log of 0, √ of a negative number, "
        "0 · inf, or entries of np.empty that are never set"
    )


def integers(case: Case) -> str | None:
    """The array is one of integers."""
    wrong = [seen for seen in case.wrong if case.step.name in seen.chain.answer.integers]
    if wrong and all(
        seen.fits and (seen.found == np.trunc(seen.truth.value)).all() for seen in wrong
    ):
        return "the array is one of integers, so everything after the point is cut off"
    return None


def precision(case: Case) -> str | None:
    """Every number has the digits of float32 or float16 only, though the arguments are float64."""
    wrong = [seen for seen in case.wrong if not seen.is_single]
    for dtype in (np.float16, np.float32):
        if wrong and all(_is_rounded(seen, dtype) for seen in wrong):
            return f"every number is rounded to {dtype.__name__}: keep the arguments' dtype"
    return None


def _is_rounded(seen: Seen, dtype: type[np.floating[Any]]) -> bool:
    """Whether the numbers are a dtype's, and as near to the truth as it allows.

    If all of them are multiples of the last digit of the largest, they may as well be rounded to so
    many places after the point.
    """
    if not seen.fits:
        return False
    found, (expected, bound) = seen.found, seen.truth
    last_digit = float(np.spacing(dtype(abs(found).max())))
    coarser = float(np.finfo(dtype).eps) / 2.0**-52
    return bool(
        (found == found.astype(dtype)).all()
        and (np.fmod(found, last_digit) != 0).any()
        and (abs(found - expected) <= coarser * bound).all()
    )


# ----------------------------------------------------------------------------------------- scale


def scale(case: Case) -> str | None:
    """Every entry is k times the truth, and one symbol explains k on every instance.

    It takes eight entries or more, and no number is fitted: k has to be N, say, on all instances.
    """
    ratios = [ratio(seen) for seen in case.seen]
    entries = sum(np.count_nonzero(seen.truth.value) for seen in case.seen)
    if None in ratios or entries < 8 or all(abs(k - 1) < 1e-3 for k in ratios if k):
        return None
    fitting = [_fitting(seen) for seen in case.seen if seen.truth.value.any()]
    symbols = [symbol for symbol in fitting[0] if all(symbol in own for own in fitting)]
    if not symbols:
        return None
    place = "on every instance" if len(case.seen) > 1 else "on this one instance"
    return f"that is {' or '.join(symbols)} {place}: a factor is missing or too many"


def ratio(seen: Seen) -> float | None:
    """The one number k for which found is k times the truth up to rounding; None if none is.

    None also for a k of 1e-4 or less, which is no factor of anybody's, but an array of nearly 0.
    """
    found, (expected, bound) = seen.found, seen.truth
    if not seen.fits or not (np.isfinite(found) & np.isfinite(expected)).all():
        return None
    if not expected.any():
        return None if found.any() else 1.0
    k = float((found * expected).sum() / (expected * expected).sum())
    is_one = (abs(found - k * expected) <= 2 * max(abs(k), 1) * bound).all()
    return k if is_one and abs(k) > 1e-4 else None


def _fitting(seen: Seen) -> list[str]:
    """The symbols that explain the ratio on an instance.

    The ratio of sums over all entries is off by no more than one entry's rounding: less than 1e-9
    of it, or 1e-3 in float32, and sizes differ by more.
    """
    k = ratio(seen)
    share = 1e-3 if seen.is_single else 1e-9
    symbols = _symbols(seen.dims).items()
    return [] if k is None else [name for name, v in symbols if abs(k - v) <= share * abs(v)]


def _symbols(dims: Mapping[str, int]) -> dict[str, float]:
    """The factors that can be explained: each size, 2, their inverses, and all of them negative."""
    sizes = {letter: float(size) for letter, size in dims.items() if size} | {"2": 2.0}
    factors = sizes | {f"1/{letter}": 1 / size for letter, size in sizes.items()}
    return factors | {f"-{name}": -value for name, value in factors.items()} | {"-1": -1.0}


# ----------------------------------------------------------------------------------------- where


def where(case: Case) -> str | None:
    """All wrong entries have something in common, on every instance that has any."""
    if not all(seen.fits for seen in case.seen):
        return None
    pairs = [(_sets(case.step, seen), seen.wrong_entries) for seen in case.wrong]
    first, _ = pairs[0]
    common = [
        name
        for name in first
        if case.wrong[0].truth.value[~first[name]].any()  # outside, not all entries are 0 anyway
        and all(name in sets and not (wrong & ~sets[name]).any() for sets, wrong in pairs)
    ]
    if not common:
        return None
    smallest = min(common, key=lambda name: sum(sets[name].mean() for sets, _ in pairs))
    return f"all wrong entries are {smallest}"


def _sets(step: Step, seen: Seen) -> dict[str, Array]:
    """Sets of entries that have something in common, as masks: marks of the operation, and rows."""
    values, wrong = seen.chain.upstream(step), seen.wrong_entries
    sets = dict(step.operation.marks(SimpleNamespace(**values), _names(step, values)))
    for axis, letter in enumerate(step.axes[: wrong.ndim]):
        others = tuple(other for other in range(wrong.ndim) if other != axis)
        indices = np.flatnonzero(wrong.any(axis=others))
        note = seen.chain.subject.notes.get(letter)
        notes = [note(values, k) if note else "" for k in range(wrong.shape[axis])]
        for name, members in _groups(AXES[letter], wrong.shape[axis], indices, notes).items():
            chosen = np.isin(np.arange(wrong.shape[axis]), members)
            sets[name] = np.broadcast_to(np.expand_dims(chosen, others), wrong.shape)
    return sets


def _groups(word: str, size: int, wrong: Array, notes: list[str]) -> dict[str, list[int]]:
    """Rows, or the like, that have something in common."""
    groups = {f"in the last {word}": [size - 1], f"in the first {word}": [0]}
    groups |= {f"in {word} {k}": [k] for k in range(size)}
    if 1 < len(wrong) <= size / 2:
        groups[f"in {word}s {' and '.join(map(str, wrong))}"] = [*wrong]
    for k, note in enumerate(notes):
        if note:
            groups.setdefault(f"in {word}s {note}", []).append(k)
    return groups


def unknown(case: Case) -> str:
    """What is left; the ledger of an entry says more. An eps is 1e-6 at most, as a rule."""
    if all(
        seen.fits and _error(seen) <= 1e-6 * abs(seen.truth.value).max(initial=0)
        for seen in case.wrong
    ):
        largest = max(map(_error, case.wrong))
        return (
            f"the cause is unknown, and it is off by {largest:.1g} at most: is there a small "
            "number in it, such as an eps, or a clip?"
        )
    return "the cause is unknown"


def _error(seen: Seen) -> float:
    """By how much the entry that is farthest off is off; nan if one is no number."""
    return float(abs(seen.found - seen.truth.value).max(initial=0))


EXPLANATIONS = (shape, nan, integers, precision, scale, where, unknown)

# -------------------------------------------------------------------------------- what is reported


def finding(
    case: Case, kind: str, text: str, names: tuple[str, ...] = (), at: Step | None = None
) -> Finding:
    """A finding about an array, with the numbers of an instance that shows it.

    Args:
        case: the array.
        kind: as in Finding.
        text: the cause.
        names: the mistakes.
        at: the step that goes wrong, if it is another.
    """
    step = at or case.step
    seen = case.wrong[0]
    if kind not in ("shape", "mistake"):
        seen = next((each for each in case.wrong if each.fits), seen)
    fact, evidence = _fact(case.step, seen)
    place: dict[str, Any] = {"step": step.name}
    if kind == "where":
        place["entries"] = text
    if kind in ("scale", "where", "unknown") and seen.fits:
        evidence["ledger"] = _ledger(case.step, seen)
    if kind not in ("mistake", "scale"):
        text += _on_which(case)
    elif seen is not case.seen[0]:
        fact += f" on '{seen.instance}'"
    hint = f"look at how {step.name} is made from {_made_of(step)}"
    return Finding(case.step.name, kind, f"{fact}: {text}", names, place, evidence, hint)


def in_words_of(step: Step, text: str) -> str:
    """What is said of an operation, with the names, axes and indices that a step has for it."""
    words = dict(step.names) | dict(step.letters)
    words |= {of.lower(): to.lower() for of, to in step.letters.items()}

    def put(match: re.Match[str]) -> str:
        the, word, after = match.groups()
        is_prose = not after and (word == "logits" or (word in ("weight", "bias") and not the))
        return match[0] if is_prose else words.get(word, match[0])

    return re.sub(r"(\b[Tt]he )?(?<![\w.])([A-Za-z]\w*?)(?![A-Za-z0-9_])(?=([\[)])?)", put, text)


def _on_which(case: Case) -> str:
    """Which instances it is wrong on, if it is right on some."""
    right = [seen.instance for seen in case.seen if seen.is_right]
    wrong = [seen.instance for seen in case.wrong]
    if not right:
        return ""
    few, words = (right, "right on") if len(right) < len(wrong) else (wrong, "wrong only on")
    return f" ({words} {' and '.join(map(repr, few))})"


def _made_of(step: Step) -> str:
    """The arrays that an array is made of, as the subject calls them."""
    names = step.operation.of or parameters(step.operation.right)[1]
    return " and ".join(step.names.get(name, name) for name in names)


def _names(step: Step, values: Values) -> SimpleNamespace:
    """What the arguments of an operation are called."""
    return SimpleNamespace(**({name: name for name in values} | dict(step.names)))


def _fact(step: Step, seen: Seen) -> tuple[str, dict[str, Any]]:
    """What can be seen of a wrong array on one instance, in words and in numbers."""
    found, expected = seen.found, seen.truth.value
    evidence: dict[str, Any] = {"instance": seen.instance}
    if not seen.fits:
        spelt = [_spell(array.shape, seen.dims) for array in (found, expected)]
        evidence |= {"found": found.shape, "expected": expected.shape}
        return f"{step.name} has shape {spelt[0]}; expected {spelt[1]}", evidence
    index, wrong = _worst(seen), seen.wrong_entries
    evidence |= {"index": index, "found": float(found[index]), "expected": float(expected[index])}
    evidence |= {"wrong": int(wrong.sum()), "entries": wrong.size}
    k = ratio(seen)
    if k is not None:
        evidence["ratio"] = k
        sizes = [name for name in _fitting(seen) if name[-1].isalpha()]
        explained = "".join(f", {name} = {_symbols(seen.dims)[name]:.3g}" for name in sizes)
        every = "every entry" if wrong.size > 1 else "it"
        times = f"{k:.3f}" if 1e-3 < abs(k - 1) < 1e6 else apart(k, 1)[0]
        return f"{step.name}: {every} is {times} times the truth{explained}", evidence
    mine, truth = apart(found[index], expected[index])
    numbers = f"{_entry(step, index)} is {mine}, expected {truth}"
    if wrong.size == 1:
        return numbers, evidence
    are = "is" if wrong.sum() == 1 else "are"
    return f"{step.name}: {wrong.sum()} of {wrong.size} entries {are} wrong; {numbers}", evidence


def _entry(step: Step, index: Index) -> str:
    return f"{step.name}[{', '.join(map(str, index))}]" if index else step.name


def _worst(seen: Seen) -> Index:
    """Where found and expected are farthest apart, or one of them is no number."""
    distance = abs(seen.found - seen.truth.value)
    distance = np.where(np.isnan(distance), np.inf, distance)
    worst = np.where(seen.wrong_entries, distance, -1).argmax()
    return tuple(int(i) for i in np.unravel_index(worst, distance.shape))


def _spell(sizes: tuple[int, ...], dims: Mapping[str, int]) -> str:
    """A shape in numbers, and in letters if each of its sizes has but one."""
    numbers = _tuple(map(str, sizes))
    if set(sizes) <= {1}:
        return numbers
    letters = [[letter for letter, size in dims.items() if size == own] for own in sizes]
    spelt = ["1" if own == 1 else "/".join(of) for own, of in zip(sizes, letters, strict=True)]
    is_clear = sizes and all(len(text) == 1 for text in spelt)
    return f"{_tuple(spelt)} = {numbers}" if is_clear else numbers


def _tuple(parts: Iterable[str]) -> str:
    texts = [*parts]
    return f"({', '.join(texts)}{',' * (len(texts) == 1)})"


# ---------------------------------------------------------------------------------------- ledger


def _ledger(step: Step, seen: Seen) -> Ledger:
    """The worst entry, as the sum that it should be."""
    values, index, operation = seen.chain.upstream(step), _worst(seen), step.operation
    terms: Terms = []
    if operation.terms:
        terms = operation.terms(SimpleNamespace(**values), _names(step, values), index)
    difference = None
    if operation.loss:
        difference = _central_difference(operation.loss, operation.to, values, index)
    expected, found = float(seen.truth.value[index]), float(seen.found[index])
    return Ledger(_entry(step, index), seen.instance, terms, expected, found, difference)


def _central_difference(loss: Callable[..., Any], to: str, values: Values, index: Index) -> float:
    """(L(+h) - L(-h)) / 2 h, with h = 6e-6 times the entry, at least 6e-6: ε^(1/3) in float64."""
    h = 6e-6 * max(1, abs(float(values[to][index])))
    losses = []
    for nudge in (h, -h):
        nudged = values[to].copy()
        nudged[index] += nudge
        losses.append(float(call(loss, values | {to: nudged})))
    return (losses[0] - losses[1]) / (2 * h)
