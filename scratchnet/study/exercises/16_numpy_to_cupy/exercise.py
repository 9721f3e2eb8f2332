"""Exercise 16: from NumPy to CuPy.

CuPy's arrays live on the GPU, and have NumPy's functions and methods. So code runs
on both, if it uses the module that it is given, xp, which is numpy or cupy, and
keeps to three rules:

1. Stay there. Arrays are made by xp, not by np: an np array and a GPU array don't
   mix. In the dtype of what came in, too: float64 is slower on every GPU, and on
   most of them very much.
2. Don't look. float(a), a.item(), a.get(), if a > 0: each makes the program wait
   until the GPU has done all that it was told, to bring one number over. A loss may
   stay on the GPU, as an array without axes, until somebody wants to print it.
3. Don't loop. Each operation is one launch, of some microseconds, whether it is for
   one number or for a million. A loop over the samples is N times as many.

Below is the loss and its gradient, as one writes it with NumPy. It is right, and it
breaks all three. Rewrite it. You need no GPU: `scratchnet study 16` has an xp that
behaves like CuPy in these respects, counts launches, and notes who looks.

    xp          numpy, or cupy
    logits      (N, C), float32 or float64, an array of xp
    target      (N,) class numbers, an array of xp
    returns     (loss, gradient): an array without axes, and (N, C), both of xp and of logits' dtype

By hand, how to pick or set one entry a row without a loop: compare a column with a
row.

    target = array([2, 0])
    is_label = target[:, None] == arange(3)
    is_label = [[False, False, True], [True, False, False]]

To check it: scratchnet study 16
"""

import numpy as np


def loss_and_gradient(xp, logits, target):
    """The mean cross-entropy, and (p - y) / N."""
    N, C = logits.shape
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    p = e / e.sum(axis=1, keepdims=True)
    y = np.zeros((N, C))
    loss = 0.0
    for n in range(N):
        y[n, target[n]] = 1
        loss = loss - float(np.log(p[n, target[n]])) / N
    return loss, (p - y) / N
