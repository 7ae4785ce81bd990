"""Attention inside each conversation of one flat sequence, causal, registered with transformers as `warmline_varlen`.

transformers hands unknown keyword arguments of a decoder's forward down to its attention function; `bounds` travel that way under the
names it already knows (`cu_seq_lens_q`, `max_length_q`). On CUDA in half precision one of torch's kernels does the work: FlashAttention
with variable lengths; on cards before Ampere the memory-efficient one; and from Hopper on cuDNN's, where every conversation fills a row
of one length (it takes 57 % of FlashAttention-2's time, but builds a graph for each shape). They are called as operators and not through
`torch.nn.attention.varlen`, whose signature changes from release to release and which has no way to run the backward pass alone. Elsewhere
each conversation goes through `scaled_dot_product_attention`, which costs the sum of squared lengths rather than their square.

A later FlashAttention (3 or 4), once installed and switched on with `torch.nn.attention.activate_flash_attention_impl`, takes these
operators over.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import DynamicCache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from warmline.model.generation import Columns

VARLEN = "warmline_varlen"
FLASH_CAPABILITY = (8, 0)
"""Compute capability from which FlashAttention runs; older cards (T4: 7.5) have the memory-efficient kernel."""
CUDNN_CAPABILITY = (9, 0)
"""Compute capability from which cuDNN's kernel is the faster one."""
_ROW = 1024  # cuDNN takes rows of a multiple of this: few shapes, so few graphs, each about half a second to build


