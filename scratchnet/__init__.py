"""A neural network from scratch: backprop by hand, on NumPy and CuPy arrays."""

__version__ = "0.1.0"
