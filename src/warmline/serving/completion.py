"""One reply in OpenAI's shapes: whole, or as server-sent events."""

import json
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

from warmline.companion import Reading
from warmline.serving.http import ApiError
from warmline.serving.listening import risk_field
from warmline.serving.stream import Stream
from warmline.tasks import TASKS
from warmline.tasks.task import likeliest


class Completion:
    """A reply on its way to a client.

    Args:
        stream: From the engine.
        model: Id under which it was asked for.
        country: Whose hotlines are shown; None for the row that names no number.
        with_usage: Whether a stream ends with a chunk of token counts.
    """

    def __init__(self, stream: Stream, model: str, country: str | None, with_usage: bool) -> None:
        self._stream, self._model, self._country, self._with_usage = stream, model, country, with_usage
        self._id = f"chatcmpl-{uuid.uuid4().hex}"
        self._created = int(time.time())

    async def whole(self, extra: dict[str, Any]) -> dict[str, Any]:
        """The full response.

        Args:
            extra: From `extra`.

        Raises:
            ApiError: the model failed.
        """
        try:
            text = "".join([piece async for piece in self._stream])
        except RuntimeError as error:
            raise _failed(error) from None
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self._stream.finish_reason or "length"}
        return {**self._head("chat.completion"), "choices": [choice], "usage": self._usage(), "warmline": extra}

    async def events(self, extra: dict[str, Any] | None) -> AsyncIterator[str]:
        """Server-sent events: the `warmline` field, then the text.

        Where a risk was heard that field comes twice, at first with the risk alone, and then what the guard says before any reply: neither
        waits for the model.

        Args:
            extra: From `extra`, for the first chunk; None waits for it once the guard has spoken.
        """
        pieces = aiter(self._stream)
        delta = {"role": "assistant", "content": ""}
        try:
            if extra is None:
                yield _event({**self._chunk(delta), "warmline": self._extra(None)})
                if self._stream.opening:
                    yield _event(self._chunk({"content": await anext(pieces)}))
                extra, delta = await self.extra(), {"content": ""}
            yield _event({**self._chunk(delta), "warmline": extra})
            async for piece in pieces:
                yield _event(self._chunk({"content": piece}))
            yield _event(self._chunk({}, self._stream.finish_reason or "length"))
            if self._with_usage:
                yield _event({**self._head("chat.completion.chunk"), "choices": [], "usage": self._usage()})
        except (RuntimeError, ApiError) as error:
            failed = error if isinstance(error, ApiError) else _failed(error)
            yield _event({**failed.body, "warmline": self._extra(None)})
        yield "data: [DONE]\n\n"

    async def extra(self) -> dict[str, Any]:
        """The `warmline` field; waits for the prompt's forward pass.

        Raises:
            ApiError: the model failed.
        """
        try:
            return self._extra(await self._stream.ready())
        except RuntimeError as error:
            raise _failed(error) from None

    def _extra(self, reading: Reading | None) -> dict[str, Any]:
        read = {name: _scores(probabilities) for name, probabilities in (reading or {}).items()}
        return {**dict.fromkeys(TASKS), **read, "risk": risk_field(self._stream.heard, self._country)}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._model}

    def _chunk(self, delta: dict[str, str], finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        chunk = {**self._head("chat.completion.chunk"), "choices": [choice]}
        return {**chunk, "usage": None} if self._with_usage else chunk

    def _usage(self) -> dict[str, int]:
        prompt, completion = self._stream.prompt_tokens, self._stream.completion_tokens
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _scores(probabilities: dict[str, float]) -> dict[str, Any]:
    label = likeliest(probabilities)
    return {"label": label, "probability": probabilities[label], "scores": probabilities}


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False, allow_nan=False)}\n\n"


def _failed(error: RuntimeError) -> ApiError:
    return ApiError(500, str(error), "model_failed")
