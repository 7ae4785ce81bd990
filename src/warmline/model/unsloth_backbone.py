"""Unsloth behind the `Backbone` protocol: its patched decoder and fused adapter kernels, our packed rows and losses.

Facts of Unsloth's source (2026.10.9) that this rests on:

- `UNSLOTH_RETURN_HIDDEN_STATES=1` around a call without labels puts the final hidden states where the logits go; the unembedding is never
  applied. Hooks on the last norm would not fire.
- `packed_seq_lengths` keeps conversations apart; `position_ids` alone only move the rotary angles. A row with them is not truncated.
- A `max_seq_length` above the model's own limit rescales its rotary angles: another model. It is never asked for here.
- Without `use_exact_model_name` a hub id is replaced by Unsloth's own quantised copy: another base.
- The fused adapter kernels ask each layer whether its adapter is off (`get_lora_parameters`), so PEFT's `disable_adapter` works.
- Recomputation is reentrant; it makes the embeddings' output require a gradient, so that one reaches the adapters.
- `generate` switches recomputation off for good when it is called in evaluation mode; `for_training` brings it back.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from warmline.model.backbone import Prefill, Sampling
from warmline.model.choose import import_unsloth
from warmline.model.fast.decoder import Checkpointing
from warmline.model.generation import generation_settings, pad_left, until, without_own_defaults
from warmline.settings import LoraSettings, ModelConfig

_RETURN_STATES = "UNSLOTH_RETURN_HIDDEN_STATES"
_NO_CHAT = "Unsloth trains; load the run on transformers to read and to reply"


class UnslothBackbone(nn.Module):
    """A causal language model with an adapter, loaded and patched by Unsloth.

    Args:
        config: The base model; not one with random weights.
        lora: Adapter to add, without dropout.
        device: A CUDA device.
        dtype: Of the base weights, bf16 or fp16; adapters stay in fp32.
        tuned: A folder that `save` wrote, to load instead of starting anew.
        trainable: False for evaluation and serving.
        checkpointing: `none` keeps everything; anything else is Unsloth's own way, which keeps layers' inputs in the host's memory.

    Raises:
        WarmlineError: Unsloth cannot be imported, the model cannot be found, or the saved adapter cannot be loaded.
    """

    def __init__(
        self,
        config: ModelConfig,
        lora: LoraSettings,
        device: torch.device,
        dtype: torch.dtype,
        tuned: Path | None = None,
        trainable: bool = True,
        checkpointing: Checkpointing = "none",
    ) -> None:
        super().__init__()
        self._unsloth = import_unsloth()
        from warmline.model.transformers_backbone import linear_layers, refuse_targets  # after Unsloth, as it asks

        self._recompute = False if checkpointing == "none" or not trainable else "unsloth"
        base = _load_base(self._unsloth, config, device, dtype, self._recompute)
        refuse_targets(lora, linear_layers(base))
        self.model = self._unsloth.get_peft_model(
            base,
            r=lora.r,
            lora_alpha=lora.alpha,
            target_modules=list(lora.target_modules),
            use_rslora=lora.rank_stabilised,
            lora_dropout=0,
            bias="none",
            use_gradient_checkpointing=self._recompute,
            random_state=torch.initial_seed() % 2**32,
        )
        if tuned is not None:
            from warmline.model.base_files import load_adapter  # imports transformers, which Unsloth must come before

            load_adapter(self.model, tuned)
        if not trainable:
            self.model.requires_grad_(False)
        self._arm(trainable)

    @property
    def _causal(self) -> Any:
        return self.model.get_base_model()

    @property
    def decoder(self) -> nn.Module:
        """What `hidden` runs, with its `layers`."""
        found: nn.Module = self._causal.get_decoder()
        return found

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
        """[vocabulary, hidden]; frozen, so it is the base's too."""
        weight: Tensor = self._causal.get_output_embeddings().weight
        return weight

    @property
    def base_unembedding(self) -> Tensor:
        """[vocabulary, hidden], of the frozen base."""
        return self.unembedding

    def hidden(self, tokens: Tensor, position_ids: Tensor, bounds: Tensor, longest: int) -> Tensor:  # noqa: ARG002 - Unsloth finds it
        """Hidden states of one flat sequence of conversations, [tokens, hidden]; the heads read the final ones."""
        with _environment(_RETURN_STATES, "1"):
            output = self.model(
                input_ids=tokens[None],
                position_ids=position_ids[None],
                packed_seq_lengths=bounds.diff(),
                use_cache=False,
            )
        states: Tensor = output.logits[0]
        return states

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Inside it, `hidden` and `generate` are the base's: adapter off, evaluation mode, no gradient."""
        was_training = self.training
        self.eval()
        try:
            with torch.no_grad(), self.model.disable_adapter():
                yield
        finally:
            self.train(was_training)

    @torch.no_grad()
    def generate(
        self, prompts: list[list[int]], end_of_turn: int, sampling: Sampling, ended: Callable[[], None] = lambda: None
    ) -> list[list[int]]:
        """Token ids of one reply a prompt, without its end-of-turn token; the prompts run as one batch, padded on the left."""
        if sampling.seed is not None:
            torch.manual_seed(sampling.seed)
        was_training = self.training
        ids, mask = pad_left(prompts, end_of_turn, self.device)
        try:
            with without_own_defaults(self._causal):
                output = self._causal.generate(input_ids=ids, attention_mask=mask, **generation_settings(sampling, end_of_turn))
        finally:
            self._arm(was_training)
        for _ in prompts:
            ended()
        return [until(reply, end_of_turn) for reply in output[:, ids.shape[1] :].tolist()]

    def prefill(self, tokens: Tensor) -> Prefill:
        """Not here: what Unsloth has trained is read and talked to on transformers, which loads the same adapter."""
        raise NotImplementedError(_NO_CHAT)

    def step(self, tokens: Tensor, caches: Sequence[DynamicCache]) -> Tensor:
        """As `prefill`."""
        raise NotImplementedError(_NO_CHAT)

    def logits(self, states: Tensor) -> Tensor:
        """As `prefill`."""
        raise NotImplementedError(_NO_CHAT)

    def _arm(self, training: bool) -> None:
        """Put Unsloth's switches where training needs them, then the mode: evaluation mode alone already stops recomputation."""
        self._unsloth.for_training(self.model, use_gradient_checkpointing=self._recompute)
        self.train(training)

    def save(self, folder: Path) -> None:
        """Write the adapter as PEFT does, with nothing in it that names Unsloth."""
        for settings in self.model.peft_config.values():
            settings.auto_mapping = None  # Unsloth notes its module there; plain PEFT leaves it empty for a causal model
        self.model.save_pretrained(folder, save_embedding_layers=False)  # as in TransformersBackbone
        (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty form


def _load_base(unsloth: Any, config: ModelConfig, device: torch.device, dtype: torch.dtype, recompute: bool | str) -> Any:
    from warmline.model.base import compute_in, expected_tensors, holds_4bit, load_architecture, model_path, reading, refuse_unusual_logits
    from warmline.model.base_files import refuse_partial, stored_tensors

    architecture = load_architecture(config)
    stored = holds_4bit(config, architecture)
    longest = int(architecture.max_position_embeddings)
    with reading(config):
        refuse_partial(config, expected_tensors(architecture) - stored_tensors(config, model_path(config)), set(), set())
        base, _ = unsloth.from_pretrained(
            model_path(config),
            revision=config.revision,
            use_exact_model_name=True,
            max_seq_length=longest,
            dtype=dtype,
            load_in_4bit=config.load_in_4bit,
            device_map={"": device.index or 0},
            use_gradient_checkpointing=recompute,
            offload_embedding=False,
            trust_remote_code=False,
        )
    if stored:
        compute_in(base, dtype)
    refuse_unusual_logits(base)
    return base


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """An environment variable for a moment: left set, it would turn `generate`'s logits into hidden states."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
