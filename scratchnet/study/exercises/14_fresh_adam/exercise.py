"""Exercise 14: an Adam that remembers, and one that does not.

The tutorial that this network comes from makes a new optimizer in each update:

    def update(x, y, lr):
        opt = optim.Adam(model.parameters(), lr)      <- here
        ...
        opt.step()

So m and v are 0 before every step, and t is 1. It does learn. But is it Adam?

1. fresh: for each of the gradients, in order, one step of a new Adam. Return p
   after the last.
2. persistent: one Adam for all of them: m, v and t live on from step to step.
3. Two predictions for a fresh Adam, each to the nearest whole number:
   - RATIO: one parameter has a gradient of 100, another one of 0.01. How many times
     as far does the first go in a step?
   - NET: the gradients are 3, -1, 3, -1, ... for 100 steps. Their mean is 1, so p
     should go down. How far down is it in the end, in units of LR?

    p           (K,)
    gradients   (T, K), a row for each step
    returns     p after T steps, (K,), in a new array

By hand, two steps of a single parameter, with the gradients 3 and -1:

    first = 0.001 * 3 / (3 + 1e-8) = 0.001
    second = 0.001 * -1 / (1 + 1e-8) = -0.001
    fresh(array([5.0]), array([[3.0], [-1.0]])) = [5 - 0.001 + 0.001] = [5.0]
    m = 0.9 * (0.1 * 3) + 0.1 * -1 = 0.17
    v = 0.999 * (0.001 * 3**2) + 0.001 * 1 = 0.009991
    step = 0.001 * (0.17 / (1 - 0.9**2)) / sqrt(0.009991 / (1 - 0.999**2)) = 0.0004
    persistent(array([5.0]), array([[3.0], [-1.0]])) = [5 - 0.001 - 0.0004] = [4.9986]

To check it: scratchnet study 14
"""

import numpy as np

LR, BETA1, BETA2, EPS = 1e-3, 0.9, 0.999, 1e-8

RATIO = None
NET = None


def adam_step(p, g, m, v, t):
    """One step of Adam: the new (p, m, v), in new arrays."""
    m = BETA1 * m + (1 - BETA1) * g
    v = BETA2 * v + (1 - BETA2) * g * g
    step = LR * (m / (1 - BETA1**t)) / (np.sqrt(v / (1 - BETA2**t)) + EPS)
    return p - step, m, v


def fresh(p, gradients):
    """p after one step for each gradient, each by a new Adam."""
    raise NotImplementedError


def persistent(p, gradients):
    """p after one step for each gradient, all by one Adam."""
    raise NotImplementedError
