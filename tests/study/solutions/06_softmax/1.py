import math

import numpy as np


def softmax_forward(x):
    rows = []
    for row in x:
        largest = max(row)
        e = [math.exp(z - largest) for z in row]
        rows.append([value / sum(e) for value in e])
    return np.array(rows)
