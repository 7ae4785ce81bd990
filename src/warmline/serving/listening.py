"""The guard before everything else: what a request says is heard at once, whatever becomes of the request."""

import asyncio
import json
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from typing import Any, NamedTuple

from fastapi.responses import JSONResponse

from warmline.runs import parse_json
from warmline.safety.guard import Heard, hear
from warmline.serving.exchange import risk_field
from warmline.serving.http import ApiError
from warmline.serving.listener_process import begin

_ON_THE_SPOT = 4_000
"""Characters that the guard reads in about ten milliseconds; more are read by another process, beside this one's threads."""
_OF_A_TURN = 20_000
"""Characters that are heard of one turn, half of them at either end where it has more; a longer one is refused, and said again in parts."""
_OF_ALL = 60_000
"""Characters that are heard of a conversation: the newest turns."""
_LEAST = 100
"""Characters that a turn counts at least: the guard takes its time over an empty one, too."""
_NOT_THE_USER = ("assistant", "system", "developer", "tool", "function")
_REFUSED_UNSEEN = (401, 404, 405, 415, 421)
"""Statuses that a stranger may get as often as he likes: what he says is heard on the spot, and keeps no place in the queue."""
_MOST_TURNS = 500
_JSON_STRING = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\\?\Z)', re.DOTALL)  # no start can fail, so that it is read once


class Asked(NamedTuple):
    """What can be made of a request that was refused.

    Attributes:
        turns: What its user may have said.
        country: The one it names, or None.
        card: Whether its client shows the guard's message by itself.
    """

    turns: list[str]
    country: str | None
    card: bool


async def listen(turns: Sequence[str], country: str | None) -> Heard:
    """`guard.hear`, within bounds: about 20 milliseconds for each 10,000 characters.

    Args:
        turns: The user's, in order.
        country: Whose hotlines are shown.
    """
    newest: list[str] = []
    left = _OF_ALL
    for turn in reversed(turns[-_MOST_TURNS:]):
        cut = turn if len(turn) <= _OF_A_TURN else f"{turn[: _OF_A_TURN // 2]}\n{turn[-_OF_A_TURN // 2 :]}"
        if newest and len(cut) > left:
            break
        newest.append(cut)
        left -= max(len(cut), _LEAST)
    newest.reverse()
    if _OF_ALL - left <= _ON_THE_SPOT:
        return hear(newest, country)
    if len(newest[-1]) <= _ON_THE_SPOT and (heard := hear(newest[-1:], country)).alone:
        return heard
    try:
        return await asyncio.get_running_loop().run_in_executor(long_listener(), hear, newest, country)
    except Exception:  # killed from outside, or no memory to begin again; nobody goes unheard for that
        long_listener.cache_clear()
        return hear(newest, country)


@cache
def long_listener() -> ProcessPoolExecutor:
    """The process that reads what is long; it begins with the first text that it is given, in about a second."""
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=begin)


async def refusal(error: ApiError, body: bytes, country: str | None) -> JSONResponse:
    """The response to a request that cannot be served; where it speaks of a risk, with the guard's message.

    That stands under `warmline.risk`, as with a reply, and unless the client shows it by itself also before the error's own words, which is
    what most clients show.

    Args:
        error: Why it cannot be served.
        body: As far as it came.
        country: Whose hotlines are shown where the request names none.
    """
    asked = understand(body)
    country = asked.country or country
    turns = ["\n".join(asked.turns)[-_ON_THE_SPOT:]] if error.status in _REFUSED_UNSEEN else asked.turns
    heard = await listen(turns, country)
    response = error.response
    if heard.message is None:
        return response
    content = {**error.body, "warmline": {"risk": risk_field(heard, country)}}
    if not asked.card:
        content["error"]["message"] = f"{heard.message} (The request itself was refused: {content['error']['message']})"
    response.body = response.render(content)
    response.headers["content-length"] = str(len(response.body))
    return response


def understand(body: bytes) -> Asked:
    """What a request may say, of whatever shape and however broken.

    Args:
        body: As it came.
    """
    text = body.decode("utf-8", "replace")
    try:
        content = parse_json(text)
    except ValueError:
        return Asked([_unquoted(found) for found in _JSON_STRING.findall(text)[-_MOST_TURNS:]] or [text], None, False)
    if not isinstance(content, dict):
        return Asked(["\n".join(_texts(content))], None, False)
    messages = content.get("messages")
    each = messages[-_MOST_TURNS:] if isinstance(messages, list) else [messages]
    turns = ["\n".join(_texts(one)) for one in each if not _by_another(one)]
    turns += ["\n".join(_texts(content[name])) for name in ("prompt", "input") if name in content]
    ours = content.get("warmline")
    country, shown = (ours.get("country"), ours.get("crisis_message")) if isinstance(ours, dict) else (None, None)
    return Asked(turns, country if isinstance(country, str) else None, shown == "card")


def _by_another(message: Any) -> bool:
    return isinstance(message, dict) and message.get("role") in _NOT_THE_USER


def _texts(content: Any) -> Iterator[str]:
    """Every string in a JSON value, in order, its keys left out."""
    left = [content]
    while left:
        one = left.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, (list, dict)):
            left += reversed(list(one.values() if isinstance(one, dict) else one))


def _unquoted(found: str) -> str:
    """A string literal of JSON that may be broken."""
    inside = found[1:].removesuffix('"')
    try:
        return str(json.loads(f'"{inside}"', strict=False))
    except ValueError:
        return inside
