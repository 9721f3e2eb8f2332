"""Exercise 12: write the test that kills the survivors.

A test is worth as much as the bugs that it finds. The one below looks like a test:
it calls the function, looks at all three results, and passes. But it has 1 sample,
1 feature and 1 unit, and all numbers are 1. Nearly every wrong formula gives 1
there as well.

Rewrite test_linear_backward so that it passes for every right implementation, and
fails for every wrong one. `scratchnet study 12` plants eleven bugs, runs your test
on each, and names one that survives. It runs it on right implementations too, which
add up in another order than yours.

What you have to play with:
- which numbers go in, and of what shapes;
- what you expect of the results: work it out in another way, with loops, or by
  nudging (exercise 1): the loss Σ grad_output · y has grad_output as its ∂loss/∂y;
- how near is near enough: see np.testing.assert_allclose(found, expected, rtol=...,
  atol=...), and what it says about shapes that differ.

    linear_backward(grad_output, x, weight) returns (grad_x, grad_weight, grad_bias)
    grad_output (N, H), x (N, D), weight (H, D), all float64

By hand, why the test below is blind. A transpose, a mean, and an entry for a
product of matrices:

    one = [[1]]
    one.T @ one = one @ one = one * one = [[1]]
    one.sum(axis=0) = one.mean(axis=0) = one[0] = [1]

To check it: scratchnet study 12
"""

import numpy as np


def test_linear_backward(linear_backward):
    """Fail, by an assert, unless linear_backward is right."""
    one = np.ones((1, 1))
    grad_x, grad_weight, grad_bias = linear_backward(one, one, one)
    assert grad_x == 1
    assert grad_weight == 1
    assert grad_bias == 1
