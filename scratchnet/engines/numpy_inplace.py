"""The step of `layers` on NumPy without a new array: every result is written where it will stay.

The formulas are those of `functional` and `optim`, and each stage below names what it fuses. What
differs is where factors are multiplied, which changes roundings only:

- inputs are scale · pixel + shift;
- the upstream gradient is scaled by √(1 - β₂), so that the flat gradient g' = √(1 - β₂) g comes out
  of the matrix products ready to be squared for v;
- Adam's p -= lr/c₁ · m / (√v / c₂ + eps), with c₁ = 1 - β₁ᵗ and c₂ = √(1 - β₂ᵗ), is computed as
  p -= (lr c₂/c₁) · m / (√v + eps c₂), which saves a pass over 39,760 numbers.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from scratchnet.backend import ieee
from scratchnet.engines import check_plain_adam

if TYPE_CHECKING:
    from scratchnet.training import Run

Array = npt.NDArray[Any]

ALIGNMENT = 64  # bytes, a cache line and the widest vector


class Engine:
    """Updates of `Mnist_NN` under Adam or AdamW, on NumPy arrays that are made once.

    Raises:
        InputError: the run is on a GPU, or its optimizer has an option that this engine lacks.
    """

    def __init__(self, run: Run) -> None:
        check_plain_adam("numpy_inplace", run)
        self.run = run
        self.w1, self.b1, self.w2, self.b2 = (p.data for p in run.model.parameters())
        flat = run.model.parameters()[0].buffer
        self.p = flat.data
        # The model's own gradient stays untouched: between two updates it has none.
        self.g, self.scratch = (
            _aligned(flat.data.shape, run.dtype),
            _aligned(self.p.shape, run.dtype),
        )
        self.grads = _split(self.g, [p.shape for p in run.model.parameters()])
        self.arenas: dict[int, Arena] = {}

    @ieee
    def advance(self, first: int, last: int) -> list[float]:
        """Make the updates first to last - 1; their losses."""
        losses = []
        for step in range(first, last):
            chosen = self.run.chosen(step)
            arena = self.arenas.get(len(chosen)) or self._make_arena(len(chosen))
            self._gather(arena, chosen)
            self._forward(arena)
            losses.append(self._cross_entropy(arena, self.run.labels[chosen]))
            self._backward(arena)
            self._adam(float(self.run.lrs[step]))
        return losses

    def _make_arena(self, n: int) -> Arena:
        """For full batches, and for an epoch's last one."""
        (h, d), c = self.w1.shape, len(self.b2)
        arena = self.arenas[n] = Arena(n, d, h, c, self.run.dtype)
        return arena

    def _gather(self, arena: Arena, chosen: Array) -> None:
        """Normalization, of the images of a batch."""
        # The indices are a permutation's, so clipping them changes nothing, and is faster.
        self.run.images.take(chosen, axis=0, out=arena.pixels, mode="clip")
        np.copyto(arena.x, arena.pixels)
        arena.x *= self.run.normalization.scale
        if self.run.recipe.normalize:
            arena.x += self.run.normalization.shift

    def _forward(self, arena: Arena) -> None:
        """linear_forward, relu_forward, linear_forward: the logits (C, N), a class a row.

        So NumPy takes the maximum and the sum over classes as C operations on whole rows.
        """
        np.matmul(arena.x, self.w1.T, out=arena.hidden)
        arena.hidden += self.b1
        np.maximum(arena.hidden, 0, out=arena.hidden)
        np.matmul(self.w2, arena.hidden.T, out=arena.logits)
        arena.logits += self.b2[:, None]

    def _cross_entropy(self, arena: Arena, labels: Array) -> float:
        """cross_entropy_forward and _backward: the loss; √(1 - β₂) (p - q) / N in arena.logits."""
        z, n = arena.logits, len(labels)
        z -= z.max(axis=0, out=arena.row)
        at_label = z[labels, arena.samples]
        np.exp(z, out=z)
        z.sum(axis=0, out=arena.row)
        loss = (np.log(arena.row).sum() - at_label.sum()) / n
        z /= arena.row
        z[labels, arena.samples] -= 1
        z *= math.sqrt(1 - self.run.optimizer.betas[1]) / n
        return float(loss)

    def _backward(self, arena: Arena) -> None:
        """linear_backward, relu_backward, linear_backward; into g, and not for the pixels."""
        grad_w1, grad_b1, grad_w2, grad_b2 = self.grads
        grad_logits, grad_hidden = arena.logits, arena.grad_hidden
        np.matmul(grad_logits, arena.hidden, out=grad_w2)
        np.matmul(grad_logits, arena.ones, out=grad_b2)
        np.matmul(grad_logits.T, self.w2, out=grad_hidden)
        np.greater(arena.hidden, 0, out=arena.open)
        grad_hidden *= arena.open
        np.matmul(grad_hidden.T, arena.x, out=grad_w1)
        np.matmul(arena.ones, grad_hidden, out=grad_b1)

    def _adam(self, lr: float) -> None:
        """Adam.update, or AdamW's, from g' = √(1 - β₂) g."""
        optimizer, (p, g, scratch) = self.run.optimizer, (self.p, self.g, self.scratch)
        m, v = (optimizer.vectors[name] for name in optimizer.state_names)
        beta1, beta2 = optimizer.betas
        t = optimizer.steps[0] + 1
        if self.run.recipe.renew:
            m.fill(0)
            v.fill(0)
            t = 1
        else:
            optimizer.forget_faded()
        v *= beta2
        v += np.multiply(g, g, out=scratch)
        m *= beta1
        g *= (1 - beta1) / math.sqrt(1 - beta2)
        m += g
        correction1, correction2 = 1 - beta1**t, math.sqrt(1 - beta2**t)
        np.sqrt(v, out=scratch)
        scratch += optimizer.eps * correction2
        np.divide(m, scratch, out=scratch)
        scratch *= lr * correction2 / correction1
        if optimizer.weight_decay:
            p *= 1 - lr * optimizer.weight_decay
        p -= scratch
        optimizer.steps = [t] * len(optimizer.steps)
        optimizer.lr = lr


class Arena:
    """All that a batch of n samples needs."""

    def __init__(self, n: int, d: int, h: int, c: int, dtype: npt.DTypeLike) -> None:
        self.samples, self.ones = np.arange(n), np.ones(n, dtype)
        self.pixels, self.x = _aligned((n, d), np.uint8), _aligned((n, d), dtype)
        self.hidden, self.grad_hidden = _aligned((n, h), dtype), _aligned((n, h), dtype)
        self.open = _aligned((n, h), np.bool_)
        self.logits, self.row = _aligned((c, n), dtype), _aligned((n,), dtype)


def _aligned(shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    """An array that starts on a cache line, so that a vector is not read from two."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


def _split(flat: Array, shapes: list[tuple[int, ...]]) -> list[Array]:
    """Views of a flat array, one behind the other."""
    stops = np.cumsum([math.prod(shape) for shape in shapes])
    return [
        flat[stop - math.prod(shape) : stop].reshape(shape)
        for stop, shape in zip(stops, shapes, strict=True)
    ]
