"""The one exception that a user sees as a single line, and strangers' words made fit to stand in it."""

from typing import Any


class WarmlineError(Exception):
    """Bad input or a broken environment. The message names the place, what was expected and how to mend it.

    The command line prints it on one line and exits with status 2.
    """


class AnswersNeeded(WarmlineError):  # noqa: N818 - nothing went wrong
    """The command went as far as it can before somebody has answered; the message says what, and where. The exit status is 3."""


def refuse_half_characters(text: str) -> None:
    """Refuse half of a surrogate pair, which JSON can escape and no tokenizer reads.

    Raises:
        ValueError: names it.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"half a surrogate pair (\\u{ord(text[error.start]):04x}) is no text") from None


def printable(text: str) -> str:
    """Text on one line that cannot steer a terminal, whoever chose its names: line ends, escapes, lone surrogates in Python's notation."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def one_line(text: str, most: int = 200) -> str:
    """A stranger's text on one line of at most so many characters; what cannot be printed, such as a terminal's codes, is a space."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text[: 20 * most]).split())
    return line if len(line) <= most else f"{line[: most - 3]}..."


def reason_of(error: BaseException, most: int = 200) -> str:
    """What an exception of somebody else's library says, as `one_line`; its kind where it says nothing."""
    return one_line(str(error), most) or type(error).__name__


def shown(value: Any) -> str:
    """A wrong value, short and on one line; of a list or an object, only that it is one."""
    if not (value is None or isinstance(value, str | int | float)):
        return f"a {type(value).__name__}"
    try:
        return one_line(str(value), 40)
    except ValueError:  # Python prints no integer of thousands of digits
        return "a number too long to print"
