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
    for g in gradients:
        p, _, _ = adam_step(p, g, 0.0, 0.0, 1)
    return p


def persistent(p, gradients):
    m = v = 0.0
    for t, g in enumerate(gradients, start=1):
        p, m, v = adam_step(p, g, m, v, t)
    return p
