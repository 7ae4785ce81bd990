"""How much memory a run will take, part by part, and which checkpointing that leaves room for.

Counted from the architecture, not fitted: what the fused layers (`model/fast/decoder.py`) hold at the peak, the backward pass of one
layer's attention, is listed in `values_a_token`. Against the peaks measured in docs/performance.md it is within 10 %
(`tests/training/test_memory.py`). Left out: what the attention kernel adds for each conversation, and the base's
states of the safety set.
"""

from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import PreTrainedConfig

from warmline.config import RunConfig
from warmline.errors import WarmlineError
from warmline.model.base import load_architecture, skeleton, unusual
from warmline.model.choose import Backend
from warmline.model.fast.decoder import Checkpointing
from warmline.model.heads import Heads, head_specs
from warmline.model.losses import CHUNK_LOGITS
from warmline.settings import SEVEN_PROJECTIONS

NF4_BYTES = 0.516
"""Bytes a weight in NF4 with double quantisation: 4 bits, an 8-bit scale for each 64, a 32-bit one for each 256 of these."""

BY_SPEED: tuple[Checkpointing, ...] = ("none", "selective", "offload")
"""Fastest first, as measured (docs/performance.md); `full` is slower than `offload` and takes more, and is for hosts short of memory."""

HEADROOM = 0.92
"""Share of the free memory that `auto` plans with: allocators keep some."""


class Architecture(NamedTuple):
    """The sizes that memory depends on.

    Attributes:
        layers: Number of decoder layers.
        hidden: Width of the state between layers.
        intermediate: Width inside the MLP.
        queries: Query heads times head size.
        keys: Key heads times head size.
        normed_outputs: Whether a norm follows attention and MLP, whose product the backward pass then needs.
        vocabulary: Number of tokens.
        in_layers: Parameters inside the layers.
        parameters: All parameters.
        adapted: (in, out) of each linear layer inside the layers, by name.
    """

    layers: int
    hidden: int
    intermediate: int
    queries: int
    keys: int
    normed_outputs: bool
    vocabulary: int
    in_layers: int
    parameters: int
    adapted: tuple[tuple[str, int, int], ...]


def read_architecture(config: PreTrainedConfig) -> Architecture:
    """Sizes of a model, from its configuration alone.

    Raises:
        WarmlineError: its layers are not attention with separate projections and an MLP.
    """
    network = skeleton(config)
    layers = getattr(network.get_decoder(), "layers", None)
    if not isinstance(layers, nn.ModuleList) or not all(map(_has_usual_attention, layers)):
        raise unusual(config, "has layers without attention, or projects queries, keys and values in another way")
    if not isinstance(getattr(config, "intermediate_size", None), int):
        raise unusual(config, "has no intermediate_size")
    attention: Any = layers[0].self_attn
    return Architecture(
        layers=len(layers),
        hidden=int(config.hidden_size),
        intermediate=int(config.intermediate_size),
        queries=attention.q_proj.out_features,
        keys=attention.k_proj.out_features,
        normed_outputs=hasattr(layers[0], "pre_feedforward_layernorm"),
        vocabulary=int(config.vocab_size),
        in_layers=sum(parameter.numel() for parameter in layers.parameters()),
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        adapted=tuple(
            (name.rpartition(".")[2], module.in_features, module.out_features)
            for name, module in layers.named_modules()
            if isinstance(module, nn.Linear)
        ),
    )


def _has_usual_attention(layer: nn.Module) -> bool:
    attention = getattr(layer, "self_attn", None)
    return all(isinstance(getattr(attention, name, None), nn.Linear) for name in ("q_proj", "k_proj", "v_proj"))


def trainable_parameters(config: RunConfig, sizes: Architecture) -> int:
    """Parameters of adapter (or model) and heads."""
    with torch.device("meta"):
        heads = Heads(sizes.hidden, head_specs(config))
    own = sum(parameter.numel() for parameter in heads.parameters())
    if config.lora is None:
        return own + sizes.parameters
    targets = config.lora.target_modules
    return own + sum(config.lora.r * (inside + outside) for name, inside, outside in sizes.adapted if name in targets)


class LayerValues(NamedTuple):
    """Values a token that one layer holds.

    Attributes:
        states: Its input, the attention's output and the state between attention and MLP: what `selective` and `offload` keep.
        remade: What its backward pass needs besides: two norms, the joint projection, queries and keys after norm and rotation, gate, up
            and their product, and the two products that Gemma norms.
        reduced: The inputs' products with every adapter's A, kept in every mode.
        gradients: Made by the backward pass on top of that, where it is largest.
    """

    states: int
    remade: int
    reduced: int
    gradients: int


