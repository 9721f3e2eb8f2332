"""`python -m benchmarks`: how fast is scratchnet beside PyTorch and others, and why."""

from scratchnet import interrupts

if __name__ == "__main__":
    with interrupts.told():
        from benchmarks.command import main

        main(prog_name="python -m benchmarks")
