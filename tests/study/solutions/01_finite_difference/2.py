def slope(loss, weight, index, h):
    row, column = index
    losses = []
    for sign in (1, -1):
        nudged = [[float(number) for number in numbers] for numbers in weight]
        nudged[row][column] += sign * h
        losses.append(loss(weight * 0 + nudged))
    return (losses[0] - losses[1]) / h / 2
