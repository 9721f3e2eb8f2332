import math

import numpy as np


def true_sum(x, w):
    return math.fsum(np.float64(x) * np.float64(w))


def bound(x, w):
    eps = np.finfo(np.float32).eps
    return float(len(x) * eps * np.abs(x * w).sum())


def is_right(found, x, w):
    return bool(np.isclose(found, true_sum(x, w), rtol=0, atol=bound(x, w)))
