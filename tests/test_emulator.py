"""The emulator of CUDA kernels: it computes what a GPU would, and it catches each crime.

Numbers are small integers, whose sums and products are exact in any order, so results must be equal
to the last bit.
"""

from __future__ import annotations

import functools
import re
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pytest

from scratchnet.engines import cuda
from tests.cuda import emulator
from tests.cuda.emulator import KernelError, NotBuilt, Program, settings

Array: TypeAlias = npt.NDArray[Any]

WHY_NOT = emulator.why_not()
pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))

SEEDS = range(12)  # each schedule four times, and in half of them stores are late
BLOCKS = 4  # of a group
REALS = {"float32": "float", "float64": "double", "int32": "int"}

REAL_CUH = """
typedef REAL real;
constexpr unsigned ALL_LANES = 0xffffffffu;
"""

SUMS_CU = """
#include "ptx.cuh"
#include "real.cuh"

struct Args {
    const real *x;
    real *y;
    int n;
};

struct Shared {
    real x[96];
};

// y[block]: the sum of the block's n numbers, a pair at a time.
extern "C" __global__ void block_sum(Args a)
{
    SHARED(Shared, s);
    const int i = threadIdx.x;
    s.x[i] = a.x[blockIdx.x * a.n + i];
    __syncthreads();    // all are there
    for (int left = a.n; left > 1; left = (left + 1) / 2) {
        const int half = (left + 1) / 2;
        if (i + half < left)
            s.x[i] += s.x[i + half];
        __syncthreads();    // all pairs are done
    }
    if (i == 0)
        a.y[blockIdx.x] = s.x[0];
}

// y[i]: the sum over the lanes of its warp.
extern "C" __global__ void warp_sum(Args a)
{
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    real x = a.x[i];
#pragma unroll
    for (int lanes = 16; lanes; lanes /= 2)
        x += __shfl_xor_sync(ALL_LANES, x, lanes);
    __syncwarp();
    a.y[i] = x;
}

// y[i]: x of the lane that is n further on, around the warp.
extern "C" __global__ void rotate(Args a)
{
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    a.y[i] = __shfl_sync(ALL_LANES, a.x[i], threadIdx.x + a.n);
}
"""

GROUPS_CU = """
#include "ptx.cuh"

struct Args {
    const float *x;
    float *y;
    float *board;         // (groups, 2, BLOCKS)
    unsigned *counters;
    int n;
};

struct Shared {
    float ones[2][BLOCKS];
    float4 fours[2][BLOCKS];
    Mbarrier arrived[2];
};

// In each of n rounds all blocks of a group exchange their numbers, and each makes a new one.
extern "C" __global__ void __cluster_dims__(BLOCKS, 1, 1) __launch_bounds__(64, 1) exchange(Args a)
{
    SHARED(Shared, s);
    const int rank = cluster_rank(), i = threadIdx.x;
    float x = a.x[blockIdx.x];
    if (i < 2)
        mbarrier_init(&s.arrived[i]);
    cluster_sync();    // all are ready to receive
    for (int t = 0; t < a.n; ++t) {
        // With one for all rounds, the next round's first bytes could pass for this one's last.
        Mbarrier *arrived = &s.arrived[t % 2];
        const int parity = t / 2 % 2;
        if (i < BLOCKS) {
            store_async(&s.ones[t % 2][rank], i, x, arrived);
            store_async(&s.fours[t % 2][rank].x, i, make_float4(1, x, 3, 4 * x), arrived);
        }
        if (i == 63)
            mbarrier_expect(arrived, BLOCKS * 20);
        mbarrier_wait(arrived, parity);
        int sum = rank;
        for (int from = 0; from < BLOCKS; ++from) {
            const float4 four = s.fours[t % 2][from];
            sum += (from + 1) * (s.ones[t % 2][from] + four.x + four.y + four.z + four.w);
        }
        x = sum % 97;
        __syncthreads();    // all have read
    }
    if (i == 40)
        a.y[blockIdx.x] = x;
}

// The same through global memory.
extern "C" __global__ void grid_exchange(Args a)
{
    const int rank = blockIdx.x % BLOCKS, group = blockIdx.x / BLOCKS;
    float x = a.x[blockIdx.x];
    for (int t = 0; t < a.n; ++t) {
        float *board = a.board + (2 * group + t % 2) * BLOCKS;
        if (threadIdx.x == 0)
            __stcg(board + rank, x);
        grid_sync(a.counters + group);
        int sum = rank;
        for (int from = 0; from < BLOCKS; ++from)
            sum += (from + 1) * (6 * __ldcg(board + from) + 4);
        x = sum % 97;
    }
    if (threadIdx.x == 40)
        a.y[blockIdx.x] = x;
}
"""

