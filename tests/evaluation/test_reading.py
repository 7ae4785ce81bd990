"""What was read: verdicts without text, and places that the detectors flag still."""

from collections import Counter
from pathlib import Path

import pytest

from warmline.config import DataConfig
from warmline.data.enabled import enabled_sources
from warmline.data.template import as_messages
from warmline.evaluation.detectors import ERROR_CLASSES, ReplyInContext, detect_all
from warmline.evaluation.errors import precision, read_verdicts, usual_words
from warmline.metrics.statistics import wilson


def test_at_least_fifty_were_read_over_all_classes() -> None:
    context, verdicts = read_verdicts()
    assert len(verdicts) >= 50
    assert {verdict["class"] for verdict in verdicts} == {error.name for error in ERROR_CLASSES}
    assert "not a clinician" in context["reader"]
    places = Counter((v["source"], v["split"], v["conversation"], v["turn"], v["class"]) for v in verdicts)
    assert max(places.values()) == 1


def test_precision_by_hand() -> None:
    verdicts = [{"class": "a", "right": right} for right in (True, True, False)] + [{"class": "b", "right": False}]
    assert precision(verdicts, "a") == {"read": 3, "right": 2, "share": 2 / 3, "interval": list(wilson(2, 3))}
    assert precision(verdicts) == {"read": 4, "right": 2, "share": 0.5, "interval": list(wilson(2, 4))}
    assert precision(verdicts, "c") is None


@pytest.mark.slow
def test_the_detectors_are_those_that_were_read(shared: Path) -> None:
    data = DataConfig(dir=str(shared / "data"))
    _, verdicts = read_verdicts()
    for source in enabled_sources(data):
        for split in ("test", "train"):
            own = [verdict for verdict in verdicts if (verdict["source"], verdict["split"]) == (source.name, split)]
            if own:
                conversations = {one.id: one for one in source.load(split).conversations}
                usual = usual_words(list(conversations.values()))
                for verdict in own:
                    messages = as_messages(conversations[verdict["conversation"]])
                    turn = verdict["turn"]
                    findings = detect_all(ReplyInContext(messages[:turn], messages[turn]["content"], usual))
                    assert findings[verdict["class"]].evidence is not None, verdict
