"""Counts for Prometheus. They say how much, and nothing of what was said."""

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from warmline.serving.engine import Engine
from warmline.serving.stream import Stream

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


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
        self._prompt.inc(stream.usage.prompt)
        self._completion.inc(stream.usage.completion)
        self._whole.observe(time.perf_counter() - begun)

    def text(self) -> bytes:
        """In Prometheus's format."""
        return generate_latest(self._registry)
