"""What the server says of itself: to a page, and in counts for Prometheus, which say how much and nothing of what was said."""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

import warmline
from warmline.paths import public_name
from warmline.safety.crisis import COUNTRIES
from warmline.serving.engine import LONGEST_REPLY, Engine
from warmline.serving.schema import MOST_MESSAGES
from warmline.serving.stream import Stream
from warmline.tasks import TASKS

NOTICE = (
    "You are talking to an AI: a language model tuned to listen. It is not a person and not a therapist, it can be wrong, and it cannot "
    "call anyone for you. If you or somebody else is in danger, contact your local emergency services."
)
COUNTRY_NAMES = {
    "US": "United States", "CA": "Canada", "GB": "United Kingdom", "IE": "Ireland", "AU": "Australia", "NZ": "New Zealand", "IN": "India",
    "DE": "Germany", "FR": "France", "ES": "Spain", "NL": "Netherlands",
}  # fmt: skip
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Limits(NamedTuple):
    """What one request may ask for.

    Attributes:
        body_bytes: Longest body.
        body_seconds: Longest time that sending it may take.
        message_characters: Longest message.
        max_tokens: Longest reply that may be asked for.
    """

    body_bytes: int = 2**20
    body_seconds: float = 30.0
    message_characters: int = 20_000
    max_tokens: int = 1024


def about(engine: Engine, limits: Limits, country: str | None, needs_key: bool) -> dict[str, Any]:
    """Everything that a page needs to introduce the model.

    Args:
        engine: Who answers.
        limits: Of a request.
        country: Whose hotlines are shown where a request names none.
        needs_key: Whether `/v1` asks for an API key.
    """
    return {
        "warmline": warmline.__version__,
        "run": engine.name,
        "base_model": public_name(engine.base_model).removeprefix("./"),
        "models": {"tuned": engine.tuned_id, "base": engine.base_id},
        "heads": [_head(name, labels) for name, labels in engine.heads.items()],
        "country": country,
        "countries": [{"code": code, "name": COUNTRY_NAMES[code]} for code in sorted(COUNTRIES, key=lambda code: COUNTRY_NAMES[code])],
        "limits": {
            **limits._asdict(),
            "messages": MOST_MESSAGES,
            "context_tokens": engine.context,
            "default_max_tokens": LONGEST_REPLY,
            "slots": engine.slots,
        },
        "needs_key": needs_key,
        "notice": NOTICE,
    }


def _head(name: str, labels: Sequence[str]) -> dict[str, Any]:
    """What a page needs to show a head of which it knows nothing."""
    task = TASKS[name]
    return {
        "name": name,
        "title": name.capitalize(),
        "explanation": task.explanation,
        "reads": "message" if task.reads == "user" else "reply",
        "labels": [{"name": label, "words": task.word(label), "family": task.families.get(label)} for label in labels],
    }


class Metrics:
    """Of one application.

    Args:
        engine: Whose slots and queue are watched.
    """

    def __init__(self, engine: Engine) -> None:
        self._registry = CollectorRegistry()
        self._replies = Counter("warmline_replies", "Replies by model and how they ended.", ["model", "ended"], registry=self._registry)
        self._refused = Counter("warmline_refused", "Requests that were refused, by HTTP status.", ["status"], registry=self._registry)
        self._prompt = Counter("warmline_prompt_tokens", "Tokens of prompts.", registry=self._registry)
        self._completion = Counter("warmline_completion_tokens", "Tokens of replies.", registry=self._registry)
        self._first = Histogram(
            "warmline_first_token_seconds", "From the request to the reading.", buckets=_SECONDS, registry=self._registry
        )
        self._whole = Histogram("warmline_reply_seconds", "From the request to the end.", buckets=_SECONDS, registry=self._registry)
        for name, words, value in (
            ("active", "Replies under way.", lambda: engine.active),
            ("waiting", "Requests in the queue.", lambda: engine.waiting),
            ("slots", "Replies that can be under way.", lambda: engine.slots),
        ):
            Gauge(f"warmline_{name}", words, registry=self._registry).set_function(value)

    def refused(self, status: int) -> None:
        """A request got an error."""
        self._refused.labels(str(status)).inc()

    def began(self, begun: float) -> None:
        """The prompt has been read; `begun` is when the request came, by `time.perf_counter`."""
        self._first.observe(time.perf_counter() - begun)

    def ended(self, model: str, stream: Stream, begun: float) -> None:
        """A reply has ended, or its client has gone."""
        self._replies.labels(model, stream.finish_reason or "gone").inc()
        self._prompt.inc(stream.prompt_tokens)
        self._completion.inc(stream.completion_tokens)
        self._whole.observe(time.perf_counter() - begun)

    def text(self) -> bytes:
        """In Prometheus's format."""
        return generate_latest(self._registry)
