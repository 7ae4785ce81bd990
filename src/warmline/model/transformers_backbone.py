"""Plain transformers + PEFT: the decoder inside the PEFT model, on CPU or CUDA, in full, half or 4-bit precision."""

import copy
import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    DynamicCache,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from warmline.config import LoraSettings, ModelConfig
from warmline.errors import WarmlineError, reason_of
from warmline.model.backbone import Prefill, Sampling
from warmline.model.base_files import load_adapter, load_full_weights, lora_config, refuse_partial, stored_tensors
from warmline.model.fast.attention import VARLEN
from warmline.model.fast.decoder import Checkpointing, FusedDecoder, can_fuse
from warmline.model.generation import RowCaches, generation_settings, pad_left, until, without_own_defaults
from warmline.paths import NANO

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


class TransformersBackbone(nn.Module):
    """A causal language model with an adapter, or with every weight trainable.

    Args:
        config: The base model.
        lora: New adapter to add; None trains every weight and keeps a frozen copy as the base. None, not trainable and with nothing tuned
            is the base alone.
        device: Where it runs.
        dtype: Of the base weights; adapters stay in fp32 and autocast makes the products half precision.
        tuned: A folder that `save` wrote, to load instead of starting anew.
        trainable: False for evaluation and serving.
        checkpointing: What the layers keep for the backward pass.

    Raises:
        WarmlineError: the model cannot be found, or cannot be used as asked.
    """

    def __init__(
        self,
        config: ModelConfig,
        lora: LoraSettings | None,
        device: torch.device,
        dtype: torch.dtype,
        tuned: Path | None = None,
        trainable: bool = True,
        checkpointing: Checkpointing = "none",
    ) -> None:
        super().__init__()
        base = _load_base(config, device, dtype)
        refuse_unusual_logits(base)
        self._frozen: PreTrainedModel | None = None
        self.model: PreTrainedModel | PeftModel
        if lora is not None:
            self.model = _with_adapter(base, lora, tuned, trainable)
        else:
            if trainable or tuned is not None:
                self._frozen = copy.deepcopy(base).requires_grad_(False).eval()
            self.model = _full_weights(tuned, base, device, dtype).requires_grad_(trainable)
        fused = config.fused and device.type == "cuda" and can_fuse(self.decoder)
        self._fused = FusedDecoder(self.decoder) if fused else None
        self._checkpointing = checkpointing
        if self._fused is None and checkpointing != "none" and trainable:
            self._causal.gradient_checkpointing_enable({"use_reentrant": False})
        self._using_base = False
        self.train(trainable)

    @property
    def _causal(self) -> PreTrainedModel:
        return self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model

    @property
    def decoder(self) -> nn.Module:
        """What `hidden` runs, with its `layers`."""
        found: nn.Module = self._causal.get_decoder()
        return found

    @property
    def _in_use(self) -> PreTrainedModel:
        """The frozen copy inside `reference()` where there is one, else the tuned model (whose adapter may be off)."""
        return self._frozen if self._using_base and self._frozen is not None else self._causal

    @property
    def hidden_size(self) -> int:
        """Width of the final hidden state."""
        return int(self._causal.config.hidden_size)

    @property
    def context(self) -> int:
        """Tokens that prompt and reply may have together."""
        return int(self._causal.config.max_position_embeddings)

    @property
    def device(self) -> torch.device:
        """Where tokens go."""
        return self.unembedding.device

    @property
    def unembedding(self) -> Tensor:
        """[vocabulary, hidden], of the tuned model."""
        weight: Tensor = self._causal.get_output_embeddings().weight
        return weight

    @property
    def base_unembedding(self) -> Tensor:
        """[vocabulary, hidden], of the frozen base."""
        if self._frozen is None:
            return self.unembedding
        weight: Tensor = self._frozen.get_output_embeddings().weight
        return weight

    def hidden(self, tokens: Tensor, position_ids: Tensor, bounds: Tensor, longest: int) -> Tensor:
        """Hidden states of one flat sequence of conversations, [tokens, hidden]."""
        if self._fused is not None:
            return self._fused(tokens, position_ids, bounds, longest, self._checkpointing, adapters=not self._using_base)
        return self._decode(tokens, position_ids, bounds, longest)

    @torch.no_grad()
    def prefill(self, tokens: Tensor) -> Prefill:
        """One conversation's states, and the cache from which its reply goes on."""
        cache, longest = DynamicCache(), len(tokens)
        bounds = torch.tensor([0, longest], dtype=torch.int32, device=self.device)
        return Prefill(self._decode(tokens, torch.arange(longest, device=self.device), bounds, longest, cache), cache)

    def _decode(self, tokens: Tensor, position_ids: Tensor, bounds: Tensor, longest: int, cache: DynamicCache | None = None) -> Tensor:
        """One flat sequence through transformers' own decoder, which fills a cache if there is one."""
        output = self._in_use.get_decoder()(
            input_ids=tokens[None],
            position_ids=position_ids[None],
            past_key_values=cache,
            use_cache=cache is not None,
            cu_seq_lens_q=bounds,
            cu_seq_lens_k=bounds,
            max_length_q=longest,
            max_length_k=longest,
        )
        states: Tensor = output.last_hidden_state[0]
        return states

    @torch.no_grad()
    def step(self, tokens: Tensor, caches: Sequence[DynamicCache]) -> Tensor:
        """States of one new token of each conversation; its keys and values go into the conversation's cache."""
        lengths = [cache.get_seq_length() for cache in caches]
        positions = torch.tensor(lengths + [0] * (len(tokens) - len(caches)), device=self.device)
        output = self._in_use.get_decoder()(
            input_ids=tokens[None], position_ids=positions[None], past_key_values=RowCaches(caches), use_cache=True, row_caches=caches
        )
        states: Tensor = output.last_hidden_state[0]
        return states

    def logits(self, states: Tensor) -> Tensor:
        """Next-token logits in fp32, [rows, hidden] to [rows, vocabulary]: the base's inside `reference()`."""
        return nn.functional.linear(states, self.base_unembedding if self._using_base else self.unembedding).float()

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Inside it, `hidden` and `generate` are the base's: adapter off, evaluation mode, no gradient."""
        was_training, was_base = self.training, self._using_base
        if was_training:  # walking over every module costs as much as a small model's token
            self.eval()
        self._using_base = True
        try:
            with torch.no_grad():
                if isinstance(self.model, PeftModel):
                    with self.model.disable_adapter():
                        yield
                else:
                    yield
        finally:
            self._using_base = was_base
            if was_training:
                self.train()

    def train(self, mode: bool = True) -> "TransformersBackbone":
        """Training mode for the tuned model only; the frozen copy stays in evaluation mode."""
        super().train(mode)
        if self._frozen is not None:
            self._frozen.eval()
        return self

    @torch.no_grad()
    def generate(self, prompts: list[list[int]], end_of_turn: int, sampling: Sampling) -> list[list[int]]:
        """Token ids of one reply a prompt, without its end-of-turn token; the prompts run as one batch, padded on the left."""
        causal = self._in_use
        if sampling.seed is not None:
            torch.manual_seed(sampling.seed)
        settings = GenerationConfig(**generation_settings(sampling, end_of_turn))
        ids, mask = pad_left(prompts, end_of_turn, self.device)
        causal.set_attn_implementation("sdpa")  # the cache of `generate` is no flat sequence
        try:
            with without_own_defaults(causal):
                output = causal.generate(input_ids=ids, attention_mask=mask, generation_config=settings)
        finally:
            causal.set_attn_implementation(VARLEN)
        return [until(reply, end_of_turn) for reply in output[:, ids.shape[1] :].tolist()]

    def save(self, folder: Path) -> None:
        """Write the adapter as PEFT does, or the whole model as transformers does, into a folder."""
        if isinstance(self.model, PeftModel):
            self.model.save_pretrained(folder, save_embedding_layers=False)  # `auto` asks the hub for the base, at every save
        else:
            self.model.save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty form