WORDS_CU = """
#include "ptx.cuh"

struct Inner {
    double scale;
    int shift;
};

struct Mixed {
    unsigned char small;
    Inner inner;
    float *y;
    short n;
};

// Each thread has a copy of its own.
extern "C" __global__ void by_value(Mixed a)
{
    a.n += threadIdx.x;
    a.inner.scale *= 2;
    a.y[blockIdx.x * blockDim.x + threadIdx.x] = a.inner.scale * a.n + a.inner.shift - a.small;
}

struct Args {
    const float *x;
    double *y;
};

__constant__ const float TABLE[] = {5, 7};
__host__ __device__ constexpr int twice(int n) { return 2 * n; }

static_assert(sizeof(exp(1.0f) + log(1.0f) + sqrt(1.0f) + fma(1.0f, 1.0f, 1.0f)) == 4, "float");
static_assert(sizeof(fabs(1.0f) + min(1.0f, 2.0f) + max(1.0f, 2.0f)) == 4, "float");
static_assert(sizeof(exp(1.0)) == 8 && sizeof(fma(1.0, 1.0, 1.0)) == 8, "double");
static_assert(sizeof(float4) == 16 && sizeof(uint4) == 16 && sizeof(uchar4) == 4, "sizes");
static_assert(sizeof(Mbarrier) == 8 && alignof(float4) == 16 && alignof(Mbarrier) == 8, "sizes");

extern "C" __global__ void arithmetic(Args a)
{
    const float x = a.x[0], nan = a.x[1], z = a.x[2];
    a.y[0] = fmaf(x, x, -x) - fma(x, x, -x);
    a.y[1] = fma(x, x, -(x * x));
    a.y[2] = z * z - x;    // not one instruction, as NVRTC has it with -fmad=false
    a.y[3] = min(nan, x) + max(x, nan);
    a.y[4] = min(2, 3) + max(2u, 3u) + min(0.5, 0.25);
    a.y[5] = expf(0.0f) + logf(1.0f) + sqrtf(4.0f) + TABLE[1] + twice(gridDim.x);
    a.y[6] = make_uint4(1, 2, 3, 4).w + make_float4(1, 2, 3, 4).z;
}
"""

