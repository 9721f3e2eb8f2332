"""Changes scratchnet in small ways, one at a time: python -m tests.mutation [pattern ...].

mutmut makes the mutants and runs the tests that pyproject.toml's [tool.mutmut] names against each,
in a copy under build/. It changes what is inside functions, and not the statements of a module or
of a class; of a raise only the condition. survivors.json says of each survivor why it lives:

    equivalent  it computes the same
    wording     only words of a message change
    gpu         only where there is a GPU it is another, and a test there tells it

A survivor that it does not know is printed, and the exit status is 1. Patterns are of mutmut's
names, such as "scratchnet.nn.*" or "*linear_forward*"; without any, results.json is written anew.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import os
import platform
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from fnmatch import fnmatch
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from tests.mutation.copy import FILES, WORK, make

SURVIVORS = Path(__file__).with_name("survivors.json")
RESULTS = Path(__file__).with_name("results.json")
OUTCOMES = {0: "survived", 33: "survived", 1: "killed", 3: "killed", None: "not run"}
OUTCOMES |= dict.fromkeys((-24, 24, 36, 152, 255), "timeout")
KILLS = ("killed", "timeout")
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class Mutant(NamedTuple):
    """What became of a mutant: its name at mutmut's, its file, and the change."""

    name: str
    file: str
    outcome: str
    diff: list[str]

    @property
    def key(self) -> tuple[str, ...]:
        """What stays the same when other mutants of the function come or go."""
        return self.name.rpartition("__mutmut_")[0], *self.diff


def main(arguments: list[str] | None = None) -> int:
    """0 if every survivor is one that survivors.json knows."""
    options = _parse(arguments)
    if not options.last:
        make()
        _run(options)
    found = [m for m in _mutants() if any(fnmatch(m.name, p) for p in options.patterns or "*")]
    known = {(entry["function"], *entry["diff"]): entry for entry in _read(SURVIVORS)}
    numbers = {file: _count([m for m in found if m.file == file], known) for file in FILES}
    print("\n".join(f"{file:14}{_row(row)}" for file, row in numbers.items() if row))
    unknown = [m for m in found if m.outcome not in KILLS and m.key not in known]
    for mutant in unknown:
        print(f"\n{mutant.name}: {mutant.outcome}", *mutant.diff, sep="\n")
    if not options.patterns:
        RESULTS.write_text(json.dumps(_record(numbers, options), indent=2) + "\n")
    return int(bool(unknown))


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("patterns", nargs="*", metavar="pattern", help="mutants; default: all")
    parser.add_argument("--children", type=int, default=1, help="processes; default: 1")
    parser.add_argument("--examples", type=int, default=30, help="of each property; default: 30")
    parser.add_argument("--last", action="store_true", help="only tell of the last run again")
    return parser.parse_args(arguments)


def _run(options: argparse.Namespace) -> None:
    command = [sys.executable, "-c", "from mutmut.__main__ import cli; cli()", "run"]
    command += [f"--max-children={options.children}", *options.patterns]
    environment = os.environ | ONE_THREAD | {"MUTATION_EXAMPLES": str(options.examples)}
    subprocess.run(command, cwd=WORK, env=environment, check=True)


def _mutants() -> Iterator[Mutant]:
    for file in FILES:
        path = WORK / "mutants" / "scratchnet" / file
        codes = _read(path.with_name(f"{file}.meta"))["exit_code_by_key"]
        functions = _functions(path.read_text())
        for name, code in codes.items():
            outcome = OUTCOMES.get(code, f"exit status {code}")
            yield Mutant(name, file, outcome, _diff(functions, name.rpartition(".")[2]))


def _read(path: Path) -> Any:
    return json.loads(path.read_text())


def _functions(source: str) -> dict[str, ast.FunctionDef]:
    nodes = ast.walk(ast.parse(source))
    return {node.name: node for node in nodes if isinstance(node, ast.FunctionDef)}


def _diff(functions: dict[str, ast.FunctionDef], name: str) -> list[str]:
    base, _, _ = name.rpartition("__mutmut_")
    before, after = (
        ast.unparse(functions[each]).replace(each, base, 1).splitlines()
        for each in (f"{base}__mutmut_orig", name)
    )
    lines = difflib.unified_diff(before, after, n=0, lineterm="")
    return [line[0] + line[1:].strip() for line in lines if line[:3] not in ("---", "+++", "@@ ")]


def _count(mutants: list[Mutant], known: dict[tuple[str, ...], Any]) -> Counter[str]:
    """How many were killed, and how many live for a reason of each kind, or for none."""
    return Counter(
        mutant.outcome
        if mutant.outcome in KILLS
        else known[mutant.key]["kind"]
        if mutant.key in known
        else "unexplained"
        for mutant in mutants
    )


def _row(row: Counter[str]) -> str:
    return f"{row.total():5} mutants: " + ", ".join(f"{n} {kind}" for kind, n in row.most_common())


def _record(numbers: dict[str, Counter[str]], options: argparse.Namespace) -> dict[str, Any]:
    whole = sum(numbers.values(), Counter[str]())
    packages = ("mutmut", "numpy", "torch", "hypothesis", "pytest")
    return {
        "files": {
            name: {"mutants": row.total(), **row} for name, row in {**numbers, "all": whole}.items()
        },
        "killed_percent": round(100 * sum(whole[kill] for kill in KILLS) / whole.total(), 1),
        "examples": options.examples,
        "versions": {"python": platform.python_version()} | {p: version(p) for p in packages},
        "machine": {"architecture": platform.machine(), "cores": os.cpu_count()},
    }


if __name__ == "__main__":
    sys.exit(main())
