"""Mistakes in the kernels, each of which the tests must notice: places where a thread no longer
waits for another, and wrong formulas.

The emulator runs the kernels under hostile schedules, but it is no proof: it knows nothing of the
memory model's fences, nor of `.aligned`. What can't matter in it is explained.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from scratchnet.engines import cuda

CLUSTER, GRID, FUSED = "cluster", "grid", "fused"


@dataclass(frozen=True)
class Plant:
    """A mistake.

    Attributes:
        name: what is wrong.
        form: which kernels have it: epoch.cu in a cluster or a grid, or fused.cu.
        old, new: what stands in the source once, and what takes its place.
        harmless: why nothing can come of it; empty if something must.
        file: in kernels/.
    """

    name: str
    form: str
    old: str
    new: str
    harmless: str = ""
    file: str = "epoch.cu"

    def copy_kernels(self, folder: Path) -> Path:
        """All kernels in a folder, with the mistake in."""
        copied = Path(shutil.copytree(cuda.KERNELS, folder / "kernels"))
        source = (copied / self.file).read_text()
        if source.count(self.old) != 1:
            raise ValueError(f"{self.name}: occurs {source.count(self.old)} times; expected 1")
        (copied / self.file).write_text(source.replace(self.old, self.new))
        return copied


FORWARD_READ_W1 = "        update(s, x, moments, a.optimizer, step);\n        __syncthreads();\n"
ALL_READY = (
    "    cluster_sync();\n}\n\n// No block ends, and its shared memory with it, before all have.\n"
)

MISSING_WAITS = (
    Plant(
        "pixels are unpacked while x is being cleared",
        CLUSTER,
        "    load_pixels(pixels, e, 0);\n    __syncthreads();\n",
        "    load_pixels(pixels, e, 0);\n",
    ),
    Plant(
        "a block sends before the others' barriers are there",
        CLUSTER,
        ALL_READY,
        ALL_READY.replace("cluster_sync()", "__syncthreads()"),
    ),
    Plant(
        "head does not wait for partial sums",
        CLUSTER,
        "    wait_for(&e.s.partial_arrived, sizeof(Partial), t);\n",
        "    if (threadIdx.x == 0)\n"
        "        mbarrier_expect(&e.s.partial_arrived, sizeof(Partial));\n",
    ),
    Plant(
        "backward does not wait for heads",
        CLUSTER,
        "    wait_for(&e.s.heads_arrived, sizeof(Heads), t);\n",
        "    if (threadIdx.x == 0)\n        mbarrier_expect(&e.s.heads_arrived, sizeof(Heads));\n",
    ),
    Plant(
        "a wait for the phase before",
        CLUSTER,
        "    mbarrier_wait(arrived, t % 2);\n",
        "    mbarrier_wait(arrived, (t + 1) % 2);\n",
    ),
    Plant(
        "16 bytes too few are expected",
        CLUSTER,
        "    wait_for(&e.s.heads_arrived, sizeof(Heads), t);\n",
        "    wait_for(&e.s.heads_arrived, sizeof(Heads) - 16, t);\n",
    ),
    Plant(
        "16 bytes too many are expected",
        CLUSTER,
        "    wait_for(&e.s.partial_arrived, sizeof(Partial), t);\n",
        "    wait_for(&e.s.partial_arrived, sizeof(Partial) + 16, t);\n",
    ),
    Plant(
        "update begins before backward has ended",
        CLUSTER,
        "        backward(s);\n        __syncthreads();\n",
        "        backward(s);\n",
    ),
    Plant(
        "forward begins before update has ended",
        CLUSTER,
        FORWARD_READ_W1,
        FORWARD_READ_W1.replace("        __syncthreads();\n", ""),
    ),
    Plant(
        "the next batch is unpacked into the present one",
        CLUSTER,
        "            unpack(s.x[(t + 1) % 2], pixels, a, e.rank); ",
        "            unpack(s.x[t % 2], pixels, a, e.rank); ",
    ),
    Plant(
        "a block ends before the others",
        CLUSTER,
        "__device__ __forceinline__ void end_exchange() { cluster_sync(); }",
        "__device__ __forceinline__ void end_exchange() {}",
        harmless="a block leaves the loop when it has had all that the others send in it, and they "
        "have had all of its own before they do; but PTX wants shared memory that is written to "
        "from elsewhere to be there, and says so of no other moment",
    ),
    Plant(
        "head does not wait for the grid",
        GRID,
        "__device__ __forceinline__ void receive_partial(const Exchange &e, int)\n{\n"
        "    grid_sync(e.network.barrier);\n",
        "__device__ __forceinline__ void receive_partial(const Exchange &e, int)\n{\n",
    ),
    Plant(
        "backward does not wait for the grid",
        GRID,
        "__device__ __forceinline__ void receive_heads(const Exchange &e, int)\n{\n"
        "    grid_sync(e.network.barrier);\n",
        "__device__ __forceinline__ void receive_heads(const Exchange &e, int)\n{\n",
    ),
    Plant(
        "backward begins before the heads are copied",
        GRID,
        "e.network.heads + i);\n    __syncthreads();\n",
        "e.network.heads + i);\n",
    ),
    Plant(
        "forward begins before the first pixels are there",
        GRID,
        "void begin_exchange(const Exchange &) { __syncthreads(); }",
        "void begin_exchange(const Exchange &) {}",
    ),
    Plant(
        "pixels are unpacked while update reads the last ones",
        GRID,
        FORWARD_READ_W1,
        FORWARD_READ_W1.replace("        __syncthreads();\n", ""),
    ),
    Plant(
        "forward begins before the next pixels are there",
        GRID,
        "            unpack(s.x[0], pixels, a, e.rank);\n            __syncthreads();\n",
        "            unpack(s.x[0], pixels, a, e.rank);\n",
    ),
)

WRONG_FORMULAS = (
    Plant("the bias is no input", CLUSTER, "is_bias ? 1.0f : 0.0f", "0.0f", file="epoch.cu"),
    Plant(
        "b2 is trained by 0", CLUSTER, "unit == UNITS ? 1.0f", "unit < 0 ? 1.0f", file="epoch.cu"
    ),
    Plant(
        "a lane gives what it keeps",
        CLUSTER,
        "half ? sum[j][u] : sum[j + 2][u];",
        "kept;",
        file="epoch.cu",
    ),
    Plant(
        "a block's sums are left out", CLUSTER, "int from = 1;", "int from = 2;", file="epoch.cu"
    ),
    Plant(
        "one class for a whole tile",
        CLUSTER,
        "[n][tile.row + i], y)",
        "[n][tile.row], y)",
        file="epoch.cu",
    ),
    Plant("b2 is kept where W2 is", CLUSTER, ": B2 + c;", ": W2 + c;", file="epoch.cu"),
    Plant(
        "missing samples are of label 0",
        CLUSTER,
        "a.labels[number] : -1;",
        "a.labels[number] : 0;",
        file="epoch.cu",
    ),
    Plant(
        "now is next",
        FUSED,
        "update = a.progress->now, n",
        "update = a.progress->next, n",
        file="fused.cu",
    ),
    Plant(
        "next stays",
        FUSED,
        "a.progress->next = update + 1",
        "a.progress->next = update",
        file="fused.cu",
    ),
    Plant(
        "a tile's samples are its units",
        FUSED,
        "lane / TILE, unit",
        "lane % TILE, unit",
        file="fused.cu",
    ),
    Plant("b1 is trained as b2", FUSED, "i - B1];", "i - W2];", file="fused.cu"),
    Plant("relu passes at 0", FUSED, "return y <= 0", "return y < 0", file="functional.cuh"),
    Plant("no 1/N", FUSED, "* inverse_n;", ";", file="functional.cuh"),
    Plant("p alone", FUSED, "(c == label ? real(1) : real(0))", "real(0)", file="functional.cuh"),
    Plant(
        "the loss is of no label",
        FUSED,
        "c == label ? z[c] : at_label",
        "at_label",
        file="functional.cuh",
    ),
    Plant(
        "eps inside the root",
        FUSED,
        "sqrt(v) / step.root + o.eps",
        "sqrt(v + o.eps) / step.root",
        file="functional.cuh",
    ),
    Plant("no correction of v", FUSED, "sqrt(v) / step.root", "sqrt(v)", file="functional.cuh"),
    Plant("no decay", FUSED, "step.keep * p", "p", file="functional.cuh"),
    Plant(
        "v of g", FUSED, "o.one_minus_beta2 * g * g", "o.one_minus_beta2 * g", file="functional.cuh"
    ),
    Plant(
        "m is a sum", FUSED, "o.beta1 * m + o.one_minus_beta1 * g", "m + g", file="functional.cuh"
    ),
    Plant(
        "moments are never renewed",
        FUSED,
        "if (o.renew || fabs(m)",
        "if (fabs(m)",
        file="functional.cuh",
    ),
    Plant(
        "a sum over half a warp",
        FUSED,
        "lanes = WARP / 2;",
        "lanes = WARP / 4;",
        file="functional.cuh",
    ),
)
