"""Whatever becomes of a request: if it speaks of a risk, its answer carries the guard's message, and soon."""

import http.client
import json
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.serving.conftest import Serve
from tests.serving.test_api import CHAT, ask, card, wait_for
from warmline.safety.guard import assess, crisis_message
from warmline.serving import reply as reply_module
from warmline.serving.about import Limits
from warmline.serving.engine import Engine
from warmline.serving.http import understand

PILLS = "I took a whole bottle of pills."
MESSAGE = crisis_message(assess(PILLS), "GB")
SAID: Any = [{"role": "user", "content": PILLS}]
CALM: Any = [{"role": "user", "content": "My cat ran away."}]
WORRY: Any = [{"role": "user", "content": "Sometimes I hurt myself to feel something."}]
PLACE = {"warmline": {"country": "GB"}}
IMAGE = {"type": "image_url", "image_url": {"url": "x"}}

UNSERVED = [
    {"messages": [*SAID, *CALM, {"role": "assistant", "content": "I hear you"}]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": PILLS}, IMAGE]}]},
    {"messages": [*SAID, *CALM], "tools": [{"type": "function", "function": {"name": "call"}}]},
    {"messages": [*SAID, {"role": "wizard", "content": "x"}]},
    {"messages": [{"role": "user", "content": f"{PILLS}{' x' * 30_000}"}]},
    {"messages": [{"role": "user", "content": f"{PILLS} {'word ' * 3_800}"}, *[{"role": "user", "content": "word " * 3_800}] * 2]},
    {"messages": SAID, "model": "gpt-4"},
    {"messages": SAID, "temperature": "hot"},
    {"messages": [{"role": "user", "content": f"\ud800 {PILLS}"}]},
    {"messages": PILLS},
    {"prompt": PILLS},
    {"messages": [*CALM, {"role": "user", "content": {"text": PILLS}}]},
]


@pytest.mark.parametrize("body", UNSERVED, ids=lambda body: str(body)[:40])
@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_carries_the_message(url: str, body: dict[str, Any], stream: bool) -> None:
    response = ask(url, {**PLACE, "stream": stream, **body})
    assert 400 <= response.status_code < 500
    answer = response.json()
    assert (answer["warmline"]["risk"]["message"], answer["warmline"]["risk"]["emergency_number"]) == (MESSAGE, "999")
    assert answer["error"]["message"].startswith(MESSAGE)  # which is what most clients show
    apart = ask(url, {**body, **card("GB")}).json()
    assert MESSAGE not in apart["error"]["message"]
    assert apart["warmline"]["risk"]["message"] == MESSAGE


@pytest.mark.parametrize("body", [*UNSERVED, {"messages": SAID, "temperature": 9}], ids=lambda body: str(body)[:40])
def test_a_refusal_without_a_risk_does_not(url: str, body: dict[str, Any]) -> None:
    calm = json.loads(json.dumps(body).replace(PILLS, "My cat ran away."))
    response = ask(url, {**PLACE, **calm})
    assert 400 <= response.status_code < 500
    assert "warmline" not in response.json()


def test_an_assistants_last_word_does_not_hide_it(url: str) -> None:
    answer = ask(url, {"messages": [*SAID, {"role": "assistant", "content": "I hear you"}], **PLACE}).json()
    assert answer["choices"][0]["message"]["content"] == MESSAGE


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"messages": SAID})[:-2],
        json.dumps({"messages": [{"role": "user", "content": "I took a whole\nbottle of “pills”"}]})[:-3],
        PILLS,
        json.dumps([PILLS]),
        "[" * 100_000 + f'"{PILLS}"',
        json.dumps({"messages": [{"role": "user", "content": f"{PILLS} {'x' * 2_000_000}"}]}),
        json.dumps({"messages": [{"role": "user", "content": "x" * 2_000_000}, *SAID]}),
        f'"{PILLS} ' + '\\"' * 400_000 + "\\",
        '["",' + '"",' * 250_000 + f'"{PILLS}"]',
        json.dumps({"messages": [*[{}] * 300_000, *SAID]}),
    ],
    ids=["cut", "cut with escapes", "plain", "list", "deep", "too large", "too large, newest", "escapes", "empty texts", "empty turns"],
)
def test_what_is_no_request_is_heard_too(url: str, body: str) -> None:
    begun = time.monotonic()
    response = ask(url, body.encode())
    assert 400 <= response.status_code < 500
    assert response.json()["warmline"]["risk"]["level"] == "red"
    assert time.monotonic() - begun < 10


def test_without_the_key_for_another_host_and_as_a_form(engine: Engine, serve: Serve) -> None:
    url, body = serve(engine, api_key="k"), json.dumps({"messages": SAID})
    json_type = {"content-type": "application/json"}
    for status, response in (
        (401, httpx.post(f"{url}{CHAT}", content=body, headers=json_type)),
        (415, httpx.post(f"{url}{CHAT}", content=body, headers={"authorization": "Bearer k"})),
        (421, httpx.post(f"{serve(engine)}{CHAT}", content=body, headers={**json_type, "host": "elsewhere.org"})),
        (404, httpx.post(f"{url}/v1/completions", content=json.dumps({"prompt": PILLS}), headers=json_type)),
    ):
        assert (response.status_code, response.json()["warmline"]["risk"]["level"]) == (status, "red")


