TWICE = {"loss": "same", "dz2": "half", "dW2": "same", "db1": "same"}
FLIP = {"z2": "same", "dz2[0]": "other", "dz2[1]": "same", "dW2[2]": "same", "dW1": "other"}
DEAD = {
    "dW1[0]": "zero",
    "dW1[1]": "other",
    "dW2[:, 0]": "zero",
    "dh[:, 0]": "other",
    "db2": "other",
}
