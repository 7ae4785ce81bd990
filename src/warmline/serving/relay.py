"""An engine that reads in this process and lets an OpenAI-compatible server generate, such as vLLM: `warmline serve --generate-at`.

The prompt runs here once, for the heads alone; the words come from the server, asked with the same messages. Its template must render what
ours renders: an export's `chat_template.jinja` does.
"""

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import aclosing
from pathlib import Path
from typing import Any, NamedTuple

from warmline.data.template import Message
from warmline.errors import WarmlineError
from warmline.openai_server import OpenAIServer
from warmline.safety.guard import Heard
from warmline.serving.engine import CHARACTERS_A_TOKEN, BusyError, ClosedError, Engine, Generation, TooLongError
from warmline.serving.stream import FinishReason, Speaker, Stream
from warmline.serving.text import ReplyText
from warmline.serving.upstream import chunks, model_ids

KEYS = ("WARMLINE_GENERATE_KEY", "OPENAI_API_KEY")
"""Environment variables that may hold the server's key, in order."""

_SECONDS_TO_CUT = 5.0
"""That cancelled requests have to end."""
_SECONDS_OF_REPLY = 1800.0
"""Longest time for one reply, however busily the server talks."""
_MOST_STOPS = 4
"""Stop texts that OpenAI takes; `ReplyText` looks for all of them."""


class Remote(NamedTuple):
    """Who generates.

    Attributes:
        url: Its base, such as http://localhost:8000/v1.
        model: What it calls the tuned model.
        base: What it calls the base; None lets this process answer as the base.
        timeout: Seconds that it may be silent.
    """

    url: str
    model: str
    base: str | None = None
    timeout: float = 120.0


