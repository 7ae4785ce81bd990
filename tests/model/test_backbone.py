"""The transformers backbone: packed equals alone, adapter on and off, generation, and what it refuses."""

import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, Gemma2Config, Gemma3TextConfig, GenerationConfig, LlamaConfig, PreTrainedConfig

from tests.reference.objectives import states_alone
from tests.tools import (
    CPU,
    ED,
    ESCONV,
    GOEMOTIONS,
    OWN_DEFAULTS,
    SAFETY,
    Tiny,
    architecture,
    gradients,
    one_of_each,
    pack,
    perturb,
    stored_in_4bit,
)
from warmline.data.encoding import EncodedSource
from warmline.data.packing import collate
from warmline.errors import WarmlineError
from warmline.model.backbone import Sampling
from warmline.model.base import load_tokenizer
from warmline.model.generation import until
from warmline.model.multitask import MultiTaskModel
from warmline.model.transformers_backbone import TransformersBackbone
from warmline.settings import LoraSettings, ModelConfig

LENGTHS = (4, 9, 30, 5, 17, 64)  # a CPU multiplies fewer than four rows with another kernel; no conversation is that short
GREEDY = Sampling(max_new_tokens=12, temperature=0)
SMALL: dict[str, Any] = {
    "vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256,
}  # fmt: skip
ARCHITECTURES: dict[str, PreTrainedConfig] = {
    "qwen3": architecture(vocab_size=300),
    "qwen3_sliding": architecture(
        vocab_size=300, use_sliding_window=True, sliding_window=8, layer_types=["full_attention", "sliding_attention"]
    ),
    "llama": LlamaConfig(**SMALL),
    "gemma3": Gemma3TextConfig(**SMALL, sliding_window=8, layer_types=["sliding_attention", "full_attention"]),
}


@pytest.fixture(params=ARCHITECTURES)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    ARCHITECTURES[request.param].save_pretrained(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> TransformersBackbone:
    """A Qwen3 that tests only let speak."""
    folder = tmp_path_factory.mktemp("small")
    ARCHITECTURES["qwen3"].save_pretrained(folder)
    return noisy(open_backbone(folder))


def open_backbone(folder: Path, lora: LoraSettings | None = None, checkpointing: Any = "none", **model: Any) -> TransformersBackbone:
    config = ModelConfig(name=str(folder), random_init_seed=0, **model)
    torch.manual_seed(0)
    return TransformersBackbone(config, lora or LoraSettings(r=4), CPU.device, CPU.dtype, checkpointing=checkpointing).eval()


def conversations() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(300, (length,), generator=generator) for length in LENGTHS]


def packed_states(backbone: TransformersBackbone, parts: list[Tensor]) -> Tensor:
    bounds = torch.tensor([0, *(len(part) for part in parts)]).cumsum(0).to(torch.int32)
    return backbone.hidden(torch.cat(parts), torch.cat([torch.arange(len(part)) for part in parts]), bounds, max(map(len, parts)))


def noisy(backbone: TransformersBackbone) -> TransformersBackbone:
    perturb(MultiTaskModel(backbone, torch.nn.Identity()))
    return backbone


