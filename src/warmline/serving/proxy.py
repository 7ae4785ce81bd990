"""An engine that reads in this process and lets an OpenAI-compatible server generate, such as vLLM: `warmline serve --generate-at`.

The prompt runs here once, for the heads alone; the words come from the server, asked with the same messages. Its template must render what
ours renders: an export's `chat_template.jinja` does.

That server may send anything: whatever comes, memory is bounded, and it ends in chunks or in one line. The openai client is not used: it
waits for lines without an end, and hands on what it does not understand.
"""

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from pathlib import Path
from typing import Any, NamedTuple

from warmline.data.template import Message
from warmline.errors import WarmlineError
from warmline.openai_server import OpenAIServer
from warmline.serving.engine import CHARACTERS_A_TOKEN, BusyError, ClosedError, Engine, Generation, ReplyRequest, TooLongError
from warmline.serving.reply import ReplyText
from warmline.serving.stream import FinishReason, Stream

KEYS = ("WARMLINE_GENERATE_KEY", "OPENAI_API_KEY")
"""Environment variables that may hold the server's key, in order."""

_SECONDS_TO_CUT = 5.0
"""That cancelled requests have to end."""
_SECONDS_OF_REPLY = 1800.0
"""Longest time for one reply, however busily the server talks."""
_MOST_STOPS = 4
"""Stop texts that OpenAI takes; `ReplyText` looks for all of them."""
_LINE_BYTES = 2**20
_ERROR_BYTES = 2**14


class Upstream(NamedTuple):
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


class Chunk(NamedTuple):
    """What matters in one event of a stream.

    Attributes:
        text: More of the reply.
        reason: Why it ended; None until then.
        tokens: Of the whole reply, where they are told.
    """

    text: str
    reason: FinishReason | None
    tokens: int | None

    @classmethod
    def parse(cls, data: bytes) -> "Chunk":
        """From JSON, in which every part may be missing or of another type.

        Raises:
            ValueError: no JSON object, or an error.
        """
        content = json.loads(data)
        if not isinstance(content, dict):
            raise ValueError(f"streamed {data.decode(errors='replace').strip()!r}, expected an object")
        if content.get("error"):
            raise ValueError(_error(content))
        choices = content.get("choices")
        choice = _object(choices[0] if isinstance(choices, list) and choices else None)
        text, reason = _object(choice.get("delta")).get("content"), choice.get("finish_reason")
        tokens = _object(content.get("usage")).get("completion_tokens")
        return cls(
            text if isinstance(text, str) else "",
            "length" if reason == "length" else "stop" if reason else None,
            tokens if type(tokens) is int else None,
        )