# Each kernel commits what it is named after.
CRIMES_CU = """
#include "ptx.cuh"

struct Args {
    float *y;
    unsigned *counters;
    int n;
};

struct Shared {
    Mbarrier arrived;
    float x[2][8];    // the last, which compilers take for one of any size unless told not to
};

constexpr unsigned ALL_LANES = 0xffffffffu;

__device__ __forceinline__ void prepare(Shared &s)
{
    if (threadIdx.x == 0)
        mbarrier_init(&s.arrived);
    cluster_sync();
}

extern "C" __global__ void ended_before_barrier(Args a)
{
    if (threadIdx.x == 5 && blockIdx.x == 0)
        return;
    __syncthreads();
}

extern "C" __global__ void two_barriers(Args a)
{
    if (threadIdx.x < 32)
        __syncthreads();
    else
        __syncthreads();
}

extern "C" __global__ void ended_before_shuffle(Args a)
{
    if (threadIdx.x == 37)
        return;
    a.y[threadIdx.x] = __shfl_xor_sync(ALL_LANES, 1.0f, 1);
}

extern "C" __global__ void elsewhere(Args a)
{
    if (threadIdx.x == 37)
        __syncthreads();
    else
        a.y[threadIdx.x] = __shfl_sync(ALL_LANES, 1.0f, 1);
}

extern "C" __global__ void two_shuffles(Args a)
{
    if (threadIdx.x % 32 < 16)
        a.y[threadIdx.x] = __shfl_sync(ALL_LANES, 1.0f, 1);
    else
        a.y[threadIdx.x] = __shfl_sync(ALL_LANES, 1.0f, 1);
}

extern "C" __global__ void half_a_mask(Args a) { __syncwarp(0xffff); }

extern "C" __global__ void not_initialized(Args a)
{
    SHARED(Shared, s);
    cluster_sync();
    store_async(&s.x[0][0], 1, 1.0f, &s.arrived);
}

extern "C" __global__ void initialized_twice(Args a)
{
    SHARED(Shared, s);
    prepare(s);
    if (threadIdx.x == 1)
        mbarrier_init(&s.arrived);
}

extern "C" __global__ void expected_twice(Args a)
{
    SHARED(Shared, s);
    prepare(s);
    mbarrier_expect(&s.arrived, 4);
}

extern "C" __global__ void written_over(Args a)
{
    SHARED(Shared, s);
    prepare(s);
    *(float *)&s.arrived = 1;
    mbarrier_wait(&s.arrived, 0);
}

extern "C" __global__ void not_shared(Args a)
{
    SHARED(Shared, s);
    prepare(s);
    store_async(&s.x[0][0] + a.n, 1, 1.0f, &s.arrived);
}

extern "C" __global__ void misaligned(Args a)
{
    SHARED(Shared, s);
    prepare(s);
    store_async(&s.x[0][1], 1, make_float4(1, 2, 3, 4), &s.arrived);
}

extern "C" __global__ void no_such_block(Args a)
{
    SHARED(Shared, s);
    prepare(s);
    store_async(&s.x[0][0], 4, 1.0f, &s.arrived);
}

extern "C" __global__ void no_such_parity(Args a)
{
    SHARED(Shared, s);
    prepare(s);
    mbarrier_wait(&s.arrived, 2);
}

extern "C" __global__ void missed_a_phase(Args a)
{
    SHARED(Shared, s);
    prepare(s);
    if (threadIdx.x == 0) {
        mbarrier_expect(&s.arrived, 0);
        mbarrier_expect(&s.arrived, 0);
    }
    if (threadIdx.x == 32)
        mbarrier_wait(&s.arrived, 0);
}

// Each block sends a number to the next, and expects n bytes.
extern "C" __global__ void wrong_expectation(Args a)
{
    SHARED(Shared, s);
    prepare(s);
    if (threadIdx.x == 0) {
        store_async(&s.x[0][0], (cluster_rank() + 1) % BLOCKS, 1.0f, &s.arrived);
        mbarrier_expect(&s.arrived, a.n);
    }
    mbarrier_wait(&s.arrived, 0);
    cluster_sync();
}

extern "C" __global__ void nobody_waits(Args a)
{
    SHARED(Shared, s);
    prepare(s);
    if (threadIdx.x == 0) {
        store_async(&s.x[0][0], (cluster_rank() + 1) % BLOCKS, 1.0f, &s.arrived);
        mbarrier_expect(&s.arrived, a.n);
    }
    cluster_sync();
}

extern "C" __global__ void into_ended_block(Args a)
{
    SHARED(Shared, s);
    prepare(s);
    if (cluster_rank() == 0)
        store_async(&s.x[0][0], 1, 1.0f, &s.arrived);
}

extern "C" __global__ void wait_for_grid(Args a)
{
    grid_sync(a.counters + a.n * (blockIdx.x / BLOCKS));
}

extern "C" __global__ void two_counters(Args a) { grid_sync(a.counters + blockIdx.x % 2); }

extern "C" __global__ void wait_for_cluster(Args a) { cluster_sync(); }

// Not a crime if the launch gives enough.
extern "C" __global__ void shared_memory(Args a)
{
    SHARED(Shared, s);
    const float *x = &s.x[0][0];
    a.y[blockIdx.x * 16 + threadIdx.x] = x[threadIdx.x];
    s.x[threadIdx.x / 8][threadIdx.x % 8] = 1;
}

extern "C" __global__ void out_of_row(Args a)
{
    SHARED(Shared, s);
    s.x[0][a.n] = 1;    // out of row
}

extern "C" __global__ void past_array(Args a)
{
    a.y[a.n] = 1;    // past array
}

extern "C" __global__ void past_shared_memory(Args a)
{
    SHARED(Shared, s);
    float *x = (float *)&s;
    x[a.n] = 1;    // past shared memory
}

// y: the numbers of the threads, in the order in which they run.
extern "C" __global__ void order(Args a)
{
    a.y[(*a.counters)++] = blockIdx.x * blockDim.x + threadIdx.x;
}

// y: after how many barriers a store has arrived, of n.
extern "C" __global__ void delay(Args a)
{
    SHARED(Shared, s);
    prepare(s);
    s.x[0][0] = 0;
    __syncthreads();
    if (threadIdx.x == 0) {
        store_async(&s.x[0][0], cluster_rank(), 1.0f, &s.arrived);
        mbarrier_expect(&s.arrived, 4);
    }
    int barriers = 0;
    for (int i = 0; i < a.n; ++i) {
        __syncthreads();
        barriers += s.x[0][0] == 0;
    }
    mbarrier_wait(&s.arrived, 0);
    a.y[blockIdx.x] = barriers;
}
"""

