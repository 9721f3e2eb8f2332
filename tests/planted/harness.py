"""Plants one bug in a copy of scratchnet, and runs the tests against the copy until one fails.

Importing torch takes longer than killing a bug. So one parent imports all that the tests need,
except scratchnet, and forks a child for each bug: the child imports scratchnet from the copy and
the tests from the repository. A kill is a wrong value: an assertion of a test that fails, or an
error that does not come where it must come. An example in which anything else is raised is thrown
away, as if it had not been drawn, and the search goes on.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.errors import HypothesisException

from tests.planted.catalogue import Bug

ROOT = Path(__file__).parents[2]
PRELOADED = ("numpy.testing", "torch", "torchvision.datasets", "hypothesis.extra.numpy")
# What is run against a patched file, in this order but for `Watch`'s own.
TESTS = {
    "functional.py": ("test_functional", "test_identities"),
    "nn.py": ("test_nn", "test_identities", "test_training"),
    "optim.py": ("test_optim", "test_identities", "test_training", "test_engines"),
    "training.py": ("test_training", "test_engines"),
    "mnist.py": ("test_mnist",),
    "engines/__init__.py": ("test_engines",),
    "engines/numpy_inplace.py": ("test_engines",),
    "engines/native.c": ("test_engines",),
    "engines/native.py": ("test_engines",),
}
ANSWER = "outcome.json"
WHOLE_RUNS = {"data", "accuracies"}  # fixtures of the tests that train on all of MNIST
SECONDS = 240  # for a bug; one that hangs twice is killed then, and counts as a survivor
KILLS = (AssertionError, pytest.fail.Exception)

hypothesis.settings.register_profile(
    "planted",
    deadline=None,
    max_examples=100,
    derandomize=True,
    database=None,
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
    report_multiple_bugs=False,
    suppress_health_check=list(hypothesis.HealthCheck),
)
# The suite itself has tried all of these examples on what is right.
hypothesis.settings.register_profile(
    "unpatched", hypothesis.settings.get_profile("planted"), max_examples=20
)


@dataclass
class Outcome:
    """What became of a bug.

    Attributes:
        name: the bug's.
        test: the test that killed it; None if it lives.
        examples: how many examples that test had drawn by then, the fatal one included.
        seconds: from the fork to the end.
        passed: how many tests passed before.
        raised: other exceptions on the way, which kill nothing.
    """

    name: str
    test: str | None = None
    examples: int = 0
    seconds: float = 0.0
    passed: int = 0
    raised: list[str] = field(default_factory=list)


class Watch:
    """A pytest plugin that orders the tests, counts examples, and stops at the first kill."""

    def __init__(self, bug: Bug) -> None:
        self.bug = bug
        self.outcome = Outcome(bug.name)
        self.examples = 0
        self.fatal: int | None = None

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted(filter(self._is_run, items), key=self._rank)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        self.examples, self.fatal = 0, None
        handle = _hypothesis(item)
        if handle is None:
            return (yield)
        inner = handle.inner_test
        handle.inner_test = self._counted(inner)
        try:
            return (yield)
        finally:
            handle.inner_test = inner

    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> None:
        error = call.excinfo.value if call.excinfo else None
        if error is None:
            self.outcome.passed += call.when == "call"
        elif _is_kill(error) and call.when == "call":
            self.outcome.test = item.nodeid.removeprefix("tests/").replace(".py", "")
            self.outcome.examples = self.fatal or 1
            item.session.shouldstop = "killed"
        elif not isinstance(error, pytest.skip.Exception):
            self._note(error)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.outcome.raised.append(str(report.longrepr).splitlines()[-1])

    def _is_run(self, item: pytest.Item) -> bool:
        if WHOLE_RUNS & set(getattr(item, "fixturenames", ())):
            return False
        in_area = self.bug.area in item.nodeid and _hypothesis(item) is not None
        return in_area or not self.bug.square

    def _rank(self, item: pytest.Item) -> tuple[bool, bool]:
        """First the tests that have the area in their names, and of these the property tests."""
        return self.bug.area not in item.nodeid, _hypothesis(item) is None

    def _counted(self, inner: Callable[..., object]) -> Callable[..., object]:
        @functools.wraps(inner)
        def counted(*args: Any, **kwargs: Any) -> object:
            self.examples += 1
            try:
                return inner(*args, **kwargs)
            except HypothesisException:
                raise
            except (Exception, *KILLS) as error:
                if _is_kill(error):
                    self.fatal = self.fatal or self.examples  # Hypothesis runs it once more
                    raise
                self._note(error)
                hypothesis.reject()

        return counted

    def _note(self, error: BaseException) -> None:
        note = f"{type(error).__name__}: {error}".splitlines()[0]
        if note not in self.outcome.raised:
            self.outcome.raised.append(note)


def _is_kill(error: BaseException) -> bool:
    """An error with other words than those expected is an exception like any other."""
    return isinstance(error, KILLS) and not str(error).startswith("Regex pattern did not match")


def _hypothesis(item: pytest.Item) -> Any:
    """Hypothesis' handle on a property test; None for an ordinary one."""
    return getattr(getattr(item, "obj", None), "hypothesis", None)


