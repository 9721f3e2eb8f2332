"""The process in which a learner's file is run and judged: see `sandbox`, which starts it.

The judge is in the same process, so it must not be deceived, not even by accident: what the file
replaces in NumPy, in the built-ins or in scratchnet is noticed, before the judge begins and after
it has ended. What it sets (warnings, what NumPy does about overflow, how arrays are printed) is
undone.
"""

from __future__ import annotations

import builtins
import contextlib
import faulthandler
import importlib.util
import json
import linecache
import math
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import numpy as np

from scratchnet.study.sandbox import Limits, Ruling, wrong
from scratchnet.study.verdicts import Verdict

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

# What to say of an exception that means something else than its name says.
EXPLAINED: dict[type[BaseException], tuple[str, str, str]] = {
    NotImplementedError: (
        "to do",
        "there is nothing written yet, {at} (NotImplementedError)",
        "the text at the top of the file says what is asked",
    ),
    SystemExit: (
        "exit",
        "it calls exit, {at}",
        "return the result; to exit ends whoever called it",
    ),
    RecursionError: (
        "recursion",
        "it calls itself without end, {at}",
        "a function that calls itself needs a case in which it does not",
    ),
    MemoryError: (
        "memory",
        "it asks for more memory than the {memory:.3g} GB that it may have, {at}",
        "look at the shapes: what is so large?",
    ),
    EOFError: (
        "input",
        "it asks for input, {at}, and nobody is there to answer",
        "take the values from the arguments",
    ),
}


class Process:
    """What has to be known of this one.

    Args:
        exchange: the folder where the job lies, and where the results go.
    """

    def __init__(self, exchange: Path) -> None:
        job = json.loads((exchange / "job").read_text(encoding="utf-8"))
        self.mine, self.judge = Path(job["mine"]), Path(job["judge"])
        self.function: str = job["function"]
        self.arguments: list[Any] = job["arguments"]
        self.limits = Limits(**job["limits"])
        self.source = (exchange / "source").read_bytes()
        self.results = (exchange / "results").open("a", encoding="utf-8")
        self.trace = (exchange / "trace").open("w", encoding="utf-8")
        self.pid = os.getpid()

    def tell(self, **record: Any) -> None:
        """Write a record, on the disk before anything else happens."""
        if os.getpid() != self.pid:  # a copy, which the file has made by fork
            os._exit(0)
        self.results.write(json.dumps(record, default=_plain) + "\n")
        self.results.flush()


def main(exchange: str) -> NoReturn:
    """Run the learner's file and the judge, tell what they say, and end the process."""
    process = Process(Path(exchange))
    judge = _load_judge(process)
    known = _names()
    _limit(process.limits)
    faulthandler.enable(process.trace)
    faulthandler.dump_traceback_later(process.limits.seconds, exit=True, file=process.trace)
    try:
        _judge(process, judge, known)
        process.tell(left=_left())
        _end_children()
        process.tell(stage="end")
    finally:
        _flush()
        os._exit(1)  # whatever threads and atexit have in mind


def _limit(limits: Limits) -> None:
    """Let the system limit memory and processor time, where it can."""
    if resource is None:
        return
    seconds = math.ceil(time.process_time() + limits.seconds) + 1
    # RLIMIT_AS would count what is only reserved, and a GPU's driver reserves very much.
    memory = resource.RLIMIT_DATA if sys.platform == "linux" else resource.RLIMIT_AS
    for kind, soft, hard in (
        (resource.RLIMIT_CPU, seconds, seconds + 1),  # SIGXCPU, then SIGKILL
        (memory, limits.memory, limits.memory),
        (resource.RLIMIT_CORE, 0, 0),
    ):
        with contextlib.suppress(ValueError, OSError):  # macOS; or there is a lower limit already
            resource.setrlimit(kind, (soft, hard))


def _load_judge(process: Process) -> Any:
    spec = importlib.util.spec_from_file_location("scratchnet.study.check", process.judge)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return getattr(module, process.function)


def _judge(process: Process, judge: Any, known: dict[str, dict[str, Any]]) -> None:
    """Load the file, and tell what the judge yields, up to the first verdict that is not ok."""
    sys.dont_write_bytecode = True  # nothing but the learner's own files in his folder
    stage = "while the file is loaded"
    try:
        process.tell(stage=stage)
        with _undone():
            learner = _load(process)
        process.tell(stage=(stage := "while its functions are called"))
        if replaced := _replaced(known):
            return process.tell(ruling=asdict(replaced))
        for result in judge(learner, *process.arguments):
            if not isinstance(result, Verdict):
                process.tell(result=result)
                continue
            ruling = _replaced(known) or of_verdict(result, process)
            process.tell(ruling=asdict(ruling))
            if not ruling.ok:
                return
        if replaced := _replaced(known):
            process.tell(ruling=asdict(replaced))
    except BaseException as error:
        process.tell(ruling=asdict(_replaced(known) or of_error(error, process, stage)))


def _load(process: Process) -> ModuleType:
    """The learner's file as a module, from the source that was read before all this began."""
    name = process.mine.stem
    lines = process.source.decode("utf-8", "replace").splitlines(keepends=True)
    # Where tracebacks look for lines, should the file be changed meanwhile, or be gone.
    linecache.cache[str(process.mine)] = (len(process.source), None, lines, str(process.mine))
    learner = ModuleType(name)
    learner.__file__ = str(process.mine)
    sys.modules[name] = learner
    code = compile(process.source, str(process.mine), "exec", dont_inherit=True)
    exec(code, learner.__dict__)
    return learner


