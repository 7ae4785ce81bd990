"""Plain transformers + PEFT: the decoder inside the PEFT model, on CPU or CUDA, in full, half or 4-bit precision."""

import copy
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import (
    DynamicCache,
    GenerationConfig,
    PreTrainedModel,
)

from warmline.errors import WarmlineError
from warmline.model.backbone import Prefill, Sampling
from warmline.model.base import load_base, refuse_unusual_logits
from warmline.model.base_files import load_adapter, load_full_weights, lora_config
from warmline.model.fast.attention import VARLEN
from warmline.model.fast.decoder import Checkpointing, FusedDecoder, can_fuse
from warmline.model.generation import RowCaches, generation_settings, pad_left, until, without_own_defaults
from warmline.settings import LoraSettings, ModelConfig


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
        base = load_base(config, device, dtype)
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