FILES = {
    "real.cuh": REAL_CUH,
    "sums.cu": SUMS_CU,
    "groups.cu": GROUPS_CU,
    "words.cu": WORDS_CU,
    "crimes.cu": CRIMES_CU,
}
SHARED_BYTES = 8 + 16 * 4  # of the struct in CRIMES_CU


def build(
    file: str, old: str = "", new: str = "", cooperative: bool = False, **constants: Any
) -> Program:
    """One of FILES as a program, with a piece of it replaced."""
    text = FILES[file]
    assert not old or text.count(old) == 1
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "real.cuh").write_text(REAL_CUH)
        path = Path(folder, file)
        path.write_text(text.replace(old, new))
        return Program(str(path), constants, cooperative)


def arguments(**values: Array | int) -> np.void:
    """A struct of pointers and ints; whoever calls keeps the arrays."""
    return cuda.struct(
        **{
            name: value if isinstance(value, np.ndarray) else np.int32(value)
            for name, value in values.items()
        }
    )


def integers(*shape: int, dtype: str = "float32") -> Array:
    return np.random.default_rng(shape).integers(-8, 9, shape).astype(dtype)


# ------------------------------------------------------------------------------------ what is right


def block_sums(program: Program, x: Array) -> Array:
    y = np.zeros(len(x), x.dtype)
    program.launch(
        "block_sum",
        arguments(x=x, y=y, n=x.shape[1]),
        blocks=len(x),
        threads=x.shape[1],
        shared=96 * x.itemsize,
    )
    return y


@pytest.mark.parametrize("dtype", REALS)
@pytest.mark.parametrize("threads", [1, 31, 32, 96])
def test_a_block_adds_up_in_shared_memory(dtype: str, threads: int) -> None:
    x = integers(5, threads, dtype=dtype)
    program = build("sums.cu", REAL=REALS[dtype])
    for seed in SEEDS:
        with settings(seed=seed):
            np.testing.assert_array_equal(block_sums(program, x), x.sum(axis=1))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_float_below_the_normal_range_counts_as_0_and_a_double_does_not(dtype: str) -> None:
    """Before a sum and after it; and outside of a launch, even of one that fails, neither does."""
    tiny = np.finfo(dtype).tiny
    x = np.array([[tiny / 2, tiny / 2], [1.5 * tiny, -tiny]], dtype)
    found = block_sums(build("sums.cu", REAL=REALS[dtype]), x)
    np.testing.assert_array_equal(found, x.sum(axis=1) if dtype == "float64" else [0, 0])
    with pytest.raises(KernelError):
        commit("half_a_mask")
    assert (x[0] / 2).all()


@pytest.mark.parametrize("dtype", REALS)
def test_lanes_exchange_their_numbers(dtype: str) -> None:
    x = integers(3, 2, 32, dtype=dtype)
    program = build("sums.cu", REAL=REALS[dtype])
    for seed in SEEDS:
        with settings(seed=seed):
            y = np.zeros_like(x)
            program.launch("warp_sum", arguments(x=x, y=y, n=0), blocks=3, threads=64)
            np.testing.assert_array_equal(y, np.broadcast_to(x.sum(2, keepdims=True), x.shape))
            program.launch("rotate", arguments(x=x, y=y, n=7), blocks=3, threads=64)
            np.testing.assert_array_equal(y, np.roll(x, -7, axis=2))


@pytest.mark.parametrize("dtype", REALS)
def test_a_lane_that_does_not_exist_gives_nan(dtype: str) -> None:
    x, y = integers(40, dtype=dtype), np.zeros(40, dtype)
    program = build("sums.cu", REAL=REALS[dtype])
    program.launch("rotate", arguments(x=x, y=y, n=1), blocks=1, threads=40)
    np.testing.assert_array_equal(y[:31], x[1:32])
    np.testing.assert_array_equal(y[32:39], x[33:])
    assert y[39:].tobytes() == b"\xff" * x.itemsize


def exchanged(x: Array, rounds: int) -> Array:
    """What both kernels of GROUPS_CU compute."""
    groups = x.reshape(-1, BLOCKS)
    for _ in range(rounds):
        sums = (6 * groups + 4) @ np.arange(1, BLOCKS + 1)
        groups = (sums[:, None] + np.arange(BLOCKS)) % 97
    return groups.ravel()


