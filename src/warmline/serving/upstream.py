"""An OpenAI-compatible server as one that may send anything: whatever comes, memory is bounded, and it ends in chunks or in one line.

The openai client is not used: it waits for lines without an end, and hands on what it does not understand.
"""

import json
from collections.abc import AsyncGenerator
from typing import Any, NamedTuple

from warmline.openai_server import OpenAIServer
from warmline.serving.stream import FinishReason

_LINE_BYTES = 2**20
_ERROR_BYTES = 2**14


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


async def model_ids(server: OpenAIServer) -> list[str]:
    """What a server has.

    Raises:
        Exception: of many kinds; `OpenAIServer.words` says it in one line.
    """
    async with server.stream_client() as client, client.stream("GET", "models") as response:
        await _check(response)
        return [str(model["id"]) for model in json.loads(await response.aread())["data"]]


async def chunks(response: Any) -> AsyncGenerator[Chunk, None]:
    """What a response streams.

    Raises:
        ValueError: an error, or what is no stream of chunks.
    """
    await _check(response)
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


async def _check(response: Any) -> None:
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
