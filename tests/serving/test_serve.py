"""`warmline serve` as a process: where it listens, what it refuses, and how it ends."""

import asyncio
import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

import warmline.serving
from tests.serving.conftest import serving
from warmline.cli import main
from warmline.errors import WarmlineError
from warmline.runs import RunFolder
from warmline.serving import connections, require_extra
from warmline.serving.api import create_app
from warmline.serving.engine import Engine
from warmline.serving.server import ServeOptions
from warmline.serving.server import serve as serve_run

SAD = [{"role": "user", "content": "My dog died and I feel so alone."}]


@pytest.mark.slow(12)
def test_sigterm_in_mid_stream_ends_every_stream_cleanly(finished: RunFolder) -> None:
    """Two streams outlive the grace and are cut, one ends by itself; all of them end with a final chunk and [DONE]."""
    arguments = [sys.executable, "-m", "warmline", "serve", str(finished.path), "--port", "0", "--grace", "1", "--slots", "4"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
            assert found
            streams = [Reader(found[0], tokens) for tokens in (1000, 1000, 40)]
            for stream in streams:
                assert stream.begun.wait(60)
            process.send_signal(signal.SIGTERM)
            assert wait_for_503(found[0])
            for stream in streams:
                stream.join(20)
                assert not stream.is_alive()
            assert process.wait(20) == 0
            assert process.stderr is not None
            assert process.stderr.read() == ""
        finally:
            process.kill()
    for stream in streams:
        assert stream.lines[-1] == "data: [DONE]"
        last = json.loads(stream.lines[-2].removeprefix("data: "))
        assert last["choices"][0]["finish_reason"] in ("stop", "length")


@pytest.mark.slow(15)
def test_half_sent_requests_keep_nobody_out(finished: RunFolder, tmp_path: Path) -> None:
    """Of 270 at 150 descriptors some have sent half a head, some half a body, some nothing, and some read no answer.

    The server stands still while 45 of them come, as it may on a busy machine, and finds all of them and the one who asks at once.
    """
    log = tmp_path / "log"
    command = f'ulimit -n 150; exec "{sys.executable}" -m warmline serve "{finished.path}" --port 0'
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with (
        log.open("w", encoding="utf-8") as errors,
        subprocess.Popen(["/bin/sh", "-c", command], stdout=subprocess.PIPE, stderr=errors, text=True, env=environment) as process,
        ExitStack() as stack,
    ):
        try:
            assert process.stdout is not None
            found = re.search(r"http://127\.0\.0\.1:(\d+)", process.stdout.readline())
            assert found
            half = [
                b"GET / HTTP/1.1\r\nhost: x",
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n{",
                b"",
            ]
            half.append(b"GET /static/app.js HTTP/1.1\r\nhost: localhost\r\n\r\n" * 40)
            for number in range(270):
                if number % 45 == 0:
                    process.send_signal(signal.SIGSTOP)
                stack.enter_context(socket.create_connection(("127.0.0.1", int(found[1])), timeout=20)).sendall(half[number % 4])
                if number % 45 == 44:
                    threading.Timer(0.2, process.send_signal, [signal.SIGCONT]).start()
                    begun = time.monotonic()
                    assert httpx.get(f"{found[0]}/health", timeout=20).json()["status"] == "ok"
                    chat = httpx.post(f"{found[0]}/v1/chat/completions", json={"messages": SAD, "max_tokens": 2}, timeout=20)
                    assert chat.status_code == 200
                    assert time.monotonic() - begun < 10
        finally:
            process.kill()
    assert sum("resource_tracker" not in line for line in log.read_text(encoding="utf-8").splitlines()) <= 1  # which a kill sets off


def test_who_does_not_finish_a_request_is_left(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a request, one behind a whole one, none; and then whole ones whose answers are not read, and without end."""
    monkeypatch.setattr(connections, "_HEAD_SECONDS", 0.3)
    monkeypatch.setattr(connections, "_STALL_SECONDS", 0.3)
    whole = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"
    with serving(create_app(engine), http=connections.Connection) as url:
        address = ("127.0.0.1", int(url.rpartition(":")[2]))
        for sent in (b"GET / HTTP/1.1\r\nhost", whole + b"GET / HTTP/1.1\r\nhost", b""):
            with socket.create_connection(address, timeout=10) as connection:
                connection.sendall(sent)
                said = b"".join(iter(lambda: connection.recv(4096), b""))
                assert said.count(b"HTTP/1.1 200") == sent.count(whole)
        file = b"GET /static/app.js HTTP/1.1\r\nhost: localhost\r\n\r\n"
        for ahead in (file * 1000, whole * 100_000):
            with socket.create_connection(address, timeout=10) as connection, pytest.raises(ConnectionError):
                send_for_good(connection, ahead)


def test_those_who_read_nothing_take_no_place_for_good(engine: Engine) -> None:
    """Each of the first eight has one of the eight places and waits for nothing; the ninth asks all the same."""
    file = b"GET /static/app.js HTTP/1.1\r\nhost: localhost\r\n\r\n"
    with serving(create_app(engine), http=connections.Connection, limit_concurrency=8) as url, ExitStack() as stack:
        address = ("127.0.0.1", int(url.rpartition(":")[2]))
        for _ in range(8):
            stack.enter_context(socket.create_connection(address, timeout=10)).sendall(file * 1000)
        for _ in range(3):
            assert httpx.get(f"{url}/health", timeout=20).json()["status"] == "ok"


def send_for_good(connection: socket.socket, first: bytes) -> None:
    connection.sendall(first)
    while True:
        time.sleep(0.05)
        connection.sendall(b"GET")


def test_a_lack_of_descriptors_is_one_line_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    loop, handle = asyncio.new_event_loop(), connections.one_line_a_minute()
    for _ in range(1000):
        handle(loop, {"message": "accept failed", "exception": OSError(errno.EMFILE, "Too many open files")})
    assert caplog.messages == ["connections have to wait: Too many open files; `ulimit -n` gives more"]
    handle(loop, {"message": "something else", "exception": OSError(errno.EIO, "broken")})
    assert "something else" in caplog.text
    loop.close()


class Reader(threading.Thread):
    """Reads one stream to its end."""

    def __init__(self, url: str, tokens: int) -> None:
        super().__init__()
        self._url, self._tokens = url, tokens
        self.begun = threading.Event()
        self.lines: list[str] = []
        self.start()

    def run(self) -> None:
        body: Any = {"messages": SAD, "stream": True, "max_tokens": self._tokens, "temperature": 2, "min_p": 0, "seed": 1}
        with httpx.stream("POST", f"{self._url}/v1/chat/completions", json=body, timeout=60) as response:
            for line in response.iter_lines():
                if line:
                    self.lines.append(line)
                    self.begun.set()


def wait_for_503(url: str) -> bool:
    """New requests are refused as soon as the signal has been heard, while streams go on."""
    for _ in range(200):
        response = httpx.get(f"{url}/health", timeout=30)
        if response.status_code == 503:
            return httpx.post(f"{url}/v1/chat/completions", json={"messages": SAD}, timeout=30).status_code == 503
    return False


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_an_open_host_needs_a_key(finished: RunFolder, host: str) -> None:
    with pytest.raises(WarmlineError, match="needs --api-key or WARMLINE_API_KEY"):
        serve_run(finished.path, ServeOptions(host=host))


def test_bad_input_ends_with_one_line(finished: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("WARMLINE_API_KEY", raising=False)
    monkeypatch.setattr(sys, "argv", ["warmline", "serve", str(finished.path), "--host", "0.0.0.0"])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert (ended.value.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert "--api-key" in said.err


def test_an_unknown_country_and_a_port_in_use_are_refused(finished: RunFolder, url: str) -> None:
    with pytest.raises(WarmlineError, match="no hotlines for it; there are AU, CA"):
        serve_run(finished.path, ServeOptions(country="XX"))
    with pytest.raises(WarmlineError, match="choose another port"):
        serve_run(finished.path, ServeOptions(port=int(url.rpartition(":")[2])))


def test_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WarmlineError, match="not a run folder"):
        serve_run(tmp_path, ServeOptions(port=0))


def test_without_the_extra_one_line_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    require_extra()
    find: Callable[[str], Any] = warmline.serving.find_spec
    monkeypatch.setattr(warmline.serving, "find_spec", lambda name: None if name == "uvicorn" else find(name))
    with pytest.raises(WarmlineError, match=r"uvicorn not installed; `pip install 'warmline\[serve\]'`"):
        require_extra()
