"""JAX: an update compiled by XLA and called from Python, or a whole epoch in one `lax.scan`.

On a GPU not yet run.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.task import PARAMETERS, Outcome, Task

Array = Any
State = tuple[list[Array], list[Array], list[Array]]  # parameters, m and v


class Contender:
    """The variant is "step", or "scan" and how many updates of the loop are unrolled; and "graphs"
    if on a GPU the loop too shall be a CUDA graph, which XLA calls a command buffer.

    XLA's threads are as many as NPROC says, which the worker has set. Unrolled 1, 2, 4 and 8 times,
    the scan was within 5 % on the CPU on which this was written.
    """

    def __init__(self, variant: str) -> None:
        self.kind, *unroll = variant.split()
        self.unroll = int(unroll[0]) if unroll else 1
        if "graphs" in unroll:  # read when XLA starts, with the first array
            os.environ["XLA_FLAGS"] = "--xla_gpu_enable_command_buffer=+WHILE"

    def about(self) -> str:
        """Version, device and kind."""
        device = jax.devices(_platform(self.task))[0].device_kind
        how = (
            f"lax.scan(unroll={self.unroll}) over an epoch" if self.kind == "scan" else "an update"
        )
        flags = os.environ.get("XLA_FLAGS", "none")
        return f"JAX {jax.__version__}, {device}, precision highest, flags {flags}, jit of {how}"

    def prepare(self, task: Task, threads: int) -> None:
        """Data to the device. Programs are compiled for each batch size when it first comes."""
        jax.config.update("jax_default_matmul_precision", "highest")
        jax.config.update("jax_platforms", _platform(task))
        # Else Python goes on, in a second thread, while XLA computes.
        jax.config.update("jax_cpu_enable_async_dispatch", threads > 1)
        self.task = task
        self.images, self.labels, self.order, self.rates = (
            jnp.asarray(array)
            for array in (
                task.images,
                task.labels.astype(np.int32),
                task.order.astype(np.int32),
                task.rates().astype(np.float32),
            )
        )
        update = partial(_update, task)
        # Donated: the state is updated where it is, and no program holds the old one.
        self.one = jax.jit(partial(_one, update), static_argnums=5, donate_argnums=0)
        self.scan = jax.jit(partial(_epoch, update, task.batch_size, self.unroll), donate_argnums=0)

    def reset(self) -> None:
        """A new state."""
        p = [jnp.array(self.task.initial[name]) for name in PARAMETERS]
        zeros: list[list[Array]] = [[jnp.zeros_like(array) for array in p] for _ in range(2)]
        self.state: State = jax.block_until_ready((p, *zeros))
        self.losses: list[Array] = []

    def epoch(self, number: int) -> None:
        """One call, or one for each update."""
        each = self.task.steps_per_epoch
        first, order = number * each, self.order[number]
        if self.kind == "scan":
            rates = self.rates[first : first + each]
            self.state, losses = self.scan(self.state, self.images, self.labels, order, rates)
            self.losses.append(losses)
            return
        count, size = len(self.task.labels), self.task.batch_size
        data = (self.images, self.labels, order, self.rates)
        for position in range(each):
            start = position * size
            # Two numbers in one array: each argument that comes from the host costs a transfer.
            place = np.array([start, first + position], np.int32)
            now = min(size, count - start)
            self.state, loss = self.one(self.state, *data, now, place)
            self.losses.append(loss)

    def collect(self) -> Outcome:
        """Waits, and copies."""
        losses = np.concatenate([np.atleast_1d(loss) for loss in jax.device_get(self.losses)])
        parameters = dict(zip(PARAMETERS, jax.device_get(self.state[0]), strict=True))
        return Outcome(losses.astype(np.float64), parameters)


def _platform(task: Task) -> str:
    return "cuda" if task.device == "cuda" else "cpu"


def _one(
    update: Any,
    state: State,
    images: Array,
    labels: Array,
    order: Array,
    rates: Array,
    size: int,
    place: Array,
) -> tuple[State, Array]:
    """One update on `size` samples, from place[0] in the order on, with the rates of place[1]."""
    chosen = lax.dynamic_slice_in_dim(order, place[0], size)
    return update(images, labels, state, (chosen, rates[place[1]]))


def _epoch(
    update: Any,
    size: int,
    unroll: int,
    state: State,
    images: Array,
    labels: Array,
    order: Array,
    rates: Array,
) -> tuple[State, Array]:
    """All updates of an epoch, and their losses (steps,); the smaller last batch by itself."""
    full = len(order) // size
    batches = order[: full * size].reshape(full, size)
    update = partial(update, images, labels)
    state, losses = lax.scan(update, state, (batches, rates[:full]), unroll=min(unroll, full))
    if len(order) > full * size:
        state, loss = update(state, (order[full * size :], rates[full]))
        losses = jnp.append(losses, loss)
    return state, losses


def _update(
    task: Task, images: Array, labels: Array, state: State, batch: tuple[Array, Array]
) -> tuple[State, Array]:
    """The tutorial's update in JAX; the gradient is JAX's own."""
    chosen, (rate, eps, keep) = batch
    x = images[chosen].astype(jnp.float32) / 255
    if task.normalized:
        x = (x - task.normalization.mean) / task.normalization.std
    p, m, v = state
    loss, grads = jax.value_and_grad(_loss)(p, x, labels[chosen])
    beta1, beta2 = task.betas
    if task.renew:
        m, v = jax.tree.map(jnp.zeros_like, (m, v))
    m = [beta1 * a + (1 - beta1) * g for a, g in zip(m, grads, strict=True)]
    v = [beta2 * b + (1 - beta2) * g * g for b, g in zip(v, grads, strict=True)]
    if task.weight_decay:
        p = [keep * a for a in p]
    p = [a - rate * b / (jnp.sqrt(c) + eps) for a, b, c in zip(p, m, v, strict=True)]
    return (p, m, v), loss


def _loss(p: list[Array], x: Array, y: Array) -> Array:
    w1, b1, w2, b2 = p
    hidden = jax.nn.relu(x @ w1.T + b1)
    log_p = jax.nn.log_softmax(hidden @ w2.T + b2)
    return -jnp.take_along_axis(log_p, y[:, None], axis=1).mean()
