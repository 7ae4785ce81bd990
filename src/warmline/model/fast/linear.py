"""Frozen linear layers with adapters, those that share their input as one product: the building block of the fused decoder."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from warmline.model.fast.nf4 import join_packed, unpack_nf4

_ALIGNED = 8  # values: 16 bytes, what the fastest products ask of a row


class JointLinear:
    """Frozen linear layers that share their input, with their adapters: y = x W^T + bias + scale * (x A^T) B^T, the outputs side by side.

    Where the input comes from a kernel of ours, it comes with room: [x, x A^T] times [W, B]^T is one product, and y is written once.

    Args:
        modules: PEFT's LoRA layers, in the order of their outputs. Plain weights are moved into one tensor that the modules then view.
        roomy: Whether inputs come with room.
    """

    def __init__(self, modules: Sequence[Any], roomy: bool) -> None:
        name = modules[0].active_adapters[0]
        layers = [module.base_layer for module in modules]
        self.a = [module.lora_A[name].weight for module in modules]
        self.b = [module.lora_B[name].weight for module in modules]
        self.scales = [float(module.scaling[name]) for module in modules]
        self._widths = [module.out_features for module in modules]
        self._ranks = [len(a) for a in self.a]
        self._inside = int(self.a[0].shape[1])
        self.room = -(-sum(self._ranks) // _ALIGNED) * _ALIGNED
        state = getattr(layers[0].weight, "quant_state", None)
        like = {"dtype": layers[0].weight.dtype if state is None else state.dtype, "device": layers[0].weight.device}
        self._a = torch.zeros(self.room, self._inside, **like)
        self._bias = _join_biases(layers, like)
        self._packed = None if state is None else join_packed(layers)
        if self._packed is None and (roomy or len(layers) > 1):
            self._joint = _join([layer.weight for layer in layers], self.room)
            self._b = self._joint[:, self._inside :]
        else:
            self._joint = layers[0].weight.detach()
            self._b = torch.zeros(sum(self._widths), self.room, **like)

    @property
    def parameters(self) -> list[Tensor]:
        """A and B of each layer in turn."""
        return [tensor for pair in zip(self.a, self.b, strict=True) for tensor in pair]

    def working_copies(self) -> list[tuple[Tensor, Tensor, float]]:
        """(target, parameter, factor) of the half-precision copies that the products take: A scaled, and B on a block diagonal."""
        starts = _starts(self._ranks)
        a_targets = [self._a[start : start + rank] for start, rank in zip(starts, self._ranks, strict=True)]
        blocks = zip(self._b.split(self._widths), self._ranks, starts, strict=True)
        b_targets = [rows[:, start : start + rank] for rows, rank, start in blocks]
        return [
            *zip(a_targets, self.a, self.scales, strict=True),
            *((target, b, 1.0) for target, b in zip(b_targets, self.b, strict=True)),
        ]

    def weight(self) -> Tensor:
        """W, [sum of outs, in]; 4-bit ones are unpacked for the moment of their use."""
        if self._packed is None:
            return self._joint[:, : self._inside]
        joint = self._a.new_empty(sum(self._widths), self._inside)
        unpack_nf4(self._packed, joint)
        return joint

    def _weight_and_b(self) -> Tensor:
        """[W, B], [sum of outs, in + room]."""
        if self._packed is None:
            return self._joint
        joint = self._a.new_empty(sum(self._widths), self._inside + self.room)
        unpack_nf4(self._packed, joint[:, : self._inside])
        joint[:, self._inside :] = self._b
        return joint

    def project(self, roomy: Tensor, reduced: Tensor | None) -> "Projected":
        """Outputs of an input that comes with room.

        Args:
            roomy: [tokens, in + room], x in its first columns.
            reduced: [tokens, room], what belongs into the others, where it is known.
        """
        x, room = roomy.split([self._inside, self.room], dim=1)
        if reduced is None:
            torch.mm(x, self._a.T, out=room)
        else:
            room.copy_(reduced)
        weight = self._weight_and_b()
        y = roomy @ weight.T if self._bias is None else torch.addmm(self._bias, roomy, weight.T)
        return Projected(x, room, y, weight[:, : self._inside])

    def reduce(self, x: Tensor) -> Tensor:
        """Product of x with every scaled A, [tokens, room]."""
        return x @ self._a.T

    def product(self, x: Tensor, reduced: Tensor | None, residual: Tensor | None = None) -> Tensor:
        """y, [tokens, sum of outs], on top of a residual; without `reduced` the adapters are left out."""
        y = x @ self.weight().T if residual is None else torch.addmm(residual, x, self.weight().T)
        y = y if self._bias is None else y.add_(self._bias)
        return y if reduced is None else y.addmm_(reduced, self._b.T)

    def backward(self, x: Tensor, reduced: Tensor | None, grad: Tensor, weight: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """Gradients of the product.

        Args:
            x: [tokens, in], its input.
            reduced: [tokens, room], as from `reduce`.
            grad: [tokens, sum of outs].
            weight: W, where it is still at hand.

        Returns:
            [tokens, in], and the gradients of `parameters`, fp32.

        Raises:
            ValueError: the adapters were left out of the forward pass.
        """
        if reduced is None:
            raise ValueError("a pass without adapters has no backward pass")
        grad_reduced = grad @ self._b
        grad_a = _wide_product(grad_reduced.T, x)
        grad_b = _wide_product(grad.T, reduced).split(self._widths)
        pairs: list[Tensor] = []
        for part_b, rank, start, scale in zip(grad_b, self._ranks, _starts(self._ranks), self.scales, strict=True):
            part_a = grad_a[start : start + rank]
            pairs += [part_a if scale == 1 else part_a * scale, part_b[:, start : start + rank]]
        return (grad @ (self.weight() if weight is None else weight)).addmm_(grad_reduced, self._a), pairs


class Projected(NamedTuple):
    """What a `JointLinear` makes of a norm.

    Attributes:
        normed: [tokens, in], its input.
        reduced: [tokens, room], None without adapters, as all `reduced` here.
        y: [tokens, sum of outs].
        weight: W; None where it is not to be held.
    """

    normed: Tensor
    reduced: Tensor | None
    y: Tensor
    weight: Tensor | None


def _join(weights: list[nn.Parameter], room: int) -> Tensor:
    """One tensor that holds the weights one below the other, and zeros in `room` more columns; each parameter becomes a view of it."""
    joint = weights[0].detach().new_zeros(sum(map(len, weights)), weights[0].shape[1] + room)
    for weight, part in zip(weights, joint.split([len(weight) for weight in weights]), strict=True):
        part[:, :-room] = weight.detach()
        weight.data = part[:, :-room]
    return joint


def _join_biases(layers: Sequence[Any], like: dict[str, Any]) -> Tensor | None:
    """[sum of outs], frozen; None where no layer has one."""
    if all(layer.bias is None for layer in layers):
        return None
    return torch.cat(
        [torch.zeros(layer.out_features, **like) if layer.bias is None else layer.bias.detach().to(**like) for layer in layers]
    )


def _wide_product(left: Tensor, right: Tensor) -> Tensor:
    """`left @ right` with an fp32 result, for gradients that the optimiser keeps in fp32."""
    if left.is_cuda and left.dtype != torch.float32:
        return torch.mm(left, right, out_dtype=torch.float32)
    return (left @ right).float()


def _starts(widths: list[int]) -> list[int]:
    return [sum(widths[:at]) for at in range(len(widths))]
