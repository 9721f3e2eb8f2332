"""Each kernel compiles for each GPU within limits, and CuPy has what the engines ask of it.

No GPU is needed. NVRTC compiles for any, and what it makes of a kernel can be read: its figures,
and its PTX. What `scratchnet.engines.cuda` does with CuPy runs on a stand-in, of which a test shows
that it has nothing that CuPy lacks.
"""

from __future__ import annotations

import ctypes
import inspect
import itertools
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar
from unittest import mock

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks import kernels, report, results, tables
from benchmarks.kernels import Variant
from scratchnet import backend, engines
from scratchnet.engines import cuda, cuda_epoch, cuda_fused, cuda_graph
from scratchnet.engines.cuda_epoch import Layout
from scratchnet.training import Options, Run
from tests.test_training import some_images

WHY_NOT = kernels.why_not()
nvrtc = pytest.mark.skipif(WHY_NOT is not None, reason=f"{WHY_NOT}")

VARIANTS = [*kernels.variants()]
CLUSTERS = [v for v in VARIANTS if v.layout and v.layout.cluster]
TUTORIALS = [Layout(*form, 64, 784, 50, 10) for form in kernels.LAYOUTS]
KERNELS = {
    "fused.cu": ["hidden_layer", "head", "backward_and_adam"],
    "epoch.cu": ["gather", "train"],
}
THREADS = {"train": cuda_epoch.THREADS, "gather": cuda_epoch.THREADS}  # of a block; else of fused

# Of a multiprocessor: CUDA C++ Programming Guide, "Technical Specifications per Compute
# Capability". Each of its four parts has a quarter of the registers, and every fourth warp.
REGISTERS, PARTS = 65_536, 4


def each(variants: Sequence[Variant]) -> Any:
    return pytest.mark.parametrize("variant", variants, ids=str)


# ----------------------------------------------------------------------------------------- NVRTC


@nvrtc
@each(VARIANTS)
def test_a_kernel_compiles_without_a_warning(variant: Variant) -> None:
    made = kernels.compiled(variant)
    assert made.warnings == []
    assert [*made.usage] == KERNELS[variant.file]
    assert made.cubin.startswith(b"\x7fELF")