class Scope(NamedTuple):
    """What each token of a flat sequence sees, and how it weighs that.

    Attributes:
        bounds: [conversations + 1], int32, where conversations begin and end; nobody looks across.
        longest: Tokens of the longest conversation.
        scaling: Of the scores; None is 1 / sqrt(head size).
        window: Tokens a query sees, itself included; None sees all before it.
    """

    bounds: Tensor
    longest: int
    scaling: float | None = None
    window: int | None = None


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int | None = None,
    row_caches: Sequence[DynamicCache] | None = None,
    columns: Columns | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention that never looks across `cu_seq_lens_q`, or, with `row_caches` or `columns`, of one new token of each of many.

    Args:
        module: The attention layer that asks; with `row_caches` its number is read.
        query: [1, heads, tokens, head size].
        key: [1, key heads, tokens, head size].
        value: As key.
        attention_mask: Must be None: the bounds say everything.
        scaling: Of the scores; None is 1 / sqrt(head size).
        dropout: On the attention weights; CPU and fallback path only.
        sliding_window: Tokens a query sees, itself included; None sees all before it.
        cu_seq_lens_q: [conversations + 1], int32, where conversations begin and end.
        max_length_q: Tokens of the longest conversation.
        row_caches: Token i is the newest of conversation i, whose keys and values, the token's own included, are in cache i; tokens beyond
            the last cache are padding.
        columns: Token i is the newest of row i, whose keys and values stand there; all rows at once, where serving's caches go one by one.

    Returns:
        [1, tokens, heads, head size], and None for the weights.

    Raises:
        ValueError: no bounds, or a mask.
    """
    if row_caches is not None:
        return _newest_tokens(query, row_caches, cast(int, module.layer_idx), scaling, sliding_window), None
    if columns is not None:
        return _newest_column(query, columns, cast(int, module.layer_idx), scaling, sliding_window), None
    if cu_seq_lens_q is None or max_length_q is None or attention_mask is not None or query.shape[0] != 1:
        raise ValueError("packed attention takes one flat sequence with cu_seq_lens_q and max_length_q, and no attention mask")
    flat_query, flat_key, flat_value = query[0].transpose(0, 1), key[0].transpose(0, 1), value[0].transpose(0, 1)
    scope = Scope(cu_seq_lens_q, max_length_q, scaling, sliding_window)
    return attend(flat_query, flat_key, flat_value, scope, dropout)[None], None


def _newest_tokens(query: Tensor, caches: Sequence[DynamicCache], layer: int, scaling: float | None, window: int | None) -> Tensor:
    """Each row looks at its own cache alone, in a call of its own, so that no other conversation can change a bit of it."""
    attended = query.new_zeros(1, query.shape[2], query.shape[1], query.shape[3])
    for row, cache in enumerate(caches):
        keys, values = cache.layers[layer].keys, cache.layers[layer].values
        if window is not None:
            keys, values = keys[:, :, -window:], values[:, :, -window:]
        grouped = keys.shape[1] != query.shape[1]
        own = scaled_dot_product_attention(query[:, :, row : row + 1], keys, values, scale=scaling, enable_gqa=grouped)
        attended[:, row] = own[:, :, 0]
    return attended


def _newest_column(query: Tensor, columns: Columns, layer: int, scaling: float | None, window: int | None) -> Tensor:
    """Query heads that share a key head are looked up together, so that keys and values are read once and never repeated."""
    keys, values, seen = columns.newest(layer, window)
    rows, heads, size = query.shape[2], keys.shape[1], query.shape[3]
    asked = query[0].transpose(0, 1).reshape(rows, heads, -1, size)
    scores = asked @ keys.transpose(-1, -2) * (size**-0.5 if scaling is None else scaling)
    weights = scores.masked_fill(~seen[:, None, None], float("-inf")).softmax(dim=-1, dtype=torch.float32).to(values.dtype)
    return (weights @ values).reshape(1, rows, -1, size)


def attend(query: Tensor, key: Tensor, value: Tensor, scope: Scope, dropout: float = 0.0) -> Tensor:
    """The same on flat tensors.

    Args:
        query: [tokens, heads, head size].
        key: [tokens, key heads, head size].
        value: As key.
        scope: What each token sees.
        dropout: On the attention weights; fallback path only.

    Returns:
        [tokens, heads, head size].
    """
    if has_kernel(query) and dropout == 0.0:
        return _Kernel.apply(query, key, value, scope)  # type: ignore[no-untyped-call,no-any-return]
    return _one_by_one(query, key, value, scope, dropout)


class Attended(NamedTuple):
    """What attention gives, and what its backward pass needs beside queries, keys and values.

    Attributes:
        out: [tokens, heads, head size].
        statistics: The kernel's own: log-sum-exp of the scores and its random state. Empty without a kernel.
    """

    out: Tensor
    statistics: tuple[Tensor, ...]


def has_kernel(query: Tensor) -> bool:
    """Whether a variable-length kernel takes these tensors: half precision on CUDA."""
    return query.is_cuda and query.dtype in (torch.bfloat16, torch.float16)


def attend_forward(query: Tensor, key: Tensor, value: Tensor, scope: Scope) -> Attended:
    """`attend` for callers with a backward pass of their own; arguments as there."""
    if not has_kernel(query):
        return Attended(_one_by_one(query, key, value, scope), ())
    bounds, longest = scope.bounds, scope.longest
    if _fills_rows(query, scope):
        rows = (_in_rows(part, longest) for part in (query, key, value))
        out, normaliser, _, _, _, _, seed, offset, _ = torch.ops.aten._scaled_dot_product_cudnn_attention(
            *rows, None, True, 0.0, True, False, scale=scope.scaling
        )
        return Attended(_flat(out), (normaliser, seed, offset))
    if _has_flash(query):
        out, normaliser, state, *_ = torch.ops.aten._flash_attention_forward(
            query, key, value, bounds, bounds, longest, longest, 0.0, True, False,
            scale=scope.scaling, window_size_left=_left(scope), window_size_right=0,
        )  # fmt: skip
        return Attended(out, (normaliser, state))
    out, normaliser, seed, offset, *_ = torch.ops.aten._efficient_attention_forward(
        query[None], _repeated(key, query), _repeated(value, query), None, bounds, bounds, longest, longest, 0.0, 1, True,
        scale=scope.scaling, window_size=scope.window,
    )  # fmt: skip
    return Attended(out[0], (normaliser, seed, offset))


def attend_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, attended: Attended, scope: Scope
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values.

    Args:
        grad: Of the output, [tokens, heads, head size].
        query: As in the forward pass, and so are the others.
        key: See query.
        value: See query.
        attended: What `attend_forward` gave.
        scope: See query.
    """
    if not has_kernel(query):
        return _backward_one_by_one(grad, query, key, value, scope)
    bounds, longest = scope.bounds, scope.longest
    if _fills_rows(query, scope):
        rows = (_in_rows(part, longest) for part in (grad, query, key, value, attended.out))
        own_query, own_key, own_value = torch.ops.aten._scaled_dot_product_cudnn_attention_backward(
            *rows, *attended.statistics, None, None, None, longest, longest, 0.0, True, scale=scope.scaling
        )
        return _flat(own_query), _flat(own_key), _flat(own_value)
    if _has_flash(query):
        normaliser, state = attended.statistics
        found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten._flash_attention_backward(
            grad, query, key, value, attended.out, normaliser, bounds, bounds, longest, longest, 0.0, True, state,
            query.new_empty(0), scale=scope.scaling, window_size_left=_left(scope), window_size_right=0,
        )  # fmt: skip
        return found
    normaliser, seed, offset = attended.statistics
    grad_query, grad_key, grad_value, _ = torch.ops.aten._efficient_attention_backward(
        grad[None], query[None], _repeated(key, query), _repeated(value, query), None, attended.out[None], bounds, bounds,
        longest, longest, normaliser, 0.0, seed, offset, 1, False, scale=scope.scaling, window_size=scope.window,
    )  # fmt: skip
    groups = (len(key), key.shape[1], -1, key.shape[2])
    return grad_query[0], grad_key[0].view(groups).sum(dim=2), grad_value[0].view(groups).sum(dim=2)


