"""Requests of any shape: a reply, or one clear line with a 4xx; never a 5xx, and never a line that only pydantic's authors can read.

`WARMLINE_FUZZ_EXAMPLES=5000 pytest tests/hostile/test_requests.py` looks longer.
"""

import json
import os
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.serving.conftest import serving
from warmline.serving.about import Limits
from warmline.serving.api import create_app
from warmline.serving.engine import Engine
from warmline.serving.schema import UNSUPPORTED

EXAMPLES = int(os.environ.get("WARMLINE_FUZZ_EXAMPLES", "200"))
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8) | st.just("\ud83d"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)
TEXT = st.sampled_from(["Hello", "", " \n", "I want to kill myself tonight.", "<|im_end|>", "\u2028\x00"]) | st.text(max_size=12)
PART = st.fixed_dictionaries({"type": st.just("text"), "text": TEXT}, optional={"cache_control": JUNK, "id": JUNK}) | JUNK
CONTENT = TEXT | st.none() | st.lists(PART, max_size=3) | JUNK
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "developer", "user", "assistant"])},
    optional={"content": CONTENT, "reasoning_content": JUNK, "tool_calls": JUNK, "name": JUNK, "timestamp": JUNK},
)
RIGHT: dict[str, Any] = {
    "model": st.sampled_from(["tiny", "tiny-base", "gpt-4"]),
    "stream": st.booleans(),
    "stream_options": st.fixed_dictionaries({}, optional={"include_usage": st.booleans(), "continuous_usage_stats": JUNK}),
    "temperature": st.floats(0, 2),
    "top_p": st.floats(0.01, 1),
    "min_p": st.floats(0, 1),
    "seed": st.integers(),
    "stop": st.text(max_size=5) | st.lists(st.text(max_size=5), max_size=20),
    "max_completion_tokens": st.integers(1, 2**70),
    "warmline": st.fixed_dictionaries({}, optional={"country": st.sampled_from(["GB", "xx", "United"]), "crisis_message": JUNK}),
    **{name: st.sampled_from([None, *neutral]) for name, (_, neutral) in UNSUPPORTED.items()},
}
REQUEST = st.builds(
    lambda body, extra, messages, last: {"max_completion_tokens": 2, **extra, **body, "messages": [*messages, last]},
    st.fixed_dictionaries({}, optional={name: value | JUNK if name == "stop" else value for name, value in RIGHT.items()}),
    st.dictionaries(st.sampled_from(sorted(RIGHT)) | st.text(max_size=8), JUNK, max_size=1),
    st.lists(MESSAGE, max_size=3) | st.just([]),
    st.just({"role": "user", "content": "Hello"}) | MESSAGE,
)


@pytest.fixture(scope="module")
def client(engine: Engine) -> Iterator[httpx.Client]:
    """Of a server whose replies are short."""
    with serving(create_app(engine, limits=Limits(max_tokens=3))) as url, httpx.Client(base_url=url, timeout=20) as client:
        yield client


def answered(client: httpx.Client, body: Any) -> httpx.Response:
    """Fails on what is neither a reply nor one clear line."""
    response = client.post("/v1/chat/completions", content=json.dumps(body).encode(), headers={"content-type": "application/json"})
    if response.status_code == 200:
        assert response.text.endswith("data: [DONE]\n\n") or response.json()["choices"][0]["finish_reason"] in ("stop", "length")
        return response
    assert response.status_code in (400, 404)
    message = response.json()["error"]["message"]
    assert len(message) < 300
    assert message.isprintable()
    assert not any(word in message for word in ("Input should", "function-", "union", "str]", "ChatMessage"))
    return response


@pytest.mark.slow(10)
def test_every_request_gets_a_reply_or_one_clear_line(client: httpx.Client) -> None:
    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None)
    @given(REQUEST)
    def one(body: dict[str, Any]) -> None:
        if body["max_completion_tokens"] in (None, 0, -1):  # the server's own length: right, and long
            body["max_completion_tokens"] = 1
        answered(client, body)

    one()


SENT = [{"role": "user", "content": "Hello"}]


@pytest.mark.slow(5)
def test_what_asks_for_nothing_unusual_is_served(client: httpx.Client) -> None:
    """Any number of fields at their default, unknown ones, and messages of which some are empty."""
    neutral = {name: st.sampled_from([None, *values]) for name, (_, values) in UNSUPPORTED.items()}
    empty_parts = st.lists(st.just({"type": "text", "text": ""}))
    turn = st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant"]), "content": TEXT | st.none() | empty_parts},
        optional={"reasoning_content": JUNK, "tool_calls": JUNK, "id": JUNK, "timestamp": JUNK},
    )

    @settings(max_examples=EXAMPLES // 3, deadline=None, derandomize=True, database=None)
    @given(
        st.fixed_dictionaries({}, optional=neutral),
        st.dictionaries(st.text(max_size=8).map(lambda name: f"x_{name}"), JUNK, max_size=3),
        st.lists(turn, max_size=4),
    )
    def one(fields: dict[str, Any], unknown: dict[str, Any], messages: list[Any]) -> None:
        body = {**unknown, **fields, "messages": [*messages, *SENT], "max_tokens": 2}
        assert answered(client, body).status_code == 200

    one()
