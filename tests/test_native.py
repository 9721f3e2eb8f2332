"""The engine in C: what sanitizers see in it, how it is built, and what it promises."""

from __future__ import annotations

import ctypes
import itertools
import math
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reference.bounds import Dtype
from reference.lockstep import Lockstep
from scratchnet import engines
from scratchnet.engines import native, native_build
from scratchnet.errors import InputError
from scratchnet.mnist import Split
from scratchnet.training import Options, Run
from tests import test_engines
from tests.native import programs
from tests.native.plants import PLANTS, Plant
from tests.strategies import dtypes, lay_out, seeds
from tests.test_engines import copy, options, state
from tests.test_training import some_images

Fake: TypeAlias = Callable[..., Path]

ROOT = Path(__file__).parent.parent
COMPILERS = ("cc", "clang")
POSIX = pytest.mark.skipif(os.name != "posix", reason="compilers are played by shell scripts")
WHY_NOT = engines.why_not("native")
BUILT = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))
# Widths of vectors by the options that x86-64 needs for them; "native" is whatever the CPU has.
WIDTHS = {"SSE2": [], "AVX2": ["-mavx2", "-mfma"], "native": []}


def skip_without(compiler: str, sanitizer: str = "none") -> None:
    reason = programs.why_not(compiler, sanitizer)
    if reason:
        pytest.skip(reason)


# ------------------------------------------------------------------------------------- sanitizers


@pytest.mark.parametrize(
    ("sanitizer", "real"), [("address", "float"), ("address", "double"), ("thread", "float")]
)
@pytest.mark.parametrize("compiler", COMPILERS)
def test_sanitizers_have_nothing_to_report(
    compiler: str, sanitizer: str, real: str, tmp_path: Path
) -> None:
    """Who owns what does not depend on the type of number, so races are sought with one."""
    skip_without(compiler, sanitizer)
    every = 3 if sanitizer == "thread" else 1
    done = programs.watched(compiler, sanitizer, real, native_build.SOURCE, tmp_path, every)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == f"{math.ceil(programs.CASES / every)} cases\n"
    assert done.stderr == ""


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.name)
def test_a_planted_bug_is_reported(plant: Plant, tmp_path: Path) -> None:
    skip_without("cc", plant.sanitizer)
    source = tmp_path / "native.c"
    source.write_text(plant.plant(native_build.SOURCE.read_text()))
    every = 5 if plant.sanitizer == "thread" else 1
    done = programs.watched("cc", plant.sanitizer, "float", source, tmp_path, every)
    assert done.returncode != 0
    assert plant.is_told_by(done.stdout + done.stderr), done.stdout + done.stderr


@pytest.mark.parametrize(
    ("function", "old", "words"),
    [("f", "x", "occurs 2 times"), ("f", "z", "occurs 0 times"), ("g", "x", "0 functions g")],
)
def test_a_plant_that_fits_nowhere_or_twice_is_refused(function: str, old: str, words: str) -> None:
    source = "/* f(x) { */\nstatic int f(int x)\n{\n    return x;\n}\nint y = f(z);\n"
    with pytest.raises(ValueError, match=words):
        Plant("name", function, old, "", "", "none").plant(source)


