"""The four objectives as sums with counts, and the chunked products with the unembedding that keep them small.

A full [tokens, vocabulary] tensor at 8B costs 0.6 MB a token in fp32, several GB a row. `chunked_cross_entropy` and `chunked_kl` walk
over the supervised tokens in chunks, compute loss and gradient together, and keep only the gradient of the hidden states, which is as
large as these; `token_nats` and `token_kl` give the same token by token, without a gradient.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, log_softmax

from warmline.config import LossWeights
from warmline.model.fast.logits import cross_entropy_rows

CHUNK_LOGITS = 2**25
"""Logits held at once: 128 MiB in fp32, 220 tokens at Qwen3's vocabulary, enough rows to keep a matrix product busy."""

CPU_TARGETS = 32
"""Targets that a CPU scores at once: their logits over a small vocabulary stay in its cache, which is twice as fast."""


class Term(NamedTuple):
    """One objective's part: the sum over its targets, and how many there were."""

    sum: Tensor
    targets: int


LossTerms = dict[str, Term]
"""By objective, what one forward pass gives. Sums are fp32 scalars; a missing objective is a zero sum that still joins the graph."""


def weighted_loss(terms: LossTerms, weights: LossWeights, denominators: dict[str, int]) -> Tensor:
    """This micro-batch's part of the step's loss, sum_o lambda_o * sum_o / denominator_o.

    Args:
        terms: Of one micro-batch.
        weights: The lambdas.
        denominators: Each objective's number of targets in the whole optimiser step: all micro-batches, all ranks. So accumulating
            gradients gives the same step however it is cut into micro-batches.

    Returns:
        Scalar, fp32.
    """
    total = terms["lm"].sum * 0.0
    for name, term in terms.items():
        total = total + weights[name] / max(denominators[name], 1) * term.sum
    return total


def chunked_cross_entropy(hidden: Tensor, unembedding: Tensor, targets: Tensor) -> Tensor:
    """Sum of the cross-entropies of `hidden @ unembedding.T` without holding the logits.

    Args:
        hidden: [targets, hidden].
        unembedding: [vocabulary, hidden]; gets a gradient when it asks for one.
        targets: [targets], token ids.

    Returns:
        Scalar, fp32, nats.
    """
    if not _gradients_wanted(hidden, unembedding):
        return token_nats(hidden, unembedding, targets).sum()
    return _ChunkedCrossEntropy.apply(hidden, unembedding, targets)  # type: ignore[no-untyped-call,no-any-return]


