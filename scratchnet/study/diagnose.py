"""From a wrong array to its cause.

Whoever has written a function of backprop, and wants to know what is wrong with it, asks:

    from scratchnet.study import diagnose

    def my_linear_backward(grad_output, x, weight):
        return grad_output @ weight, grad_output.T @ x / len(x), grad_output.sum(axis=0)

    verdict = diagnose.function("linear_backward", my_linear_backward)
    print(verdict)

    grad_weight: every entry is 0.200 times the truth, 1/N = 0.2: there is a 1/N too many: the
    loss's mean has put it into grad_output, so leave it out.

`verdict.ok` tells whether it is right, `verdict.name` what it is: a name of `mistakes.BY_NAME`, or
a kind such as "shape" or "unknown". `verdict.message`, `.evidence`, `.where` and `.hint` tell more.
Whoever has arrays, and the values that they were made from, asks `diagnose.arrays` instead.
`diagnose.SUBJECTS` lists what can be judged.

How the cause is found: the function is called on several random instances, twice on each. First
comes what can be seen without the truth: it raises, returns something else, gives another answer
the second time, changes its inputs. Then each array is compared with the truth, the most upstream
first, and given the learner's own arrays before it: so only that array is blamed where it goes
wrong. Of a wrong one the library is asked which mistakes would have given just this, on every
instance. If none would, `explanations` has more general ones: a shape, nan, a scale that N or
another size explains, a set of entries. Rather than a wrong claim the answer is "unknown", with the
sum that makes one entry written out, term by term.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from scratchnet import backend
from scratchnet.backend import Array
from scratchnet.study import answers, explanations, mistakes
from scratchnet.study.answers import Answer
from scratchnet.study.mistakes import Formula, Mistake
from scratchnet.study.subjects import SUBJECTS, Instance, Step, Subject
from scratchnet.study.truth import Case, Chain, Seen, is_right, parameters
from scratchnet.study.verdicts import Finding, Verdict

__all__ = ["SUBJECTS", "Finding", "Verdict", "arrays", "function"]


def function(
    name: str, mine: Callable[..., Any], *, seed: int = 0, strict: bool = False
) -> Verdict:
    """Judge a function by calling it on several random instances.

    Args:
        name: a key of SUBJECTS: a name in scratchnet.functional such as "relu_backward", one
            gradient of a linear layer such as "linear_backward.grad_bias", "network_backward",
            "network_update", "adam" or "finite_difference".
        mine: the function. Its arguments are NumPy arrays: SUBJECTS[name].given, or else inputs,
            in this order. It returns SUBJECTS[name].results, in this order or in a dict by name.
            A dict may hold the arrays in between, too, such as dz1: then the place can be told.
            Options, such as reduction="sum", are tried if it has arguments of these names.
        seed: of the random values.
        strict: whether inf, nan and underflow have to go as in `functional`, too; default no.

    Returns:
        The verdict.

    Raises:
        ValueError: the name is unknown.
    """
    subject = _subject(name)
    given = []
    for instance in subject.instances(seed, strict):
        if not answers.accepts(mine, instance.options):
            continue
        first, second = (answers.ask(subject, mine, instance) for _ in range(2))
        finding = answers.compare_calls(first, second)
        if finding:
            return Verdict(name, (instance.name,), (finding,))
        given.append(first)
    return Judge(subject, given).verdict()


def arrays(name: str, found: Any, inputs: Mapping[str, Any]) -> Verdict:
    """Judge arrays by the values that they were made from.

    That is one instance only, so more is ambiguous, and of small arrays less is claimed.

    Args:
        name: a key of SUBJECTS.
        found: the arrays to be judged by the names of their steps, such as {"dW1": ...}; or one
            array, if the subject has one result. A network's forward values belong here, too.
        inputs: the values of SUBJECTS[name].inputs, and options, by name.

    Returns:
        The verdict.

    Raises:
        ValueError: the name is unknown, an input is missing, or there is no step of a name.
        ValueError, TypeError, IndexError: `functional` can't take the inputs, and why.
    """
    subject = _subject(name)
    missing = [key for key in subject.inputs if key not in inputs]
    if missing:
        raise ValueError(f"{name} needs {', '.join(missing)}; expected {', '.join(subject.inputs)}")
    steps = [step.name for step in subject.steps]
    if not isinstance(found, Mapping):
        found = {subject.results[0]: found}
    if not found or found.keys() - steps:
        raise ValueError(f"{name} has no {', '.join(found)}; expected some of {', '.join(steps)}")
    values = {key: _as_input(key, value) for key, value in inputs.items()}
    own = {key: values.pop(key) for key in subject.inputs}
    answer = Answer(Instance("your values", own, values))
    answer.take(found)
    return Judge(subject, [answer]).verdict()


def _as_input(name: str, value: Any) -> Any:
    """Lists, whole numbers and CuPy's arrays as NumPy arrays of floats; labels stay whole."""
    if isinstance(value, list) or hasattr(value, "get"):
        value = backend.asarray(value, "cpu")
    if isinstance(value, np.ndarray) and value.dtype.kind in "iub" and name != "target":
        return value.astype(np.float64)
    return value


