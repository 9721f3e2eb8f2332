"""Exercise 3: a linear layer, backwards.

A linear layer makes y from x. Somebody later makes the loss L from y, and tells you
grad_output: ∂L/∂y, how the loss changes with each entry of y. From that and from
what you know of your own layer you work out how the loss changes with each entry of
x, and of the weight. That is all that a layer has to do in backprop, and it is the
chain rule: along each path from here to the loss multiply the slopes, and over all
paths add up.

Three steps, each a little larger than the last:

1. Numbers. y = x · w. Given g = ∂L/∂y, return (∂L/∂x, ∂L/∂w).
2. Sums. y[n, h] = Σ_d x[n, d] · weight[h, d]. Return a single entry of a gradient,
   with a loop or a sum over all paths from that entry to the loss:
   - weight[h, d] is used for every sample, so it reaches y[0, h], y[1, h], ...;
   - x[n, d] is used by every output, so it reaches y[n, 0], y[n, 1], ....
3. Matrices. All entries at once: y = x @ weight.T. What you summed over in step 2
   is the letter that vanishes in the product.

    grad_output   (N, H)
    x             (N, D)
    weight        (H, D)
    returns       grad_x (N, D), grad_weight (H, D): a gradient has its array's shape

By hand, with N = 2, D = 2, H = 1:

    x = [[1, 2], [3, 4]]
    weight = [[5, 6]]
    grad_output = [[10], [100]]
    scalar_backward(10, 3, 5) = [50, 30]
    grad_weight_entry(grad_output, x, 0, 1) = 10 * 2 + 100 * 4 = 420
    grad_x_entry(grad_output, weight, 1, 0) = 100 * 5 = 500
    grad_weight(grad_output, x) = [[10 * 1 + 100 * 3, 10 * 2 + 100 * 4]] = [[310, 420]]
    grad_x(grad_output, weight) = [[50, 60], [500, 600]]

To check it: scratchnet study 3
"""


def scalar_backward(g, x, w):
    """(∂L/∂x, ∂L/∂w) of y = x · w, where g = ∂L/∂y; all are numbers."""
    raise NotImplementedError


def grad_weight_entry(grad_output, x, h, d):
    """∂L/∂weight[h, d], a number."""
    raise NotImplementedError


def grad_x_entry(grad_output, weight, n, d):
    """∂L/∂x[n, d], a number."""
    raise NotImplementedError


def grad_weight(grad_output, x):
    """∂L/∂weight, (H, D)."""
    raise NotImplementedError


def grad_x(grad_output, weight):
    """∂L/∂x, (N, D)."""
    raise NotImplementedError
