import numpy as np


def softmax(logits):
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def network_backward(x, target, W1, b1, W2, b2):
    z1 = x @ W1.T + b1
    h = np.maximum(z1, 0)
    z2 = h @ W2.T + b2
    p = softmax(z2)

    dz2 = p.copy()
    dz2[range(len(x)), target] -= 1
    dz2 /= len(x)
    dW2 = dz2.T @ h
    db2 = dz2.sum(axis=0)
    dh = dz2 @ W2
    dz1 = np.where(z1 > 0, dh, 0)
    dW1 = dz1.T @ x
    db1 = dz1.sum(axis=0)

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
