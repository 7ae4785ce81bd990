"""The losses with all logits at once."""

from torch import Tensor
from torch.nn.functional import log_softmax


def dense_cross_entropy(hidden: Tensor, unembedding: Tensor, targets: Tensor) -> Tensor:
    """Sum of -log p(target)."""
    return -log_softmax(hidden @ unembedding.T, dim=1).gather(1, targets[:, None]).sum()


def dense_kl(hidden: Tensor, unembedding: Tensor, base_hidden: Tensor, base_unembedding: Tensor, weights: Tensor) -> Tensor:
    """Sum over places of weight * sum_v p_base(v) * (log p_base(v) - log p_tuned(v))."""
    tuned = log_softmax(hidden @ unembedding.T, dim=1)
    base = log_softmax(base_hidden @ base_unembedding.T, dim=1)
    return ((base.exp() * (base - tuned)).sum(dim=1) * weights).sum()
