"""One backend in one process, run by `test_backends_on_gpu.py`: what it computes on 50 batches, and what the self-check says of it.

python -m tests.model.backends '{"task": "transformers", "folder": "...", "out": "..."}' prints one JSON line with its numbers and writes
its tensors. The folder holds `model/` (bf16 weights), `adapter/`, `heads.safetensors`; `nf4/` is the same model with every 4-bit weight
unpacked, so that fp32 on the CPU is the reference of the 4-bit backends too.
"""

import json
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

BATCHES, GRADIENT_BATCHES = 50, 3
END_OF_TURN = 2
ROW_TOKENS = 1024
"""Also the model's longest position: a micro-batch of two rows is longer than the model's own limit, as it may be."""


class Variant(NamedTuple):
    """One way to run the model."""

    name: str
    backend: str
    model: str
    in_4bit: bool
    fused: bool
    checkpointing: str
    device: str


TASKS = {
    "transformers": [
        Variant("plain-bf16", "transformers", "model", False, False, "full", "cuda"),
        Variant("fused-bf16", "transformers", "model", False, True, "offload", "cuda"),
        Variant("plain-nf4", "transformers", "model", True, False, "full", "cuda"),
        Variant("fused-nf4", "transformers", "model", True, True, "offload", "cuda"),
    ],
    "reference": [
        Variant("reference-bf16", "transformers", "model", False, False, "none", "cpu"),
        Variant("reference-nf4", "transformers", "nf4", False, False, "none", "cpu"),
    ],
    "unsloth-bf16": [Variant("unsloth-bf16", "unsloth", "model", False, False, "offload", "cuda")],
    "unsloth-nf4": [Variant("unsloth-nf4", "unsloth", "model", True, False, "offload", "cuda")],
}


def main() -> None:
    """Run the task given as JSON on the command line."""
    asked = json.loads(sys.argv[1])
    began = time.perf_counter()
    if asked["task"].startswith("unsloth"):
        from warmline.model.choose import import_unsloth

        import_unsloth()
    folder, out = Path(asked["folder"]), Path(asked["out"])
    if asked["task"] == "reference":
        unpack_4bit(folder)
    said = {variant.name: run(variant, folder, out) for variant in TASKS[asked["task"]]}
    print(json.dumps({"task": asked["task"], "seconds": round(time.perf_counter() - began, 1), **said}), flush=True)


def run_config(folder: Path, variant: Variant) -> Any:
    from warmline.config import parse_config

    head = {"dropout": 0.0}
    content = {
        "name": "backends",
        "model": {"name": str(folder / variant.model), "load_in_4bit": variant.in_4bit, "fused": variant.fused},
        "lora": {"r": 8, "alpha": 8},
        "data": {"dir": "sample", "row_tokens": ROW_TOKENS},
        "heads": {"emotion": head, "strategy": head},
    }
    return parse_config(content, "tests")


def run(variant: Variant, folder: Path, out: Path) -> dict[str, Any]:
    """Losses, head logits and gradients into `<name>.safetensors`; what the self-check and generation do is returned."""
    import torch
    from safetensors.torch import save_file

    config, place, model, sources = open_model(variant, folder, folder / "adapter")
    batches = first_batches(config, sources, BATCHES, place)
    tensors = {"tokens": torch.cat([batch.tokens for batch in batches])}
    losses, emotion, strategy = [], [], []
    model.eval()
    with torch.no_grad():
        for batch in batches:
            terms, logits = forward(model, batch, place)
            losses.append(torch.stack([term.sum.double() / max(term.targets, 1) for term in terms.values()]))
            emotion.append(logits["emotion"])
            strategy.append(logits["strategy"])
    tensors |= {"losses": torch.stack(losses), "emotion": torch.cat(emotion), "strategy": torch.cat(strategy)}
    model.train()
    tensors["gradients"] = torch.cat([gradient(model, batch, place) for batch in batches[:GRADIENT_BATCHES]])
    said: dict[str, Any] = {}
    if variant.device == "cuda":
        said["self_check"] = check(model, sources, place)
        said["faults"] = {name: check_with(fault, variant, model, sources, place) for name, fault in FAULTS.items()}
        said["generation"] = generation(model, batches[0], place, tensors["gradients"])
    if variant.backend == "unsloth":
        tensors["stepped"] = step_and_save(model, batches[0], place, out / variant.name)
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, out / f"{variant.name}.safetensors")
    return said


