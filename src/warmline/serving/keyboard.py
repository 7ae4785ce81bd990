"""What the user says next, from a keyboard or a pipe. The end of the input is an EOFError."""

import sys
from collections.abc import Callable, Iterable


def keyboard(commands: Iterable[str]) -> Callable[[], str]:
    """Asks at a prompt: editing, history, Tab for the commands; what is pasted is one message, whatever its lines.

    Ctrl-C is a key here and no signal, so it cannot come too early or too late; it raises KeyboardInterrupt.
    """
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import WordCompleter

    session: PromptSession[str] = PromptSession("> ", completer=WordCompleter(list(commands), sentence=True), complete_while_typing=False)
    return session.prompt


def piped() -> str:
    """The next line of a pipe or file, shown as if it had been typed."""
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    print(f"> {line.rstrip()}")
    return line
