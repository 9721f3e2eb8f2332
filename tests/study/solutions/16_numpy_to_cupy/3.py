import numpy as np


def loss_and_gradient(xp, logits, target):
    N, C = logits.shape
    column = target.reshape(N, 1)
    z = logits - xp.max(logits, axis=1)[:, None]
    log_sum = np.log(np.exp(z).sum(axis=1))
    loss = xp.mean(log_sum - xp.take_along_axis(z, column, axis=1)[:, 0])
    is_label = xp.arange(C)[None] == column
    p = np.exp(z - log_sum[:, None])
    return loss, xp.where(is_label, p - 1, p) / N
