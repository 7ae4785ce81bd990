"""What was written for this project: conversations with a friend, and prompts of other kinds."""

from pathlib import Path

import pytest

from warmline.conversation import SPLITS, Conversation, Split
from warmline.data.own_words import read_words, words_file
from warmline.errors import WarmlineError
from warmline.redteam.suites import load_red_team
from warmline.rewriting.flaws import flaw
from warmline.rewriting.rewrite import BY_HAND
from warmline.sources import SOURCES
from warmline.sources.files import assets_dir, read_conversations


def everything(name: str) -> list[Conversation]:
    return [one for split in SPLITS for one in SOURCES[name].load(assets_dir() / name, split, None).conversations]


@pytest.mark.parametrize(("name", "least"), [("friend", 500), ("retention", 350)])
def test_nothing_stands_twice_and_nothing_is_asked_by_the_red_team(name: str, least: int) -> None:
    conversations = everything(name)
    assert len(conversations) >= least
    assert len({one.id for one in conversations}) == len(conversations)
    first = [tuple(turn.text for turn in one.turns) for one in conversations]
    assert len(set(first)) == len(first)
    asked = {text for item in load_red_team().items for text in item.turns}
    assert not asked & {turn.text for one in conversations for turn in one.turns}


def test_a_friend_answers_last_and_keeps_the_rules_of_the_voice() -> None:
    replies = [turn.text for one in everything("friend") for turn in one.turns if turn.role == "assistant" and turn.target]
    assert all((one.turns[-1].role, one.turns[-1].target) == ("assistant", True) for one in everything("friend"))
    reasons = [reason for reply in replies if (reason := flaw(reply)) not in (None, "too short")]
    assert not {"stock phrases", "a list", "a number", "too long"} & set(reasons)
    assert len(reasons) < 0.03 * len(replies)  # sentences that it lends to the user, or an unlucky word


@pytest.mark.parametrize("split", ["train", "valid"])
@pytest.mark.parametrize("name", ["empathetic_dialogues", "esconv"])
def test_replies_by_hand_answer_official_turns_of_that_split_and_keep_the_rules(name: str, split: Split, official: Path) -> None:
    found = read_words(words_file(BY_HAND, name, split))
    folder = official / ("esconv" if name == "esconv" else name)
    turns = {one.id: one.turns for one in SOURCES[name].load(folder, split, None).conversations}
    assert len(found) >= 24
    reasons = []
    for spot, record in found.items():
        before = turns[spot.conversation][: spot.turn]
        assert (turns[spot.conversation][spot.turn].role, before[-1].role) == ("assistant", "user")
        reasons.append(flaw(record["reply"], [one.text for one in before if one.role == "user"]))
    assert not {"a list", "a number", "too long", "copies", "refuses"} & set(reasons)
    assert sum(reason not in (None, "too short") for reason in reasons) < 0.05 * len(found)


def test_no_reply_by_hand_belongs_to_a_test_split() -> None:
    assert sorted(path.name for path in BY_HAND.iterdir()) == [
        "empathetic_dialogues-train.jsonl",
        "empathetic_dialogues-valid.jsonl",
        "esconv-train.jsonl",
        "esconv-valid.jsonl",
    ]


def test_retention_prompts_wait_for_an_answer() -> None:
    assert all([turn.role for turn in one.turns] == ["user"] for one in everything("retention"))
    assert {one.kind for one in everything("retention")} >= {
        "facts",
        "arithmetic",
        "instructions",
        "formats_headings",
        "json",
        "lists",
        "long",
    }


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"id": "a"}', "expected an object with id, about and messages"),
        (
            '{"id": "a", "about": "b", "messages": [{"role": "assistant", "content": "hi"}]}',
            "role is `assistant`, expected user and assistant",
        ),
        ('{"id": "a", "about": "b", "messages": []}', "has no message"),
        (
            '{"id": "a", "about": "b", "messages": [{"role": "user", "content": "hi", "target": false}]}',
            "target is `False`, expected true or false, and only of the assistant's messages",
        ),
        ('{"id": "a", "about": "b", "messages": [{"role": "user", "content": " "}]}', "1"),
    ],
)
def test_a_line_that_does_not_fit_is_named(line, says, tmp_path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(line + "\n", encoding="utf-8")
    with pytest.raises(WarmlineError, match=r"train\.jsonl:1") as caught:
        read_conversations(path)
    assert says in str(caught.value)
