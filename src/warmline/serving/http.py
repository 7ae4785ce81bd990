"""What stands around every request: headers, hosts, a limit on bodies; and errors as OpenAI's clients expect them, heard by the guard."""

import asyncio
import ipaddress
import json
import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, NamedTuple

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from warmline.runs import parse_json
from warmline.serving.listening import MOST_TURNS, ON_THE_SPOT, listen, risk_field

SECURITY = {
    "content-security-policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
_DRAINED = 64 * 2**20
"""Bytes of a body that is too long after which its connection is closed instead."""
_TAIL = 128 * 2**10
"""Bytes that are kept of the end of a body that is too long: the newest of what was said stands there."""
_NOT_THE_USER = ("assistant", "system", "developer", "tool", "function")
_REFUSED_UNSEEN = (401, 404, 405, 415, 421)
"""Statuses that a stranger may get as often as he likes: what he says is heard on the spot, and keeps no place in the queue."""
_JSON_STRING = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\\?\Z)', re.DOTALL)  # no start can fail, so that it is read once

Refuse = Callable[["ApiError", bytes], Awaitable[JSONResponse]]


class ApiError(Exception):
    """What a client is told.

    Args:
        status: HTTP status.
        message: One line.
        code: OpenAI's word for it.
        param: The field it is about.
        retry_after: Seconds until another attempt makes sense.
    """

    def __init__(
        self, status: int, message: str, code: str | None = None, param: str | None = None, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param, self.retry_after = status, code, param, retry_after

    @property
    def body(self) -> dict[str, Any]:
        """OpenAI's error object."""
        kind = "server_error" if self.status >= 500 else "rate_limit_error" if self.status == 429 else "invalid_request_error"
        message = str(self).encode("utf-8", "replace").decode()
        return {"error": {"message": message, "type": kind, "param": self.param, "code": self.code}}


class Gate:
    """Reads a request's body up to a limit before the application sees it, and puts the same headers on every response.

    A body that is too long is read on without being kept, so that a client that sends first and reads later gets its answer.

    What was sent is kept as `scope["state"]["body"]` for those who answer errors.

    Args:
        app: What it stands before.
        refuse: Makes the response to an error from the body as far as it came.
        body_bytes: Longest body.
        body_seconds: Longest time that sending it may take.
        local_only: Refuse a `Host` that is not this machine: a page elsewhere could otherwise reach a server without a key by giving its
            own name this machine's address.
    """

    def __init__(self, app: ASGIApp, refuse: Refuse, body_bytes: int, body_seconds: float, local_only: bool) -> None:
        self._app, self._refuse = app, refuse
        self._bytes, self._seconds, self._local_only = body_bytes, body_seconds, local_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY.items():
                    headers.setdefault(name, value)
            await send(message)

        parts: list[bytes] = []
        try:
            whole = await asyncio.wait_for(self._read(scope, receive, parts), self._seconds)
            if self._local_only and not _is_local(Headers(scope=scope).get("host", "")):
                raise ApiError(421, "this server answers on this machine only; start it with --host and an API key for others")
        except (ApiError, asyncio.TimeoutError) as error:
            told = error if isinstance(error, ApiError) else ApiError(408, f"the body took longer than {self._seconds:g} seconds")
            response = await self._refuse(told, b"".join(parts))
            await response(scope, receive, send_with_headers)
            return
        body = b"".join(parts)
        scope.setdefault("state", {})["body"] = body
        if not whole:
            return
        given = False

        async def replay() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, replay, send_with_headers)

    async def _read(self, scope: Scope, receive: Receive, parts: list[bytes]) -> bool:
        """Collect the body; False from a client that has gone."""
        length = Headers(scope=scope).get("content-length", "0")
        too_long = ApiError(413, f"the body is longer than {self._bytes} bytes", "request_too_large")
        if not length.isdecimal() or len(length) > 18 or int(length) > _DRAINED:
            raise too_long
        size, tail = 0, b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return False
            part = message.get("body", b"")
            size += len(part)
            if size <= self._bytes:
                parts.append(part)
            else:
                tail = (tail + part)[-_TAIL:]
            if size > _DRAINED or (size > self._bytes and not message.get("more_body", False)):
                parts.append(tail)
                raise too_long
            if not message.get("more_body", False):
                return True


def is_loopback(host: str) -> bool:
    """Whether an address or a name is this machine's own."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _is_local(header: str) -> bool:
    """The same of a Host header, which may end with a port."""
    return is_loopback(re.sub(r":\d*$", "", header))


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
    turns = ["\n".join(asked.turns)[-ON_THE_SPOT:]] if error.status in _REFUSED_UNSEEN else asked.turns
    heard = await listen(turns, country)
    content = error.body
    if heard.message is not None:
        content["warmline"] = {"risk": risk_field(heard, country)}
        if not asked.card:
            content["error"]["message"] = f"{heard.message} (The request itself was refused: {content['error']['message']})"
    headers = {"retry-after": str(error.retry_after)} if error.retry_after is not None else None
    return JSONResponse(content, error.status, headers)


def understand(body: bytes) -> Asked:
    """What a request may say, of whatever shape and however broken.

    Args:
        body: As it came.
    """
    text = body.decode("utf-8", "replace")
    try:
        content = parse_json(text)
    except ValueError:
        return Asked([_unquoted(found) for found in _JSON_STRING.findall(text)[-MOST_TURNS:]] or [text], None, False)
    if not isinstance(content, dict):
        return Asked(["\n".join(_texts(content))], None, False)
    messages = content.get("messages")
    each = messages[-MOST_TURNS:] if isinstance(messages, list) else [messages]
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
