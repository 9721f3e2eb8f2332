"""Exercise 9: as far as it is written it is judged line by line, and then as a whole."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any

from scratchnet.study import diagnose
from scratchnet.study.answers import Answer
from scratchnet.study.exercises.checking import Function, ask, find, judge, to_do, wrong
from scratchnet.study.subjects import Instance
from scratchnet.study.verdicts import Verdict

NAME, SUBJECT = "network_backward", "network_backward"
FORWARD = ("z1", "h", "z2")
GRADIENTS = ("dz2", "dW2", "db2", "dh", "dz1", "dW1", "db1")
RESULTS = diagnose.SUBJECTS[SUBJECT].results


def check(learner: ModuleType, seed: int = 0) -> Iterator[Verdict]:
    """Verdicts on the lines that are there; on all of them, if all are."""
    instances = diagnose.SUBJECTS[SUBJECT].instances(seed)
    first = instances[0].inputs
    mine = find(learner, NAME, *first)
    found = mine if isinstance(mine, Verdict) else ask(NAME, mine, *first.values())
    misspelt = of_names(found) if isinstance(found, dict) else None
    if isinstance(found, Verdict) and found.name != "exception":  # of these diagnose knows more
        yield found
    elif misspelt:
        yield misspelt
    elif isinstance(found, dict) and any(found.get(name) is None for name in RESULTS):
        yield so_far(mine, instances, next(name for name in GRADIENTS if found.get(name) is None))
    else:
        verdict = judge(SUBJECT, learner, NAME, seed=seed, adapt=without_none)
        # What raises on one instance may return on another, without the lines still to be written.
        told = tuple(each for each in verdict.findings if each.kind != "results")
        yield replace(verdict, findings=told or verdict.findings)


def of_names(found: dict[Any, Any]) -> Verdict | None:
    """The verdict that a name is one of ours but for its capitals or underscores."""
    missing = {plainly(name): name for name in (*FORWARD, *GRADIENTS) if name not in found}
    for name in found:
        meant = missing.get(plainly(name))
        if meant:
            message = f"{name!r} in the dict is no array that is asked for; is it {meant!r}?"
            return wrong(NAME, "another name", message)
    return None


def plainly(name: Any) -> str:
    """A name without what is easily mistaken."""
    return str(name).replace("_", "").lower()


def without_none(function: Function) -> Function:
    """The function, but without what is None in its dict: dz2 may have another name in it."""

    def made(*arguments: Any) -> Any:
        found = function(*arguments)
        if not isinstance(found, dict):
            return found
        return {name: value for name, value in found.items() if value is not None}

    return made


def so_far(mine: Function, instances: Sequence[Instance], missing: str) -> Verdict:
    """The verdict on what stands before the first line that is missing, or which that is."""
    done = GRADIENTS[: GRADIENTS.index(missing)]
    answers = []
    for instance in instances:
        found = ask(NAME, mine, *instance.inputs.values())
        if isinstance(found, Verdict):
            return found
        named = found if isinstance(found, dict) else {}
        answers.append(Answer(instance))
        answers[-1].take({name: named[name] for name in (*FORWARD, *done) if name in named})
    verdict = diagnose.Judge(diagnose.SUBJECTS[SUBJECT], answers).verdict()
    if not verdict.ok:
        return verdict
    line = f"write the line {missing} = ..."
    return to_do(missing, f"{', '.join(done)} so far right; {line}" if done else line)
