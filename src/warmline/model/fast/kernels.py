"""The element-wise parts of a decoder layer, each one Triton kernel forward and one backward on CUDA, plain torch elsewhere.

Every one of them is bound by memory: plain torch reads and writes a [tokens, width] tensor several times where once would do. Frozen
norms get no gradient of their own weight, which libraries' kernels compute all the same. The torch versions below are the reference.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import gelu, silu

try:
    import triton
    import triton.language as tl
except ImportError:  # CPU builds of torch come without it
    triton = None


Activation = Literal["silu", "gelu_tanh"]
"""Of the gate: most models', and Gemma's approximate GELU."""

_ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "silu": silu,
    "gelu_tanh": lambda gate: gelu(gate, approximate="tanh"),
}


class Norm(NamedTuple):
    """A frozen RMS norm.

    Attributes:
        weight: [width]. In x's precision the norm is rounded to it before the product, as transformers' Qwen3 does; in fp32 only the
            product is, as its Gemma 3 does (whose weight here is one more than the module's).
        epsilon: Added to the mean square.
    """

    weight: Tensor
    epsilon: float


def rms_norm(x: Tensor, norm: Norm, room: int = 0, residual: Tensor | None = None) -> Tensor:
    """RMS norm over the last axis, statistics in fp32, on top of a residual.

    Args:
        x: [tokens, width].
        norm: Weight and epsilon.
        room: Further columns of the result, left to the caller to fill.
        residual: [tokens, width], or None for nothing to add.

    Returns:
        [tokens, width + room].
    """
    rows, width = x.shape
    out = x.new_empty(rows, width + room)
    if not x.is_cuda:
        normed = _scaled(x, norm.weight, norm.epsilon)
        out[:, :width] = normed if residual is None else residual + normed
        return out
    _rms_norm_forward[(rows,)](
        x, norm.weight, x if residual is None else residual, out, width, width + room, norm.epsilon,
        ROUND=norm.weight.dtype == x.dtype, ADD=residual is not None, BLOCK=triton.next_power_of_2(width), num_warps=8,
    )  # fmt: skip
    return out


def rms_norm_backward(grad: Tensor, x: Tensor, norm: Norm, residual: Tensor | None = None) -> Tensor:
    """Gradient of `rms_norm` for x, with the gradient that went around the norm added to it.

    Args:
        grad: [tokens, width].
        x: [tokens, width], the norm's input.
        norm: Weight and epsilon.
        residual: [tokens, width], or None for nothing to add.
    """
    if not x.is_cuda:
        inner = _gradients(lambda value: _scaled(value, norm.weight, norm.epsilon), (x,), grad)[0]
        return inner if residual is None else inner + residual
    rows, width = x.shape
    out = torch.empty_like(x)
    _rms_norm_backward[(rows,)](
        grad, x, norm.weight, grad if residual is None else residual, out, width, norm.epsilon,
        ADD=residual is not None, BLOCK=triton.next_power_of_2(width), num_warps=8,
    )  # fmt: skip
    return out


class HeadLayout(NamedTuple):
    """How a joint projection splits into heads.

    Attributes:
        norms: Of queries and keys, weight [2, head size]; None where they have none.
        key_heads: Number of key (and of value) heads.
    """

    norms: Norm | None
    key_heads: int


def split_heads(qkv: Tensor, layout: HeadLayout, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value heads of one joint projection: RMS norm (where there is one) and rotary embedding on queries and keys.

    Args:
        qkv: [tokens, (query heads + 2 key heads) * head size].
        layout: Of the heads.
        cos: [tokens, head size].
        sin: [tokens, head size].

    Returns:
        [tokens, query heads, head size], and two of [tokens, key heads, head size]; the values are a view of `qkv`.
    """
    tokens, size, keys = len(qkv), cos.shape[1], layout.key_heads
    heads = qkv.view(tokens, -1, size)
    queries = heads.shape[1] - 2 * keys
    value = heads[:, queries + keys :]
    if not qkv.is_cuda:
        query, key = heads[:, :queries], heads[:, queries : queries + keys]
        if layout.norms is not None:
            (of_query, of_key), epsilon = layout.norms
            query, key = _scaled(query, of_query, epsilon), _scaled(key, of_key, epsilon)
        return _rotated(query, cos, sin), _rotated(key, cos, sin), value
    query, key = qkv.new_empty(tokens, queries, size), qkv.new_empty(tokens, keys, size)
    weight, epsilon = layout.norms or (qkv, 0.0)
    _heads_forward[(tokens,)](
        qkv, weight, cos, sin, query, key, epsilon, NORM=layout.norms is not None, ROUND=weight.dtype == qkv.dtype,
        QUERIES=queries, KEYS=keys, HALF=size // 2, TILE=_TILE, num_warps=4,
    )  # fmt: skip
    return query, key, value


def split_heads_backward(grads: tuple[Tensor, Tensor, Tensor], qkv: Tensor, layout: HeadLayout, cos: Tensor, sin: Tensor) -> Tensor:
    """Gradient of `split_heads` for `qkv`.

    Args:
        grads: Of queries, keys and values.
        qkv: Its input.
        layout: Of the heads.
        cos: [tokens, head size].
        sin: [tokens, head size].
    """
    if not qkv.is_cuda:
        return _gradients(lambda value: split_heads(value, layout, cos, sin), (qkv,), grads)[0]
    tokens, size, keys = len(qkv), cos.shape[1], layout.key_heads
    out = torch.empty_like(qkv)
    heads = out.view(tokens, -1, size)
    queries = heads.shape[1] - 2 * keys
    weight, epsilon = layout.norms or (qkv, 0.0)
    _heads_backward[(tokens,)](
        grads[0].contiguous(), grads[1].contiguous(), qkv, weight, cos, sin, out, epsilon, NORM=layout.norms is not None,
        QUERIES=queries, KEYS=keys, HALF=size // 2, TILE=_TILE, num_warps=4,
    )  # fmt: skip
    heads[:, queries + keys :] = grads[2]
    return out


def gated(gate_up: Tensor, activation: Activation) -> Tensor:
    """activation(gate) * up.

    Args:
        gate_up: [tokens, 2 * width], gate first.
        activation: Of the gate.

    Returns:
        [tokens, width].
    """
    if not gate_up.is_cuda:
        gate, up = gate_up.chunk(2, dim=1)
        return _ACTIVATIONS[activation](gate) * up
    rows, width = len(gate_up), gate_up.shape[1] // 2
    out = gate_up.new_empty(rows, width)
    _gated_forward[(rows, triton.cdiv(width, _ELEMENTS))](gate_up, out, width, GELU=activation == "gelu_tanh", BLOCK=_ELEMENTS, num_warps=4)
    return out


def gated_backward(grad: Tensor, gate_up: Tensor, activation: Activation) -> Tensor:
    """Gradient of `gated`; on CUDA it overwrites `gate_up`, which nothing else needs by then.

    Args:
        grad: [tokens, width].
        gate_up: Its input.
        activation: Of the gate.
    """
    if not gate_up.is_cuda:
        return _gradients(lambda value: gated(value, activation), (gate_up,), grad)[0]
    rows, width = len(gate_up), gate_up.shape[1] // 2
    _gated_backward[(rows, triton.cdiv(width, _ELEMENTS))](
        grad, gate_up, width, GELU=activation == "gelu_tanh", BLOCK=_ELEMENTS, num_warps=4
    )
    return gate_up


def _gradients(function: Any, inputs: tuple[Tensor, ...], grads: Any) -> tuple[Tensor, ...]:
    """The reference gradient, by autograd."""
    with torch.enable_grad():
        leaves = tuple(value.detach().requires_grad_() for value in inputs)
        return torch.autograd.grad(function(*leaves), leaves, grads)


def _rotated(normed: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = normed.chunk(2, dim=-1)
    return normed * cos[:, None] + torch.cat([-second, first], dim=-1) * sin[:, None]


def _scaled(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    wide = x.float()
    normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon)
    return weight * normed.to(x.dtype) if weight.dtype == x.dtype else (weight * normed).to(x.dtype)


if triton is not None:

    @triton.jit
    def _rms_norm_forward(x, weight, residual, out, width, stride, epsilon, ROUND: tl.constexpr, ADD: tl.constexpr, BLOCK: tl.constexpr):
        row = tl.program_id(0).to(tl.int64)
        at = tl.arange(0, BLOCK)
        inside = at < width
        value = tl.load(x + row * width + at, mask=inside, other=0.0)
        wide = value.to(tl.float32)
        inverse = tl.rsqrt(tl.sum(wide * wide, axis=0) / width + epsilon)
        scale = tl.load(weight + at, mask=inside, other=0.0)
        normed = wide * inverse
        if ROUND:
            normed = normed.to(value.dtype)
        normed = normed * scale
        if ADD:
            normed = normed.to(tl.float32) + tl.load(residual + row * width + at, mask=inside, other=0.0).to(tl.float32)
        tl.store(out + row * stride + at, normed.to(out.dtype.element_ty), mask=inside)

    @triton.jit
    def _rms_norm_backward(grad, x, weight, residual, out, width, epsilon, ADD: tl.constexpr, BLOCK: tl.constexpr):
        row = tl.program_id(0).to(tl.int64)
        at = tl.arange(0, BLOCK)
        inside = at < width
        wide = tl.load(x + row * width + at, mask=inside, other=0.0).to(tl.float32)
        inverse = tl.rsqrt(tl.sum(wide * wide, axis=0) / width + epsilon)
        normed = wide * inverse
        outer = tl.load(grad + row * width + at, mask=inside, other=0.0).to(tl.float32)
        inner = outer * tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
        mean = tl.sum(inner * normed, axis=0) / width
        gradient = (inner - normed * mean) * inverse
        if ADD:
            gradient += tl.load(residual + row * width + at, mask=inside, other=0.0).to(tl.float32)
        tl.store(out + row * width + at, gradient.to(out.dtype.element_ty), mask=inside)

    @triton.jit
    def _heads_forward(
        qkv, norms, cos, sin, query, key, epsilon,
        NORM: tl.constexpr, ROUND: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr, HALF: tl.constexpr, TILE: tl.constexpr,
    ):  # fmt: skip
        token = tl.program_id(0).to(tl.int64)
        size: tl.constexpr = 2 * HALF
        at = tl.arange(0, HALF)[None, :]
        cosine, sine = tl.load(cos + token * size + at).to(tl.float32), tl.load(sin + token * size + at).to(tl.float32)
        for start in range(0, QUERIES + KEYS, TILE):
            head = start + tl.arange(0, TILE)[:, None]
            inside = head < QUERIES + KEYS
            low = token * (QUERIES + 2 * KEYS) * size + head * size + at
            first, second = tl.load(qkv + low, mask=inside, other=0.0), tl.load(qkv + low + HALF, mask=inside, other=0.0)
            wide_first, wide_second = first.to(tl.float32), second.to(tl.float32)
            if NORM:
                mean = (tl.sum(wide_first * wide_first, axis=1) + tl.sum(wide_second * wide_second, axis=1)) / size
                inverse = tl.rsqrt(mean + epsilon)[:, None]
                weight = norms + tl.where(head < QUERIES, 0, size) + at
                normed_first, normed_second = wide_first * inverse, wide_second * inverse
                if ROUND:
                    normed_first, normed_second = normed_first.to(first.dtype), normed_second.to(second.dtype)
                wide_first = (normed_first * tl.load(weight)).to(first.dtype).to(tl.float32)
                wide_second = (normed_second * tl.load(weight + HALF)).to(second.dtype).to(tl.float32)
            turned_first = (wide_first * cosine - wide_second * sine).to(query.dtype.element_ty)
            turned_second = (wide_second * cosine + wide_first * sine).to(query.dtype.element_ty)
            to_query = query + (token * QUERIES + head) * size + at
            tl.store(to_query, turned_first, mask=head < QUERIES)
            tl.store(to_query + HALF, turned_second, mask=head < QUERIES)
            to_key = key + (token * KEYS + head - QUERIES) * size + at
            tl.store(to_key, turned_first, mask=inside & (head >= QUERIES))
            tl.store(to_key + HALF, turned_second, mask=inside & (head >= QUERIES))

    @triton.jit
    def _heads_backward(
        grad_query, grad_key, qkv, norms, cos, sin, out, epsilon,
        NORM: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr, HALF: tl.constexpr, TILE: tl.constexpr,
    ):  # fmt: skip
        token = tl.program_id(0).to(tl.int64)
        size: tl.constexpr = 2 * HALF
        at = tl.arange(0, HALF)[None, :]
        cosine, sine = tl.load(cos + token * size + at).to(tl.float32), tl.load(sin + token * size + at).to(tl.float32)
        for start in range(0, QUERIES + KEYS, TILE):
            head = start + tl.arange(0, TILE)[:, None]
            inside = head < QUERIES + KEYS
            low = token * (QUERIES + 2 * KEYS) * size + head * size + at
            of_query = grad_query + (token * QUERIES + head) * size + at
            of_key = grad_key + (token * KEYS + head - QUERIES) * size + at
            is_query, is_key = head < QUERIES, inside & (head >= QUERIES)
            grad_first = tl.load(of_query, mask=is_query, other=0.0).to(tl.float32)
            grad_first += tl.load(of_key, mask=is_key, other=0.0).to(tl.float32)
            grad_second = tl.load(of_query + HALF, mask=is_query, other=0.0).to(tl.float32)
            grad_second += tl.load(of_key + HALF, mask=is_key, other=0.0).to(tl.float32)
            inner_first, inner_second = grad_first * cosine + grad_second * sine, grad_second * cosine - grad_first * sine
            if NORM:
                wide_first = tl.load(qkv + low, mask=inside, other=0.0).to(tl.float32)
                wide_second = tl.load(qkv + low + HALF, mask=inside, other=0.0).to(tl.float32)
                mean = (tl.sum(wide_first * wide_first, axis=1) + tl.sum(wide_second * wide_second, axis=1)) / size
                inverse = tl.rsqrt(mean + epsilon)[:, None]
                weight = norms + tl.where(is_query, 0, size) + at
                inner_first = inner_first * tl.load(weight).to(tl.float32)
                inner_second = inner_second * tl.load(weight + HALF).to(tl.float32)
                normed_first, normed_second = wide_first * inverse, wide_second * inverse
                along = ((tl.sum(inner_first * normed_first, axis=1) + tl.sum(inner_second * normed_second, axis=1)) / size)[:, None]
                inner_first = (inner_first - normed_first * along) * inverse
                inner_second = (inner_second - normed_second * along) * inverse
            tl.store(out + low, inner_first.to(out.dtype.element_ty), mask=inside)
            tl.store(out + low + HALF, inner_second.to(out.dtype.element_ty), mask=inside)

    @triton.jit
    def _gate(wide, GELU: tl.constexpr):
        """What the sigmoid takes, for wide * sigmoid(...) to be the activation."""
        if GELU:  # x/2 (1 + tanh(u)) = x sigmoid(2 u), with 2 u = 2 sqrt(2 / pi) (x + 0.044715 x^3)
            wide = 1.5957691216057308 * (wide + 0.044715 * wide * wide * wide)
        return wide

    @triton.jit
    def _gated_forward(gate_up, out, width, GELU: tl.constexpr, BLOCK: tl.constexpr):
        row = tl.program_id(0).to(tl.int64)
        at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        inside = at < width
        value = tl.load(gate_up + row * 2 * width + at, mask=inside, other=0.0)
        wide = value.to(tl.float32)
        activated = (wide * tl.sigmoid(_gate(wide, GELU))).to(value.dtype)
        lifted = tl.load(gate_up + row * 2 * width + width + at, mask=inside, other=0.0)
        tl.store(out + row * width + at, activated * lifted, mask=inside)

    @triton.jit
    def _gated_backward(grad, gate_up, width, GELU: tl.constexpr, BLOCK: tl.constexpr):
        row = tl.program_id(0).to(tl.int64)
        at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        inside = at < width
        to_gate = gate_up + row * 2 * width + at
        value = tl.load(to_gate, mask=inside, other=0.0)
        wide = value.to(tl.float32)
        lifted = tl.load(to_gate + width, mask=inside, other=0.0).to(tl.float32)
        outer = tl.load(grad + row * width + at, mask=inside, other=0.0).to(tl.float32)
        sigmoid = tl.sigmoid(_gate(wide, GELU))
        activated = wide * sigmoid
        bend = activated * (1 - sigmoid)
        if GELU:
            bend *= 1.5957691216057308 * (1 + 0.134145 * wide * wide)
        tl.store(to_gate + width, (outer * activated).to(value.dtype), mask=inside)
        tl.store(to_gate, (outer * lifted * (sigmoid + bend)).to(value.dtype), mask=inside)


_ELEMENTS = 1024  # values of a row that one program of the gated activation takes
_TILE = 8  # heads of a token that are in flight at once