def values_a_token(config: RunConfig, sizes: Architecture) -> LayerValues:
    """What one layer holds, counted along its backward pass."""
    hidden, inside, queries, keys = sizes.hidden, sizes.intermediate, sizes.queries, sizes.keys
    projected = queries + 2 * keys
    # of the layer's output, its middle, the norm between them, the attention's output and its inputs; the kernel adds gradients of the
    # queries in fp32, and of keys and values for each query head
    in_attention = 3 * hidden + queries + projected + 4 * queries
    return LayerValues(
        states=2 * hidden + queries,
        remade=(4 if sizes.normed_outputs else 2) * hidden + projected + (queries + keys) + 3 * inside,
        reduced=len(SEVEN_PROJECTIONS) * (config.lora.r if config.lora else 0),
        gradients=max(in_attention, hidden + inside),
    )


def estimate_memory(
    config: RunConfig, sizes: Architecture, half_precision: bool, checkpointing: Checkpointing, shards: int = 1
) -> dict[str, float]:
    """Estimated peak of one GPU in GiB, by part.

    Args:
        config: Of the run.
        sizes: Of the base model.
        half_precision: Whether base weights take 2 bytes or 4.
        checkpointing: What the layers keep.
        shards: GPUs that each hold a part of every layer; two layers at a time are whole.
    """
    width = 2 if half_precision else 4
    tokens = config.pass_tokens
    trainable = trainable_parameters(config, sizes)
    in_4bit = config.model.load_in_4bit
    in_layers = sizes.in_layers if shards == 1 else sizes.in_layers / shards + 2 * sizes.in_layers / sizes.layers
    base = in_layers * (NF4_BYTES if in_4bit else width) + (sizes.parameters - sizes.in_layers) * width
    if config.lora is None:
        base += sizes.parameters * width  # the frozen copy
    moments = 2 if config.training.optimizer == "adamw_8bit" else 8
    layer = values_a_token(config, sizes)
    kept = {
        "none": sizes.layers * (layer.states + layer.remade),
        "selective": sizes.layers * layer.states,
        "full": sizes.layers * sizes.hidden,
        "offload": 2 * layer.states,  # those at work and those on their way
    }[checkpointing]
    remade = {"none": 0, "selective": layer.remade, "full": layer.remade + layer.states - sizes.hidden, "offload": layer.remade}
    backward = tokens * (remade[checkpointing] + layer.gradients) * width
    if in_4bit:
        backward += (2 * sizes.intermediate + 2 * sizes.queries + 2 * sizes.keys) * sizes.hidden * width  # all but the last, unpacked
    logits = min(CHUNK_LOGITS, tokens * sizes.vocabulary) * 4 * 4  # the KL: both distributions, a product and a temporary, in fp32
    parts = {
        "base weights": base,
        "trained weights, gradients, optimiser": trainable * (4 + 4 + moments + width) / shards,
        "layers' states": tokens * (kept + sizes.layers * layer.reduced) * width,
        "at work in one layer or the logits": max(backward, logits),
    }
    return {name: size / 2**30 for name, size in parts.items()}


