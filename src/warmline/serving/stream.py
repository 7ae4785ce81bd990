"""A reply on its way to who asked: the model's words between those of the guard. Filled by the engine's thread, read by anyone."""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Literal

from warmline.companion import Reading
from warmline.safety.guard import Heard

FinishReason = Literal["stop", "length"]


class Stream:
    """One reply, as an iterator of pieces of text, for threads (`for`) and for asyncio (`async for`); one reader.

    Args:
        prompt_tokens: Of the rendered conversation.
        heard: What the guard heard, and what it says.
        inline: Whether its message is part of the text.
        on_cancel: How the engine hears of a cancellation.

    Attributes:
        prompt_tokens: As given.
        completion_tokens: Of the reply so far, its end of turn left out.
        heard: As given.
        opening: What of the text stands before the model's words, and waits for none of them: the guard's message where it comes first.
        closing: What stands after them.
        finish_reason: `stop` at the end of the turn or a stop text, `length` when cut; None until then.
        cancelled: Nobody waits for it any more.
    """

    def __init__(self, prompt_tokens: int, heard: Heard, inline: bool, on_cancel: Callable[[], None]) -> None:
        self.prompt_tokens, self.completion_tokens = prompt_tokens, 0
        self.heard = heard
        said = (inline and heard.message) or ""
        self.opening, self.closing = (said, "") if heard.risk.level == "red" else ("", said)
        self.finish_reason: FinishReason | None = None
        self.cancelled = False
        self._reading: Reading | None = None
        self._error: Exception | None = None
        self._read = self._done = self._spoken = False
        self._pieces: deque[str] = deque([self.opening] if self.opening else [])
        self._changed = threading.Condition()
        self._wake: Callable[[], None] = lambda: None
        self._on_cancel = on_cancel

    @classmethod
    def of_the_guard(cls, heard: Heard, inline: bool) -> "Stream":
        """A whole reply that asks no model, since the guard answers alone.

        Args:
            heard: With a message.
            inline: As of the class; False leaves the text empty.
        """
        stream = cls(0, heard, inline, lambda: None)
        stream.finish("stop")
        return stream

    @property
    def reading(self) -> Reading | None:
        """What the heads say; waits for the prompt's forward pass. None from a base, and from a reply cancelled before it began.

        Raises:
            RuntimeError: the model failed.
        """
        with self._changed:
            self._changed.wait_for(lambda: self.begun)
            self._raise_error()
            return self._reading

    @property
    def begun(self) -> bool:
        """Whether `reading` is there, or never will be."""
        return self._read or self._done

    @property
    def done(self) -> bool:
        """Whether nothing more will come."""
        return self._done

    def arrived(self) -> str:
        """What has come since the last look, without waiting."""
        with self._changed:
            pieces = "".join(self._pieces)
            self._pieces.clear()
            return pieces

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
        await self._until(lambda: self.begun)
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
        """More of the model's words, possibly none, and its tokens so far."""
        with self._changed:
            self.completion_tokens = completion_tokens
            if piece:
                self._pieces.append(f"\n\n{piece}" if self.opening and not self._spoken else piece)
                self._spoken = True
                self._notify()

    def finish(self, reason: FinishReason | None, error: Exception | None = None) -> None:
        """The end, and what the guard says there, however the reply came out; a reason is absent when it was cancelled or failed."""
        with self._changed:
            if self.closing:
                self._pieces.append(f"\n\n{self.closing}" if self._spoken else self.closing)
            self.finish_reason, self._error, self._done = reason, error, True
            self._notify()

    def _notify(self) -> None:
        self._changed.notify_all()
        self._wake()
