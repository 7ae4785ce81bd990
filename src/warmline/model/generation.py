"""What generating a batch of replies needs, whoever runs the model."""

from typing import Any

import torch
from torch import Tensor

from warmline.model.backbone import Sampling


def pad_left(prompts: list[list[int]], padding: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, both [prompts, longest]: each prompt ends in the last column."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[padding] * (longest - len(prompt)) + prompt for prompt in prompts], device=device)
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    return ids, mask


def generation_settings(sampling: Sampling, end_of_turn: int) -> dict[str, Any]:
    """Settings of transformers' `generate`: every one that a model's own defaults would change."""
    settings: dict[str, Any] = {
        "max_new_tokens": sampling.max_new_tokens,
        "do_sample": sampling.temperature > 0,
        "eos_token_id": end_of_turn,
        "pad_token_id": end_of_turn,
    }
    if sampling.temperature > 0:
        settings |= {"temperature": sampling.temperature, "top_p": sampling.top_p, "min_p": sampling.min_p, "top_k": 0}
    return settings


def until(reply: list[int], end_of_turn: int) -> list[int]:
    """The reply before its end of turn."""
    return reply[: reply.index(end_of_turn)] if end_of_turn in reply else reply
