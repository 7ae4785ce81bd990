"""The saved heads' scores, worked out again by hand through the public way in."""

import json
from collections import Counter
from pathlib import Path

import pytest
import torch

import warmline
from tests.conftest import ConfigFactory
from tests.reference.objectives import states_alone
from tests.tools import CPU, perturb
from warmline.config import dump_config, load_config
from warmline.data.conversation import Conversation
from warmline.data.labels import EMOTIONS, NEUTRAL, STRATEGIES
from warmline.data.sources import enabled_sources, load_source
from warmline.data.template import ChatTemplate, as_messages
from warmline.errors import WarmlineError
from warmline.evaluation.heads import evaluate
from warmline.model.artifacts import build_model, load_artifact, save_artifact
from warmline.model.choose import Choice
from warmline.model.transformers_backbone import load_tokenizer
from warmline.runs import RunFolder, read_json, write_json, write_text
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
    write_text(run.config, dump_config(config))
    write_json(run.manifest, make_manifest(config, CPU, 1, Choice("transformers", "test")))
    save_artifact(run, model, config, ChatTemplate(load_tokenizer(config.model)), step=0)
    return run


def conversations(run: RunFolder, source: str, split: str) -> list[Conversation]:
    data = load_config(run.config).data
    (found,) = [one for one in enabled_sources(data) if one.name == source]
    return list(load_source(found, split, data).conversations)


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
    scores = evaluate(run.path)["heads"]["emotion"]
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
    assert scores["majority"] == {
        "label": commonest, "accuracy": pytest.approx(accuracy(always)), "macro_f1": pytest.approx(macro_f1(always, EMOTIONS)),
    }  # fmt: skip


def test_strategy_by_hand(tiny_config: ConfigFactory, tmp_path: Path) -> None:
    run = untrained(RunFolder(tmp_path / "run"), tiny_config, data={"row_tokens": 4096})
    scores = evaluate(run.path)["heads"]["strategy"]
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


def test_numbers_carry_their_context(finished: RunFolder) -> None:
    result = evaluate(finished.path)
    assert json.loads(finished.evaluation.read_text()) == result
    context = result["context"]
    assert (context["run"], context["split"], context["seed"], context["base_random_init_seed"]) == ("tiny", "test", 13, 0)
    assert context["step"] == read_json(finished.heads_description)["step"]
    assert context["data_sha256"] == read_json(finished.manifest)["data_sha256"]
    assert "goemotions/test.tsv" in context["data_sha256"]


def test_batch_size_does_not_matter(tiny_config: ConfigFactory, tmp_path: Path) -> None:
    """Rows of another capacity, the same scores."""
    run = untrained(RunFolder(tmp_path / "run"), tiny_config, data={"row_tokens": 4096})
    wide = evaluate(run.path)["heads"]["emotion"]
    config = load_config(run.config)
    narrow = config.model_copy(update={"data": config.data.model_copy(update={"row_tokens": 512})})
    write_text(run.config, dump_config(narrow))
    assert evaluate(run.path)["heads"]["emotion"] == wide


def test_head_without_targets_is_absent(tiny_config: ConfigFactory, tmp_path: Path) -> None:
    sections = {"sources": {"goemotions": {"enabled": False}}}
    run = untrained(RunFolder(tmp_path / "run"), tiny_config, data=sections)
    heads = evaluate(run.path)["heads"]
    assert heads["emotion"] is None
    assert heads["strategy"]["n"] > 0


def test_unfinished_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WarmlineError, match="not a run folder"):
        RunFolder.open(tmp_path)
