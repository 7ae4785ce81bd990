"""What every head has without a line of its own: rows, scores, and labels that stand where encoding puts them."""

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score
from transformers import AutoTokenizer

from tests.tools import ESCONV, GOEMOTIONS
from warmline.config import MOST_LABELS, DataConfig, RunConfig, declare_fields
from warmline.conversation import SPLITS, Conversation, Split, Turn
from warmline.data.enabled import enabled_sources
from warmline.data.encoding import encode
from warmline.data.packing import all_draws, collate
from warmline.data.template import ChatTemplate
from warmline.tasks import TASKS
from warmline.tasks.task import Evidence, HeadTask, HiddenReply, label_rows


class Mood(HeadTask):
    name, title, plural = "mood", "mood of the user's turn", "moods"
    labels = ("low", "even", "high", "none of these")
    reads: Literal["user", "assistant"] = "user"

    @property
    def classes(self) -> int:
        return 3


class Step(Mood):
    reads = "assistant"


def turn(text: str, *moods: str, role: Literal["user", "assistant"] = "user") -> Turn:
    return Turn(role, text, {"mood": moods} if moods else {})


TALKS = [
    Conversation("0", (turn("a", "low"), turn("b", role="assistant"), turn("c"), turn("d", "low", "high"))),
    Conversation("1", (turn("e", "none of these"), turn("f", "even", role="assistant"), turn("g", "high"))),
]


def test_rows_are_the_labelled_turns_of_the_role_that_is_read() -> None:
    rows = label_rows(Mood(), TALKS)
    assert rows.texts == ["a", "d", "e", "g"]
    assert rows.labels.astype(int).tolist() == [[1, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1], [0, 0, 1, 0]]
    assert rows.dialogues.tolist() == [0, 0, 1, 1]
    assert rows.single(3).tolist() == [True, False, False, True]  # one label, and it is a class
    assert rows.targets(3).tolist() == [0, 2]


def test_a_reply_is_told_by_what_came_before_it() -> None:
    rows = label_rows(Step(), TALKS)
    assert (rows.texts, rows.labels.astype(int).tolist(), rows.dialogues.tolist()) == (["e"], [[0, 1, 0, 0]], [1])
    long = Conversation("2", (*(turn(str(at)) for at in range(5)), turn("said", "low", role="assistant")))
    assert label_rows(Step(), [long]).texts == ["2 3 4"]


def test_without_a_label_there_are_no_rows() -> None:
    rows = label_rows(Mood(), [Conversation("0", (turn("a"),))])
    assert (rows.texts, rows.labels.shape, rows.dialogues.shape) == ([], (0, 4), (0,))


@pytest.mark.parametrize(("head", "place"), [("emotion", GOEMOTIONS), ("strategy", ESCONV)])
def test_encoding_gives_labels_in_the_order_of_the_rows(head: str, place: int, tiny_model: Path) -> None:
    task, source = TASKS[head], enabled_sources(DataConfig(dir="sample"))[place]
    conversations = source.load("test").conversations
    encoded = encode(source.name, conversations, source.objectives, ChatTemplate(AutoTokenizer.from_pretrained(tiny_model)), 512)
    bits = encoded.labels[head][:, 1]
    assert np.array_equal((bits[:, None] >> np.arange(len(task.labels)) & 1).astype(bool), label_rows(task, conversations).labels)


class Many(Mood):
    """As many labels as fit, and all of them classes."""

    name, labels = "many", tuple(f"label {at}" for at in range(MOST_LABELS))


class TooMany(Many):
    labels = (*Many.labels, "one more")


def test_as_many_labels_as_an_integer_has_bits(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, "many", Many())
    said = [(Many.labels[0],), (Many.labels[-1],), (Many.labels[3], Many.labels[62])]
    talks = [Conversation(str(at), (Turn("user", "Hi.", {"many": found}),)) for at, found in enumerate(said)]
    encoded = encode("made", talks, ("many",), ChatTemplate(AutoTokenizer.from_pretrained(tiny_model)), 512)
    targets = collate([encoded], [tuple(all_draws([encoded]))]).heads["many"].targets
    assert targets.nonzero().tolist() == [[0, 0], [1, 62], [2, 3], [2, 62]]
    monkeypatch.setitem(TASKS, "many", TooMany())
    with pytest.raises(ValueError, match="many: has 64 labels, expected at most 63"):
        declare_fields()


