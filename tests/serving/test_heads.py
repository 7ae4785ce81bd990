"""What heads are called; a third one is said everywhere, and nothing but its words had to be written."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.serving.browser import sources
from warmline.runs import read_json
from warmline.safety.guard import hear
from warmline.serving.about import Limits, about
from warmline.serving.completion import Completion
from warmline.serving.engine import Engine
from warmline.serving.stream import Stream
from warmline.serving.transcript import Talk, TalkTurn, in_words
from warmline.tasks import TASKS
from warmline.tasks.emotion import EMOTIONS_AND_NEUTRAL
from warmline.tasks.task import HeadTask

READING: Any = {
    "emotion": {"joy": 0.75, "love": 0.25},
    "strategy": {"Question": 0.6, "Others": 0.4},
    "urgency": {"u0": 0.1, "u1": 0.9},
}


class Urgency(HeadTask):
    name = "urgency"
    labels = ("u0", "u1")
    reads = "user"
    lead = "it"
    explanation = "How soon an answer is needed."
    words: Mapping[str, str] = {"u0": "can wait", "u1": "cannot wait"}


@pytest.fixture(autouse=True)
def urgency(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, "urgency", Urgency())


def test_in_a_line() -> None:
    assert in_words(READING) == "heard joy 75 %, leans to Question 60 %, it cannot wait 90 %"


def test_in_an_answer() -> None:
    stream = Stream(3, hear(["Hello"]), True, lambda: None)
    stream.put_reading(READING)
    stream.finish("stop")
    extra = asyncio.run(Completion(stream, "tiny", None, False).extra())
    assert list(extra) == ["emotion", "strategy", "urgency", "risk"]
    assert extra["urgency"] == {"label": "u1", "probability": 0.9, "scores": {"u0": 0.1, "u1": 0.9}}


def test_in_a_saved_conversation(tmp_path: Path) -> None:
    Talk([TalkTurn("Hello", "Hi.", reading=READING), TalkTurn("And?", "So.")]).save(tmp_path / "talk.json", {"run": "tiny"})
    said, answered, unread, _ = read_json(tmp_path / "talk.json")["messages"]
    assert (said["emotion"], said["urgency"], answered["strategy"]) == (READING["emotion"], READING["urgency"], READING["strategy"])
    assert "strategy" not in said
    assert (unread["emotion"], unread["urgency"]) == (None, None)


def test_to_a_page(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "heads", {**engine.heads, "urgency": ("u0", "u1")})
    assert about(engine, Limits(), None, False)["heads"][-1] == {
        "name": "urgency", "title": "Urgency", "explanation": "How soon an answer is needed.", "reads": "message",
        "labels": [{"name": "u0", "words": "can wait", "family": None}, {"name": "u1", "words": "cannot wait", "family": None}],
    }  # fmt: skip


def test_every_emotion_has_a_hue_that_the_page_knows() -> None:
    style = next(path for path in sources() if path.name == "style.css").read_text(encoding="utf-8")
    assert set(TASKS["emotion"].families) == set(EMOTIONS_AND_NEUTRAL)
    assert all(f'[data-feeling="{family}"]' in style for family in TASKS["emotion"].families.values())
