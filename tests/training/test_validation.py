"""The fixed validation sets: what is scored, and that the score is the plain mean."""

from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from tests.conftest import ConfigFactory
from tests.reference.losses import dense_kl
from tests.reference.objectives import plain_terms, states_alone
from tests.tools import CPU, SAFETY, Tiny, perturb
from warmline.config import LossWeights
from warmline.data.encoding import EncodedSource, encode_split
from warmline.data.mixture import Draw
from warmline.errors import WarmlineError
from warmline.training.validation import Validator, total_loss


@pytest.fixture
def held_out(tiny: Tiny) -> list[EncodedSource]:
    return encode_split("valid", tiny.config.data, tiny.template)


@pytest.fixture
def accelerator() -> Accelerator:
    return Accelerator(cpu=True)


def chosen(validator: Validator) -> list[Draw]:
    return [draw for _, row in validator._rows for draw in row]


def test_equals_the_plain_means(tiny: Tiny, held_out: list[EncodedSource], accelerator: Accelerator) -> None:
    perturb(tiny.model)
    validator = Validator(tiny.config, held_out, CPU)
    scores = validator(tiny.model, accelerator)
    model, draws = tiny.model.eval(), chosen(validator)
    with torch.no_grad():
        plain = {name: float(torch.stack(values).mean()) for name, values in plain_terms(model, held_out, draws).items()}
    for name, value in plain.items():
        assert scores[name] == pytest.approx(value, rel=1e-4), name
    weights = tiny.config.loss
    assert scores["total"] == pytest.approx(sum(weights[name] * value for name, value in plain.items()), rel=1e-4)


@torch.no_grad()
def test_task_kl_and_lm_by_source(tiny: Tiny, held_out: list[EncodedSource], accelerator: Accelerator) -> None:
    perturb(tiny.model)
    validator = Validator(tiny.config, held_out, CPU)
    scores = validator(tiny.model, accelerator)
    model, total, tokens = tiny.model.eval(), 0.0, 0
    for draw in chosen(validator):
        if draw.source == SAFETY:
            continue
        one = held_out[draw.source][draw.conversation]
        predicting = [at - 1 for first, end in one.replies.tolist() for at in range(first, end)]
        ids = torch.tensor(one.tokens.tolist())
        tuned = states_alone(model, ids)[predicting]
        with model.backbone.reference():
            base = states_alone(model, ids)[predicting]
        unembedding = model.backbone.unembedding
        total += float(dense_kl(tuned, unembedding, base, unembedding, torch.ones(len(predicting))))
        tokens += len(predicting)
    assert scores["task_kl"] == pytest.approx(total / tokens, rel=1e-4)
    assert list(scores["lm_by_source"]) == ["empathetic_dialogues", "esconv"]
    for place, name in enumerate(scores["lm_by_source"]):
        own = plain_terms(model, held_out, [draw for draw in chosen(validator) if draw.source == place])["lm"]
        assert scores["lm_by_source"][name] == pytest.approx(float(torch.stack(own).mean()), rel=1e-4)


def test_accuracy_by_hand(tiny: Tiny, held_out: list[EncodedSource], accelerator: Accelerator) -> None:
    with torch.no_grad():
        tiny.model.heads["emotion"].layers[-1].bias[4] = 100.0  # always approval
        tiny.model.heads["strategy"].layers[-1].bias[7] = 100.0
    validator = Validator(tiny.config, held_out, CPU)
    scores = validator(tiny.model, accelerator)
    encoded = [held_out[draw.source][draw.conversation] for draw in chosen(validator)]
    for name, said in (("emotion", 4), ("strategy", 7)):
        right = [bits >> said & 1 for one in encoded if name in one.labels for _, bits in one.labels[name].tolist()]
        assert scores[f"{name}_accuracy"] == pytest.approx(np.mean(right))


def test_chosen_once_by_the_seed(tiny: Tiny, held_out: list[EncodedSource]) -> None:
    first, again = (chosen(Validator(tiny.config, held_out, CPU)) for _ in range(2))
    other = chosen(Validator(tiny.config.model_copy(update={"seed": 99}), held_out, CPU))
    assert first == again
    assert first != other
    assert [sum(draw.source == place for draw in first) for place in range(4)] == [6, 6, 6, 6]
    assert len(set(first)) == len(first)


def test_asking_for_more_than_there_are(tiny_config: ConfigFactory, tmp_path: Path, held_out: list[EncodedSource]) -> None:
    config = tiny_config(tmp_path, validation={"conversations": 10**6})
    assert len(chosen(Validator(config, held_out, CPU))) == sum(len(source) for source in held_out)


@pytest.mark.parametrize("training", [True, False])
def test_leaves_the_mode(training: bool, tiny: Tiny, held_out: list[EncodedSource], accelerator: Accelerator) -> None:
    validator = Validator(tiny.config, held_out, CPU)
    tiny.model.train(training)
    first = validator(tiny.model, accelerator)
    assert tiny.model.training is training
    assert validator(tiny.model, accelerator) == first  # no dropout
    assert first["safety"] == first["task_kl"] == 0.0


def test_missing_objectives_are_none(tiny: Tiny, held_out: list[EncodedSource], accelerator: Accelerator) -> None:
    scores = Validator(tiny.config, held_out[2:3], CPU)(tiny.model, accelerator)
    assert [scores[name] for name in ("lm", "strategy", "safety", "task_kl", "strategy_accuracy")] == [None] * 5
    assert scores["lm_by_source"] == {}
    assert scores["total"] == pytest.approx(0.2 * scores["emotion"])


def test_total_is_the_weighted_sum() -> None:
    scores = {"lm": 2.0, "emotion": None, "strategy": 3.0, "safety": 0.5}
    assert total_loss(scores, LossWeights.model_validate({"lm": 1, "emotion": 9, "strategy": 0.5, "safety": 2})) == pytest.approx(
        2 + 1.5 + 1
    )


@pytest.mark.parametrize("metric", ["total", "lm", "safety"])
def test_value_is_the_named_metric(metric: str, tiny_config: ConfigFactory, held_out: list[EncodedSource], tmp_path: Path) -> None:
    validator = Validator(tiny_config(tmp_path, validation={"metric": metric}), held_out, CPU)
    scores = {"total": 1.0, "lm": 2.0, "safety": 3.0}
    assert validator.value(scores) == scores[metric]


def test_a_metric_without_targets_is_refused(tiny_config: ConfigFactory, held_out: list[EncodedSource], tmp_path: Path) -> None:
    with pytest.raises(WarmlineError, match=r"validation\.metric.*safety"):
        Validator(tiny_config(tmp_path, validation={"metric": "safety"}), held_out[:3], CPU)


def test_it_says_what_replies_are_like(tiny: Tiny, held_out: list[EncodedSource], accelerator: Accelerator) -> None:
    """With `validation.replies`, the same twice, and the losses are those without."""
    config = tiny.config.model_copy(update={"validation": tiny.config.validation.model_copy(update={"replies": 3, "metric": "flawed"})})
    validator = Validator(config, held_out, CPU, tiny.template)
    tiny.model.train()
    scores = validator(tiny.model, accelerator)
    assert tiny.model.training
    assert scores == validator(tiny.model, accelerator)
    assert validator.value(scores) == scores["flawed"]
    assert 0 <= scores["flawed"] <= 1
    assert set(scores) >= {"words_median", "flaws", "forms_kept", "base_perplexity"}
    plain = Validator(tiny.config, held_out, CPU)(tiny.model, accelerator)
    assert plain == {key: scores[key] for key in plain}
    assert "flawed" not in plain