@nvrtc
@each(VARIANTS)
def test_a_block_finds_its_registers(variant: Variant) -> None:
    """They are dealt out to warps, 8 for each thread at a time."""
    for name, usage in kernels.compiled(variant).usage.items():
        warps = -(-THREADS.get(name, cuda_fused.THREADS) // cuda_fused.WARP)
        of_a_warp = -(-usage.registers // 8) * 8 * cuda_fused.WARP
        assert -(-warps // PARTS) * of_a_warp <= REGISTERS / PARTS


@nvrtc
@each(VARIANTS)
def test_hardly_anything_goes_into_local_memory(variant: Variant) -> None:
    """`train` alone may spill: with one tile a thread eight numbers, with two as much again as the
    moments of both, 2 x 2 x 16 numbers. Each is read at most twice."""
    for name, usage in kernels.compiled(variant).usage.items():
        limit = 0
        if variant.layout and name == "train":
            limit = 4 * {1: 8, 2: 2 * 2 * 2 * 16}[variant.layout.tiles]
        assert usage.stack <= limit
        assert usage.spill_stores <= limit
        assert usage.spill_loads <= 2 * limit


@nvrtc
@each(VARIANTS)
def test_shared_memory_is_what_python_computes(variant: Variant) -> None:
    """That it is struct Shared, the kernel asserts itself; nothing comes on top of it."""
    assert {usage.static_shared for usage in kernels.compiled(variant).usage.values()} == {0}


@nvrtc
def test_another_size_of_shared_memory_does_not_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Layout, "shared", TUTORIALS[0].shared + 4)
    with pytest.raises(RuntimeError, match="another size"):
        kernels.compiled.__wrapped__(Variant(90, TUTORIALS[0]))


@nvrtc
def test_more_classes_than_a_warp_sends_do_not_compile() -> None:
    """Four by each of its 32 lanes."""
    with pytest.raises(RuntimeError, match="four classes each"):
        kernels.compiled.__wrapped__(Variant(90, replace(TUTORIALS[0], classes=129)))


@pytest.mark.parametrize("architecture", kernels.SHARED)
def test_the_tutorials_network_fits_every_gpu(architecture: int) -> None:
    """Into its shared memory, and with it a form that is compiled for it."""
    fitting = [Variant(architecture, layout) for layout in TUTORIALS]
    fitting = [variant for variant in fitting if variant.fits]
    assert fitting
    assert set(fitting) <= set(VARIANTS)


def test_the_forms_are_the_engines() -> None:
    run = Run(Options("adam", batch_size=64, hidden=50), some_images(0, 64), "cpu")
    assert cuda_epoch.layouts(run) == TUTORIALS
    layouts = {variant.layout for variant in VARIANTS}
    assert {layout.tiles for layout in layouts if layout} == {1, cuda_epoch.MOST_TILES}


@nvrtc
@each(VARIANTS)
def test_no_sum_depends_on_who_comes_first(variant: Variant) -> None:
    """Nothing is added atomically but the count of blocks that have come to a grid's barrier."""
    found = re.findall(r"\b(?:atom|red)\.[\w.:]+", kernels.compiled(variant).ptx)
    is_grid = variant.layout is not None and not variant.layout.cluster
    assert bool(found) == is_grid
    assert all(re.fullmatch(r"atom(\.\w+)*\.add\.u32", instruction) for instruction in found)


@nvrtc
@each([variant for variant in VARIANTS if not variant.layout])
def test_pixels_are_read_as_bytes(variant: Variant) -> None:
    ptx = kernels.compiled(variant).ptx
    bytes_read = {
        name: len(re.findall(r"\bld\.global(\.\w+)*\.[us]8\b", entry(ptx, name)))
        for name in KERNELS["fused.cu"]
    }
    assert bytes_read["hidden_layer"]
    assert bytes_read["backward_and_adam"]
    assert not bytes_read["head"]


def entry(ptx: str, name: str) -> str:
    """A kernel's own part of the PTX."""
    (found,) = (part for part in ptx.split(".visible .entry ") if part.startswith(f"{name}("))
    return found


def loops(lines: Sequence[str]) -> list[range]:
    """From where each jump back leads to the jump. Whatever is repeated is in one of them."""
    assert not any("brx" in line for line in lines)  # a jump that may lead to several places
    labels = {line[:-1]: i for i, line in enumerate(lines) if re.fullmatch(r"\$\w+:", line)}
    jumps = [(i, re.search(r"\bbra(?:\.\w+)?\s+(\$\w+);", line)) for i, line in enumerate(lines)]
    spans = [range(labels[jump[1]], i + 1) for i, jump in jumps if jump]
    return [span for span in spans if span]


@nvrtc
@each(CLUSTERS)
def test_blocks_of_a_cluster_wait_for_bytes_only(variant: Variant) -> None:
    """They meet before the first update and after the last; in between they send four numbers at a
    time, and wait for those of the others."""
    assert variant.layout
    text = entry(kernels.compiled(variant).ptx, "train")
    lines = text.splitlines()
    repeated = loops(lines)

    def depths(instruction: str) -> list[int]:
        places = [i for i, line in enumerate(lines) if instruction in line]
        return [sum(place in span for span in repeated) for place in places]

    assert f".reqnctapercluster {variant.layout.blocks}, 1, 1" in text
    assert depths("barrier.cluster.arrive") == [0, 0]
    assert depths("barrier.cluster.wait") == [0, 0]
    assert not re.search(r"\b(membar|fence)\.(?!mbarrier_init)", text)
    waits = depths("mbarrier.try_wait")
    assert len(waits) >= 2
    assert min(waits) >= 2  # a wait is a loop, in that of the updates
    assert min(depths("st.async")) >= 1
    assert all(send.endswith(".v4.f32") for send in re.findall(r"\bst\.async\S*", text))


@nvrtc
@each(CLUSTERS)
def test_labels_are_read_before_the_wait_that_forgets_the_cache(variant: Variant) -> None:
    """They are the only 32-bit integers that train takes from global memory."""
    text = entry(kernels.compiled(variant).ptx, "train")
    before, _, after = text.partition("mbarrier.try_wait")
    label = r"\bld\.(global\.)?[bsu]32\b"
    assert re.search(label, before)
    assert not re.search(label, after)


@nvrtc
@each(VARIANTS)
def test_figures_are_as_recorded(variant: Variant) -> None:
    """Of the same compiler. If the kernels have changed: python -m benchmarks.kernels"""
    record = results.read(kernels.FILE)
    if record["nvrtc"] != kernels.version():
        pytest.skip(f"the record is of NVRTC {record['nvrtc']}, this is {kernels.version()}")
    assert kernels.figures(variant) in record["variants"]


def test_the_record_is_complete() -> None:
    record = results.read(kernels.FILE)
    recorded = [
        (v["file"], v["form"], v["batch"], v["units"], v["architecture"])
        for v in record["variants"]
    ]
    assert recorded == [
        (v.file, v.form, *((x.batch, x.units) if (x := v.layout) else (None, 50)), v.architecture)
        for v in VARIANTS
    ]
    assert record["options"] == [*kernels.OPTIONS]


@nvrtc
def test_the_command_records_them(tmp_path: Path) -> None:
    file = tmp_path / "kernels.json"
    done = CliRunner().invoke(kernels.main, ["--out", str(file)], catch_exceptions=False)
    assert done.exit_code == 0
    found = results.read(file)
    assert found["variants"] == [kernels.figures(variant) for variant in VARIANTS]
    assert tables.table(found) in done.output


def test_the_table_has_the_tutorials_kernels() -> None:
    usage = {"registers": 128, "spill_stores": 24}
    variants = [
        {
            "file": "epoch.cu", "form": form, "batch": batch, "units": 50, "architecture": sm,
            "fits": sm == 90, "shared": 2048, "cubin": 9, "kernels": {"train": usage},
        }
        for form, batch, sm in itertools.product(("grid of 16", "cluster of 8"), (64, 1), (90, 120))
    ]  # fmt: skip
    del variants[1]  # the first form, batch 64, at sm_120
    record = {
        "experiment": "kernels", "command": "python -m benchmarks.kernels", "variants": variants,
        "date": "2026-01-02T03:04:05+00:00", "nvrtc": "13.0.1",
    }  # fmt: skip
    text = report.updated("<!-- benchmarks: kernels -->\n<!-- end -->", {"kernels": record})
    lines = text.splitlines()
    assert lines[1] == "| kernel | shared, KiB | sm_90 | sm_120 |"
    assert set(lines[3:5]) == {
        "| `train`, grid of 16 | 2.00 | 128 + 24 | - |",
        "| `train`, cluster of 8 | 2.00 | 128 + 24 | too large |",
    }
    assert lines[-2] == "NVRTC 13.0.1, 2026-01-02. `python -m benchmarks.kernels`"


def test_what_is_missing_is_told() -> None:
    def fail() -> None:
        raise RuntimeError("no such\nlibrary")

    without_library = SimpleNamespace(nvrtc=SimpleNamespace(nvrtcVersion=fail))
    for bindings, message in (
        (None, "cuda-bindings can't be imported"),
        (without_library, "NVRTC is not found (no such library); install nvidia-cuda-nvrtc"),
    ):
        with mock.patch.dict(sys.modules, {"cuda": ModuleType("cuda"), "cuda.bindings": bindings}):
            assert f"{kernels.why_not.__wrapped__()}".startswith(message)


# ------------------------------------------------------------------- a stand-in for CuPy's half
#
# Only what `cuda` uses, with the parameters that it uses. It computes nothing, notes what is
# launched, and refuses what a GPU refuses.


class CUDADriverError(RuntimeError):
    pass


class CUDARuntimeError(RuntimeError):
    pass


@dataclass
class Launch:
    kernel: str
    blocks: int
    threads: int
    shared: int
    arguments: np.void
    cooperative: bool


@dataclass
class Gpu:
    """What it has, and what it was given to do."""

    capability: str = "90"
    multiprocessors: int = 132
    shared: int = 227 << 10
    largest_cluster: int = 16
    launches: list[Launch] = field(default_factory=list)
    modules: list[RawModule] = field(default_factory=list)
    large_clusters: set[int] = field(default_factory=set)  # functions that may have them
    streams: list[Stream] = field(default_factory=list)  # the last is the current one
    graphs: list[Graph] = field(default_factory=list)  # each as often as it was launched
    failing: set[int] = field(default_factory=set)  # launches of so many blocks fail when run

    current: ClassVar[Gpu]


class RawModule:
    def __init__(
        self,
        *,
        code: str,
        options: tuple[str, ...] = (),
        enable_cooperative_groups: bool = False,
    ) -> None:
        self.code, self.options = code, options
        self.enable_cooperative_groups = enable_cooperative_groups
        Gpu.current.modules.append(self)

    def get_function(self, name: str) -> RawKernel:
        return RawKernel(self, name)


class Function:
    def __init__(self, ptr: int) -> None:
        self.ptr = ptr


class RawKernel:
    def __init__(self, module: RawModule, name: str) -> None:
        self.name = name
        self.options = module.options
        self.enable_cooperative_groups = module.enable_cooperative_groups
        self.kernel = Function(id(self))
        self.max_dynamic_shared_size_bytes = 48 << 10

    def __call__(
        self,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        args: tuple[Any, ...],
        *,
        shared_mem: int = 0,
    ) -> None:
        gpu = Gpu.current
        (blocks,), (threads,), (arguments,) = grid, block, args
        assert isinstance(arguments, np.void)
        cooperative = self.enable_cooperative_groups
        if shared_mem > self.max_dynamic_shared_size_bytes:
            raise CUDADriverError("CUDA_ERROR_INVALID_VALUE: invalid argument")
        if self._cluster() > (gpu.largest_cluster if self.kernel.ptr in gpu.large_clusters else 8):
            raise CUDADriverError("CUDA_ERROR_INVALID_CLUSTER_SIZE: invalid cluster size")
        # cupy/cuda/function.pyx, _launch. How many blocks a multiprocessor takes is a guess here.
        together = gpu.multiprocessors * (1 if shared_mem else 2048 // threads)
        if cooperative and blocks > together:
            warnings.warn(
                f"The grid size will be reduced from {blocks} to {together}, as the specified grid "
                "size exceeds the limit.",
                stacklevel=2,
            )
        launch = Launch(self.name, blocks, threads, shared_mem, arguments, cooperative)
        captured = gpu.streams[-1]._captured if gpu.streams else None
        (gpu.launches if captured is None else captured).append(launch)

    def _cluster(self) -> int:
        constants = dict(option.removeprefix("-D").split("=") for option in self.options)
        in_clusters = self.name == "train" and constants.get("CLUSTER") == "1"
        return int(constants["BLOCKS"]) if in_clusters else 1


class Stream:
    def __init__(self, *, non_blocking: bool = False) -> None:
        self._captured: list[Launch] | None = None

    def __enter__(self) -> Stream:
        Gpu.current.streams.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        assert Gpu.current.streams.pop() is self

    def synchronize(self) -> None:
        if Gpu.current.launches[-1].blocks in Gpu.current.failing:
            raise CUDARuntimeError("cudaErrorLaunchFailure: unspecified launch failure")

    def begin_capture(self) -> None:
        assert self is Gpu.current.streams[-1]
        self._captured = []

    def end_capture(self) -> Graph:
        assert self._captured is not None
        graph, self._captured = Graph(self._captured), None
        return graph


class Graph:
    def __init__(self, captured: list[Launch]) -> None:
        self._captured = captured

    def launch(self) -> None:
        assert not Gpu.current.streams
        Gpu.current.launches += self._captured
        Gpu.current.graphs.append(self)


class Device:
    @property
    def attributes(self) -> dict[str, int]:
        return {
            "MaxSharedMemoryPerBlockOptin": Gpu.current.shared,
            "MultiProcessorCount": Gpu.current.multiprocessors,
        }

    @property
    def compute_capability(self) -> str:
        return Gpu.current.capability


def funcSetAttribute(f: int, attribute: int, value: int) -> None:
    assert (attribute, value) == (14, 1)
    Gpu.current.large_clusters.add(f)


def get_current_stream() -> Stream:
    return Gpu.current.streams[-1] if Gpu.current.streams else Stream()


driver = SimpleNamespace(CUDADriverError=CUDADriverError, funcSetAttribute=funcSetAttribute)
STAND_IN = SimpleNamespace(
    RawModule=RawModule,
    cuda=SimpleNamespace(
        Stream=Stream,
        Device=Device,
        get_current_stream=get_current_stream,
        driver=driver,
        runtime=SimpleNamespace(CUDARuntimeError=CUDARuntimeError),
    ),
)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gpu]:
    """With CuPy's launching and capturing, while arrays are NumPy's."""
    modules = {"cupy": STAND_IN, "cupy_backends.cuda.api.driver": driver}
    monkeypatch.setattr(cuda, "DEVICE", "cpu")
    monkeypatch.setattr(backend, "why_no_gpu", lambda: None)
    monkeypatch.setattr(Gpu, "current", Gpu(), raising=False)
    with mock.patch.dict(sys.modules, modules):
        yield Gpu.current


@pytest.fixture
def cupy() -> Any:
    """CuPy itself, which can be looked at without a GPU. To be asked for before the stand-in."""
    return pytest.importorskip("cupy")


def parameters(function: Any) -> set[str]:
    """The names of a function's parameters, which Cython puts into its docstring."""
    try:
        return set(inspect.signature(function).parameters)
    except ValueError:
        lists = re.findall(r"^[\w.]+\((.*)\)$", function.__doc__, re.MULTILINE)
    declared = [one.split("=")[0].split() for one in ",".join(lists).split(",")]
    return {words[-1] for words in declared if words}


def test_cupy_has_all_that_the_stand_in_has(cupy: Any, gpu: Gpu) -> None:
    kernel = RawModule(code="").get_function("head")
    for mine, real in (
        (gpu.modules[0], cupy.RawModule),
        (kernel, cupy.RawKernel),
        (kernel.kernel, cupy.cuda.function.Function),
        (Stream(), cupy.cuda.Stream),
        (Graph([]), cupy.cuda.Graph),
        (Device(), cupy.cuda.Device),
    ):
        names = {name for name in (*vars(mine), *vars(type(mine))) if not name.startswith("_")}
        assert names <= {*dir(real)}
        for name in names:
            method = getattr(type(mine), name, None)
            if inspect.isfunction(method):
                assert parameters(method) <= parameters(getattr(real, name)), name


def test_cupy_takes_the_arguments_that_the_stand_in_takes(cupy: Any) -> None:
    api = pytest.importorskip("cupy_backends.cuda.api.driver")
    for mine, real in (
        (RawModule, cupy.RawModule),
        (RawKernel.__call__, cupy.RawKernel.__call__),
        (Stream, cupy.cuda.Stream),
        (funcSetAttribute, api.funcSetAttribute),
        (get_current_stream, cupy.cuda.get_current_stream),
    ):
        assert parameters(mine) <= parameters(real)
    assert cupy.cuda.driver.CUDADriverError is api.CUDADriverError
    assert issubclass(cupy.cuda.runtime.CUDARuntimeError, RuntimeError)
    assert {"__enter__", "__exit__"} <= {*dir(cupy.cuda.Stream)}
    assert "Can be set" in cupy.RawKernel.max_dynamic_shared_size_bytes.__doc__


def test_cupy_makes_a_module_of_a_program(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """And waits with compiling it, for which it would need a GPU."""
    monkeypatch.setattr(backend, "why_no_gpu", lambda: None)
    module = cuda.Program("epoch.cu", TUTORIALS[2].constants(), cooperative=True).module
    assert isinstance(module, cupy.RawModule)
    assert module.enable_cooperative_groups


def test_cupy_knows_the_attributes_of_the_stand_ins_gpu(gpu: Gpu) -> None:
    """Those of the CUDA runtime, without cudaDevAttr, says the docstring of Device.attributes."""
    runtime = pytest.importorskip("cupy_backends.cuda.api.runtime")
    assert {f"cudaDevAttr{name}" for name in Device().attributes} <= {*vars(runtime)}


def test_the_attribute_for_large_clusters_is_cudas() -> None:
    attributes = pytest.importorskip("cuda.bindings.driver").CUfunction_attribute
    theirs = attributes.CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED
    assert int(theirs) == cuda.NON_PORTABLE_CLUSTER_SIZE


def test_options_are_those_that_cupy_compiles_with(
    cupy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked of CuPy's own code, up to where it would call NVRTC."""
    if not cupy.__version__.startswith("14."):
        pytest.skip(f"looks into CuPy 14, and this is {cupy.__version__}")
    compiler, given = cupy.cuda.compiler, list[str]()

    class Found(Exception):
        pass

    class Program:
        def __init__(self, *_: object, **__: object) -> None: ...

        def compile(self, options: tuple[str, ...], log_stream: object) -> None:
            given.extend(options)
            raise Found

    architecture = ("-arch=sm_90", "cubin")
    monkeypatch.setattr(compiler, "_get_arch", lambda: "90")
    monkeypatch.setattr(compiler, "_get_arch_for_options_for_nvrtc", lambda arch: architecture)
    monkeypatch.setattr(compiler, "_preprocess", lambda *_: "")
    monkeypatch.setattr(compiler, "_NVRTCProgram", Program)
    with pytest.raises(Found):
        cupy._core.core.compile_with_cache(
            cuda.source("fused.cu"), ("-DREAL=float",), prepend_cupy_headers=False
        )
    headers = [option for option in given if option.startswith("-I")]
    assert sorted(set(given) - set(headers)) == sorted(
        ["-DREAL=float", *kernels.OPTIONS, "-arch=sm_90"]
    )
    assert "#include" not in cuda.source("fused.cu") + cuda.source("epoch.cu")


def test_cupy_passes_a_struct_by_value() -> None:
    """A NumPy scalar is copied to where the driver takes a parameter from."""
    scalar = pytest.importorskip("cupy._core._scalar")
    inner = cuda.struct(beta=np.float64(0.9), renew=np.int32(1))
    outer = cuda.struct(p=np.arange(3), batch=np.int32(64), optimizer=inner, scale=np.float32(0.5))
    passed = scalar.CScalar(outer)
    there = np.frombuffer(ctypes.string_at(passed.ptr, outer.nbytes), outer.dtype)
    assert there[0] == outer
    assert there["optimizer"]["beta"] == 0.9


# -------------------------------------------------------------------- what the engines ask of it

FUSED: dict[str, int | str] = {"REAL": "float", "INPUTS": 784, "UNITS": 50, "CLASSES": 10}
ONE = cuda.struct(number=np.int32(1))


def test_a_program_is_one_text_and_its_constants(gpu: Gpu) -> None:
    cuda.Program("fused.cu", FUSED)
    cuda.Program("epoch.cu", TUTORIALS[2].constants(), cooperative=True)
    fused, epoch = gpu.modules
    assert fused.code == cuda.source("fused.cu")
    assert fused.options == ("-DREAL=float", "-DINPUTS=784", "-DUNITS=50", "-DCLASSES=10")
    assert f"-DSHARED_BYTES={TUTORIALS[2].shared}" in epoch.options
    assert not fused.enable_cooperative_groups
    assert epoch.enable_cooperative_groups


def test_a_launch_passes_one_struct(gpu: Gpu) -> None:
    program = cuda.Program("fused.cu", FUSED)
    program.launch("head", ONE, blocks=3, threads=128)
    program.launch("head", ONE, blocks=4, threads=64)
    assert gpu.launches == [
        Launch("head", 3, 128, 0, ONE, False),
        Launch("head", 4, 64, 0, ONE, False),
    ]
    assert [*program.functions] == ["head"]


def test_much_shared_memory_is_asked_for_before_the_launch(gpu: Gpu) -> None:
    program = cuda.Program("fused.cu", FUSED)
    for shared in (48 << 10, (48 << 10) + 16, 100_000):
        program.launch("head", ONE, blocks=1, threads=32, shared=shared)
        assert gpu.launches[-1].shared == shared


def test_what_the_gpu_refuses_is_not_launched(gpu: Gpu) -> None:
    program = cuda.Program("epoch.cu", TUTORIALS[0].constants())
    launch = {"blocks": 16, "threads": 416, "shared": TUTORIALS[0].shared}
    with pytest.raises(cuda.NotLaunched, match=r"train with 16 blocks: .*CLUSTER") as caught:
        program.launch("train", ONE, **launch)
    assert isinstance(caught.value.__cause__, CUDADriverError)
    program.allow_large_clusters("train")
    program.launch("train", ONE, **launch)
    assert len(gpu.launches) == 1


def test_a_form_that_fails_while_it_runs_gives_way_to_the_next(gpu: Gpu) -> None:
    gpu.failing = {16}
    assert cuda_epoch.Fleet([run_of(1)]).layout == TUTORIALS[1]
    assert [launch.blocks for launch in gpu.launches] == [16, 8]
    gpu.failing = {8, 16}
    with pytest.raises(cuda.NotLaunched, match="cudaErrorLaunchFailure") as caught:
        cuda_epoch.Fleet([run_of(1)])
    assert isinstance(caught.value.__cause__, CUDARuntimeError)


def test_a_capture_runs_nothing_and_its_graph_all_of_it(gpu: Gpu) -> None:
    program = cuda.Program("fused.cu", FUSED)

    def work() -> None:
        assert gpu.streams
        for kernel in KERNELS["fused.cu"]:
            program.launch(kernel, ONE, blocks=1, threads=32)

    replay = cuda.capture(work)
    assert gpu.launches == []
    replay()
    replay()
    assert [launch.kernel for launch in gpu.launches] == 2 * KERNELS["fused.cu"]


def test_an_address_is_where_numbers_begin() -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert cuda.address(array[1]) == cuda.address(array) + 16
    there: Any = SimpleNamespace(data=SimpleNamespace(ptr=4096))
    assert cuda.address(there) == 4096


@pytest.mark.parametrize(
    ("capability", "clusters"),
    [("75", False), ("80", False), ("89", False), ("90", True), ("100", True), ("120", True)],
)
def test_limits_are_the_gpus(capability: str, clusters: bool, gpu: Gpu) -> None:
    gpu.capability = capability
    assert cuda.limits() == cuda.Limits(clusters, 227 << 10, 132)


def run_of(updates: int) -> Run:
    """At batch 64, the last of which has one image."""
    return Run(Options("adam"), some_images(0, 64 * updates - 63), "cpu")


def advance(name: str, updates: int) -> list[float]:
    return engines.make(name, run_of(updates)).advance(0, updates)


def test_fused_launches_three_kernels_an_update(gpu: Gpu) -> None:
    assert len(advance("cuda_fused", 5)) == 5
    assert [launch.kernel for launch in gpu.launches] == 5 * KERNELS["fused.cu"]
    threads = {launch.kernel: launch.blocks * launch.threads for launch in gpu.launches}
    assert threads["hidden_layer"] >= 16 * 13 * 32  # tiles of 4 samples and 4 units, a warp each
    assert threads["head"] >= 64 * 32
    assert threads["backward_and_adam"] >= 39_760


def test_a_graph_repeats_what_fused_launches(gpu: Gpu) -> None:
    updates = 2 * cuda_graph.Engine.UPDATES + 6
    engine = engines.make("cuda_graph", run_of(2 * updates))
    engine.advance(0, updates)
    assert [launch.kernel for launch in gpu.launches] == updates * KERNELS["fused.cu"]
    engine.advance(updates, 2 * updates)
    assert [launch.kernel for launch in gpu.launches] == 2 * updates * KERNELS["fused.cu"]
    assert len(gpu.graphs) == 4
    assert len({*gpu.graphs}) == 1
    arguments = {launch.arguments.tobytes() for launch in gpu.launches}
    assert len(arguments) == 1


@dataclass(frozen=True)
class Expected:
    """A kind of GPU, and the form of `train` that it takes."""

    capability: str
    multiprocessors: int
    shared: int
    largest_cluster: int
    layout: Layout


KINDS = (
    Expected("90", 132, 227 << 10, 16, TUTORIALS[0]),
    Expected("90", 132, 227 << 10, 8, TUTORIALS[1]),
    Expected("120", 70, 99 << 10, 8, TUTORIALS[2]),
    Expected("80", 108, 163 << 10, 0, TUTORIALS[2]),
    Expected("75", 40, 64 << 10, 0, TUTORIALS[2]),
)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"sm_{kind.capability} {kind.layout}")
def test_epoch_is_one_launch_in_the_fastest_form_that_the_gpu_takes(
    kind: Expected, gpu: Gpu
) -> None:
    """After one of no updates, to see whether it does. Of blocks that wait for one another across a
    grid there are never more than run at once; CuPy would launch fewer, with a warning."""
    gpu.capability, gpu.multiprocessors = kind.capability, kind.multiprocessors
    gpu.shared, gpu.largest_cluster = kind.shared, kind.largest_cluster
    assert len(advance("cuda_epoch", 70)) == 70
    trial, gather, train = gpu.launches
    assert [trial.kernel, gather.kernel, train.kernel] == ["train", "gather", "train"]
    assert [launch.arguments["updates"] for launch in gpu.launches] == [0, 70, 70]
    assert (train.blocks, train.threads) == (kind.layout.blocks, 416)
    assert train.shared == kind.layout.shared
    assert train.cooperative == (not kind.layout.cluster)
    chunks = 70 * kind.layout.blocks * kind.layout.slice * (kind.layout.n // 16)
    assert gather.blocks * gather.threads >= chunks


def test_epochs_longer_than_there_is_room_for_are_several_launches(
    gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_epoch, "UPDATES", 30)
    assert len(advance("cuda_epoch", 70)) == 70
    trains = [launch for launch in gpu.launches if launch.kernel == "train"]
    assert [launch.arguments["updates"] for launch in trains] == [0, 30, 30, 10]
    assert [launch.arguments["samples"] for launch in trains] == [0, 1920, 1920, 9 * 64 + 1]


@nvrtc
@pytest.mark.parametrize("name", ["cuda_fused", "cuda_epoch"])
def test_the_struct_is_as_large_as_the_kernel_takes_it(name: str, gpu: Gpu) -> None:
    advance(name, 2)
    layout = TUTORIALS[0] if name == "cuda_epoch" else None
    ptx = kernels.compiled(Variant(90, layout)).ptx
    for launch in gpu.launches:
        (size,) = re.findall(rf"\.b8 {launch.kernel}_param_0\[(\d+)\]", entry(ptx, launch.kernel))
        assert launch.arguments.nbytes == int(size)