def exchange(program: Program, x: Array, rounds: int) -> Array:
    y = np.full_like(x, np.nan)
    board, counters = np.full((len(x), 2), np.nan, np.float32), np.zeros(len(x), np.uint32)
    given = arguments(x=x, y=y, board=board, counters=counters, n=rounds)
    if program.cooperative:
        program.launch("grid_exchange", given, blocks=len(x), threads=64)
    else:
        program.launch("exchange", given, blocks=len(x), threads=64, shared=2 * BLOCKS * 20 + 16)
    return y


@pytest.mark.parametrize("cooperative", [False, True])
@pytest.mark.parametrize("rounds", [0, 1, 5])
def test_blocks_exchange_their_numbers(cooperative: bool, rounds: int) -> None:
    x = np.abs(integers(3 * BLOCKS))
    program = build("groups.cu", BLOCKS=BLOCKS, cooperative=cooperative)
    for seed in SEEDS:
        with settings(seed=seed):
            np.testing.assert_array_equal(exchange(program, x, rounds), exchanged(x, rounds))


def test_arguments_are_passed_by_value_to_each_thread() -> None:
    y = np.zeros((2, 33), np.float32)
    inner = cuda.struct(scale=np.float64(0.25), shift=np.int32(-7))
    given = cuda.struct(small=np.uint8(3), inner=inner, y=y, n=np.int16(10))
    build("words.cu").launch("by_value", given, blocks=2, threads=33)
    np.testing.assert_array_equal(y, np.tile(0.5 * (10 + np.arange(33)) - 7 - 3, (2, 1)))


def test_arithmetic_is_cudas() -> None:
    """x = 1 + 2^-12: the square is 1 + 2^-11 + 2^-24, of which the last term rounds away."""
    x, y = np.array([1 + 2.0**-12, np.nan, 1 + 2.0**-12], np.float32), np.full(7, np.nan)
    build("words.cu").launch("arithmetic", arguments(x=x, y=y), blocks=3, threads=1)
    expected = [0, 2.0**-24, 2.0**-12, 2 * x[0], 2 + 3 + 0.25, 1 + 0 + 2 + 7 + 6, 4 + 3]
    np.testing.assert_array_equal(y, expected)


def everything_is_right() -> None:
    """All of the above, for sanitizers to watch, and after a launch that was given up."""
    with pytest.raises(KernelError):
        commit("elsewhere")
    for dtype in REALS:
        test_a_block_adds_up_in_shared_memory(dtype, 96)
        test_lanes_exchange_their_numbers(dtype)
        test_a_lane_that_does_not_exist_gives_nan(dtype)
    for cooperative in (False, True):
        test_blocks_exchange_their_numbers(cooperative, 5)
    test_arguments_are_passed_by_value_to_each_thread()
    test_arithmetic_is_cudas()


# --------------------------------------------------------------------------- what is not guaranteed


def order(seed: int) -> list[float]:
    """Who runs when of 2 groups of 4 blocks of 96 threads, none of which waits."""
    y, counters = np.full(8 * 96, np.nan, np.float32), np.zeros(1, np.uint32)
    with settings(seed=seed):
        crimes().launch("order", arguments(y=y, counters=counters, n=0), blocks=8, threads=96)
    return y.tolist()


def test_a_seed_is_an_order_in_which_threads_run() -> None:
    orders = [order(seed) for seed in SEEDS]
    assert orders == [order(seed) for seed in SEEDS]
    assert len({tuple(each) for each in orders}) == len(SEEDS)
    assert all(sorted(each) == list(range(8 * 96)) for each in orders)


@pytest.mark.parametrize("seed", SEEDS)
def test_groups_run_one_after_another(seed: int) -> None:
    assert max(order(seed)[: BLOCKS * 96]) < BLOCKS * 96


def test_a_block_runs_ahead() -> None:
    """Which one depends on the seed."""
    orders = np.array([order(seed) for seed in SEEDS if seed % 3 == 1])
    blocks = orders.reshape(-1, 8, 96) // 96
    assert (blocks == blocks[:, :, :1]).all()
    assert len(set(blocks[:, 0, 0])) > 1


def test_a_warp_of_each_block_is_starved() -> None:
    """Which one depends on the seed."""
    orders = np.array([order(seed) for seed in SEEDS if seed % 3 == 2])
    last = orders.reshape(-1, 2, BLOCKS * 96)[:, :, -BLOCKS * 32 :]
    warps = last % 96 // 32
    assert (warps == warps[:, :, :1]).all()
    assert len(set(warps[:, 0, 0])) > 1


