"""What every section of a configuration is made of; the sections themselves stand beside what they configure, the whole in `config.py`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from warmline.paths import expand_home, expand_home_in_name, refuse_no_path

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
TemplateName = Literal["qwen3", "chatml", "gemma"]
"""Our chat templates: files in `data/templates/`."""
Folder = Annotated[Path, BeforeValidator(refuse_no_path), AfterValidator(expand_home)]


class Section(BaseModel):
    """Settings that stand together: unknown keys are refused, and nothing changes after it was read."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


SEVEN_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class ModelConfig(Section):
    """The base model."""

    name: Annotated[str, BeforeValidator(refuse_no_path), AfterValidator(expand_home_in_name)] = Field(
        description="Hub id or folder of the base model, `~` is home; `nano` is the small base inside this package."
    )
    revision: str | None = Field(None, description="Hub commit, branch or tag; null takes the hub's default branch.")
    load_in_4bit: bool = Field(False, description="The base in 4 bits: NF4, double-quantised (needs bitsandbytes).")
    random_init_seed: int | None = Field(
        None,
        description="Build the architecture with random weights from this seed instead of loading weights: tests, demos, speed.",
    )
    checkpointing: Literal["auto", "none", "selective", "full", "offload"] = Field(
        "auto",
        description="What each layer keeps for its backward pass; the rest is computed again. none: everything. selective: its input, "
        "attention's output and the state between attention and MLP. offload: the same three, in the host's memory. full: its input "
        "alone; slower than offload, for hosts short of memory. auto: the fastest of none, selective and offload that fits the card's "
        "free memory by the plan's estimate; none on a CPU. Without fused kernels selective and offload are full.",
    )
    backend: Literal["auto", "unsloth", "transformers"] = Field(
        "auto",
        description="Library that runs the model while training; the saved adapter is the same. auto: transformers, fused where it can "
        "be; Unsloth where it cannot be fused, the base is in 4-bit and plain transformers would not fit the card (docs/design.md). "
        "unsloth: Llama, Mistral, Qwen2 and Qwen3 on CUDA, with adapters; needs `pip install 'warmline[unsloth]'`.",
    )
    fused: bool = Field(True, description="On CUDA, run Qwen3 or Gemma 3 with adapters in all seven projections through fused kernels.")
    template: Literal["auto", TemplateName] = Field(
        "auto", description="Our prefix-stable chat template; auto picks it by the tokenizer's special tokens."
    )


class LoraSettings(Section):
    """Low-rank adapters."""

    r: Count = Field(16, description="Rank: higher learns more, costs memory in proportion.")
    alpha: Positive = Field(16, description="Scale; the update is multiplied by alpha / r.")
    dropout: Share = Field(0.0, description="Dropout on the adapter's input; 0 is fastest and keeps runs reproducible.")
    target_modules: tuple[str, ...] = Field(
        SEVEN_PROJECTIONS,
        min_length=1,
        description="Linear layers inside the decoder's layers that get an adapter, each by the last part of its name; one that the base "
        "lacks is refused.",
    )
    rank_stabilised: bool = Field(False, description="Scale by alpha / sqrt(r) instead (rsLoRA).")


class TrainingConfig(Section):
    """The optimisation."""

    epochs: Positive = Field(
        2.0, description="Draws = epochs x conversations over all sources; each source is passed so often only with data.alpha 1."
    )
    max_steps: Count | None = Field(None, description="Stop after so many optimiser steps, whatever epochs says.")
    rows_per_micro_batch: Count = Field(2, description="Packed rows in one forward pass on one device.")
    accumulation: Count = Field(4, description="Micro-batches a device adds up before one optimiser step.")
    learning_rate: Positive = Field(2e-4, description="Peak rate of the adapter (or of the whole model without LoRA).")
    head_learning_rate: Positive = Field(1e-3, description="Peak rate of the heads, which start from nothing.")
    warmup: Share = Field(0.03, description="Share of the steps over which the rate rises from 0.")
    final_rate: Share = Field(0.0, description="Share of the peak rate at which the cosine ends.")
    weight_decay: NonNegative = Field(0.01, description="AdamW's decoupled weight decay, on matrices only.")
    max_grad_norm: Positive = Field(1.0, description="Gradients are scaled down to this global norm.")
    mask_above: Annotated[float, Field(gt=1)] | None = Field(
        None, description="Perplexity of a reply token, by the base, above which it is not learned (arXiv 2501.14315); null learns all."
    )
    optimizer: Literal["adamw", "adamw_8bit"] = Field("adamw", description="adamw_8bit (bitsandbytes) quarters the state's memory.")
    precision: Literal["auto", "bf16", "fp16", "fp32"] = Field(
        "auto", description="auto: bf16 where the GPU has it, else fp16; fp32 on CPU."
    )
    sharding: Literal["auto", "never", "always"] = Field(
        "auto",
        description="FSDP2: each GPU holds a part of every layer. auto: with several GPUs, a 16-bit base and adamw, when the model does "
        "not fit one of them. Without it every GPU holds the whole base (DDP), which is faster.",
    )
    early_stop: Count | None = Field(
        None, description="Stop when so many validations in a row brought no lower validation.metric; null never stops."
    )


class ValidationConfig(Section):
    """The fixed validation sets."""

    every: Count = Field(100, description="Optimiser steps between validations; one more at the start and at the end.")
    conversations: Count = Field(200, description="Conversations of each source's validation split, chosen once by the seed.")
    replies: Annotated[int, Field(ge=0)] = Field(
        0, description="Turns of validation dialogues that each validation answers, beside forms; 0 answers none."
    )
    metric: str = Field(
        "total",
        description="Objective whose lowest validation loss makes a checkpoint the best; total is the weighted sum of all, flawed the "
        "share of `replies` and forms that rules find fault with.",
    )
    artifact: Literal["best", "last"] = Field(
        "best", description="Whose weights the run leaves behind: the best validation's, or the last step's."
    )


class CheckpointConfig(Section):
    """What survives a crash."""

    every: Count = Field(100, description="Optimiser steps between checkpoints.")
    keep: Count = Field(2, description="Newest checkpoints kept, beside the best one.")
