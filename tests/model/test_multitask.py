"""Four objectives in one forward pass: where they read, what they sum, and the KL to the base."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.conftest import ConfigFactory
from tests.reference.losses import dense_kl
from tests.reference.objectives import plain_loss, plain_terms, states_alone
from tests.tools import CPU, ED, ESCONV, GOEMOTIONS, SAFETY, Tiny, gradients, one_of_each, pack, perturb
from warmline.config import LossWeights
from warmline.conversation import Conversation, Turn
from warmline.data.encoding import EncodedSource, encode
from warmline.data.mixture import Draw
from warmline.data.packing import Batch, HeadRows, count_targets
from warmline.model.artifacts import build_model
from warmline.model.losses import weighted_loss
from warmline.model.multitask import MultiTaskModel
from warmline.model.reader import BaseStates
from warmline.tasks import all_objectives

EQUAL_WEIGHTS = LossWeights.model_validate({"lm": 1.0, "emotion": 1.0, "strategy": 1.0, "safety": 1.0})
REPLY, AS_LONG = "I am so sorry. What happened?", "I am so happy! When happened?"
LONGER = "That sounds hard, and I am glad that you told me about it. " * 12


def with_reply(reply: str, tiny: Tiny) -> list[EncodedSource]:
    turns = (
        Turn("user", "My dog died yesterday.", labels={"emotion": ("sadness",)}),
        Turn("assistant", "Oh no. How are you?", labels={"strategy": ("Question",)}),
        Turn("user", "I miss her so much, and nobody understands.", labels={"emotion": ("grief", "sadness")}),
        Turn("assistant", reply, labels={"strategy": ("Reflection of feelings",)}),
    )
    return [encode("made", [Conversation("1", turns)], ("lm", "emotion", "strategy"), tiny.template, 512)]


def base_states(tiny: Tiny, sources: Sequence[EncodedSource]) -> BaseStates:
    return BaseStates(tiny.model, sources, CPU)


def loss_of(tiny: Tiny, batch: Batch, base: Tensor, weights: LossWeights = EQUAL_WEIGHTS) -> Tensor:
    terms = tiny.model(batch, base)
    return weighted_loss(terms, weights, {name: term.targets for name, term in terms.items()})


def read_with(reply: str, tiny: Tiny) -> tuple[dict[str, Tensor], Tensor]:
    """What the heads say, and all states."""
    batch = pack(with_reply(reply, tiny), [Draw(0, 0)])
    states = tiny.model.states(batch)
    return tiny.model.heads(states, batch), states


@torch.no_grad()
def test_heads_do_not_see_the_reply(tiny: Tiny) -> None:
    perturb(tiny.model)
    tiny.model.eval()
    (logits, states), (other, other_states) = (read_with(reply, tiny) for reply in (REPLY, AS_LONG))
    assert states.shape == other_states.shape  # of one length, so that a CPU adds in one order
    assert not torch.equal(states[-1], other_states[-1])
    assert (len(logits["emotion"]), len(logits["strategy"])) == (2, 2)
    assert torch.equal(logits["emotion"], other["emotion"])
    assert torch.equal(logits["strategy"], other["strategy"])


@torch.no_grad()
def test_heads_do_not_see_the_reply_s_length(tiny: Tiny) -> None:
    """Another length is another shape for the attention kernel, which may round the last bits otherwise."""
    perturb(tiny.model)
    tiny.model.eval()
    (logits, states), (other, other_states) = (read_with(reply, tiny) for reply in (REPLY, LONGER))
    assert len(other_states) > len(states) + 100
    torch.testing.assert_close(logits["emotion"], other["emotion"], rtol=0, atol=2e-6)
    torch.testing.assert_close(logits["strategy"], other["strategy"], rtol=0, atol=2e-6)


def test_reading_places(tiny: Tiny) -> None:
    """Emotion at the end of a user's turn, strategy where a reply is about to begin."""
    batch = pack(with_reply(REPLY, tiny), [Draw(0, 0)])
    texts = [
        tiny.template.tokenizer.decode(batch.tokens[: at + 1])
        for at in (*batch.heads["emotion"].positions, *batch.heads["strategy"].positions)
    ]
    whole = tiny.template.tokenizer.decode(batch.tokens)
    assert [text.endswith(turn) for text, turn in zip(texts, ("yesterday.<|im_end|>", "understands.<|im_end|>"), strict=False)] == [
        True,
        True,
    ]
    assert [whole.removeprefix(text).partition("<|im_end|>")[0] for text in texts[2:]] == ["Oh no. How are you?", REPLY]


@torch.no_grad()
def test_heads_do_see_the_user(tiny: Tiny) -> None:
    perturb(tiny.model)
    model = tiny.model.eval()
    encoded = with_reply(REPLY, tiny)
    batch = pack(encoded, [Draw(0, 0)])
    last = int(batch.heads["emotion"].positions[-1])
    changed = replace(batch, tokens=batch.tokens.clone())
    changed.tokens[last - 2] += 1
    before, after = (model.heads(model.states(one), one) for one in (batch, changed))
    assert torch.equal(before["emotion"][0], after["emotion"][0])
    assert not torch.equal(before["emotion"][1], after["emotion"][1])
    assert not torch.equal(before["strategy"][1], after["strategy"][1])


