"""A contender in a process of its own: no library disturbs another, and thread counts hold.

At the top only what is light is imported: a process is started with the environment that its
libraries read when they are loaded.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.contenders import Entry
    from benchmarks.task import Outcome, Task
    from scratchnet.training import Options

PATIENCE = 600.0  # seconds for a contender to prepare
REHEARSAL = "SCRATCHNET_REHEARSAL"  # a variable that says: there is no GPU, see `emulated`
STOPPING = 5.0  # seconds for a process to end by itself
LEAST_PATIENCE = 30.0  # seconds for a run, or else 20 times what the fastest took


def environment(threads: int) -> dict[str, str]:
    """Variables that limit each library's threads.

    OMP_WAIT_POLICY=passive is not among them: PyTorch took 740 us instead of 490 with two threads.
    Without it threads wait actively for a while, and then sleep: see `settle`.
    """
    names = (
        "OMP_NUM_THREADS",  # PyTorch, scratchnet's native engine
        "MKL_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",  # NumPy
        "NPROC",  # XLA
        "NUM_CPU_THREADS",  # tinygrad
    )
    return dict.fromkeys(names, str(threads)) | {
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # not most of a GPU's memory for each
    }


@dataclass
class Ready:
    """What a contender has to say when it is ready.

    about: library, version, options. probe, first: the outcomes of the first runs of probe and
    task. prepare_seconds: from the request on. seconds: what a second run of the task took.
    """

    about: str
    probe: Outcome
    first: Outcome
    prepare_seconds: float
    seconds: float


@dataclass
class Timed:
    """A timed run.

    seconds: wall time of all epochs and of bringing the results to the host.
    cpu_seconds: of all threads of the process in that time.
    idle_cpu_seconds: of all threads since the last run, while others were timed.
    epoch_seconds: until the call for each epoch returned, which on a GPU is not until it is done.
    peak_memory: bytes that the process has had in memory at most.
    harness_cpu_seconds: of the parent, from its request to the answer.
    """

    seconds: float
    cpu_seconds: float
    idle_cpu_seconds: float
    epoch_seconds: list[float]
    peak_memory: int
    harness_cpu_seconds: float = 0.0


class Failed(Exception):
    """A worker has died, hangs, or its contender has raised; the message says which."""


@dataclass
class Worker:
    """The parent's end. Starts the process; `stop` ends it, whatever it is doing.

    Attributes:
        patience: seconds for it to prepare.
        seconds: what its fastest run of the task so far has taken.

    Raises:
        Failed: from every request.
    """

    entry: Entry
    threads: int
    options: Options
    probe: Options
    device: str = "cpu"
    patience: float = PATIENCE
    seconds: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs,), daemon=True)
        with _environment(environment(self.threads)):
            self.process.start()
        theirs.close()

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.entry.name}, {self.threads} thread(s)"

    def prepare(self) -> Ready:
        """Import, load, compile, and train the probe once and the task twice."""
        job = (self.entry, self.threads, self.options, self.probe, self.device)
        ready: Ready = self._ask(job, self.patience)
        self.seconds = ready.seconds
        return ready

    def train(self) -> tuple[Timed, Outcome]:
        """Train the task, and time it."""
        timed: Timed
        cpu = time.process_time()
        timed, outcome = self._ask("train", max(LEAST_PATIENCE, 20 * self.seconds))
        timed.harness_cpu_seconds = time.process_time() - cpu
        self.seconds = min(self.seconds, timed.seconds)
        return timed, outcome

    def answer(self, question: str) -> dict[str, float]:
        """What a contender that can tell says of the task: see `Server.stages` and `Server.gpu`."""
        found: dict[str, float] = self._ask(question, max(LEAST_PATIENCE, 20 * self.seconds))
        return found

    def _ask(self, request: Any, patience: float) -> Any:
        try:
            self.connection.send(request)
            if not self.connection.poll(patience):
                self.process.kill()
                raise Failed(f"gave no answer for {patience:.0f} s, and was ended")
            problem, reply = self.connection.recv()
        except (EOFError, OSError) as error:
            self.process.join(5)
            raise Failed(f"its process has ended with status {self.process.exitcode}") from error
        if problem:
            raise Failed(problem)
        return reply

    def stop(self) -> None:
        """End the process: a word if it waits for one, so that it can tidy up; else at once."""
        with contextlib.suppress(OSError):
            self.connection.send("stop")
            self.process.join(STOPPING)
        self.process.kill()
        self.process.join()
        self.connection.close()


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


# ---------------------------------------------------------------------------- in the other process


def serve(connection: Connection) -> None:
    """Answer requests until the parent is gone; each answer is a problem, or "" and the reply."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends us
    sys.stdout = sys.stderr  # libraries' chatter is no result
    with contextlib.suppress(EOFError, BrokenPipeError), _rehearsal():
        try:
            job = connection.recv()
            server = Server(*job)
            connection.send(("", server.ready))
            while (request := connection.recv()) != "stop":
                connection.send(("", getattr(server, request)()))
        except (EOFError, BrokenPipeError):
            raise
        except BaseException as error:
            text = " ".join(str(error).split())
            connection.send((f"{type(error).__name__}: {text[:500]}", None))


