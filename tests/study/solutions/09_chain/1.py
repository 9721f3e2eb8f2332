import numpy as np


def softmax(logits):
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def network_backward(x, target, W1, b1, W2, b2):
    z1 = x @ W1.T + b1
    h = np.maximum(z1, 0)
    z2 = h @ W2.T + b2
    p = softmax(z2)
    N, C = p.shape
    D, H = x.shape[1], len(W1)
    dz2, dW2, db2 = np.zeros((N, C)), np.zeros((C, H)), np.zeros(C)
    dh, dz1, dW1, db1 = np.zeros((N, H)), np.zeros((N, H)), np.zeros((H, D)), np.zeros(H)
    for n in range(N):
        for c in range(C):
            dz2[n, c] = (p[n, c] - (c == target[n])) / N
            db2[c] += dz2[n, c]
            for j in range(H):
                dW2[c, j] += dz2[n, c] * h[n, j]
                dh[n, j] += dz2[n, c] * W2[c, j]
        for j in range(H):
            if z1[n, j] > 0:
                dz1[n, j] = dh[n, j]
            db1[j] += dz1[n, j]
            dW1[j] += dz1[n, j] * x[n]
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