@torch.no_grad()
def test_equals_stock_attention(folder: Path) -> None:
    """Against transformers' own eager attention, which masks densely, one conversation at a time."""
    backbone = open_backbone(folder)
    stock = AutoModelForCausalLM.from_config(backbone.model.config, attn_implementation="eager").eval()
    with backbone.model.disable_adapter():
        weights = {name.replace("base_layer.", ""): value for name, value in backbone.model.get_base_model().state_dict().items()}
        stock.load_state_dict({name: value for name, value in weights.items() if "lora_" not in name})
        packed = packed_states(backbone, conversations())
    expected = torch.cat([stock.get_decoder()(input_ids=part[None], use_cache=False).last_hidden_state[0] for part in conversations()])
    torch.testing.assert_close(packed, expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_packed_equals_alone(folder: Path) -> None:
    backbone = noisy(open_backbone(folder))
    packed = packed_states(backbone, conversations())
    for states, part in zip(packed.split(LENGTHS), conversations(), strict=True):
        assert torch.equal(states, packed_states(backbone, [part]))


@torch.no_grad()
def test_neighbours_stay_bit_identical(folder: Path) -> None:
    backbone = noisy(open_backbone(folder))
    parts = conversations()
    before = packed_states(backbone, parts).split(LENGTHS)
    parts[2] = (parts[2] + 1) % 300
    after = packed_states(backbone, parts).split(LENGTHS)
    assert [torch.equal(one, other) for one, other in zip(before, after, strict=True)] == [True, True, False, True, True, True]


def test_packed_gradients_are_the_sum_of_those_alone(folder: Path) -> None:
    backbone = noisy(open_backbone(folder))
    model = MultiTaskModel(backbone, torch.nn.Identity())
    outer = torch.randn(sum(LENGTHS), 32, generator=torch.Generator().manual_seed(2))
    (packed_states(backbone, conversations()) * outer).sum().backward()
    packed = gradients(model)
    model.zero_grad()
    for part, weight in zip(conversations(), outer.split(LENGTHS), strict=True):
        (packed_states(backbone, [part]) * weight).sum().backward()
    for name, alone in gradients(model).items():
        torch.testing.assert_close(packed[name], alone, rtol=1e-4, atol=1e-4, msg=name)


@torch.no_grad()
def test_packed_equals_alone_on_real_conversations(tiny: Tiny, sources: list[EncodedSource]) -> None:
    perturb(tiny.model)
    tiny.model.eval()
    draws = one_of_each(sources, GOEMOTIONS, ESCONV, SAFETY, ED, GOEMOTIONS, SAFETY, ED, ED, ESCONV, most=512)
    batch = pack(sources, draws)
    packed = tiny.model.states(batch)
    for draw, start, end in zip(draws, batch.bounds[:-1], batch.bounds[1:], strict=True):
        alone = states_alone(tiny.model, torch.tensor(sources[draw.source][draw.conversation].tokens.tolist()))
        assert torch.equal(packed[start:end], alone)
        changed = batch.tokens.clone()
        changed[start:end] = changed[start:end].flip(0)
        others = torch.ones(len(changed), dtype=torch.bool)
        others[start:end] = False
        moved = tiny.model.backbone.hidden(changed, batch.position_ids, batch.bounds, batch.longest)
        assert torch.equal(moved[others], packed[others])
        assert not torch.equal(moved[~others], packed[~others])


def test_reference_is_the_base(tiny: Tiny, sources: list[EncodedSource]) -> None:
    model = tiny.model.train()
    batch = pack(sources, one_of_each(sources, ED, SAFETY))
    with model.backbone.reference():
        base = model.states(batch)
        assert not base.requires_grad
        assert not model.backbone.training
    assert model.backbone.training
    perturb(model)
    model.eval()
    with model.backbone.reference():
        assert torch.equal(model.states(batch), base)
        with model.backbone.reference():
            assert torch.equal(model.states(batch), base)
        assert torch.equal(model.states(batch), base)
    assert not torch.equal(model.states(batch), base)
    assert not model.backbone.training


def test_full_weights_keep_a_frozen_base(folder: Path) -> None:
    config = ModelConfig(name=str(folder), random_init_seed=0)
    backbone = TransformersBackbone(config, None, CPU.device, CPU.dtype)
    with backbone.reference():
        base, unembedding = packed_states(backbone, conversations()), backbone.base_unembedding.clone()
    assert torch.equal(packed_states(backbone.eval(), conversations()), base)
    noisy(backbone)
    with backbone.reference():
        assert torch.equal(packed_states(backbone, conversations()), base)
    assert torch.equal(backbone.base_unembedding, unembedding)
    assert not torch.equal(backbone.unembedding, unembedding)
    assert not torch.equal(packed_states(backbone, conversations()), base)
    assert not any(parameter.requires_grad for parameter in backbone._frozen.parameters())
    assert not backbone.train()._frozen.training


@pytest.mark.parametrize("asked", ["full", "selective"])
def test_checkpointing_changes_no_gradient(asked: str, folder: Path) -> None:
    outer = torch.randn(sum(LENGTHS), 32, generator=torch.Generator().manual_seed(2))
    found, calls = [], []
    for checkpointing in ("none", asked):
        backbone = noisy(open_backbone(folder, checkpointing=checkpointing)).train()
        layer = backbone.model.get_base_model().get_decoder().layers[0].mlp
        calls.append(0)
        layer.register_forward_pre_hook(lambda *_: calls.append(calls.pop() + 1))
        (packed_states(backbone, conversations()) * outer).sum().backward()
        found.append(gradients(MultiTaskModel(backbone, torch.nn.Identity())))
    assert calls == [1, 2]
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("base", [False, True])
@torch.no_grad()
def test_greedy_reply_follows_the_states(folder: Path, base: bool) -> None:
    """Generation, which has a cache and another attention, agrees with the packed forward, adapter on and off."""
    backbone = noisy(open_backbone(folder))
    prompt = conversations()[2].tolist()

    def both() -> tuple[list[int], list[int]]:
        (reply,) = backbone.generate([prompt], end_of_turn=299, sampling=GREEDY)
        expected: list[int] = []
        while len(expected) < 12:
            states = packed_states(backbone, [torch.tensor(prompt + expected)])
            expected.append(int((states[-1] @ backbone.unembedding.T).argmax()))
            if expected[-1] == 299:
                return reply, expected[:-1]
        return reply, expected

    if base:
        with backbone.reference():
            reply, expected = both()
    else:
        reply, expected = both()
    assert reply == expected


def test_reply_stops_before_the_end_of_turn(folder: Path) -> None:
    backbone = noisy(open_backbone(folder))
    prompt = conversations()[2].tolist()
    (free,) = backbone.generate([prompt], end_of_turn=299, sampling=GREEDY)
    stop = free[4]
    assert backbone.generate([prompt], end_of_turn=stop, sampling=GREEDY) == [free[: free.index(stop)]]


def test_batched_replies_are_the_replies_alone(folder: Path) -> None:
    backbone = noisy(open_backbone(folder))
    prompts = [part.tolist() for part in conversations()]
    alone = [backbone.generate([prompt], end_of_turn=299, sampling=GREEDY)[0] for prompt in prompts]
    assert backbone.generate(prompts, end_of_turn=299, sampling=GREEDY) == alone


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(12, 1.0, seed=3)], ids=["greedy", "drawn"])
@pytest.mark.parametrize("name", OWN_DEFAULTS)
def test_a_bases_own_generation_defaults_change_no_reply(name: str, sampling: Sampling, small: TransformersBackbone) -> None:
    prompts = [part.tolist() for part in conversations()[2:4]]
    small._causal.generation_config = GenerationConfig()
    stop = small.generate(prompts, 299, sampling)[0][4]
    expected = small.generate(prompts, stop, sampling)
    own = small._causal.generation_config = GenerationConfig(**{name: OWN_DEFAULTS[name]})
    assert small.generate(prompts, stop, sampling) == expected
    assert small._causal.generation_config is own


