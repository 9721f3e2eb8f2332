"""Exercise 1: nudge one weight.

A network turns its weights into one number, the loss, which tells how wrong it is.
The gradient of a weight answers a plain question: if this one weight grows a
little, how much does the loss grow, per unit of growth? The other exercises find
that answer by thinking. This one finds it by trying, which is slow, needs no
calculus, and can hardly go wrong. It is what you can hold every gradient against
that you will ever write.

Write slope(): nudge weight[index] up by h and take the loss; nudge it down by h and
take the loss; divide the difference by the distance between the two. This is the
central difference.

    loss      a function: loss(weight) is a number
    weight    (H, D), H rows and D columns; leave it as it was
    index     (row, column) of the one weight that is nudged
    h         how far, a small number
    returns   a number

By hand, where the loss is the first weight squared, times the second:

    weight = [[3, 2]]
    up = 3.1**2 * 2 = 19.22
    down = 2.9**2 * 2 = 16.82
    slope(lambda w: w[0, 0] ** 2 * w[0, 1], weight, (0, 0), 0.1) = (up - down) / 0.2 = 12

And the derivative, 2 · 3 · 2, is 12 as well.

To check it: scratchnet study 1
"""


def slope(loss, weight, index, h):
    """The central difference of the loss, at weight[index]."""
    raise NotImplementedError
