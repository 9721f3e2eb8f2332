import numpy as np


def scalar_backward(g, x, w):
    return [w * g, x * g]


def grad_weight_entry(grad_output, x, h, d):
    return (grad_output[:, h] * x[:, d]).sum()


def grad_x_entry(grad_output, weight, n, d):
    return sum(g * w for g, w in zip(grad_output[n], weight[:, d], strict=True))


def grad_weight(grad_output, x):
    return np.einsum("nh,nd->hd", grad_output, x)


def grad_x(grad_output, weight):
    return (grad_output[:, :, None] * weight[None]).sum(axis=1)