def _subject(name: str) -> Subject:
    if name not in SUBJECTS:
        raise ValueError(f"{name!r} can't be judged; expected one of {', '.join(SUBJECTS)}")
    return SUBJECTS[name]


# ---------------------------------------------------------------------------------- the library


class Candidate(NamedTuple):
    """A mistake made at a step, which would have given just what was found on every instance.

    raises: whether it would also have raised where the function did.
    explained: how many of the arrays that are returned and made from it, if that is another step's.
    """

    at: Step
    mistake: Mistake
    formula: Formula
    raises: bool
    explained: int = 0


def _mistakes(subject: Subject, step: Step) -> Iterator[tuple[Mistake, Formula]]:
    """Those of the step's operation, and those that are possible in this subject only."""
    for operation in (step.operation.name, f"{subject.family}.{step.name}"):
        for mistake in mistakes.of(operation):
            yield mistake, mistake.wrong[operation]


def _would_give(wrong: Mapping[str, Formula], step: Step, seen: Seen) -> bool:
    """Whether wrong formulas give what was found."""
    try:
        return _same(seen.chain.follow(wrong, step)[step.name], seen)
    except Exception:  # of whatever kind: the formula is wrong
        return False


def _same(predicted: Array, seen: Seen) -> bool:
    """Whether a wrong formula's array is the one that was found.

    Its rounding is unknown, so it is allowed 1e-11 of its largest entry, or 1e-4 in float32: more
    than 1,600 roundings, for sums of up to 784 terms, some of which cancel. But it has to explain
    the difference from the truth to a part in 1000 as well, lest a formula that is hardly wrong
    pass for another one that is hardly wrong. And what gives the truth explains no difference.
    """
    found, (expected, bound) = seen.found, seen.truth
    if predicted.shape != found.shape:
        return False
    if is_right(predicted, seen.truth) and not seen.is_right:
        return False
    lost = ~np.isfinite(predicted) | ~np.isfinite(found)
    if not np.array_equal(predicted[lost], found[lost], equal_nan=True):
        return False
    residual = _largest(predicted - found)
    slack = _largest(bound)
    share = 1e-4 if seen.is_single else 1e-11
    is_near = residual <= share * _largest(predicted) + slack
    explains = not seen.fits or residual <= max(1e-3 * _largest(found - expected), slack)
    return is_near and explains


def _largest(array: Array) -> float:
    """The largest absolute value among the numbers; 0 if there are none."""
    return float(abs(array[np.isfinite(array)]).max(initial=0))


def _would_raise(chains: list[Chain], wrong: Mapping[str, Formula], step: Step) -> bool:
    """Whether wrong formulas explain why a function raised on some instances.

    On one at least they raise, or a later step does, or they divide by 0, which raises with numbers
    of Python's. On the others their array may have a wrong shape, which raises where it is added
    in place, say.
    """
    raises, misfits = [], []
    for chain in chains:
        try:
            made = chain.follow(wrong, chain.subject.steps[-1])[step.name]
        except Exception:  # of whatever kind: the formula is wrong
            raises.append(chain)
            continue
        if isinstance(chain.answer.error, ZeroDivisionError) and not np.isfinite(made).all():
            raises.append(chain)
        elif made.shape != chain.truth(step).value.shape:
            misfits.append(chain)
    return bool(raises) and len(raises) + len(misfits) == len(chains)


# ------------------------------------------------------------------------------------ the judge


