"""By how much two computations of the same numbers may differ.

The same products of the same shapes in the same kernels give the same bits, on any device and in any precision. So what a change of
tokens cannot reach is compared bit by bit, where the change keeps every length. One kind of model is different: where tokens are sent to
experts, how many an expert gets at a time is a matter of all the tokens, and with that number its products round differently.
"""

import torch
from torch import Tensor, nn

AGREEMENT = {torch.float32: 1e-4, torch.bfloat16: 6e-2, torch.float16: 2e-2}
"""Largest difference between equal numbers computed in other shapes, as a share of the largest of them."""


def tolerance(model: nn.Module, dtype: torch.dtype) -> float:
    """The largest `gap` between numbers that a change of tokens, not of lengths, cannot reach: 0 but for a model with experts.

    Args:
        model: Any; transformers names a layer's experts `experts`.
        dtype: Of its products.
    """
    return AGREEMENT[dtype] if any(name.rpartition(".")[2] == "experts" for name, _ in model.named_modules()) else 0.0


def gap(one: Tensor, other: Tensor) -> float:
    """Largest difference, as a share of the largest value of the first; 0 if, and only if, they are the same to the last bit.

    Args:
        one: Not empty.
        other: Of the same shape.
    """
    if torch.equal(one, other):
        return 0.0
    return float((one.double() - other.double()).abs().max() / one.double().abs().max().clamp(min=1e-6))
