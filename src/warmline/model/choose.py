"""Which library runs the base model: plain transformers + PEFT, or Unsloth.

Unsloth patches classes for the whole process and wants to be imported before transformers; so nothing here imports either at the top, and
the command line can call `import_unsloth` as soon as it has read the configuration.
"""

import os
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import platformdirs
import torch

from warmline.config import RunConfig
from warmline.errors import WarmlineError
from warmline.model.fast.kernels import Activation
from warmline.settings import SEVEN_PROJECTIONS

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

Backend = Literal["transformers", "unsloth"]

UNSLOTH_FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
"""Architectures whose packed rows Unsloth's own layers keep apart (they read `packed_seq_lengths`); it sends others through code that does
not."""


FUSED_FAMILIES = ("gemma3_text", "llama", "mistral", "qwen2", "qwen3")
"""Architectures that the fused layers (`model/fast`) are written for."""

GATES: dict[str, Activation] = {"silu": "silu", "gelu_pytorch_tanh": "gelu_tanh"}
"""The activations that the fused layers have a kernel for, by transformers' names."""


class Choice(NamedTuple):
    """A backend, and why in a few words."""

    backend: Backend
    reason: str


def choose_backend(
    config: RunConfig, architecture: "PreTrainedConfig", device: torch.device, dtype: torch.dtype, fits: Callable[[], bool]
) -> Choice:
    """What `model.backend` comes to on this machine.

    `auto` rests on measurements of packed conversations with Qwen3-8B in 4-bit (docs/performance.md): the fused path is faster and no
    larger than Unsloth; plain transformers is faster than Unsloth and larger. So Unsloth is taken where the fused path does not apply and
    plain transformers would not fit.

    Args:
        config: Of the run.
        architecture: Of the base model.
        device: Where it will run.
        dtype: Of the base weights.
        fits: Whether plain transformers fits the card, by the plan's estimate; asked only when it matters.

    Raises:
        WarmlineError: Unsloth is asked for where it cannot run; names what is missing and how to mend it.
    """
    obstacle = unsloth_obstacle(config, architecture, device, dtype)
    if config.model.backend == "unsloth":
        if obstacle is not None:
            raise WarmlineError(f"model.backend: unsloth {obstacle}, or set model.backend: transformers")
        return Choice("unsloth", "asked for in model.backend")
    if config.model.backend == "transformers":
        return Choice("transformers", "asked for in model.backend")
    if will_fuse(config, architecture, device):
        beside = "measured faster than Unsloth and no larger" if obstacle is None else f"Unsloth {obstacle.partition(';')[0]}"
        return Choice("transformers", f"the fused layers apply; {beside}")
    if obstacle is not None:
        return Choice("transformers", f"Unsloth {obstacle.partition(';')[0]}")
    if config.model.load_in_4bit and not fits():
        return Choice("unsloth", "plain transformers does not fit this card by the plan's estimate; Unsloth measured smaller")
    return Choice("transformers", "packed conversations measured faster than through Unsloth, and it fits")


def will_fuse(config: RunConfig, architecture: "PreTrainedConfig", device: torch.device) -> bool:
    """What `fast.decoder.can_fuse` will say once the model is built, from its configuration alone."""
    lora = config.lora
    return (
        config.model.fused
        and device.type == "cuda"
        and has_fused_layers(architecture)
        and lora is not None
        and lora.dropout == 0
        and set(SEVEN_PROJECTIONS) <= set(lora.target_modules)
    )


def has_fused_layers(architecture: "PreTrainedConfig | None") -> bool:
    """Whether the fused decoder is written for this architecture."""
    if architecture is None or architecture.model_type not in FUSED_FAMILIES:
        return False
    return not getattr(architecture, "attn_logit_softcapping", None) and gate_activation(architecture) in GATES


def attention_kinds(architecture: "PreTrainedConfig") -> list[str]:
    """The kind of attention of each layer; Mistral's configuration names none, and its window is every layer's."""
    everywhere = "sliding_attention" if architecture.model_type == "mistral" and architecture.sliding_window else "full_attention"
    return list(getattr(architecture, "layer_types", None) or [everywhere] * architecture.num_hidden_layers)


def gate_activation(architecture: "PreTrainedConfig") -> str:
    """The activation of the MLP's gate, by transformers' name."""
    return str(getattr(architecture, "hidden_activation", None) or architecture.hidden_act)


def unsloth_obstacle(config: RunConfig, architecture: "PreTrainedConfig", device: torch.device, dtype: torch.dtype) -> str | None:
    """Why Unsloth cannot run this configuration here, as `what is missing; how to mend it`, or None."""
    if device.type != "cuda":
        return "needs a CUDA GPU and there is none; run it on a machine with one"
    if config.lora is None:
        return "is used for adapters only; give a lora section"
    if config.lora.dropout > 0:
        return "recomputes layers with other dropout masks than it drew; set lora.dropout: 0"
    if config.model.random_init_seed is not None:
        return "loads weights and has none to draw; save the random weights in a folder, name that, and drop model.random_init_seed"
    if architecture.model_type not in UNSLOTH_FAMILIES:
        return f"does not keep packed conversations of {architecture.model_type} apart; use one of {', '.join(UNSLOTH_FAMILIES)}"
    if dtype == torch.float32:
        return "computes in half precision; set training.precision: auto"
    if find_spec("unsloth") is None:
        return "is not installed; `pip install 'warmline[unsloth]'`"
    return None


def import_unsloth() -> Any:
    """Unsloth's `FastLanguageModel`, without its statistics, its cache of compiled trainers in the user's cache folder.

    Imported after transformers it warns, since names that others took from it before stay unpatched. What our forward runs through is
    looked up at call time (methods of the model's classes, `transformers.modeling_utils.checkpoint`), so the warning is left out.

    Raises:
        WarmlineError: it is not installed, or refuses this machine.
    """
    os.environ.setdefault("UNSLOTH_DISABLE_STATISTICS", "1")
    os.environ.setdefault("UNSLOTH_COMPILE_LOCATION", str(Path(platformdirs.user_cache_dir("warmline")) / "unsloth"))
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="WARNING: Unsloth should be imported before")
            from unsloth import FastLanguageModel
    except ModuleNotFoundError as error:
        if error.name != "unsloth":
            raise WarmlineError(f"model.backend: unsloth lacks the package {error.name}; `pip install 'warmline[unsloth]'`") from None
        raise WarmlineError("model.backend: unsloth is not installed; `pip install 'warmline[unsloth]'`") from None
    except (ImportError, NotImplementedError, RuntimeError) as error:
        raise WarmlineError(
            f"model.backend: unsloth cannot be imported ({' '.join(str(error).split())[:200]}); set model.backend: transformers"
        ) from None
    return FastLanguageModel
