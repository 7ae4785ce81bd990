"""The adapter merged into 16-bit weights, and how far the merged model's logits are from the adapter's."""

from itertools import accumulate, chain
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from peft import PeftModel
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from warmline.data.template import ChatTemplate, Message
from warmline.errors import WarmlineError
from warmline.model.artifacts import weaken
from warmline.model.backbone import Backbone, Sampling
from warmline.model.base import load_architecture
from warmline.model.generation import generation_settings
from warmline.model.transformers_backbone import TransformersBackbone
from warmline.settings import LoraSettings, ModelConfig

DType = Literal["bfloat16", "float16", "float32"]
DTYPES: dict[DType, torch.dtype] = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
PROBES = (
    "My sister got engaged and I can't stop smiling!",
    "I failed the exam again. I don't know how to tell my parents.",
    "He promised to call and he didn't. I feel stupid for waiting.",
    "We buried grandpa on Tuesday, and the house is so quiet now.",
)
"""Prompts on which merged and unmerged logits are compared."""
_ROUNDINGS, _ROUNDINGS_OF_SUMS = 2, 16
_LONGEST = 1024


def known_dtype(name: str) -> DType:
    """The name of a precision that weights can be merged in.

    Raises:
        WarmlineError: another one.
    """
    for known in DTYPES:
        if known == name:
            return known
    raise WarmlineError(f"--dtype {name}: expected one of {', '.join(DTYPES)}")


class Check(NamedTuple):
    """Merged logits beside the adapter's, over every position of the probes.

    Attributes:
        tokens: Positions compared.
        largest_difference: Of one logit.
        relative_difference: Norm of the difference over the norm of the adapter's logits, each position's mean taken off.
        allowed: What rounding in the dtype explains: 2 eps for one layer (16 in fp32, where sums are rounded too), growing with the square
            root of layers, as independent errors do. Gemma 3 270M has 0.6 and 2.4.
        same_first_choice: Share of positions with the same likeliest token.
        tuning_moved: The same relative difference between base and adapter, for scale.
    """

    tokens: int
    largest_difference: float
    relative_difference: float
    allowed: float
    same_first_choice: float
    tuning_moved: float


class Merged(NamedTuple):
    """A model without adapter, and its check."""

    model: PreTrainedModel
    check: Check


def merge(
    config: ModelConfig, lora: LoraSettings | None, weights: Path, dtype: torch.dtype, template: ChatTemplate, strength: float = 1.0
) -> Merged:
    """Load the base unquantised on the CPU, merge the adapter into it, and compare.

    Args:
        config: The base; random weights are built in fp32 and rounded with the adapter in them.
        lora: The run's; None for a run that trained every weight, whose weights are only rounded.
        weights: `adapter/` or `model/`.
        dtype: Of the result.
        template: Renders the probes.
        strength: Of the adapter.

    Raises:
        WarmlineError: the base cannot be loaded or holds 4-bit weights, or the merged logits are too far away.
    """
    if getattr(load_architecture(config), "quantization_config", None) is not None:
        raise WarmlineError(
            f"model.name: `{config.name}` holds quantised weights, into which nothing can be merged; "
            "name the 16-bit model that they were made from, as in --base Qwen/Qwen3-8B"
        )
    exact = config.random_init_seed is not None or lora is None
    unquantised = config.model_copy(update={"load_in_4bit": False, "fused": False})
    cpu = torch.device("cpu")
    backbone = TransformersBackbone(unquantised, lora, cpu, torch.float32 if exact else dtype, tuned=weights, trainable=False)
    weaken(backbone, strength)
    prompts = [template.prompt_ids([Message(role="user", content=text)]) for text in PROBES]
    with backbone.reference():
        base_logits = _own_logits(backbone, prompts, backbone.base_unembedding)
    tuned_logits = _own_logits(backbone, prompts, backbone.unembedding)
    tuned = backbone.model
    model: PreTrainedModel = tuned.merge_and_unload(safe_merge=True) if isinstance(tuned, PeftModel) else tuned
    model = model.to(dtype)
    check = compare(_plain_logits(model, prompts), tuned_logits, base_logits, dtype, int(model.config.num_hidden_layers))
    if not check.relative_difference <= check.allowed:
        raise WarmlineError(
            f"the merged logits are {check.relative_difference:.2e} from the adapter's, rounding explains {check.allowed:.2e}; "
            "nothing was written, try --dtype bfloat16 or float32"
        )
    if strength != 0 and check.relative_difference > check.tuning_moved / 2:
        raise WarmlineError(
            f"the merged logits are {check.relative_difference:.2e} from the adapter's, and the base's no more than "
            f"{check.tuning_moved:.2e}: the tuning would be lost; nothing was written, try --dtype float32"
        )
    model.generation_config = generation_config(template)
    return Merged(model, check)


def generation_config(template: ChatTemplate) -> GenerationConfig:
    """How warmline draws replies, for tools that read `generation_config.json`; the length is high, since vLLM takes it for a limit.

    Args:
        template: Knows what ends a reply.
    """
    return GenerationConfig(**generation_settings(Sampling(max_new_tokens=_LONGEST), template.layout.end_of_turn))


def compare(merged: Tensor, tuned: Tensor, base: Tensor, dtype: torch.dtype, layers: int) -> Check:
    """How far merged logits are from the adapter's.

    Args:
        merged: [tokens, vocabulary], fp32, of the merged model.
        tuned: The same of base and adapter.
        base: The same of the base.
        dtype: Of the merged weights.
        layers: Of the model.
    """
    return Check(
        tokens=len(tuned),
        largest_difference=float((merged - tuned).abs().max()),
        relative_difference=_distance(merged, tuned),
        allowed=(_ROUNDINGS_OF_SUMS if dtype == torch.float32 else _ROUNDINGS) * torch.finfo(dtype).eps * layers**0.5,
        same_first_choice=float((merged.argmax(dim=1) == tuned.argmax(dim=1)).float().mean()),
        tuning_moved=_distance(base, tuned),
    )


def _distance(one: Tensor, other: Tensor) -> float:
    centred = other - other.mean(dim=1, keepdim=True)
    return float((one - one.mean(dim=1, keepdim=True) - centred).norm() / centred.norm())


@torch.no_grad()
def _own_logits(backbone: Backbone, prompts: list[list[int]], unembedding: Tensor) -> Tensor:
    """[tokens of all prompts, vocabulary], fp32, from the states that the losses were made of."""
    lengths = [len(prompt) for prompt in prompts]
    positions = torch.cat([torch.arange(length) for length in lengths])
    bounds = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)
    states = backbone.hidden(torch.tensor(list(chain.from_iterable(prompts))), positions, bounds, max(lengths))
    return (states @ unembedding.T).float()


@torch.no_grad()
def _plain_logits(model: PreTrainedModel, prompts: list[list[int]]) -> Tensor:
    """The same as plain transformers computes it."""
    model.set_attn_implementation("sdpa")  # the run's own attention wants packed rows
    return torch.cat([model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float() for ids in prompts])
