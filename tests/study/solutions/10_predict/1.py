SAME, HALF, DOUBLE, ZERO, OTHER = "same", "half", "double", "zero", "other"

TWICE = {"loss": SAME, "dz2": HALF, "dW2": SAME, "db1": SAME}
FLIP = {"z2": SAME, "dz2[0]": OTHER, "dz2[1]": SAME, "dW2[2]": SAME, "dW1": OTHER}
DEAD = {"dW1[0]": ZERO, "dW1[1]": OTHER, "dW2[:, 0]": ZERO, "dh[:, 0]": OTHER, "db2": OTHER}
