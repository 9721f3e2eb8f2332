import numpy as np

LR, BETA1, BETA2, EPS = 1e-3, 0.9, 0.999, 1e-8

RATIO = 1.0
NET = -0.0


def adam_step(p, g, m, v, t):
    m = BETA1 * m + (1 - BETA1) * g
    v = BETA2 * v + (1 - BETA2) * g * g
    step = LR * (m / (1 - BETA1**t)) / (np.sqrt(v / (1 - BETA2**t)) + EPS)
    return p - step, m, v


class Adam:
    def __init__(self, p):
        self.p, self.m, self.v, self.t = p, np.zeros_like(p), np.zeros_like(p), 0

    def step(self, g):
        self.t += 1
        self.p, self.m, self.v = adam_step(self.p, g, self.m, self.v, self.t)


def fresh(p, gradients):
    for g in gradients:
        optimizer = Adam(p)
        optimizer.step(g)
        p = optimizer.p
    return p


def persistent(p, gradients):
    optimizer = Adam(p)
    for g in gradients:
        optimizer.step(g)
    return optimizer.p
