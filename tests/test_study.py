"""`scratchnet study`: exercises that are solved as a person does, and files that do anything."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner

from scratchnet import files
from scratchnet.cli import main
from scratchnet.errors import InputError
from scratchnet.study import autograd, commands, course, sandbox, trace, watching
from scratchnet.study.progress import FILE, Progress, Standing
from scratchnet.study.sandbox import Limits, Ruling, Run
from scratchnet.study.session import Session
from scratchnet.study.terminal import fit

ROOT = Path(__file__).parent.parent
COMMAND = [sys.executable, "-m", "scratchnet", "study"]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}
PATIENCE = 60  # seconds for what takes one
SOLUTIONS = Path(__file__).parent / "study" / "solutions"
POSIX = pytest.mark.skipif(os.name != "posix", reason="of POSIX")
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")

# --------------------------------------------------------------------------- two small exercises

EXERCISE_1 = '''"""Exercise 1: twice as much.

Return twice x.
"""


def double(x):
    """x (N,) -> (N,)."""
    raise NotImplementedError
'''
CHECK_1 = """
import numpy as np
from scratchnet.study.verdicts import Finding, Verdict


def check(learner):
    yield Verdict("the name", ()) if learner.double else None
    found = learner.double(np.array([1.0, -2.0]))
    right = np.array_equal(found, [2.0, -4.0])
    finding = Finding("double", "unknown", f"double([1, -2]) is {found}")
    yield Verdict("double", ("one",), () if right else (finding,))
"""
EXERCISE_2 = '''"""Exercise 2: ReLU, back."""


def relu_backward(grad_output, x):
    """Two arrays of any shape -> one."""
    raise NotImplementedError
'''
CHECK_2 = """
from scratchnet.study import diagnose


def check(learner):
    yield diagnose.function("relu_backward", learner.relu_backward)
"""
SOLUTION_1 = "def double(x):\n    return 2 * x\n"
SOLUTION_2 = (
    "import numpy as np\n\n\n"
    "def relu_backward(grad_output, x):\n    return np.where(x > 0, grad_output, 0)\n"
)
WORDS = """# {0}

## Hint 1
hint one of {0}
## Hint 2
hint two of {0}

    indented
## Hint 3
hint three of {0}
## Why
because of {0}
## Explain
what to take along from {0}
"""


@pytest.fixture(scope="module")
def exercises(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A course of two exercises."""
    folder = tmp_path_factory.mktemp("course")
    files = {"01_double": (EXERCISE_1, CHECK_1), "02_relu": (EXERCISE_2, CHECK_2)}
    for name, (exercise, check) in files.items():
        (folder / name).mkdir()
        (folder / name / "exercise.py").write_text(exercise)
        (folder / name / "check.py").write_text(check)
        (folder / name / "words.md").write_text(WORDS.format(name))
    return folder


# -------------------------------------------------------------- what a file may do in the sandbox

RELU = "import numpy as np\nimport os, signal, subprocess, sys, threading, time\n\n\n"
RELU += "def relu_backward(grad_output, x):\n    "
RETURN = "return np.where(x > 0, grad_output, 0)\n"
RIGHT = RELU + RETURN
LINE = 6  # of what follows RELU
QUICK = Limits(seconds=1.0, memory=2**29)


def run(tmp_path: Path, source: str | bytes, limits: Limits | None = None) -> Run:
    """Run a file with an answer to exercise 2."""
    mine, judge = tmp_path / "02_relu.py", tmp_path / "of_relu" / "check.py"
    judge.parent.mkdir(exist_ok=True)
    mine.write_bytes(source.encode() if isinstance(source, str) else source)
    judge.write_text(CHECK_2)
    return sandbox.run(mine, judge, limits=limits)


def ruling(tmp_path: Path, source: str | bytes, limits: Limits | None = None) -> Ruling:
    """The last of what was said about it."""
    return run(tmp_path, source, limits).ruling


def test_a_right_answer_is_right(tmp_path: Path) -> None:
    found = run(tmp_path, RIGHT)
    assert found.ruling.ok, found
    assert found.right == ["relu_backward"]
    assert (found.output, found.cut, found.left) == ("", 0, "")


@pytest.mark.parametrize(
    ("body", "name", "message"),
    [
        ("return grad_output", "relu_backward_without_mask", "grad_x"),
        ("pass", "results", "returns None"),
        ("return [[1.0], [1.0, 2.0]]", "results", "expected an array"),
        ("return [1.0]", "shape", r"expected \(N, H\)"),
        ("grad_output[x <= 0] = 0; return grad_output", "relu_backward_in_place", "changes grad"),
        ("return np.random.normal(size=x.shape)", "second call", "random"),
        ("raise NotImplementedError", "to do", f"line {LINE}"),
        ("return grad_outptu", "exception", f"NameError in line {LINE}"),
        ("return relu_backward(x, x)", "recursion", f"calls itself without end, in line {LINE}"),
        ("return np.ones((10**6, 10**6))", "memory", f"more memory .* in line {LINE}"),
        ("sys.exit(0)", "exit", f"calls exit, in line {LINE}"),
        ("exit()", "exit", f"calls exit, in line {LINE}"),
        ("os._exit(0)", "exit", "ended the process .* with status 0"),
        ("raise KeyboardInterrupt", "exception", f"KeyboardInterrupt in line {LINE}"),
        ("input('x? ')", "input", f"asks for input, in line {LINE}"),
        ("np.load(__file__[:-1])", "exception", "FileNotFoundError"),
    ],
)
def test_what_a_function_does_is_named(tmp_path: Path, body: str, name: str, message: str) -> None:
    found = ruling(tmp_path, RELU + body + "\n")
    assert not found.ok
    assert found.name == name
    assert re.search(message, found.message), found.message


@pytest.mark.parametrize(
    ("source", "name", "message", "line"),
    [
        ("def f(:\n    pass\n", "syntax", "line 1: invalid syntax", 1),
        ("def f():\npass\n", "syntax", "line 2: expected an indented block", 2),
        ("x = 1\n\ty = 2\n", "syntax", "line 2: unexpected indent", 2),
        ("x = 1\0\n", "syntax", "null bytes", None),
        (b"x = '\xff'\n", "syntax", "utf-8", 1),
        ("x = 1\ny = z\n", "exception", "NameError in line 2, while the file is loaded", 2),
        ("import torchx\n", "import", "No module named 'torchx'", 1),
        ("import sys\nsys.exit('bye')\n", "exit", "calls exit, in line 2", 2),
        ("import os\nos._exit(3)\n", "exit", "while the file is loaded, with status 3", None),
        ("raise BaseException\n", "exception", "BaseException in line 1", 1),
        ("a = []\nwhile True: a.append('x' * 10**7 + str(len(a)))\n", "memory", "in line 2", 2),
    ],
)
def test_what_loading_a_file_does_is_named(
    tmp_path: Path, source: str | bytes, name: str, message: str, line: int | None
) -> None:
    if name == "memory" and sys.platform != "linux":
        pytest.skip("the limit is Linux's")
    found = ruling(tmp_path, source, Limits(memory=2**29))
    assert not found.ok
    assert found.name == name
    assert message in found.message
    if line is None or (name == "syntax" and sys.version_info < (3, 12)):
        assert found.line in (line, None)
    else:
        assert found.line == line


