"""The one exception that a user sees as a single line."""


class WarmlineError(Exception):
    """Bad input or a broken environment. The message names the place, what was expected and how to mend it.

    The command line prints it on one line and exits with status 2.
    """


def printable(text: str) -> str:
    """Text on one line that cannot steer a terminal, whoever chose its names: line ends, escapes, lone surrogates in Python's notation."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
