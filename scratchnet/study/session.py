"""A learner's way through the exercises, in a folder: begin, check, hint, explain, go on.

What is done with the folder: an exercise's file is made when its turn comes, and never written
again; `reset` moves it aside first.
"""

from __future__ import annotations

import os
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click

from scratchnet.errors import InputError
from scratchnet.study import course, sandbox, terminal, watching
from scratchnet.study.course import Course, Exercise
from scratchnet.study.progress import FILE, Progress
from scratchnet.study.sandbox import Limits, Run
from scratchnet.study.terminal import bad, bold, fit, good, quiet, table, width

LAST_HINT = len(course.HINTS)


@dataclass(frozen=True)
class Session:
    """A learner's folder.

    Attributes:
        folder: the folder; made, if it is not there.
        course: the exercises.
        limits: of a check.
    """

    folder: Path
    course: Course
    limits: Limits

    @property
    def progress(self) -> Progress:
        """What has been solved."""
        return Progress(self.folder)

    def file(self, exercise: Exercise) -> Path:
        """The learner's file."""
        return self.folder / exercise.file_name

    def command(self, words: str = "") -> str:
        """What to type for a command, such as "hint 3"."""
        return terminal.command(self.folder, words)

    def find(self, number: int | None) -> Exercise:
        """The exercise of that number; without one, the first that is not solved, or the last."""
        if number is not None:
            return course.find(self.course, number)
        return self.next() or self.course[-1]

    def next(self, after: Exercise | None = None) -> Exercise | None:
        """The first exercise that is not solved, if possible one after the given; None: all are."""
        unsolved = [each for each in self.course if not self.progress.of(each.name).solved]
        later = [each for each in unsolved if after is None or each.number > after.number]
        return next(iter([*later, *unsolved]), None)

    # ---------------------------------------------------------------------------------- begin

    def begin(self, number: int | None) -> bool:
        """Say what will be made in a folder that is new, and make it. Whether it is new."""
        if self.progress.exists():
            return False
        self.folder.mkdir(parents=True, exist_ok=True)
        exercise = self.find(number)
        rows = [(f"  {FILE}", "what you have solved: keep it")]
        here = self.file(exercise).exists()
        which = "the first exercise" if number is None else f"exercise {exercise.number}"
        rows.append((f"  {exercise.file_name}", "is here, and stays as it is" if here else which))
        self.say(
            bold("scratchnet study: backprop by doing it")
            + f", in {len(self.course)} exercises.\n\n"
            + fit(f"In {self.folder.absolute()} it makes")
            + f"\n{table(rows)}\n"
        )
        self.progress.begin()
        self.make(exercise)
        self.say(
            fit(f"Open {exercise.file_name} in your editor: its text says what is asked. Then\n")
            + "\n"
            + table(
                [
                    (f"  {self.command()}", "checks it"),
                    (f"  {self.command('--watch')}", "checks it at each save, and goes on"),
                    (f"  {self.command('hint')}", f"helps, up to {LAST_HINT} times an exercise"),
                    (f"  {self.command('status')}", "shows all exercises"),
                ]
            )
        )
        return True

    def make(self, exercise: Exercise) -> bool:
        """Make an exercise's file, if it isn't there; whether it was made."""
        try:
            with self.file(exercise).open("xb") as file:
                file.write(exercise.template)
        except FileExistsError:
            return False
        return True

    def must_have_begun(self) -> None:
        """Raise InputError in a folder where nothing has been begun."""
        if not self.progress.exists():
            raise InputError(
                f"{self.folder.absolute()}: holds no {FILE}; expected the folder of your "
                f"exercises: go there, give --folder, or begin with: {self.command()}"
            )

    # ---------------------------------------------------------------------------------- check

    def go_on_with(self, exercise: Exercise) -> bool:
        """Check an exercise, after saying how far one is; or make its file. Whether all is well."""
        solved = sum(bool(self.progress.of(each.name).solved) for each in self.course)
        self.say(quiet(f"{solved} of {len(self.course)} solved\n"))
        if self.make(exercise):
            self.say(f"{bold(_heading(exercise))}: {exercise.file_name} is made, open it.")
            return True
        return self.check(exercise)

    def check(self, exercise: Exercise) -> bool:
        """Check an exercise and say what came out; if it is right, explain it and go on."""
        path = self.file(exercise)
        run = sandbox.run(path, exercise.check, limits=self.limits)
        ok = run.ruling.ok
        self.say(self._verdict(exercise, run))
        self._keep_what_is_gone(path, run)
        is_try = run.ruling.name not in ("check", "to do")
        is_new = is_try and self.progress.count_try(exercise.name, ok)
        if not ok:
            self.say("\n" + self._help(exercise) if run.ruling.name != "check" else "")
        elif is_new:
            self.say("\n" + fit(exercise.words(course.EXPLAIN)))
            self.go_on(exercise)
        return ok

    def go_on(self, exercise: Exercise) -> None:
        """Make the file of the exercise that is next, and say so."""
        following = self.next(exercise)
        if following is None:
            self.say("\n" + good(f"That was the last: all {len(self.course)} are solved."))
            return
        made = self.make(following)
        name = f"{following.file_name} is {'made' if made else 'here already'}"
        self.say("\n" + bold(f"Next: e{_heading(following)[1:]}") + f"\n{name}: open it.")

    def is_begun(self, exercise: Exercise) -> bool:
        """Whether the file is there, and not as it was made."""
        path = self.file(exercise)
        return path.is_file() and path.read_bytes() != exercise.template

    def watch(self, exercise: Exercise, pause: Callable[[], None] | None = None) -> None:
        """Check an exercise whenever it is saved, go on to the next, and end when all are solved.

        Args:
            exercise: where to begin.
            pause: waits between two looks at the file; default `watching.EVERY` seconds.
        """
        pause = pause or (lambda: time.sleep(watching.EVERY))
        following: Exercise | None = exercise
        while following is not None:
            self.make(following)
            self._watch_one(following, pause)
            following = self.next(following)

    def _watch_one(self, exercise: Exercise, pause: Callable[[], None]) -> None:
        """Return when the exercise is solved."""
        path = self.file(exercise)
        watched = watching.Watched(path, pause)

        def missing() -> None:
            self.say(bad(f"{path.name} is not there") + ": waiting until it is.")

        solved = self.is_begun(exercise) and self._check_if_there(exercise)
        if not solved:
            self.say(quiet(f"\nWatching {path.name}: save it to check it; Ctrl-C ends."))
        while not solved:
            watched.wait(missing)
            self.say("\n" + quiet(f"--- {path.name}, {time.strftime('%H:%M:%S')}"))
            solved = self._check_if_there(exercise)

    def _check_if_there(self, exercise: Exercise) -> bool:
        """Check, unless an editor has just taken the file away: it will be saved again."""
        try:
            return self.check(exercise)
        except FileNotFoundError:
            if self.file(exercise).exists():
                raise
            return False

    # ----------------------------------------------------------------------------------- words

    def hint(self, exercise: Exercise) -> None:
        """Show the next hint, and remember that."""
        had = self.progress.of(exercise.name).hints
        level = self.progress.next_hint(exercise.name, LAST_HINT)
        self.say(bold(f"{_heading(exercise)}: hint {level} of {LAST_HINT}") + "\n")
        self.say(fit(exercise.words(course.HINTS[level - 1])))
        if had >= LAST_HINT:
            why = self.command(f"why {exercise.number}")
            self.say(quiet(f"\nThere is no further hint. {why} derives it."))

    def why(self, exercise: Exercise) -> None:
        """Show the derivation."""
        self.say(bold(f"{_heading(exercise)}: why") + "\n")
        self.say(fit(exercise.words(course.WHY)))

    def explain(self, exercise: Exercise) -> None:
        """Show the explanation, if the exercise is solved."""
        if not self.progress.of(exercise.name).solved:
            raise InputError(
                f"exercise {exercise.number} is not solved yet; its explanation comes after that: "
                f"{self.command(f'hint {exercise.number}')} helps"
            )
        self.say(bold(_heading(exercise)) + "\n")
        self.say(fit(exercise.words(course.EXPLAIN)))

    def reset(self, exercise: Exercise) -> None:
        """Make the exercise's file anew, and keep the old one beside it."""
        path = self.file(exercise)
        if path.is_dir():
            raise InputError(f"{path}: is a folder; expected your Python file: move it away")
        kept = _move_aside(path) if path.exists() else None
        if not self.make(exercise):
            raise InputError(f"{path}: another program has just made it; expected none; try again")
        self.say(
            f"{path.name} is as it was at first" + (f"; yours is now {kept.name}" if kept else "")
        )

    def status(self) -> None:
        """Show how it stands with each exercise."""
        rows = [("exercise", "", "state", "tries", "hints")]
        room = width() - sum(len(cell) + 2 for cell in rows[0]) - 1
        for exercise in self.course:
            standing = self.progress.of(exercise.name)
            title = textwrap.shorten(exercise.title, room, placeholder="...")
            state = "solved" if standing.solved else "begun" if self.is_begun(exercise) else "-"
            counts = (str(standing.tries or "-"), str(standing.hints or "-"))
            rows.append((str(exercise.number), title, state, *counts))
        solved = sum(row[2] == "solved" for row in rows)
        self.say(table(rows))
        self.say(f"\n{solved} of {len(self.course)} solved, in {self.folder.absolute()}")

    # --------------------------------------------------------------------------------- printing

    def say(self, text: str) -> None:
        """Print."""
        click.echo(text)

    def _verdict(self, exercise: Exercise, run: Run) -> str:
        """The verdict first, then the evidence."""
        ruling = run.ruling
        verdict = good("right") if ruling.ok else bad("not yet")
        if ruling.name == "check":
            verdict = bad("can't be judged")
        parts = [f"{bold(_heading(exercise))}: {verdict}"]
        parts += [fit(ruling.message, "  ")] if not ruling.ok else []
        parts += [fit(text, "  ") for text in ruling.further]
        evidence = [text for text in (ruling.traceback.rstrip(), ruling.ledger) if text]
        parts += [textwrap.indent(text, "  ") for text in evidence]
        if ruling.right:
            names = ", ".join(ruling.right)
            parts.append(fit(f"Right, given what comes before: {names}", "  "))
        if run.right and not ruling.ok:
            names = "; ".join(name.rstrip(",") for name in run.right)
            parts.append(fit(f"Right so far: {names}", "  "))
        if ruling.hint:
            # The checks know no folder.
            hint = ruling.hint.replace("scratchnet study", self.command())
            parts.append(fit(hint[0].upper() + hint[1:], "  "))
        if run.left:
            parts.append(fit(f"It has left {run.left} running, which the check has ended.", "  "))
        if run.output:
            cut = f"\n... and {run.cut:,} bytes more" if run.cut else ""
            shown = textwrap.indent(run.output + cut, "  | ", lambda _: True)
            parts.append(f"  It has printed:\n{shown}")
        return "\n\n".join(parts)

    def _help(self, exercise: Exercise) -> str:
        had = self.progress.of(exercise.name).hints
        if had < LAST_HINT:
            hint = self.command(f"hint {exercise.number}")
            return quiet(f"{hint}: hint {had + 1} of {LAST_HINT}")
        return quiet(f"{self.command(f'why {exercise.number}')}: the derivation")

    def _keep_what_is_gone(self, path: Path, run: Run) -> None:
        """What was checked is kept, if the check has ended with its file being gone."""
        for _ in range(5):  # an editor that saves may take it away for a moment
            if path.exists():
                return
            time.sleep(0.1)
        kept = _reserve(path)
        kept.write_bytes(run.source)
        self.say(
            f"\n{path.name} is gone: something has removed it. What was checked is {kept.name}."
        )


def _heading(exercise: Exercise) -> str:
    return f"Exercise {exercise.number}, {exercise.title}"


def _reserve(path: Path) -> Path:
    """A new empty file beside it, the next free of NAME.1, NAME.2, ..."""
    number = 1
    while True:
        kept = path.with_name(f"{path.name}.{number}")
        try:
            kept.open("xb").close()
        except FileExistsError:
            number += 1
        else:
            return kept


def _move_aside(path: Path) -> Path:
    kept = _reserve(path)
    os.replace(path, kept)
    return kept