def open_model(variant: Variant, folder: Path, adapter: Path) -> tuple[Any, Any, Any, Any]:
    """Configuration, place, model with the adapter and heads, and the sample data's training split."""
    import torch
    from safetensors.torch import load_file

    from warmline.data.encoding import encode_split
    from warmline.data.template import ChatTemplate
    from warmline.model.base import load_tokenizer
    from warmline.model.device import Place
    from warmline.model.heads import Heads, head_specs
    from warmline.model.multitask import MultiTaskModel
    from warmline.model.transformers_backbone import TransformersBackbone
    from warmline.model.unsloth_backbone import UnslothBackbone

    config = run_config(folder, variant)
    on_cpu = variant.device == "cpu"
    place = Place(torch.device(variant.device), torch.float32 if on_cpu else torch.bfloat16, "no" if on_cpu else "bf16")
    kind: Any = UnslothBackbone if variant.backend == "unsloth" else TransformersBackbone
    backbone = kind(config.model, config.lora, place.device, place.dtype, tuned=adapter, checkpointing=variant.checkpointing)
    heads = Heads(backbone.hidden_size, head_specs(config))
    heads.load_state_dict(load_file(folder / "heads.safetensors"))
    model = MultiTaskModel(backbone, heads.to(place.device))
    return config, place, model, encode_split("train", config.data, ChatTemplate(load_tokenizer(config.model)))


def first_batches(config: Any, sources: Any, number: int, place: Any) -> list[Any]:
    """The run's first micro-batches, of two rows each."""
    from warmline.data.packing import collate
    from warmline.training.plan import make_packer

    packer = make_packer(config, sources)
    return [collate(sources, [packer.row(), packer.row()]).to(place.device) for _ in range(number)]


def first_logits(folder: Path, name: str, adapter: Path) -> Any:
    """Head logits of the first batch with an adapter, flat."""
    import torch

    variant = next(variant for variants in TASKS.values() for variant in variants if variant.name == name)
    config, place, model, sources = open_model(variant, folder, adapter)
    with torch.no_grad():
        _, logits = forward(model.eval(), first_batches(config, sources, 1, place)[0], place)
    return torch.cat([logits["emotion"].flatten(), logits["strategy"].flatten()]).double()


def forward(model: Any, batch: Any, place: Any) -> Any:
    with place.autocast():
        with model.backbone.reference():
            base = model.states(batch)[batch.safety_positions].clone()
        return model.terms(model.states(batch), batch, base)


def gradient(model: Any, batch: Any, place: Any) -> Any:
    """Of the adapter, on the run's own weighted loss, as one flat vector in the order of the parameters' names."""
    import torch

    model.zero_grad(set_to_none=True)
    terms, _ = forward(model, batch, place)
    loss = sum(weight * term.sum / max(term.targets, 1) for weight, term in zip((1.0, 0.2, 0.2, 0.1), terms.values(), strict=True))
    loss.backward()
    tuned = sorted((name, parameter) for name, parameter in model.backbone.named_parameters() if "lora_" in name)
    flat = torch.cat([parameter.grad.float().flatten() for _, parameter in tuned])
    model.zero_grad(set_to_none=True)
    return flat


def check(model: Any, sources: Any, place: Any) -> list[str] | str:
    from warmline.errors import WarmlineError
    from warmline.training.selfcheck import self_check

    try:
        return self_check(model, sources, place)
    except WarmlineError as error:
        return str(error)


def check_with(fault: Callable[[Variant, Any], Callable[[], None]], variant: Variant, model: Any, sources: Any, place: Any) -> Any:
    mend = fault(variant, model)
    try:
        return check(model, sources, place)
    finally:
        mend()


