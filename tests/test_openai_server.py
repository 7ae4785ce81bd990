"""Clients of servers that are not trusted; what a whole benchmark makes of them is in tests/eqbench/test_run.py."""

import asyncio
import gzip
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import openai
import pytest

from tests.eqbench.stub import Reply, serving
from warmline.openai_server import OpenAIServer
from warmline.serving.proxy import chunks

PIECE = b'data: {"choices": [{"index": 0, "delta": {"content": "word "}}]}\n\n'
REQUEST: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}


async def _streamed(server: OpenAIServer) -> str:
    async with server.stream_client() as client, client.stream("POST", "chat/completions", json=REQUEST) as response:
        return "".join([chunk.text async for chunk in chunks(response)])


def streamed(url: str, timeout: float = 5.0) -> str:
    """The words of a stream, or how it failed."""
    server = OpenAIServer("--generate-at", url, ("X_KEY",), timeout)
    try:
        return asyncio.run(_streamed(server))
    except Exception as error:
        return f"failed: {server.words(error)}"


@pytest.mark.parametrize("packed", [False, True])
def test_a_stream_arrives(packed: bool) -> None:
    body = PIECE * 3 + b"data: [DONE]\n\n"
    headers = (("Content-Encoding", "gzip"),) if packed else ()
    with serving(lambda request: Reply(raw=gzip.compress(body) if packed else body, headers=headers)) as stub:
        assert streamed(stub.url) == "word word word "


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (Reply(raw=b"x\n" * 2**24), "the answer is longer than 16 MiB"),
        (Reply(raw=b": " + b"x" * 2**25), "a line that does not end"),
        (Reply(raw=gzip.compress(PIECE * 2**20), headers=(("Content-Encoding", "gzip"),)), "the answer is longer than 16 MiB"),
        (Reply(raw=b"x", headers=(("Content-Encoding", "zstd"),)), "packed as zstd"),
        (Reply(status=307, headers=(("Location", "http://127.0.0.1:9/v1"),)), "answered 307 and points to another address"),
        (Reply(status=500, raw=b'{"error": {"message": "out of\\nmemory \\u001b[31m"}}'), "answered 500: out of memory [31m"),
    ],
)
def test_a_stream_that_goes_wrong_is_told(reply: Reply, says: str) -> None:
    with serving(lambda request: reply) as stub:
        told = streamed(stub.url)
    assert says in told
    assert told.isprintable()


@contextmanager
def dribbling() -> Iterator[str]:
    """A server whose answers never end, a byte every 50 ms."""
    ended = threading.Event()

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(2**16)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n")
            try:
                while not ended.wait(0.05):
                    connection.sendall(b" ")
            except OSError:
                pass  # the client has gone

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        ended.set()
        thread.join()


def test_an_answer_that_trickles_ends_with_the_timeout() -> None:
    with dribbling() as url:
        began = time.monotonic()
        with pytest.raises(openai.APITimeoutError):
            OpenAIServer("--judge-url", url, ("X_KEY",), timeout=0.5).client(retries=0).chat.completions.create(**REQUEST)
        assert time.monotonic() - began < 5


def test_the_key_is_in_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("X_KEY", " sk-secret\n")
    with serving(lambda request: Reply(status=401, raw=b'{"error": "sk-secret is not known here"}')) as stub:
        assert streamed(stub.url) == "failed: answered 401: (the key) is not known here"