def test_equals_the_plain_loss(tiny: Tiny, sources: list[EncodedSource]) -> None:
    """The whole step, packed and chunked, against the formula worked out conversation by conversation."""
    base = base_states(tiny, sources)
    perturb(tiny.model)
    tiny.model.eval()
    weights = LossWeights.model_validate({"lm": 1.0, "emotion": 0.7, "strategy": 0.4, "safety": 3.0})
    draws = one_of_each(sources, GOEMOTIONS, SAFETY, ESCONV, GOEMOTIONS, ED, SAFETY, ESCONV, most=512)
    batch = pack(sources, draws)
    loss = loss_of(tiny, batch, base(batch), weights)
    loss.backward()
    packed = gradients(tiny.model)
    tiny.model.zero_grad(set_to_none=True)
    plain = plain_loss(tiny.model, sources, draws, weights)
    plain.backward()
    torch.testing.assert_close(loss, plain, rtol=1e-5, atol=1e-5)
    for name, obvious in gradients(tiny.model).items():
        torch.testing.assert_close(packed[name], obvious, rtol=1e-4, atol=1e-5, msg=name)


def test_denominators_are_known_beforehand(tiny: Tiny, sources: list[EncodedSource]) -> None:
    draws = one_of_each(sources, GOEMOTIONS, SAFETY, ESCONV, ED, SAFETY, most=512)
    batch = pack(sources, draws)
    terms = tiny.model(batch, base_states(tiny, sources)(batch))
    counted = count_targets([source.target_counts() for source in sources], [tuple(draws)])
    assert counted == {name: term.targets for name, term in terms.items()}
    assert counted == {name: len(values) for name, values in plain_terms(tiny.model, sources, draws).items()}


@pytest.mark.parametrize(
    ("place", "without"),
    [(GOEMOTIONS, "strategy"), (ED, "emotion"), (ED, "strategy"), (SAFETY, "emotion"), (SAFETY, "strategy")],
)
def test_absent_heads_join_the_graph(place: int, without: str, tiny: Tiny, sources: list[EncodedSource]) -> None:
    batch = pack(sources, one_of_each(sources, place))
    base = base_states(tiny, sources)
    perturb(tiny.model)
    loss_of(tiny, batch, base(batch)).backward()
    found = gradients(tiny.model)
    of_head = [gradient for name, gradient in found.items() if name.startswith(f"heads.{without}.")]
    assert len(of_head) == 2
    assert not any(bool(gradient.any()) for gradient in of_head)
    assert any(bool(gradient.any()) for name, gradient in found.items() if name.startswith("backbone."))


@pytest.mark.parametrize("lora", [{}, None])
def test_batch_without_any_target_joins_the_graph(
    lora: Any, tiny_config: ConfigFactory, tmp_path: Any, sources: list[EncodedSource]
) -> None:
    model = build_model(tiny_config(tmp_path, lora=lora), CPU.device, CPU.dtype)
    batch = pack(sources, one_of_each(sources, ED))
    nothing: dict[str, Any] = {
        name: getattr(batch, name)[:0] for name in vars(batch) if name.endswith(("_positions", "_targets", "_weights"))
    }
    nothing["heads"] = {name: HeadRows(*(tensor[:0] for tensor in rows)) for name, rows in batch.heads.items()}
    terms = model(replace(batch, **nothing, safety_draws=()), torch.zeros(0, 32))
    weighted_loss(terms, EQUAL_WEIGHTS, dict.fromkeys(all_objectives(), 0)).backward()
    assert not any(bool(gradient.any()) for gradient in gradients(model).values())


def test_kl_starts_at_exactly_zero(tiny: Tiny, sources: list[EncodedSource]) -> None:
    batch = pack(sources, one_of_each(sources, SAFETY, GOEMOTIONS, SAFETY, ED))
    base = base_states(tiny, sources)
    tiny.model.eval()
    terms = tiny.model(batch, base(batch))
    assert terms["safety"].targets == 2
    assert terms["safety"].sum.item() == 0.0
    perturb(tiny.model)
    assert tiny.model(batch, base(batch))["safety"].sum.item() > 1e-4


