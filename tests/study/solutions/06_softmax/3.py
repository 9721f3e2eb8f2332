import numpy as np


def softmax_forward(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / (e @ np.ones((x.shape[1], 1), x.dtype))
