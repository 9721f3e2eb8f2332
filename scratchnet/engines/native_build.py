"""native.c as a library: compiled at first use by the system's compiler, for the CPU at hand.

It is kept in the user's cache folder under a hash of all that determines it: source, compiler, CPU
and options. Two processes that start at once both compile, and whichever file comes last serves
both. A file's name also tells its content's hash, so that one that a power cut left half written is
not loaded, which would end the process.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from scratchnet.errors import InputError

SOURCE = Path(__file__).with_name("native.c")
# errno, for whoever takes the root of a negative number, keeps roots out of vector registers.
OPTIONS = ("-std=gnu11", "-O3", "-fno-math-errno", "-shared", "-fPIC", "-pthread")
FOR_THIS_CPU = ("-march=native", "-mcpu=native")  # compilers know one or the other
MACROS = ("-dM", "-E", "-x", "c", os.devnull)  # what a compiler has predefined
SECONDS = 120  # for the compiler


class NotBuilt(InputError):
    """There is no library, and the message says why."""


class Refused(NotBuilt):
    """The compiler has ended with an error."""


def compiler() -> list[str]:
    """The C compiler: the command in CC, or the first of cc, gcc and clang.

    Raises:
        NotBuilt: there is none.
    """
    try:
        command = shlex.split(os.environ.get("CC", ""))
    except ValueError as error:
        raise NotBuilt(f"engine native: CC is {os.environ['CC']!r}: {error}") from error
    for name in [command[0]] if command else ["cc", "gcc", "clang"]:
        found = shutil.which(name)
        if found:
            return [found, *command[1:]]
    raise NotBuilt(
        f"engine native: {command[0] if command else 'a C compiler'} is not found; install one "
        "(on Debian: apt install gcc libc6-dev), or set CC"
    )


def build(*options: str) -> Path:
    """The library that native.c makes with these options; from the cache if it has been there.

    Raises:
        NotBuilt: there is no compiler, it fails, or the cache folder can't be written to.
    """
    command = [*compiler(), *OPTIONS, *options]
    for_cpu, macros = _for_this_cpu(command)
    command = [*command, *for_cpu]
    source = SOURCE.read_bytes()
    # The predefined macros tell the compiler's version and everything that it knows of the CPU.
    key = hashlib.sha256(b"\0".join([source, macros, *(word.encode() for word in command)]))
    name = f"native-{key.hexdigest()[:32]}"
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file in folder.glob(f"{name}-*.so"):
            if file.name == f"{name}-{_digest(file)}.so":
                return file
        with tempfile.TemporaryDirectory(dir=folder) as beside:
            part = Path(beside, "native.so")
            _run([*command, "-o", str(part), str(SOURCE), "-lm"])
            file = folder / f"{name}-{_digest(part)}.so"
            os.replace(part, file)
    except OSError as error:
        raise NotBuilt(
            f"engine native: {folder} can't be written to ({error.strerror or error}); expected a "
            "folder for caches: set XDG_CACHE_HOME to one"
        ) from error
    return file


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def cache_folder() -> Path:
    """Where compiled libraries are kept."""
    import platformdirs  # not before it is needed

    return platformdirs.user_cache_path("scratchnet")


def _for_this_cpu(command: list[str]) -> tuple[list[str], bytes]:
    """The option that lets a compiler use all of this CPU, if it has one, and its macros then."""
    for option in FOR_THIS_CPU:
        with contextlib.suppress(Refused):
            return [option], _run([*command, option, *MACROS])
    return [], _run([*command, *MACROS])


def _run(command: list[str]) -> bytes:
    try:
        done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise NotBuilt(f"engine native: {command[0]} took more than {SECONDS} s") from error
    except OSError as error:
        raise NotBuilt(
            f"engine native: {command[0]} can't be run: {error.strerror or error}"
        ) from error
    if done.returncode:
        lines = done.stderr.decode(errors="replace").splitlines() or ["no message"]
        first = next((line for line in lines if "error" in line), lines[-1])
        raise Refused(f"engine native: {command[0]} can't compile it: {first.strip()}")
    return done.stdout
