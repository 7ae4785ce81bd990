"""The start-up check passes on a good model and names each planted fault."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import Qwen3MoeConfig
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from tests.conftest import ConfigFactory
from tests.tools import CPU, ED, GOEMOTIONS, Tiny, architecture, write_architecture
from warmline.conversation import Conversation, Turn
from warmline.data.encoding import EncodedSource, encode
from warmline.errors import WarmlineError
from warmline.model.artifacts import build_model
from warmline.model.device import choose_place
from warmline.model.fast.attention import VARLEN, packed_attention
from warmline.settings import TrainingConfig
from warmline.training.checkpoint import trainable_state
from warmline.training.selfcheck import self_check

Attention = Callable[..., tuple[Tensor, None]]
SIZES = {name: value for name, value in architecture().to_dict().items() if name not in ("model_type", "layer_types")}
"""The tiny model's, for another architecture."""


@pytest.fixture
def attention() -> Iterator[Callable[[Attention], None]]:
    """Puts another function in the place of ours."""
    yield lambda broken: ALL_ATTENTION_FUNCTIONS.register(VARLEN, broken)
    ALL_ATTENTION_FUNCTIONS.register(VARLEN, packed_attention)


def bidirectional(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: None, **named: Any) -> tuple[Tensor, None]:
    edges = named["cu_seq_lens_q"].tolist()
    parts = [
        scaled_dot_product_attention(*(part[:, :, start:end] for part in (query, key, value)), scale=named["scaling"], enable_gqa=True)
        for start, end in zip(edges[:-1], edges[1:], strict=True)
    ]
    return torch.cat(parts, dim=2).transpose(1, 2), None


def without_bounds(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: None, **named: Any) -> tuple[Tensor, None]:
    whole = torch.tensor([0, query.shape[2]], dtype=torch.int32)
    return packed_attention(module, query, key, value, mask, **{**named, "cu_seq_lens_q": whole, "max_length_q": query.shape[2]})


def failure(tiny: Tiny, sources: list[EncodedSource]) -> str:
    with pytest.raises(WarmlineError, match=r"^self-check: ") as caught:
        self_check(tiny.model, sources, CPU)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_good_model_passes_and_is_left_alone(tiny: Tiny, sources: list[EncodedSource]) -> None:
    before = {name: tensor.clone() for name, tensor in trainable_state(tiny.model).items()}
    lines = self_check(tiny.model.train(), sources, CPU)
    assert len(lines) == 7
    assert lines[-1] == "gradients reach tuned weights, emotion head, strategy head"
    assert all(torch.equal(tensor, before[name]) for name, tensor in trainable_state(tiny.model).items())
    assert all(parameter.grad is None for parameter in tiny.model.parameters())
    assert tiny.model.training


def test_good_model_passes_in_bf16(tiny: Tiny, sources: list[EncodedSource]) -> None:
    """Autocast keeps a cast copy of each weight until its context ends; a check that changes weights inside one must not read it."""
    place = choose_place(TrainingConfig(precision="bf16"), CPU.device)
    model = build_model(tiny.config, place.device, place.dtype)
    assert len(self_check(model, sources, place)) == 7


def test_weights_in_another_precision(tiny: Tiny, sources: list[EncodedSource]) -> None:
    norm = tiny.model.backbone.decoder.norm
    norm.weight.data = norm.weight.data.bfloat16()
    assert "norm.weight is in bfloat16 and the run computes in float32" in failure(tiny, sources)


