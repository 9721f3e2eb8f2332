def slope(loss, weight, index, h):
    up, down = weight.copy(), weight.copy()
    up[index] += h
    down[index] -= h
    return (loss(up) - loss(down)) / (2 * h)
