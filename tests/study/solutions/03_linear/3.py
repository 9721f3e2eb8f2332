def scalar_backward(g, x, w):
    return (g * w, g * x)


def grad_weight_entry(grad_output, x, h, d):
    return grad_output[:, h] @ x[:, d]


def grad_x_entry(grad_output, weight, n, d):
    return grad_output[n] @ weight[:, d]


def grad_weight(grad_output, x):
    return (x.T @ grad_output).T


def grad_x(grad_output, weight):
    return grad_output @ weight
