"""Every planted bug is killed, by a wrong value; and where none is planted, nothing is found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from scratchnet.engines import native, native_build
from tests.planted.catalogue import BUGS, FILES, UNPATCHED, Bug
from tests.planted.harness import ROOT, Outcome

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="a child is forked for each bug")


def param(bug: Bug) -> Any:
    reason = native.why_not() if "native" in bug.file else None
    mark = pytest.mark.skipif(reason is not None, reason=str(reason))
    return pytest.param(bug, id=bug.name, marks=mark)


EVERY_BUG = pytest.mark.parametrize("bug", [*map(param, BUGS)])


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """What became of each bug, from a process of its own: this one has imported scratchnet."""
    file = tmp_path_factory.mktemp("planted") / "outcomes.json"
    found = run("-m", "tests.planted", "--json", str(file))
    assert file.exists(), found.stderr
    return {entry["name"]: Outcome(**entry) for entry in json.loads(file.read_text())}


@EVERY_BUG
def test_a_planted_bug_is_killed(bug: Bug, outcomes: dict[str, Outcome]) -> None:
    outcome = outcomes[bug.name]
    assert outcome.test, f"{outcome.passed} tests passed; other errors: {outcome.raised}"
    assert outcome.examples >= 1


@pytest.mark.parametrize("bug", UNPATCHED, ids=lambda bug: bug.name)
def test_where_none_is_planted_every_test_passes(bug: Bug, outcomes: dict[str, Outcome]) -> None:
    outcome = outcomes[bug.name]
    assert outcome.test is None
    assert outcome.raised == []
    assert outcome.passed > 0


@EVERY_BUG
def test_a_patch_changes_one_place_and_compiles(bug: Bug) -> None:
    source = (ROOT / "scratchnet" / bug.file).read_text()
    planted = bug.plant(source)
    if bug.file.endswith(".py"):
        compile(planted, bug.file, "exec")
    else:
        command = [*native_build.compiler(), "-DREAL=float", "-fsyntax-only", "-x", "c", "-"]
        subprocess.run(command, input=planted, text=True, check=True)
    assert len(planted) - len(source) == len(bug.new) - len(bug.old)
    assert planted != source


def test_the_catalogue_is_large_and_names_each_bug_once() -> None:
    assert len(BUGS) >= 80
    assert len({bug.name for bug in (*BUGS, *UNPATCHED)}) == len(BUGS) + len(UNPATCHED)
    assert {bug.area for bug in BUGS} == set(FILES)


@pytest.mark.parametrize(
    ("function", "old", "words"),
    [
        ("relu", "x < 0", "no relu"),
        ("Layer.relu", "x", "no relu"),
        ("f", "x < 0", "occurs 0 times"),
        ("f", "x", "occurs 2 times"),
        ("", "x", "occurs 4 times"),
    ],
)
def test_a_patch_that_fits_nowhere_or_twice_is_refused(function: str, old: str, words: str) -> None:
    source = '"""x"""\ndef f(x):\n    """x < 0"""\n    return x\nclass Layer:\n    x = 0\n'
    with pytest.raises(ValueError, match=words):
        Bug("name", "", "relu", function, old, "").plant(source)


def test_a_patch_of_c_is_within_a_function() -> None:
    source = "int f(int x)\n{\n    return x;\n}\n\nint g(int x)\n{\n    return f(x) - x;\n}\n"
    bug = Bug("name", "", "native", "f", "return x", "return 0")
    assert bug.plant(source) == source.replace("return x", "return 0")
    for function, words in (("g", "occurs 0 times"), ("h", "there is no h")):
        with pytest.raises(ValueError, match=words):
            replace(bug, function=function).plant(source)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_the_catalogue_can_be_listed() -> None:
    lines = run("-m", "tests.planted", "--list").stdout.splitlines()
    assert lines == [f"{bug.name}: {bug.sentence}" for bug in (*UNPATCHED, *BUGS)]


def test_one_bug_can_be_planted_alone_and_an_unknown_one_is_refused() -> None:
    refused = run("-m", "tests.planted", "no_such_bug")
    assert refused.returncode == 2
    assert "no_such_bug" in refused.stderr
    assert "--list" in refused.stderr
    refused = run("-m", "tests.planted", "relu_backwards_passes_at_0")
    assert "expected relu_backward_passes_at_0" in refused.stderr
    one = run("-m", "tests.planted", "relu_backward_passes_at_0")
    assert one.returncode == 0
    assert "relu_backward_passes_at_0: At 0 the slope is 1." in one.stdout
    assert "1 of 1 planted bugs killed" in one.stdout


HARMLESS = """
import json
from dataclasses import asdict
from tests.planted import harness
from tests.planted.catalogue import Bug

harness.SECONDS = 10
news = {
    "the same": "return images.astype(dtype) / 255.0",
    "raises": "raise KeyError(7)",
    "hangs": "while True:\\n        pass",
    "does not compile": "return (",
}
old = "return images.astype(dtype) / 255"
bugs = [Bug(name, "", "data", "to_float", old, news[name]) for name in news]
print(json.dumps([asdict(outcome) for outcome in harness.run(bugs)]))
"""


def test_what_only_raises_hangs_or_changes_nothing_is_not_killed() -> None:
    found = run("-c", HARMLESS)
    outcomes = {entry["name"]: Outcome(**entry) for entry in json.loads(found.stdout)}
    assert [outcome.test for outcome in outcomes.values()] == [None] * 4
    assert outcomes["the same"].raised == []
    assert "KeyError: 7" in outcomes["raises"].raised
    assert outcomes["hangs"].raised[0] == "no answer"
    assert "SyntaxError" in outcomes["does not compile"].raised[-1]
