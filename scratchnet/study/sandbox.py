"""Running a learner's file in a process of its own, which may do there what it likes.

It may loop for ever, ask for all memory, print, exit, crash, or leave processes behind: `run`
returns within its limits, and says what happened. What comes back is data, as JSON.

The process (`sandboxed`) is a new Python that ignores the user's settings of Python, in a process
group of its own. Its input is empty, its output is kept up to a length. Limits:

- on time, by a thread of Python's own (`faulthandler`) that also tells the line, and behind it, if
  even that fails, by killing the process from here;
- on processor time and memory, which the system keeps: RLIMIT_CPU, and RLIMIT_DATA on Linux. On
  macOS and Windows there is none on memory: a file that asks for all of it slows the machine down
  until its time is up.

At the end everything in the process group is killed, and on Linux also what has left it, which is
known by a mark in its environment; on Windows the process itself only. This protects from mistakes,
not from malice: the file can read and write what its owner can.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from scratchnet.errors import InputError

PACKAGES = Path(__file__).parents[2]  # where scratchnet is
START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from scratchnet.study import sandboxed; sandboxed.main(sys.argv[2])"
)
MARK = "SCRATCHNET_STUDY_CHECK"  # in the environment of the process, and of all that it starts
NOT_YET = "before the file is loaded"
# The arrays are small: more threads would only take time to start, and memory.
ONE_THREAD = ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "VECLIB_MAXIMUM")


@dataclass(frozen=True)
class Limits:
    """What a run may take.

    Attributes:
        seconds: from when the file begins to run; of wall time, and of processor time.
        memory: bytes of data, where the system can limit it.
        output: bytes of output that are kept; the rest is read and forgotten.
        start: seconds for Python to start and NumPy to be imported, before that.
    """

    seconds: float = 10.0
    memory: int = 2 * 2**30
    output: int = 4096
    start: float = 30.0


@dataclass(frozen=True)
class Ruling:
    """A verdict, as data.

    Attributes:
        ok: whether all is right.
        subject: what was judged.
        name: what is wrong: a mistake of the library, a kind of Finding, or, of a file that does
            not get that far, "syntax", "import", "missing", "to do", "exception", "exit",
            "input", "memory", "recursion", "time", "killed", "replaced" or "check".
        message: what is wrong, in a sentence or two.
        further: the messages of what else is wrong, downstream of it.
        right: the arrays of it that are right, given the learner's own arrays before them.
        hint: where to look.
        ledger: the sum that makes an entry, a term a line.
        traceback: of an exception, what went through the learner's files.
        line: of the learner's file, if it is known.
    """

    ok: bool
    subject: str = ""
    name: str = ""
    message: str = ""
    further: Sequence[str] = ()
    right: Sequence[str] = ()
    hint: str = ""
    ledger: str = ""
    traceback: str = ""
    line: int | None = None


@dataclass
class Run:
    """What came of running a file.

    Attributes:
        results: what the judge has yielded, in order; a verdict as a `Ruling`.
        output: what the file has printed, the first of it.
        cut: how many bytes of output are not shown.
        left: what was still running at the end: "a thread", "a process", "a thread and a process".
        source: what was run.
    """

    source: bytes
    results: list[Any] = field(default_factory=list)
    output: str = ""
    cut: int = 0
    left: str = ""

    @property
    def ruling(self) -> Ruling:
        """The last verdict, which says whether all is right."""
        rulings = [result for result in self.results if isinstance(result, Ruling)]
        return rulings[-1] if rulings else wrong("check", "the check has said nothing")

    @property
    def right(self) -> list[str]:
        """The subjects of the verdicts that are ok."""
        ruled = (result for result in self.results if isinstance(result, Ruling))
        return [each.subject for each in ruled if each.ok]


def wrong(name: str, message: str, **more: Any) -> Ruling:
    """The ruling that something is wrong."""
    return Ruling(False, "", name, message, **more)


def run(
    mine: Path,
    judge: Path,
    *,
    function: str = "check",
    arguments: Sequence[Any] = (),
    limits: Limits | None = None,
) -> Run:
    """Import a learner's file in a process of its own, and let a judge look at it there.

    Args:
        mine: the learner's file.
        judge: a Python file with
        function: a generator that is called as function(learner, *arguments), with the learner's
            module. It yields verdicts (`verdicts.Verdict`), and is left at the first that is not
            ok; or else what JSON can hold, and arrays, which become lists.
        arguments: what JSON can hold.
        limits: default Limits().

    Returns:
        What was yielded. If the file could not be run to the end, the last is a Ruling that says
        why not.

    Raises:
        InputError: there is no such file, or it can't be read.
    """
    limits, mine = limits or Limits(), mine.parent.resolve() / mine.name
    run = Run(_source(mine))
    with tempfile.TemporaryDirectory(prefix="scratchnet-", ignore_cleanup_errors=True) as name:
        exchange = Path(name)
        (exchange / "source").write_bytes(run.source)
        job = {
            "mine": str(mine),
            "judge": str(judge.resolve()),
            "function": function,
            "arguments": list(arguments),
            "limits": vars(limits),
        }
        (exchange / "job").write_text(json.dumps(job), encoding="utf-8")
        status = _run(mine.parent, exchange, limits, run)
        _collect(exchange, status, mine.name, limits, run)
    return run


def _source(mine: Path) -> bytes:
    if mine.exists() and not mine.is_file():  # reading a pipe would wait for its writer
        raise InputError(f"{mine}: is not a file; expected your Python file there")
    return mine.read_bytes()


def _run(folder: Path, exchange: Path, limits: Limits, run: Run) -> int | None:
    """Run the process to its end; its exit status, or None if it had to be killed."""
    paths = [Path(path).resolve() for path in sys.path]
    # His own files last: one that is called random.py is not to be everybody's.
    paths = [path for path in paths if path != folder or path == PACKAGES] + [PACKAGES, folder]
    environment = os.environ | {MARK: exchange.name}
    environment |= {f"{name}_NUM_THREADS": "1" for name in ONE_THREAD}
    python = [sys.executable, "-I", "-u", "-X", "utf8", "-c", START]
    process = subprocess.Popen(
        [*python, json.dumps([*map(str, paths)]), str(exchange)],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # so that Ctrl-C reaches this process only; no effect on Windows
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
    )
    assert process.stdout is not None
    output = _Output(process.stdout, limits.output)
    try:
        return process.wait(timeout=limits.start + limits.seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        _kill(process, exchange.name)
        run.output, run.cut = output.end()


def _kill(process: subprocess.Popen[bytes], mark: str) -> None:
    """Kill the process, all in its group, and all with its mark."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: of a dead one, no right
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=5)
    for environment in Path("/proc").glob("[0-9]*/environ"):  # nothing, where it isn't Linux
        with contextlib.suppress(OSError):  # another user's, or gone
            if f"{MARK}={mark}\0".encode() in environment.read_bytes():
                os.kill(int(environment.parent.name), signal.SIGKILL)


