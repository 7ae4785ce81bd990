"""A progress bar on standard error while a person waits; nothing when nobody watches."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress, track

Item = TypeVar("Item")


def watched(items: Sequence[Item], doing: str) -> Iterable[Item]:
    """The items, with a bar that goes away when they are done.

    Args:
        items: What is worked through.
        doing: Shown beside the bar.
    """
    console = Console(stderr=True)
    return track(items, doing, console=console, transient=True, disable=not _seen(console))


@contextmanager
def counted(total: int, doing: str) -> Iterator[Callable[[], None]]:
    """A bar for what is done elsewhere: gives a function to be called for each of the things.

    Args:
        total: How many there will be.
        doing: Shown beside the bar.
    """
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not _seen(console)) as progress:
        task = progress.add_task(doing, total=total)
        yield lambda: progress.advance(task)


def _seen(console: Console) -> bool:
    return console.is_terminal and sys.stderr.isatty()
