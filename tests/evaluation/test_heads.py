"""The saved heads' scores, worked out again by hand through the public way in."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import warmline
from tests.conftest import ConfigFactory
from tests.reference.objectives import states_alone
from tests.tools import CPU, perturb
from warmline.companion import Companion, PromptReader
from warmline.config import dump_config, load_config
from warmline.conversation import Conversation, Turn
from warmline.data.enabled import enabled_sources
from warmline.data.encoding import encode
from warmline.data.packing import Batch, all_draws, collate, earlier_features
from warmline.data.template import ChatTemplate, Message, as_messages
from warmline.errors import WarmlineError
from warmline.evaluation.evaluate import HeldOut, score_heads
from warmline.evaluation.finished import FinishedRun
from warmline.evaluation.heads import behind_earlier_turns
from warmline.model.artifacts import build_model, load_artifact, save_artifact
from warmline.model.base import load_tokenizer
from warmline.model.choose import Choice
from warmline.runs import RunFolder, write_json, write_text
from warmline.tasks.emotion import EMOTIONS, NEUTRAL
from warmline.tasks.strategy import STRATEGIES
from warmline.training.manifest import make_manifest


def untrained(run: RunFolder, config_factory: ConfigFactory, **sections: object) -> RunFolder:
    """A run folder with a noisy model, as if trained."""
    config = config_factory(run.path.parent, name=run.path.name, **sections)
    run.create()
    model = build_model(config, CPU.device, CPU.dtype)
    perturb(model)
    with torch.no_grad():  # a head that says more than one thing
        for name in model.heads:
            model.heads[name].layers[-1].weight.mul_(6)
            if model.heads[name].earlier is not None:
                torch.nn.init.normal_(model.heads[name].earlier.weight)
    write_text(run.config, dump_config(config))
    write_json(run.manifest, make_manifest(config, CPU, 1, Choice("transformers", "test")))
    save_artifact(run, model, config, ChatTemplate(load_tokenizer(config.model)), step=0)
    return run


def conversations(run: RunFolder, source: str, split: str) -> list[Conversation]:
    data = load_config(run.config).data
    (found,) = [one for one in enabled_sources(data) if one.name == source]
    return list(found.load(split).conversations)


def strategies(conversation: Conversation) -> list[tuple[int, str]]:
    """Each labelled reply's place, and its strategy."""
    return [(at, turn.labels["strategy"][0]) for at, turn in enumerate(conversation.turns) if "strategy" in turn.labels]


def heads_of(run: RunFolder) -> dict[str, Any]:
    """Without what takes long and is tested elsewhere."""
    finished = FinishedRun.open(run.path)
    return score_heads(finished, HeldOut.of(finished), baselines=False)


def accuracy(pairs: list[tuple[str, str]]) -> float:
    return sum(truth == guess for truth, guess in pairs) / len(pairs)


def macro_f1(pairs: list[tuple[str, str]], labels: tuple[str, ...]) -> float:
    total = 0.0
    for label in labels:
        hits = sum(truth == guess == label for truth, guess in pairs)
        asked = sum(truth == label for truth, _ in pairs) + sum(guess == label for _, guess in pairs)
        total += 2 * hits / asked if asked else 0.0
    return total / len(labels)


def likeliest(probabilities: dict[str, float], labels: tuple[str, ...]) -> str:
    return max(labels, key=lambda label: probabilities[label])


@pytest.mark.parametrize("labels", [27, 28])
def test_emotion_by_hand(labels: int, tiny_config: ConfigFactory, tmp_path: Path) -> None:
    run = untrained(RunFolder(tmp_path / "run"), tiny_config, data={"sources": {"goemotions": {"labels": labels}}})
    scores = heads_of(run)["emotion"]["single_label_27"]
    companion = warmline.load(run.path)
    pairs = [
        (said[0], likeliest(companion.read(as_messages(one))["emotion"], EMOTIONS))
        for one in conversations(run, "goemotions", "test")
        if len(said := one.turns[0].labels["emotion"]) == 1 and said != (NEUTRAL,)
    ]
    assert len({guess for _, guess in pairs}) > 2
    assert scores["n"] == len(pairs)
    assert scores["accuracy"] == pytest.approx(accuracy(pairs))
    assert scores["macro_f1"] == pytest.approx(macro_f1(pairs, EMOTIONS))
    train = [one.turns[0].labels["emotion"] for one in conversations(run, "goemotions", "train")]
    commonest, _ = Counter(labels[0] for labels in train if len(labels) == 1 and labels[0] != NEUTRAL).most_common(1)[0]
    always = [(truth, commonest) for truth, _ in pairs]
    majority = scores["majority"]
    assert majority["label"] == commonest
    assert (majority["accuracy"], majority["macro_f1"]) == pytest.approx((accuracy(always), macro_f1(always, EMOTIONS)))
    assert scores["without_seen_texts"]["n"] + scores["without_seen_texts"]["left_out"] == scores["n"]
    low, high = scores["intervals"]["accuracy"]
    assert low < scores["accuracy"] < high


