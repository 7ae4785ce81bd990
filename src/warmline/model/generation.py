"""What generating a batch of replies needs, whoever runs the model."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import (
    DynamicCache,
    GenerationConfig,
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from warmline.model.backbone import Sampling

_COLDEST = 1e-4
"""Temperature below which the likeliest token is taken: logits divided by less may be infinite, and nothing could be drawn from them."""


def pad_left(prompts: list[list[int]], padding: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, both [prompts, longest]: each prompt ends in the last column."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[padding] * (longest - len(prompt)) + prompt for prompt in prompts], device=device)
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    return ids, mask


def generation_settings(sampling: Sampling, end_of_turn: int) -> dict[str, Any]:
    """Settings of transformers' `generate`; what they leave out is off, as long as `without_own_defaults` holds."""
    settings: dict[str, Any] = {
        "max_new_tokens": sampling.max_new_tokens,
        "do_sample": sampling.temperature > 0,
        "eos_token_id": end_of_turn,
        "pad_token_id": end_of_turn,
    }
    if sampling.temperature > 0:
        settings |= {"temperature": sampling.temperature, "top_p": sampling.top_p, "min_p": sampling.min_p, "top_k": 0}
    return settings


@contextmanager
def without_own_defaults(model: Any) -> Iterator[None]:
    """Within it, `generate` follows the settings it is given and no others.

    It takes whatever they leave out from the model's own `generation_config`: a Qwen2.5 brings a repetition penalty, others forced or
    suppressed tokens or a least length. The serving engine and the losses know nothing of them.

    Args:
        model: A transformers model; its `generation_config` is the same again afterwards.
    """
    own, model.generation_config = model.generation_config, GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own


def until(reply: list[int], end_of_turn: int) -> list[int]:
    """The reply before its end of turn."""
    return reply[: reply.index(end_of_turn)] if end_of_turn in reply else reply


class RowCaches:
    """What a decoder takes for its cache while many conversations go on by one token each: every row has transformers' cache of its own.

    Args:
        caches: Of the first rows; rows beyond them are padding and leave nothing behind.
    """

    def __init__(self, caches: Sequence[DynamicCache]) -> None:
        self._caches = caches

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Keys and values of a layer, [1, heads, rows, head size], each row's into its own cache; returned as they came."""
        for row, cache in enumerate(self._caches):
            cache.update(keys[:, :, row : row + 1], values[:, :, row : row + 1], layer)
        return keys, values


def warpers(sampling: Sampling) -> LogitsProcessorList:
    """What transformers' `generate` does to logits before it draws, in its order; empty takes the likeliest token."""
    found = LogitsProcessorList()
    if sampling.temperature >= _COLDEST:
        found.append(TemperatureLogitsWarper(sampling.temperature))
        if sampling.top_p < 1:
            found.append(TopPLogitsWarper(sampling.top_p))
        if sampling.min_p > 0:
            found.append(MinPLogitsWarper(sampling.min_p))
    return found


def draw_token(logits: Tensor, warp: LogitsProcessorList, generator: torch.Generator | None) -> int:
    """The next token.

    Args:
        logits: [vocabulary], fp32.
        warp: From `warpers`; empty takes the likeliest token.
        generator: On the logits' device; None draws from torch's own.
    """
    if not warp:
        return int(logits.argmax())
    scores = warp(torch.empty(1, 0, dtype=torch.long, device=logits.device), logits[None])
    return int(torch.multinomial(scores.softmax(dim=-1), 1, generator=generator))
