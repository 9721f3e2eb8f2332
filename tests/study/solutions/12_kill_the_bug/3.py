import numpy as np


def test_linear_backward(linear_backward):
    rng = np.random.default_rng()
    for N, D, H in ((2, 3, 4), (3, 3, 3), (7, 2, 2)):
        g, x, w = rng.uniform(1, 2, (N, H)), rng.uniform(1, 2, (N, D)), rng.uniform(1, 2, (H, D))
        found = linear_backward(g, x, w)
        expected = (
            np.einsum("nh,hd->nd", g, w),
            np.einsum("nh,nd->hd", g, x),
            np.einsum("nh->h", g),
        )
        for a, b in zip(found, expected, strict=True):
            assert a.shape == b.shape
            assert np.allclose(a, b, rtol=1e-12, atol=0)
