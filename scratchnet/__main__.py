"""`scratchnet`, and the same as `python -m scratchnet`."""

from scratchnet import interrupts


def main() -> None:
    """The command line."""
    with interrupts.told():  # Ctrl-C during the imports, too
        from scratchnet.cli import main as commands

        commands(prog_name="scratchnet")


if __name__ == "__main__":
    main()