def chunked_kl(hidden: Tensor, unembedding: Tensor, base_hidden: Tensor, base_unembedding: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum of the exact KL(base || tuned) over the vocabulary, without holding the logits.

    Args:
        hidden: [targets, hidden], tuned states.
        unembedding: [vocabulary, hidden] of the tuned model; gets a gradient when it asks for one.
        base_hidden: [targets, hidden], the base's states, constant.
        base_unembedding: [vocabulary, hidden] of the base, constant.
        weights: [targets], fp32.

    Returns:
        Scalar, fp32, nats.
    """
    if not _gradients_wanted(hidden, unembedding):
        return (token_kl(hidden, unembedding, base_hidden, base_unembedding) * weights).sum()
    return _ChunkedKL.apply(hidden, unembedding, base_hidden, base_unembedding, weights)  # type: ignore[no-untyped-call,no-any-return]


@torch.no_grad()
def token_nats(hidden: Tensor, unembedding: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of each target, [targets], nats, fp32; `chunked_cross_entropy` is their sum. Shapes as there."""
    found = torch.empty(len(targets), device=hidden.device)
    for part in _parts(hidden, unembedding):
        found[part] = cross_entropy_rows(hidden[part].to(unembedding.dtype) @ unembedding.T, targets[part], False)
    return found


@torch.no_grad()
def token_kl(hidden: Tensor, unembedding: Tensor, base_hidden: Tensor, base_unembedding: Tensor) -> Tensor:
    """KL(base || tuned) at each state, [targets], nats, fp32; `chunked_kl` is their weighted sum. Shapes as there."""
    found = torch.empty(len(hidden), device=hidden.device)
    for part in _parts(hidden, unembedding):
        tuned = _log_softmax(hidden[part].to(unembedding.dtype) @ unembedding.T)
        base = _log_softmax(base_hidden[part].to(base_unembedding.dtype) @ base_unembedding.T)
        found[part] = base.exp().mul_(base.sub_(tuned)).sum(dim=1)
    return found


def class_weights(counts: Sequence[float], exponent: float) -> list[float] | None:
    """What a target of each class counts, so that the mean over the training targets is 1.

    Args:
        counts: Training targets of each class; a class without any counts as one.
        exponent: x of n^-x; 0 counts each once, 1 gives every class the same part.

    Returns:
        [classes], or None where each counts once.
    """
    if exponent == 0:
        return None
    own = [max(count, 1.0) for count in counts]
    raw = [count**-exponent for count in own]
    mean = sum(weight * count for weight, count in zip(raw, own, strict=True)) / sum(own)
    return [weight / mean for weight in raw]


def head_loss(logits: Tensor, targets: Tensor, independent: bool, weights: Tensor | None = None) -> Tensor:
    """Sum over rows of a head's loss.

    Args:
        logits: [rows, outputs].
        targets: [rows, labels], 1 where a label applies; labels beyond the outputs are passed over, and a row of no other costs nothing.
        independent: Each output is an answer of its own: binary cross-entropy, the sum over outputs, which is what all answers of a row
            cost, so that `loss.<head>` weighs either kind of row alike. Otherwise softmax cross-entropy, several labels sharing the mass.
        weights: [outputs], what a target of each class counts; a row of several labels has the mean of theirs. None counts each once.

    Returns:
        Scalar, fp32, nats.
    """
    among = targets[:, : logits.shape[1]]
    if independent:
        return binary_cross_entropy_with_logits(logits, among, reduction="sum")
    shared = among / among.sum(dim=1, keepdim=True).clamp(min=1)
    each = shared * log_softmax(logits, dim=1)
    if weights is not None:
        each = each * (shared @ weights)[:, None]
    return -each.sum()


def _gradients_wanted(*inputs: Tensor) -> bool:
    return torch.is_grad_enabled() and any(one.requires_grad for one in inputs)


def _parts(hidden: Tensor, unembedding: Tensor, gradients: bool = False) -> Iterator[slice]:
    """Targets at a time; where no gradient is wanted, few on a CPU, whose logits stay in its cache."""
    step = max(1, CHUNK_LOGITS // len(unembedding))
    if hidden.device.type == "cpu" and not gradients:
        step = min(step, CPU_TARGETS)
    for start in range(0, len(hidden), step):
        yield slice(start, start + step)


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        states = hidden.to(weight.dtype)
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        grad_hidden = torch.empty(hidden.shape, dtype=torch.float32, device=hidden.device) if wants_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if wants_weight else None
        for part in _parts(hidden, weight, gradients=True):
            logits = states[part] @ weight.T
            total += cross_entropy_rows(logits, targets[part], True).sum()
            _add_gradients(logits, weight, states[part], part, grad_hidden, grad_weight)
        ctx.grads, ctx.dtypes = (grad_hidden, grad_weight), (hidden.dtype, weight.dtype)
        return total

    @staticmethod
    def backward(ctx: Any, *outer: Any) -> tuple[Tensor | None, Tensor | None, None]:
        grad_hidden, grad_weight = _scaled(ctx.grads, outer[0], ctx.dtypes)
        return grad_hidden, grad_weight, None


class _ChunkedKL(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, base_hidden: Tensor, base_weight: Tensor, weights: Tensor) -> Tensor:
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        states, base_states = hidden.to(weight.dtype), base_hidden.to(base_weight.dtype)
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        grad_hidden = torch.empty(hidden.shape, dtype=torch.float32, device=hidden.device) if wants_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if wants_weight else None
        for part in _parts(hidden, weight, gradients=True):
            tuned = _log_softmax(states[part] @ weight.T)
            base = _log_softmax(base_states[part] @ base_weight.T)
            base_probabilities = base.exp()
            total += (base.sub_(tuned).mul_(base_probabilities).sum(dim=1) * weights[part]).sum()
            gradient = tuned.exp_().sub_(base_probabilities)
            # near the base the gradient is too small for fp16: each row goes through the product with a largest value of 1
            largest = gradient.abs().amax(dim=1, keepdim=True).clamp_min_(torch.finfo(torch.float32).tiny)
            scale = largest * weights[part, None]
            _add_gradients(gradient.div_(largest).to(weight.dtype), weight, states[part], part, grad_hidden, grad_weight, scale)
        ctx.grads, ctx.dtypes = (grad_hidden, grad_weight), (hidden.dtype, weight.dtype)
        return total

    @staticmethod
    def backward(ctx: Any, *outer: Any) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        grad_hidden, grad_weight = _scaled(ctx.grads, outer[0], ctx.dtypes)
        return grad_hidden, grad_weight, None, None, None


def _add_gradients(
    gradient: Tensor,
    weight: Tensor,
    states: Tensor,
    part: slice,
    grad_hidden: Tensor | None,
    grad_weight: Tensor | None,
    scale: Tensor | None = None,
) -> None:
    """Carry a chunk's gradient of the logits, [chunk, vocabulary] times `scale` [chunk, 1], on to what asks for one."""
    if grad_hidden is not None:
        product = (gradient @ weight).float()
        grad_hidden[part] = product if scale is None else product.mul_(scale)
    if grad_weight is not None:
        grad_weight += gradient.T @ (states if scale is None else (states * scale).to(states.dtype))


def _log_softmax(logits: Tensor) -> Tensor:
    """In fp32 and, after the widening, in place."""
    wide = logits.float()
    return wide.sub_(wide.logsumexp(dim=1, keepdim=True))


def _scaled(
    grads: tuple[Tensor | None, Tensor | None], outer: Tensor, dtypes: tuple[torch.dtype, torch.dtype]
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of states and unembedding, each in its own precision; they were summed up in fp32."""
    hidden, weight = (None if grad is None else (grad * outer).to(dtype) for grad, dtype in zip(grads, dtypes, strict=True))
    return hidden, weight