def test_a_name_that_is_taken_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("safety", "feeling"):  # the first is an objective, the second not the head's own
        with monkeypatch.context() as patch:
            patch.setitem(TASKS, name, Mood())
            with pytest.raises(ValueError, match=f"TASKS: `{name}` is not its name, or one of absent, lm, risk, safety, total"):
                declare_fields()


def test_a_head_that_was_added_is_off_until_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, "mood", Mood())
    try:
        declare_fields()
        named: list[dict] = [{}, {"heads": {"mood": {}}}]
        with_and_without = [RunConfig.model_validate({"name": "x", "model": {"name": "nano"}, **sections}).tasks for sections in named]
    finally:
        monkeypatch.undo()
        declare_fields()
    assert [[task.name for task in tasks] for tasks in with_and_without] == [["emotion", "strategy"], ["emotion", "strategy", "mood"]]


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    """Single-label, several-label and `none of these` turns; the base's states tell the mood, the head is right in half of the rows."""
    random = np.random.default_rng(0)
    conversations: dict[Split, list[Conversation]] = {}
    states, logits = {}, {}
    for split in SPLITS:
        moods = random.integers(4, size=120)
        conversations[split] = [
            Conversation(str(at), (turn(f"text {at}", Mood.labels[mood], *(("low",) if at % 10 == 0 and mood else ())),))
            for at, mood in enumerate(moods)
        ]
        states[split] = np.eye(4)[moods] + 0.1 * random.normal(size=(120, 4))
        logits[split] = np.eye(3)[np.where(random.random(120) < 0.5, moods % 3, random.integers(3, size=120))]
    return Evidence(conversations, {split: logits[split] for split in ("valid", "test")}, states, None, None, {"made": "0"}, 13)


def test_a_head_of_ones_own_is_scored_beside_what_it_must_beat(evidence: Evidence) -> None:
    found, rows = Mood().score(evidence), label_rows(Mood(), evidence.conversations["test"])
    single = rows.single(3)
    truth, guess = rows.targets(3), evidence.logits["test"][single].argmax(axis=1)
    assert found["n"] == single.sum() < 120
    assert found["accuracy"] == pytest.approx(accuracy_score(truth, guess))
    assert found["macro_f1"] == pytest.approx(f1_score(truth, guess, average="macro"))
    train = label_rows(Mood(), evidence.conversations["train"]).targets(3)
    commonest = int(np.bincount(train).argmax())
    assert found["majority"]["label"] == Mood.labels[commonest]
    assert found["majority"]["accuracy"] == pytest.approx(np.mean(truth == commonest))
    probe = found["baselines"]["linear_probe"]
    assert probe["accuracy"] > 0.95
    assert probe["head_minus_this"]["accuracy"] == pytest.approx(found["accuracy"] - probe["accuracy"])
    assert found["baselines"]["tfidf"]["accuracy"] < 0.6  # the texts tell nothing
    assert found["labels"] == list(Mood.labels[:3])
    assert np.sum(found["confusion"]) == found["n"] == sum(one["n"] for one in found["per_class"])
    assert found["calibration"]["scaled"]["nll"] <= found["calibration"]["raw"]["nll"] + 1e-2
    assert list(Mood().protocols(found)) == ["mood"]
    assert "hidden_reply" not in found


def test_a_head_that_reads_the_turn_alone_is_scored_behind_earlier_turns_too(evidence: Evidence, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Mood, "alone", True)
    plain = evidence._replace(inputs=None)
    assert Mood().score(plain)["in_context"] is None
    found = Mood().score(plain._replace(served=np.roll(evidence.logits["test"], 1, axis=1)))
    assert found["in_context"]["changed"] == 1
    assert found["in_context"]["accuracy"] != found["accuracy"]
    assert found["in_context"]["head_minus_this"]["accuracy"] == pytest.approx(found["accuracy"] - found["in_context"]["accuracy"])


def test_what_hiding_the_reply_did_is_kept(evidence: Evidence) -> None:
    found = Mood().score(evidence._replace(inputs=None, hidden=HiddenReply(5, 1)))
    assert found["hidden_reply"] == {"asked": 5, "moved": 1}
    assert found["baselines"] == {}


def test_hidden_replies_that_move_answers_are_told() -> None:
    assert HiddenReply(5, 0).warning("mood") is None
    line = str(HiddenReply(5, 2).warning("mood"))
    assert line.startswith("mood head: with the reply hidden, what it says of 2 of 5 turns changes")
