"""Prints what kills each planted bug: python -m tests.planted [name ...]."""

from __future__ import annotations

import argparse
import difflib
import json
import statistics
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from tests.planted import harness
from tests.planted.catalogue import BUGS, UNPATCHED, Bug
from tests.planted.harness import Outcome


def main(arguments: list[str] | None = None) -> int:
    """0 if every bug is killed, and nothing is found where none is planted; else 1."""
    options = _parse(arguments)
    if options.list:
        print("\n".join(f"{bug.name}: {bug.sentence}" for bug in _BY_NAME.values()))
        return 0
    chosen = [bug for bug in (*UNPATCHED, *BUGS) if bug.name in options.names or not options.names]
    outcomes = []
    for outcome in harness.run(chosen, options.workers):
        outcomes.append(outcome)
        if not options.json:
            print(_row(_BY_NAME[outcome.name], outcome), flush=True)
    if options.json:
        options.json.write_text(json.dumps([asdict(outcome) for outcome in outcomes]))
    else:
        print(_summary(outcomes))
    return int(not all(map(_is_right, outcomes)))


_BY_NAME = {bug.name: bug for bug in (*UNPATCHED, *BUGS)}


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.planted", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help="bugs to plant; default: all")
    parser.add_argument("--list", action="store_true", help="list the bugs, and plant none")
    parser.add_argument("--workers", type=int, default=2, help="bugs at a time; default: 2")
    parser.add_argument("--json", type=Path, help="write the outcomes to this file, print nothing")
    options = parser.parse_args(arguments)
    for name in options.names:
        if name not in _BY_NAME:
            near = difflib.get_close_matches(name, _BY_NAME) or ["a name that --list lists"]
            parser.error(f"no bug is called {name}; expected {' or '.join(near)}")
    return options


def _is_right(outcome: Outcome) -> bool:
    if _BY_NAME[outcome.name] in UNPATCHED:
        return outcome.test is None and outcome.passed > 0 and not outcome.raised
    return outcome.test is not None


def _row(bug: Bug, outcome: Outcome) -> str:
    verdict = outcome.test or f"LIVES, {outcome.passed} tests passed"
    if bug in UNPATCHED:
        verdict = f"{outcome.passed} tests passed" if _is_right(outcome) else f"FAILS {verdict}"
    lines = [f"{bug.name}: {bug.sentence}", f"    {verdict}"]
    if outcome.test:
        lines[1] += f", example {outcome.examples}"
    lines[1] += f", {outcome.seconds:.1f} s"
    if not _is_right(outcome):
        lines += [f"    raised {raised}" for raised in outcome.raised]
    return "\n".join(lines)


def _summary(outcomes: list[Outcome]) -> str:
    killed = [outcome for outcome in outcomes if outcome.test]
    planted = [outcome for outcome in outcomes if _BY_NAME[outcome.name] not in UNPATCHED]
    lines = ["", f"{len(killed)} of {len(planted)} planted bugs killed"]
    if killed:
        examples = [outcome.examples for outcome in killed]
        lines[1] += (
            f", after {statistics.median(examples):.0f} examples (median), {max(examples)} at most"
        )
    kills = Counter(outcome.test.partition("[")[0] for outcome in killed if outcome.test)
    lines += [f"{count:5} {test}" for test, count in kills.most_common()]
    areas = Counter(_BY_NAME[outcome.name].area for outcome in planted)
    return "\n".join([*lines, ", ".join(f"{area} {count}" for area, count in areas.items())])


if __name__ == "__main__":
    sys.exit(main())
