"""What the learner has solved, in a file that a person can read, and edit.

    {
      "exercises": {
        "01_finite_difference": {
          "tries": 3,
          "hints": 1,
          "solved": "2026-11-25 19:30"
        }
      }
    }

Whatever else is in the file stays in it. A file that can't be understood is never overwritten.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from scratchnet import files
from scratchnet.errors import InputError

FILE = "study.json"
PATIENCE = 5.0  # seconds to wait for another process that writes the file
MEND = "mend it, or move it away to begin a new one; it was left as it is"


@dataclass(frozen=True)
class Standing:
    """How it stands with an exercise.

    Attributes:
        tries: checks that were made before it was solved, and the one by which it was.
        hints: how many have been read.
        solved: when, such as "2026-11-25 19:30"; "" if it is not.
    """

    tries: int = 0
    hints: int = 0
    solved: str = ""


class Progress:
    """The progress file of a folder, which need not be there yet.

    Each change reads the file, changes one exercise in it, and writes it whole, while no other
    process does (on Windows nothing keeps another from it).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / FILE

    def exists(self) -> bool:
        """Whether the file is there."""
        return self.path.exists()

    def begin(self) -> None:
        """Make the file, if it isn't there."""
        with self._locked():
            if not self.exists():
                self._write({"exercises": {}})

    def of(self, name: str) -> Standing:
        """How it stands with the exercise of that name.

        Raises:
            InputError: the file can't be understood.
        """
        entry = self._read()["exercises"].get(name, {})
        return Standing(entry.get("tries", 0), entry.get("hints", 0), entry.get("solved", ""))

    def count_try(self, name: str, solved: bool) -> bool:
        """Count a check of the exercise, unless it was solved before; whether it was not."""
        with self._changing(name) as entry:
            if entry.get("solved"):
                return False
            entry["tries"] = entry.get("tries", 0) + 1
            if solved:
                entry["solved"] = f"{datetime.now():%Y-%m-%d %H:%M}"
            return True

    def next_hint(self, name: str, last: int) -> int:
        """Take one more hint, up to the last; which it is, from 1."""
        with self._changing(name) as entry:
            entry["hints"] = min(entry.get("hints", 0) + 1, last)
            return int(entry["hints"])

    @contextlib.contextmanager
    def _changing(self, name: str) -> Iterator[dict[str, Any]]:
        with self._locked():
            content = self._read()
            yield content["exercises"].setdefault(name, {})
            self._write(content)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """The folder's lock, for which it is worth to wait: others have it for milliseconds."""
        deadline = time.monotonic() + PATIENCE
        with contextlib.ExitStack() as stack:
            while True:
                try:
                    stack.enter_context(files.lock(self.folder))
                    break
                except InputError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.01)
            yield

    def _write(self, content: dict[str, Any]) -> None:
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        files.write(self.path, text.encode("utf-8", "backslashreplace"))  # half a surrogate pair

    def _read(self) -> dict[str, Any]:
        """The content, in which every exercise is known to be sound."""
        try:
            text = self.path.read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            return {"exercises": {}}
        except UnicodeDecodeError as error:
            raise self._broken(f"byte {error.start} is not UTF-8") from error
        try:
            content = json.loads(text)
        except json.JSONDecodeError as error:
            place = f"line {error.lineno}, column {error.colno}"
            raise self._broken(f"{place}: {error.msg}") from error
        except (ValueError, RecursionError) as error:  # a number of 5,000 digits, [[[[...
            raise self._broken(str(error)) from error
        self._expect("the whole", content, dict, "{...}")
        exercises = content.setdefault("exercises", {})
        self._expect('"exercises"', exercises, dict, "{...}")
        for name, entry in exercises.items():
            self._expect(f'"{name}"', entry, dict, "{...}")
            for key, kind, words in (
                ("tries", int, "a whole number, at least 0"),
                ("hints", int, "a whole number, at least 0"),
                ("solved", str, 'a date in quotes, or ""'),
            ):
                if key in entry:
                    self._expect(f'"{key}" of "{name}"', entry[key], kind, words)
        return content

    def _expect(self, what: str, value: Any, kind: type, words: str) -> None:
        if not isinstance(value, kind) or value is True or value is False:
            raise self._broken(f"{what} is {json.dumps(value)[:40]}; expected {words}")
        if isinstance(value, int) and value < 0:
            raise self._broken(f"{what} is {value}; expected {words}")

    def _broken(self, why: str) -> InputError:
        return InputError(f"{self.path}: can't be understood: {why}; {MEND}")