@torch.no_grad()
def test_a_reply_is_what_the_serving_engine_steps_through(folder: Path) -> None:
    """Whatever the base's own generation defaults say."""
    backbone = noisy(open_backbone(folder))
    prompt = conversations()[2].tolist()
    backbone._causal.generation_config = GenerationConfig(repetition_penalty=5.0, no_repeat_ngram_size=1, min_new_tokens=12, top_k=2)
    prefilled = backbone.prefill(torch.tensor(prompt))
    stepped = [int(backbone.logits(prefilled.states[-1:]).argmax())]
    while len(stepped) < GREEDY.max_new_tokens:
        states = backbone.step(torch.tensor(stepped[-1:]), [prefilled.cache])
        stepped.append(int(backbone.logits(states).argmax()))
    assert backbone.generate([prompt], 299, GREEDY) == [until(stepped, 299)]


def test_packing_works_after_generating(folder: Path) -> None:
    backbone = noisy(open_backbone(folder))
    before = packed_states(backbone, conversations())
    backbone.generate([[1, 2, 3]], end_of_turn=299, sampling=GREEDY)
    assert torch.equal(packed_states(backbone, conversations()), before)


def test_saved_weights_come_back(tiny: Tiny, sources: list[EncodedSource], tmp_path: Path) -> None:
    perturb(tiny.model)
    model = tiny.model.eval()
    model.backbone.save(tmp_path / "adapter")
    again = TransformersBackbone(tiny.config.model, tiny.config.lora, CPU.device, CPU.dtype, tuned=tmp_path / "adapter", trainable=False)
    batch = pack(sources, one_of_each(sources, ED, SAFETY))
    assert torch.equal(model.states(batch), MultiTaskModel(again, model.heads).states(batch))
    assert not any(parameter.requires_grad for parameter in again.parameters())


