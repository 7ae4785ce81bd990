"""One reply in OpenAI's shapes: whole, or as server-sent events."""

import json
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

from warmline.safety.crisis import resources
from warmline.serving.http import ApiError
from warmline.serving.stream import Stream


class Exchange:
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

    async def events(self, extra: dict[str, Any]) -> AsyncIterator[str]:
        """Server-sent events.

        Args:
            extra: From `extra`, for the first chunk.
        """
        yield _event({**self._chunk({"role": "assistant", "content": ""}), "warmline": extra})
        try:
            async for piece in self._stream:
                yield _event(self._chunk({"content": piece}))
        except RuntimeError as error:
            yield _event(_failed(error).body)
            return
        yield _event(self._chunk({}, self._stream.finish_reason or "length"))
        if self._with_usage:
            yield _event({**self._head("chat.completion.chunk"), "choices": [], "usage": self._usage()})
        yield "data: [DONE]\n\n"

    async def extra(self) -> dict[str, Any]:
        """The `warmline` field; waits for the prompt's forward pass.

        Raises:
            ApiError: the model failed.
        """
        try:
            reading = await self._stream.ready()
        except RuntimeError as error:
            raise _failed(error) from None
        return {
            "emotion": _scores(reading.emotion) if reading else None,
            "strategy": _scores(reading.strategy) if reading else None,
            "risk": self._risk(),
        }

    def _risk(self) -> dict[str, Any]:
        row, risk = resources(self._country), self._stream.risk
        return {
            "level": risk.level,
            "categories": list(risk.categories),
            "message": self._stream.message,
            "country": row.country,
            "crisis_line": row.crisis_line,
            "emergency_number": row.emergency_number,
        }

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._model}

    def _chunk(self, delta: dict[str, str], finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        chunk = {**self._head("chat.completion.chunk"), "choices": [choice]}
        return {**chunk, "usage": None} if self._with_usage else chunk

    def _usage(self) -> dict[str, int]:
        used = self._stream.usage
        return {"prompt_tokens": used.prompt, "completion_tokens": used.completion, "total_tokens": used.prompt + used.completion}


def _scores(probabilities: dict[str, float]) -> dict[str, Any]:
    label = max(probabilities, key=lambda name: probabilities[name])
    return {"label": label, "probability": probabilities[label], "scores": probabilities}


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False, allow_nan=False)}\n\n"


def _failed(error: RuntimeError) -> ApiError:
    return ApiError(500, str(error), "model_failed")
