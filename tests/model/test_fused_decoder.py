"""The fused decoder computes what transformers and PEFT compute; on a GPU its kernels agree with the torch versions beside them."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from warmline.model.choose import has_fused_layers
from warmline.model.fast import nf4
from warmline.model.fast.attention import VARLEN
from warmline.model.fast.decoder import FusedDecoder, can_fuse
from warmline.settings import SEVEN_PROJECTIONS

BOUNDS, LONGEST = torch.tensor([0, 7, 30], dtype=torch.int32), 23
POSITIONS = torch.cat([torch.arange(7), torch.arange(23)])
TOKENS = torch.randint(0, 100, (30,), generator=torch.Generator().manual_seed(0))


SIZES: dict[str, Any] = {
    "vocab_size": 100, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 32,
}  # fmt: skip
_LOCAL = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "sliding_window": 5}
FAMILIES: dict[str, tuple[type[PreTrainedConfig], dict[str, Any]]] = {
    "qwen3": (Qwen3Config, {}),
    "qwen3 with biases": (Qwen3Config, {"attention_bias": True}),
    "qwen3 with a window": (Qwen3Config, {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}),
    "qwen2": (Qwen2Config, {}),
    "llama": (LlamaConfig, {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}}),
    "mistral": (MistralConfig, {"sliding_window": 5}),
    "gemma3_text": (Gemma3TextConfig, {**_LOCAL, "query_pre_attn_scalar": 20}),
}
every_family = pytest.mark.parametrize("family", FAMILIES)


def base_model(family: str, **changes: Any) -> PreTrainedModel:
    """Random; norms and biases too, so that none is one or zero by chance. A window is five tokens."""
    torch.manual_seed(0)
    kind, settings = FAMILIES[family]
    base: PreTrainedModel = AutoModelForCausalLM.from_config(kind(**SIZES, **settings, **changes))
    with torch.no_grad():
        for name, parameter in base.named_parameters():
            if "norm" in name or "bias" in name:
                parameter += torch.randn(parameter.shape) * 0.3
    base.set_attn_implementation(VARLEN)
    return base


def adapted(
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    targets: tuple[str, ...] = SEVEN_PROJECTIONS,
    family: str = "qwen3",
    **lora: Any,
) -> PeftModel:
    base = base_model(family).to(device, dtype)
    model = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules=list(targets), task_type="CAUSAL_LM", **lora))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.data = (torch.randn(parameter.shape) * 0.1).to(device)
    return model


def decoder(model: PeftModel) -> nn.Module:
    return model.get_base_model().get_decoder()


def plain(model: PeftModel, device: str = "cpu") -> Tensor:
    where = {"cu_seq_lens_q": BOUNDS.to(device), "max_length_q": LONGEST}
    output = decoder(model)(TOKENS[None].to(device), position_ids=POSITIONS[None].to(device), use_cache=False, **where)
    return output.last_hidden_state[0]


def gradients(model: PeftModel) -> dict[str, Tensor]:
    found = {name: parameter.grad.float().clone() for name, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad()
    return found


@every_family
@pytest.mark.parametrize("checkpointing", ["none", "selective", "full", "offload"])
def test_equals_the_plain_decoder(checkpointing: Any, family: str) -> None:
    model = adapted(family=family)
    outer = torch.randn(30, 64)
    expected = plain(model)
    expected.backward(outer)
    expected_gradients = gradients(model)
    fused = FusedDecoder(decoder(model))(TOKENS, POSITIONS, BOUNDS, LONGEST, checkpointing)
    fused.backward(outer)
    torch.testing.assert_close(fused, expected, rtol=0, atol=1e-5)
    found = gradients(model)
    assert found.keys() == expected_gradients.keys()
    assert len(found) == 3 * 7 * 2
    for name, gradient in expected_gradients.items():
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=1e-5 * float(gradient.abs().max()), msg=name)


@every_family
def test_without_adapters_it_is_the_base(family: str) -> None:
    model = adapted(family=family)
    with torch.no_grad():
        fused = FusedDecoder(decoder(model))(TOKENS, POSITIONS, BOUNDS, LONGEST, adapters=False)
        with model.disable_adapter():
            expected = plain(model)
    torch.testing.assert_close(fused, expected, rtol=0, atol=1e-5)


@every_family
def test_joint_weights_are_the_modules_own(family: str) -> None:
    model = adapted(family=family)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    FusedDecoder(decoder(model))
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


@every_family
def test_what_can_be_fused(family: str) -> None:
    assert can_fuse(decoder(adapted(family=family)))
    assert not can_fuse(decoder(adapted(targets=SEVEN_PROJECTIONS[:4])))
    assert not can_fuse(decoder(adapted(lora_dropout=0.1)))
    assert not can_fuse(decoder(adapted(lora_bias=True)))
    assert not can_fuse(base_model(family).get_decoder())


@pytest.mark.parametrize(
    "other",
    [
        Qwen3Config(hidden_act="gelu"),
        Gemma3TextConfig(hidden_activation="gelu"),
        Gemma3TextConfig(attn_logit_softcapping=50.0),
        Phi3Config(),
    ],
)
def test_what_has_no_fused_layers(other: PreTrainedConfig) -> None:
    assert not has_fused_layers(other)


@pytest.mark.gpu
@every_family
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("checkpointing", ["none", "selective", "full", "offload"])
def test_agrees_on_the_gpu(checkpointing: Any, dtype: torch.dtype, family: str) -> None:
    """As far from fp32 as the plain path in the same precision is, give or take a fifth."""
    outer = torch.randn(30, 64, device="cuda", generator=torch.Generator("cuda").manual_seed(0))
    reference, half, model = (adapted("cuda", of, family=family) for of in (torch.float32, dtype, dtype))
    expected = plain(reference, "cuda")
    expected.backward(outer)
    with torch.autocast("cuda", dtype):
        usual = plain(half, "cuda")
    usual.backward(outer.to(usual.dtype))
    fused = FusedDecoder(decoder(model))(TOKENS.cuda(), POSITIONS.cuda(), BOUNDS.cuda(), LONGEST, checkpointing)
    fused.backward(outer.to(fused.dtype))
    assert distance([fused], [expected]) < 1.2 * distance([usual], [expected])
    wide, usual_gradients, found = gradients(reference), gradients(half), gradients(model)
    assert found.keys() == wide.keys()
    gap = distance([found[name] for name in wide], list(wide.values()))
    assert gap < 1.2 * distance([usual_gradients[name] for name in wide], list(wide.values()))


def distance(found: list[Tensor], expected: list[Tensor]) -> float:
    """Norm of the difference, as a share of what is expected."""
    gap = sum(float((one.detach().float() - other.detach()).square().sum()) for one, other in zip(found, expected, strict=True))
    return (gap / sum(float(other.detach().square().sum()) for other in expected)) ** 0.5


@pytest.mark.gpu
def test_unpacks_as_bitsandbytes_does() -> None:
    bnb = pytest.importorskip("bitsandbytes")
    layers = []
    for rows, spread in ((4096, 1.0), (1024, 3.0)):
        layer = bnb.nn.Linear4bit(1024, rows, bias=False, compute_dtype=torch.bfloat16, compress_statistics=True, quant_type="nf4")
        weight = torch.randn(rows, 1024, dtype=torch.bfloat16) * spread
        layer.weight = bnb.nn.Params4bit(weight, requires_grad=False, compress_statistics=True, quant_type="nf4")
        layers.append(layer.cuda())
    expected = [bnb.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state) for layer in layers]
    packed = nf4.join_packed(layers)
    out = torch.empty(5120, 1024, dtype=torch.bfloat16, device="cuda")
    nf4.unpack_nf4(packed, out)
    assert torch.equal(out, torch.cat(expected))
    for layer, own in zip(layers, expected, strict=True):
        assert torch.equal(bnb.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state), own)