@pytest.mark.parametrize(
    "body",
    [
        "while True: pass",
        "time.sleep(1000)",
        "sum(range(10**15))",  # in C, where no Python signal handler would be called
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(1000)",
        "while True: print('x' * 1000)",
    ],
)
def test_what_never_ends_is_ended_and_its_line_is_told(tmp_path: Path, body: str) -> None:
    start = time.monotonic()
    found = ruling(tmp_path, RELU + body + "\n", QUICK)
    assert (found.ok, found.name, found.line) == (False, "time", LINE)
    assert "still running after 1 s" in found.message
    assert time.monotonic() - start < QUICK.start, "the process has ended itself"


def test_a_file_that_never_ends_loading_is_ended(tmp_path: Path) -> None:
    found = ruling(tmp_path, "x = 1\nwhile x:\n    x += 1\n", QUICK)
    assert found.name == "time"
    assert found.line in (2, 3)
    assert "while the file is loaded" in found.message


@POSIX
def test_the_system_ends_what_has_switched_the_clock_off(tmp_path: Path) -> None:
    off = "import faulthandler\nfaulthandler.cancel_dump_traceback_later()\n"
    found = ruling(tmp_path, off + RELU + "while True: pass\n", QUICK)
    assert found.name == "time"
    assert "processor time" in found.message


@POSIX
@pytest.mark.parametrize("body", ["time.sleep(1000)", "os.kill(os.getpid(), signal.SIGSTOP)"])
def test_what_does_not_even_use_the_processor_is_killed_from_outside(
    tmp_path: Path, body: str
) -> None:
    off = "import faulthandler\nfaulthandler.cancel_dump_traceback_later()\n"
    found = ruling(tmp_path, off + RELU + body + "\n", Limits(seconds=1, start=3))
    assert found.name == "time"
    assert "had to be killed" in found.message


@POSIX
@pytest.mark.parametrize(
    ("body", "message", "line"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL", None),
        ("os.kill(os.getpid(), signal.SIGTERM)", "SIGTERM", None),
        ("os.abort()", "SIGABRT", LINE),
        ("import ctypes; ctypes.string_at(0)", "SIGSEGV", LINE),
    ],
)
def test_a_crash_is_told(tmp_path: Path, body: str, message: str, line: int | None) -> None:
    found = ruling(tmp_path, RELU + body + "\n")
    assert (found.ok, found.name, found.line) == (False, "killed", line)
    assert message in found.message


@LINUX
def test_memory_is_limited_and_does_not_leak_into_the_verdict(tmp_path: Path) -> None:
    hoard = "a = []\n    while True: a.append(np.ones(10**6))\n"
    found = ruling(tmp_path, RELU + hoard, Limits(memory=2**29))
    assert found.name == "memory"
    assert "0.5 GB" in found.message


def test_output_is_shown_and_cut(tmp_path: Path) -> None:
    found = run(tmp_path, RELU + "print('x is', x.shape, flush=True)\n    " + RETURN)
    assert found.ruling.ok
    assert found.output.splitlines()[0] == "x is (5, 3)"
    flood = RELU + "sys.stderr.write('é' * 10**6)\n    " + RETURN
    found = run(tmp_path, flood, Limits(output=101))
    assert found.ruling.ok
    assert found.output == "é" * 50 + "�"
    assert found.cut > 10**6


def test_output_can_not_move_the_cursor(tmp_path: Path) -> None:
    found = run(tmp_path, "print('\\x1b[31mred\\x1b[0m\\x07\\r!')\n" + RIGHT)
    assert found.output == "red!"


@POSIX
@pytest.mark.parametrize(
    ("beginning", "left"),
    [
        ("threading.Thread(target=time.sleep, args=(1000,)).start()", "a thread"),
        ("atexit.register(time.sleep, 1000)", ""),
        ("p = subprocess.Popen(['sleep', '1000'])", "a process"),
        ("if os.fork() == 0: time.sleep(1000)", "a process"),
    ],
)
def test_nothing_lives_on(tmp_path: Path, beginning: str, left: str) -> None:
    start = time.monotonic()
    found = run(tmp_path, f"import atexit, os, subprocess, threading, time\n{beginning}\n{RIGHT}")
    assert found.ruling.ok
    assert len(found.results) == 1
    assert found.left == left
    assert time.monotonic() - start < Limits().seconds, "nobody has waited for it"


@POSIX
def test_a_copy_of_the_process_is_not_judged(tmp_path: Path) -> None:
    beginning = "import os\nif pid := os.fork(): os.waitpid(pid, 0)\n"
    assert ruling(tmp_path, f"{beginning}{RIGHT}\nif not pid: del relu_backward\n").ok


@LINUX
def test_of_a_process_without_a_mark_it_is_true_that_it_has_been_ended(tmp_path: Path) -> None:
    child = "subprocess.Popen(['/bin/sleep', '1000'], env={}, start_new_session=True)"
    found = run(tmp_path, f"import subprocess\nprint({child}.pid)\n{RIGHT}")
    assert found.left == "a process"
    assert has_ended(found.output)


def has_ended(pid: str) -> bool:
    """Whoever inherits a process (PID 1) may not yet have noticed its end."""
    stat = Path("/proc", pid, "stat")
    return not stat.exists() or stat.read_text().split()[2] == "Z"


@LINUX
@pytest.mark.parametrize("detached", [False, True])
@pytest.mark.parametrize("body", [RETURN, "while True: pass\n", "os._exit(1)\n"])
def test_processes_are_killed_in_any_case(tmp_path: Path, body: str, detached: bool) -> None:
    child = f"subprocess.Popen(['sleep', '1000'], start_new_session={detached})"
    source = f"import subprocess\nprint({child}.pid)\n{RELU}{body}"
    assert has_ended(run(tmp_path, source, QUICK).output)


@pytest.mark.parametrize(
    ("patch", "name"),
    [
        ("np.where = lambda c, a, b: a", "numpy.where"),
        ("np.linalg.norm = len", "numpy.linalg.norm"),
        ("np.pi = 3", "numpy.pi"),
        ("del np.exp", "numpy.exp"),
        ("import builtins; builtins.abs = len", "abs"),
        (
            "from scratchnet import functional; functional.relu_backward = lambda g, x: g",
            "scratchnet.functional.relu_backward",
        ),
        (
            "from scratchnet.study import diagnose; diagnose.function = print",
            "scratchnet.study.diagnose.function",
        ),
    ],
)
@pytest.mark.parametrize("when", ["loaded", "called"])
def test_what_the_file_replaces_deceives_nobody(
    tmp_path: Path, patch: str, name: str, when: str
) -> None:
    wrong = "return grad_output\n"
    source = f"import numpy as np\n{patch}\n{RELU}{wrong}"
    if when == "called":
        source = f"{RELU}{patch}\n    {wrong}"
    found = ruling(tmp_path, source)
    assert (found.ok, found.name) == (False, "replaced")
    assert f"replaces {name}," in found.message


