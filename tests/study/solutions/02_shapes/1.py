N, D, H, C = "NDHC"

z1 = (N, H)
h = (N, H)
z2 = (N, C)
p = (N, C)
loss = ()
dz2 = (N, C)
dW2 = (C, H)
db2 = (C,)
dh = (N, H)
dz1 = (N, H)
dW1 = (H, D)
db1 = (H,)
summed_in_dW2 = N
summed_in_dh = C
summed_in_dW1 = N
