"""How many kernels an update takes, and how many bytes it moves: from the shapes, without a GPU.

**Bytes moved** are those between a GPU's multiprocessors and its global memory, of which a batch's
part stays in the L2 cache. Each array counts once for each kernel that reads it and once for each
that writes it: less is not possible, and what a kernel reads twice it has for the second time from
a nearer cache.

**Launches** are the host's, of a kernel or of a graph.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.rungs import Rung
from scratchnet.engines import cuda_epoch, cuda_graph
from scratchnet.engines.cuda_epoch import Layout
from scratchnet.mnist import Split
from scratchnet.training import Options, Run

INPUTS, CLASSES = 784, 10
FLOAT, INT, STEP = 4, 4, 16  # bytes; struct Step is four floats


@dataclass(frozen=True)
class Traffic:
    """Of an update in float32 on a full batch, on average over an epoch.

    Attributes:
        launches: by the host.
        kernels: that the GPU runs.
        moved: bytes read and written in global memory.
        exchanged: bytes that blocks send to blocks, past the memory.
    """

    launches: float
    kernels: float
    moved: float
    exchanged: float = 0.0


def of(rung: Rung, options: Options, updates: int) -> Traffic:
    """Of a rung, for an epoch of so many updates that is not its first."""
    if rung.engine == "layers":
        return layers(options)
    if rung.engine == "cuda_epoch":
        return epoch(rung, options, updates)
    graphs, rest = divmod(updates, cuda_graph.Engine.UPDATES)
    launches = 3.0 if rung.engine == "cuda_fused" else (graphs + 3 * rest) / updates
    return Traffic(launches, 3, fused(options))


def fused(options: Options) -> float:
    """Bytes that the three kernels of fused.cu move; counters, 12 bytes, are left out.

    hidden_layer        reads pixels, order, W1 and b1; writes hidden
    head                reads hidden, order, labels, W2, b2 and the step; writes losses, grad_logits
                        and grad_hidden
    backward_and_adam   reads pixels, order, hidden, grad_logits, grad_hidden and the step; reads
                        and writes p, m and v
    """
    n, h = options.batch_size, options.hidden
    pixels, order, labels, losses = n * INPUTS, n * INT, n * INT, n * FLOAT
    hidden, logits = n * h * FLOAT, n * CLASSES * FLOAT
    first, second = h * (INPUTS + 1) * FLOAT, CLASSES * (h + 1) * FLOAT
    hidden_layer = pixels + order + first + hidden
    head = hidden + order + labels + second + STEP + losses + logits + hidden
    backward = pixels + order + 2 * hidden + logits + STEP + 6 * (first + second)
    return hidden_layer + head + backward


def epoch(rung: Rung, options: Options, updates: int) -> Traffic:
    """Of epoch.cu, where at most 1,024 updates take a kernel to gather and one to train.

    gather      reads order, labels and pixels; writes them padded, a stretch for each block
    train       reads these and the step; writes losses
                once a launch: reads and writes p, m and v

    And in each update the exchange. From every block to every block go the partial sums of the
    first layer for its samples, in all BLOCKS · N · H numbers, and from each block to all the
    hidden units and grad_logits of its samples, in all BLOCKS · N · (H + C). In a cluster they go
    past the memory; in a grid through it, written (the latter once for all) and read.
    """
    n = options.batch_size
    layout = Layout(rung.cluster, rung.blocks, n, INPUTS, options.hidden, CLASSES)
    launches = -(-updates // cuda_epoch.UPDATES)
    pixels, labels = layout.blocks * layout.slice * layout.n, layout.n * INT
    model = (options.hidden * (INPUTS + 1) + CLASSES * (options.hidden + 1)) * FLOAT
    gather = n * (INT + INT + INPUTS) + pixels + labels
    train = pixels + labels + STEP + n * FLOAT + 6 * model * launches / updates
    partial = layout.blocks * layout.partial * FLOAT
    heads = layout.heads * FLOAT
    exchanged = partial + layout.blocks * heads
    through = 0 if rung.cluster else exchanged + partial + heads
    kernels = 2 * launches / updates
    return Traffic(kernels, kernels, gather + train + through, exchanged if rung.cluster else 0.0)


def layers(options: Options) -> Traffic:
    """Of `Run.update`, counted: it runs on the stand-in for CuPy that the tests have.

    Each operation that makes or changes an array is a kernel that reads its operands and writes its
    result; CuPy may need more than one. Views cost nothing, memory is set to 0 without a kernel,
    and of what is indexed by an array the chosen part is read. `Adam.forget_faded`, of every 64th
    update, is left out.
    """
    from tests import strict_cupy

    images = np.zeros((options.batch_size, INPUTS), np.uint8)
    split = Split(images, np.zeros(options.batch_size, np.int64))
    one = Options(options.recipe, epochs=2, batch_size=options.batch_size, hidden=options.hidden)
    with strict_cupy.installed():
        run = Run(one, split, "cuda")
        run.update(*next(run.batches(0, 1)))
        count = _Count(strict_cupy.ndarray)
        with count.on(strict_cupy):
            run.update(*next(run.batches(1, 2)))
    return Traffic(count.kernels, count.kernels, count.moved)


class _Count:
    """Counts what is done with arrays of a type."""

    def __init__(self, array: Any) -> None:
        self.array, self.kernels, self.moved = array, 0, 0
        self.inside = False

    @contextlib.contextmanager
    def on(self, module: Any) -> Iterator[None]:
        """Watch all functions of the module `cupy` in it, and all methods of its array."""
        functions = [(module.cupy, name) for name in vars(module.cupy)]
        methods = [(self.array, name) for name in vars(self.array)]
        with contextlib.ExitStack() as stack:
            for owner, name in functions + methods:
                function = getattr(owner, name)
                if callable(function) and not isinstance(function, type):
                    patch = mock.patch.object(owner, name, self._counting(name, function))
                    stack.enter_context(patch)
            yield

    def _counting(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if self.inside:
                return function(*args, **options)
            self.inside = True
            try:
                result = function(*args, **options)
                self._note(name, args, options.get("out"), result)
            finally:
                self.inside = False
            return result

        return call

    def _note(self, name: str, args: tuple[Any, ...], out: Any, result: Any) -> None:
        operands = [each._host for each in args if isinstance(each, self.array)]
        if name in ("__setitem__", "copyto"):  # from the last operand to as much of the first
            self._add(2 * operands[-1].nbytes)
        elif not isinstance(result, self.array):
            return
        elif name.startswith("__i") or out is not None:
            self._add(sum(each.nbytes for each in operands) + result._host.nbytes)
        elif any(np.may_share_memory(result._host, each) for each in operands):
            return
        elif name in ("asarray", "zeros", "zeros_like"):
            self.moved += result._host.nbytes
        elif name in ("__getitem__", "take"):
            index = args[1]._host.nbytes if isinstance(args[1], self.array) else 0
            self._add(2 * result._host.nbytes + index)
        else:
            self._add(sum(each.nbytes for each in operands) + result._host.nbytes)

    def _add(self, moved: int) -> None:
        self.kernels += 1
        self.moved += moved
