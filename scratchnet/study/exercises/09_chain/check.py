"""Exercise 9: as far as it is written it is judged line by line, and then as a whole."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

from scratchnet.study import diagnose
from scratchnet.study.exercises.checking import Function, ask, find, judge, to_do
from scratchnet.study.verdicts import Verdict

NAME, SUBJECT = "network_backward", "network_backward"
GRADIENTS = ("dz2", "dW2", "db2", "dh", "dz1", "dW1", "db1")
RESULTS = diagnose.SUBJECTS[SUBJECT].results


def check(learner: ModuleType, seed: int = 0) -> Iterator[Verdict]:
    """Verdicts on the lines that are there; on all of them, if all are."""
    instance = diagnose.SUBJECTS[SUBJECT].instances(seed)[0]
    mine = find(learner, NAME, *instance.inputs)
    found = mine if isinstance(mine, Verdict) else ask(NAME, mine, *instance.inputs.values())
    if isinstance(found, Verdict):
        yield found
    elif isinstance(found, dict) and any(found.get(name) is None for name in RESULTS):
        yield from so_far(found, instance.inputs)
    else:
        yield judge(SUBJECT, learner, NAME, seed=seed, adapt=without_none)


def without_none(function: Function) -> Function:
    """The function, but without what is None in its dict: dz2 may have another name in it."""

    def made(*arguments: Any) -> Any:
        found = function(*arguments)
        if not isinstance(found, dict):
            return found
        return {name: value for name, value in found.items() if value is not None}

    return made


def so_far(found: dict[str, Any], inputs: dict[str, Any]) -> Iterator[Verdict]:
    """Verdicts on what stands before the first line that is missing, and which that is."""
    missing = next(name for name in GRADIENTS if found.get(name) is None)
    done = GRADIENTS[: GRADIENTS.index(missing)]
    if done:
        forward = ("z1", "h", "z2")
        judged = {name: found[name] for name in (*forward, *done) if found.get(name) is not None}
        yield diagnose.arrays(SUBJECT, judged, inputs)
    line = f"write the line {missing} = ..."
    yield to_do(missing, f"{', '.join(done)} so far right; {line}" if done else line)