def test_strategy_by_hand(tiny_config: ConfigFactory, tmp_path: Path) -> None:
    run = untrained(RunFolder(tmp_path / "run"), tiny_config, data={"row_tokens": 4096})
    scores = heads_of(run)["strategy"]
    _, model, template = load_artifact(run, CPU.device, CPU.dtype)
    pairs, head = [], model.heads["strategy"]
    for one in conversations(run, "esconv", "test"):
        for at, strategy in strategies(one):
            with torch.no_grad():
                states = states_alone(model, torch.tensor(template.prompt_ids(as_messages(one)[:at])))
                pairs.append((strategy, STRATEGIES[int(head(head.scale(states[-1:])).argmax())]))
    assert len({guess for _, guess in pairs}) > 2
    assert scores["n"] == len(pairs)
    assert scores["accuracy"] == pytest.approx(accuracy(pairs))
    assert scores["macro_f1"] == pytest.approx(macro_f1(pairs, STRATEGIES))
    train = Counter(strategy for one in conversations(run, "esconv", "train") for _, strategy in strategies(one))
    assert scores["majority"]["label"] == train.most_common(1)[0][0]


def test_earlier_strategies_annotated_and_own(tiny_config: ConfigFactory, tmp_path: Path) -> None:
    """Both inputs of a head that sees earlier strategies, worked out turn by turn."""
    heads = {"strategy": {"earlier_strategies": True}}
    run = untrained(RunFolder(tmp_path / "run"), tiny_config, data={"row_tokens": 4096}, heads=heads)
    scores = heads_of(run)["strategy"]
    _, model, template = load_artifact(run, CPU.device, CPU.dtype)
    companion, head, told, own = Companion(model, template, CPU), model.heads["strategy"], [], []
    for one in conversations(run, "esconv", "test"):
        used: list[int] = []
        for at, strategy in strategies(one):
            before = as_messages(one)[:at]
            if served := bool(before) and before[-1]["role"] == "user":
                own.append((strategy, likeliest(companion.read(before)["strategy"], STRATEGIES)))
            states = states_alone(model, torch.tensor(template.prompt_ids(before)))
            used.append(STRATEGIES.index(strategy))
            earlier = earlier_features(torch.eye(8)[used])[-1:]  # which its own strategy does not enter
            told.append(((strategy, STRATEGIES[int(head(head.scale(states[-1:]), earlier).argmax())]), served))
    everywhere = [pair for pair, _ in told]
    assert scores["accuracy"] == pytest.approx(accuracy(everywhere))
    assert scores["macro_f1"] == pytest.approx(macro_f1(everywhere, STRATEGIES))
    assert scores["own_choices"]["n"] == len(own) > 10
    assert scores["own_choices"]["accuracy"] == pytest.approx(accuracy(own))
    assert scores["own_choices"]["macro_f1"] == pytest.approx(macro_f1(own, STRATEGIES))
    told_there = [pair for pair, served in told if served]
    gain = scores["own_choices"]["head_minus_this"]
    assert gain["accuracy"] == pytest.approx(accuracy(told_there) - accuracy(own))
    assert gain["macro_f1"] == pytest.approx(macro_f1(told_there, STRATEGIES) - macro_f1(own, STRATEGIES))


def test_a_strategy_is_served_only_after_a_users_turn(tiny_config: ConfigFactory, tmp_path: Path) -> None:
    """For a head that sees no earlier strategies too: those rows, through the public way in, and where the others went."""
    run = untrained(RunFolder(tmp_path / "run"), tiny_config, data={"row_tokens": 4096})
    scores, companion = heads_of(run)["strategy"], warmline.load(run.path)
    pairs, left_out = [], Counter[str]()
    for one in conversations(run, "esconv", "test"):
        for at, strategy in strategies(one):
            if at and one.turns[at - 1].role == "user":
                pairs.append((strategy, likeliest(companion.read(as_messages(one)[:at])["strategy"], STRATEGIES)))
            else:
                left_out["follow the supporter's own message" if at else "open a dialogue"] += 1
    served = scores["own_choices"]
    assert served["n"] == len(pairs)
    assert served["left_out"] == {"follow the supporter's own message": 0, "open a dialogue": 0} | left_out
    assert served["n"] + sum(left_out.values()) == scores["n"] > served["n"]
    assert (served["accuracy"], served["macro_f1"]) == pytest.approx((accuracy(pairs), macro_f1(pairs, STRATEGIES)))
    assert served["head_minus_this"]["accuracy"] == 0


