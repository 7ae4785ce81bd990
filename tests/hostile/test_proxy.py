"""Behind `--generate-at`, whatever the server there sends: the client's stream ends, in bounded time and memory.

`WARMLINE_FUZZ_EXAMPLES=5000 pytest tests/hostile/test_proxy.py` looks longer.
"""

import asyncio
import gzip
import json
import os
import threading
import time
from collections.abc import Iterable, Iterator
from itertools import repeat
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.serving.conftest import serving
from warmline.runs import RunFolder
from warmline.serving import proxy as proxy_module
from warmline.serving.api import create_app
from warmline.serving.proxy import ProxyEngine, Upstream

EXAMPLES = int(os.environ.get("WARMLINE_FUZZ_EXAMPLES", "150"))
ASK: dict[str, Any] = {"messages": [{"role": "user", "content": "My cat ran away."}], "max_tokens": 40}
MODELS = json.dumps({"data": [{"id": "friend"}]}).encode()
SSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
SECONDS = 10


class Server:
    """An HTTP server that knows one model, and answers every chat with the bytes it was told to.

    Attributes:
        answer: Of the next chats, head and all; the connection is closed behind it.
        sent: Bytes of the last answer that were taken.
    """

    def __init__(self) -> None:
        self.answer: Iterable[bytes] = ()
        self.pause = 0.0
        self.sent = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"GET"):
                writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(MODELS) + MODELS)
                return
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
            await reader.readexactly(int(length.partition(b":")[2]))
            self.sent = 0
            for part in self.answer:
                writer.write(part)
                await writer.drain()
                self.sent += len(part)
                await asyncio.sleep(self.pause)
        except ConnectionError:
            pass
        finally:
            writer.close()


@pytest.fixture(scope="module")
def upstream() -> Server:
    return Server()


@pytest.fixture(scope="module")
def relay(finished: RunFolder, upstream: Server) -> Iterator[ProxyEngine]:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    server = asyncio.run_coroutine_threadsafe(asyncio.start_server(upstream.handle, "127.0.0.1", 0), loop).result()
    port = server.sockets[0].getsockname()[1]
    relay = ProxyEngine.connect(finished.path, Upstream(f"http://127.0.0.1:{port}/v1", "friend", timeout=1.0))
    yield relay
    relay.close()
    loop.call_soon_threadsafe(loop.stop)


@pytest.fixture(scope="module")
def client(relay: ProxyEngine) -> Iterator[httpx.Client]:
    with serving(create_app(relay)) as url, httpx.Client(base_url=url, timeout=SECONDS) as client:
        yield client


def ended(client: httpx.Client, relay: ProxyEngine) -> tuple[str, str]:
    """The words and how they ended: a finish reason, or the error's one line. Fails on a stream that does not end as it should."""
    begun = time.monotonic()
    response = client.post("/v1/chat/completions", json={**ASK, "stream": True})
    assert time.monotonic() - begun < SECONDS
    assert response.status_code in (200, 500)  # the latter when it fails before the reading has been sent
    *earlier, last = [line.removeprefix("data: ") for line in response.content.decode().split("\n\n") if line]
    until = time.monotonic() + 1
    while relay.active and time.monotonic() < until:
        time.sleep(0.001)
    assert relay.active == 0
    assert last == "[DONE]" or response.status_code == 500
    told = json.loads(earlier[-1] if last == "[DONE]" else last)
    if "error" in told:
        message = str(told["error"]["message"])
        assert "\n" not in message
        assert len(message) < 400
        return "", message
    choices = [json.loads(line)["choices"][0] for line in earlier]
    return "".join(choice["delta"].get("content", "") for choice in choices), str(choices[-1]["finish_reason"])


def chunk(delta: Any, reason: Any = None, **more: Any) -> bytes:
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": reason}], **more}).encode() + b"\n\n"


