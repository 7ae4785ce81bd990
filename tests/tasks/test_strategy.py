"""The strategy head's rows and scores by hand, and what is said where a predictor has seen the reply."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from warmline.conversation import SPLITS, Conversation, Split, Turn
from warmline.metrics.baselines import Fitted, fit_dense, fit_text, text_features
from warmline.sources.esconv import load
from warmline.sources.files import sample_dir
from warmline.tasks import TASKS
from warmline.tasks.strategy import (
    HISTORY,
    STRATEGIES,
    StrategyRows,
    StrategySettings,
    leak_limit,
    leak_warning,
    preferences,
    score_strategy,
    strategy_rows,
)
from warmline.tasks.task import Evidence, HeadSettings, HiddenReply

STRATEGY = TASKS["strategy"]
Rows = Mapping[Split, StrategyRows]


def reply(text: str, strategy: str) -> Turn:
    return Turn("assistant", text, {"strategy": (strategy,)})


TALK = Conversation(
    "0",
    (
        Turn("user", "Hi"),
        reply("What happened?", "Question"),
        reply("I am here.", "Others"),
        Turn("user", "I lost my job."),
        reply("That hurts.", "Reflection of feelings"),
    ),
)


def test_rows_hold_only_what_came_before() -> None:
    rows = strategy_rows([TALK])
    assert rows.targets.tolist() == [0, 7, 2]
    assert rows.dialogues.tolist() == [0, 0, 0]
    assert rows.after == ["user", "assistant", "user"]
    assert rows.contexts == ["Hi", "Hi What happened?", "What happened? I am here. I lost my job."]
    assert rows.history.tolist() == [
        [0, 0, 0, 0, 0, 0, 0, 0, 1],
        [1, 0, 0, 0, 0, 0, 0, 0, 2],
        [1, 0, 0, 0, 0, 0, 0, 1, 4],
    ]
    assert rows.history_in_order[2, 9:17].argmax() == 7  # the last strategy, then the one before
    assert rows.history_in_order[2, 17:25].argmax() == 0
    assert rows.history_in_order[:, -1].tolist() == [0, 1, 0]
    changed = strategy_rows([Conversation("0", (*TALK.turns[:4], reply("Why?", "Question")))])
    np.testing.assert_array_equal(changed.history_in_order, rows.history_in_order)
    assert changed.contexts == rows.contexts


def history(rows: Rows, name: str) -> Fitted:
    return fit_dense(
        {split: getattr(one, name) for split, one in rows.items()},
        {split: one.targets for split, one in rows.items()},
        len(STRATEGIES),
    )


def test_history_is_measured_without_text() -> None:
    """The same strategies with other words: the same predictions."""

    def talk(words: str, number: int) -> Conversation:
        names = ("Question", "Others") if number % 2 else ("Others", "Question")
        return Conversation(str(number), tuple(reply(words, name) for name in names))

    found = []
    for words in ("one", "two three"):
        rows: Rows = {split: strategy_rows([talk(words, number) for number in range(20)]) for split in SPLITS}
        found.append(history(rows, "history_in_order").test)
    np.testing.assert_array_equal(*found)


def test_the_rule_of_a_leak() -> None:
    assert leak_warning("probe", 0.375, history_accuracy=0.34) is None  # what an honest head reaches
    assert "look for a leak" in str(leak_warning("probe", 0.468, history_accuracy=0.34))
    assert leak_limit(0.55) == pytest.approx(0.65)  # strategies that follow each other strictly need no text


@pytest.fixture(scope="module")
def sample() -> dict[Split, tuple[Conversation, ...]]:
    return {split: load(sample_dir() / "esconv", split).conversations for split in SPLITS}


def silent(rows: Rows) -> dict[Split, Any]:
    """The logits of a head that says nothing."""
    return {split: np.zeros((len(rows[split].targets), len(STRATEGIES))) for split in ("valid", "test")}


@pytest.mark.parametrize(("read", "accused"), [("contexts", []), ("replies", ["linear_probe"])])
def test_a_probe_that_reads_the_reply_is_noticed(sample: dict[Split, tuple[Conversation, ...]], read: str, accused: list[str]) -> None:
    """Beside one that reads what came before it, of which nothing is said."""
    rows: Rows = {split: strategy_rows(found) for split, found in sample.items()}
    targets = {split: one.targets for split, one in rows.items()}
    replies = {split: [turn.text for one in found for turn in one.turns if turn.labels] for split, found in sample.items()}
    texts = replies if read == "replies" else {split: one.contexts for split, one in rows.items()}
    probe = fit_text(text_features(texts, pieces=False), targets, len(STRATEGIES))
    scores = score_strategy(rows, silent(rows), {**{name: history(rows, name) for name in HISTORY}, "linear_probe": probe}, seed=13)
    assert [line.split(":")[0] for line in STRATEGY.warnings(scores)] == accused


@pytest.mark.parametrize(("moved", "warned"), [(0, False), (2, True)])
def test_a_head_whose_answers_move_is_accused(sample: dict[Split, tuple[Conversation, ...]], moved: int, warned: bool) -> None:
    rows: Rows = {split: strategy_rows(found) for split, found in sample.items()}
    scores = STRATEGY.score(Evidence(sample, silent(rows), None, None, HiddenReply(9, moved), {}, 13))
    assert scores["hidden_reply"] == {"asked": 9, "moved": moved}
    assert bool(STRATEGY.warnings(scores)) == warned
    assert all(line.startswith("strategy head: with the reply hidden, what it says of 2 of 9") for line in STRATEGY.warnings(scores))


def test_as_served_is_where_a_user_has_just_spoken(sample: dict[Split, tuple[Conversation, ...]]) -> None:
    rows: Rows = {split: strategy_rows(found) for split, found in sample.items()}
    test, logits = rows["test"], silent(rows)
    logits["test"] = np.eye(len(STRATEGIES))[test.targets]  # right wherever strategies are annotated
    own = np.roll(logits["test"], 1, axis=1)  # and nowhere where they are not
    scores = score_strategy(rows, logits, {}, 13, own)
    served = STRATEGY.as_served(scores)
    assert served is not None
    assert (scores["accuracy"], served["accuracy"], served["head_minus_this"]["accuracy"]) == (1, 0, 1)
    assert served["n"] == test.after.count("user")
    assert served["n"] + sum(served["left_out"].values()) == scores["n"]
    assert list(STRATEGY.protocols(scores)) == ["strategy"]


def test_preferences_are_told_by_name() -> None:
    truth, guess = np.repeat(np.arange(8), 8), np.tile(np.arange(8), 8)
    found = preferences(truth, guess)
    assert found["bias"] == pytest.approx(0, abs=1e-9)
    assert found["strengths"] == pytest.approx(dict.fromkeys(STRATEGIES, 1.0))
    without = preferences(truth, truth)
    assert without["bias"] is without["strengths"] is None
    assert "Bradley-Terry" in without["absent"]


def test_earlier_strategies_are_an_input_where_they_are_asked_for() -> None:
    assert STRATEGY.sees_earlier(StrategySettings(earlier_strategies=True))
    assert not STRATEGY.sees_earlier(StrategySettings())
    assert not STRATEGY.sees_earlier(HeadSettings())
