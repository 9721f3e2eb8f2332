"""Exercise 11: a bug hunt.

Twelve people have written the network of exercise 9, and trained it with

    W1 = W1 - lr * dW1,   b1 = b1 - lr * db1,   and so on.

Each has made one mistake, in one line. You don't get to see their code, only what
they report. They have used 5 samples, 7 features, 3 hidden units, 4 classes, if
they don't say otherwise, and have compared each gradient with a central difference.
Which line has each of them? Type in its letter. Four of the lines belong to nobody.

    A   dz2 = p - y                                 instead of (p - y) / N
    B   dz2 = (y - p) / N
    C   dz2 = p / N
    D   p = e / e.sum(axis=0)                       instead of axis=1, keepdims=True
    E   dW2 = dz2.T @ z1                            instead of dz2.T @ h
    F   db2 = dz2.mean(axis=0)                      instead of dz2.sum(axis=0)
    G   dh = dz2 @ W2.T                             instead of dz2 @ W2
    H   dz1 = dh                                    instead of np.where(z1 > 0, dh, 0)
    I   dz1 = np.where(dh > 0, dh, 0)
    J   dz1 = np.where(z1 >= 0, dh, 0)
    K   dW1 = dz1.T @ x / N                         instead of dz1.T @ x
    L   db1 = dz1.sum()                             instead of dz1.sum(axis=0)
    M   W2 = W2 - lr * dW2; dh = dz2 @ W2           the update comes too early
    N   dW1 = dW1 + dz1.T @ x                       dW1 is 0 before the first step only
    O   dz2 = p / N; dz2[:, target] -= 1 / N        instead of dz2[range(N), target] -= 1 / N
    P   db1 = dz1[0]                                instead of dz1.sum(axis=0)

The reports:

    1   All gradients are 5 times too large. With one sample all gradients are right.
    2   The loss rises from the first step. All gradients have the right size.
    3   Each row of dz2 sums to 1/5. db2 has no negative entry.
    4   With one sample p is 1 for every class.
    5   dW2 is the only gradient that is wrong. Its column of a unit that is open for every sample
        is right.
    6   db2 is the only gradient that is wrong. With one sample it is right.
    7   It stops with a ValueError. With 4 hidden units it runs, and dh is wrong.
    8   The weights of a unit that is closed for every sample change. dW2 and db2 are right.
        dz1 has negative entries.
    9   dz1 has no negative entry. dh is right.
    10  All gradients are right. From b1 = 0, and a blank image as the only sample, b1 changes.
    11  In the first step all gradients are right. In the second step dW1 is wrong.
    12  dW2 and db2 are right. dW1 is wrong by a tenth as much, if lr is a tenth as large.

By hand, how a report gives a line away. In report 1 the factor is 5, and with one
sample it is 1:

    N = 5
    p_minus_y = [-0.7, 0.7]
    p_minus_y = [N * (-0.7 / N), N * (0.7 / N)]

so the factor is N, and it is in all gradients: look at the first of them.

To check it: scratchnet study 11
"""

REPORTS = {
    1: None,  # a letter, such as "A"
    2: None,
    3: None,
    4: None,
    5: None,
    6: None,
    7: None,
    8: None,
    9: None,
    10: None,
    11: None,
    12: None,
}
