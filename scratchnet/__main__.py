"""`python -m scratchnet`, the same as `scratchnet`."""

from scratchnet.cli import main

main(prog_name="scratchnet")
