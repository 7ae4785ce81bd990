"""A base as transformers reads it from its files: tokenizer, architecture and weights, or one line that says what is wrong."""

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from warmline.errors import WarmlineError, reason_of
from warmline.model.base_files import refuse_partial, stored_tensors
from warmline.model.fast.attention import VARLEN
from warmline.paths import NANO
from warmline.settings import ModelConfig

_NEEDED = {"hidden_size": 2**20, "num_hidden_layers": 2**12, "vocab_size": 2**24, "max_position_embeddings": 2**31}
"""What is read from a configuration, with a size beyond every model's: a damaged file's would be built until memory is full."""


def model_path(config: ModelConfig) -> str:
    """The hub id or folder that transformers loads; `nano` lies inside this package."""
    return str(resources.files("warmline") / "assets" / NANO) if config.name == NANO else config.name


def load_tokenizer(config: ModelConfig) -> PreTrainedTokenizerBase:
    """The base model's tokenizer.

    Raises:
        WarmlineError: it cannot be found or read.
    """
    with reading(config):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            model_path(config), revision=config.revision, trust_remote_code=False
        )
    return tokenizer


def load_architecture(config: ModelConfig) -> PreTrainedConfig:
    """The base model's configuration, without weights.

    Raises:
        WarmlineError: it cannot be found or read, or is not that of a decoder of text alone.
    """
    with reading(config):
        architecture: PreTrainedConfig = AutoConfig.from_pretrained(model_path(config), revision=config.revision, trust_remote_code=False)
    if architecture.is_encoder_decoder:
        raise unusual(architecture, "has an encoder beside its decoder")
    if architecture.sub_configs:
        # AutoModelForCausalLM builds the whole of Gemma 3 4B, and LoRA's names match its vision tower; the text model's own class would
        # not find its weights in that checkpoint, and starts with random ones
        raise unusual(architecture, f"has parts beside its text model ({', '.join(architecture.sub_configs)})")
    if type(architecture) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise unusual(architecture, "is no causal language model to transformers")
    if getattr(architecture, "use_bidirectional_attention", None) is True:
        raise unusual(architecture, "attends to later tokens (use_bidirectional_attention)")
    for name, most in _NEEDED.items():
        size = getattr(architecture, name, None)
        if not isinstance(size, int) or not 0 < size <= most:
            raise unusual(architecture, f"has no {name}" if size is None else f"has {name} {size!r}")
    if getattr(architecture, "transformers_weights", None) is not None:
        raise unusual(architecture, "keeps its weights under a name of its own (transformers_weights)")
    return architecture


def unusual(architecture: PreTrainedConfig, what: str) -> WarmlineError:
    """What to tell a person whose base model is of a kind that this package cannot train.

    Args:
        architecture: The base model's.
        what: About the model, as `has ...`.
    """
    return WarmlineError(
        f"model.name: a model of type {architecture.model_type} {what}; name a decoder of text alone with usual attention layers, such as "
        "Qwen3, Llama, Mistral or Gemma 3 up to 1B (type gemma3_text)"
    )


def load_base(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    """The base's weights, or random ones.

    Args:
        config: Of the base.
        device: Where.
        dtype: Of what is not in 4 bits.

    Raises:
        WarmlineError: it cannot be loaded as asked.
    """
    path = model_path(config)
    architecture = load_architecture(config)
    stored = holds_4bit(config, architecture)
    if config.load_in_4bit and find_spec("bitsandbytes") is None:
        raise WarmlineError("model.load_in_4bit: bitsandbytes is not installed; `pip install 'warmline[cuda]'`")
    with reading(config):
        if config.random_init_seed is not None:
            with torch.random.fork_rng():
                torch.manual_seed(config.random_init_seed)
                built: PreTrainedModel = AutoModelForCausalLM.from_config(
                    architecture, dtype=dtype, attn_implementation=VARLEN, trust_remote_code=False
                )
            return built.to(device)
        stored_tensors(config, path)
        loaded: PreTrainedModel
        with _without_report():
            loaded, found = AutoModelForCausalLM.from_pretrained(
                path,
                revision=config.revision,
                dtype=dtype,
                attn_implementation=VARLEN,
                device_map={"": device},
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are refused here, with their names
                **({"quantization_config": nf4(dtype)} if config.load_in_4bit and not stored else {}),  # None would hide the stored one
            )
        refuse_partial(config, found["missing_keys"], {name for name, *_ in found["mismatched_keys"]}, found["unexpected_keys"])
    if stored:
        compute_in(loaded, dtype)
    module: Any
    for module in loaded.modules() if config.load_in_4bit else ():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            # a CPU that can would repack the weights in its first pass without gradients, and no gradient passes through them afterwards
            module.support_avx512bf16_for_cpu = False
    return loaded


def expected_tensors(architecture: PreTrainedConfig) -> set[str]:
    """Names of a network's parameters, of tied ones the first, as transformers has them.

    Args:
        architecture: Of the base; how its files are quantised is left out.
    """
    return {name for name, _ in skeleton(architecture).named_parameters()}


def skeleton(architecture: PreTrainedConfig) -> PreTrainedModel:
    """The network without memory for its weights.

    Raises:
        WarmlineError: it cannot be built from that configuration.
    """
    plain = copy.deepcopy(architecture)
    if getattr(plain, "quantization_config", None) is not None:
        del plain.quantization_config
    try:
        with torch.device("meta"):
            built: PreTrainedModel = AutoModelForCausalLM.from_config(plain, trust_remote_code=False)
    except Exception as error:  # whatever a changed config.json leads to
        raise unusual(architecture, f"has a config.json from which nothing can be built ({reason_of(error, 300)})") from None
    return built


@contextmanager
def _without_report() -> Iterator[None]:
    """Keep back the table of tensors that transformers did not find; one line is enough."""
    logger = logging.getLogger("transformers.modeling_utils")

    def is_other(record: logging.LogRecord) -> bool:
        return "LOAD REPORT" not in record.getMessage()

    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)


