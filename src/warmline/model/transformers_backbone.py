"""Plain transformers + PEFT: the decoder inside the PEFT model, on CPU or CUDA, in full, half or 4-bit precision."""

import copy
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from warmline.errors import WarmlineError
from warmline.model.backbone import Prefill, Sampling
from warmline.model.base import load_base, refuse_unusual_logits
from warmline.model.base_files import load_adapter, load_full_weights, lora_config
from warmline.model.fast.attention import VARLEN
from warmline.model.fast.decoder import Checkpointing, FusedDecoder, can_fuse
from warmline.model.generation import Columns, Replies, Room, RowCaches
from warmline.settings import LoraSettings, ModelConfig

_CPU_ROWS, _CUDA_ROWS, _CUDA_PASS = 32, 1024, 16_384
"""Replies that go on together, and tokens of prompts read in one pass."""
_KEPT_BYTES, _LOGIT_COPIES = 2, 6
"""Of a key or value in half precision; what drawing holds of the logits at once."""


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

    def _decode(
        self, tokens: Tensor, position_ids: Tensor, bounds: Tensor, longest: int, cache: DynamicCache | Columns | None = None
    ) -> Tensor:
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
    def generate(
        self, prompts: list[list[int]], end_of_turn: int, sampling: Sampling, ended: Callable[[], None] = lambda: None
    ) -> list[list[int]]:
        """Token ids of one reply a prompt, without its end-of-turn token."""
        room = self._room()
        return Replies(self, room, sampling, end_of_turn, self.device).make(prompts, ended)

    def read(self, prompts: Sequence[list[int]], columns: Columns) -> Tensor:
        """Several prompts as one flat sequence: the last state of each, [prompts, hidden]."""
        lengths = torch.tensor([len(prompt) for prompt in prompts])
        bounds = torch.cat([torch.zeros(1, dtype=torch.int32), lengths.cumsum(0).int()]).to(self.device)
        tokens = torch.tensor([token for prompt in prompts for token in prompt], device=self.device)
        positions = torch.cat([torch.arange(length) for length in lengths.tolist()]).to(self.device)
        return self._decode(tokens, positions, bounds, int(lengths.max()), columns)[bounds[1:].long() - 1]

    def go_on(self, tokens: Tensor, positions: Tensor, columns: Columns) -> Tensor:
        """One token a row, [rows]: states, [rows, hidden]."""
        output = self._in_use.get_decoder()(
            input_ids=tokens[None], position_ids=positions[None], past_key_values=columns, use_cache=True, columns=columns
        )
        states: Tensor = output.last_hidden_state[0]
        return states

    def _room(self) -> Room:
        """On CUDA half of the free memory for keys and values, and a quarter for logits."""
        if self.device.type != "cuda":
            return Room(_CPU_ROWS, sys.maxsize, _CPU_ROWS * 512, self.context)
        torch.cuda.empty_cache()
        free = torch.cuda.mem_get_info(self.device)[0]
        config = self._causal.config
        head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        token = 2 * config.num_hidden_layers * config.num_key_value_heads * head * _KEPT_BYTES
        rows = free // 4 // (_LOGIT_COPIES * 4 * self.unembedding.shape[0])
        return Room(max(1, min(_CUDA_ROWS, rows)), free // 2 // token, _CUDA_PASS, self.context)

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