class Judge:
    """Goes through the steps of a subject, the most upstream first, and explains the wrong ones."""

    def __init__(self, subject: Subject, given: list[Answer]) -> None:
        self.subject = subject
        self.chains = [Chain(subject, answer) for answer in given]
        self.alone = [
            Chain(subject, Answer(answer.instance)) for answer in given
        ]  # all from inputs
        self.results = [step for step in subject.steps if step.name in subject.results]
        self.returned = {name for answer in given for name in answer.found}
        self.raised = [chain for chain in self.chains if chain.answer.error]
        self.assumed: dict[str, Formula] = {}  # wrong formulas of steps that are not returned
        self.claimed: list[Candidate] = []

    @backend.ieee
    def verdict(self) -> Verdict:
        """What is wrong, in the order of the module's description."""
        names = tuple(chain.answer.instance.name for chain in self.chains)
        problems = [chain.answer for chain in self.chains if chain.answer.problem]
        if problems:
            finding = answers.unreadable(self.subject, problems[0])
            return Verdict(self.subject.name, names, (*self.errors(), finding))
        found: list[Finding] = []
        right: list[str] = []
        for step in self.subject.steps:
            case = self.case(step, self.assumed)
            if case.wrong and self.is_off(step):
                found.append(self.explain(case))
            elif case.seen:
                right.append(step.name)
        found = [self.with_what_follows(finding, right) for finding in found]
        if not all(finding.names for finding in found) and (order := self.order()):
            found = [*order, *(each for each in found if each.result not in self.subject.results)]
        found = [*self.errors(), *self.changes(), *found]
        return Verdict(self.subject.name, names, tuple(found), tuple(right))

    def case(self, step: Step, assumed: Mapping[str, Formula]) -> Case:
        """An array beside its truth, if some steps that are not returned were done wrongly."""
        seen = []
        for chain, alone in zip(self.chains, self.alone, strict=True):
            if step.name in chain.answer.found:
                found, truth = chain.answer.found[step.name], chain.truth(step, assumed)
                if _is_finite(found) and not _is_finite(truth.value):
                    truth = alone.truth(step)  # it was made from other arrays than were returned
                seen.append(Seen(chain, found, truth))
        return Case(step, seen)

    def explain(self, case: Case) -> Finding:
        """Name the cause of a wrong array."""
        candidates = list(self.candidates(case))
        # Those come first that explain, too, why the function raises elsewhere.
        candidates = self.best(case, [each for each in candidates if each.raises] or candidates)
        if candidates and self.is_telling(case, candidates):
            return self.by_mistake(case, candidates)
        said = ((each.__name__, each(case)) for each in explanations.EXPLANATIONS)
        kind, text = next((kind, text) for kind, text in said if text)
        if candidates:
            could_be = [_remedy(candidate) for candidate in candidates]
            text += f"; so few numbers don't tell, but it could be: {' Or: '.join(could_be)}"
        return explanations.finding(case, kind, text)

    def is_telling(self, case: Case, candidates: list[Candidate]) -> bool:
        """Whether a formula can't fit by chance: of one instance that has to be asked.

        If the function has raised on all others, the formula has to explain that, too.
        With N = 2 to divide by N - 1 is not to divide, and with N = 1 whatever lacks a sample is 0.
        Three wrong numbers don't agree by chance, but which of a few are 0 may.
        """
        seen = case.seen[0]
        if len(case.seen) > 1:
            return True
        if len(self.chains) > 1:
            return all(candidate.raises for candidate in candidates)
        wrong = seen.found[seen.wrong_entries] if seen.fits else seen.found
        many = np.count_nonzero(wrong) >= 3 or wrong.size >= 5 or not seen.fits
        return many and bool(seen.found.any()) and min(seen.dims.values()) > 2

    def candidates(self, case: Case) -> Iterator[Candidate]:
        """Mistakes at a step before it that is not returned, or at the step itself."""
        last = self.subject.steps.index(case.step)
        for at in self.subject.steps[: last + 1]:
            if at is case.step or at.name not in self.returned:
                for candidate in self.made_at(at, case):
                    explained = 0 if at is case.step else self.count_explained(candidate)
                    if at is case.step or explained:
                        yield candidate._replace(explained=explained)

    def made_at(self, at: Step, case: Case) -> Iterator[Candidate]:
        """Mistakes at a step that would have given an array as it is."""
        upstream = self.chains[0].upstream(at).keys()
        for mistake, formula in _mistakes(self.subject, at):
            wrong = self.assumed | {at.name: formula}
            if (
                set(parameters(formula)[1]) <= upstream
                and all(_would_give(wrong, case.step, seen) for seen in case.seen)
                and self.is_complete(mistake)
            ):
                yield Candidate(at, mistake, formula, _would_raise(self.raised, wrong, case.step))

    def is_complete(self, mistake: Mistake) -> bool:
        """Whether a mistake that spoils several results has spoilt all of them."""
        wrong, results = mistake.wrong, {step.operation.name: step for step in self.results}
        return len(wrong) == 1 or (
            wrong.keys() <= results.keys()
            and all(
                _would_give({results[operation].name: formula}, results[operation], seen)
                for operation, formula in wrong.items()
                for seen in self.case(results[operation], {}).seen
            )
        )

    def count_explained(self, candidate: Candidate) -> int:
        """How many arrays a mistake before them explains; 0 if one that is right rules it out."""
        assumed = self.assumed | {candidate.at.name: candidate.formula}
        spoilt = self.spoilt(candidate)
        explained = [step for step in spoilt if self.is_right_if(step, assumed)]
        others = [step for step in spoilt if step not in explained]
        ruled_out = any(self.is_right_if(step, self.assumed) for step in others)
        return 0 if ruled_out else len(explained)

    def is_right_if(self, step: Step, assumed: Mapping[str, Formula]) -> bool:
        """Whether an array is right, if some steps that are not returned were done wrongly."""
        try:
            return not self.case(step, assumed).wrong
        except Exception:  # of whatever kind: from what the formulas make there is no way on
            return False

    def spoilt(self, candidate: Candidate) -> list[Step]:
        """The arrays returned that would be others if a step before them were wrong."""
        return [
            step
            for step in self.subject.steps
            if step.name in self.returned
            and candidate.at.name in _before(self.subject, step, self.returned)
        ]

    def best(self, case: Case, candidates: list[Candidate]) -> list[Candidate]:
        """Those that explain most, the likeliest first; several if they can't be told apart.

        One mistake that explains several arrays is likelier than one in each of them.
        """
        claimed = {candidate.mistake.name for candidate in self.claimed}

        def rank(candidate: Candidate) -> tuple[int, bool]:
            return len(candidate.mistake.wrong), candidate.mistake.name in claimed

        candidates = [
            each
            for each in candidates
            if rank(each) == max(rank(rival) for rival in candidates if rival.at is each.at)
        ]
        own = [each for each in candidates if each.at is case.step]
        before = [each for each in candidates if each.at is not case.step]
        likely = [each for each in before if each.explained >= min(2, len(self.spoilt(each)))]
        if not likely:
            return [*own, *before] if own else []
        all_have_own = all(self.has_own(step) for each in likely for step in self.spoilt(each))
        return [*likely, *own] if all_have_own else likely

    def has_own(self, step: Step) -> bool:
        """Whether an array is right, or a mistake made only there explains it."""
        case = self.case(step, self.assumed)
        return not case.wrong or any(True for _ in self.made_at(step, case))

    def by_mistake(self, case: Case, candidates: list[Candidate]) -> Finding:
        """The finding that it is one of these mistakes."""
        first, texts = candidates[0], []
        for candidate in candidates:
            text = _remedy(candidate)
            if candidate.at is not case.step:
                alone = len(self.spoilt(candidate)) == 1
                where = f"{candidate.at.name}, which is not returned" + ", or in its use" * alone
                text = f"it goes wrong in {where}: {text}"
            elif first.at is not case.step:
                text = f"it goes wrong in {case.step.name} itself: {text}"
            texts.append(text)
        if first.at is not case.step:
            self.assumed[first.at.name] = first.formula
        if first.raises:
            answer = self.raised[0].answer
            texts[-1] += f" (Therefore {type(answer.error).__name__} on '{answer.instance.name}'.)"
        self.claimed += candidates
        names = tuple(dict.fromkeys(candidate.mistake.name for candidate in candidates))
        return explanations.finding(case, "mistake", " Or: ".join(texts), names, first.at)

    def with_what_follows(self, finding: Finding, right: list[str]) -> Finding:
        """Add which arrays are wrong only because this one is."""
        blamed = finding.where["step"]
        follow = [
            step.name
            for step in self.subject.steps
            if step.name in right and blamed in _before(self.subject, step) and self.is_off(step)
        ]
        if not follow:
            return finding
        listed = " and ".join([", ".join(follow[:-1]), follow[-1]] if follow[1:] else follow)
        verb = "are" if follow[1:] else "is"
        text = f"{listed} {verb} right given your {blamed}."
        if blamed not in self.returned:
            text = f"A mistake in {blamed} explains {listed}, too."
        stop = "" if finding.message.endswith((".", ".)", "?")) else "."
        return replace(finding, message=f"{finding.message}{stop} {text}")

    def is_off(self, step: Step) -> bool:
        """Whether an array is not what it would be had everything before it been right."""
        return any(
            step.name in chain.answer.found
            and not is_right(chain.answer.found[step.name], alone.truth(step))
            for chain, alone in zip(self.chains, self.alone, strict=True)
        )

    # -------------------------------------------------------------------------- the whole function

    def order(self) -> list[Finding]:
        """The finding that the results are right, but that one is in another's place."""
        for places in itertools.permutations(self.results):
            pairs = zip(self.results, places, strict=True)
            swapped = {step.name: place.name for step, place in pairs}
            if all(
                swapped[step.name] in chain.answer.found
                and is_right(chain.answer.found[swapped[step.name]], alone.truth(step))
                for chain, alone in zip(self.chains, self.alone, strict=True)
                for step in self.results
            ):
                is_by_name = any(chain.answer.is_by_name for chain in self.chains)
                return answers.disordered(self.subject, swapped, is_by_name)
        return []

    def errors(self) -> Iterator[Finding]:
        """The finding that the function raises, if no mistake explains it."""
        if self.raised and not any(candidate.raises for candidate in self.claimed):
            yield answers.raised(self.subject, self.raised[0].answer)

    def changes(self) -> Iterator[Finding]:
        """The finding that it changes its inputs, if no mistake explains it, or the one that does.

        What a function in place returns may be right, so the mistakes are asked of right arrays.
        """
        changing = [chain.answer for chain in self.chains if chain.answer.changed]
        if not changing or any(map(self.changes_just_these, self.claimed)):
            return
        cases = [self.case(step, self.assumed) for step in self.subject.steps]
        candidates = (each for case in cases if case.seen for each in self.candidates(case))
        named = [each for each in candidates if self.changes_just_these(each)]
        yield _inputs_changed(self.subject, changing[0], named)

    def changes_just_these(self, candidate: Candidate) -> bool:
        """Whether a mistake changes the inputs that were changed, and no other."""
        wrong = {candidate.at.name: candidate.formula}
        return all(
            chain.changed(chain.follow(wrong, candidate.at)) == set(chain.answer.changed)
            for chain in self.chains
            if chain.answer.error is None
        )


