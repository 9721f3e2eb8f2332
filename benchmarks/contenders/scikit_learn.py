"""scikit-learn's MLPClassifier: NumPy under the hood, a whole epoch in one call.

It needs the samples in their order, so each epoch's are copied and converted beforehand, in the
time that counts. Its Adam adds eps to √v and not to √v / √(1 - β₂ᵗ), which makes eps 32 times as
large in the first update, and so it is given eps √(1 - β₂ᵗ) in each.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import sklearn
from sklearn.neural_network import MLPClassifier

from benchmarks.task import PARAMETERS, Outcome, Task


class Contender:
    """`partial_fit`, which is `fit` for one epoch, and keeps Adam for the next."""

    def __init__(self, variant: str) -> None:
        pass

    def about(self) -> str:
        """Version."""
        return f"scikit-learn {sklearn.__version__}, MLPClassifier.partial_fit of an epoch"

    def prepare(self, task: Task, threads: int) -> None:
        """Memory for the inputs of an epoch, which costs as much as half an epoch to get anew."""
        self.task = task
        self.pixels = np.zeros_like(task.images)
        self.x = np.zeros(task.images.shape, np.float32)
        self.classes = np.arange(len(task.initial["lin2.bias"]))

    def reset(self) -> None:
        """A new classifier with the given weights, which keeps the loss of every batch.

        For neither is there a public way: methods of this one object are replaced.
        """
        task = self.task
        classifier = MLPClassifier(
            hidden_layer_sizes=(task.options.hidden,),
            alpha=0,
            batch_size=task.batch_size,
            learning_rate_init=float(task.lrs[0]),
            beta_1=task.betas[0],
            beta_2=task.betas[1],
            epsilon=task.eps,
            shuffle=False,
        )
        values = [task.initial[name].copy() for name in PARAMETERS]
        layers = iter([(values[0].T.copy(), values[1]), (values[2].T.copy(), values[3])])
        classifier._init_coef = lambda fan_in, fan_out, dtype: next(layers)
        losses: list[float] = []
        epsilons = task.rates()[:, 1].tolist()
        backprop = classifier._backprop

        def kept(*args: Any) -> Any:
            result = backprop(*args)
            classifier._optimizer.epsilon = epsilons[len(losses)]
            losses.append(float(result[0]))
            return result

        classifier._backprop = kept
        self.classifier, self.losses = classifier, losses

    def epoch(self, number: int) -> None:
        """Gather and convert the whole epoch, and train on it."""
        order = self.task.order[number]
        np.take(self.task.images, order, axis=0, out=self.pixels, mode="clip")
        np.divide(self.pixels, 255, out=self.x, dtype=np.float32)
        self.classifier.partial_fit(self.x, self.task.labels[order], classes=self.classes)

    def collect(self) -> Outcome:
        """Weights transposed, as PyTorch has them."""
        (w1, w2), (b1, b2) = self.classifier.coefs_, self.classifier.intercepts_
        values = (w1.T, b1, w2.T, b2)
        return Outcome(np.array(self.losses), dict(zip(PARAMETERS, values, strict=True)))
