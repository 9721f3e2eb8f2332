"""HIPS autograd: NumPy with a tape, the ancestor of JAX; and Adam in NumPy on one flat array."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import autograd
import autograd.numpy as anp
import numpy as np
import numpy.typing as npt

from benchmarks.task import PARAMETERS, Outcome, Task

Array = npt.NDArray[Any]


class Contender:
    """`value_and_grad` of the loss, in float32."""

    def __init__(self, variant: str) -> None:
        pass

    def about(self) -> str:
        """Versions."""
        return f"autograd {metadata.version('autograd')}, NumPy {np.__version__}"

    def prepare(self, task: Task, threads: int) -> None:
        """Nothing but the data."""
        self.task = task
        self.gradient = autograd.value_and_grad(_loss)
        self.eye = np.eye(len(task.initial["lin2.bias"]), dtype=np.float32)
        self.rates = task.rates().tolist()  # Python's floats, which leave float32 as it is

    def reset(self) -> None:
        """Flat parameters and moments, and views of the parameters."""
        values = [self.task.initial[name] for name in PARAMETERS]
        self.p = np.concatenate([value.ravel() for value in values])
        self.m, self.v = np.zeros_like(self.p), np.zeros_like(self.p)
        stops = np.cumsum([value.size for value in values])
        self.views = [
            self.p[stop - value.size : stop].reshape(value.shape)
            for stop, value in zip(stops, values, strict=True)
        ]
        self.losses: list[float] = []

    def epoch(self, number: int) -> None:
        """As a NumPy program has it."""
        task, order = self.task, self.task.order[number]
        for step, batch in task.batches(number):
            x = task.images[order[batch]].astype(np.float32)
            x /= 255
            if task.normalized:
                x -= task.normalization.mean
                x /= task.normalization.std
            # One row of the identity for each label: picking with indices has a slow gradient.
            one_hot = self.eye[task.labels[order[batch]]]
            loss, grads = self.gradient(self.views, x, one_hot)
            self.losses.append(float(loss))
            self._adam(np.concatenate([grad.ravel() for grad in grads]), *self.rates[step])

    def _adam(self, g: Array, rate: float, eps: float, keep: float) -> None:
        p, m, v, (beta1, beta2) = self.p, self.m, self.v, self.task.betas
        if self.task.renew:
            m.fill(0)
            v.fill(0)
        m *= beta1
        m += (1 - beta1) * g
        v *= beta2
        g *= g
        g *= 1 - beta2
        v += g
        np.sqrt(v, out=g)
        g += eps
        np.divide(m, g, out=g)
        g *= rate
        if self.task.weight_decay:
            p *= keep
        p -= g

    def collect(self) -> Outcome:
        """Copies of the views."""
        values = [view.copy() for view in self.views]
        return Outcome(np.array(self.losses), dict(zip(PARAMETERS, values, strict=True)))


def _loss(p: list[Array], x: Array, one_hot: Array) -> Any:
    w1, b1, w2, b2 = p
    hidden = anp.maximum(anp.dot(x, w1.T) + b1, 0)
    logits = anp.dot(hidden, w2.T) + b2
    logits = logits - logits.max(axis=1, keepdims=True)
    log_sums = anp.log(anp.sum(anp.exp(logits), axis=1))
    return (anp.sum(log_sums) - anp.sum(logits * one_hot)) / len(x)
