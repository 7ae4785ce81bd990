"""`warmline serve`: the application behind uvicorn, and an end that breaks off nobody."""

import asyncio
import socket
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import uvicorn

from warmline.errors import WarmlineError
from warmline.safety.crisis import COUNTRIES
from warmline.safety.guard import hear
from warmline.serving.api import create_app
from warmline.serving.connections import Connection, most_connections, one_line_a_minute
from warmline.serving.engine import Engine
from warmline.serving.http import is_loopback
from warmline.serving.listening import long_listener
from warmline.serving.proxy import ProxyEngine, Upstream

_SWITCH_SECONDS = 0.0005
"""After which a thread of Python's has to let another go on. The usual 5 ms, at each of the dozen turns that a request needs of the event
loop, make a tenth of a second beside a model's thread that always has something to do."""


class ServeOptions(NamedTuple):
    """Of `warmline serve`.

    Attributes:
        host: Address to listen on.
        port: Port; 0 takes a free one.
        api_key: Needed for every other host than this machine.
        country: ISO code: whose hotlines are shown where a request names none.
        slots: Replies made at a time.
        queue: Requests that may wait.
        grace: Seconds that replies have to end after SIGTERM or Ctrl-C.
        upstream: Who generates; None for this process.
        base: As of `Engine.open`.
        strength: As of `Engine.open`.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = None
    country: str | None = None
    slots: int = 16
    queue: int = 256
    grace: float = 20.0
    upstream: Upstream | None = None
    base: str | None = None
    strength: float = 1.0


def serve(path: Path, options: ServeOptions) -> None:
    """Serve a run, or a base alone, until SIGTERM or Ctrl-C.

    Raises:
        WarmlineError: an open host without a key, an unknown country, a port in use, or nothing that can be loaded.
    """
    _check(options)
    sys.setswitchinterval(_SWITCH_SECONDS)
    listener = _listen(options)
    long_listener().submit(hear, [""])  # so that it is there when somebody needs it
    if options.upstream is None:
        engine = Engine.open(path, options.slots, options.queue, options.base, options.strength)
    else:
        engine = ProxyEngine.connect(path, options.upstream, options.slots, options.queue, options.base)
    app = create_app(engine, options.api_key, options.country)
    most = most_connections(options.slots + options.queue)
    listener.listen(most)
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    print(f"{' and '.join(engine.models)} at http://{shown}:{port} (API under /v1); Ctrl-C ends it", flush=True)
    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        limit_concurrency=most,
        backlog=most,
        log_level="error",  # what clients do wrong is not for this log
        access_log=False,
        timeout_graceful_shutdown=5,
        lifespan="off",
    )
    try:
        _Server(config, engine, options.grace).run(sockets=[listener])
    finally:
        engine.close()


class _Server(uvicorn.Server):
    """Before it ends, the engine takes no more requests (503) and finishes what it has, within a bounded time; a second signal ends it.

    Args:
        config: uvicorn's.
        engine: To close first.
        grace: Seconds that replies have.
    """

    def __init__(self, config: uvicorn.Config, engine: Engine, grace: float) -> None:
        super().__init__(config)
        self._engine, self._grace = engine, grace
        self._ending = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Before the first connection."""
        asyncio.get_running_loop().set_exception_handler(one_line_a_minute())
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's signature
        """On SIGTERM and Ctrl-C."""
        if self._ending:
            self.should_exit = True
            return
        self._ending = True
        threading.Thread(target=self._end, name="warmline-shutdown").start()

    def _end(self) -> None:
        self._engine.close(self._grace)
        self.should_exit = True


def _check(options: ServeOptions) -> None:
    if not is_loopback(options.host) and not options.api_key:
        raise WarmlineError(
            f"--host {options.host}: others can reach it, so it needs --api-key or WARMLINE_API_KEY; or leave --host at 127.0.0.1"
        )
    if options.country is not None and options.country.upper() not in COUNTRIES:
        raise WarmlineError(f"--country {options.country}: no hotlines for it; there are {', '.join(sorted(COUNTRIES))}")


def _listen(options: ServeOptions) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(options.host, options.port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise WarmlineError(
            f"--host {options.host} --port {options.port}: cannot listen there ({error.strerror}); choose another port"
        ) from None
    return listener
