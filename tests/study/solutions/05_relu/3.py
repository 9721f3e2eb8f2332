def relu_forward(x):
    return x * (x > 0)


def relu_backward(grad_output, x):
    grad = grad_output.copy()
    grad[x <= 0] = 0
    return grad
