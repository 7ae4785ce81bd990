"""The one exception that a user sees as a single line."""


class WarmlineError(Exception):
    """Bad input or a broken environment. The message names the place, what was expected and how to mend it.

    The command line prints it on one line and exits with status 2.
    """
