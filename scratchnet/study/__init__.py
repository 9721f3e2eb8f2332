"""The guided way through backprop: what goes wrong, and how to tell from the numbers what did."""
