import numpy as np


def relu_forward(x):
    y = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        if x[index] > 0:
            y[index] = x[index]
    return y


def relu_backward(grad_output, x):
    grad = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        if x[index] > 0:
            grad[index] = grad_output[index]
    return grad
