LR, BETA1, BETA2, EPS = 1e-3, 0.9, 0.999, 1e-8


def adam_step(p, g, m, v, t):
    m = m + (1 - BETA1) * (g - m)
    v = v + (1 - BETA2) * (g * g - v)
    root = v**0.5 / (1 - BETA2**t) ** 0.5
    return [p - LR / (1 - BETA1**t) * (m / (root + EPS)), m, v]