def _rehearsal() -> contextlib.AbstractContextManager[None]:
    if not os.environ.get(REHEARSAL):
        return contextlib.nullcontext()
    from benchmarks import emulated

    return emulated.gpu()


class Server:
    """A contender and its task."""

    def __init__(
        self, entry: Entry, threads: int, options: Options, probe: Options, device: str
    ) -> None:
        begin = time.perf_counter()
        from threadpoolctl import threadpool_limits

        from benchmarks.task import Task

        self.contender = entry.load()
        self.limits = threadpool_limits(threads)
        self._take(Task.of(probe, device), threads)
        _, of_probe = self.train()
        self._take(Task.of(options, device), threads)
        _, first = self.train()
        second, _ = self.train()  # the first may have compiled
        self.ready = Ready(
            about=self.contender.about(),
            probe=of_probe,
            first=first,
            prepare_seconds=time.perf_counter() - begin,
            seconds=second.seconds,
        )

    def _take(self, task: Task, threads: int) -> None:
        self.task, self.epochs = task, len(task.order)
        self.contender.prepare(task, threads)
        self.idle_since = time.process_time()

    def train(self) -> tuple[Timed, Outcome]:
        """Reset, then train; only the latter is timed."""
        idle = time.process_time() - self.idle_since
        self.contender.reset()
        gc.collect()
        ends, cpu = [time.perf_counter()], time.process_time()
        for epoch in range(self.epochs):
            self.contender.epoch(epoch)
            ends.append(time.perf_counter())
        outcome = self.contender.collect()
        seconds = time.perf_counter() - ends[0]
        cpu = time.process_time() - cpu
        settle()
        self.idle_since = time.process_time()
        timed = Timed(
            seconds=seconds,
            cpu_seconds=cpu,
            idle_cpu_seconds=idle,
            epoch_seconds=[b - a for a, b in itertools.pairwise(ends)],
            peak_memory=peak_memory(),
        )
        return timed, outcome

    def stages(self) -> dict[str, float]:
        """The seconds of each stage; if it does not tell "rest", that is what is between them."""
        stages, seconds = self._answer("stages")
        return {"rest": seconds - sum(stages.values())} | stages

    def gpu(self) -> dict[str, float]:
        """Of the first epoch the GPU's seconds, what was launched, and the accuracy after it."""
        from benchmarks.task import accuracy
        from scratchnet import mnist

        found, _ = self._answer("gpu")
        parameters = self.contender.collect().parameters
        split = mnist.load().validation
        return found | {"accuracy": accuracy(parameters, split, self.task.normalization)}

    def _answer(self, question: str) -> tuple[dict[str, float], float]:
        """What the contender says after a reset, and in how many seconds."""
        tell = getattr(self.contender, question, None)
        if tell is None:
            raise NotImplementedError(f"this contender can't tell its {question}")
        self.contender.reset()
        gc.collect()
        begin = time.perf_counter()
        found: dict[str, float] = dict(tell())
        seconds = time.perf_counter() - begin
        settle()
        self.idle_since = time.process_time()
        return found, seconds


def settle() -> None:
    """Wait until no thread of this process is at work, lest the next contender pays for it.

    OpenBLAS' threads wait actively for their next work for a tenth of a second.
    """
    for _ in range(50):
        before = time.process_time()
        time.sleep(0.01)
        if time.process_time() - before < 0.001:
            return


def peak_memory() -> int:
    """Bytes in memory at most, of this process."""
    try:
        # Linux lets ru_maxrss begin with what the parent had when it forked.
        with open("/proc/self/status") as file:
            line = next(line for line in file if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
