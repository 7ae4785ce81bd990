"""Perplexity, bits per byte and KL against dense logits, conversation by conversation."""

import numpy as np
import pytest
import torch
from torch.nn.functional import log_softmax

from tests.reference.objectives import states_alone
from tests.tools import CPU, Tiny, perturb
from warmline.data.enabled import enabled_sources
from warmline.data.encoding import encode
from warmline.evaluation.language import ReplyLosses, reply_losses, score_language, tell
from warmline.model.reader import Reader


@torch.no_grad()
def test_equals_dense_logits(tiny: Tiny) -> None:
    model = tiny.model.eval()
    perturb(model)
    source = next(one for one in enabled_sources(tiny.config.data) if one.name == "safety")
    conversations = source.load("test").conversations[:6]
    encoded = encode("safety", conversations, ("lm",), tiny.template, 512)
    found = reply_losses(Reader(model, CPU, 512), encoded, conversations, tiny.template)
    expected: dict[str, list[float]] = {"tokens": [], "reply_bytes": [], "tuned": [], "base": [], "kl": []}
    for at, conversation in enumerate(conversations):
        one = encoded[at]
        tokens = torch.tensor(one.tokens.tolist())
        tuned = log_softmax(states_alone(model, tokens) @ model.backbone.unembedding.T, dim=1)
        with model.backbone.reference():
            base = log_softmax(states_alone(model, tokens) @ model.backbone.base_unembedding.T, dim=1)
        places = [place for first, end in one.replies.tolist() for place in range(first, end)]
        expected["tokens"].append(len(places))
        expected["tuned"].append(-sum(float(tuned[place - 1, tokens[place]]) for place in places))
        expected["base"].append(-sum(float(base[place - 1, tokens[place]]) for place in places))
        expected["kl"].append(sum(float((base[at - 1].exp() * (base[at - 1] - tuned[at - 1])).sum()) for at in places))
        replies = [turn.text for turn in conversation.turns if turn.role == "assistant"]
        expected["reply_bytes"].append(len("".join(replies).encode("utf-8")))
    for name, values in expected.items():
        np.testing.assert_allclose(getattr(found, name), values, rtol=1e-4, err_msg=name)
    assert min(found.kl) > 0


@torch.no_grad()
@pytest.mark.parametrize("row_tokens", [64, 4096])
def test_the_base_told_in_plain_lines(row_tokens: int, tiny: Tiny) -> None:
    model = tiny.model.eval()
    perturb(model)
    source = next(one for one in enabled_sources(tiny.config.data) if one.name == "esconv")
    conversations = source.load("test").conversations[:4]
    expected = []
    lines = tell("esconv", conversations, tiny.template)
    for at, conversation in enumerate(conversations):
        told = lines[at]
        places = [place for first, end in told.replies.tolist() for place in range(first, end)]
        labels = {"user": "A", "assistant": "B"}
        said = "".join(f"{labels[turn.role]}: {' '.join(turn.text.split())}\n" for turn in conversation.turns)
        assert tiny.template.tokenizer.decode(told.tokens.tolist()).removeprefix(tiny.template.tokenizer.bos_token or "") == said
        replies = tiny.template.tokenizer.decode(told.tokens[places].tolist())
        assert replies.split("\n")[:-1] == [f" {' '.join(turn.text.split())}" for turn in conversation.turns if turn.role == "assistant"]
        tokens = torch.tensor(told.tokens.tolist())
        with model.backbone.reference():
            base = log_softmax(states_alone(model, tokens) @ model.backbone.base_unembedding.T, dim=1)
        expected.append(-sum(float(base[place - 1, tokens[place]]) for place in places))
    encoded = encode("esconv", conversations, ("lm",), tiny.template, 4096)
    found = reply_losses(Reader(model, CPU, row_tokens), encoded, conversations, tiny.template)
    np.testing.assert_allclose(found.lines, expected, rtol=1e-4)


def losses(**columns: list[float]) -> ReplyLosses:
    arrays = {name: np.asarray(values) for name, values in columns.items()}
    return ReplyLosses(np.arange(len(arrays["tokens"])), **arrays)


def test_figures_by_hand() -> None:
    """30 tokens and 12 nats tuned, 15 base: means 0.4 and 0.5."""
    task = losses(tokens=[10, 20], reply_bytes=[40, 60], tuned=[5.0, 7.0], base=[6.0, 9.0], lines=[8.0, 7.0], kl=[1.0, 5.0])
    safety = losses(tokens=[5, 5], reply_bytes=[9, 9], tuned=[1.0, 1.0], base=[1.0, 1.0], lines=[1.0, 1.0], kl=[0.5, 0.5])
    found = score_language({"esconv": task, "safety": safety}, seed=1)
    esconv = found["sources"]["esconv"]
    assert esconv["tuned"]["perplexity"]["value"] == pytest.approx(np.exp(0.4))
    assert esconv["perplexity_ratio"]["value"] == pytest.approx(np.exp(-0.1))
    assert esconv["tuned"]["bits_per_byte"]["value"] == pytest.approx(12 / np.log(2) / 100)
    assert esconv["base_as_lines"]["bits_per_byte"]["value"] == pytest.approx(15 / np.log(2) / 100)
    assert esconv["bits_ratio_to_lines"]["value"] == pytest.approx(12 / 15)
    assert found["kl_per_token"]["task"]["value"] == pytest.approx(6 / 30)
    assert found["kl_per_token"]["safety"] == {"value": pytest.approx(0.1), "interval": pytest.approx((0.1, 0.1))}
    low, high = esconv["perplexity_ratio"]["interval"]
    assert (low, high) == (pytest.approx(np.exp(-0.1)), pytest.approx(np.exp(-0.1)))  # both conversations give the same ratio
    assert esconv["tuned"]["perplexity"]["interval"][0] == pytest.approx(np.exp(7 / 20))


def test_without_task_sources_the_reason_stands_there() -> None:
    safety = losses(tokens=[5, 5], reply_bytes=[9, 9], tuned=[1.0, 1.0], base=[1.0, 1.0], lines=[1.0, 1.0], kl=[0.5, 0.5])
    found = score_language({"safety": safety}, seed=1)
    assert found["kl_per_token"]["task"] is None
    assert "no source" in found["absent"]["task"]
