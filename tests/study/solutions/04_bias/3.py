import numpy as np


def grad_bias(grad_output):
    return np.ones(len(grad_output), grad_output.dtype) @ grad_output


def grad_offset(grad_output):
    return grad_output @ np.ones(grad_output.shape[1])


def grad_scale(grad_output, z):
    return np.diag(grad_output.T @ z)
