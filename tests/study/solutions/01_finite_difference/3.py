import numpy as np


def slope(loss, weight, index, h):
    before = weight[index]
    weight[index] = before + h
    up = loss(weight)
    weight[index] = before - h
    down = loss(weight)
    weight[index] = before
    return np.float64(up - down) / (2 * h)
