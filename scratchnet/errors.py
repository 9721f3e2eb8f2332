"""The one exception of what a user gives: the command line prints its message and no traceback."""


class InputError(ValueError):
    """A file, an option or a device can't be used.

    The message is one line: what was wrong, what was expected, and what to do.
    """