def holds_4bit(config: ModelConfig, architecture: PreTrainedConfig) -> bool:
    """Whether the base's files hold 4-bit weights already, as those of `unsloth/Qwen3-8B-bnb-4bit` do.

    Raises:
        WarmlineError: `load_in_4bit` says otherwise, or they are quantised in another way, beside which nothing is trained here.
    """
    stored = getattr(architecture, "quantization_config", None)
    if stored is None:
        return False
    settings = stored if isinstance(stored, dict) else stored.to_dict()
    if not settings.get("load_in_4bit"):
        raise WarmlineError(
            f"model.name: `{config.name}` holds weights quantised by {settings.get('quant_method', 'an unnamed method')}; name its "
            "unquantised model, or one in bitsandbytes' 4 bits"
        )
    if not config.load_in_4bit:
        raise WarmlineError(
            f"model.load_in_4bit: false, but `{config.name}` holds 4-bit weights; set it to true, or name the unquantised model, as "
            "Qwen/Qwen3-8B is of unsloth/Qwen3-8B-bnb-4bit"
        )
    return True


def compute_in(model: nn.Module, dtype: torch.dtype) -> None:
    """Give a model that was stored in 4 bits the precision of this machine.

    transformers takes precisions from such a checkpoint, whatever is asked for: embeddings, norms and what unpacked weights become stay
    bf16 on a card that has none.
    """
    module: Any
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            state = getattr(parameter, "quant_state", None)
            if state is not None:
                module.compute_dtype, state.dtype = dtype, dtype
            elif parameter.is_floating_point():
                parameter.data = parameter.data.to(dtype)


def nf4(dtype: torch.dtype) -> BitsAndBytesConfig:
    """How a 16-bit base is quantised: NF4, the scales quantised too, computing in `dtype`."""
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype)


def refuse_unusual_logits(base: PreTrainedModel) -> None:
    """The losses rebuild logits as states @ unembedding.T; a model that does more would be trained on other logits than it serves."""
    head = base.get_output_embeddings()
    if getattr(base.config, "final_logit_softcapping", None) or getattr(head, "bias", None) is not None:
        raise WarmlineError(
            f"model.name: {base.config.model_type} caps or shifts its logits, which the chunked losses do not rebuild; use Qwen3 or Gemma 3"
        )


@contextmanager
def reading(config: ModelConfig) -> Iterator[None]:
    """Turn what goes wrong while a base's files are read into one line; transformers and the libraries below it raise anything at all.

    Raises:
        WarmlineError: as said.
        torch.OutOfMemoryError: of the card, for which there is better advice.
    """
    try:
        yield
    except (WarmlineError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise not_found(config, error) from None


def not_found(config: ModelConfig, error: Exception) -> WarmlineError:
    """What to tell a person whose base model cannot be loaded."""
    reason = reason_of(error, 300)
    if "trust_remote_code" in str(error):
        reason = (
            "it brings code of its own (auto_map), which is never run: the losses here rebuild logits, and are checked for architectures "
            "that transformers has itself, such as Qwen3, Llama, Mistral or Gemma 3; name one of these"
        )
    elif config.name.startswith((".", "/", "~")) and not Path(config.name).is_dir():
        reason = "no such folder; give a hub id such as Qwen/Qwen3-8B or the folder of a downloaded model, of a run or an export as --base"
    return WarmlineError(f"model.name: cannot load `{config.name}`: {reason}")
