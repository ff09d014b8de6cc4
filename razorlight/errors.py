"""The exceptions of razorlight, which the command line turns into a line or an exit status."""


class RazorError(ValueError):
    """A mistake that its user can mend: what was wrong, where, and the way out, in one line.

    The command line prints the message alone, without a traceback, and exits with status 1.

    Example:
        >>> from razorlight import Uniform
        >>> try:
        ...     Uniform(bits=7)
        ... except RazorError as error:
        ...     print(error)
        Uniform: bits must be one of [2, 3, 4, 5, 6, 8, 11], got 7
    """


class Terminated(BaseException):
    """SIGTERM, from a scheduler or a container, ended a run, which saved its state before."""
