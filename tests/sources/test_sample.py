"""The data inside the package: enough of everything, nothing in two splits, nothing that must not be said."""

import re
from collections import Counter
from importlib import resources

import pytest

from warmline.config import DataConfig
from warmline.conversation import SPLITS
from warmline.data.enabled import enabled_sources
from warmline.safety.crisis import SLOTS, fill_slots, unknown_slots
from warmline.sources.empathetic_dialogues import SITUATIONS
from warmline.sources.safety import CATEGORIES
from warmline.tasks.emotion import EMOTIONS, EMOTIONS_AND_NEUTRAL, NEUTRAL
from warmline.tasks.strategy import STRATEGIES

CONFIG = DataConfig.model_validate({"dir": "sample", "sources": {"goemotions": {"labels": 28}}})
NAMES = ["empathetic_dialogues", "esconv", "goemotions", "safety"]


@pytest.fixture(scope="module")
def sample():
    """Conversations by source and split."""
    sources = enabled_sources(CONFIG)
    return {source.name: {split: source.load(split).conversations for split in SPLITS} for source in sources}


def everything(sample, name):
    return [conversation for split in SPLITS for conversation in sample[name][split]]


def label_counts(conversations) -> Counter:
    return Counter(label for conversation in conversations for label in conversation.turns[0].labels["emotion"])


def test_support_dialogues_are_many_and_long(sample):
    dialogues = everything(sample, "esconv")
    assert len(dialogues) >= 60
    assert min(len(dialogue.turns) for dialogue in dialogues) >= 10


def test_support_dialogues_use_every_strategy_in_train(sample):
    used = {label for dialogue in sample["esconv"]["train"] for turn in dialogue.turns for label in turn.labels.get("strategy", ())}
    assert used == set(STRATEGIES)


def test_empathetic_conversations_cover_every_situation(sample):
    conversations = everything(sample, "empathetic_dialogues")
    assert len(conversations) >= 200
    assert {conversation.kind for conversation in conversations} == set(SITUATIONS)


def test_texts_cover_every_emotion_and_neutral(sample):
    rows = everything(sample, "goemotions")
    assert len(rows) >= 1200
    assert set(label_counts(rows)) == set(EMOTIONS_AND_NEUTRAL)


def test_some_texts_have_several_emotions(sample):
    assert sum(len(set(row.turns[0].labels["emotion"]) - {NEUTRAL}) > 1 for row in everything(sample, "goemotions")) >= 50


def test_every_label_is_in_every_split(sample):
    for split in SPLITS:
        assert set(label_counts(sample["goemotions"][split])) >= set(EMOTIONS), split


def test_no_text_has_the_same_label_twice(sample):
    assert all(len(set(found)) == len(found) for row in everything(sample, "goemotions") for found in row.turns[0].labels.values())


def test_the_shipped_label_list_is_ours():
    text = (resources.files("warmline") / "assets" / "sample" / "goemotions" / "emotions.txt").read_text(encoding="utf-8")
    assert tuple(text.split()) == EMOTIONS_AND_NEUTRAL


def test_safety_conversations_cover_every_category_in_every_split(sample):
    assert len(everything(sample, "safety")) >= 160
    for split in SPLITS:
        assert {conversation.kind for conversation in sample["safety"][split]} == set(CATEGORIES), split


@pytest.mark.parametrize("name", NAMES)
def test_no_message_stands_in_two_splits(sample, name):
    texts = {
        split: {turn.text.casefold() for conversation in sample[name][split] for turn in conversation.turns if len(turn.text.split()) > 3}
        for split in SPLITS
    }
    assert texts["train"] & texts["valid"] == texts["train"] & texts["test"] == texts["valid"] & texts["test"] == set()


@pytest.mark.parametrize("name", NAMES)
def test_no_opening_message_stands_twice(sample, name):
    openings = Counter(conversation.turns[0].text.casefold() for conversation in everything(sample, name))
    assert [text for text, count in openings.items() if count > 1] == []


@pytest.mark.parametrize("name", NAMES)
def test_ids_are_unique(sample, name):
    ids = Counter(conversation.id for conversation in everything(sample, name))
    assert [one for one, count in ids.items() if count > 1] == []


def replies(sample, name):
    return [turn.text for conversation in everything(sample, name) for turn in conversation.turns if turn.role == "assistant"]


def test_every_slot_in_a_safety_reply_can_be_filled(sample):
    texts = replies(sample, "safety")
    assert [text for text in texts if unknown_slots(text)] == []
    assert [text for text in texts if re.search(r"[{}]", fill_slots(text))] == []


def test_every_slot_is_used(sample):
    joined = " ".join(replies(sample, "safety"))
    assert all(f"{{{slot}}}" in joined for slot in SLOTS)


@pytest.mark.parametrize("name", NAMES)
def test_no_reply_names_a_phone_number(sample, name):
    long = r"\+?\d(?:[\s().-]?\d){5,}"
    hotlines = r"(?<![\d.])(?:000|111|112|211|911|988|999|13 ?11 ?14|116 ?123)(?![\d.]\d)"
    assert [text for text in replies(sample, name) if re.search(f"{long}|{hotlines}", text)] == []


def test_every_medical_emergency_is_answered_with_help(sample):
    emergencies = [conversation for conversation in everything(sample, "safety") if conversation.kind == "medical_emergency"]
    said = {conversation.id: " ".join(turn.text for turn in conversation.turns if turn.role == "assistant") for conversation in emergencies}
    assert [name for name, text in said.items() if "{emergency_number}" not in text] == []
