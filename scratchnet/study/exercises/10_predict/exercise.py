"""Exercise 10: predict, then run.

Whoever understands backprop can say what a change will do before it is tried. Three
experiments with the network of exercise 9. For each array say what becomes of it:

    SAME      not changed at all
    HALF      each number is half as large
    DOUBLE    each number is twice as large
    ZERO      all numbers are 0 now
    OTHER     changed in some other way

First type in all your predictions. Then run this file, python 10_predict.py, and
see.

1. TWICE. Each sample of the batch is put into it a second time: N doubles, and
   nothing is new. "dz2" is the row of dz2 that belongs to the first sample.
2. FLIP. The label of sample 0 is changed from class 0 to class 1; there are three
   classes. dz2[0] and dz2[1] are rows of samples, dW2[2] is the row of the third
   class.
3. DEAD. The bias of hidden unit 0 is set to -100, so that it is closed for every
   sample. dW1[0] and dW1[1] are rows of units, dW2[:, 0] and dh[:, 0] are the
   columns of unit 0.

By hand, what a mean over the samples does to two samples with the losses 1 and 3,
once and twice:

    once = (1 + 3) / 2 = 2
    twice = (1 + 1 + 3 + 3) / 4 = 2

To check it: scratchnet study 10
"""

import numpy as np

SAME, HALF, DOUBLE, ZERO, OTHER = "same", "half", "double", "zero", "other"

TWICE = {
    "loss": None,
    "dz2": None,
    "dW2": None,
    "db1": None,
}
FLIP = {
    "z2": None,
    "dz2[0]": None,
    "dz2[1]": None,
    "dW2[2]": None,
    "dW1": None,
}
DEAD = {
    "dW1[0]": None,
    "dW1[1]": None,
    "dW2[:, 0]": None,
    "dh[:, 0]": None,
    "db2": None,
}


def network(x, target, W1, b1, W2, b2):
    """All arrays of the network, forward and back, by name."""
    N = len(x)
    z1 = x @ W1.T + b1
    h = np.maximum(z1, 0)
    z2 = h @ W2.T + b2
    e = np.exp(z2 - z2.max(axis=1, keepdims=True))
    p = e / e.sum(axis=1, keepdims=True)
    loss = -np.log(p[np.arange(N), target]).mean()
    dz2 = p / N
    dz2[np.arange(N), target] -= 1 / N
    dW2, db2, dh = dz2.T @ h, dz2.sum(axis=0), dz2 @ W2
    dz1 = np.where(z1 > 0, dh, 0)
    dW1, db1 = dz1.T @ x, dz1.sum(axis=0)
    return locals()


def run():
    """Print what the three experiments do to some arrays."""
    rng = np.random.default_rng()
    x, target = rng.normal(size=(3, 4)), np.array([0, 1, 2])
    W1, b1, W2, b2 = (rng.normal(size=shape) for shape in ((2, 4), 2, (3, 2), 3))
    before = network(x, target, W1, b1 + 2, W2, b2)
    twice = network(np.repeat(x, 2, axis=0), np.repeat(target, 2), W1, b1 + 2, W2, b2)
    flip = network(x, np.array([1, 1, 2]), W1, b1 + 2, W2, b2)
    dead = network(x, target, W1, np.array([-100, b1[1] + 2]), W2, b2)
    for name in ("loss", "z2", "dz2", "dW2", "db2", "dh", "dz1", "dW1", "db1"):
        print(f"\n{name} before:\n{before[name]}")
        for title, after in (("TWICE", twice), ("FLIP", flip), ("DEAD", dead)):
            print(f"{title}:\n{after[name]}")


if __name__ == "__main__":
    np.set_printoptions(precision=3, suppress=True)
    run()
