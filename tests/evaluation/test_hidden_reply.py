"""A reply that leaks into a head that reads before it is noticed by hiding it."""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from transformers import Qwen2Config

from tests.tools import CPU, ESCONV, architecture, perturb, write_architecture
from warmline.data.encoding import EncodedSource, encode_split
from warmline.data.template import ChatTemplate
from warmline.evaluation.heads import hide_replies
from warmline.model.artifacts import build_model
from warmline.model.base import load_tokenizer
from warmline.model.device import Place, choose_place
from warmline.model.fast import attention
from warmline.model.multitask import MultiTaskModel
from warmline.model.reader import Reader
from warmline.settings import TrainingConfig
from warmline.tasks.task import HiddenReply


class Asked(NamedTuple):
    model: MultiTaskModel
    source: EncodedSource


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
    torch.nn.init.normal_(model.heads["strategy"].layers[-1].weight, generator=torch.Generator().manual_seed(0))
    return Asked(model, encode_split("test", config.data, ChatTemplate(load_tokenizer(config.model)))[ESCONV])


def hidden(asked: Asked, place: Place, source: EncodedSource | None = None) -> HiddenReply:
    """What `evaluate` does: score the split, then hide its replies."""
    source = source or asked.source
    reader = Reader(asked.model, place, 2048)
    return hide_replies(reader, "strategy", source, reader.read("strategy", [source]).logits, seed=1)


def test_an_honest_head_is_never_accused(asked: Asked, place: Place) -> None:
    """In bf16 too, where the reply's length alone moves logits by rounding, which breaks near ties."""
    found = hidden(asked, place)
    assert found == (len(asked.source), 0)
    assert found.warning("strategy") is None


def test_a_head_that_reads_the_replys_end(asked: Asked, place: Place) -> None:
    found = hidden(asked, place, moved(asked.source, to_end=True))
    assert found.moved == found.asked > 0
    assert "it reads the reply it should predict" in str(found.warning("strategy"))


def test_a_head_that_reads_the_replys_first_token(asked: Asked, place: Place) -> None:
    found = hidden(asked, place, moved(asked.source, to_end=False))
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


def moved(source: EncodedSource, to_end: bool) -> EncodedSource:
    """The strategy targets, read at the end of their reply, or at its first token, instead of before it."""
    places = []
    for index in range(len(source)):
        one = source[index]
        for position, bits in one.labels["strategy"].tolist():
            (end,) = [end for first, end in one.replies.tolist() if first == position + 1]
            places.append((end - 1 if to_end else position + 1, bits))
    return replace(source, labels={"strategy": np.asarray(places, dtype=np.int64)})