def test_stores_arrive_late_or_at_any_time() -> None:
    delays = set()
    for seed in SEEDS:
        y = np.full(BLOCKS, np.nan, np.float32)
        with settings(seed=seed):
            crimes().launch(
                "delay",
                arguments(y=y, counters=y, n=9),
                blocks=BLOCKS,
                threads=32,
                shared=SHARED_BYTES,
            )
        if seed // 3 % 2:
            assert set(y) == {9}
        delays |= set(y)
    assert len(delays) > 2


def test_shared_memory_is_nan_at_first() -> None:
    y = np.zeros((8, 16), np.float32)
    given = arguments(y=y, counters=y, n=0)
    crimes().launch("shared_memory", given, blocks=8, threads=16, shared=SHARED_BYTES)
    assert np.isnan(y).all()


# ------------------------------------------------------------------ synchronization that is missing


def wrong(run: Callable[[], Array], right: Array) -> list[int]:
    """The seeds in which the result is another one, or none at all."""
    seeds = []
    for seed in SEEDS:
        with settings(seed=seed):
            try:
                result = run()
            except KernelError:
                seeds.append(seed)
            else:
                if not np.array_equal(result, right):
                    seeds.append(seed)
    return seeds


@pytest.mark.parametrize(
    "barrier", ["__syncthreads();    // all are", "__syncthreads();    // all pairs"]
)
def test_a_missing_syncthreads_gives_a_wrong_sum(barrier: str) -> None:
    x = integers(5, 96)
    program = build("sums.cu", barrier, "//", REAL="float")
    assert wrong(lambda: block_sums(program, x), x.sum(axis=1))


@pytest.mark.parametrize(
    "wait",
    [
        "cluster_sync();    // all are ready",
        "mbarrier_wait(arrived, parity);",
        "__syncthreads();    // all have read",
        "grid_sync(a.counters + group);",
    ],
)
def test_a_missing_wait_gives_a_wrong_exchange(wait: str) -> None:
    x = np.abs(integers(3 * BLOCKS))
    program = build("groups.cu", wait, "//" if "//" in wait else "", "grid" in wait, BLOCKS=BLOCKS)
    assert wrong(lambda: exchange(program, x, 5), exchanged(x, 5))


def test_one_mbarrier_for_all_rounds_gives_a_wrong_exchange() -> None:
    x = np.abs(integers(3 * BLOCKS))
    two = "= &s.arrived[t % 2];\n        const int parity = t / 2 % 2;"
    one = "= &s.arrived[0];\n        const int parity = t % 2;"
    program = build("groups.cu", two, one, BLOCKS=BLOCKS)
    assert wrong(lambda: exchange(program, x, 5), exchanged(x, 5))


# ------------------------------------------------------------------------------------------- crimes


@functools.cache
def crimes(cooperative: bool = False) -> Program:
    return build("crimes.cu", BLOCKS=BLOCKS, cooperative=cooperative)


def commit(
    crime: str,
    *,
    n: int = 0,
    program: Program | None = None,
    counter: int = 0,
    blocks: int = BLOCKS,
    shared: int = SHARED_BYTES,
) -> None:
    y, counters = np.zeros(64, np.float32), np.full(8, counter, np.uint32)
    (program or crimes()).launch(
        crime, arguments(y=y, counters=counters, n=n), blocks=blocks, threads=64, shared=shared
    )


def line(text: str, after: str = "") -> int:
    """The number of the line of CRIMES_CU that holds a text, the first after another."""
    place = CRIMES_CU.index(text, CRIMES_CU.index(after))
    return CRIMES_CU.count("\n", 0, place) + 1