def test_experts_round_with_the_number_of_their_tokens(tiny_config: ConfigFactory, sources: list[EncodedSource], tmp_path: Path) -> None:
    """A changed token goes to other experts, whose products for everyone else then have other shapes."""
    made = Qwen3MoeConfig(
        **{**SIZES, "hidden_size": 256}, moe_intermediate_size=128, num_experts=32, num_experts_per_tok=4, decoder_sparse_step=1
    )
    folder = write_architecture(tmp_path / "experts", made)
    config = tiny_config(tmp_path, model={"name": str(folder)}, lora={"target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]})
    model = build_model(config, CPU.device, CPU.dtype)
    assert "isolated: packed neighbours stay the same up to rounding" in self_check(model, [sources[ED]], CPU)
    assert "causal: a later token leaves earlier states the same up to rounding" in self_check(model, [sources[GOEMOTIONS]], CPU)


@pytest.mark.parametrize(("broken", "said"), [("bidirectional", "not causal"), ("without_bounds", "packing leaks")])
def test_experts_hide_no_fault(
    broken: str, said: str, tiny_config: ConfigFactory, sources: list[EncodedSource], tmp_path: Path, attention: Callable[[Attention], None]
) -> None:
    made = Qwen3MoeConfig(**SIZES, moe_intermediate_size=32, num_experts=8, num_experts_per_tok=2, decoder_sparse_step=1)
    config = tiny_config(
        tmp_path,
        model={"name": str(write_architecture(tmp_path / "experts", made))},
        lora={"target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]},
    )
    model = build_model(config, CPU.device, CPU.dtype)
    attention({"bidirectional": bidirectional, "without_bounds": without_bounds}[broken])
    with pytest.raises(WarmlineError, match=said):
        self_check(model, sources, CPU)


def test_one_source_is_enough(tiny: Tiny, sources: list[EncodedSource]) -> None:
    lines = self_check(tiny.model, [sources[GOEMOTIONS]], CPU)
    assert lines[-1] == "gradients reach tuned weights, emotion head"


def test_bidirectional_attention(tiny: Tiny, sources: list[EncodedSource], attention: Callable[[Attention], None]) -> None:
    attention(bidirectional)
    assert "attention is not causal" in failure(tiny, sources)


def test_packing_leak(tiny: Tiny, sources: list[EncodedSource], attention: Callable[[Attention], None]) -> None:
    attention(without_bounds)
    assert "packing leaks" in failure(tiny, sources)


def test_positions_that_do_not_restart(tiny: Tiny, sources: list[EncodedSource], monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = tiny.model.backbone.hidden
    monkeypatch.setattr(
        tiny.model.backbone, "hidden", lambda tokens, ids, bounds, longest: hidden(tokens, ids * (1 + len(bounds)), bounds, longest)
    )
    assert "packed differs from itself alone" in failure(tiny, sources)


def test_adapter_gradient_cut(tiny: Tiny, sources: list[EncodedSource], monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = tiny.model.backbone.hidden
    monkeypatch.setattr(tiny.model.backbone, "hidden", lambda *given: hidden(*given).detach())
    assert "no gradient reaches the tuned weights" in failure(tiny, sources)


@pytest.mark.parametrize("head", ["emotion", "strategy"])
def test_head_gradient_cut(head: str, tiny: Tiny, sources: list[EncodedSource]) -> None:
    tiny.model.heads[head].register_forward_hook(lambda module, given, logits: logits.detach())
    assert f"no gradient reaches the {head} head" in failure(tiny, sources)


def test_adapter_that_cannot_be_switched_off(tiny: Tiny, sources: list[EncodedSource], monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def reference() -> Iterator[None]:
        with torch.no_grad():
            yield

    monkeypatch.setattr(tiny.model.backbone, "reference", reference)
    assert "the adapter cannot be switched off" in failure(tiny, sources)


def test_adapter_outside_the_forward(tiny: Tiny, sources: list[EncodedSource], monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = tiny.model.backbone.hidden

    def unadapted(*given: Any) -> Tensor:
        with tiny.model.backbone.model.disable_adapter():
            return hidden(*given)

    monkeypatch.setattr(tiny.model.backbone, "hidden", unadapted)
    assert "the adapter is not in the forward pass" in failure(tiny, sources)


def test_cut_row(tiny: Tiny, sources: list[EncodedSource], monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = tiny.model.backbone.hidden
    monkeypatch.setattr(tiny.model.backbone, "hidden", lambda *given: hidden(*given)[:-1])
    assert "a row was cut or padded" in failure(tiny, sources)


def test_infinite_states(tiny: Tiny, sources: list[EncodedSource], monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = tiny.model.backbone.hidden
    monkeypatch.setattr(tiny.model.backbone, "hidden", lambda *given: hidden(*given) / 0)
    assert "NaN or infinity" in failure(tiny, sources)


def test_fault_leaves_the_weights_alone(tiny: Tiny, sources: list[EncodedSource], monkeypatch: pytest.MonkeyPatch) -> None:
    before = {name: tensor.clone() for name, tensor in trainable_state(tiny.model).items()}
    hidden = tiny.model.backbone.hidden
    monkeypatch.setattr(tiny.model.backbone, "hidden", lambda *given: hidden(*given).detach())
    failure(tiny, sources)
    assert all(torch.equal(tensor, before[name]) for name, tensor in trainable_state(tiny.model).items())


def test_long_conversations_do_not_hide_a_head(tiny: Tiny, sources: list[EncodedSource]) -> None:
    """Real ESConv dialogues are mostly longer than the probe; the strategy head must be checked all the same."""
    talk = (Turn("user", "I feel lost. " * 90), Turn("assistant", "Tell me more. " * 90, labels={"strategy": ("Question",)}))
    short = (Turn("user", "I feel lost."), Turn("assistant", "Tell me more.", labels={"strategy": ("Question",)}))
    dialogues = [Conversation(str(at), short if at == 0 else talk) for at in range(12)]
    esconv = encode("esconv", dialogues, ("lm", "strategy"), tiny.template, 2048)
    assert "strategy head" in self_check(tiny.model, [esconv, sources[GOEMOTIONS]], CPU)[-1]
