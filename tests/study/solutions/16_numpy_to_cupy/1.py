def loss_and_gradient(xp, logits, target):
    N, C = logits.shape
    z = logits - logits.max(axis=1, keepdims=True)
    e = xp.exp(z)
    total = e.sum(axis=1, keepdims=True)
    y = (target[:, None] == xp.arange(C)).astype(logits.dtype)
    loss = -(y * (z - xp.log(total))).sum() / N
    return loss, (e / total - y) / N
