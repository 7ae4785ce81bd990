"""The saved heads' scores, worked out again by hand through the public way in."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import warmline
from tests.conftest import ConfigFactory
from tests.reference.objectives import states_alone
from tests.tools import CPU, perturb
from warmline.companion import Companion
from warmline.config import dump_config, load_config
from warmline.data.conversation import Conversation
from warmline.data.earlier import annotated, earlier_features
from warmline.data.labels import EMOTIONS, NEUTRAL, STRATEGIES
from warmline.data.sources import enabled_sources, load_source
from warmline.data.template import ChatTemplate, as_messages
from warmline.errors import WarmlineError
from warmline.evaluation.evaluate import HeldOut, score_heads
from warmline.evaluation.finished import FinishedRun
from warmline.evaluation.heads import predict
from warmline.model.artifacts import build_model, load_artifact, save_artifact
from warmline.model.choose import Choice
from warmline.model.transformers_backbone import load_tokenizer
from warmline.runs import RunFolder, write_json, write_text
from warmline.training.manifest import make_manifest


def untrained(run: RunFolder, config_factory: ConfigFactory, **sections: object) -> RunFolder:
    """A run folder with a noisy model, as if trained."""
    config = config_factory(run.path.parent, name=run.path.name, **sections)
    run.create()
    model = build_model(config, CPU.device, CPU.dtype)
    perturb(model)
    with torch.no_grad():  # a head that says more than one thing
        model.heads.emotion.layers[-1].weight.mul_(30)
        model.heads.strategy.layers[-1].weight.mul_(30)
        if model.heads.strategy.earlier is not None:
            torch.nn.init.normal_(model.heads.strategy.earlier.weight)
    write_text(run.config, dump_config(config))
    write_json(run.manifest, make_manifest(config, CPU, 1, Choice("transformers", "test")))
    save_artifact(run, model, config, ChatTemplate(load_tokenizer(config.model)), step=0)
    return run


def conversations(run: RunFolder, source: str, split: str) -> list[Conversation]:
    data = load_config(run.config).data
    (found,) = [one for one in enabled_sources(data) if one.name == source]
    return list(load_source(found, split, data).conversations)


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
        (one.turns[0].emotions[0], likeliest(companion.read(as_messages(one)).emotion, EMOTIONS))
        for one in conversations(run, "goemotions", "test")
        if len(one.turns[0].emotions) == 1 and one.turns[0].emotions != (NEUTRAL,)
    ]
    assert len({guess for _, guess in pairs}) > 2
    assert scores["n"] == len(pairs)
    assert scores["accuracy"] == pytest.approx(accuracy(pairs))
    assert scores["macro_f1"] == pytest.approx(macro_f1(pairs, EMOTIONS))
    train = [one.turns[0].emotions for one in conversations(run, "goemotions", "train")]
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
    pairs = []
    for one in conversations(run, "esconv", "test"):
        for at, turn in enumerate(one.turns):
            if turn.strategy is not None:
                with torch.no_grad():
                    states = states_alone(model, torch.tensor(template.prompt_ids(as_messages(one)[:at])))
                    pairs.append((turn.strategy, STRATEGIES[int(model.heads.strategy(states[-1:]).argmax())]))
    assert len({guess for _, guess in pairs}) > 2
    assert scores["n"] == len(pairs)
    assert scores["accuracy"] == pytest.approx(accuracy(pairs))
    assert scores["macro_f1"] == pytest.approx(macro_f1(pairs, STRATEGIES))
    train = Counter(turn.strategy for one in conversations(run, "esconv", "train") for turn in one.turns if turn.strategy)
    assert scores["majority"]["label"] == train.most_common(1)[0][0]


def test_earlier_strategies_annotated_and_own(tiny_config: ConfigFactory, tmp_path: Path) -> None:
    """Both inputs of a head that sees earlier strategies, worked out turn by turn."""
    heads = {"strategy": {"earlier_strategies": True}}
    run = untrained(RunFolder(tmp_path / "run"), tiny_config, data={"row_tokens": 4096}, heads=heads)
    scores = heads_of(run)["strategy"]
    _, model, template = load_artifact(run, CPU.device, CPU.dtype)
    companion, told, own = Companion(model, template, CPU), [], []
    for one in conversations(run, "esconv", "test"):
        used: list[int] = []
        for at, turn in enumerate(one.turns):
            if turn.strategy is None:
                continue
            before = as_messages(one)[:at]
            if before and before[-1]["role"] == "user":
                read = companion.read(before).strategy
                own.append((at, one.id, turn.strategy, max(read, key=lambda name: read[name])))
            states = states_alone(model, torch.tensor(template.prompt_ids(before)))
            used.append(STRATEGIES.index(turn.strategy))
            earlier = earlier_features(annotated(np.array(used)))[-1:]  # which its own strategy does not enter
            told.append((turn.strategy, STRATEGIES[int(model.heads.strategy.read(states[-1:], earlier).argmax())]))
    assert scores["accuracy"] == pytest.approx(accuracy(told))
    assert scores["macro_f1"] == pytest.approx(macro_f1(told, STRATEGIES))
    held = HeldOut.of(FinishedRun.open(run.path))
    said = predict(model, [held.encoded["esconv"]["test"]], CPU, 4096)
    assert scores["own_choices"]["accuracy"] == pytest.approx(
        float((said.strategy_by_own_choices.argmax(1) == said.strategy_targets).float().mean())
    )
    guesses = iter(said.strategy_by_own_choices.argmax(1).tolist())
    rows = {
        (one.id, at): next(guesses) for one in conversations(run, "esconv", "test") for at, turn in enumerate(one.turns) if turn.strategy
    }
    assert len(own) > 10
    assert all(STRATEGIES[rows[conversation, at]] == guess for at, conversation, _, guess in own)


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


def test_it_does_not_matter_how_much_a_pass_reads(finished: RunFolder) -> None:
    open_run = FinishedRun.open(finished.path)
    for name, source in HeldOut.of(open_run).encoded.items():
        if name not in ("goemotions", "esconv"):
            continue
        long, short = (predict(open_run.model, [source["test"]], open_run.place, tokens) for tokens in (4096, 128))
        for found, expected in zip(long, short, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
