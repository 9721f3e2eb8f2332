N, D, H, C = "NDHC"

z1 = tuple("NH")
h = tuple("NH")
z2 = tuple("NC")
p = tuple("NC")
loss = tuple("")
dz2 = tuple("NC")
dW2 = tuple("CH")
db2 = tuple("C")
dh = tuple("NH")
dz1 = tuple("NH")
dW1 = tuple("HD")
db1 = tuple("H")
summed_in_dW2 = N
summed_in_dh = C
summed_in_dW1 = N
