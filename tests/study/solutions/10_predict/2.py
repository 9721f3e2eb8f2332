SAME, HALF, DOUBLE, ZERO, OTHER = "same", "half", "double", "zero", "other"

TWICE = dict.fromkeys(("loss", "dW2", "db1"), SAME)
TWICE["dz2"] = HALF
FLIP = dict.fromkeys(("z2", "dz2[1]", "dW2[2]"), SAME)
FLIP["dz2[0]"] = FLIP["dW1"] = OTHER
DEAD = dict.fromkeys(("dW1[0]", "dW2[:, 0]"), ZERO)
DEAD |= dict.fromkeys(("dW1[1]", "dh[:, 0]", "db2"), OTHER)
