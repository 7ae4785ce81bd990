"""A progress bar on standard error while a person waits; nothing when nobody watches."""

import sys
from collections.abc import Iterable, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import track

Item = TypeVar("Item")


def watched(items: Sequence[Item], doing: str) -> Iterable[Item]:
    """The items, with a bar that goes away when they are done.

    Args:
        items: What is worked through.
        doing: Shown beside the bar.
    """
    console = Console(stderr=True)
    return track(items, doing, console=console, transient=True, disable=not (console.is_terminal and sys.stderr.isatty()))