def bidirectional(variant: Variant, model: Any) -> Callable[[], None]:
    """Attention looks ahead inside each conversation."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    def look_ahead(query: Any, key: Any, value: Any, bounds: list[int]) -> Any:
        """[heads, tokens, head size] each, to [tokens, heads, head size]."""
        parts = [
            scaled_dot_product_attention(*(each[None, :, start:end] for each in (query, key, value)), enable_gqa=True)[0]
            for start, end in zip(bounds[:-1], bounds[1:], strict=True)
        ]
        return torch.cat(parts, dim=1).transpose(0, 1).contiguous()

    if variant.backend == "unsloth":
        from unsloth.models import qwen3

        original = qwen3.run_attention

        def run_attention(*, context: Any, **named: Any) -> Any:
            return look_ahead(*(named[name][0] for name in "QKV"), context.seq_info[1].tolist())[None]

        qwen3.run_attention = run_attention
        return lambda: setattr(qwen3, "run_attention", original)
    from warmline.model.fast import attention, decoder

    kept = attention.attend_forward

    def attend_forward(query: Any, key: Any, value: Any, scope: attention.Scope) -> Any:
        return attention.Attended(look_ahead(*(each.transpose(0, 1) for each in (query, key, value)), scope.bounds.tolist()), ())

    attention.attend_forward = decoder.attend_forward = attend_forward
    return lambda: [setattr(module, "attend_forward", kept) for module in (attention, decoder)]  # type: ignore[func-returns-value]


def leak(_: Variant, model: Any) -> Callable[[], None]:
    """The whole row is one conversation to the attention; positions still restart."""
    hidden = model.backbone.hidden
    model.backbone.hidden = lambda tokens, positions, bounds, longest: hidden(tokens, positions, bounds[[0, -1]], len(tokens))
    return lambda: model.backbone.__dict__.pop("hidden")


def cut(_: Variant, model: Any) -> Callable[[], None]:
    """No gradient reaches the adapter."""
    hidden = model.backbone.hidden
    model.backbone.hidden = lambda *given: hidden(*given).detach()
    return lambda: model.backbone.__dict__.pop("hidden")


FAULTS = {"bidirectional": bidirectional, "leak": leak, "cut": cut}


def generation(model: Any, batch: Any, place: Any, before: Any) -> dict[str, Any]:
    """Greedy replies to prompts of three lengths in one batch: how far each first token is from the best by the packed states, and
    whether training goes on as before."""
    import torch

    from warmline.model.backbone import Sampling

    prompts = [batch.tokens[start : start + length].tolist() for start, length in zip(batch.bounds[:3].tolist(), (9, 17, 30), strict=True)]
    backbone = model.backbone
    result: dict[str, Any] = {}
    for name in ("tuned", "base"):
        with place.autocast(), torch.no_grad(), backbone.reference() if name == "base" else nullcontext():
            replies = backbone.generate(prompts, END_OF_TURN, Sampling(max_new_tokens=8, temperature=0))
            logits = [_last_logits(backbone, prompt) for prompt in prompts]
        first = [(*reply, END_OF_TURN)[0] for reply in replies]
        gaps = [float((each.max() - each[token]) / each.std()) for each, token in zip(logits, first, strict=True)]
        result[name] = {"first_token_gap_in_sd": max(gaps), "replies": replies}
    after = gradient(model, batch, place)
    before = before[: len(after)]
    result["gradient_gap"] = float((after - before).norm() / before.norm())  # FlashAttention's backward pass adds in any order
    result["training"] = bool(backbone.training)
    result["recomputes"] = any(getattr(module, "gradient_checkpointing", False) for module in backbone.modules())
    return result


def _last_logits(backbone: Any, prompt: list[int]) -> Any:
    import torch

    tokens = torch.tensor(prompt, device=backbone.device)
    bounds = torch.tensor([0, len(prompt)], dtype=torch.int32, device=backbone.device)
    states = backbone.hidden(tokens, torch.arange(len(prompt), device=backbone.device), bounds, len(prompt))
    return (states[-1] @ backbone.unembedding.T).float()


def step_and_save(model: Any, batch: Any, place: Any, folder: Path) -> Any:
    """One step of plain gradient descent, then the adapter is saved; the head logits that it gives come back."""
    import torch

    terms, _ = forward(model, batch, place)
    (terms["lm"].sum / terms["lm"].targets).backward()
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            if parameter.requires_grad:
                parameter.sub_(0.1 * parameter.grad)
        model.eval()
        _, logits = forward(model, batch, place)
    model.backbone.save(folder)
    return torch.cat([logits["emotion"].flatten(), logits["strategy"].flatten()])


def unpack_4bit(folder: Path) -> None:
    """`nf4/`: the model with each weight as bitsandbytes unpacks it."""
    import shutil

    import bitsandbytes as bnb
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    nf4 = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.bfloat16
    )
    packed = AutoModelForCausalLM.from_pretrained(folder / "model", quantization_config=nf4, dtype=torch.bfloat16, device_map={"": 0})
    plain = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.bfloat16)
    linear = dict(plain.named_modules())
    for name, module in packed.named_modules():
        if isinstance(module, bnb.nn.Linear4bit):
            weight = bnb.functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
            linear[name].weight.data.copy_(weight.cpu())
    plain.save_pretrained(folder / "nf4")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder / "model" / name, folder / "nf4" / name)


if __name__ == "__main__":
    main()