def judged_by(tmp_path: Path, source: str, judge: str) -> Run:
    """Run a file with a judge of its own."""
    (tmp_path / "mine.py").write_text(source)
    (tmp_path / "judge.py").write_text(judge)
    return sandbox.run(tmp_path / "mine.py", tmp_path / "judge.py")


@pytest.mark.parametrize(
    ("subject", "body", "right"),
    [
        ("relu_backward", "g[x <= 0] = 0; return g", []),
        ("relu_backward", "f.n += 1; return np.where(x > 0, g, 0) * f.n", []),
        ("linear_backward", "return g @ w, g.T @ x, g.sum(1)", ["grad_x", "grad_weight"]),
        (
            "linear_backward",
            "r = g @ w, g.T @ x, g.sum(0); g *= 0; return r",
            ["grad_x", "grad_weight", "grad_bias"],
        ),
    ],
)
def test_what_is_right_is_told_beside_what_is_wrong(
    tmp_path: Path, subject: str, body: str, right: list[str]
) -> None:
    found = judged_by(
        tmp_path,
        f"import numpy as np\ndef f(g, x, w=None):\n    {body}\nf.n = 0\n",
        "from scratchnet.study import diagnose\n"
        f"def check(learner):\n    yield diagnose.function('{subject}', learner.f)\n",
    ).ruling
    assert not found.ok
    assert found.right == right


@pytest.mark.parametrize(
    ("sets", "expected"),
    [
        ("np.seterr(all='raise')", "inf"),
        ("warnings.simplefilter('error')", "inf"),
        ("np.set_printoptions(formatter={'float': str.__class__})", "[0.5]"),
    ],
)
def test_what_the_file_sets_is_undone(tmp_path: Path, sets: str, expected: str) -> None:
    found = judged_by(
        tmp_path,
        f"import numpy as np, warnings\n{sets}\n",
        "import numpy as np\n\n\n"
        "def check(learner):\n    yield f'{np.array([0.5])} {np.exp(np.float64(1000))}'\n",
    )
    assert expected in str(found.results[0])


def test_a_replacement_is_told_after_data_too(tmp_path: Path) -> None:
    found = judged_by(
        tmp_path,
        "import numpy as np\n\n\ndef f():\n    np.exp = np.sin\n",
        "def check(learner):\n    yield learner.f()\n",
    )
    assert found.results[0] is None
    assert found.ruling.name == "replaced"


@pytest.mark.parametrize(
    "detour", ["import sys\nsys.stdout = sys.stderr = None\n", "print = None\n"]
)
def test_the_verdict_does_not_go_by_standard_output(tmp_path: Path, detour: str) -> None:
    assert ruling(tmp_path, detour + RIGHT).ok


def test_files_beside_it_can_be_imported_but_replace_no_library(tmp_path: Path) -> None:
    (tmp_path / "random.py").write_text("raise RuntimeError('mine')\n")
    (tmp_path / "numpy.py").write_text("raise RuntimeError('mine')\n")
    (tmp_path / "mask.py").write_text("import random\n\n\ndef mask(x):\n    return x > 0\n")
    source = RIGHT.replace("x > 0", "mask.mask(x)").replace("import os", "import mask, os")
    assert ruling(tmp_path, source).ok
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("02_relu.py", "mask.py", "numpy.py", "of_relu", "random.py"),
    ]


