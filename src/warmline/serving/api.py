"""An OpenAI-compatible API, and the page, before an engine. Nothing of a conversation is logged or kept."""

import asyncio
import hmac
import re
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from importlib import resources as package
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException

from warmline.data.template import Message
from warmline.safety.guard import Heard
from warmline.serving.about import Limits, Metrics, about
from warmline.serving.completion import Completion
from warmline.serving.engine import BusyError, ClosedError, Engine, Generation, Show, TooLongError, user_turns
from warmline.serving.http import ApiError, Gate, Refuse, refusal
from warmline.serving.listening import listen
from warmline.serving.schema import CompletionRequest, explain
from warmline.serving.stream import Stream

WEB = Path(str(package.files("warmline") / "serving" / "web"))
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "object", "required": ["message", "type", "param", "code"]}},
}
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": "OpenAI's error object", "content": {"application/json": {"schema": _ERROR}}} for status in ("4XX", "5XX")
}
_REPLY: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "OpenAI's completion, or its chunks as server-sent events",
        "content": {"application/json": {"schema": {"type": "object"}}, "text/event-stream": {}},
    }
}
_RETRY_SECONDS = 2
_STARTERS = ThreadPoolExecutor(4, "warmline-start")
"""Tokenise prompts: more at a time would only share the same processors, each with memory of its own."""
_MOST_NAMED = 20


def create_app(engine: Engine, api_key: str | None = None, country: str | None = None, limits: Limits | None = None) -> FastAPI:
    """The application.

    Args:
        engine: Who answers; the caller closes it.
        api_key: Needed for `/v1` and `/metrics`; None asks for none, and answers only to names of this machine.
        country: Whose hotlines are shown where a request names none.
        limits: Of a request.
    """
    limits = limits or Limits()
    metrics = Metrics(engine)
    app = FastAPI(title="warmline", version="1", docs_url=None, redoc_url=None)

    async def refuse(error: ApiError, sent: bytes) -> JSONResponse:
        metrics.refused(error.status)
        return await refusal(error, sent, country)

    app.add_middleware(Gate, refuse=refuse, body_bytes=limits.body_bytes, body_seconds=limits.body_seconds, local_only=api_key is None)
    _answer_errors(app, refuse)

    async def authorised(request: Request) -> None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if api_key is not None and not (scheme.lower() == "bearer" and hmac.compare_digest(given.encode(), api_key.encode())):
            raise ApiError(401, "wrong or missing API key; send it as `Authorization: Bearer KEY`", "invalid_api_key")

    async def sent_as_json(request: Request) -> None:  # which a form on another site cannot do
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise ApiError(415, "send JSON, with `Content-Type: application/json`")

    @app.post(
        "/v1/chat/completions", dependencies=[Depends(authorised), Depends(sent_as_json)], responses=_REPLY | _ERRORS, response_model=None
    )
    async def chat(body: CompletionRequest, request: Request) -> Response:
        """The next reply; what the heads read and what the guard heard stand under `warmline`."""
        begun = time.perf_counter()
        base = _is_base(engine, body.model)
        shown_for = body.warmline.country or country
        notes, messages = _notes(body, limits), _messages(body, limits)
        heard, shown = await listen(user_turns(messages), shown_for), body.warmline.crisis_message
        if heard.alone:
            stream = Stream.of_the_guard(heard, shown == "inline")
        else:
            stream = await _start(engine, messages, body.generation(limits.max_tokens), base, shown_for, shown, heard)
        model = engine.base_id if base else engine.models[0]
        completion = Completion(stream, model, shown_for, bool(body.stream_options and body.stream_options.include_usage))
        watcher = asyncio.create_task(_cancel_when_gone(request, stream))

        def ended() -> None:
            watcher.cancel()
            stream.cancel()
            metrics.ended(model, stream, begun)

        try:
            extra = None
            if not body.stream or heard.message is None:
                extra = await completion.extra()
                metrics.began(begun)
            if extra is not None and not body.stream:
                whole = JSONResponse(await completion.whole(extra), headers=notes)
                ended()
                return whole
        except BaseException:
            ended()
            raise

        async def events() -> AsyncIterator[str]:
            try:
                async for event in completion.events(extra):
                    yield event
            finally:
                ended()

        return StreamingResponse(events(), media_type="text/event-stream", headers={"x-accel-buffering": "no", **notes})

    @app.get("/v1/models", dependencies=[Depends(authorised)], responses=_ERRORS)
    async def models() -> dict[str, Any]:
        """The tuned model, first, and its base."""
        return {"object": "list", "data": [_model(name) for name in engine.models]}

    @app.get("/v1/models/{model:path}", dependencies=[Depends(authorised)], responses=_ERRORS)
    async def model(model: str) -> dict[str, Any]:
        """One of them."""
        _is_base(engine, model)
        return _model(model)

    @app.get("/metrics", dependencies=[Depends(authorised)], response_class=PlainTextResponse, responses=_ERRORS)
    async def prometheus() -> Response:
        """Counts for Prometheus."""
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/about")
    async def introduce() -> dict[str, Any]:
        """What a page needs to introduce the model."""
        return about(engine, limits, country, api_key is not None)

    @app.get("/health", responses=_ERRORS)
    async def health() -> dict[str, Any]:
        """Whether requests are taken."""
        if not engine.alive:
            raise ApiError(503, "the server is shutting down", "shutting_down", retry_after=_RETRY_SECONDS)
        return {"status": "ok", "active": engine.active, "waiting": engine.waiting}

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(WEB / "index.html")

    app.mount("/static", StaticFiles(directory=WEB))
    return app


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "warmline"}


