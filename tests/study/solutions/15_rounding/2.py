import numpy as np

U = 2.0**-24


def true_sum(x, w):
    return x.astype(np.float64) @ w.astype(np.float64)


def bound(x, w):
    D = len(x)
    return D * U / (1 - D * U) * abs(x.astype(np.float64)) @ abs(w.astype(np.float64))


def is_right(found, x, w):
    error = np.float64(found) - true_sum(x, w)
    return -bound(x, w) <= error <= bound(x, w)
