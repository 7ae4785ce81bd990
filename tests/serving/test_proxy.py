"""Readings from here, words from elsewhere: behind another `warmline serve`, and behind a stub that misbehaves."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from openai import OpenAI

from tests.conftest import ConfigFactory
from tests.serving.conftest import Serve, serving
from warmline.config import dump_config
from warmline.data.template import Message
from warmline.errors import WarmlineError
from warmline.runs import RunFolder
from warmline.safety.crisis import resources
from warmline.serving.engine import BusyError, ClosedError, Engine, Generation, TooLongError
from warmline.serving.proxy import ProxyEngine, Upstream

SAD = [Message(role="user", content="My cat ran away.")]
RISK = [Message(role="user", content="I want to kill myself tonight.")]
WORRY = [Message(role="user", content="I keep thinking everyone would be better off without me.")]
Connect = Callable[..., ProxyEngine]


class Stub:
    """An OpenAI-compatible server that says fixed pieces, fails, or hangs after the first."""

    def __init__(self) -> None:
        self.pieces = [" Oh", " no. Call {crisis_", "line}", " or ", "{emerg", "} \n"]
        self.status = 200
        self.hangs = False
        self.lines: list[str] = []
        self.asked: list[dict[str, Any]] = []
        self.gone = 0
        self.app = FastAPI()
        self.app.get("/v1/models")(self.models)
        self.app.post("/v1/chat/completions", response_model=None)(self.chat)
        self.app.post("/elsewhere", response_model=None)(self.chat)

    async def models(self) -> dict[str, Any]:
        return {"object": "list", "data": [{"id": name, "object": "model", "created": 0, "owned_by": "me"} for name in ("friend", "plain")]}

    async def chat(self, request: Request) -> JSONResponse | StreamingResponse:
        self.asked.append(await request.json())
        if self.lines:
            return StreamingResponse(iter(self.lines), self.status, {"location": "/elsewhere"}, "text/event-stream")
        if self.status != 200:
            return JSONResponse({"error": {"message": "out of\nmemory"}}, self.status)
        return StreamingResponse(self.events(), media_type="text/event-stream")

    async def events(self) -> AsyncIterator[str]:
        def chunk(**content: Any) -> str:
            return f"data: {json.dumps({'id': 'a', 'object': 'chat.completion.chunk', 'created': 0, 'model': 'friend', **content})}\n\n"

        try:
            for piece in self.pieces:
                yield chunk(choices=[{"index": 0, "delta": {"content": piece}, "finish_reason": None}])
                if self.hangs:
                    await asyncio.sleep(60)
            yield chunk(choices=[{"index": 0, "delta": {}, "finish_reason": "length"}])
            yield chunk(choices=[], usage={"prompt_tokens": 5, "completion_tokens": 42, "total_tokens": 47})
            yield "data: [DONE]\n\n"
        finally:
            self.gone += 1


@pytest.fixture
def stub() -> Stub:
    return Stub()


@pytest.fixture
def connect(finished: RunFolder, stub: Stub) -> Iterator[Connect]:
    made: list[ProxyEngine] = []
    with serving(stub.app) as url:

        def one(**options: Any) -> ProxyEngine:
            made.append(ProxyEngine.connect(finished.path, Upstream(f"{url}/v1", "friend", **options.pop("remote", {})), **options))
            return made[-1]

        yield one
        for relay in made:
            relay.close()


def soon(met: Callable[[], bool], seconds: float = 5) -> bool:
    until = time.monotonic() + seconds
    while not met() and time.monotonic() < until:
        time.sleep(0.02)
    return met()


def test_behind_another_server_it_says_what_that_would(finished: RunFolder, engine: Engine, url: str, serve: Serve) -> None:
    relay = ProxyEngine.connect(finished.path, Upstream(f"{url}/v1", "tiny", "tiny-base"), slots=2)
    try:
        client = OpenAI(base_url=f"{serve(relay)}/v1", api_key="none", max_retries=0)
        for model, base in (("tiny", False), ("tiny-base", True)):
            for settings in (Generation(12, 0.0), Generation(12, 1.0, seed=5)):
                options: dict[str, Any] = {"temperature": settings.temperature, "seed": settings.seed, "max_tokens": 12}
                answer = client.chat.completions.create(model=model, messages=SAD, **options)  # type: ignore[call-overload]
                here = engine.start(SAD, settings, base)
                assert answer.choices[0].message.content == "".join(here)
                assert answer.choices[0].finish_reason == here.finish_reason
                assert answer.usage.model_dump(include={"prompt_tokens", "completion_tokens"}) == {
                    "prompt_tokens": here.prompt_tokens, "completion_tokens": here.completion_tokens,
                }  # fmt: skip
                reading = here.reading
                assert answer.warmline["emotion"] == (None if base else _scores(reading["emotion"] if reading else {}))
    finally:
        relay.close()


def _scores(probabilities: dict[str, float]) -> dict[str, Any]:
    label = max(probabilities, key=lambda name: probabilities[name])
    return {"label": label, "probability": probabilities[label], "scores": probabilities}


def test_hotlines_guard_and_counts_are_ours(connect: Connect, stub: Stub, engine: Engine) -> None:
    relay, line = connect(), resources("GB").crisis_line
    words = f"Oh no. Call {line} or {{emerg}}"
    stream = relay.start(SAD, country="GB")
    assert "".join(stream) == words
    assert (stream.finish_reason, stream.completion_tokens, stream.reading) == ("length", 42, engine.start(SAD, Generation(1)).reading)
    red, card, yellow = relay.start(RISK, country="GB"), relay.start(RISK, country="GB", crisis_message="card"), relay.start(WORRY)
    assert ("".join(red), "".join(card)) == (red.heard.message, "")
    assert card.heard.message == red.heard.message
    later = relay.start([*RISK, *SAD], country="GB")
    assert "".join(later) == f"{red.heard.message}\n\n{words}"
    assert yellow.heard.risk.level == "yellow"
    assert "".join(yellow).endswith(f"\n\n{yellow.heard.message}")
    assert soon(lambda: relay.active == 0)


def test_what_is_asked(connect: Connect, stub: Stub) -> None:
    "".join(connect().start([Message(role="user", content=" Hi <|im_end|> ")], Generation(9, 0.5, 0.9, 0.02, 7, ("!",))))
    (asked,) = stub.asked
    assert asked == {
        "model": "friend", "messages": [{"role": "user", "content": "Hi < |im_end|>"}], "max_tokens": 9, "temperature": 0.5, "top_p": 0.9,
        "min_p": 0.02, "seed": 7, "stop": ["!"], "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip


def test_the_base_is_made_here_unless_named(connect: Connect, stub: Stub, engine: Engine) -> None:
    assert "".join(connect().start(SAD, Generation(8, 0.0), base=True)) == "".join(engine.start(SAD, Generation(8, 0.0), base=True))
    assert stub.asked == []
    "".join(connect(remote={"base": "plain"}).start(SAD, base=True))
    assert stub.asked[0]["model"] == "plain"


@pytest.mark.parametrize("status", [400, 500])
def test_its_failure_is_one_line(status: int, connect: Connect, stub: Stub) -> None:
    relay, stub.status = connect(), status
    stream = relay.start(SAD)
    with pytest.raises(RuntimeError, match=str(status)) as failed:
        list(stream)
    assert "\n" not in str(failed.value)
    assert "".join(relay.start(RISK))
    worried, said = relay.start(WORRY), []
    with pytest.raises(RuntimeError, match=str(status)):
        said.extend(worried)
    assert said == [worried.heard.message]
    assert soon(lambda: relay.active == 0)


OH = 'data: {"choices": [{"delta": {"content": "Oh"}}]}\n\n'
END = 'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\n'


@pytest.mark.parametrize(
    ("lines", "words", "reason", "tokens"),
    [
        ([OH, 'data: {"choices": [{"delta": null, "finish_reason": "stop"}]}\n\n', "data: [DONE]\n\n"], "Oh", "stop", 1),
        (['data: {"model": "friend"}\n\n', 'data: {"choices": null}\n\n', OH, END], "Oh", "stop", 1),
        ([OH, 'data: {"choices": [{"delta": {"content": null}}], "surprise": [1]}\n\n', END], "Oh", "stop", 1),
        ([OH, END, 'data: {"choices": [], "usage": {"prompt_tokens": 5}}\n\n', "data: [DONE]\n\n"], "Oh", "stop", 1),
        ([OH, END, f'data: {{"choices": [], "usage": {{"completion_tokens": {"9" * 400}}}}}\n\n'], "Oh", "stop", 1),
        ([OH, END, "data: {broken\n\n"], "Oh", "stop", 1),
        ([": ping\n\n", "event: message\n", OH.replace("\n", "\r\n")], "Oh", "length", 1),
        ([OH.replace("Oh", r"\ud83d"), OH.replace("Oh", r"\ude00"), END], "\U0001f600", "stop", 2),
        ([OH.replace("Oh", r"Oh \ud83d"), END], "Oh \ufffd", "stop", 1),
        ([OH.replace("Oh", "O\u2028h"), END], "O\u2028h", "stop", 1),
    ],
)
def test_an_incomplete_chunk_is_read_as_far_as_it_goes(
    lines: list[str], words: str, reason: str, tokens: int, connect: Connect, stub: Stub
) -> None:
    relay, stub.lines = connect(), lines
    stream = relay.start(SAD)
    assert ("".join(stream), stream.finish_reason, stream.completion_tokens) == (words, reason, tokens)


@pytest.mark.parametrize(
    ("status", "lines", "words"),
    [
        (200, [OH, 'data: {"error": {"message": "out of\\nmemory"}}\n\n'], "out of memory"),
        (200, [OH, "data: []\n\n", END], "expected an object"),
        (200, ["<html>Welcome</html>"], "something else than a stream"),
        (307, ["Go"], "answered 307 and points to another address, which is not followed"),
        (502, ["<html>\nBad gateway\n"], "answered 502: <html> Bad gateway"),
    ],
)
def test_what_is_no_reply_ends_in_one_line(status: int, lines: list[str], words: str, connect: Connect, stub: Stub) -> None:
    relay, stub.status, stub.lines = connect(), status, lines
    with pytest.raises(RuntimeError, match=words):
        list(relay.start(SAD))
    assert len(stub.asked) == 1
    assert soon(lambda: relay.active == 0)


def test_stop_texts_beyond_those_that_a_server_takes(connect: Connect, stub: Stub) -> None:
    stream = connect().start(SAD, Generation(stop=("1", "2", "3", "4", " or")), country="GB")
    assert "".join(stream).endswith(resources("GB").crisis_line)
    assert stream.finish_reason == "stop"
    assert stub.asked[0]["stop"] == ["1", "2", "3", "4"]


def test_who_leaves_frees_both_servers(connect: Connect, stub: Stub) -> None:
    relay, stub.hangs = connect(slots=1, queue=0), True
    stream = relay.start(SAD)
    assert next(iter(stream)) == "Oh"
    with pytest.raises(BusyError):
        relay.start(SAD)
    stream.cancel()
    assert soon(lambda: relay.active == 0 and stub.gone == 1, 1)
    assert list(stream) == []
    at_once = relay.start(SAD)
    at_once.cancel()
    assert list(at_once) == []
    assert soon(lambda: relay.active == 0)


def test_closing_cuts_what_hangs(connect: Connect, stub: Stub) -> None:
    relay, stub.hangs = connect(), True
    stream = relay.start(SAD)
    assert next(iter(stream)) == "Oh"
    relay.close(grace=0.1)
    assert list(stream) == []
    assert stream.finish_reason == "length"
    assert not relay.alive
    with pytest.raises(ClosedError):
        relay.start(SAD)
    assert "".join(relay.start(RISK))


def test_limits_are_the_engines(connect: Connect, stub: Stub) -> None:
    relay = connect()
    for settings in (Generation(5000), Generation(temperature=9)):
        with pytest.raises(ValueError, match=r"expected 0 to 2|context is 4096"):
            relay.start(SAD, settings)
    with pytest.raises(TooLongError):
        relay.start([Message(role="user", content="long " * 5000)])
    assert stub.asked == []


def test_an_unknown_model_or_server(finished: RunFolder, stub: Stub) -> None:
    with serving(stub.app) as url, pytest.raises(WarmlineError, match="knows no model `nobody`; it has friend, plain"):
        ProxyEngine.connect(finished.path, Upstream(f"{url}/v1", "nobody"))
    with pytest.raises(WarmlineError, match="no OpenAI-compatible server answers there"):
        ProxyEngine.connect(finished.path, Upstream("http://127.0.0.1:9/v1", "friend"))
    with pytest.raises(WarmlineError, match="not an address"):
        ProxyEngine.connect(finished.path, Upstream("http://127.0.0.1:port/v1", "friend"))


def test_a_base_alone_has_nothing_to_read(stub: Stub, tiny_config: ConfigFactory, tmp_path: Path) -> None:
    path = tmp_path / "base.yaml"
    path.write_text(dump_config(tiny_config(tmp_path)))
    with serving(stub.app) as url, pytest.raises(WarmlineError, match="holds no heads"):
        ProxyEngine.connect(path, Upstream(f"{url}/v1", "friend"))
