import numpy as np


def softmax(logits):
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def cross_entropy_backward(logits, target):
    p = softmax(logits)
    grad = np.zeros(p.shape)
    for n in range(len(p)):
        for c in range(p.shape[1]):
            y = 1 if target[n] == c else 0
            grad[n, c] = (p[n, c] - y) / len(p)
    return grad
