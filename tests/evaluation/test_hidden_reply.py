"""A reply that leaks into a strategy predictor is noticed, by its score and by hiding it."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from transformers import Qwen2Config
from warmline.evaluation.heads import predict
from warmline.evaluation.leak import HiddenReply, hide_replies, leak_limit, leak_warning
from warmline.evaluation.rows import StrategyRows, strategy_rows

from tests.tools import CPU, ESCONV, architecture, perturb, write_architecture
from warmline.config import TrainingConfig
from warmline.data.encoding import EncodedSource, encode_split
from warmline.data.template import ChatTemplate
from warmline.evaluation import strategy
from warmline.metrics.statistics import FloatArray
from warmline.model import attention
from warmline.model.artifacts import build_model
from warmline.model.device import Place, choose_place
from warmline.model.multitask import MultiTaskModel
from warmline.model.transformers_backbone import load_tokenizer
from warmline.sources.esconv import load
from warmline.sources.files import sample_dir
from warmline.tasks.strategy import STRATEGIES


class Asked(NamedTuple):
    model: MultiTaskModel
    source: EncodedSource


def test_the_rule() -> None:
    assert leak_warning("probe", 0.375, history_accuracy=0.34) is None  # what an honest head reaches
    assert "look for a leak" in str(leak_warning("probe", 0.468, history_accuracy=0.34))
    assert leak_limit(0.55) == pytest.approx(0.65)  # strategies that follow each other strictly need no text


def folder_rows(folder: Path) -> dict[str, StrategyRows]:
    return {split: strategy_rows(load(folder, split).conversations) for split in ("train", "valid", "test")}


def warnings_of(rows: dict[str, StrategyRows], leaked: bool) -> list[str]:
    """The evaluation's own path, with a probe whose input is the reply, or the context alone."""
    probe = strategy.text_baseline({split: one.replies if leaked else one.contexts for split, one in rows.items()}, rows)
    histories = {name: strategy.history_baseline(rows, name == "history_in_order") for name in strategy.HISTORY}
    silent: dict[str, FloatArray] = {split: np.zeros((len(rows[split].targets), len(STRATEGIES))) for split in ("valid", "test")}
    return strategy.score_strategy(rows, silent, {**histories, "linear_probe": probe}, seed=13)["leak_warnings"]


def test_evaluation_warns_of_a_leaked_probe() -> None:
    rows = folder_rows(sample_dir() / "esconv")
    assert warnings_of(rows, leaked=False) == []
    (line,) = warnings_of(rows, leaked=True)
    assert line.startswith("linear_probe")


@pytest.fixture(scope="module", params=["fp32", "bf16"])
def place(request: pytest.FixtureRequest) -> Place:
    return choose_place(TrainingConfig(precision=request.param), CPU.device)


@pytest.fixture(scope="module", params=["nano", "qwen3", "qwen2"])
def asked(request: pytest.FixtureRequest, tiny_config, place: Place, tmp_path_factory: pytest.TempPathFactory) -> Asked:
    """A model whose strategy head says something, and the sample's ESConv dialogues."""
    folder = tmp_path_factory.mktemp(request.param)
    base = {"name": "nano", "random_init_seed": None}
    if request.param != "nano":
        sizes = {"hidden_size": 64, "num_hidden_layers": 4}
        made = (
            architecture(**sizes) if request.param == "qwen3" else Qwen2Config(**{**architecture(**sizes).to_dict(), "model_type": "qwen2"})
        )
        base = {"name": str(write_architecture(folder / "model", made)), "random_init_seed": 0}
    config = tiny_config(folder, model=base, data={"row_tokens": 2048})
    model = build_model(config, place.device, place.dtype).eval()
    perturb(model, 0.02)
    torch.nn.init.normal_(model.heads.strategy.layers[-1].weight, generator=torch.Generator().manual_seed(0))
    return Asked(model, encode_split("test", config.data, ChatTemplate(load_tokenizer(config.model)))[ESCONV])


def hidden(asked: Asked, place: Place, source: EncodedSource | None = None) -> HiddenReply:
    """What `evaluate` does: score the split, then hide its replies."""
    source = source or asked.source
    scored = predict(asked.model, [source], place, 2048).strategy_logits.double().numpy()
    return hide_replies(asked.model, source, scored, place, 2048, seed=1)


def test_an_honest_head_is_never_accused(asked: Asked, place: Place) -> None:
    """In bf16 too, where the reply's length alone moves logits by rounding, which breaks near ties."""
    found = hidden(asked, place)
    assert found == (len(asked.source), 0)
    assert found.warning() is None


def test_a_head_that_reads_the_replys_end(asked: Asked, place: Place) -> None:
    found = hidden(asked, place, replace(asked.source, strategy=moved_positions(asked.source, to_end=True)))
    assert found.moved == found.asked > 0
    assert "it reads the reply it should predict" in str(found.warning())


def test_a_head_that_reads_the_replys_first_token(asked: Asked, place: Place) -> None:
    found = hidden(asked, place, replace(asked.source, strategy=moved_positions(asked.source, to_end=False)))
    assert found.moved == found.asked > 0


def test_attention_that_sees_the_reply(asked: Asked, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = attention.scaled_dot_product_attention
    monkeypatch.setattr(attention, "scaled_dot_product_attention", lambda *given, **named: honest(*given, **{**named, "is_causal": False}))
    found = hidden(asked, place)
    assert found.moved == found.asked > 0


def test_a_trace_of_the_reply(asked: Asked, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundredth of the state that has read the reply's first token: too little to change most guesses."""
    honest = asked.model.backbone.hidden

    def leaking(*given: Any) -> torch.Tensor:
        states = honest(*given)
        return states + 0.01 * states.roll(-1, 0)

    monkeypatch.setattr(asked.model.backbone, "hidden", leaking)
    found = hidden(asked, place)
    assert found.moved == found.asked > 0


def moved_positions(source: EncodedSource, to_end: bool) -> np.ndarray:
    """The strategy targets, read at the end of their reply, or at its first token, instead of before it."""
    moved = []
    for index in range(len(source)):
        one = source[index]
        for position, label in one.strategy.tolist():
            (end,) = [end for first, end in one.replies.tolist() if first == position + 1]
            moved.append((end - 1 if to_end else position + 1, label))
    return np.asarray(moved, dtype=np.int32)