@contextlib.contextmanager
def _undone() -> Iterator[None]:
    """Undo what is set inside."""
    with warnings.catch_warnings(), np.errstate(), np.printoptions():
        yield


def _left() -> str:
    """What is still running, apart from the main thread."""
    kinds = []
    if any(thread is not threading.main_thread() for thread in threading.enumerate()):
        kinds.append("a thread")
    with contextlib.suppress(ChildProcessError, AttributeError):  # there is none; Windows
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
        kinds.append("a process")
    return " and ".join(kinds)


def _end_children() -> None:
    """Kill the processes of this one's, even in a group of their own and unmarked, on Linux."""
    for children in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):  # a thread, or a process, has just ended
            for child in children.read_text().split():
                os.kill(int(child), signal.SIGKILL)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # the file may have put anything in its place
            stream.flush()


def _plain(value: Any) -> Any:
    """NumPy's arrays and numbers as lists and numbers."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"a judge yields {type(value).__name__}; expected what JSON can hold")


# --------------------------------------------------------------------------- what was replaced


def _names() -> dict[str, dict[str, Any]]:
    """The public names of every module that a judge relies on."""
    return {
        module: {name: value for name, value in vars(sys.modules[module]).items() if name[0] != "_"}
        for module in list(sys.modules)
        if module.partition(".")[0] in ("numpy", "scratchnet", "math", "builtins")
    }


def _replaced(known: dict[str, dict[str, Any]]) -> Ruling | None:
    """The ruling that the file has put something of its own in the place of another's."""
    nothing = object()
    for module, names in known.items():
        now = vars(sys.modules.get(module, builtins))
        for name, value in names.items():
            if now.get(name, nothing) is not value:
                full = name if module == "builtins" else f"{module}.{name}"
                return wrong(
                    "replaced",
                    f"it replaces {full}, and so for everybody in this process, the check too",
                    hint="give a function of your own a name of its own",
                )
    return None


# --------------------------------------------------------------------------------- as rulings


def of_verdict(verdict: Verdict, process: Process) -> Ruling:
    """A verdict as data."""
    if verdict.ok:
        return Ruling(True, verdict.subject, message=verdict.message)
    first, *further = verdict.findings
    error = first.evidence.get("error")
    if isinstance(error, BaseException):
        ruling = of_error(error, process, "", first.message)
        return replace(ruling, subject=verdict.subject, hint=ruling.hint or first.hint)
    ledger = first.evidence.get("ledger")
    return Ruling(
        False,
        verdict.subject,
        verdict.name,
        first.message,
        [finding.message for finding in further],
        _right_beside_wrong(verdict),
        first.hint,
        str(ledger) if ledger else "",
        line=first.where.get("line"),
    )


def _right_beside_wrong(verdict: Verdict) -> list[str]:
    """The arrays that are right; none, if all that is wrong is about the only one."""
    blamed = {finding.result for finding in verdict.findings}
    right = [name for name in verdict.right if name not in blamed]
    return right if len(right) > 1 or any(blamed) else []


def of_error(error: BaseException, process: Process, stage: str, words: str = "") -> Ruling:
    """What was raised, as a ruling; words are what is known of it already."""
    frames = _own_frames(error, process)
    line = next((f.lineno for f in reversed(frames) if f.filename == process.mine.name), None)
    if isinstance(error, SyntaxError) and not frames:
        return _syntax(error, process)
    text = "".join(
        [
            *traceback.StackSummary.from_list(frames).format(),
            *traceback.format_exception_only(error),
        ]
    )
    at = f"in line {line}" if line else stage
    for kind, (name, message, hint) in EXPLAINED.items():
        if isinstance(error, kind) and (kind is not EOFError or "reading a line" in str(error)):
            message = message.format(at=at, memory=process.limits.memory / 2**30)
            shown = "" if kind is NotImplementedError else text
            return wrong(name, message, hint=hint, traceback=shown, line=line)
    if not frames and not words:
        return _own_failure(error, stage)
    where = f"in line {line}, {stage}" if line else stage
    what = words or f"it raises {type(error).__name__} {where}: {_words(error)}"
    kind_name = "import" if isinstance(error, ImportError) else "exception"
    return wrong(kind_name, what, traceback=text, line=line)


def _syntax(error: SyntaxError, process: Process) -> Ruling:
    line = error.lineno
    at = f"line {line}" if line else process.mine.name
    error.filename = process.mine.name
    shown = "".join(traceback.format_exception_only(error)) if error.text else ""
    return wrong("syntax", f"{at}: {error.msg}", traceback=shown, line=line)


def _own_failure(error: BaseException, stage: str) -> Ruling:
    """An exception that has not been through the learner's file."""
    frames: Iterable[traceback.FrameSummary] = traceback.extract_tb(error.__traceback__)
    *_, last = frames
    return wrong(
        "check",
        f"the check itself failed {stage}: {type(error).__name__}: {_words(error)} "
        f"({last.filename}, line {last.lineno})",
        hint="this may be no mistake of yours: please report it",
    )


def _own_frames(error: BaseException, process: Process) -> list[traceback.FrameSummary]:
    """What an exception went through of the learner's files, with short names."""
    folder, judge = process.mine.parent, process.judge
    frames = []
    for frame in traceback.extract_tb(error.__traceback__):
        path = Path(frame.filename)
        if path.parent == folder and path != judge:  # not in a folder of his: that is a library
            frame.filename = path.name
            frames.append(frame)
    return frames


def _words(error: BaseException) -> str:
    try:
        return " ".join(str(error).split()) or "no message"
    except Exception:  # of the learner's own __str__
        return "its message can't be made"
