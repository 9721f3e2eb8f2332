"""Builds main.c and remote.c around a native.c, and runs them."""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from scratchnet.engines import native_build

FOLDER = Path(__file__).parent
CASES = 56  # of main.c: 8 hidden layers, 7 batches
OPTIONS = [option for option in native_build.OPTIONS if option not in ("-O3", "-shared", "-fPIC")]
SANITIZERS = {
    "address": [
        "-O0",
        "-fsanitize=address,undefined,float-cast-overflow",
        "-fno-sanitize-recover=all",
    ],
    "thread": ["-O1", "-fsanitize=thread"],
    "none": ["-O1"],
}
# native.c allocates nothing, and LeakSanitizer does not work where a debugger or a sandbox traces.
ENVIRONMENT = os.environ | {"ASAN_OPTIONS": "detect_leaks=0", "TSAN_OPTIONS": "halt_on_error=1"}


@functools.cache
def why_not(compiler: str, sanitizer: str) -> str | None:
    """Why there are no programs of this compiler under this sanitizer; None if there are."""
    if shutil.which(compiler) is None:
        return f"{compiler} is not installed"
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder, "empty.c"), Path(folder, "empty")
        source.write_text("int main(void) { return 0; }\n")
        for command in (
            [compiler, *SANITIZERS[sanitizer], str(source), "-o", str(program)],
            [str(program)],
        ):
            if subprocess.run(command, capture_output=True, check=False).returncode:
                return f"{compiler} has no {sanitizer} sanitizer that works here"
    return None


def build(
    compiler: str, program: str, real: str, source: Path, folder: Path, *options: str
) -> Path:
    """The program main or remote, around a native.c; what the compiler says is an error."""
    file = folder / program
    command = [compiler, *OPTIONS, *options, f"-DREAL={real}", f'-DSOURCE="{source}"']
    command += [str(FOLDER / f"{program}.c"), "-o", str(file), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    return file


def watched(
    compiler: str, sanitizer: str, real: str, source: Path, folder: Path, every: int = 1
) -> subprocess.CompletedProcess[str]:
    """main.c under a sanitizer, on each so manieth of its cases."""
    options = ["-g", *SANITIZERS[sanitizer]]
    if sanitizer != "thread":  # which looks at no more than 16 bytes of a vector
        options += native_build._for_this_cpu([compiler])[0]
    program = build(compiler, "main", real, source, folder, *options)
    return subprocess.run(
        [program, str(every)], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )


class Remote:
    """In the place of a library: its training is made by remote.c, in a process of its own."""

    def __init__(self, command: list[str], real: int) -> None:
        """The command that runs remote.c, and the bytes of a number."""
        self.command = command
        self.real = real

    def arena_size(self, _: Any) -> int:
        return 0

    def train(self, pointer: Any) -> None:
        run = pointer._obj
        order = ctypes.string_at(run.order, 8 * run.samples)
        images = 1 + max(memoryview(order).cast("q"))
        numbers = self.real * (run.hidden * (run.inputs + 1) + run.classes * (run.hidden + 1))
        results = [(run.losses, 8 * run.steps)] + [(at, numbers) for at in (run.p, run.m, run.v)]
        sent = [
            bytes(run),
            images.to_bytes(8, "little"),
            ctypes.string_at(run.images, images * run.inputs),
            ctypes.string_at(run.labels, 8 * images),
            order,
            ctypes.string_at(run.lrs, 8 * run.steps),
            *(ctypes.string_at(*each) for each in results[1:]),
        ]
        done = subprocess.run(self.command, input=b"".join(sent), capture_output=True, check=True)
        made = memoryview(done.stdout)
        for at, size in results:
            ctypes.memmove(at, bytes(made[:size]), size)
            made = made[size:]