def test_row_of_many_rows(tiny: Tiny, sources: list[EncodedSource]) -> None:
    """A micro-batch of two rows is the two rows one after the other."""
    rows = [tuple(one_of_each(sources, ED, SAFETY)), tuple(one_of_each(sources, GOEMOTIONS, ESCONV))]
    model = tiny.model.eval()
    both = model.states(collate(sources, rows))
    assert torch.equal(both, torch.cat([model.states(collate(sources, [row])) for row in rows]))


def test_refuses_a_missing_model() -> None:
    with pytest.raises(WarmlineError, match=r"^model\.name: cannot load `nobody/nothing`: [^\n]+$"):
        load_tokenizer(ModelConfig(name="nobody/nothing"))
    with pytest.raises(WarmlineError, match=r"^model\.name: cannot load `nobody/nothing`: [^\n]+$"):
        TransformersBackbone(ModelConfig(name="nobody/nothing"), LoraSettings(), CPU.device, CPU.dtype)


def test_refuses_a_model_without_weights(tiny_model: Path) -> None:
    with pytest.raises(WarmlineError, match=r"^model\.name: `[^`]+` has no model\.safetensors and no [^\n]+$"):
        TransformersBackbone(ModelConfig(name=str(tiny_model)), LoraSettings(), CPU.device, CPU.dtype)


@pytest.fixture(scope="module")
def in_4_bits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stored_in_4bit(tmp_path_factory.mktemp("nf4"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_base_stored_in_4_bits_takes_this_machines_precision(dtype: torch.dtype, in_4_bits: Path) -> None:
    """Its files say bf16, which a T4 does not have."""
    backbone = TransformersBackbone(ModelConfig(name=str(in_4_bits), load_in_4bit=True), LoraSettings(), CPU.device, dtype)
    quantised = [module for module in backbone.modules() if hasattr(module, "compute_dtype")]
    assert len(quantised) == 14
    frozen = [value for value in backbone.parameters() if not value.requires_grad and value.is_floating_point()]
    assert {value.dtype for value in frozen} == {dtype}
    assert {(module.compute_dtype, module.weight.quant_state.dtype) for module in quantised} == {(dtype, dtype)}
    assert backbone.unembedding.dtype == dtype
    assert backbone.decoder.rotary_emb.inv_freq.dtype == torch.float32


def test_gradients_pass_through_4_bits_after_a_pass_without(in_4_bits: Path) -> None:
    backbone = TransformersBackbone(ModelConfig(name=str(in_4_bits), load_in_4bit=True), LoraSettings(), CPU.device, CPU.dtype)
    noisy(backbone)
    with torch.no_grad():
        before = packed_states(backbone.eval(), conversations())
    states = packed_states(backbone.train(), conversations())
    torch.testing.assert_close(states, before)
    states.square().sum().backward()
    assert all(bool(value.grad.any()) for value in backbone.parameters() if value.requires_grad)


def test_4_bits_that_the_configuration_does_not_expect(in_4_bits: Path) -> None:
    with pytest.raises(WarmlineError, match=r"^model\.load_in_4bit: false, but `[^`]+` holds 4-bit weights; set it to true"):
        TransformersBackbone(ModelConfig(name=str(in_4_bits)), LoraSettings(), CPU.device, CPU.dtype)


@pytest.mark.parametrize("in_4bit", [True, False])
@pytest.mark.parametrize("method", [{"quant_method": "gptq", "bits": 4}, {"quant_method": "bitsandbytes", "load_in_8bit": True}])
def test_weights_quantised_in_another_way(method: dict[str, Any], in_4bit: bool, tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "other"))
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, "quantization_config": method}))
    with pytest.raises(WarmlineError, match=rf"^model\.name: `[^`]+` holds weights quantised by {method['quant_method']}; name [^\n]+$"):
        TransformersBackbone(ModelConfig(name=str(folder), load_in_4bit=in_4bit), LoraSettings(), CPU.device, CPU.dtype)


