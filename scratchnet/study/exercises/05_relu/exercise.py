"""Exercise 5: the ReLU, and what happens at 0.

    y = max(x, 0)

Where x is positive, y follows it: slope 1. Where x is negative, y stays 0: slope 0.
So going back, an entry's gradient either passes as it is or is stopped, and what
decides is x, as it was on the way forward.

At exactly 0 there is a corner and no slope. The slope from the right is 1, from the
left 0, and something has to be chosen. PyTorch chooses 0, and so do we. It matters
more than it seems: where the biases start at 0, every hidden unit gets exactly 0
from a blank image.

    x             (N, H), or any shape
    grad_output   ∂L/∂y, of x's shape
    returns       y and ∂L/∂x, of x's shape, in new arrays

By hand:

    x = [[-2, 0, 3]]
    grad_output = [[5, 7, -4]]
    relu_forward(x) = [[0, 0, 3]]
    relu_backward(grad_output, x) = [[0, 0, -4]]

To check it: scratchnet study 5
"""


def relu_forward(x):
    """max(x, 0), entry by entry."""
    raise NotImplementedError


def relu_backward(grad_output, x):
    """∂L/∂x, from grad_output = ∂L/∂y."""
    raise NotImplementedError