class _Pieces:
    """Stands for a tokenizer where pieces of text come instead of tokens."""

    def decode(self, pieces: list[str], skip_special_tokens: bool = True) -> str:  # noqa: ARG002 - a tokenizer's signature
        """The text so far; JSON may bring a character in two halves, even in two chunks."""
        return "".join(pieces).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class Relay(Engine):
    """An `Engine` whose replies come from elsewhere; readings, guard, hotlines and limits are as ever. Made by `Relay.connect`."""

    _remote: Remote
    _server: OpenAIServer
    _client: Any

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self._refusing = self._cutting = False
        self._relayed: dict[Stream, asyncio.Task[None] | None] = {}
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="warmline-relay", daemon=True).start()

    @classmethod
    def connect(cls, path: Path, remote: Remote, slots: int = 16, queue: int = 256, base: str | None = None) -> "Relay":
        """Load a run, and make sure that the server knows the model.

        Args:
            path: The run.
            remote: Who generates.
            slots: Prompts and base replies made here at a time.
            queue: With `slots`, the most requests under way.
            base: As of `Engine.open`.

        Raises:
            WarmlineError: nothing there that can be loaded, a server that does not answer, or one without that model.
        """
        server = OpenAIServer("--generate-at", remote.url, KEYS, remote.timeout)
        _check(remote, server)
        relay = cls.open(path, slots, queue, base)
        if not isinstance(relay, cls) or relay.tuned_id is None:
            relay.close()
            raise WarmlineError(f"{path}: holds no heads, so there is nothing to read beside {remote.url}; use that server directly")
        relay._remote = remote
        relay._server, relay._client = server, server.stream_client()
        return relay

    @property
    def alive(self) -> bool:
        """Whether it takes requests."""
        return not self._refusing and super().alive

    @property
    def active(self) -> int:
        """Replies under way."""
        return len(self._relayed) + super().active

    def close(self, grace: float = 0.0) -> None:
        """As `Engine.close`."""
        self._refusing = True
        with self._changed:
            self._changed.wait_for(lambda: not self._relayed, timeout=grace)
        self._cutting = True
        for stream in [*self._relayed]:
            self._cancel(stream)
        with self._changed:
            self._changed.wait_for(lambda: not self._relayed, timeout=_SECONDS_TO_CUT)
        self._loop.call_soon_threadsafe(self._loop.stop)
        super().close()

    def _reply(self, messages: list[Message], settings: Generation, base: bool, country: str | None, heard: Heard, inline: bool) -> Stream:
        model = self._remote.base if base else self._remote.model
        if self._refusing:
            raise ClosedError("the server is shutting down; try again later")
        if model is None:
            return super()._reply(messages, settings, base, country, heard, inline)
        if len(self._relayed) >= self.slots + self._queue:
            raise BusyError("too many requests are waiting; try again in a moment")
        reading = super()._reply(messages, Generation(max_tokens=1, temperature=0), base, country, heard, False)
        try:
            settings = settings._replace(max_tokens=self._longest_reply(reading.usage.prompt, settings))
        except TooLongError:
            reading.cancel()
            raise
        stream = Stream(reading.usage.prompt, heard, inline, lambda: self._cancel(stream))
        job = self._relay(reading, stream, self._request(messages, settings, model), ReplyText(_Pieces(), country, settings.stop))
        self._relayed[stream] = None
        self._loop.call_soon_threadsafe(self._begin, stream, reading, job)
        return stream

    def _request(self, messages: list[Message], settings: Generation, model: str) -> dict[str, Any]:
        system = self._template.system_prompt
        if system and messages[0]["role"] != "system":
            messages = [Message(role="system", content=system), *messages]
        return {
            "model": model,
            "messages": [Message(role=one["role"], content=self._template.clean(one["content"])) for one in messages],
            "max_tokens": settings.max_tokens,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "stream": True,
            "stream_options": {"include_usage": True},
            **({"seed": settings.seed} if settings.seed is not None else {}),
            **({"stop": settings.stop[:_MOST_STOPS]} if settings.stop else {}),
            **({"min_p": settings.min_p} if settings.min_p else {}),
        }

    async def _relay(self, reading: Stream, stream: Stream, request: dict[str, Any], text: ReplyText) -> None:
        """Fill a stream: the reading from here, then the server's words between what the guard says."""
        say = Speaker(stream)
        try:
            stream.put_reading(await reading.ready())
            stream.finish(await asyncio.wait_for(self._say(say, request, text), _SECONDS_OF_REPLY))
        except BaseException:
            say.close(stream.usage.completion)
            raise

    async def _say(self, say: Speaker, request: dict[str, Any], text: ReplyText) -> FinishReason:
        """The server's words, and why they end."""
        said: Any = ""
        spoken, most = 0, request["max_tokens"] * CHARACTERS_A_TOKEN
        reason: FinishReason | None = None
        tokens: int | None = None
        try:
            async with self._client.stream("POST", "chat/completions", json=request) as response, aclosing(chunks(response)) as parts:
                async for chunk in parts:
                    said, spoken = (said + chunk.text)[:most], spoken + bool(chunk.text)
                    reason = chunk.reason or reason
                    if chunk.tokens is not None and 0 <= chunk.tokens <= self.context:
                        tokens = chunk.tokens
                    if chunk.text:
                        say.more(text.grow([said]), spoken)
                    if text.stopped or len(said) == most or (reason is not None and tokens is not None):
                        break
        except Exception:
            if reason is None:  # a failure behind the reply's end takes nothing from it
                raise
        say.end(text.grow([said], last=True), spoken if tokens is None else tokens)
        return "stop" if text.stopped else reason or "length"

    # on the loop's own thread

    def _begin(self, stream: Stream, reading: Stream, job: Coroutine[Any, Any, None]) -> None:
        def ended(task: "asyncio.Task[None]") -> None:
            reading.cancel()
            if task.cancelled():
                stream.finish("length" if self._cutting else None)
            elif (error := task.exception()) is not None:  # of any kind: nobody may be left waiting
                stream.finish(None, RuntimeError(f"{self._remote.url}: {self._server.words(error)}"))
            with self._changed:
                del self._relayed[stream]
                self._changed.notify_all()

        task = self._relayed[stream] = self._loop.create_task(job)
        task.add_done_callback(ended)

    def _cancel(self, stream: Stream) -> None:
        def cancel() -> None:
            task = self._relayed.get(stream)
            if task is not None:
                task.cancel()

        self._loop.call_soon_threadsafe(cancel)  # after `_begin`


async def _known_within(server: OpenAIServer, seconds: float) -> list[str]:
    return await asyncio.wait_for(model_ids(server), seconds)


def _check(remote: Remote, server: OpenAIServer) -> None:
    try:
        known = asyncio.run(_known_within(server, remote.timeout))
    except Exception as error:
        raise WarmlineError(
            f"--generate-at {remote.url}: no OpenAI-compatible server answers there ({server.words(error)}); expected something like "
            f"http://localhost:8000/v1, and its key in {' or '.join(KEYS)}"
        ) from None
    for name in (remote.model, remote.base):
        if name is not None and name not in known:
            raise WarmlineError(f"--generate-at {remote.url}: knows no model `{name}`; it has {', '.join(known)}")
