"""Exercise 7: cross-entropy, the long way round.

The loss of a sample is -log p[label]: how surprised the network is by the right
answer. The batch's loss is the mean over its N samples. What is ∂loss/∂logits? The
path goes through p:

    logits  →  p = softmax(logits)  →  -log p[label]  →  mean over N

Walk back along it, one step a function, for a single sample first:

1. grad_p: ∂(-log p[label])/∂p[k] for each class k.
2. jacobian: J[k, c] = ∂p[k]/∂logits[c]. Each probability depends on every logit of
   its row, so this is a table of C · C slopes:

    J[k, c] = p[k] · ((1 if k = c else 0) - p[c])

3. cross_entropy_backward: for each sample add up all paths to a logit, that is

    Σ_k grad_p[k] · J[k, c]

   and mind the mean.

    p, label        (C,), and a class number
    logits, target  (N, C), and (N,) class numbers
    returns         grad_p (C,), jacobian (C, C), the gradient of the logits (N, C)

By hand, with three classes, for a sample of label 0, and for a batch of two like
that:

    p = [1/2, 1/4, 1/4]
    grad_p(p, 0) = [-2, 0, 0]
    jacobian(p)[0] = [1/2 * (1 - 1/2), 1/2 * (0 - 1/4), 1/2 * (0 - 1/4)] = [1/4, -1/8, -1/8]
    row = [-2 * 1/4, -2 * -1/8, -2 * -1/8] = [-1/2, 1/4, 1/4]
    logits = log([[1/2, 1/4, 1/4], [1/2, 1/4, 1/4]])
    cross_entropy_backward(logits, array([0, 0])) = [row / 2, row / 2]

Look at the row: it is p, but for one entry. Is that a coincidence? See exercise 8.

To check it: scratchnet study 7
"""

import numpy as np


def softmax(logits):
    """The probabilities, (N, C)."""
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def grad_p(p, label):
    """∂(-log p[label])/∂p, (C,), of one sample's p, (C,)."""
    raise NotImplementedError


def jacobian(p):
    """J[k, c] = ∂p[k]/∂logits[c], (C, C), of one sample's p, (C,)."""
    raise NotImplementedError


def cross_entropy_backward(logits, target):
    """∂loss/∂logits, (N, C), where the loss is the mean over the N samples."""
    raise NotImplementedError