def test_a_body_that_breaks_off_is_heard(engine: Engine, serve: Serve) -> None:
    host = serve(engine, limits=Limits(body_seconds=0.3)).removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=30)
    connection.putrequest("POST", CHAT)
    connection.putheader("content-length", "10000")
    connection.endheaders()
    connection.send(json.dumps({"messages": SAID}).encode()[:-2])
    response = connection.getresponse()
    assert (response.status, json.loads(response.read())["warmline"]["risk"]["level"]) == (408, "red")
    connection.close()


def test_the_assistants_words_and_the_tools_are_nobodys_risk() -> None:
    others = [{"role": role, "content": PILLS} for role in ("system", "assistant", "developer", "tool")]
    assert understand(json.dumps({"messages": others, "tools": [PILLS]}).encode()).turns == []


def endless(monkeypatch: pytest.MonkeyPatch) -> None:
    def draw(*_: Any) -> int:
        time.sleep(0.01)
        return 300

    monkeypatch.setattr(reply_module, "draw_token", draw)


def first_event(url: str, messages: Any) -> dict[str, Any]:
    with httpx.stream("POST", f"{url}{CHAT}", json={"messages": messages, "stream": True, **PLACE}, timeout=30) as response:
        assert response.status_code == 200
        return dict(json.loads(next(response.iter_lines()).removeprefix("data: ")))


def test_with_every_slot_taken_and_the_queue_full(fresh: Callable[..., Engine], serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Red is answered; whoever else must go carries what was heard."""
    endless(monkeypatch)
    engine = fresh(slots=1, queue=1)
    url = serve(engine)
    body = {"messages": CALM, "max_tokens": 1000}
    for _ in range(2):
        threading.Thread(target=lambda: ask(url, body), daemon=True).start()
    assert wait_for(lambda: engine.active + engine.waiting == 2, 5)
    begun = time.monotonic()
    assert ask(url, {"messages": SAID, **PLACE}).json()["choices"][0]["message"]["content"] == MESSAGE
    assert first_event(url, SAID)["warmline"]["risk"]["message"] == MESSAGE
    assert time.monotonic() - begun < 2
    refused = ask(url, {"messages": WORRY, **PLACE})
    assert (refused.status_code, refused.json()["warmline"]["risk"]["level"]) == (429, "yellow")
    engine.close()
    closed = ask(url, {"messages": WORRY, **PLACE})
    assert (closed.status_code, closed.json()["warmline"]["risk"]["level"]) == (503, "yellow")
    assert ask(url, {"messages": SAID, **PLACE}).json()["choices"][0]["message"]["content"] == MESSAGE


def test_what_was_heard_earlier_comes_before_the_model(fresh: Callable[..., Engine], serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    endless(monkeypatch)
    engine = fresh(slots=1, queue=9)
    url = serve(engine)
    threading.Thread(target=lambda: ask(url, {"messages": CALM, "max_tokens": 1000}), daemon=True).start()
    assert wait_for(lambda: engine.active == 1, 5)
    for messages, level in (([*SAID, *CALM], "red"), (WORRY, "yellow")):
        event = first_event(url, messages)
        assert (event["warmline"]["risk"]["level"], event["warmline"]["emotion"]) == (level, None)
        assert engine.active == 1


def test_a_stream_says_the_risk_at_once_and_the_reading_when_it_is_there(url: str) -> None:
    lines = ask(url, {"messages": WORRY, "stream": True, "max_tokens": 2, "temperature": 0}).text.split("\n\n")
    chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    first, second = (chunk["warmline"] for chunk in chunks if "warmline" in chunk)
    assert first == {**second, "emotion": None, "strategy": None}
    assert second["emotion"]["label"]
    assert [chunk["choices"][0]["delta"].get("role") for chunk in chunks].count("assistant") == 1


def test_a_failing_model_takes_nothing_from_the_message(
    fresh: Callable[..., Engine], serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = fresh()
    url = serve(engine)

    def fail(*_: Any) -> None:
        raise MemoryError("out of memory")

    monkeypatch.setattr(engine._backbone, "prefill", fail)
    whole = ask(url, {"messages": WORRY, **PLACE})
    assert (whole.status_code, whole.json()["warmline"]["risk"]["level"]) == (500, "yellow")
    lines = [line for line in ask(url, {"messages": WORRY, "stream": True, **PLACE}).text.splitlines() if line]
    assert lines[-1] == "data: [DONE]"
    events = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    assert events[0]["warmline"]["risk"]["level"] == events[-1]["warmline"]["risk"]["level"] == "yellow"
    assert "out of memory" in events[-1]["error"]["message"]