class _Pieces:
    """Stands for a tokenizer where pieces of text come instead of tokens."""

    def decode(self, pieces: list[str], skip_special_tokens: bool = True) -> str:  # noqa: ARG002 - a tokenizer's signature
        """The text so far; JSON may bring a character in two halves, even in two chunks."""
        return "".join(pieces).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class ProxyEngine(Engine):
    """An `Engine` whose replies come from elsewhere; readings, guard, hotlines and limits are as ever. Made by `ProxyEngine.connect`."""

    _upstream: Upstream
    _server: OpenAIServer
    _client: Any

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self._refusing = self._cutting = False
        self._proxied: dict[Stream, asyncio.Task[None] | None] = {}
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="warmline-proxy", daemon=True).start()

    @classmethod
    def connect(cls, path: Path, upstream: Upstream, slots: int = 16, queue: int = 256, base: str | None = None) -> "ProxyEngine":
        """Load a run, and make sure that the server knows the model.

        Args:
            path: The run.
            upstream: Who generates.
            slots: Prompts and base replies made here at a time.
            queue: With `slots`, the most requests under way.
            base: As of `Engine.open`.

        Raises:
            WarmlineError: nothing there that can be loaded, a server that does not answer, or one without that model.
        """
        server = OpenAIServer("--generate-at", upstream.url, KEYS, upstream.timeout)
        _check_models(upstream, server)
        engine = cls.open(path, slots, queue, base)
        if not isinstance(engine, cls) or engine.tuned_id is None:
            engine.close()
            raise WarmlineError(f"{path}: holds no heads, so there is nothing to read beside {upstream.url}; use that server directly")
        engine._upstream = upstream
        engine._server, engine._client = server, server.stream_client()
        return engine

    @property
    def alive(self) -> bool:
        """Whether it takes requests."""
        return not self._refusing and super().alive

    @property
    def active(self) -> int:
        """Replies under way."""
        return len(self._proxied) + super().active

    def close(self, grace: float = 0.0) -> None:
        """As `Engine.close`."""
        self._refusing = True
        with self._changed:
            self._changed.wait_for(lambda: not self._proxied, timeout=grace)
        self._cutting = True
        for stream in [*self._proxied]:
            self._cancel(stream)
        with self._changed:
            self._changed.wait_for(lambda: not self._proxied, timeout=_SECONDS_TO_CUT)
        self._loop.call_soon_threadsafe(self._loop.stop)
        super().close()

    def _reply(self, request: ReplyRequest) -> Stream:
        model = self._upstream.base if request.base else self._upstream.model
        if self._refusing:
            raise ClosedError("the server is shutting down; try again later")
        if model is None:
            return super()._reply(request)
        if len(self._proxied) >= self.slots + self._queue:
            raise BusyError("too many requests are waiting; try again in a moment")
        reading = super()._reply(request._replace(settings=Generation(max_tokens=1, temperature=0), inline=False))
        try:
            settings = request.settings._replace(max_tokens=self._longest_reply(reading.prompt_tokens, request.settings))
        except TooLongError:
            reading.cancel()
            raise
        stream = Stream(reading.prompt_tokens, request.heard, request.inline, lambda: self._cancel(stream))
        text = ReplyText(_Pieces(), request.country, settings.stop)
        job = self._fill(stream, reading, self._asked(request.messages, settings, model), text)
        self._proxied[stream] = None
        self._loop.call_soon_threadsafe(self._begin, stream, reading, job)
        return stream

    def _asked(self, messages: list[Message], settings: Generation, model: str) -> dict[str, Any]:
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

    async def _fill(self, stream: Stream, reading: Stream, asked: dict[str, Any], text: ReplyText) -> None:
        """The reading from here, then the server's words."""
        stream.put_reading(await reading.ready())
        stream.finish(await asyncio.wait_for(self._say(stream, asked, text), _SECONDS_OF_REPLY))

    async def _say(self, stream: Stream, asked: dict[str, Any], text: ReplyText) -> FinishReason:
        """The server's words, and why they end."""
        said: Any = ""
        spoken, most = 0, asked["max_tokens"] * CHARACTERS_A_TOKEN
        reason: FinishReason | None = None
        tokens: int | None = None
        try:
            async with self._client.stream("POST", "chat/completions", json=asked) as response, aclosing(chunks(response)) as parts:
                async for chunk in parts:
                    said, spoken = (said + chunk.text)[:most], spoken + bool(chunk.text)
                    reason = chunk.reason or reason
                    if chunk.tokens is not None and 0 <= chunk.tokens <= self.context:
                        tokens = chunk.tokens
                    if chunk.text:
                        stream.put(text.grow([said]), spoken)
                    if text.stopped or len(said) == most or (reason is not None and tokens is not None):
                        break
        except Exception:
            if reason is None:  # a failure behind the reply's end takes nothing from it
                raise
        stream.put(text.grow([said], last=True), spoken if tokens is None else tokens)
        return "stop" if text.stopped else reason or "length"

    # on the loop's own thread

    def _begin(self, stream: Stream, reading: Stream, job: Coroutine[Any, Any, None]) -> None:
        def ended(task: "asyncio.Task[None]") -> None:
            reading.cancel()
            if task.cancelled():
                stream.finish("length" if self._cutting else None)
            elif (error := task.exception()) is not None:  # of any kind: nobody may be left waiting
                stream.finish(None, RuntimeError(f"{self._upstream.url}: {self._server.words(error)}"))
            with self._changed:
                del self._proxied[stream]
                self._changed.notify_all()

        task = self._proxied[stream] = self._loop.create_task(job)
        task.add_done_callback(ended)

    def _cancel(self, stream: Stream) -> None:
        def cancel() -> None:
            task = self._proxied.get(stream)
            if task is not None:
                task.cancel()

        self._loop.call_soon_threadsafe(cancel)  # after `_begin`


async def model_ids(server: OpenAIServer) -> list[str]:
    """What a server has.

    Raises:
        Exception: of many kinds; `OpenAIServer.words` says it in one line.
    """
    async with server.stream_client() as client, client.stream("GET", "models") as response:
        await _check_status(response)
        return [str(model["id"]) for model in json.loads(await response.aread())["data"]]


async def chunks(response: Any) -> AsyncGenerator[Chunk, None]:
    """What a response streams.

    Raises:
        ValueError: an error, or what is no stream of chunks.
    """
    await _check_status(response)
    began, rest = False, b""
    async for part in response.aiter_raw():
        *lines, rest = (rest + part).split(b"\n")
        if len(rest) > _LINE_BYTES:
            raise ValueError("streams a line that does not end")
        for line in lines:
            if line.startswith(b"data:"):
                if line[5:].strip() == b"[DONE]":
                    return
                began = True
                yield Chunk.parse(line[5:])
    if not began:
        raise ValueError("answered with something else than a stream of chunks")


async def _check_status(response: Any) -> None:
    status = f"answered {response.status_code}"
    if response.is_redirect:
        raise ValueError(f"{status} and points to another address, which is not followed; give that one if it is meant")
    if response.status_code != 200:
        body = b""
        async for part in response.aiter_raw():
            body += part
            if len(body) >= _ERROR_BYTES:
                break
        try:
            raise ValueError(f"{status}: {_error(_object(json.loads(body)))}")
        except (json.JSONDecodeError, RecursionError):
            raise ValueError(f"{status}: {body.decode(errors='replace')}") from None


def _error(content: dict[str, Any]) -> str:
    error = content.get("error") or content
    return str(_object(error).get("message") or error)


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _check_models(upstream: Upstream, server: OpenAIServer) -> None:
    try:
        known = asyncio.run(asyncio.wait_for(model_ids(server), upstream.timeout))
    except Exception as error:
        raise WarmlineError(
            f"--generate-at {upstream.url}: no OpenAI-compatible server answers there ({server.words(error)}); expected something like "
            f"http://localhost:8000/v1, and its key in {' or '.join(KEYS)}"
        ) from None
    for name in (upstream.model, upstream.base):
        if name is not None and name not in known:
            raise WarmlineError(f"--generate-at {upstream.url}: knows no model `{name}`; it has {', '.join(known)}")
