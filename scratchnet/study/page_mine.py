"""The reader's own gradients of the page's batch: asked for in the process of `sandbox`."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from scratchnet.study import answers
from scratchnet.study.course import BUNDLED
from scratchnet.study.exercises.checking import find
from scratchnet.study.subjects import SUBJECTS, Instance

SUBJECT = SUBJECTS["network_backward"]
CHAIN = BUNDLED / "09_chain" / "check.py"  # the exercise that asks for such a function


def judge(learner: ModuleType, inputs: dict[str, Any]) -> Iterator[Any]:
    """What the learner's network_backward makes of the batch, and then the exercise's verdicts.

    Args:
        learner: the learner's file.
        inputs: the values of SUBJECT.inputs by name, as lists.
    """
    mine = find(learner, SUBJECT.name, *SUBJECT.inputs)
    if callable(mine):
        values = {name: np.array(value) for name, value in inputs.items()}
        yield answers.ask(SUBJECT, mine, Instance("this batch", values, {})).found
    yield from runpy.run_path(str(CHAIN))["check"](learner)