def what_would_fit(config: RunConfig, half_precision: bool, device: torch.device, total_gib: float | None = None) -> str:
    """After an out-of-memory error: the first smaller setting whose estimate fits the card, as a line for people.

    Args:
        config: Of the run that did not fit.
        half_precision: Whether base weights take 2 bytes or 4.
        device: Where it happened.
        total_gib: Memory of the card; None asks the device.
    """
    if total_gib is None:
        total_gib = _allowed_gib(device)
    sizes = read_architecture(load_architecture(config.model))
    rows, tokens = config.training.rows_per_micro_batch, config.data.row_tokens
    smaller = [(number, tokens) for number in range(rows, 0, -1)] + [(1, tokens // part) for part in (2, 4)]
    for number, length in smaller:
        training = config.training.model_copy(update={"rows_per_micro_batch": number})
        tried = config.model_copy(update={"training": training, "data": config.data.model_copy(update={"row_tokens": length})})
        for way in BY_SPEED:
            # the setting that failed is not offered again, whatever its estimate says
            if (number, length) == (rows, tokens) and way in (config.model.checkpointing, "none"):
                continue
            if sum(estimate_memory(tried, sizes, half_precision, way).values()) <= HEADROOM * total_gib:
                return (
                    f"by the plan's estimate this fits {total_gib:.1f} GiB: training.rows_per_micro_batch={number} "
                    f"data.row_tokens={length} model.checkpointing={way} (raise training.accumulation to keep the step)"
                )
    return "no setting of this model fits the card; use model.load_in_4bit: true or a smaller model"


def plain_fits(config: RunConfig, half_precision: bool, device: torch.device, free_gib: float | None = None) -> bool:
    """Whether transformers without fused layers fits the free memory, with every layer recomputed: the smallest way it has.

    Args:
        config: Of the run.
        half_precision: Whether base weights take 2 bytes or 4.
        device: Where the run happens.
        free_gib: Free memory; None asks the device.
    """
    if free_gib is None:
        free_gib = torch.cuda.mem_get_info(device)[0] / 2**30
    sizes = read_architecture(load_architecture(config.model))
    return sum(estimate_memory(config, sizes, half_precision, "full").values()) <= HEADROOM * free_gib


def choose_sharding(config: RunConfig, half_precision: bool, device: torch.device, ranks: int) -> bool:
    """What `training.sharding` comes to.

    Args:
        config: Of the run.
        half_precision: Whether base weights take 2 bytes or 4.
        device: Where the run happens.
        ranks: Processes that train together.

    Raises:
        WarmlineError: it is asked for and cannot be done.
    """
    obstacle = (
        "needs several processes; start with `accelerate launch --num_processes N -m warmline train CONFIG`"
        if ranks == 1
        else "cannot cut 4-bit weights; set model.load_in_4bit: false"
        if config.model.load_in_4bit
        else "trains adapters; give a lora section"
        if config.lora is None
        else "cannot be updated by 8-bit AdamW; set training.optimizer: adamw"
        if config.training.optimizer != "adamw"
        else None
    )
    if config.training.sharding == "always":
        if obstacle is not None:
            raise WarmlineError(f"training.sharding: always {obstacle}")
        return True
    if config.training.sharding == "never" or obstacle is not None or device.type != "cuda":
        return False
    sizes = read_architecture(load_architecture(config.model))
    free_gib = min(torch.cuda.mem_get_info(device)[0] / 2**30, _allowed_gib(device))
    return min(sum(estimate_memory(config, sizes, half_precision, way).values()) for way in BY_SPEED) > HEADROOM * free_gib


def choose_checkpointing(
    config: RunConfig,
    half_precision: bool,
    device: torch.device,
    free_gib: float | None = None,
    backend: Backend = "transformers",
) -> Checkpointing:
    """What `model.checkpointing: auto` comes to: the fastest whose estimate fits the free memory; nothing is recomputed on a CPU.

    Args:
        config: Of the run; another value than `auto` is returned as it is.
        half_precision: Whether base weights take 2 bytes or 4.
        device: Where the run happens.
        free_gib: Free memory; None asks the device.
        backend: Unsloth keeps everything (none) or layers' inputs in the host's memory (offload); auto is the latter.

    Raises:
        WarmlineError: not even the smallest fits, with what would.
    """
    if backend == "unsloth":
        return "none" if config.model.checkpointing == "none" else "offload"
    if config.model.checkpointing != "auto":
        return config.model.checkpointing
    if free_gib is None:
        if device.type != "cuda":
            return "none"
        free_gib = min(torch.cuda.mem_get_info(device)[0] / 2**30, _allowed_gib(device))
    sizes = read_architecture(load_architecture(config.model))
    estimates = {way: sum(estimate_memory(config, sizes, half_precision, way).values()) for way in BY_SPEED}
    fitting = [way for way in BY_SPEED if estimates[way] <= HEADROOM * free_gib]
    if not fitting:
        raise WarmlineError(
            f"model.checkpointing: even `offload` needs about {estimates['offload']:.1f} GiB and {free_gib:.1f} GiB are free; "
            "lower training.rows_per_micro_batch or data.row_tokens, or set model.load_in_4bit: true"
        )
    return fitting[0]


def _allowed_gib(device: torch.device) -> float:
    """The card's memory, or the share of it that `torch.cuda.set_per_process_memory_fraction` leaves to this process."""
    index = torch.cuda.current_device() if device.index is None else device.index
    return torch.cuda.get_per_process_memory_fraction(index) * torch.cuda.get_device_properties(index).total_memory / 2**30
