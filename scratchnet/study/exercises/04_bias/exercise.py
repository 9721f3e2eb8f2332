"""Exercise 4: what is broadcast forward is summed backward.

y = x @ weight.T + bias adds one row, the bias, to N rows. NumPy does not mind: it
broadcasts, that is, it uses the same numbers N times. So a number in the bias has N
paths to the loss, one through each sample, and the chain rule adds up all paths.

1. bias is (H,), added to every row:

       y = z + bias

   Given grad_output = ∂L/∂y, (N, H), return ∂L/∂bias, (H,).
2. offset is (N,), added to every column:

       y = z + offset[:, None]

   Return ∂L/∂offset, (N,).
3. scale is (H,), and each row is multiplied by it:

       y = z * scale

   Return ∂L/∂scale, (H,). Now every path has a slope of its own.

    grad_output   (N, H)
    z             (N, H)

By hand, with N = 2 and H = 3:

    grad_output = [[1, 2, 3], [10, 20, 30]]
    z = [[1, 0, 2], [5, 1, 0]]
    grad_bias(grad_output) = [1 + 10, 2 + 20, 3 + 30] = [11, 22, 33]
    grad_offset(grad_output) = [1 + 2 + 3, 10 + 20 + 30] = [6, 60]
    grad_scale(grad_output, z) = [1 * 1 + 10 * 5, 2 * 0 + 20 * 1, 3 * 2 + 30 * 0] = [51, 20, 6]

To check it: scratchnet study 4
"""


def grad_bias(grad_output):
    """∂L/∂bias, (H,), of y = z + bias."""
    raise NotImplementedError


def grad_offset(grad_output):
    """∂L/∂offset, (N,), of y = z + offset[:, None]."""
    raise NotImplementedError


def grad_scale(grad_output, z):
    """∂L/∂scale, (H,), of y = z * scale."""
    raise NotImplementedError
