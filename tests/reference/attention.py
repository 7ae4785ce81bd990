"""Attention over the whole packed sequence under one dense mask."""

import torch
from torch import Tensor


def dense_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bounds: Tensor,
    scaling: float | None = None,
    window: int | None = None,
    causal: bool = True,
) -> Tensor:
    """[1, heads, tokens, size], keys and values with as many heads or fewer, to [1, tokens, heads, size]."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    tokens = query.shape[2]
    conversation = torch.repeat_interleave(torch.arange(len(bounds) - 1), bounds.diff())
    allowed = torch.zeros(tokens, tokens, dtype=torch.bool)
    for asking in range(tokens):
        for seen in range(asking + 1 if causal else tokens):
            near = window is None or asking - seen < window
            allowed[asking, seen] = near and conversation[asking] == conversation[seen]
    scores = query @ key.transpose(2, 3) * (query.shape[3] ** -0.5 if scaling is None else scaling)
    return (scores.masked_fill(~allowed, -torch.inf).softmax(dim=3) @ value).transpose(1, 2)