@pytest.mark.parametrize("real", native.REALS.values())
@pytest.mark.parametrize("compiler", [*COMPILERS, "aarch64-linux-gnu-gcc"])
def test_compilers_have_nothing_to_warn_of(compiler: str, real: str, tmp_path: Path) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    command = [compiler, *native_build.OPTIONS, f"-DREAL={real}", "-Wall", "-Wextra", "-Wpedantic"]
    command += ["-Werror", str(native_build.SOURCE), "-o", str(tmp_path / "native.so"), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == ""


# ------------------------------------------------------------------------------------ the building


def forget() -> None:
    native.load.cache_clear()
    native.why_not.cache_clear()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder for libraries, of which none is loaded."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    forget()
    yield tmp_path / "cache" / "scratchnet"
    forget()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is built need not be fast."""
    options = ["-O0" if option == "-O3" else option for option in native_build.OPTIONS]
    monkeypatch.setattr(native_build, "OPTIONS", tuple(options))


@pytest.fixture
def cc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Makes a compiler of a shell script, which may use $LOG, a file, and $REAL_CC."""
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    monkeypatch.setenv(
        "REAL_CC", shlex.join(native_build.compiler()) if WHY_NOT is None else "false"
    )

    def make(script: str, name: str = "cc") -> Path:
        file = tmp_path / name
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
        monkeypatch.setenv("CC", str(file))
        forget()
        return file

    return make


RECORDING = 'echo "$@" >> "$LOG"; exec $REAL_CC "$@"'


def compilations(folder: Path) -> list[str]:
    """Commands that a RECORDING compiler got, but for the questions after its macros."""
    return [line for line in (folder / "log").read_text().splitlines() if "-dM" not in line]


@POSIX
@BUILT
@pytest.mark.usefixtures("quick")
def test_a_library_is_compiled_once(cache: Path, cc: Fake, tmp_path: Path) -> None:
    cc(RECORDING)
    native.load("float32")
    (file,) = cache.iterdir()
    forget()
    native.load("float32")
    assert len(compilations(tmp_path)) == 1
    assert [*cache.iterdir()] == [file]
    native.load("float64")
    assert len(compilations(tmp_path)) == 2


@POSIX
@BUILT
@pytest.mark.usefixtures("quick")
def test_another_source_option_compiler_or_cpu_gives_another_library(
    cache: Path, cc: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def count() -> int:
        forget()
        native.load("float32")
        return len([*cache.iterdir()])

    cc(RECORDING)
    assert count() == 1
    source = tmp_path / "native.c"
    source.write_text(native_build.SOURCE.read_text() + "/* */\n")
    with monkeypatch.context() as patch:
        patch.setattr(native_build, "SOURCE", source)
        assert count() == 2
    with monkeypatch.context() as patch:
        patch.setattr(native_build, "OPTIONS", (*native_build.OPTIONS, "-DNDEBUG"))
        assert count() == 3
    cc(RECORDING, "other")
    assert count() == 4
    cc(f'case "$*" in *-dM*) echo "#define __AVX9__" ;; esac; {RECORDING}', "other")
    assert count() == 5
    cc(RECORDING)
    assert count() == 5


TOGETHER = """
case "$*" in
*-dM*) ;;
*)
    echo started >> "$LOG"
    until [ "$(wc -l < "$LOG")" -ge 2 ]; do :; done
    ;;
esac
exec $REAL_CC "$@"
"""


@POSIX
@BUILT
def test_two_processes_that_start_at_once_leave_one_library(cache: Path, cc: Fake) -> None:
    """The compiler of each waits for the other's to have started."""
    cc(TOGETHER)
    program = "from scratchnet.engines import native; native.load('float32')"
    command = [sys.executable, "-c", program]
    both = [subprocess.Popen(command, cwd=ROOT) for _ in range(2)]
    assert [process.wait(timeout=100) for process in both] == [0, 0]
    (file,) = cache.iterdir()
    ctypes.CDLL(str(file))


@BUILT
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("share", [0, 0.3, 0.9])
def test_a_damaged_library_is_compiled_anew(cache: Path, share: float) -> None:
    """Loaded, half a library would end the process."""
    native.load("float32")
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    file.unlink()  # this process has mapped it
    file.write_bytes(whole[: int(share * len(whole))])
    forget()
    native.load("float32")
    assert [*cache.iterdir()] == [file]
    assert file.read_bytes() == whole


@POSIX
@BUILT
@pytest.mark.usefixtures("cache", "quick")
def test_a_compiler_that_knows_no_cpu_will_do(cc: Fake) -> None:
    cc(f'case "$*" in *=native*) echo "error: bad option" >&2; exit 1 ;; esac; {RECORDING}')
    assert native.why_not() is None


@POSIX
@BUILT
@pytest.mark.usefixtures("cache", "quick")
def test_the_compiler_may_have_options(
    cc: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", f"'{cc(RECORDING)}' -DNAME='a b'")
    assert native.why_not() is None
    assert compilations(tmp_path)[0].startswith("-DNAME=a b -std=gnu11")


def assert_not_built(*words: str) -> None:
    """The reason is one line, with these words, and so the engine is another."""
    forget()
    reason = engines.why_not("native")
    assert reason
    assert "\n" not in reason
    assert all(word in reason for word in ("engine native: ", *words)), reason
    assert engines.resolve("auto", "cpu") == "numpy_inplace"
    assert Run(Options(), some_images(0, 8), "cpu", engine="auto").engine == "numpy_inplace"
    with pytest.raises(InputError) as caught:
        engines.make("native", Run(Options(), some_images(0, 8), "cpu"))
    assert str(caught.value) == reason


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("/nowhere/cc -O3", "/nowhere/cc is not found; install one"),
        ("'cc", 'CC is "\'cc": No closing quotation'),
    ],
)
def test_no_such_compiler(command: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", command)
    assert_not_built(words)


@pytest.mark.usefixtures("cache")
def test_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert_not_built("a C compiler is not found; install one", "set CC")


@POSIX
@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo first >&2; echo 'x.c:1: error: no good' >&2; exit 1", "it: x.c:1: error: no good"),
        ("echo killed >&2; exit 137", "it: killed"),
        ("exit 1", "it: no message"),
    ],
)
def test_a_compiler_that_fails_is_quoted(script: str, words: str, cc: Fake) -> None:
    assert_not_built(f"{cc(script)} can't compile {words}")


