"""What the user says next, from a keyboard or a pipe. The end of the input is an EOFError."""

import os
import select
import sys

_PAUSE = 0.03
"""Seconds after which the next line was typed, and not pasted with the last one."""


def typed() -> str:
    """A line from the keyboard, with history and editing where readline is there; pasted lines are one message."""
    try:
        import readline
    except ImportError:
        pass
    else:
        readline.parse_and_bind("set enable-bracketed-paste on")
    said = input("> ")
    while os.name == "posix" and select.select([sys.stdin], [], [], _PAUSE)[0]:  # pasted into a terminal without bracketed paste
        try:
            said += "\n" + input()
        except EOFError:
            break
    return said


def piped() -> str:
    """The next line of a pipe or file, shown as if it had been typed."""
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    print(f"> {line.rstrip()}")
    return line