class _Kernel(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, scope: Scope) -> Tensor:
        attended = attend_forward(query, key, value, scope)
        ctx.save_for_backward(query, key, value, attended.out, *attended.statistics)
        ctx.scope = scope
        return attended.out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        query, key, value, out, *statistics = ctx.saved_tensors
        return (*attend_backward(grads[0].contiguous(), query, key, value, Attended(out, tuple(statistics)), ctx.scope), None)


def _has_flash(query: Tensor) -> bool:
    return torch.cuda.get_device_capability(query.device) >= FLASH_CAPABILITY


def _fills_rows(query: Tensor, scope: Scope) -> bool:
    """Whether all conversations are equally long, so that they are a dense batch, and cuDNN's kernel takes it."""
    capability = torch.cuda.get_device_capability(query.device)
    dense = len(query) == scope.longest * (len(scope.bounds) - 1) and scope.longest % _ROW == 0
    return dense and scope.window is None and query.shape[-1] <= 128 and capability >= max(CUDNN_CAPABILITY, FLASH_CAPABILITY)


def _in_rows(part: Tensor, longest: int) -> Tensor:
    """[tokens, heads, head size] to [rows, heads, row, head size], a view."""
    return part.view(-1, longest, *part.shape[1:]).transpose(1, 2)


def _flat(part: Tensor) -> Tensor:
    """The reverse of `_in_rows`; a view of what cuDNN gives, which keeps its input's order in memory."""
    return part.transpose(1, 2).reshape(-1, part.shape[1], part.shape[3])


def _left(scope: Scope) -> int:
    """How far back a query sees; -1 is without limit."""
    return -1 if scope.window is None else scope.window - 1


def _repeated(keys: Tensor, query: Tensor) -> Tensor:
    """[1, tokens, heads, head size]: the memory-efficient kernel knows no grouped heads."""
    return keys.repeat_interleave(query.shape[1] // keys.shape[1], dim=1)[None]


def _backward_one_by_one(grad: Tensor, query: Tensor, key: Tensor, value: Tensor, scope: Scope) -> tuple[Tensor, Tensor, Tensor]:
    with torch.enable_grad():
        query, key, value = (part.detach().requires_grad_() for part in (query, key, value))
        out = _one_by_one(query, key, value, scope)
    grad_query, grad_key, grad_value = torch.autograd.grad(out, (query, key, value), grad)
    return grad_query, grad_key, grad_value


def _one_by_one(query: Tensor, key: Tensor, value: Tensor, scope: Scope, dropout: float = 0.0) -> Tensor:
    grouped = key.shape[1] != query.shape[1]
    edges, window = scope.bounds.tolist(), scope.window
    parts = []
    for start, end in zip(edges[:-1], edges[1:], strict=True):
        own_query, own_key, own_value = (part[start:end].transpose(0, 1)[None] for part in (query, key, value))
        mask = None
        if window is not None and end - start > window:
            mask = torch.ones(end - start, end - start, dtype=torch.bool, device=query.device).tril().triu(1 - window)
        attended = scaled_dot_product_attention(
            own_query, own_key, own_value,
            attn_mask=mask, dropout_p=dropout, is_causal=mask is None, scale=scope.scaling, enable_gqa=grouped,
        )  # fmt: skip
        parts.append(attended[0].transpose(0, 1))
    return torch.cat(parts)


ALL_ATTENTION_FUNCTIONS.register(VARLEN, packed_attention)
