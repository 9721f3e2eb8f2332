import numpy as np

LR, BETA1, BETA2, EPS = 1e-3, 0.9, 0.999, 1e-8

RATIO = 1
NET = 0


def adam_step(p, g, m, v, t):
    m = BETA1 * m + (1 - BETA1) * g
    v = BETA2 * v + (1 - BETA2) * g * g
    step = LR * (m / (1 - BETA1**t)) / (np.sqrt(v / (1 - BETA2**t)) + EPS)
    return p - step, m, v


def fresh(p, gradients):
    return p - LR * (gradients / (abs(gradients) + EPS)).sum(axis=0)


def persistent(p, gradients):
    T = len(gradients)
    back = np.subtract.outer(np.arange(T), np.arange(T))
    t = np.arange(1, T + 1)[:, None]
    m = np.where(back >= 0, (1 - BETA1) * BETA1 ** abs(back), 0) @ gradients / (1 - BETA1**t)
    v = np.where(back >= 0, (1 - BETA2) * BETA2 ** abs(back), 0) @ gradients**2 / (1 - BETA2**t)
    return p - LR * (m / (np.sqrt(v) + EPS)).sum(axis=0)
