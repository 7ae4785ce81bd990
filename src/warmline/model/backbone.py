"""What the rest of warmline needs from a language model, whoever runs it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from warmline.model import REPLY_TOKENS


class Sampling(NamedTuple):
    """How a reply is drawn.

    Attributes:
        max_new_tokens: Longest reply, in tokens.
        temperature: 0 takes the likeliest token each time.
        top_p: Nucleus mass; 1 is off.
        min_p: Tokens below this share of the likeliest one's probability are left out; 0 is off.
        seed: Of the draw; None leaves it to chance.
    """

    max_new_tokens: int = REPLY_TOKENS
    temperature: float = 0.7
    top_p: float = 1.0
    min_p: float = 0.05
    seed: int | None = None


class Prefill(NamedTuple):
    """One conversation after its forward pass.

    Attributes:
        states: [tokens, hidden], what `hidden` gives.
        cache: Its keys and values.
    """

    states: Tensor
    cache: DynamicCache


class Backbone(Protocol):
    """A causal decoder, its frozen base, and its adapter. It is a `torch.nn.Module` whose trainable parameters are what is tuned."""

    @property
    def hidden_size(self) -> int:
        """Width of the final hidden state."""

    @property
    def context(self) -> int:
        """Tokens that prompt and reply may have together."""

    @property
    def device(self) -> torch.device:
        """Where tokens go."""

    @property
    def unembedding(self) -> Tensor:
        """[vocabulary, hidden], of the tuned model."""

    @property
    def base_unembedding(self) -> Tensor:
        """[vocabulary, hidden], of the frozen base."""

    @property
    def decoder(self) -> nn.Module:
        """What `hidden` runs, with its `layers`."""

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """As of any `nn.Module`; those that require a gradient are tuned."""

    def named_parameters(self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True) -> Iterator[tuple[str, nn.Parameter]]:
        """As of any `nn.Module`."""

    def hidden(self, tokens: Tensor, position_ids: Tensor, bounds: Tensor, longest: int) -> Tensor:
        """Hidden states after the last norm, causal inside each conversation: [tokens] to [tokens, hidden].

        Args:
            tokens: [tokens], token ids.
            position_ids: [tokens], restarting with each conversation.
            bounds: [conversations + 1], int32.
            longest: Tokens of the longest conversation.
        """

    def reference(self) -> AbstractContextManager[None]:
        """Inside it, `hidden` is the base's: adapter off, evaluation mode, no gradient."""

    def prefill(self, tokens: Tensor) -> Prefill:
        """Hidden states of one conversation, [tokens], and the cache from which its reply goes on."""

    def step(self, tokens: Tensor, caches: Sequence[DynamicCache]) -> Tensor:
        """Go on by one token in many conversations: [rows] to final states [rows, hidden].

        Args:
            tokens: The newest token of each; rows beyond the last cache are padding.
            caches: As `prefill` or an earlier step left them; each grows by one.
        """

    def logits(self, states: Tensor) -> Tensor:
        """Next-token logits in fp32, [rows, hidden] to [rows, vocabulary]: the base's inside `reference()`."""

    def generate(
        self, prompts: list[list[int]], end_of_turn: int, sampling: Sampling, ended: Callable[[], None] = lambda: None
    ) -> list[list[int]]:
        """Token ids of one reply a prompt, without its end-of-turn token.

        Args:
            prompts: At least one, each shorter than the context.
            end_of_turn: Ends a reply.
            sampling: How they are drawn.
            ended: Called for each reply that is ready.
        """

    def save(self, folder: Path) -> None:
        """Write the tuned weights into a folder: an adapter in PEFT's own format, or the whole model when every weight was trained."""
