"""A reply on its way: filled by the engine's thread, read by anyone."""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Literal, NamedTuple

from warmline.companion import Reading
from warmline.safety.guard import Risk

FinishReason = Literal["stop", "length"]


class Usage(NamedTuple):
    """Tokens of one request.

    Attributes:
        prompt: Of the rendered conversation.
        completion: Of the reply, its end of turn left out.
    """

    prompt: int
    completion: int


class Stream:
    """One reply, as an iterator of pieces of text, for threads (`for`) and for asyncio (`async for`); one reader.

    Args:
        prompt_tokens: Of the rendered conversation.
        risk: What the guard heard in the user's turns.
        message: The guard's fixed message; None where no risk was heard.
        on_cancel: How the engine hears of a cancellation.

    Attributes:
        risk: As given.
        message: As given; part of the text, too, when the request asked for it inline.
        finish_reason: `stop` at the end of the turn or a stop text, `length` when cut; None until then.
        cancelled: Nobody waits for it any more.
    """

    def __init__(self, prompt_tokens: int, risk: Risk, message: str | None, on_cancel: Callable[[], None]) -> None:
        self.risk = risk
        self.message = message
        self.finish_reason: FinishReason | None = None
        self.cancelled = False
        self._prompt_tokens = prompt_tokens
        self._completion_tokens = 0
        self._reading: Reading | None = None
        self._error: Exception | None = None
        self._read = False
        self._done = False
        self._pieces: deque[str] = deque()
        self._changed = threading.Condition()
        self._wake: Callable[[], None] = lambda: None
        self._on_cancel = on_cancel

    @property
    def reading(self) -> Reading | None:
        """What the heads say; waits for the prompt's forward pass. None from a base, and from a reply cancelled before it began.

        Raises:
            RuntimeError: the model failed.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._read or self._done)
            self._raise_error()
            return self._reading

    @property
    def usage(self) -> Usage:
        """Tokens so far."""
        return Usage(self._prompt_tokens, self._completion_tokens)

    def cancel(self) -> None:
        """Stop it and free its place; does no harm when it has ended."""
        self.cancelled = True
        self._on_cancel()

    def __iter__(self) -> Iterator[str]:
        """Pieces of text as they come.

        Raises:
            RuntimeError: the model failed.
        """
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pieces or self._done)
                if not self._pieces:
                    self._raise_error()
                    return
                piece = self._pieces.popleft()
            yield piece

    async def ready(self) -> Reading | None:
        """`reading`, for asyncio."""
        await self._until(lambda: self._read or self._done)
        return self.reading

    async def __aiter__(self) -> AsyncIterator[str]:
        """`iter`, for asyncio."""
        while True:
            await self._until(lambda: bool(self._pieces) or self._done)
            with self._changed:
                if not self._pieces:
                    self._raise_error()
                    return
                piece = self._pieces.popleft()
            yield piece

    async def _until(self, met: Callable[[], bool]) -> None:
        loop, changed = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(changed.set)

        with self._changed:
            self._wake = wake
        while True:
            with self._changed:
                if met():
                    return
                changed.clear()
            await changed.wait()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise RuntimeError(f"the model failed: {self._error}") from self._error

    # what the engine does

    def put_reading(self, reading: Reading | None) -> None:
        """The prompt's forward pass is done."""
        with self._changed:
            self._reading, self._read = reading, True
            self._notify()

    def put(self, piece: str, completion_tokens: int) -> None:
        """More text, possibly none, and the tokens so far."""
        with self._changed:
            self._completion_tokens = completion_tokens
            if piece:
                self._pieces.append(piece)
                self._notify()

    def finish(self, reason: FinishReason | None, error: Exception | None = None) -> None:
        """The end; a reason is absent when it was cancelled or failed."""
        with self._changed:
            self.finish_reason, self._error, self._done = reason, error, True
            self._notify()

    def _notify(self) -> None:
        self._changed.notify_all()
        self._wake()


class Speaker:
    """Puts a reply into its stream, with the guard's message before it when the risk is red and after it when it is yellow.

    Args:
        stream: Where to.
        message: The guard's, or empty where none is shown.
    """

    def __init__(self, stream: Stream, message: str) -> None:
        self._stream = stream
        self._before, self._after = (message, "") if stream.risk.level == "red" else ("", message)
        self._said = False

    def begin(self) -> None:
        """Nothing of the reply is there yet."""
        if self._before:
            self._stream.put(self._before, 0)

    def more(self, piece: str, completion_tokens: int) -> None:
        """A piece of the reply, possibly empty, and its tokens so far."""
        if piece and not self._said:
            self._said = True
            piece = f"\n\n{piece}" if self._before else piece
        self._stream.put(piece, completion_tokens)

    def end(self, piece: str, completion_tokens: int) -> None:
        """The last piece."""
        self.more(piece, completion_tokens)
        if self._after:
            self._stream.put(f"\n\n{self._after}" if self._said else self._after, completion_tokens)