def run(bugs: Iterable[Bug], workers: int = 2) -> Iterator[Outcome]:
    """The outcomes, in the order in which they come."""
    _preload()
    waiting, tried_again = list(bugs)[::-1], set()
    with tempfile.TemporaryDirectory() as folder:
        running: dict[int, tuple[Bug, Path]] = {}
        while waiting or running:
            while waiting and len(running) < workers:
                bug = waiting.pop()
                home = Path(tempfile.mkdtemp(dir=folder))
                running[_fork(bug, home)] = bug, home
            child, _ = os.wait()
            bug, home = running.pop(child)
            # A fork may hang for reasons of its own, in a lock that another thread has held.
            if not (home / ANSWER).exists() and bug.name not in tried_again:
                tried_again.add(bug.name)
                waiting.append(bug)
            else:
                yield _outcome(bug, home)


def _preload() -> None:
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # a child per bug would have to start the GPU anew
    for module in PRELOADED:
        importlib.import_module(module)
    with contextlib.suppress(ImportError):  # asked for at each failure, where libcst is installed
        importlib.import_module("hypothesis.extra._patching")
    gc.freeze()  # pytest collects garbage at its end, and need not go through torch for it
    if "scratchnet" in sys.modules:
        raise RuntimeError("scratchnet is imported already; expected to import it from the copies")


def _fork(bug: Bug, home: Path) -> int:
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        signal.alarm(SECONDS)  # its default is to end the process, wherever that is
        with (home / "output.txt").open("w") as output:
            for descriptor in (1, 2):
                os.dup2(output.fileno(), descriptor)
        outcome = _judge(bug, home)
        (home / ANSWER).write_text(json.dumps(asdict(outcome)))
        status = 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)


def _judge(bug: Bug, home: Path) -> Outcome:
    began = time.perf_counter()
    _copy(bug, home / "scratchnet")
    if bug.file.endswith(".c"):
        os.environ["XDG_CACHE_HOME"] = str(home)  # where what is compiled of it can't stay
    sys.path.insert(0, str(home))
    package = importlib.import_module("scratchnet")
    if package.__file__ is None or not Path(package.__file__).is_relative_to(home):
        raise RuntimeError(f"scratchnet came from {package.__file__}; expected the copy")
    if bug.square:
        _make_shapes_square()
    watch = Watch(bug)
    modules = [str(ROOT / "tests" / f"{module}.py") for module in TESTS[bug.file]]
    profile = "planted" if bug.old else "unpatched"
    options = ["-q", "--tb=no", "-p", "no:cacheprovider", f"--hypothesis-profile={profile}"]
    options += ["-k", "not strict"]  # which is NumPy once more
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # of what is preloaded
    pytest.main(
        [*options, "--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml"), *modules], [watch]
    )
    watch.outcome.seconds = time.perf_counter() - began
    return watch.outcome


def _copy(bug: Bug, package: Path) -> None:
    original = ROOT / "scratchnet"
    shutil.copytree(original, package, ignore=shutil.ignore_patterns("datasets", "__pycache__"))
    (package / "datasets").symlink_to(original / "datasets")
    file = package / bug.file
    file.write_text(bug.plant(file.read_text()))


def _make_shapes_square() -> None:
    strategies = importlib.import_module("tests.strategies")
    square: st.SearchStrategy[tuple[int, int, int]] = strategies.sizes.map(lambda n: (n, n, n))
    strategies.shapes = lambda: square  # type: ignore[attr-defined]


def _outcome(bug: Bug, home: Path) -> Outcome:
    written = home / ANSWER
    if written.exists():
        return Outcome(**json.loads(written.read_text()))
    output = (home / "output.txt").read_text().splitlines()
    return Outcome(bug.name, seconds=SECONDS, raised=["no answer", *output[-1:]])
