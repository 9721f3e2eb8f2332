import numpy as np


def nudged(loss, array, h=1e-3):
    gradient = np.zeros_like(array)
    for index in np.ndindex(array.shape):
        up, down = array.copy(), array.copy()
        up[index] += h
        down[index] -= h
        gradient[index] = (loss(up) - loss(down)) / (2 * h)
    return gradient


def test_linear_backward(linear_backward):
    rng = np.random.default_rng(1)
    g, x, weight, bias = (rng.normal(size=shape) for shape in ((4, 4), (4, 4), (4, 4), 4))
    grad_x, grad_weight, grad_bias = linear_backward(g, x, weight)
    assert grad_x.shape == x.shape
    assert grad_weight.shape == weight.shape
    assert grad_bias.shape == bias.shape
    # The loss is linear in each of them, so a central difference is off by rounding only.
    expected = nudged(lambda x: (g * (x @ weight.T + bias)).sum(), x)
    assert abs(grad_x - expected).max() < 1e-9
    expected = nudged(lambda weight: (g * (x @ weight.T + bias)).sum(), weight)
    assert abs(grad_weight - expected).max() < 1e-9
    expected = nudged(lambda bias: (g * (x @ weight.T + bias)).sum(), bias)
    assert abs(grad_bias - expected).max() < 1e-9
