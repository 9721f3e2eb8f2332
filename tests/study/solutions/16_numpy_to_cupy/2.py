def loss_and_gradient(xp, logits, target):
    N = len(logits)
    rows = xp.arange(N)
    z = logits - logits.max(axis=1, keepdims=True)
    log_p = z - xp.log(xp.exp(z).sum(axis=1, keepdims=True))
    gradient = xp.exp(log_p)
    gradient[rows, target] -= 1
    gradient /= N
    return -log_p[rows, target].mean(), gradient