def _is_base(engine: Engine, model: str | None) -> bool:
    """Whether the base is asked for.

    Raises:
        ApiError: neither it nor the tuned model.
    """
    if model is not None and model not in engine.models:
        raise ApiError(404, f"no model {model!r} here; there is {' and '.join(engine.models)}", "model_not_found", "model")
    return model == engine.base_id


def _messages(body: CompletionRequest, limits: Limits) -> list[Message]:
    """The conversation, within the limits.

    Raises:
        ApiError: which limit it is over.
    """
    for at, message in enumerate(body.messages):
        if len(message.content) > limits.message_characters:
            words = f"message {at} has {len(message.content)} characters, expected at most {limits.message_characters}"
            raise ApiError(400, words, "message_too_long", f"messages.{at}.content")
    said = [one for one in body.messages if one.content.strip()]
    return [Message(role="system" if one.role == "developer" else one.role, content=one.content) for one in said]


def _notes(body: CompletionRequest, limits: Limits) -> dict[str, str]:
    """Headers that say where a request was not taken at its word."""
    notes = {}
    if body.longest is not None and body.longest > limits.max_tokens:
        notes["x-warmline-max-tokens"] = str(limits.max_tokens)
    if unread := [name for name in body.unread if re.fullmatch(r"[A-Za-z0-9_.-]{1,40}", name)]:
        notes["x-warmline-ignored"] = ", ".join(unread[:_MOST_NAMED])
    return notes


async def _start(
    engine: Engine, messages: list[Message], settings: Generation, base: bool, country: str | None, shown: Show, heard: Heard
) -> Stream:
    try:
        return await asyncio.get_running_loop().run_in_executor(_STARTERS, engine.start, messages, settings, base, country, shown, heard)
    except TooLongError as error:
        raise ApiError(400, str(error), "context_length_exceeded", "messages") from None
    except ValueError as error:
        raise ApiError(400, str(error), "invalid_value") from None
    except BusyError as error:
        raise ApiError(429, str(error), "server_busy", retry_after=_RETRY_SECONDS) from None
    except ClosedError as error:
        raise ApiError(503, str(error), "shutting_down", retry_after=_RETRY_SECONDS) from None


async def _cancel_when_gone(request: Request, stream: Stream) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    stream.cancel()


def _answer_errors(app: FastAPI, refuse: Refuse) -> None:
    """Every error as OpenAI's error object."""

    async def answer(request: Request, error: Exception) -> JSONResponse:
        response = await refuse(_told(error), getattr(request.state, "body", b""))
        if isinstance(error, HTTPException):
            response.headers.update(error.headers or {})
        return response

    for kind in (ApiError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, answer)


def _told(error: Exception) -> ApiError:
    """What a client is told of it."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, RequestValidationError):
        field, words = explain(error.errors()[0])
        return ApiError(400, f"{field}: {words}" if field else words, "invalid_value", field or None)
    if isinstance(error, HTTPException):
        return ApiError(error.status_code, str(error.detail))
    return ApiError(500, f"unexpected {type(error).__name__}")
