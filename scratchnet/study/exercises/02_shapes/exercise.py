"""Exercise 2: shapes, on paper.

Here is the network of all the exercises. N samples, each a row of D numbers; H
hidden units; C classes. A layer's weight has a row for each number that comes out
of the layer.

    z1 = x @ W1.T + b1           x is (N, D), W1 is (H, D), b1 is (H,)
    h  = relu(z1)                each entry for itself
    z2 = h @ W2.T + b2           W2 is (C, H), b2 is (C,)
    p  = softmax(z2)             a probability for each class, for each sample
    loss                         one number: the mean over the samples

Going back, dW1 is short for ∂loss/∂W1: how the loss changes with each of the
numbers in W1.

1. Type in the shape of each array, in letters: (N, D), not (64, 784). Mind that one
   axis is (H,), with a comma, and that a single number has no axes: ().
2. In a product of matrices one letter is summed over and vanishes. In x @ W1.T it
   is D. Type in the letter that is summed over in three products of the way back,
   whatever is transposed in them: of dz2 and h, which makes dW2; of dz2 and W2,
   which makes dh; of dz1 and x, which makes dW1.

By hand, with N = 2 samples, D = 3 numbers in each, and H = 1 unit:

    x = [[1, 2, 3], [4, 5, 6]]
    W1 = [[1, 0, 2]]
    b1 = [10]
    x.shape = (2, 3)
    z1 = x @ W1.T + b1 = [[17], [26]]
    z1[0, 0] = 1 * 1 + 2 * 0 + 3 * 2 + 10 = 17
    z1.shape = (2, 1)

A row of x meets a row of W1, number by number: D terms are summed. N and H are
left.

To check it: scratchnet study 2
"""

N, D, H, C = "NDHC"

# 1. Shapes: forward, then back.
z1 = None
h = None
z2 = None
p = None
loss = None
dz2 = None
dW2 = None
db2 = None
dh = None
dz1 = None
dW1 = None
db1 = None

# 2. The letter that is summed over: N, D, H or C.
summed_in_dW2 = None
summed_in_dh = None
summed_in_dW1 = None