def _load_base(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
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


def _with_adapter(base: PreTrainedModel, lora: LoraSettings, tuned: Path | None, trainable: bool) -> PeftModel:
    for parameter in base.parameters():
        parameter.requires_grad_(False)
    refuse_targets(lora, linear_layers(base))
    adapted: PeftModel = get_peft_model(base, lora_config(lora, trainable))
    if tuned is not None:
        load_adapter(adapted, tuned)
    return adapted


def refuse_targets(lora: LoraSettings, known: Collection[str]) -> None:
    """Every name must be that of a linear layer in the decoder's layers: PEFT takes a list of which one name is known, and leaves the rest
    out; and embeddings and unembedding get no gradient from the losses, which read them apart from their modules.

    Args:
        lora: The adapters that are asked for.
        known: As `linear_layers` says.

    Raises:
        WarmlineError: another name.
    """
    for name in lora.target_modules:
        if name not in known:
            raise WarmlineError(
                f"lora.target_modules: `{name}` is no linear layer in the decoder's layers, so nothing would be trained there; "
                f"there are {', '.join(known)}"
            )


def linear_layers(base: PreTrainedModel) -> list[str]:
    """Names of the linear layers inside the decoder's layers, each once, in the order of the forward pass."""
    layers: Any = base.get_decoder().layers
    return list(dict.fromkeys(name.rpartition(".")[2] for name, module in layers.named_modules() if isinstance(module, nn.Linear)))


def _full_weights(tuned: Path | None, base: PreTrainedModel, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    if tuned is None:
        return base
    return load_full_weights(base, tuned, dtype=dtype, attn_implementation=VARLEN, device_map={"": device})


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
