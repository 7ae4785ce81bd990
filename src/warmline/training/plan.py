"""A run's arithmetic before it starts: the mixture, the steps, the memory, and what will be written."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from warmline.config import RunConfig
from warmline.data.conversation import OBJECTIVES, Objective
from warmline.data.encoding import EncodedSource, encode_split
from warmline.data.mixture import MixtureSampler
from warmline.data.packing import RowPacker, count_targets
from warmline.data.template import ChatTemplate
from warmline.model.heads import Heads
from warmline.model.losses import CHUNK_LOGITS
from warmline.model.transformers_backbone import load_architecture, load_tokenizer
from warmline.training.device import choose_place

NF4_BYTES = 0.516
"""Bytes a weight in NF4 with double quantisation: 4 bits, an 8-bit scale for each 64, a 32-bit one for each 256 of these."""


@dataclass(frozen=True)
class Plan:
    """What will happen, counted rather than guessed: the draws and rows are those of the run itself.

    Attributes:
        sources: Names, in the mixture's order.
        conversations: Training conversations of each source.
        split_conversations: Of these, how many were longer than a row and were split between turns.
        probabilities: p_i = n_i^alpha / sum n_j^alpha.
        draws: Conversations that will be seen, repeats included.
        steps: Optimiser steps.
        rows_per_step: Packed rows in one optimiser step, over all ranks.
        row_tokens: Capacity of a row.
        tokens: Real tokens that will be seen.
        fill: Share of the rows' capacity that is real tokens.
        realised: Share of each source among the draws.
        targets: Targets of each objective over the run.
        parameters: Of the base model.
        trainable: Of adapter (or model) and heads.
        memory_gib: Estimated peak, by part.
    """

    sources: list[str]
    conversations: list[int]
    split_conversations: list[int]
    probabilities: list[float]
    draws: int
    steps: int
    rows_per_step: int
    row_tokens: int
    tokens: int
    fill: float
    realised: list[float]
    targets: dict[Objective, int]
    parameters: int
    trainable: int
    memory_gib: dict[str, float]

    def as_json(self) -> dict[str, Any]:
        """Plain data, for `plan.json`."""
        return asdict(self)


def make_packer(config: RunConfig, sources: list[EncodedSource]) -> RowPacker:
    """The run's stream of rows, from its beginning."""
    sampler = MixtureSampler([len(source) for source in sources], config.data.alpha, config.seed)
    return RowPacker(sources, sampler, config.data.row_tokens, config.data.lookahead)


def make_plan(config: RunConfig, sources: list[EncodedSource], ranks: int, half_precision: bool) -> Plan:
    """Count the run by drawing and packing it once without a model.

    Args:
        config: Of the run.
        sources: Encoded training data.
        ranks: Processes that train together.
        half_precision: Whether base weights take 2 bytes or 4.
    """
    rows_per_step = config.training.rows_per_micro_batch * config.training.accumulation * ranks
    wanted = round(config.training.epochs * sum(len(source) for source in sources))
    limit = config.training.max_steps or 10**9
    packer = make_packer(config, sources)
    counts = [source.target_counts() for source in sources]
    targets: dict[Objective, int] = dict.fromkeys(OBJECTIVES, 0)
    drawn = [0] * len(sources)
    steps = tokens = 0
    while steps < limit and sum(drawn) < wanted:
        rows = [packer.row() for _ in range(rows_per_step)]
        steps += 1
        for name, number in count_targets(counts, rows).items():
            targets[name] += number
        for draw in (draw for row in rows for draw in row):
            drawn[draw.source] += 1
            tokens += int(sources[draw.source].lengths[draw.conversation])
    parameters, trainable, memory = _model_arithmetic(config, half_precision)
    return Plan(
        sources=[source.name for source in sources],
        conversations=[len(source) for source in sources],
        split_conversations=[source.split_conversations for source in sources],
        probabilities=MixtureSampler([len(source) for source in sources], config.data.alpha, 0).probabilities.tolist(),
        draws=sum(drawn),
        steps=steps,
        rows_per_step=rows_per_step,
        row_tokens=config.data.row_tokens,
        tokens=tokens,
        fill=tokens / (steps * rows_per_step * config.data.row_tokens),
        realised=[number / sum(drawn) for number in drawn],
        targets=targets,
        parameters=parameters,
        trainable=trainable,
        memory_gib=memory,
    )


def plan_run(config: RunConfig, ranks: int = 1) -> Plan:
    """The plan of a configuration on this machine.

    Args:
        config: Of the run.
        ranks: Processes that will train together.

    Raises:
        WarmlineError: the base model's tokenizer or configuration cannot be found, bad or missing data.
    """
    template = ChatTemplate(load_tokenizer(config.model), config.model.template, config.data.system_prompt)
    half = config.model.load_in_4bit or choose_place(config.training).dtype != torch.float32
    return make_plan(config, encode_split("train", config.data, template), ranks, half)


def _model_arithmetic(config: RunConfig, half_precision: bool) -> tuple[int, int, dict[str, float]]:
    """Parameters, trainable parameters, and an estimate of the peak memory by part, in GiB."""
    architecture = load_architecture(config.model)
    if getattr(architecture, "quantization_config", None) is not None:
        del architecture.quantization_config
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(architecture)
    parameters = sum(parameter.numel() for parameter in skeleton.parameters())
    hidden, layers = int(architecture.hidden_size), int(architecture.num_hidden_layers)
    in_layers = sum(parameter.numel() for parameter in skeleton.get_decoder().layers.parameters())
    width = 2 if half_precision else 4
    per_layer_weight = NF4_BYTES if config.model.load_in_4bit else width
    with torch.device("meta"):
        heads = sum(each.numel() for each in Heads(hidden, config.data.sources.goemotions.labels, config.heads).parameters())
    if config.lora is None:
        trainable, base = parameters + heads, 2 * parameters * width
    else:
        adapted = [
            module for name, module in skeleton.named_modules()
            if isinstance(module, torch.nn.Linear) and name.rpartition(".")[2] in config.lora.target_modules
        ]  # fmt: skip
        trainable = sum(config.lora.r * (module.in_features + module.out_features) for module in adapted) + heads
        base = in_layers * per_layer_weight + (parameters - in_layers) * width
    moments = 2 if config.training.optimizer == "adamw_8bit" else 8
    tokens = config.training.rows_per_micro_batch * config.data.row_tokens
    intermediate = int(architecture.intermediate_size)
    saved_per_layer = 16 * hidden + 6 * intermediate  # values a token that one layer keeps for its backward pass, roughly
    kept = {
        "none": layers * saved_per_layer,
        "selective": 2 * layers * hidden + saved_per_layer,
        "full": layers * hidden + saved_per_layer,
        "offload": saved_per_layer,
    }[config.model.checkpointing]
    chunk = min(CHUNK_LOGITS, tokens * int(architecture.vocab_size))
    parts = {
        "base weights": base,
        "trained weights, gradients, optimiser": trainable * (4 + 4 + moments),
        "activations": tokens * kept * width,
        "logit chunks": chunk * (4 + 4 + width),
    }
    return parameters, trainable, {name: size / 2**30 for name, size in parts.items()}