def test_the_settings_of_python_do_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text("raise RuntimeError\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.setenv("PYTHONSTARTUP", "x")
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    assert run(tmp_path, RIGHT + "print('ø')\n").output == "ø"


def test_a_traceback_is_the_learners_own(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("def f(x):\n    return x @ x.T @ x.T\n")
    found = ruling(
        tmp_path, "import helper\n\n\ndef relu_backward(g, x):\n    return helper.f(x)\n"
    )
    assert found.name == "exception"
    assert found.line == 5
    files = re.findall(r'File "(.+)", line (\d+)', found.traceback)
    assert files == [("02_relu.py", "5"), ("helper.py", "2")]
    assert "return x @ x.T @ x.T" in found.traceback
    assert found.traceback.rstrip().splitlines()[-1].startswith("ValueError: matmul")


@pytest.mark.parametrize(
    ("judge", "message"),
    [
        ("def check(learner):\n    yield 1 / 0\n", "the check itself failed .*ZeroDivisionError"),
        ("def check(learner):\n    yield object()\n", "the check itself failed .*TypeError"),
        ("def check(learner):\n    yield from ()\n", "said nothing"),
        ("def check(learner:\n", "the check could not begin: SyntaxError"),
    ],
)
def test_a_check_that_fails_blames_nobody(tmp_path: Path, judge: str, message: str) -> None:
    found = judged_by(tmp_path, "", judge).ruling
    assert (found.ok, found.name) == (False, "check")
    assert re.search(message, found.message), found.message


def test_a_judge_may_give_arrays_and_take_arguments(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def f(x):\n    return [v + 1 for v in x]\n")
    (tmp_path / "judge.py").write_text(
        "import numpy as np\ndef ask(learner, x, name):\n"
        "    yield {name: np.array(learner.f(x)), 'nan': np.float32('nan')}\n    yield 3\n"
    )
    found = sandbox.run(
        tmp_path / "mine.py", tmp_path / "judge.py", function="ask", arguments=[[1, 2], "y"]
    )
    first, second = found.results
    assert first["y"] == [2, 3]
    assert np.isnan(first["nan"])
    assert second == 3


@POSIX
def test_a_link_to_a_file_is_judged_where_it_lies(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "other.py").write_text(RELU + "return helper.f(x)\n")
    (tmp_path / "helper.py").write_text("")
    (tmp_path / "mine.py").symlink_to(tmp_path / "elsewhere" / "other.py")
    (tmp_path / "judge.py").write_text(CHECK_2)
    found = sandbox.run(tmp_path / "mine.py", tmp_path / "judge.py").ruling
    assert 'File "mine.py", line 6' in found.traceback


@POSIX
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "mine.py")
    with pytest.raises(InputError, match="is not a file"):
        sandbox.run(tmp_path / "mine.py", tmp_path / "judge.py")
    with pytest.raises(FileNotFoundError):
        sandbox.run(tmp_path / "absent.py", tmp_path / "judge.py")


def test_ctrl_c_ends_the_process_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []

    class Interrupted(subprocess.Popen[bytes]):
        def wait(self, timeout: float | None = None) -> int:
            if not started:
                started.append(self)
                raise KeyboardInterrupt
            return super().wait(timeout)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, RELU + "while True: pass\n")
    assert started[0].returncode is not None


# ------------------------------------------------------------------------------------- progress


def test_progress_is_kept_and_readable(tmp_path: Path) -> None:
    progress = Progress(tmp_path)
    assert progress.of("01_double") == Standing()
    assert not progress.exists()
    progress.begin()
    progress.count_try("01_double", solved=False)
    assert [progress.next_hint("01_double", 3) for _ in range(4)] == [1, 2, 3, 3]
    progress.count_try("01_double", solved=True)
    progress.count_try("01_double", solved=True)  # was solved before: not counted
    content = json.loads((tmp_path / FILE).read_text())
    entry = content["exercises"]["01_double"]
    assert (entry["tries"], entry["hints"]) == (2, 3)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d", entry["solved"])
    progress.begin()
    assert Progress(tmp_path).of("01_double") == Standing(2, 3, entry["solved"])


@POSIX
def test_a_folder_in_which_another_process_stays_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In words that suit whatever that process does, which may be training."""
    monkeypatch.setattr("scratchnet.study.progress.PATIENCE", 0)
    with (
        files.lock(tmp_path),
        pytest.raises(InputError, match=r"another process is at work here.* another folder$"),
    ):
        Progress(tmp_path).begin()
    assert not any(tmp_path.iterdir())


def test_what_a_person_adds_to_the_file_is_kept(tmp_path: Path) -> None:
    mine = {
        "note": "größer ∂ \ud800",
        "exercises": {"01_double": {"note": [1]}, "99_mine": {"hints": 7}},
    }
    (tmp_path / FILE).write_text("﻿" + json.dumps(mine), encoding="utf-8")
    Progress(tmp_path).count_try("01_double", solved=False)
    content = json.loads((tmp_path / FILE).read_text(encoding="utf-8"))
    assert content["note"] == mine["note"]
    assert content["exercises"] == {
        "01_double": {"note": [1], "tries": 1},
        "99_mine": {"hints": 7},
    }
    assert "größer ∂" in (tmp_path / FILE).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "line 1, column 1"),
        (b'{\n  "exercises": {},\n}', "line 2|line 3"),
        (b"\xff", "byte 0 is not UTF-8"),
        (b"[]", r"the whole is \[\]; expected \{"),
        (b'{"exercises": 3}', '"exercises" is 3'),
        (b'{"exercises": {"01_double": null}}', '"01_double" is null'),
        (b'{"exercises": {"01_double": {"tries": "many"}}}', '"tries" of "01_double" is "many"'),
        (b'{"exercises": {"01_double": {"tries": true}}}', "is true"),
        (b'{"exercises": {"02_relu": {"hints": -1}}}', '"hints" of "02_relu" is -1'),
        (b'{"exercises": {"02_relu": {"hints": 1.5}}}', "is 1.5; expected a whole number"),
        (b'{"exercises": {"02_relu": {"solved": 1}}}', "expected a date in quotes"),
        (b"[" * 100_000, "can't be understood"),
        (b'{"a": ' + b"9" * 5000 + b"}", "can't be understood"),
    ],
)
def test_a_broken_file_is_told_and_never_overwritten(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / FILE
    path.write_bytes(content)
    progress = Progress(tmp_path)
    for change in (
        lambda: progress.of("01_double"),
        lambda: progress.count_try("01_double", solved=True),
        lambda: progress.next_hint("01_double", 3),
    ):
        with pytest.raises(InputError, match=message) as caught:
            change()
        assert str(caught.value).startswith(f"{path}: can't be understood: ")
        assert "\n" not in str(caught.value)
    progress.begin()
    assert path.read_bytes() == content


def test_a_number_without_bounds_is_kept(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"exercises": {"01_double": {"tries": 99999999999999999999}}}')
    Progress(tmp_path).count_try("01_double", solved=False)
    assert Progress(tmp_path).of("01_double").tries == 10**20


@POSIX
def test_two_processes_at_once_lose_nothing(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from scratchnet.study.progress import Progress\n"
        "for i in range(30): Progress(Path()).count_try(sys.argv[1 + i % 2], solved=False)\n"
    )
    arguments = [sys.executable, "-c", program, "01_double", "02_relu"]
    processes = [
        subprocess.Popen(arguments, cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    for process in processes:
        _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, err.decode()
    progress = Progress(tmp_path)
    assert [progress.of(name).tries for name in ("01_double", "02_relu")] == [45, 45]


# ------------------------------------------------------------------------------------ watching

A, B, C = (watching.Stamp(time, 1, 1) for time in (1, 2, 3))


class Looks:
    """A file that looks as told, one stamp a look; at the end the test has failed."""

    def __init__(self, *stamps: watching.Stamp | None) -> None:
        self.stamps = iter(stamps)
        self.pauses = 0

    def look(self, _: Path) -> watching.Stamp | None:
        return next(self.stamps)

    def pause(self) -> None:
        self.pauses += 1


@pytest.mark.parametrize(
    ("stamps", "pauses"),
    [
        pytest.param((A, A, A, B, B), 4, id="saved after a while"),
        pytest.param((A, B, C, C), 3, id="saved twice: one save"),
        pytest.param((A, None, B, B), 3, id="removed, and another in its place"),
        pytest.param((A, B, None, C, C), 4, id="saved, then a formatter's in its place"),
        pytest.param((A, B, A, A, B, B), 5, id="put back"),
        pytest.param((None, None, A, A), 3, id="made"),
    ],
)
def test_a_save_is_noticed_when_the_file_rests(
    stamps: tuple[watching.Stamp | None, ...], pauses: int
) -> None:
    looks = Looks(*stamps)
    watched = watching.Watched(Path("file"), looks.pause, looks.look)
    watched.wait(lambda: pytest.fail("it is not missing"))
    assert looks.pauses == pauses
    assert list(looks.stamps) == []


def test_a_save_during_the_check_is_noticed_after_it() -> None:
    looks = Looks(A, B, B, B, B, C, C)
    watched = watching.Watched(Path("file"), looks.pause, looks.look)
    for pauses in (2, 6):
        watched.wait(lambda: None)
        assert looks.pauses == pauses


def test_a_file_that_is_gone_is_missed_once() -> None:
    missed: list[int] = []
    looks = Looks(A, *[None] * 50, B, B)
    watched = watching.Watched(Path("file"), looks.pause, looks.look)
    watched.wait(lambda: missed.append(looks.pauses))
    assert missed == [watching.GONE]


@pytest.mark.parametrize("how", ["in place", "rename", "touch"])
def test_the_stamp_of_a_file_tells_a_save(tmp_path: Path, how: str) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    before = watching.stamp(path)
    assert watching.stamp(path) == before
    if how == "rename":
        (tmp_path / "new").write_text("new")
        os.utime(tmp_path / "new", ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
        os.replace(tmp_path / "new", path)
    elif how == "in place":
        path.write_text("longer")
    else:
        os.utime(path, ns=(0, 1))
    assert watching.stamp(path) != before
    path.unlink()
    assert watching.stamp(path) is None


# -------------------------------------------------------------------------------------- session


@pytest.fixture
def session(tmp_path: Path, exercises: Path) -> Session:
    return Session(tmp_path / "mine", course.load(exercises), Limits())


def begun(session: Session) -> Session:
    session.begin(None)
    return session


Edit = Callable[[], object]


def script(*edits: Edit) -> Callable[[], None]:
    """A pause in which the next edit is made; when there is none left, Ctrl-C.

    Between two edits the file is left alone for two looks, after which it has been checked.
    """
    rest: Edit = lambda: None  # noqa: E731
    steps = iter([step for edit in edits for step in (edit, rest, rest)])

    def pause() -> None:
        step = next(steps, None)
        if step is None:
            raise KeyboardInterrupt
        step()

    return pause


def save(path: Path, text: str, number: int = 0) -> Edit:
    """Save as editors do: in place, or by a new file that takes the old one's place."""

    def in_place() -> None:
        path.write_text(text)

    def by_rename() -> None:
        new = path.with_name(f".{path.name}.swp")
        new.write_text(text)
        os.replace(new, path)

    def by_backup() -> None:
        os.replace(path, path.with_name(f"{path.name}~"))
        path.write_text(text)

    return (in_place, by_rename, by_backup)[number % 3]


def test_watching_goes_on_to_the_next_until_all_are_solved(
    session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    begun(session)
    first, second = map(session.file, session.course)
    session.watch(
        session.course[0],
        script(
            save(first, "def double(x):\n    return x\n", 0),
            save(first, SOLUTION_1, 1),
            save(second, RELU + "return grad_output\n", 2),
            save(second, SOLUTION_2, 0),
        ),
    )
    out = capsys.readouterr().out
    verdicts = re.findall(r"^Exercise (\d), .*: (not yet|right)$", out, flags=re.MULTILINE)
    assert verdicts == [("1", "not yet"), ("1", "right"), ("2", "not yet"), ("2", "right")]
    order = [
        "double([1, -2]) is [ 1. -2.]",
        "Right so far: the name",
        "what to take along from 01_double",
        "Next: exercise 2, ReLU, back",
        "02_relu.py is made: open it.",
        "grad_x",
        "what to take along from 02_relu",
        "all 2 are solved",
    ]
    places = [out.index(text) for text in order]
    assert places == sorted(places)
    assert [session.progress.of(each.name).tries for each in session.course] == [2, 2]


def test_watching_checks_at_once_what_has_been_written_already(
    session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    session.folder.mkdir()
    for exercise, text in zip(session.course, (SOLUTION_1, SOLUTION_2), strict=True):
        session.file(exercise).write_text(text)
    begun(session)
    session.watch(session.course[0], script())
    assert "all 2 are solved" in capsys.readouterr().out
    assert session.file(session.course[0]).read_text() == SOLUTION_1


def test_watching_waits_for_a_file_that_is_gone(
    session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    path = session.file(begun(session).course[0])
    waits: list[Edit] = [lambda: None] * watching.GONE
    with pytest.raises(KeyboardInterrupt):
        session.watch(session.course[0], script(path.unlink, *waits, save(path, SOLUTION_1)))
    out = capsys.readouterr().out
    assert "01_double.py is not there: waiting until it is." in out
    assert "Exercise 1, twice as much: right" in out


def test_watching_goes_on_if_an_editor_takes_the_file_away_before_the_check(
    session: Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, run = session.file(begun(session).course[0]), sandbox.run
    taken: list[Path] = []

    def run_too_late(mine: Path, *args: Any, **options: Any) -> Run:
        if mine == path and not taken:
            taken.append(path)
            path.unlink()
        return run(mine, *args, **options)

    monkeypatch.setattr(sandbox, "run", run_too_late)
    with pytest.raises(KeyboardInterrupt):
        session.watch(
            session.course[0], script(save(path, "x = 1\n"), lambda: None, save(path, SOLUTION_1))
        )
    assert taken
    assert "Exercise 1, twice as much: right" in capsys.readouterr().out


def test_a_file_that_is_there_is_never_written(
    session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    session.folder.mkdir()
    for exercise in session.course:
        session.file(exercise).write_text("mine")
    begun(session)
    assert "01_double.py  is here, and stays as it is" in capsys.readouterr().out
    session.go_on(session.course[0])
    assert "02_relu.py is here already: open it" in capsys.readouterr().out
    assert not session.make(session.course[0])
    assert {session.file(each).read_text() for each in session.course} == {"mine"}


def test_a_dangling_link_is_not_written_through(session: Session, tmp_path: Path) -> None:
    session.folder.mkdir()
    session.file(session.course[0]).symlink_to(tmp_path / "elsewhere")
    begun(session)
    assert not (tmp_path / "elsewhere").exists()


def test_reset_keeps_every_old_file(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    exercise = begun(session).course[0]
    path = session.file(exercise)
    for number, text in enumerate(("first", "second"), start=1):
        path.write_text(text)
        session.reset(exercise)
        assert f"yours is now 01_double.py.{number}" in capsys.readouterr().out
        assert path.read_bytes() == exercise.template
    path.unlink()
    session.reset(exercise)
    assert capsys.readouterr().out == "01_double.py is as it was at first\n"
    kept = {path.name: path.read_text() for path in session.folder.glob("*.py.*")}
    assert kept == {"01_double.py.1": "first", "01_double.py.2": "second"}


def test_reset_forgets_no_progress(session: Session) -> None:
    exercise = begun(session).course[0]
    session.file(exercise).write_text(SOLUTION_1)
    assert session.check(exercise)
    before = session.progress.of(exercise.name)
    session.reset(exercise)
    assert session.progress.of(exercise.name) == before


def test_a_file_that_deletes_itself_is_not_lost(
    session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    exercise = begun(session).course[0]
    text = "import os\nos.remove(__file__)\n" + SOLUTION_1
    session.file(exercise).write_text(text)
    assert session.check(exercise)
    out = capsys.readouterr().out
    assert (
        "01_double.py is gone: something has removed it. What was checked is 01_double.py.1" in out
    )
    assert (session.folder / "01_double.py.1").read_text() == text


def test_ctrl_c_before_anything_is_made_is_polite_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(ctx: click.Context) -> Session:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "_session", interrupted)
    result = CliRunner().invoke(main, ["study", "--watch", "--folder", str(tmp_path)])
    assert result.exit_code == 128 + signal.SIGINT
    again = f"scratchnet study --folder {tmp_path} --watch"
    assert result.output == f"\nstopped; go on with: {again}\n"


@pytest.mark.parametrize("seconds", ["nan", "inf", "0", "-1", "many"])
def test_seconds_that_are_none_are_refused(tmp_path: Path, seconds: str) -> None:
    arguments = ["study", "--seconds", seconds, "--folder", str(tmp_path / "new")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "--seconds" in result.output
    assert not (tmp_path / "new").exists()


def test_a_verdict_is_said_though_progress_can_not_be_written(
    session: Session, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    exercise = begun(session).course[0]
    session.file(exercise).write_text(SOLUTION_1)

    def no_space(path: Path, content: bytes) -> None:
        raise InputError(f"{path}: can't be written (no space)")

    monkeypatch.setattr(files, "write", no_space)
    with pytest.raises(InputError, match="no space"):
        session.check(exercise)
    assert "Exercise 1, twice as much: right" in capsys.readouterr().out


def test_a_folder_in_the_place_of_a_file_is_told_and_stays(
    session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    exercise = begun(session).course[0]
    session.file(exercise).unlink()
    session.file(exercise).mkdir()
    session.status()
    assert "0 of 2 solved" in capsys.readouterr().out
    for do in (session.check, session.reset):
        with pytest.raises(InputError, match=r"01_double.py: is .*expected your Python file"):
            do(exercise)
    assert sorted(path.name for path in session.folder.iterdir()) == ["01_double.py", FILE]


def test_an_untouched_file_is_no_try(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    exercise = begun(session).course[0]
    assert not session.check(exercise)
    assert session.progress.of(exercise.name) == Standing()
    out = capsys.readouterr().out
    assert "there is nothing written yet, in line 9" in out
    assert "Traceback" not in out


def test_output_and_leftovers_are_shown(
    session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    exercise = begun(session).course[0]
    start = "import threading, time\nthreading.Thread(target=time.sleep, args=(9999,)).start()\n"
    session.file(exercise).write_text(f"{start}print('a\\n\\nb')\nprint('x' * 9000)\n{SOLUTION_1}")
    assert session.check(exercise)
    out = capsys.readouterr().out
    assert "  | a\n  | \n  | b\n  | xxx" in out
    assert re.search(r"^  \| \.\.\. and [\d,]+ bytes more$", out, flags=re.MULTILINE)
    assert "It has left a thread running, which the check has ended." in out


def test_the_exercises_come_in_order_and_out_of_order(session: Session) -> None:
    first, second = begun(session).course
    assert session.find(None) == first
    session.progress.count_try(second.name, solved=True)
    assert session.find(None) == first
    assert session.next(second) == first
    session.progress.count_try(first.name, solved=True)
    assert session.next(first) is None
    assert session.find(None) == second
    with pytest.raises(InputError, match="there is no exercise 3; expected 1 to 2"):
        session.find(3)


# -------------------------------------------------------------------------------- on a terminal


def test_paragraphs_fit_the_terminal_and_code_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    text = (
        f"{'word ' * 6}\n{'word ' * 4}\n\n    indented   code {'x' * 40}\n\n"
        f"A list:\n- {'item ' * 12}\n  more\n- other\n\n12. {'item ' * 8}\n{'x' * 60}\n"
    )
    assert fit(text).splitlines() == [
        " ".join(["word"] * 8),
        " ".join(["word"] * 2),
        "",
        "    indented   code " + "x" * 40,
        "",
        "A list:",
        "- " + " ".join(["item"] * 7),
        "  " + " ".join(["item"] * 5) + " more",
        "- other",
        "",
        "12. " + " ".join(["item"] * 7),
        "    item",
        "    " + "x" * 60,
    ]


def study(*arguments: object, cwd: Path, fails: int = 0, **environment: str) -> tuple[str, str]:
    """Run `scratchnet study` to its end; its output and error output."""
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=cwd,
        env=ENVIRONMENT | {"PYTHONIOENCODING": "utf-8"} | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE,
    )
    assert done.returncode == fails, done.stderr.decode()
    return done.stdout.decode(), done.stderr.decode()


def test_the_command_begins_checks_and_goes_on(tmp_path: Path, exercises: Path) -> None:
    options = ("--course", exercises)
    out, err = study(*options, cwd=tmp_path)
    assert f"In {tmp_path} it makes" in " ".join(out.split())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["01_double.py", FILE]
    assert err == ""
    out, _ = study(*options, cwd=tmp_path, fails=1)
    assert out.startswith("0 of 2 solved\n\nExercise 1, twice as much: not yet\n")
    (tmp_path / "01_double.py").write_text(SOLUTION_1)
    out, _ = study(*options, cwd=tmp_path)
    assert "Exercise 1, twice as much: right" in out
    assert "what to take along from 01_double" in out
    assert (tmp_path / "02_relu.py").read_text() == EXERCISE_2
    out, _ = study(*options, "1", cwd=tmp_path)
    assert "right" in out
    assert "take along" not in out, "it was explained already"
    (tmp_path / "02_relu.py").unlink()
    out, _ = study("2", *options, cwd=tmp_path)
    assert "Exercise 2, ReLU, back: 02_relu.py is made, open it." in out
    (tmp_path / "02_relu.py").write_text(SOLUTION_2)
    study("2", "--watch", *options, cwd=tmp_path)
    out, _ = study(*options, cwd=tmp_path)
    assert out == "All 2 exercises are solved: scratchnet study status\n"
    out, _ = study("status", *options, cwd=tmp_path)
    assert re.search(r"1  twice as much  solved      1  -\n", out)
    assert f"2 of 2 solved, in {tmp_path}" in out


def test_hints_come_one_by_one_and_the_explanation_last(tmp_path: Path, exercises: Path) -> None:
    options = ("--course", exercises, "--folder", tmp_path / "mine")
    study(*options, cwd=tmp_path)
    for number, words in enumerate(("one", "two", "three", "three"), start=1):
        out, _ = study(*options, "hint", cwd=tmp_path)
        assert f"hint {min(number, 3)} of 3" in out
        assert f"hint {words} of 01_double" in out
        assert ("no further hint" in out) == (number == 4)
    out, _ = study("hint", "2", *options, cwd=tmp_path)
    assert "hint one of 02_relu" in out
    out, _ = study("why", *options, cwd=tmp_path)
    assert "because of 01_double" in out
    _, err = study("explain", "1", *options, cwd=tmp_path, fails=2)
    assert err.startswith("Error: exercise 1 is not solved yet")
    (tmp_path / "mine" / "01_double.py").write_text(SOLUTION_1)
    study(*options, cwd=tmp_path)
    out, _ = study("explain", "1", *options, cwd=tmp_path)
    assert "what to take along from 01_double" in out
    out, _ = study("reset", "1", *options, cwd=tmp_path)
    assert "yours is now 01_double.py.1" in out


def printed(text: str) -> list[str]:
    """The commands that a text says to type, without `scratchnet study`."""
    return re.findall(
        r"scratchnet study((?: --folder (?:'.*?'|\S+))?(?: --watch| (?:hint|why|status)(?: \d)?)?)",
        text,
    )


def test_what_is_printed_can_be_typed_as_it_is(tmp_path: Path, exercises: Path) -> None:
    options, there = ("--course", exercises), " --folder 'my course'"

    def type_in(command: str, fails: int = 0) -> list[str]:
        return printed("".join(study(*options, *shlex.split(command), cwd=tmp_path, fails=fails)))

    _title, *begun = type_in(there)
    assert begun == [there, f"{there} --watch", f"{there} hint", f"{there} status"]
    assert type_in(begun[0], fails=1) == [f"{there} hint 1"]
    assert type_in(f"{there} explain 1", fails=2) == [f"{there} hint 1"]
    assert [type_in(f"{there} hint 1") for _ in range(4)] == [[], [], [], [f"{there} why 1"]]
    assert type_in(begun[0], fails=1) == [f"{there} why 1"]
    for name, text in (("01_double", SOLUTION_1), ("02_relu", SOLUTION_2)):
        (tmp_path / "my course" / f"{name}.py").write_text(text)
        type_in(begun[0])
    assert type_in(begun[0]) == [f"{there} status"]
    assert type_in(" --folder new hint", fails=2) == [" --folder new"]
    assert type_in(" --folder . hint", fails=2) == [""]


def test_a_checks_hint_names_the_folder_too(session: Session) -> None:
    hint = "was it renamed? scratchnet study reset 1 gives you the exercise"
    run = Run(b"", [sandbox.wrong("missing", "there is no f", hint=hint)])
    assert f"{session.command('reset 1')} gives" in " ".join(
        session._verdict(session.course[0], run).split()
    )
    assert str(session.folder) in session.command()


@pytest.mark.parametrize("command", ["hint", "why", "status", "reset 1", "explain 1"])
def test_elsewhere_nothing_is_made(tmp_path: Path, exercises: Path, command: str) -> None:
    _, err = study(*command.split(), "--course", exercises, cwd=tmp_path, fails=2)
    assert f"{tmp_path}: holds no {FILE}" in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_errors_are_one_line(tmp_path: Path, exercises: Path) -> None:
    options = ("--course", exercises)
    study(*options, cwd=tmp_path)
    for arguments, message in (
        (("17",), "there is no exercise 17; expected 1 to 2"),
        (("hint", "0"), "there is no exercise 0"),
        (("--course", tmp_path), f"{tmp_path}: holds no exercises"),
    ):
        _, err = study(*options, *arguments, cwd=tmp_path, fails=2)
        assert err.startswith(f"Error: {message}")
        assert err.count("\n") == 1
    (tmp_path / FILE).write_text("{")
    _, err = study(*options, cwd=tmp_path, fails=2)
    assert err.startswith("Error: study.json: can't be understood: line 1, column 2")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--bogus", "No such option"),
        ("3 --bogus", "No such option"),
        ("hint --fodler x", "Did you mean '?--folder"),
    ],
)
def test_only_what_help_shows_is_suggested(tmp_path: Path, arguments: str, words: str) -> None:
    _, err = study(*arguments.split(), cwd=tmp_path, fails=2)
    assert re.search(words, err)
    assert "--course" not in err


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("abc", "by its number, 1 to 16."),
        ("17_more.py", "by its number, 1 to 16."),
        ("01_finite_difference.py", "did you mean scratchnet study 1?"),
        ("course/12_kill_the_bug.py", "did you mean scratchnet study 12?"),
        ("3rd", "did you mean scratchnet study 3?"),
    ],
)
def test_an_exercise_that_is_called_by_a_name_has_a_number(
    tmp_path: Path, word: str, words: str
) -> None:
    _, err = study(word, cwd=tmp_path, fails=2)
    assert err.splitlines()[-1].startswith("Error: No such command")
    assert err.endswith(f"{words}\n")


@pytest.mark.parametrize(
    ("options", "environment"),
    [
        ("--seconds 0.5", None),
        ("1 --seconds 0.5", "100"),
        ("--seconds 0.5 1", "100"),
        ("", "0.5"),
        ("1", "0.5"),
    ],
)
def test_the_time_of_a_check_can_be_set(
    tmp_path: Path, exercises: Path, options: str, environment: str | None
) -> None:
    study("--course", exercises, cwd=tmp_path)
    (tmp_path / "01_double.py").write_text("while True: pass\n")
    variables = {"SCRATCHNET_STUDY_SECONDS": environment} if environment else {}
    out, _ = study(*("--course", exercises), *options.split(), cwd=tmp_path, fails=1, **variables)
    assert "still running after 0.5 s, in line 1" in out


def test_a_terminal_without_the_signs_gets_what_it_can_show(
    tmp_path: Path, exercises: Path
) -> None:
    study("--course", exercises, cwd=tmp_path)
    (tmp_path / "01_double.py").write_text("print('∂')\n" + SOLUTION_1, encoding="utf-8")
    out, err = study("--course", exercises, cwd=tmp_path, PYTHONIOENCODING="latin-1")
    assert "  | ?\n" in out
    assert err == ""


def test_help_imports_nothing_of_it(tmp_path: Path) -> None:
    program = (
        "import sys, scratchnet.cli\n"
        "print(sorted(name for name in sys.modules if name.startswith('scratchnet.study.')))"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    assert found.stdout == "['scratchnet.study.commands']\n"


# ---------------------------------------------------------------------- as a person would, for real


class Terminal:
    """A running command, and the end of a pipe or of a terminal at which somebody sits."""

    def __init__(self, arguments: list[str], cwd: Path, terminal: str | None) -> None:
        self.shown = ""
        ours, theirs = pty.openpty() if terminal else os.pipe()
        environment = ENVIRONMENT | {"PYTHONIOENCODING": "utf-8"}
        if terminal:
            termios.tcsetwinsize(theirs, (24, 70))
            environment = {name: value for name, value in environment.items() if name != "COLUMNS"}
            environment |= {"TERM": terminal}
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=cwd,
            env=environment,
            stdin=theirs if terminal else subprocess.DEVNULL,
            stdout=theirs,
            stderr=subprocess.STDOUT,
        )
        os.close(theirs)
        self.ours = ours

    def read_until(self, pattern: str) -> str:
        """What comes up to the pattern, and with it."""
        deadline = time.monotonic() + PATIENCE
        while not (match := re.search(pattern, self.shown)):
            assert select.select([self.ours], [], [], deadline - time.monotonic())[0], self.shown
            part = self._read()
            assert part, f"it has ended: {self.shown}"
            self.shown += part
        text, self.shown = self.shown[: match.end()], self.shown[match.end() :]
        return text

    def _read(self) -> str:
        try:
            return os.read(self.ours, 65536).decode("utf-8", "replace").replace("\r\n", "\n")
        except OSError:  # Linux's end of a terminal
            return ""

    def end(self) -> str:
        """What is left until its end."""
        while part := self._read():
            self.shown += part
        os.close(self.ours)
        self.process.wait(PATIENCE)
        return self.shown


@pytest.fixture
def person(tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    """Somebody who starts commands."""
    started: list[Terminal] = []

    def start(*arguments: object, terminal: str | None = None) -> Terminal:
        started.append(Terminal([*map(str, arguments)], tmp_path, terminal))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.wait()


def solutions(folder: Path) -> dict[str, str]:
    """A solution of each exercise."""
    if folder != course.BUNDLED:
        return {"01_double": SOLUTION_1, "02_relu": SOLUTION_2}
    return {
        exercise.name: (SOLUTIONS / exercise.name / "1.py").read_text(encoding="utf-8")
        for exercise in course.load(folder)
    }


def solve_all(person: Callable[..., Terminal], folder: Path, work: Path, terminal: Any) -> str:
    """Solve every exercise under --watch, each after a try with a typo; all that was shown."""
    answers = solutions(folder)
    watch = person("--watch", "--course", folder, terminal=terminal)
    shown = ""
    for number, (name, answer) in enumerate(answers.items()):
        path = work / f"{name}.py"
        shown += watch.read_until(f"Watching {name}.py.*")
        save(path, path.read_text(encoding="utf-8") + "\nx = (\n", number)()
        shown += watch.read_until("not yet")
        shown += watch.read_until(r"scratchnet study hint \d+: hint 1 of 3")
        save(path, answer, number + 1)()
        shown += watch.read_until(r"Exercise \d+, .*: (\x1b\[\S+?m)*right")
    shown += watch.end()
    assert watch.process.returncode == 0
    assert f"all {len(answers)} are solved" in shown
    progress = Progress(work)
    assert all(progress.of(name).solved for name in answers)
    assert {progress.of(name).tries for name in answers} == {2}
    assert "Traceback" not in shown
    return shown


COURSES = ["small", "bundled"]


@POSIX
@pytest.mark.parametrize("which", COURSES)
@pytest.mark.parametrize("terminal", [None, "dumb"], ids=["piped", "terminal without colour"])
def test_all_exercises_are_solved_from_start_to_finish(
    person: Callable[..., Terminal],
    tmp_path: Path,
    exercises: Path,
    which: str,
    terminal: str | None,
) -> None:
    folder = exercises if which == "small" else course.BUNDLED
    shown = solve_all(person, folder, tmp_path, terminal)
    assert "\x1b" not in shown
    for exercise in course.load(folder):
        first = exercise.words(course.EXPLAIN).split()[:3]
        assert " ".join(first) in shown


@POSIX
def test_colour_is_for_terminals_that_want_it(
    person: Callable[..., Terminal],
    tmp_path: Path,
    exercises: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = ("--course", exercises)
    person(*options, terminal="xterm").end()
    assert "\x1b[" in person(*options, terminal="xterm").end()
    monkeypatch.setitem(ENVIRONMENT, "NO_COLOR", "1")
    assert "\x1b" not in person(*options, terminal="xterm").end()


@POSIX
def test_the_text_is_as_wide_as_the_terminal(
    person: Callable[..., Terminal], tmp_path: Path, exercises: Path
) -> None:
    shown = person("--course", course.BUNDLED, terminal="dumb").end()
    shown += person("why", "1", terminal="dumb").end()
    lines = [line for line in shown.splitlines() if str(tmp_path) not in line]
    assert 60 < max(map(len, lines)) <= 70


@POSIX
@pytest.mark.parametrize("busy", [False, True], ids=["while it waits", "during a check"])
def test_ctrl_c_ends_politely(
    person: Callable[..., Terminal], tmp_path: Path, exercises: Path, busy: bool
) -> None:
    person("--course", exercises).end()
    if busy:
        pid = tmp_path / "pid"
        source = f"import os, pathlib\npathlib.Path({str(pid)!r}).write_text(str(os.getpid()))\n"
        (tmp_path / "01_double.py").write_text(source + "while True: pass\n")
    watch = person("--watch", "--course", exercises, "--seconds", "1000")
    if busy:
        wait_for(lambda: pid.exists() and pid.read_text() != "")
    else:
        watch.read_until("Watching 01_double.py")
    watch.process.send_signal(signal.SIGINT)
    shown = watch.end()
    assert "stopped; go on with: scratchnet study --watch" in shown
    assert "Traceback" not in shown
    assert watch.process.returncode == 128 + signal.SIGINT
    if busy and sys.platform == "linux":
        stat = Path("/proc", pid.read_text(), "stat")
        assert not stat.exists() or stat.read_text().split()[2] == "Z"


def wait_for(condition: Callable[[], bool]) -> None:
    event, deadline = threading.Event(), time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        event.wait(0.01)


@POSIX
def test_two_sessions_at_once_lose_nothing(
    person: Callable[..., Terminal], tmp_path: Path, exercises: Path
) -> None:
    person("--course", exercises).end()
    (tmp_path / "01_double.py").write_text(SOLUTION_1)
    (tmp_path / "02_relu.py").write_text(SOLUTION_2)
    for each in [person(number, "--course", exercises) for number in (1, 2, 1, 2)]:
        each.end()
        assert each.process.returncode == 0
    progress = Progress(tmp_path)
    assert all(progress.of(name).solved for name in ("01_double", "02_relu"))
    assert {progress.of(name).tries for name in ("01_double", "02_relu")} == {1}


# ---------------------------------------------------------------------------------------- trace


def numbers(text: str, after: str) -> list[list[float]]:
    """The rows of numbers that follow a line and the one below it."""
    rows = []
    for line in text[text.index(after) :].splitlines()[3:]:
        if not re.fullmatch(r" *[-+\d][-+.e\d ]*( \.\.\.)?", line):
            break
        rows.append([float(cell) for cell in line.removesuffix(" ...").split()])
    return rows


@pytest.mark.parametrize("has_torch", [True, False])
def test_trace_shows_pytorchs_numbers(monkeypatch: pytest.MonkeyPatch, has_torch: bool) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    inputs = trace._inputs(digit=7, batch=3, seed=1)
    theirs = autograd.arrays(inputs)
    assert theirs is not None
    if not has_torch:
        monkeypatch.setitem(sys.modules, "torch", None)
        assert autograd.arrays(inputs) is None
    text = click.unstyle(trace.text(digit=7, batch=3, seed=1))
    labels = " ".join(map(str, inputs["target"]))
    assert f"y, the labels: {labels}." in " ".join(text.split())
    assert inputs["target"][0] == 7
    for name, stage in trace.STAGES.items():
        if name == "dW1":  # of which the middle is shown
            continue
        shown = np.array(numbers(text, f"\n{stage.formula}"))
        rows, columns = shown.shape
        expected = np.atleast_2d(theirs[name])[:rows, :columns]
        # Three digits are shown, so half a unit of the third is lost: at most 0.005 of a number.
        np.testing.assert_allclose(shown, expected, rtol=0.0051, atol=1e-300)
        assert str(theirs[name].shape if theirs[name].shape else "a number") in text
    assert text.count("PyTorch:") == (12 if has_torch else 0)
    assert ("PyTorch is not installed" in text) != has_torch
    assert "times of what rounding allows" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_trace_tells_a_difference_that_rounding_does_not_explain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def off(inputs: Any) -> dict[str, Any]:
        found = right(inputs)
        assert found is not None
        return found | {"dW2": found["dW2"] * 1.001}

    right = autograd.arrays
    monkeypatch.setattr(autograd, "arrays", off)
    lines = [line for line in trace.text(3, 2, 0).splitlines() if "PyTorch:" in line]
    beyond = [name for name, line in zip(trace.STAGES, lines, strict=True) if "times of" in line]
    assert beyond == ["dW2"]


def test_trace_writes_out_a_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    text = trace.text(3, 4, 0)
    for name in ("dW2", "dW1"):
        total, terms = re.findall(
            rf"the largest entry: {name}\[.+\] = (\S+), the sum of\n((?:.* · .*\n)+)", text
        )[0]
        values = [float(line.split()[0]) for line in terms.splitlines()]
        assert len(values) == 4
        # Each has four digits, so half a unit of the fourth is lost.
        slack = 0.0005 * (abs(float(total)) + sum(map(abs, values)))
        assert abs(sum(values) - float(total)) <= slack


def test_the_trace_command_takes_its_options(tmp_path: Path) -> None:
    out, err = study("trace", "--digit", "5", "--batch", "1", "--seed", "2", cwd=tmp_path)
    assert "N = 1 images" in " ".join(out.split())
    assert "y, the labels: 5." in " ".join(out.split())
    assert err == ""
    _, err = study("trace", "--digit", "10", cwd=tmp_path, fails=2)
    assert "0<=x<=9" in err


# -------------------------------------------------------------------------------------- the course


def test_the_course_is_complete() -> None:
    exercises = course.load()
    assert [exercise.number for exercise in exercises] == list(range(1, 17))
    for exercise in exercises:
        assert exercise.title
        assert exercise.check.is_file()
        for section in (*course.HINTS, course.WHY, course.EXPLAIN):
            assert exercise.words(section).strip()
        with pytest.raises(InputError, match="has no section"):
            exercise.words("Answer")
