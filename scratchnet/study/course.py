"""The exercises, as they lie in a folder: what the learner gets, what is said about it, the check.

A folder such as `03_linear` holds `exercise.py`, the file that the learner edits; `words.md`, the
hints, the derivation and the explanation; and `check.py`, whose check(learner) yields verdicts.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scratchnet.errors import InputError

BUNDLED = Path(__file__).parent / "exercises"
HINTS = ("Hint 1", "Hint 2", "Hint 3")
WHY, EXPLAIN = "Why", "Explain"


@dataclass(frozen=True)
class Exercise:
    """An exercise.

    Attributes:
        number: from 1.
        folder: where its files lie; the name of it is the exercise's, such as "03_linear".
    """

    number: int
    folder: Path

    @property
    def name(self) -> str:
        """Such as "03_linear"."""
        return self.folder.name

    @property
    def file_name(self) -> str:
        """What the learner's file is called."""
        return f"{self.name}.py"

    @property
    def title(self) -> str:
        """The first line of the text, without its number and its full stop."""
        text = ast.get_docstring(ast.parse(self.template)) or self.name
        first = text.splitlines()[0].strip().removesuffix(".")
        return re.sub(r"^(exercise )?\d+\W+", "", first, flags=re.IGNORECASE)

    @property
    def template(self) -> bytes:
        """What the learner's file is at first."""
        return (self.folder / "exercise.py").read_bytes()

    @property
    def check(self) -> Path:
        """The file of the check."""
        return self.folder / "check.py"

    def words(self, section: str) -> str:
        """A section of words.md: one of HINTS, WHY or EXPLAIN."""
        text = (self.folder / "words.md").read_text(encoding="utf-8")
        for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
            heading, _, body = part.partition("\n")
            if heading.strip().lower() == section.lower():
                return body.strip("\n").rstrip()
        raise InputError(f"{self.folder / 'words.md'}: has no section '## {section}'; add it")


Course = Sequence[Exercise]


def load(folder: Path = BUNDLED) -> Course:
    """The exercises in a folder, in their order.

    Raises:
        InputError: there are none.
    """
    found = {
        int(match[1]): path
        for path in folder.glob("*/exercise.py")
        if (match := re.match(r"(\d+)_", path.parent.name))
    }
    if not found:
        raise InputError(f"{folder}: holds no exercises; expected folders such as 01_linear in it")
    return [Exercise(number, path.parent) for number, path in sorted(found.items())]


def find(course: Course, number: int) -> Exercise:
    """The exercise of that number.

    Raises:
        InputError: there is none.
    """
    for exercise in course:
        if exercise.number == number:
            return exercise
    raise InputError(
        f"there is no exercise {number}; expected {course[0].number} to {course[-1].number}"
    )
