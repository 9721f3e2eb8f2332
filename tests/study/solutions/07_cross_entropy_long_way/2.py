import numpy as np


def softmax(logits):
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def grad_p(p, label):
    return np.where(np.arange(len(p)) == label, -1, 0) / p


def jacobian(p):
    return p[:, None] * (np.eye(len(p)) - p)


def cross_entropy_backward(logits, target):
    p = softmax(logits)
    slopes = np.stack([grad_p(row, label) for row, label in zip(p, target, strict=True)])
    tables = np.stack([jacobian(row) for row in p])
    return np.einsum("nk,nkc->nc", slopes, tables) / len(p)
