"""Causal attention inside each conversation of one flat sequence, registered with transformers as `warmline_varlen`.

transformers hands unknown keyword arguments of a decoder's forward down to its attention function; `bounds` travel that way under the
names it already knows (`cu_seq_lens_q`, `max_length_q`). On CUDA in half precision torch's variable-length kernel does the work; else
each conversation goes through `scaled_dot_product_attention` alone, which costs the sum of squared lengths rather than their square.
"""

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

VARLEN = "warmline_varlen"
_KNOWN = inspect.signature(varlen_attn).parameters


def packed_attention(
    module: nn.Module,  # noqa: ARG001 - transformers passes it
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention that never looks across `cu_seq_lens_q`.

    Args:
        module: The attention layer that asks; unused.
        query: [1, heads, tokens, head size].
        key: [1, key heads, tokens, head size].
        value: As key.
        attention_mask: Must be None: the bounds say everything.
        scaling: Of the scores; None is 1 / sqrt(head size).
        dropout: On the attention weights; CPU and fallback path only.
        sliding_window: Tokens a query sees, itself included; None sees all before it.
        cu_seq_lens_q: [conversations + 1], int32, where conversations begin and end.
        max_length_q: Tokens of the longest conversation.

    Returns:
        [1, tokens, heads, head size], and None for the weights.

    Raises:
        ValueError: no bounds, or a mask.
    """
    if cu_seq_lens_q is None or max_length_q is None or attention_mask is not None or query.shape[0] != 1:
        raise ValueError("packed attention takes one flat sequence with cu_seq_lens_q and max_length_q, and no attention mask")
    flat_query, flat_key, flat_value = query[0].transpose(0, 1), key[0].transpose(0, 1), value[0].transpose(0, 1)
    attended = attend(flat_query, flat_key, flat_value, scaling, sliding_window, cu_seq_lens_q, max_length_q, dropout)
    return attended[None], None


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scaling: float | None,
    window: int | None,
    bounds: Tensor,
    longest: int,
    dropout: float = 0.0,
) -> Tensor:
    """The same on flat tensors.

    Args:
        query: [tokens, heads, head size].
        key: [tokens, key heads, head size].
        value: As key.
        scaling: Of the scores; None is 1 / sqrt(head size).
        window: Tokens a query sees, itself included; None sees all before it.
        bounds: [conversations + 1], int32.
        longest: Tokens of the longest conversation.
        dropout: On the attention weights; fallback path only.

    Returns:
        [tokens, heads, head size].
    """
    if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16) and dropout == 0.0:
        return _kernel(query, key, value, scaling, window, bounds, longest)
    return _one_by_one(query, key, value, scaling, dropout, window, bounds)


def _kernel(query: Tensor, key: Tensor, value: Tensor, scaling: float | None, window: int | None, bounds: Tensor, longest: int) -> Tensor:
    options: dict[str, Any] = {"scale": scaling}
    if "enable_gqa" in _KNOWN:  # from torch 2.12 on grouped heads are asked for; before, the kernel simply takes them
        options["enable_gqa"] = key.shape[1] != query.shape[1]
    if "window_size" in _KNOWN:
        options["window_size"] = (-1 if window is None else window - 1, 0)
    elif window is None or longest <= window:
        options["is_causal"] = True
    else:
        raise ValueError("this torch's variable-length attention has no sliding window; use a later one")
    attended: Tensor = varlen_attn(query, key, value, bounds, bounds, longest, longest, **options)  # type: ignore[assignment]
    return attended


def _one_by_one(
    query: Tensor, key: Tensor, value: Tensor, scaling: float | None, dropout: float, window: int | None, bounds: Tensor
) -> Tensor:
    grouped = key.shape[1] != query.shape[1]
    edges = bounds.tolist()
    parts = []
    for start, end in zip(edges[:-1], edges[1:], strict=True):
        own_query, own_key, own_value = (part[start:end].transpose(0, 1)[None] for part in (query, key, value))
        mask = None
        if window is not None and end - start > window:
            mask = torch.ones(end - start, end - start, dtype=torch.bool, device=query.device).tril().triu(1 - window)
        attended = scaled_dot_product_attention(
            own_query, own_key, own_value,
            attn_mask=mask, dropout_p=dropout, is_causal=mask is None, scale=scaling, enable_gqa=grouped,
        )  # fmt: skip
        parts.append(attended[0].transpose(0, 1))
    return torch.cat(parts)


ALL_ATTENTION_FUNCTIONS.register(VARLEN, packed_attention)