def _is_finite(array: Array) -> bool:
    return bool(np.isfinite(array).all())


def _before(subject: Subject, step: Step, known: Collection[str] = ()) -> set[str]:
    """The arrays that an array is made of, and those that they are made of, and so on.

    Of those that are known it doesn't matter what they are made of.
    """
    names = step.operation.of or parameters(step.operation.right)[1]
    direct = {step.names.get(name, name) for name in names}
    others = [other for other in subject.steps if other.name in direct.difference(known)]
    return direct.union(*(_before(subject, other, known) for other in others))


def _inputs_changed(subject: Subject, answer: Answer, named: list[Candidate]) -> Finding:
    inputs = " and ".join(answer.changed)
    text = " Or: ".join(map(_remedy, named))
    if answer.only_rounded:
        text = text or (
            "it was put back, but in another digit: a + h - h need not be a. Keep the old number, "
            "or work on a copy"
        )
    text = (
        text or "whoever called it goes on with what it has given, so make a copy, or a new array"
    )
    return Finding(
        "",
        "inputs changed",
        f"{subject.name} changes {inputs}: {text}",
        names=tuple(candidate.mistake.name for candidate in named),
        evidence={"instance": answer.instance.name, "changed": answer.changed},
        hint=f"look for -=, *=, out= or an assignment to entries of {inputs}",
    )


def _remedy(candidate: Candidate) -> str:
    """How to mend a mistake, within a sentence: no capital letter, unless it is a symbol."""
    text = candidate.mistake.mend
    if candidate.at.operation.name in candidate.mistake.wrong:  # else it is the subject's own
        text = explanations.in_words_of(candidate.at, text)
    return text[0].lower() + text[1:] if text[1].islower() or text[1] == " " else text
