"""The guard before everything else: what was said is heard within bounds, and what is long by a process of its own.

That process imports this module, so it imports little: then the process is there soon.
"""

import asyncio
import os
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context, parent_process
from typing import Any

from warmline.safety.crisis import resources
from warmline.safety.guard import Heard, hear

ON_THE_SPOT = 4_000
"""Characters that the guard reads in about ten milliseconds; more are read by another process, beside this one's threads."""
MOST_TURNS = 500
_OF_A_TURN = 20_000
"""Characters that are heard of one turn, half of them at either end where it has more; a longer one is refused, and said again in parts."""
_OF_ALL = 60_000
"""Characters that are heard of a conversation: the newest turns."""
_LEAST = 100
"""Characters that a turn counts at least: the guard takes its time over an empty one, too."""


async def listen(turns: Sequence[str], country: str | None) -> Heard:
    """`guard.hear`, within bounds: about 20 milliseconds for each 10,000 characters.

    Args:
        turns: The user's, in order.
        country: Whose hotlines are shown.
    """
    newest: list[str] = []
    left = _OF_ALL
    for turn in reversed(turns[-MOST_TURNS:]):
        cut = turn if len(turn) <= _OF_A_TURN else f"{turn[: _OF_A_TURN // 2]}\n{turn[-_OF_A_TURN // 2 :]}"
        if newest and len(cut) > left:
            break
        newest.append(cut)
        left -= max(len(cut), _LEAST)
    newest.reverse()
    if _OF_ALL - left <= ON_THE_SPOT:
        return hear(newest, country)
    if len(newest[-1]) <= ON_THE_SPOT and (heard := hear(newest[-1:], country)).alone:
        return heard
    try:
        return await asyncio.get_running_loop().run_in_executor(long_listener(), hear, newest, country)
    except Exception:  # killed from outside, or no memory to begin again; nobody goes unheard for that
        long_listener.cache_clear()
        return hear(newest, country)


@cache
def long_listener() -> ProcessPoolExecutor:
    """The process that reads what is long; it begins with the first text that it is given, in about a second."""
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_begin)


def _begin() -> None:
    """Leave Ctrl-C to the server, and end when it ends, however it does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_server, daemon=True).start()


def _end_with_the_server() -> None:
    server = parent_process()
    if server is not None:
        server.join()
        os._exit(0)


def risk_field(heard: Heard, country: str | None) -> dict[str, Any]:
    """What the API says of a risk, with every reply and with every error.

    Args:
        heard: By the guard.
        country: Whose hotlines are shown; None for the row that names no number.
    """
    row = resources(country)
    return {
        "level": heard.risk.level,
        "categories": list(heard.risk.categories),
        "message": heard.message,
        "alone": heard.alone,
        "country": row.country,
        "crisis_line": row.crisis_line,
        "emergency_number": row.emergency_number,
    }
