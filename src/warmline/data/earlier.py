"""Earlier strategies as numbers: what a strategy head may know of the replies before the one it is asked about.

The last three in order, each strategy's share among all, and how many there were. A reply's strategy is a distribution over STRATEGIES:
one-hot where people annotated it, the head's own probabilities where nobody did.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from warmline.data.labels import STRATEGIES

LAST = 3
FEATURES = (LAST + 1) * len(STRATEGIES) + 1


def earlier_features(before: Tensor) -> Tensor:
    """What is known before a reply.

    Args:
        before: [earlier replies, 8], each reply's strategy as a distribution, in order; may be empty.

    Returns:
        [FEATURES]: the last one, the one before it and the third (zeros where there is none), each strategy's share, log(1 + number).
    """
    last = before.flip(0)[:LAST]
    slots = torch.cat([last, last.new_zeros(LAST - len(last), len(STRATEGIES))]).flatten()
    shares = before.sum(dim=0) / max(len(before), 1)
    return torch.cat([slots, shares, before.new_tensor([float(np.log1p(len(before)))])])


def features_of_labels(labels: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
    """`earlier_features` of every reply of a conversation, from the labels of those before it.

    Args:
        labels: [replies], places in STRATEGIES, in order.

    Returns:
        [replies, FEATURES].
    """
    one_hot = np.eye(len(STRATEGIES), dtype=np.float32)[np.asarray(labels, dtype=np.int64)]
    number = np.arange(len(labels), dtype=np.float32)[:, None]
    slots = [
        np.concatenate([np.zeros((min(back, len(labels)), len(STRATEGIES)), np.float32), one_hot[:-back]]) for back in range(1, LAST + 1)
    ]
    shares = (one_hot.cumsum(axis=0) - one_hot) / np.maximum(number, 1)
    return np.concatenate([*slots, shares, np.log1p(number)], axis=1)
