"""OpenAI-compatible servers, none of which is trusted: how a client of one is made, and how its refusals are told.

A client follows no redirect (a 307 would carry a conversation to another place), reads no more of an answer than ANSWER_LIMIT, unpacked,
and asks for none that is packed.
"""

import os
import time
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import openai
from openai import OpenAI

from warmline.errors import WarmlineError, one_line

if TYPE_CHECKING:
    import httpx2 as httpx
else:
    httpx = import_module(openai.DefaultHttpxClient.__base__.__module__)  # httpx, or httpx2 in later versions: their classes do not mix

ANSWER_LIMIT = 2**24
"""Bytes: a thousand times the text of the longest reply that is asked for."""
_PROXIES, _CERTIFICATES = ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"), ("SSL_CERT_FILE", "SSL_CERT_DIR")
"""Environment variables that a client obeys, proxies' names also in small letters."""


class OpenAIServer:
    """Where a server answers, and the key that it is asked with.

    Args:
        option: What named it, for messages, such as `--judge-url`.
        url: Its base, such as http://localhost:8000/v1.
        key_names: Environment variables that may hold the key, in order; local servers ask for none.
        timeout: Seconds that it may be silent.

    Raises:
        WarmlineError: no such address, or a key that cannot be sent.
    """

    def __init__(self, option: str, url: str, key_names: Sequence[str], timeout: float) -> None:
        self.url = url.strip().rstrip("/").removesuffix("/chat/completions")
        self.timeout = timeout
        self.key_names = " or ".join(key_names)
        self._option = option
        self._key = next((key for name in key_names if (key := os.environ.get(name, "").strip())), "none")
        if not (self._key.isascii() and self._key.isprintable()):
            raise WarmlineError(f"{self.key_names}: holds a character that no key has; copy the key again")
        self._check_address()

    def __str__(self) -> str:
        return f"{self._option} {self.url}"

    def client(self, retries: int) -> OpenAI:
        """A client for whole answers, each within the timeout, counted from its first byte.

        Args:
            retries: Times a request is sent again after a timeout, a 429 or a 5xx.

        Raises:
            WarmlineError: the environment names a proxy or certificates that cannot be used.
        """

        def bound(response: httpx.Response) -> None:
            response.stream = _Bounded(response, self.timeout)

        try:
            http = openai.DefaultHttpxClient(follow_redirects=False, headers=_UNPACKED, event_hooks={"response": [bound]})
        except Exception as error:
            raise WarmlineError(_surroundings(error)) from None
        return OpenAI(base_url=self.url, api_key=self._key, timeout=self.timeout, max_retries=retries, http_client=http)

    def stream_client(self) -> httpx.AsyncClient:
        """A client for streams, which may last while they are never silent for longer than the timeout; `serving/proxy.py` reads them.

        Raises:
            WarmlineError: as of `client`.
        """

        async def bound(response: httpx.Response) -> None:
            response.stream = _BoundedStream(response)

        headers = {**_UNPACKED, "Authorization": f"Bearer {self._key}"}
        try:
            return openai.DefaultAsyncHttpxClient(
                base_url=self.url, headers=headers, timeout=self.timeout, follow_redirects=False, event_hooks={"response": [bound]}
            )
        except Exception as error:
            raise WarmlineError(_surroundings(error)) from None

    def words(self, error: BaseException) -> str:
        """What the server said, or what went wrong on the way to it: one line, without the key."""
        if isinstance(error, openai.APIStatusError):
            said = _message(error) if error.status_code >= 400 else f"redirects to {error.response.headers.get('location', 'nowhere')}"
            text = f"{error.status_code}: {said}"
        elif isinstance(error, openai.APIConnectionError) and error.__cause__ is not None:
            text = f"{str(error).rstrip('.')}: {error.__cause__}"
        else:
            text = str(error)
        if self._key != "none":
            text = text.replace(self._key, "(the key)")
        return one_line(text) or type(error).__name__

    def _check_address(self) -> None:
        try:
            parts = urlsplit(self.url)
            httpx.URL(self.url)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except Exception as error:
            raise WarmlineError(f"{self}: not an address ({one_line(str(error))}); expected something like {_EXAMPLE}") from None
        if "@" in parts.netloc:
            raise WarmlineError(f"{self._option}: holds a user or a password, which results would show; put a key into {self.key_names}")
        if not usable:
            raise WarmlineError(f"{self}: not an address; expected something like {_EXAMPLE}")


_EXAMPLE = "http://localhost:8000/v1"
_UNPACKED = {"Accept-Encoding": "identity"}


class _Meter:
    """Counts an answer's bytes, and unpacks those of a server that packs them unasked, never more than the limit."""

    def __init__(self, response: httpx.Response, seconds: float | None = None) -> None:
        packed = response.headers.pop("content-encoding", "identity").strip().lower()
        if packed not in ("", "identity", "gzip", "deflate"):
            raise httpx.DecodingError(f"the answer is packed as {packed}, which was not asked for", request=response.request)
        self._unpack = zlib.decompressobj(47) if packed in ("gzip", "deflate") else None  # 47: gzip or zlib, as its header says
        self._request = response.request
        self._left = ANSWER_LIMIT
        self._end = None if seconds is None else time.monotonic() + seconds

    def take(self, part: bytes) -> bytes:
        """A part as it is to be read."""
        if self._end is not None and time.monotonic() > self._end:
            raise httpx.ReadTimeout("the answer does not end", request=self._request)
        came = len(part)
        if self._unpack is not None:
            try:
                part = self._unpack.decompress(part, self._left + 1)
            except zlib.error as error:
                raise httpx.DecodingError(f"the answer cannot be unpacked ({error})", request=self._request) from None
        self._left -= max(came, len(part))
        if self._left < 0:
            raise httpx.DecodingError(f"the answer is longer than {ANSWER_LIMIT >> 20} MiB", request=self._request)
        return part


class _Bounded(httpx.SyncByteStream):
    def __init__(self, response: httpx.Response, seconds: float) -> None:
        self._stream: Any = response.stream
        self._meter = _Meter(response, seconds)

    def __iter__(self) -> Iterator[bytes]:
        yield from map(self._meter.take, self._stream)

    def close(self) -> None:
        self._stream.close()


class _BoundedStream(httpx.AsyncByteStream):
    def __init__(self, response: httpx.Response) -> None:
        self._stream: Any = response.stream
        self._meter = _Meter(response)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._stream:
            yield self._meter.take(part)

    async def aclose(self) -> None:
        await self._stream.aclose()


def _message(error: openai.APIStatusError) -> str:
    """The provider's own words: the message of its error object, or all that it sent."""
    body = error.body
    for key in ("error", "message", "detail"):
        if isinstance(body, Mapping) and isinstance(body.get(key), (str, Mapping)):
            body = body[key]
    return body if isinstance(body, str) else error.response.text


def _surroundings(error: Exception) -> str:
    known = _CERTIFICATES if isinstance(error, OSError) else _PROXIES
    names = [name for upper in known for name in (upper, upper.lower()) if os.environ.get(name)]
    return f"{' or '.join(names) or 'HTTP client'}: cannot be used ({one_line(str(error))}); mend or unset it"
