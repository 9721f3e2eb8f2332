import numpy as np


def grad_bias(grad_output):
    return np.einsum("nh->h", grad_output)


def grad_offset(grad_output):
    return np.einsum("nh->n", grad_output)


def grad_scale(grad_output, z):
    return np.einsum("nh,nh->h", grad_output, z)