class _Output:
    """Reads a pipe in the background, keeps the first bytes, and forgets the rest."""

    def __init__(self, pipe: IO[bytes], limit: int) -> None:
        self.pipe, self.limit = pipe, limit
        self.kept, self.cut = bytearray(), 0
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        while chunk := os.read(self.pipe.fileno(), 65536):
            room = self.limit - len(self.kept)
            self.kept += chunk[:room]
            self.cut += len(chunk[room:])

    def end(self) -> tuple[str, int]:
        """What was read, without what would move the cursor, and how much is missing."""
        self.thread.join(timeout=1)
        if not self.thread.is_alive():  # else a process that can't be killed holds the other end
            self.pipe.close()
        text = self.kept.decode("utf-8", "replace").replace("\r\n", "\n")
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|[^\n\t -~\xa0-\U0010ffff]", "", text)
        return text.rstrip("\n"), self.cut


# ------------------------------------------------------------------------------- how it has ended


def _collect(exchange: Path, status: int | None, file_name: str, limits: Limits, run: Run) -> None:
    """Read what the process has written; and say why it did not come to its end, if it did not."""
    stage = NOT_YET
    for record in _records(exchange / "results"):
        match record:
            case {"stage": "end"}:
                return
            case {"stage": stage}:
                pass
            case {"left": left}:
                run.left = left
            case {"ruling": ruling}:
                run.results.append(Ruling(**ruling))
            case {"result": result}:
                run.results.append(result)
    if stage == NOT_YET:
        last = run.output.splitlines()[-1:] or ["no message"]
        run.results.append(wrong("check", f"the check could not begin: {last[0]}"))
        run.output = ""
        return
    trace = _read_text(exchange / "trace")
    line = _line(trace, file_name)
    place = f"in line {line}, {stage}" if line else stage
    run.results.append(_death(status, trace, place, limits, line))


def _records(path: Path) -> list[Any]:
    found = []
    for line in _read_text(path).splitlines():
        with contextlib.suppress(json.JSONDecodeError):  # it was killed while it wrote
            found.append(json.loads(line))
    return found


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""


def _line(trace: str, file_name: str) -> int | None:
    """The innermost line in the learner's file: of the thread that crashed, or of the main one."""
    threads = re.split(r"^(?=Current thread|Thread )", trace, flags=re.MULTILINE)
    crashed = [thread for thread in threads if thread.startswith("Current")]
    pattern = rf'[/\\]{re.escape(file_name)}", line (\d+)'
    match = re.search(pattern, [*threads, *crashed][-1])
    return int(match[1]) if match else None


def _death(status: int | None, trace: str, place: str, limits: Limits, line: int | None) -> Ruling:
    """The ruling on a process that has not come to the end of the check."""
    if trace.startswith("Timeout"):
        return wrong(
            "time",
            f"it was still running after {limits.seconds:g} s, {place}: is there a loop that never "
            "ends?",
            line=line,
            hint="print what the loop's condition depends on; a check of small arrays takes "
            "milliseconds (--seconds gives it more time)",
        )
    if status is None:
        message = f"it was stopped, or hung, {place}, and had to be killed"
        return wrong("time", message, line=line)
    if status >= 0:
        return wrong(
            "exit",
            f"it has ended the process {place}, with status {status}: by os._exit, or in a library "
            "that did",
            hint="return the result; to end the process ends the check too",
        )
    return _killed(-status, place, line)


def _killed(number: int, place: str, line: int | None) -> Ruling:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    if name == "SIGXCPU":
        message = f"it has used up its processor time {place}: is there a loop that never ends?"
        return wrong("time", message, line=line)
    reasons = {
        "SIGSEGV": "the process crashed: very deep recursion does that, or a library's mistake",
        "SIGKILL": "it was killed: by itself, or by the system, when memory ran out",
    }
    reason = reasons.get(name, "the process was ended by a signal")
    return wrong("killed", f"{reason} ({name}), {place}", line=line)
