import numpy as np


def grad_bias(grad_output):
    result = np.zeros(grad_output.shape[1])
    for row in grad_output:
        result += row
    return result


def grad_offset(grad_output):
    return np.array([sum(row) for row in grad_output])


def grad_scale(grad_output, z):
    result = np.zeros(z.shape[1])
    for n in range(len(z)):
        for h in range(z.shape[1]):
            result[h] += grad_output[n, h] * z[n, h]
    return result