@pytest.mark.parametrize("labels", [27, 28])
def test_an_emotion_in_context_is_the_emotion_alone(
    labels: int, tiny_config: ConfigFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what serves: let that read whole conversations, and evaluation sees the answers change."""
    run = untrained(RunFolder(tmp_path / "run"), tiny_config, data={"sources": {"goemotions": {"labels": labels}}})
    protocols = ("single_label_27", "multi_label_28") if labels == 28 else ("single_label_27",)
    found = heads_of(run)["emotion"]
    for name in protocols:
        alone, there = found[name], found[name]["in_context"]
        assert there["n"] == alone["n"]
        assert there["changed"] == 0
        assert (there["accuracy"], there["macro_f1"]) == (alone["accuracy"], alone["macro_f1"])
        assert there["intervals"]["accuracy"] == alone["intervals"]["accuracy"]

    def whole(reader: PromptReader, talks: Sequence[list[Message]]) -> Batch:
        turns = [[Turn(one["role"], one["content"]) for one in talk] for talk in talks]
        heard = [Conversation("", (*before, replace(last, labels={"emotion": ("joy",)}))) for *before, last in turns]
        encoded = [encode("made", heard, ("emotion",), reader.template, 100_000)]
        return collate(encoded, [tuple(all_draws(encoded))])

    monkeypatch.setattr(PromptReader, "last_turns", whole)
    changed = heads_of(run)["emotion"]
    assert all(changed[name]["in_context"]["changed"] > 0.05 for name in protocols)
    assert changed["single_label_27"]["accuracy"] == found["single_label_27"]["accuracy"]


def test_a_context_ends_with_the_comment_behind_a_reply() -> None:
    dialogue = Conversation("d", tuple(Turn("user" if at % 2 == 0 else "assistant", f"turn {at}") for at in range(8)))
    silent = Conversation("s", (Turn("user", "nobody answers"),))
    talks = behind_earlier_turns([f"comment {at}" for at in range(50)], [silent, dialogue], seed=13)
    assert [talk[-1] for talk in talks] == [Message(role="user", content=f"comment {at}") for at in range(50)]
    assert {len(talk) for talk in talks} == {3, 5, 7, 9}
    assert all(talk[:-1] == as_messages(dialogue)[: len(talk) - 1] for talk in talks)
    assert talks == behind_earlier_turns([f"comment {at}" for at in range(50)], [silent, dialogue], seed=13)
    assert talks != behind_earlier_turns([f"comment {at}" for at in range(50)], [silent, dialogue], seed=14)


def test_without_dialogues_there_is_no_context(tiny_config: ConfigFactory, tmp_path: Path) -> None:
    sections = {"sources": {"empathetic_dialogues": {"enabled": False}, "esconv": {"enabled": False}}}
    run = untrained(RunFolder(tmp_path / "run"), tiny_config, data=sections)
    single = heads_of(run)["emotion"]["single_label_27"]
    assert single["in_context"] is None
    assert "no earlier turns" in single["absent"]["in_context"]


def test_batch_size_does_not_matter(tiny_config: ConfigFactory, tmp_path: Path) -> None:
    """Rows of another capacity, the same scores."""
    run = untrained(RunFolder(tmp_path / "run"), tiny_config, data={"row_tokens": 4096})
    wide = heads_of(run)["emotion"]["single_label_27"]["confusion"]
    config = load_config(run.config)
    narrow = config.model_copy(update={"data": config.data.model_copy(update={"row_tokens": 512})})
    write_text(run.config, dump_config(narrow))
    assert heads_of(run)["emotion"]["single_label_27"]["confusion"] == wide


def test_head_without_targets_is_absent(tiny_config: ConfigFactory, tmp_path: Path) -> None:
    sections = {"sources": {"goemotions": {"enabled": False}}}
    run = untrained(RunFolder(tmp_path / "run"), tiny_config, data=sections)
    heads = heads_of(run)
    assert heads["emotion"] is None
    assert "goemotions" in heads["absent"]["emotion"]
    assert heads["strategy"]["n"] > 0


def test_unfinished_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WarmlineError, match="not a run folder"):
        RunFolder.open(tmp_path)