def plain(*lines: bytes) -> list[bytes]:
    return [SSE + b"connection: close\r\n\r\n", *lines]


# generated

JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("\ud83d") | st.just(10**400),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)


def some(**fields: Any) -> Any:
    """An object of which every field may be right, junk, or missing."""
    return st.fixed_dictionaries({}, optional={name: value | JUNK for name, value in fields.items()})


CHOICE = some(delta=some(content=st.text(max_size=12)), finish_reason=st.sampled_from(["stop", "length", None]))
CHUNKS = some(
    choices=st.lists(CHOICE, max_size=2),
    usage=some(completion_tokens=st.integers(0, 50)),
    error=some(message=st.text(max_size=20)) | st.none(),
    surprise=JUNK,
)
LINES = st.one_of(
    (CHUNKS | JUNK).map(lambda content: b"data: " + json.dumps(content).encode() + b"\n\n"),
    st.text(max_size=8).map(lambda text: chunk({"content": text})),
    st.sampled_from(
        [b"data: [DONE]\n\n", b": ping\n\n", b"event: error\n", b"data:\n", b"\r\n", b"data: {\n\n", b"data: " + b"[" * 5000 + b"\n"]
    ),
    st.binary(max_size=30),
)
HEADS = st.sampled_from(
    [SSE + b"\r\n"] * 6
    + [
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n", b"",
        b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 307 Go\r\nlocation: http://example.org/v1/chat/completions\r\n\r\n",
        b"HTTP/1.1 500 Oh\r\n\r\n", b"HTTP/1.1 429 Slow\r\ncontent-length: 5\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"HTTP/9 what\r\n\r\n",
    ]
)  # fmt: skip


@pytest.mark.slow(8)
def test_every_stream_ends(client: httpx.Client, relay: ProxyEngine, upstream: Server) -> None:
    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None)
    @given(head=HEADS, lines=st.lists(LINES, max_size=6))
    def one(head: bytes, lines: list[bytes]) -> None:
        upstream.answer = [head, *lines]
        _, how = ended(client, relay)
        assert how in ("stop", "length") or how.startswith("the model failed: ")

    one()


# endless, each in its own way

MIB = 2**20


@pytest.mark.parametrize(
    ("answer", "how"),
    [
        (lambda: [*plain(), *[b"data: " + b"x" * 65536] * 3000], "a line that does not end"),
        (lambda: [*plain(), *[b": ping\n" * 9000] * 3000], "longer than 16 MiB"),
        (lambda: [*plain(), *[chunk({"content": "ha "})] * 300_000], "length"),
        (lambda: [*plain(), *[chunk({"content": "ha" * 400_000})] * 20], "length"),
        (lambda: [b"HTTP/1.1 500 Oh\r\n\r\n", *[b"x" * 65536] * 3000], "answered 500"),
        (lambda: [SSE + b"content-encoding: gzip\r\n\r\n", *[gzip.compress(bytes(64 * MIB))] * 300], "longer than 16 MiB"),
    ],
    ids=["a line", "comments", "words", "long words", "an error", "gzip"],
)
def test_what_is_endless_is_cut(answer: Any, how: str, client: httpx.Client, relay: ProxyEngine, upstream: Server) -> None:
    upstream.answer = answer()
    words, reason = ended(client, relay)
    assert how in reason
    assert len(words) <= 64 * ASK["max_tokens"]
    assert upstream.sent < 32 * MIB


@pytest.mark.parametrize("part", [b": ping\n\n", chunk(None), b"data: {}\n\n", b"d"])
def test_what_trickles_is_not_waited_for(
    part: bytes, client: httpx.Client, relay: ProxyEngine, upstream: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy_module, "_SECONDS_OF_REPLY", 0.3)
    monkeypatch.setattr(upstream, "pause", 0.05)
    upstream.answer = (one for head in [plain()] for one in [*head, *repeat(part, 1000)])
    assert "TimeoutError" in ended(client, relay)[1]
