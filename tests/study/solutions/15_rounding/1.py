U = 2.0**-24


def true_sum(x, w):
    total = 0.0
    for a, b in zip(x, w, strict=True):
        total += float(a) * float(b)
    return total


def bound(x, w):
    total = 0.0
    for a, b in zip(x, w, strict=True):
        total += abs(float(a) * float(b))
    return len(x) * U * total


def is_right(found, x, w):
    return abs(float(found) - true_sum(x, w)) <= bound(x, w)