@pytest.mark.parametrize(
    ("crime", "message"),
    [
        (
            "ended_before_barrier",
            rf"for ever; 63 at __syncthreads \(crimes.cu:{line('__syncthreads')}\), "
            "as thread 0 of block 0: thread 5 of block 0 has ended",
        ),
        (
            "two_barriers",
            r"__syncthreads.*waits at __syncthreads.*expected all to come to the same",
        ),
        ("ended_before_shuffle", r"4 at __shfl_xor_sync.*: thread 37 of block 0 has ended"),
        ("elsewhere", r"4 at __shfl_sync.*: thread 37 of block 0 is at __syncthreads"),
        ("two_shuffles", r"__shfl_sync.*waits at __shfl_sync.*expected all to come to the same"),
        ("half_a_mask", r"__syncwarp.*mask is 65535; expected all lanes"),
        ("not_initialized", r"store_async.*block 1 has not initialized the mbarrier"),
        ("initialized_twice", r"mbarrier_init.* by thread 1 of .*has been initialized before"),
        ("expected_twice", r"mbarrier_expect.*phase 0 has had one; expected one a phase"),
        ("written_over", r"mbarrier_wait.*has written over the mbarrier"),
        ("misaligned", r"store_async.*the address is not at a multiple of 16 bytes"),
        ("no_such_block", r"store_async.*block is 4; expected 0 to 3"),
        ("no_such_parity", r"mbarrier_wait.*parity is 2; expected 0 or 1"),
        (
            "missed_a_phase",
            r"4 at mbarrier_wait .*phase 2 has had no mbarrier_expect, and 0 bytes too few",
        ),
        ("wait_for_grid", r"grid_sync.*not cooperative"),
        ("no_such_kernel", r"no such kernel; expected one of the file's: ended_before_barrier, "),
    ],
)
def test_a_crime_is_told_in_every_schedule(crime: str, message: str) -> None:
    for seed in SEEDS:
        with settings(seed=seed), pytest.raises(KernelError, match=message):
            commit(crime)


def test_where_and_how_a_kernel_ran_is_told() -> None:
    at = line("__syncthreads();\n    else", after="two_barriers")
    with settings(seed=4), pytest.raises(KernelError) as caught:
        commit("two_barriers")
    message = str(caught.value)
    assert message.startswith("crimes.cu, two_barriers: __syncthreads (crimes.cu:")
    assert f"(crimes.cu:{at})" in message
    assert f"(crimes.cu:{at + 2})" in message
    assert message.endswith(" (seed 4, run-ahead, late stores)")


@pytest.mark.parametrize("n", [-3, SHARED_BYTES // 4 - 2])
def test_what_is_sent_goes_from_shared_memory_to_shared_memory(n: int) -> None:
    with pytest.raises(KernelError, match="the address is not in the block's own shared memory"):
        commit("not_shared", n=n)


@pytest.mark.parametrize(("n", "fault"), [(8, "4 bytes too few"), (2, "2 bytes too many")])
def test_threads_wait_for_ever_for_bytes_that_do_not_come(n: int, fault: str) -> None:
    for seed in SEEDS:
        with settings(seed=seed), pytest.raises(KernelError) as caught:
            commit("wrong_expectation", n=n)
        assert re.search(rf"256 at mbarrier_wait .*: phase 0 has had {fault}", str(caught.value))
    commit("wrong_expectation", n=4)


def errors(crime: str, **options: Any) -> set[str]:
    """What is told of a crime, over all schedules, without numbers."""
    told = set()
    for seed in SEEDS:
        with settings(seed=seed):
            try:
                commit(crime, **options)
            except KernelError as error:
                told.add(re.sub(r"\d+", "N", str(error).split(": ", 1)[1].split(" (seed")[0]))
    return told


def test_a_kernel_may_not_end_before_its_bytes_have_arrived() -> None:
    assert errors("nobody_waits", n=4) == {
        "store_async (crimes.cu:N) arrives in block N, which has ended; expected it to wait for "
        "the bytes, or for a cluster_sync"
    }
    assert (
        "the kernel has ended, but in block N an mbarrier's phase N has had N bytes too few"
        in errors("nobody_waits", n=8)
    )


def test_a_block_may_not_end_before_others_have_stored_into_it() -> None:
    assert (
        "store_async (crimes.cu:N) by thread N of block N: block N has ended; expected it to wait "
        "for a cluster_sync before that" in errors("into_ended_block")
    )


def test_each_group_has_a_counter_of_its_own_which_is_0() -> None:
    program = crimes(cooperative=True)
    commit("wait_for_grid", program=program, n=1, blocks=2 * BLOCKS)
    with pytest.raises(KernelError, match="another group of blocks has the same counter"):
        commit("wait_for_grid", program=program, n=0, blocks=2 * BLOCKS)
    with pytest.raises(KernelError, match="the counter is 3; expected 0 at first"):
        commit("wait_for_grid", program=program, n=1, counter=3)
    with pytest.raises(KernelError, match="other threads of the group have another counter"):
        commit("two_counters", program=program)


def test_a_group_must_be_whole_if_it_waits_for_all() -> None:
    with pytest.raises(
        KernelError, match="has 6 blocks; expected a multiple of BLOCKS, which is 4"
    ):
        commit("wait_for_cluster", blocks=6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"shared": SHARED_BYTES - 1},
            f"has {SHARED_BYTES} bytes; the launch gives it {SHARED_BYTES - 1}",
        ),
        ({"shared": 232_449}, "232449 bytes of shared memory; expected 0 to 232448"),
        ({"threads": 1025}, "1025 threads; expected 1 to 1024"),
        ({"threads": 0}, "0 threads; expected 1 to 1024"),
        ({"blocks": 0}, "0 blocks; expected 1 or more"),
    ],
)
def test_a_launch_that_no_gpu_can_make_is_refused(options: dict[str, int], message: str) -> None:
    y = np.zeros(64, np.float32)
    given = arguments(y=y, counters=y, n=0)
    sizes = {"blocks": 1, "threads": 16, "shared": SHARED_BYTES} | options
    with pytest.raises(KernelError, match=message):
        crimes().launch("shared_memory", given, **sizes)


