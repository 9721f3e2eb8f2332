"""Exercise 6: a softmax that can't overflow.

The last layer gives each class a number, a logit, of any size and sign. The softmax
makes probabilities of a row of them: all positive, and 1 in sum.

    p[c] = exp(x[c]) / Σ_k exp(x[k])

Written like that it breaks: exp(1000) is infinite, and infinity divided by infinity
is nan. But add the same number to all logits of a row, and each exp gets the same
factor, which cancels. So you may choose a number to add, such that no exp can
overflow.

Each sample is a row, and has its own sum.

    x         (N, C)
    returns   p, (N, C), in a new array

By hand, with logits that exp can't take, where one row is the other, shifted:

    x = [[1001, 1000, 1000], [1, 0, 0]]
    exp(0) + exp(-1) + exp(-1) = 1.7358
    softmax_forward(x) = [[1 / 1.7358, 0.3679 / 1.7358, 0.3679 / 1.7358], [0.5761, 0.2119, 0.2119]]

To check it: scratchnet study 6
"""


def softmax_forward(x):
    """The probabilities, (N, C), of logits x, (N, C)."""
    raise NotImplementedError