def test_kl_equals_dense_with_gradients(tiny: Tiny, sources: list[EncodedSource]) -> None:
    draws = one_of_each(sources, ED, SAFETY, SAFETY)
    batch = pack(sources, draws)
    base = base_states(tiny, sources)(batch)
    perturb(tiny.model)
    model = tiny.model.eval()
    loss_of(tiny, batch, base, LossWeights.model_validate({"lm": 0, "emotion": 0, "strategy": 0, "safety": 1})).backward()
    chunked = gradients(model)
    model.zero_grad(set_to_none=True)
    loss = torch.zeros(())
    for draw in draws[1:]:
        one = sources[SAFETY][draw.conversation]
        tokens = torch.tensor(one.tokens.tolist())
        predicting = [at - 1 for first, end in one.replies.tolist() for at in range(first, end)]
        with model.backbone.reference():
            kept = states_alone(model, tokens)[predicting]
        unembedding = model.backbone.unembedding
        even = torch.full((len(predicting),), 1 / len(predicting))
        loss = loss + dense_kl(states_alone(model, tokens)[predicting], unembedding, kept, unembedding, even) / 2
    loss.backward()
    torch.testing.assert_close(model(batch, base)["safety"].sum / 2, loss, rtol=1e-5, atol=1e-6)
    for name, gradient in chunked.items():
        obvious = dict(model.named_parameters())[name].grad
        torch.testing.assert_close(gradient, torch.zeros_like(gradient) if obvious is None else obvious, rtol=1e-4, atol=1e-6, msg=name)


def test_kl_reads_reply_tokens_only(tiny: Tiny, sources: list[EncodedSource]) -> None:
    draws = one_of_each(sources, ED, SAFETY, SAFETY)
    batch = pack(sources, draws)
    perturb(tiny.model)
    states = tiny.model.states(batch).detach().requires_grad_()
    terms, _ = tiny.model.terms(states, batch, base_states(tiny, sources)(batch))
    terms["safety"].sum.backward()
    read = states.grad.abs().sum(dim=1) > 0
    decode = tiny.template.tokenizer.decode
    for draw, start, end in zip(draws, batch.bounds[:-1].tolist(), batch.bounds[1:].tolist(), strict=True):
        tokens = batch.tokens[start:end]
        predicted = tokens[1:][read[start : end - 1]]
        assert not bool(read[end - 1])
        if draw.source == ED:
            assert len(predicted) == 0
            continue
        text = decode(tokens)
        replies = [turn.partition("<|im_end|>")[0] for turn in text.split("<|im_start|>assistant\n")[1:]]
        assert decode(predicted) == "".join(f"{reply}<|im_end|>" for reply in replies)
        assert replies


def test_kl_is_a_mean_of_each_conversation(tiny: Tiny, sources: list[EncodedSource]) -> None:
    batch = pack(sources, one_of_each(sources, SAFETY, ED, SAFETY, SAFETY))
    replies = [sources[draw.source][draw.conversation].replies.tolist() for draw in batch.safety_draws]
    parts = [sum(end - first for first, end in spans) for spans in replies]
    for weights, length in zip(batch.safety_weights.split(parts), parts, strict=True):
        torch.testing.assert_close(weights, torch.full((length,), 1 / length))


def test_base_states_are_a_fresh_reference(tiny: Tiny, sources: list[EncodedSource]) -> None:
    base = base_states(tiny, sources)
    perturb(tiny.model)
    batch = pack(sources, one_of_each(sources, SAFETY, ED, SAFETY, GOEMOTIONS))
    with tiny.model.backbone.reference():
        fresh = tiny.model.states(batch)[batch.safety_positions]
    assert torch.equal(base(batch), fresh)
    assert not torch.equal(tiny.model.eval().states(batch)[batch.safety_positions], fresh)
    assert base(pack(sources, one_of_each(sources, ED))).shape == (0, 32)


def test_full_weights_have_a_kl_too(tiny_config: ConfigFactory, tmp_path: Any, sources: list[EncodedSource]) -> None:
    """Every weight trains, unembedding included; the frozen copy gives the base."""
    model = build_model(tiny_config(tmp_path, lora=None), CPU.device, CPU.dtype).eval()
    tiny = Tiny(model, None, None)
    draws = one_of_each(sources, SAFETY, ED, GOEMOTIONS, ESCONV, most=512)
    batch = pack(sources, draws)
    base = base_states(tiny, sources)(batch)
    assert model(batch, base)["safety"].sum.item() == 0.0
    perturb(model, 0.02)
    loss_of(tiny, batch, base).backward()
    packed = gradients(model)
    model.zero_grad(set_to_none=True)
    plain = plain_loss(model, sources, draws, EQUAL_WEIGHTS)
    plain.backward()
    torch.testing.assert_close(loss_of(tiny, batch, base), plain, rtol=1e-5, atol=1e-5)
    assert "embed_tokens" in " ".join(packed)
    for name, obvious in gradients(model).items():
        torch.testing.assert_close(packed[name], obvious, rtol=1e-4, atol=1e-5, msg=name)


def test_emotion_rows_never_touch_the_unembedding(tiny: Tiny, sources: list[EncodedSource]) -> None:
    batch = pack(sources, one_of_each(sources, GOEMOTIONS, GOEMOTIONS))
    model: MultiTaskModel = tiny.model
    terms = model(batch, torch.zeros(0, 32))
    assert (terms["lm"].targets, terms["safety"].targets, terms["emotion"].targets) == (0, 0, 2)
    assert terms["lm"].sum.item() == terms["safety"].sum.item() == 0.0