def test_arguments_must_have_the_size_of_the_struct() -> None:
    y = np.zeros(64, np.float32)
    with pytest.raises(KernelError, match=r"the arguments have 16 bytes; expected .* struct, 24"):
        crimes().launch("order", arguments(y=y, n=0), blocks=1, threads=1)


# ------------------------------------------------------------------------------------------ capture


def test_capture_runs_nothing_and_replays_the_arguments_of_its_time() -> None:
    x, y = integers(3, 32), np.zeros(3, np.float32)
    given = arguments(x=x, y=y, n=32)
    program = build("sums.cu", REAL="float")

    def work() -> None:
        program.launch("block_sum", given, blocks=3, threads=32, shared=96 * 4)
        program.launch("rotate", arguments(x=x, y=x, n=1), blocks=1, threads=32)

    replay = emulator.capture(work)
    before = x.copy()
    assert (y == 0).all()
    given["n"], given["y"] = 0, 0
    replay()
    np.testing.assert_array_equal(y, before.sum(axis=1))
    np.testing.assert_array_equal(x[0], np.roll(before[0], -1))
    x[1] = 1
    replay()
    assert y[1] == 32


def test_launches_run_again_after_a_capture_that_fails() -> None:
    def work() -> None:
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        emulator.capture(work)
    x = integers(2, 32)
    np.testing.assert_array_equal(block_sums(build("sums.cu", REAL="float"), x), x.sum(axis=1))


# ----------------------------------------------------------------------------------------- building


def test_what_the_compiler_says_is_told() -> None:
    with pytest.raises(NotBuilt, match=r"words\.cu:6:.*error"):
        build("words.cu", "int shift;", "integer shift;")


def test_a_frame_that_a_stack_has_no_room_for_is_refused() -> None:
    large = "volatile float x[20000]; x[a.n] = 0; cluster_sync(); a.y[0] = x[a.n + 1];"
    with pytest.raises(NotBuilt, match="frame"):
        build("crimes.cu", "{ cluster_sync(); }", f"{{ {large} }}", BLOCKS=BLOCKS)


def test_without_a_compiler_there_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(NotBuilt, match="no-such-compiler is not found; install one"):
        build("words.cu")


# --------------------------------------------------------------------------------------- sanitizers


def sanitized(call: str) -> subprocess.CompletedProcess[str]:
    if reason := emulator.why_not_sanitized():
        pytest.skip(reason)
    return emulator.sanitized(["-c", f"from tests.test_emulator import *; {call}"])


def test_sanitizers_have_nothing_to_report() -> None:
    done = sanitized("everything_is_right()")
    assert done.stderr == ""
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("crime", "n", "report"),
    [
        ("out of row", 8, "index 8 out of bounds for type 'float"),
        ("past array", 64, "heap-buffer-overflow"),
        ("past shared memory", SHARED_BYTES // 4, "heap-buffer-overflow"),
    ],
)
def test_sanitizers_report_an_index_that_is_too_large(crime: str, n: int, report: str) -> None:
    done = sanitized(f"commit({crime.replace(' ', '_')!r}, n={n})")
    assert done.returncode != 0
    assert report in done.stderr
    assert f"crimes.cu:{line(f'// {crime}')}" in done.stderr


def test_sanitizers_need_a_process_of_their_own() -> None:
    with settings(sanitize=True), pytest.raises(NotBuilt, match="use `sanitized`"):
        build("words.cu")
