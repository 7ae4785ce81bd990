"""Cross-entropy of rows of logits and its gradient in two passes over them, in place: one Triton kernel on CUDA, plain torch elsewhere.

Plain torch passes over the logits about ten times, in fp32, and takes a fifth as long as the two products around it.
"""

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:  # CPU builds of torch come without it
    triton = None


def cross_entropy_rows(logits: Tensor, targets: Tensor, wants_gradient: bool) -> Tensor:
    """-log softmax(logits)[target] of each row, in fp32 whatever the logits are.

    Args:
        logits: [rows, vocabulary], contiguous; overwritten by the gradient, softmax minus one-hot, when that is wanted.
        targets: [rows], token ids.
        wants_gradient: Whether to overwrite.

    Returns:
        [rows], fp32, nats.
    """
    if logits.is_cuda:
        losses = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
        _cross_entropy[(len(logits),)](logits, targets, losses, logits.shape[1], GRADIENT=wants_gradient, BLOCK=_ELEMENTS, num_warps=8)
        return losses
    wide = logits.float()
    normaliser = wide.logsumexp(dim=1, keepdim=True)
    chosen = targets[:, None]
    found = (normaliser - wide.gather(1, chosen))[:, 0]
    if wants_gradient:
        gradient = wide.sub_(normaliser).exp_()
        gradient.scatter_add_(1, chosen, gradient.new_full(chosen.shape, -1.0))
        if gradient is not logits:  # fp32 logits are widened to themselves
            logits.copy_(gradient)
    return found


if triton is not None:

    @triton.jit
    def _cross_entropy(logits, targets, losses, width, GRADIENT: tl.constexpr, BLOCK: tl.constexpr):
        row = tl.program_id(0).to(tl.int64)
        own = logits + row * width
        target = tl.load(targets + row)
        chosen = tl.load(own + target).to(tl.float32)  # before anything is overwritten
        largest = -float("inf")
        total = 0.0
        for start in range(0, width, BLOCK):
            at = start + tl.arange(0, BLOCK)
            value = tl.load(own + at, mask=at < width, other=-float("inf")).to(tl.float32)
            higher = tl.maximum(largest, tl.max(value, axis=0))
            total = total * tl.exp(largest - higher) + tl.sum(tl.exp(value - higher), axis=0)
            largest = higher
        normaliser = largest + tl.log(total)
        tl.store(losses + row, normaliser - chosen)
        if GRADIENT:
            for start in range(0, width, BLOCK):
                at = start + tl.arange(0, BLOCK)
                value = tl.load(own + at, mask=at < width, other=0.0).to(tl.float32)
                gradient = tl.exp(value - normaliser) - tl.where(at == target, 1.0, 0.0)
                tl.store(own + at, gradient.to(logits.dtype.element_ty), mask=at < width)


_ELEMENTS = 8192  # logits of a row that are in flight at once