@POSIX
@pytest.mark.usefixtures("cache")
def test_a_compiler_that_can_not_be_run_is_told(cc: Fake) -> None:
    file = cc("")
    file.write_bytes(b"no program")
    assert_not_built(f"{file} can't be run: Exec format error")


@POSIX
@pytest.mark.usefixtures("cache")
def test_a_compiler_that_hangs_is_given_up_once(
    cc: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = cc('echo "$@" >> "$LOG"; while :; do :; done')
    monkeypatch.setattr(native_build, "SECONDS", 0.5)
    assert native.why_not() == f"engine native: {file} took more than 0.5 s"
    assert len((tmp_path / "log").read_text().splitlines()) == 1


@BUILT
@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("name", ["file", "a" * 300], ids=["file", "long"])
def test_a_cache_that_can_not_be_written_to_is_told(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    folder = tmp_path / name
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    assert_not_built(f"{folder / 'scratchnet'} can't be written to (", "set XDG_CACHE_HOME to one")


# Answers for its macros, and then writes something to the file after -o.
WRITES_TEXT = """
case "$*" in *-dM*) exec $REAL_CC "$@" ;; esac
while [ "$1" != -o ]; do shift; done
echo text > "$2"
"""


@POSIX
@BUILT
def test_nothing_remains_of_a_compilation_that_fails(cache: Path, cc: Fake) -> None:
    cc(f"{WRITES_TEXT}exit 1")
    assert_not_built("can't compile it")
    assert [*cache.iterdir()] == []


@POSIX
@BUILT
def test_what_is_no_library_is_told(cache: Path, cc: Fake) -> None:
    cc(WRITES_TEXT)
    assert_not_built("its library can't be loaded: ", str(cache))


@BUILT
def test_auto_is_native_on_the_cpu() -> None:
    assert engines.why_not("native") is None
    assert engines.resolve("auto", "cpu") == "native"
    assert engines.resolve("auto", "cuda") == "layers"
    assert Run(Options(), some_images(0, 8), "cpu", engine="auto").engine == "native"


def scratchnet(*arguments: str, cwd: Path) -> tuple[str, str]:
    """Output and error output of a command."""
    done = subprocess.run(
        [sys.executable, "-m", "scratchnet", *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


TRAIN = ["train", "--engine", "auto", "--device", "cpu", "--limit", "200", "--batch-size", "50"]


@BUILT
def test_the_command_line_tells_that_auto_is_native(tmp_path: Path) -> None:
    out, _ = scratchnet("doctor", cwd=tmp_path)
    assert f"C compiler    {' '.join(native_build.compiler())}\n" in out
    assert "engine auto   native, on the CPU; compiled libraries are in " in out
    out, err = scratchnet(*TRAIN, cwd=tmp_path)
    assert "engine native ->" in out
    assert err == ""


def test_the_command_line_tells_why_auto_is_not_native(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", "/nowhere/cc")
    reason = "engine native: /nowhere/cc is not found; install one"
    out, _ = scratchnet("doctor", cwd=tmp_path)
    assert f"engine auto   numpy_inplace, since {reason}" in out
    out, err = scratchnet(*TRAIN, cwd=tmp_path)
    assert "engine numpy_inplace ->" in out
    assert err.startswith(reason)


# ---------------------------------------------------------------------------------- vector widths

# Hidden units and samples that fill tiles, chunks and vectors, and that do not.
FEW = (
    (Options("one-cycle", epochs=3, batch_size=64, hidden=50), 150),
    (Options("adam", epochs=3, batch_size=65, hidden=13), 70),
    (Options("tutorial", epochs=3, batch_size=3, hidden=1), 7),
)


def assert_native_is_layers() -> None:
    """As test_engines has it, and within its bounds."""
    test_engines.test_an_engine_is_layers_in_float64(engine="native")
    assert_a_few_steps_are_right()


def assert_a_few_steps_are_right() -> None:
    both: tuple[Dtype, ...] = (np.float32, np.float64)
    for (few, count), dtype in itertools.product(FEW, both):
        lockstep = Lockstep.start(few, some_images(1, count), dtype, "cpu", "native")
        assert len([*lockstep.steps(4)]) == 4
        made = [each for each in lockstep.report.differences if each.name.startswith("native: ")]
        assert len(made) == 4 * 13
        assert all(each.ok for each in made), [*map(str, made)]


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("compiler", COMPILERS)
def test_every_width_of_vectors_is_right(
    compiler: str, width: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    skip_without(compiler)
    _, macros = native_build._for_this_cpu([compiler])
    if width != "native":
        if b"__x86_64__" not in macros or (width == "AVX2" and b"__FMA__" not in macros):
            pytest.skip(f"this CPU does not have {width}")
        monkeypatch.setattr(native_build, "FOR_THIS_CPU", ("-march=x86-64",))
    monkeypatch.setenv("CC", shlex.join([compiler, *WIDTHS[width]]))
    assert_native_is_layers()


def test_vectors_of_another_processor_are_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """aarch64, by an emulator: numbers that are subnormal and vectors are handled otherwise."""
    compiler, emulator = "aarch64-linux-gnu-gcc", "qemu-aarch64"
    for each in (compiler, emulator):
        if shutil.which(each) is None:
            pytest.skip(f"{each} is not installed")
    libraries = {}
    for dtype, real in native.REALS.items():
        folder = tmp_path / real
        folder.mkdir()
        program = programs.build(
            compiler, "remote", real, native_build.SOURCE, folder, "-O3", "-static"
        )
        size = np.dtype(dtype).itemsize
        libraries[dtype] = programs.Remote([emulator, str(program)], size)
    monkeypatch.setattr(native, "load", libraries.__getitem__)
    assert_a_few_steps_are_right()


# ------------------------------------------------------------------------------------- the engine


@BUILT
@settings(max_examples=20)
@given(options=options, seed=seeds, dtype=dtypes)
def test_the_number_of_threads_changes_no_bit(options: Options, seed: int, dtype: Dtype) -> None:
    results = []
    for threads in (1, 2, 3, 7, native.MOST_THREADS, 1000):
        run = Run(options, some_images(seed, 40), "cpu", dtype)
        engine = native.Engine(run)
        engine.threads = threads
        results.append([engine.advance(0, 3), *copy(run)])
    for result in results[1:]:
        for mine, first in zip(result, results[0], strict=True):
            np.testing.assert_array_equal(mine, first)


@BUILT
@given(options=options, seed=seeds, dtype=dtypes)
def test_stages_makes_the_same_updates(options: Options, seed: int, dtype: Dtype) -> None:
    ours, plain = (Run(options, some_images(seed, 40), "cpu", dtype) for _ in range(2))
    steps = min(4, ours.total_steps)
    seconds = native.Engine(ours).stages(0, steps)
    native.Engine(plain).advance(0, steps)
    assert tuple(seconds) == native.STAGES
    assert min(seconds.values()) >= 0 < sum(seconds.values())
    for mine, theirs in zip(state(ours), state(plain), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert ours.optimizer.steps == plain.optimizer.steps


@BUILT
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_subnormal_numbers_are_numbers_after_a_call(dtype: Dtype) -> None:
    run = Run(Options("adam", batch_size=8), some_images(0, 40), "cpu", dtype)
    native.Engine(run).advance(0, 5)
    tiny = np.full(3, np.finfo(dtype).tiny)
    assert (tiny / 4 > 0).all()
    np.testing.assert_array_equal(tiny / 4 * 4, tiny)


@BUILT
@pytest.mark.parametrize("layout", ["Fortran", "strided", "reversed"])
@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.uint64])
def test_labels_of_any_type_and_arrays_of_any_layout_do(kind: type, layout: str) -> None:
    images, labels = some_images(0, 40)
    other = Split(lay_out(images, layout), lay_out(labels.astype(kind), layout))
    plain, same = (
        native.Engine(Run(Options("adam", batch_size=9), split, "cpu")).advance(0, 5)
        for split in (Split(images, labels), other)
    )
    assert plain == same


@BUILT
@pytest.mark.parametrize("label", [-1, 10, 255])
def test_a_label_that_is_no_class_is_refused(label: int) -> None:
    images, labels = some_images(0, 8)
    labels[3] = label
    with pytest.raises(InputError, match=r"a label is not in 0\.\.9"):
        native.Engine(Run(Options("adam"), Split(images, labels), "cpu"))


@BUILT
@pytest.mark.parametrize("shape", [(8, 783), (8, 28, 28), (7, 784)])
def test_images_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    split = Split(np.zeros(shape, np.uint8), np.zeros(8, np.int64))
    with pytest.raises(InputError, match=r"images have shape .* expected \(N, 784\)"):
        native.Engine(Run(Options("adam"), split, "cpu"))


@BUILT
def test_images_of_another_type_are_refused() -> None:
    images, labels = some_images(0, 8)
    with pytest.raises(InputError, match="images are int64; expected uint8"):
        native.Engine(Run(Options("adam"), Split(images.astype(np.int64), labels), "cpu"))


@BUILT
@pytest.mark.parametrize(
    ("wanted", "hidden", "threads"),
    [("3", 50, 3), ("1", 50, 1), ("99", 50, 10), ("99", 1000, 64), ("8", 4, 1), ("8", 6, 2)],
)
def test_omp_num_threads_is_heeded_as_far_as_there_is_work(
    wanted: str, hidden: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", wanted)
    run = Run(Options("adam", hidden=hidden), some_images(0, 8), "cpu")
    assert native.Engine(run).threads == threads


@pytest.mark.parametrize("wanted", [None, "", "0", "-1", "4,2", "many"])
def test_without_a_number_there_is_a_thread_for_each_core(
    wanted: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if wanted is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", wanted)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert native._cores() == cores


@BUILT
@settings(max_examples=30)
@given(
    value=st.sampled_from([np.nan, np.inf, -np.inf]),
    name=st.sampled_from(["lin1.weight", "lin1.bias", "lin2.weight", "lin2.bias"]),
    data=st.data(),
)
def test_what_is_not_finite_shows_as_soon_as_in_layers(
    value: float, name: str, data: st.DataObject
) -> None:
    """Losses to 1e-11 in float64, as in test_engines, up to the first that is not finite."""
    losses = []
    at = data.draw(st.integers(0, 5))
    for engine in ("layers", "native"):
        run = Run(Options("adam", batch_size=9, hidden=6), some_images(0, 40), "cpu", np.float64)
        parameters = {name: array.copy() for name, array in run.model.state_dict().items()}
        parameters[name].flat[at] = value
        run.model.load_state_dict(parameters)
        made = engines.make(engine, run).advance(0, 4)
        losses.append([*itertools.takewhile(math.isfinite, made), math.nan])
    np.testing.assert_allclose(losses[1], losses[0], rtol=0, atol=1e-11)


@BUILT
def test_an_engine_forgets_what_was_not_finite() -> None:
    """Its padding too, once the run is back where it was."""
    run = Run(Options("adam", epochs=2, batch_size=9), some_images(0, 40), "cpu")
    engine, before = native.Engine(run), copy(run)
    losses = engine.advance(0, 3)
    for value in (np.nan, np.inf):
        state(run)[0][3] = value
        assert not np.isfinite(engine.advance(3, 6)).any()
        for array, values in zip(state(run), before, strict=True):
            array[:] = values
        run.optimizer.steps = [0] * len(run.optimizer.steps)
        assert engine.advance(0, 3) == losses
