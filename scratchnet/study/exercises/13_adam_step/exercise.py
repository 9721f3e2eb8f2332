"""Exercise 13: one step of Adam.

Plain gradient descent moves a parameter by lr · g. Adam gives each number a step
size of its own, from two running means that it keeps from step to step:

    m ← BETA1 · m + (1 - BETA1) · g            the mean of g: which way, lately?
    v ← BETA2 · v + (1 - BETA2) · g²           the mean of g²: how large, lately?

Both start at 0, so at first they are too small: after t steps by just the factors
(1 - BETA1**t) and (1 - BETA2**t). Divide by these to correct it. Then step along
the corrected m, measured in the root of the corrected v, so that the step is about
LR, however large the gradients are:

    p ← p - LR · m_corrected / (√v_corrected + EPS)

    p, g, m, v    one number per parameter: any shape, the same for all
    t             which step this is; the first is 1
    returns       the new p, m and v, in new arrays; m and v as they are, not corrected

By hand, the first step of one parameter:

    new_m = 0.9 * 0 + 0.1 * 0.5 = 0.05
    new_v = 0.999 * 0 + 0.001 * 0.5**2 = 0.00025
    corrected_m = 0.05 / (1 - 0.9**1) = 0.5
    corrected_v = 0.00025 / (1 - 0.999**1) = 0.25
    new_p = 1 - 0.001 * 0.5 / (sqrt(0.25) + 1e-8) = 0.999
    adam_step(array([1.0]), array([0.5]), zeros(1), zeros(1), 1) = [[0.999], [0.05], [0.00025]]

To check it: scratchnet study 13
"""

LR, BETA1, BETA2, EPS = 1e-3, 0.9, 0.999, 1e-8


def adam_step(p, g, m, v, t):
    """The new (p, m, v) after step t, from the gradient g."""
    raise NotImplementedError
