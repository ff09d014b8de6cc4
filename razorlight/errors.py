"""The one exception that speaks to users."""


class RazorError(ValueError):
    """A mistake that its user can mend: what was wrong, where, and the way out, in one line.

    The command line prints the message alone, without a traceback, and exits with status 1.
    """