def test_refuses_unknown_target_modules(tiny_model: Path) -> None:
    with pytest.raises(WarmlineError, match=r"^lora\.target_modules: [^\n]*wqkv[^\n]*$"):
        open_backbone(tiny_model, LoraSettings(target_modules=("wqkv",)))


def test_refuses_capped_logits(tmp_path: Path) -> None:
    Gemma2Config(**SMALL, final_logit_softcapping=30.0).save_pretrained(tmp_path)
    with pytest.raises(WarmlineError, match=r"^model\.name: gemma2 caps or shifts its logits"):
        open_backbone(tmp_path)


# going on from a cache


@torch.no_grad()
def test_prefill_is_hidden_to_the_bit(folder: Path) -> None:
    backbone = noisy(open_backbone(folder))
    for part in conversations():
        states = packed_states(backbone, [part])
        assert torch.equal(backbone.prefill(part).states, states)
        with backbone.reference():
            assert torch.equal(backbone.prefill(part).states, packed_states(backbone, [part]))
            assert not torch.equal(backbone.prefill(part).states, states)


@torch.no_grad()
@pytest.mark.parametrize("base", [False, True])
def test_steps_go_on_as_one_pass_over_everything_would(folder: Path, base: bool) -> None:
    """Conversations of several lengths in one batch, beyond the sliding window, some padding rows beside them."""
    backbone = noisy(open_backbone(folder))
    parts = conversations()
    with backbone.reference() if base else nullcontext():
        begun = [backbone.prefill(part[: len(part) // 2]).cache for part in parts]
        going = list(range(len(parts)))
        for at in range(32):
            going = [which for which in going if len(parts[which]) // 2 + at < len(parts[which])]
            if not going:
                break
            newest = [int(parts[which][len(parts[which]) // 2 + at]) for which in going]
            states = backbone.step(torch.tensor(newest + [0] * (8 - len(going))), [begun[which] for which in going])
            assert states.shape == (8, backbone.hidden_size)
            for row, which in enumerate(going):
                whole = packed_states(backbone, [parts[which]])[len(parts[which]) // 2 + at]
                torch.testing.assert_close(states[row], whole, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_step_of_as_many_rows_gives_the_same_bits_whoever_is_in_them(folder: Path) -> None:
    backbone = noisy(open_backbone(folder))
    parts = conversations()

    def newest(which: list[int]) -> Tensor:
        caches = [backbone.prefill(parts[one][:-1]).cache for one in which]
        tokens = [int(parts[one][-1]) for one in which] + [0] * (8 - len(which))
        return backbone.logits(backbone.step(torch.tensor(tokens), caches))

    together = newest([0, 1, 2, 3, 4, 5])
    for one in range(6):
        assert torch.equal(newest([one])[0], together[one])
    assert torch.equal(newest([5, 2])[1], together[2])


@torch.no_grad()
def test_logits_are_those_of_the_model_in_use(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    architecture(vocab_size=300).save_pretrained(folder)
    config = ModelConfig(name=str(folder), random_init_seed=0)
    full = TransformersBackbone(config, None, CPU.device, CPU.dtype).eval()
    perturb(MultiTaskModel(full, torch.nn.Identity()))
    states = torch.randn(3, full.hidden_size)
    assert torch.equal(full.logits(states), states @ full.unembedding.T)
    with full.reference():
        assert torch.equal(full.logits(states), states @ full.base_unembedding.T)
        assert not torch.equal(full.logits(states), states @ full.unembedding.T)


@torch.no_grad()
def test_a_base_alone_keeps_no_second_copy(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    architecture(vocab_size=300).save_pretrained(folder)
    config = ModelConfig(name=str(folder), random_init_seed=0)
    alone = TransformersBackbone(config, None, CPU.device, CPU.dtype, trainable=False)
    both = TransformersBackbone(config, None, CPU.device, CPU.dtype)
    assert 2 * len(list(alone.parameters())) == len(list(both.parameters()))
    states = alone.prefill(torch.arange(20)).states
    with alone.reference(), both.reference():
        assert torch.equal(alone.prefill(torch.arange(20)).states, states)
        assert torch.equal(both.prefill(torch.arange(20)).states, states)
