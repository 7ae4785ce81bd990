"""Connections of clients who keep a server waiting: none is waited for without end, and none takes the place of one who asks.

uvicorn (0.34 to 0.54) times nothing but the pause between two requests. Who sends half a request's head, or does not read what was
asked for, keeps a descriptor for good, and with the last of them the server is gone.
"""

import asyncio
import errno
import logging
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

_SPARE = 256
"""Connections beyond those of replies: pages, health checks, clients between two requests."""
_HEAD_SECONDS = 10.0
"""Longest time that the head of a request may take, from when the connection is free for it."""
_STALL_SECONDS = 30.0
"""Longest time that a client may take to read what has piled up for it."""
_AHEAD_BYTES = 2**16
"""Of further requests that a client may have sent, in all, while it was being answered: uvicorn keeps them without a limit."""
_SHARE = 3
"""Of all descriptors, one in so many is for clients; a relayed reply has another, and new connections come in bursts."""
_SECONDS_BETWEEN_LINES = 60.0
_OUT_OF_PLACES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Connection(H11Protocol):
    """uvicorn's own, with deadlines; where all of `limit_concurrency` connections are taken, who has kept us waiting longest has to go.

    First those whose turn it is; where there are none, those who do not read what they asked for, or ask on before it has come.
    """

    _head: asyncio.TimerHandle
    _stall: asyncio.TimerHandle | None = None
    _ahead = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has come."""
        super().connection_made(transport)
        self._head = self.loop.call_later(_HEAD_SECONDS, self._hang_up)
        if self.limit_concurrency is not None and self._has_place(self.limit_concurrency):
            self.limit_concurrency = None  # uvicorn's own count has the tasks of those in it who were just sent away

    def data_received(self, data: bytes) -> None:
        """More of a request, or, from those who do not wait for answers, of the next ones."""
        self._ahead += 0 if self.waits else len(data)
        if self._ahead > _AHEAD_BYTES:
            self.transport.abort()
        else:
            super().data_received(data)

    def on_response_complete(self) -> None:
        """Another request may follow."""
        super().on_response_complete()
        self._head.cancel()
        self._head = self.loop.call_later(_HEAD_SECONDS, self._hang_up)

    def pause_writing(self) -> None:
        """The client reads more slowly than we write."""
        super().pause_writing()
        self._stall = self.loop.call_later(_STALL_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """It has caught up."""
        super().resume_writing()
        if self._stall is not None:
            self._stall.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        """It has gone."""
        super().connection_lost(exc)
        self._head.cancel()
        if self._stall is not None:
            self._stall.cancel()

    @property
    def waits(self) -> bool:
        """Whether it is the client's turn."""
        return self.cycle is None or self.cycle.response_complete or self.cycle.more_body

    @property
    def hurried(self) -> bool:
        """Whether the client lets answers pile up, or has sent further requests before it was answered."""
        return self.flow.write_paused or bool(self.conn.trailing_data[0])

    def _hang_up(self) -> None:
        if self.cycle is None or self.cycle.response_complete:  # a body has its own time, in `Gate`
            self.transport.close()

    def _has_place(self, most: int) -> bool:
        excess = len(self.connections) - most + 1
        if excess <= 0:
            return True
        others = [one for one in self.connections if isinstance(one, Connection) and (one.waits or one.hurried) and one is not self]
        others.sort(key=lambda one: (not one.waits, one._head.when()))
        for one in others[:excess]:
            self.connections.discard(one)
            one.transport.abort()
        return len(others) >= excess


def most_connections(replies: int) -> int:
    """How many connections are held at a time; raises the process's limit on descriptors for them, as far as it may.

    Args:
        replies: Under way or waiting at most.
    """
    wanted = replies + _SPARE
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = max(soft, min(wanted * _SHARE, hard))
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return min(wanted, most // _SHARE)


def one_line_a_minute() -> Callable[[asyncio.AbstractEventLoop, dict[str, Any]], None]:
    """An event loop's handler of exceptions, for which a lack of descriptors is one line and no thousand tracebacks."""
    last = float("-inf")

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        nonlocal last
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in _OUT_OF_PLACES:
            loop.default_exception_handler(context)
        elif loop.time() - last >= _SECONDS_BETWEEN_LINES:
            last = loop.time()
            logging.getLogger("uvicorn.error").error("connections have to wait: %s; `ulimit -n` gives more", error.strerror)

    return handle
