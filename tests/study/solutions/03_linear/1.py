import numpy as np


def scalar_backward(g, x, w):
    return g * w, g * x


def grad_weight_entry(grad_output, x, h, d):
    total = 0.0
    for n in range(len(x)):
        total += grad_output[n, h] * x[n, d]
    return total


def grad_x_entry(grad_output, weight, n, d):
    total = 0.0
    for h in range(len(weight)):
        total += grad_output[n, h] * weight[h, d]
    return total


def grad_weight(grad_output, x):
    result = np.zeros((grad_output.shape[1], x.shape[1]))
    for g, row in zip(grad_output, x, strict=True):
        for h in range(len(g)):
            result[h] += g[h] * row
    return result


def grad_x(grad_output, weight):
    result = np.zeros((len(grad_output), weight.shape[1]))
    for n in range(len(grad_output)):
        for h in range(len(weight)):
            result[n] += grad_output[n, h] * weight[h]
    return result
