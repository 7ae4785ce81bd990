"""Several layers' NF4 weights unpacked as one."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:  # CPU builds of torch come without it
    triton = None


class PackedWeights(NamedTuple):
    """Double-quantised NF4 weights of one or more layers, one below the other, as bitsandbytes packs them.

    Attributes:
        data: [weights / 2], uint8, two weights a byte.
        code: [16], fp32, the values of the 4-bit codes.
        scales: [weights / block], uint8.
        scale_code: [256], fp32, the values of the scales' codes.
        second_scales: [scales / second block], fp32.
        offsets: [scales / second block], fp32, each layer's own offset repeated.
        block: Weights a scale.
        second_block: Scales a second scale.
    """

    data: Tensor
    code: Tensor
    scales: Tensor
    scale_code: Tensor
    second_scales: Tensor
    offsets: Tensor
    block: int
    second_block: int


def join_packed(layers: Sequence[Any]) -> PackedWeights:
    """Lay bitsandbytes' 4-bit weights one below the other; each layer goes on as a view of the joint tensors.

    Args:
        layers: `Linear4bit` layers, double-quantised, of the same input width.
    """
    states = [layer.weight.quant_state for layer in layers]
    data = torch.cat([layer.weight.data.reshape(-1) for layer in layers])
    scales = torch.cat([state.absmax for state in states])
    for layer, own, own_scales in zip(
        layers, data.split([layer.weight.data.numel() for layer in layers]), scales.split([len(state.absmax) for state in states]),
        strict=True,
    ):  # fmt: skip
        layer.weight.data = own.view(layer.weight.data.shape)
        layer.weight.quant_state.absmax = own_scales
    return PackedWeights(
        data,
        states[0].code,
        scales,
        states[0].state2.code,
        torch.cat([state.state2.absmax for state in states]),
        torch.cat([state.offset.expand(len(state.state2.absmax)) for state in states]).float(),
        states[0].blocksize,
        states[0].state2.blocksize,
    )


def unpack_nf4(packed: PackedWeights, out: Tensor) -> None:
    """Unpack weights, scales and all, in one pass; bitsandbytes takes three a layer.

    Args:
        packed: The weights.
        out: [sum of outs, in], filled; its rows may lie apart.
    """
    size = len(packed.data)
    _unpack_nf4[(triton.cdiv(size, _PACKED),)](
        packed.data, packed.code, packed.scales, packed.scale_code, packed.second_scales, packed.offsets, out, size,
        WIDTH=out.shape[1], STRIDE=out.stride(0), PER_SCALE=packed.block // 2, PER_SECOND=packed.second_block, BLOCK=_PACKED, num_warps=4,
    )  # fmt: skip


_PACKED = 2048  # bytes that one program of the unpacking takes, 4,096 weights


if triton is not None:

    @triton.jit
    def _unpack_nf4(
        packed, code, absmax, second_code, second_absmax, offsets, out, size,
        WIDTH: tl.constexpr, STRIDE: tl.constexpr, PER_SCALE: tl.constexpr, PER_SECOND: tl.constexpr, BLOCK: tl.constexpr,
    ):  # fmt: skip
        at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        inside = at < size
        pair = tl.load(packed + at, mask=inside, other=0).to(tl.int32)
        block = at // PER_SCALE
        quantised = tl.load(absmax + block, mask=inside, other=0).to(tl.int32)
        second = block // PER_SECOND
        scale = tl.load(second_code + quantised) * tl.load(second_absmax + second, mask=inside, other=0.0)
        scale += tl.load(offsets + second, mask=inside, other=0.0)
        high = tl.load(code + (pair >> 4)) * scale
        low = tl.load(code + (pair & 15)) * scale
        both = tl.interleave(high, low).to(out.dtype.element_ty)
        to = tl.program_id(0).to(tl.int64) * 2 * BLOCK + tl.arange(0, 2 * BLOCK)
        tl.store(out + (to // WIDTH) * STRIDE + to % WIDTH, both, mask=to < 2 * size)
