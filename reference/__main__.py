"""`python -m reference`: scratchnet and PyTorch in lock-step, every number beside its bound."""

from scratchnet import interrupts

with interrupts.told():
    from reference.command import main

    main(prog_name="python -m reference")
