import numpy as np


def test_linear_backward(linear_backward):
    rng = np.random.default_rng(0)
    for N, D, H in ((5, 7, 3), (4, 4, 4)):
        grad_output, x, weight = (
            rng.normal(size=(N, H)),
            rng.normal(size=(N, D)),
            rng.normal(size=(H, D)),
        )
        expected_x, expected_weight = np.zeros((N, D)), np.zeros((H, D))
        expected_bias = np.zeros(H)
        for n in range(N):
            for h in range(H):
                expected_bias[h] += grad_output[n, h]
                for d in range(D):
                    expected_x[n, d] += grad_output[n, h] * weight[h, d]
                    expected_weight[h, d] += grad_output[n, h] * x[n, d]
        expected = (expected_x, expected_weight, expected_bias)
        for found, right in zip(linear_backward(grad_output, x, weight), expected, strict=True):
            assert found.shape == right.shape
            np.testing.assert_allclose(found, right, rtol=1e-10, atol=1e-10)
