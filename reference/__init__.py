"""The tutorial's model in PyTorch, against which scratchnet is held."""
