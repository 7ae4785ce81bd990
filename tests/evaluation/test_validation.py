"""Scores on the validation splits: by hand, and without a look at a test split."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score
from warmline.evaluation.validation import emotion_scores, score_validation, strategy_scores

from warmline.evaluation import validation
from warmline.evaluation.heads import HeadPredictions
from warmline.runs import RunFolder, read_json
from warmline.sources import Source


def said(emotions: int = 27) -> HeadPredictions:
    random = torch.Generator().manual_seed(0)
    labels = torch.zeros(60, 28)
    labels[torch.arange(60), torch.randint(28, (60,), generator=random)] = 1
    labels[:10, 5] = 1  # several labels
    logits = [torch.randn(60, width, generator=random) for width in (emotions, 8, 8)]
    return HeadPredictions(logits[0], labels, logits[1], torch.randint(8, (60,), generator=random), logits[2])


@pytest.mark.parametrize("emotions", [27, 28])
def test_emotion_scores(emotions: int) -> None:
    given = said(emotions)
    single = [row for row in range(60) if given.emotion_targets[row].sum() == 1 and given.emotion_targets[row, 27] == 0]
    truth = given.emotion_targets[single].argmax(1).numpy()
    guess = given.emotion_logits[single, :27].argmax(1).numpy()
    found = emotion_scores(given)
    assert found["emotion_accuracy"] == pytest.approx(accuracy_score(truth, guess))
    assert found["emotion_macro_f1"] == pytest.approx(f1_score(truth, guess, labels=range(27), average="macro", zero_division=0))
    assert ("emotion_28_macro_f1" in found) == (emotions == 28)


def test_strategy_scores() -> None:
    given = said()
    truth, found = given.strategy_targets.numpy(), strategy_scores(given)
    for kind, logits in (("strategy", given.strategy_logits), ("strategy_own", given.strategy_by_own_choices)):
        guess = logits.argmax(1).numpy()
        assert found[f"{kind}_accuracy"] == pytest.approx(np.mean(guess == truth))
        assert found[f"{kind}_macro_f1"] == pytest.approx(f1_score(truth, guess, labels=range(8), average="macro", zero_division=0))


def test_a_run_is_scored_on_validation_alone(finished_copy: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    encode = validation.encode_source

    def watched(source: Source, split: Any, *rest: Any) -> Any:
        asked.append(split)
        return encode(source, split, *rest)

    monkeypatch.setattr(validation, "encode_source", watched)
    result = score_validation(finished_copy.path, ["training.max_steps=12"])
    assert asked == ["valid", "valid"]
    assert read_json(finished_copy.results / "validation.json") == result
    assert result["context"]["split"] == "valid"
    assert result["changes"] == ["training.max_steps=12"]
    assert result["steps"] == 12
    assert 0 <= result["scores"]["emotion_accuracy"] <= 1
    assert result["scores"]["strategy_accuracy"] == result["scores"]["strategy_own_accuracy"]
    assert result["scores"]["lm"] > 0
