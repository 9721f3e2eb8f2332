import math

import numpy as np

LR, BETA1, BETA2, EPS = 1e-3, 0.9, 0.999, 1e-8


def adam_step(p, g, m, v, t):
    new_p, new_m, new_v = np.zeros_like(p), np.zeros_like(p), np.zeros_like(p)
    for i in range(len(p)):
        new_m[i] = BETA1 * m[i] + (1 - BETA1) * g[i]
        new_v[i] = BETA2 * v[i] + (1 - BETA2) * g[i] ** 2
        m_hat = new_m[i] / (1 - BETA1**t)
        v_hat = new_v[i] / (1 - BETA2**t)
        new_p[i] = p[i] - LR * m_hat / (math.sqrt(v_hat) + EPS)
    return new_p, new_m, new_v
