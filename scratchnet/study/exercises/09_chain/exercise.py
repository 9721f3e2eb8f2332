"""Exercise 9: the whole chain.

All is there. The network, forward, is written below. Now the way back, a line for
each array, in this order, each made from those before it:

    dz2         from p and target: exercise 8
    dW2, db2    from dz2 and what went into the second layer: exercises 3 and 4
    dh          from dz2 and W2: exercise 3
    dz1         from dh and z1: exercise 5
    dW1, db1    from dz1 and what went into the first layer

You can check after each line: what is still None is waited for.

    x (N, D), target (N,), W1 (H, D), b1 (H,), W2 (C, H), b2 (C,)
    returns a dict with all arrays; each gradient has its array's shape

A tuple of the four gradients, (dW1, db1, dW2, db2), will do, too. But then it is
harder to tell you where a mistake is.

By hand, with one sample, and numbers chosen such that p is 1/2, 1/2. Unit 1 is
closed:

    x = [[1, 2]]
    W1 = [[1, 1], [1, -1]]
    W2 = [[1, 0], [0, 1]]
    b1 = [0, 0]
    b2 = [0, 3]
    z1 = [[1 + 2, 1 - 2]] = [[3, -1]]
    h = [[3, 0]]
    z2 = [[3, 0 + 3]]
    result = network_backward(x, array([0]), W1, b1, W2, b2)
    result["dz2"] = [[1/2 - 1, 1/2]] = [[-1/2, 1/2]]
    result["dW2"] = [[-1/2 * 3, 0], [1/2 * 3, 0]]
    result["db2"] = [-1/2, 1/2]
    result["dh"] = [[-1/2, 1/2]]
    result["dz1"] = [[-1/2, 0]]
    result["dW1"] = [[-1/2 * 1, -1/2 * 2], [0, 0]]
    result["db1"] = [-1/2, 0]

To check it: scratchnet study 9
"""

import numpy as np


def softmax(logits):
    """The probabilities, (N, C)."""
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def network_backward(x, target, W1, b1, W2, b2):
    """All gradients of the mean cross-entropy, and what they were made from."""
    z1 = x @ W1.T + b1
    h = np.maximum(z1, 0)
    z2 = h @ W2.T + b2
    p = softmax(z2)

    dz2 = None
    dW2 = None
    db2 = None
    dh = None
    dz1 = None
    dW1 = None
    db1 = None

    return {
        "z1": z1,
        "h": h,
        "z2": z2,
        "p": p,
        "dz2": dz2,
        "dW2": dW2,
        "db2": db2,
        "dh": dh,
        "dz1": dz1,
        "dW1": dW1,
        "db1": db1,
    }
