"""Earlier strategies as numbers: what a strategy head may know of the replies before the one it is asked about.

A reply's strategy is a distribution over STRATEGIES: one-hot where people annotated it, the head's own probabilities where nobody did.
Every block of eight numbers is a weighted sum of the earlier ones, which differ in how a reply counts that lies so many replies back.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from warmline.data.labels import STRATEGIES

LAST = 5
"""Replies told apart by their order."""

FADING = (0.5, 0.8, 0.93)
"""What a reply counts in proportion to the one after it: looks of about 2, 5 and 14 replies back."""

MARKS = (1, 2, 3, 5, 10, 15, 20)
"""Numbers of earlier replies that a conversation has reached or not."""

FEATURES = (LAST + len(FADING) + 1) * len(STRATEGIES) + 1 + len(MARKS)


def annotated(labels: npt.NDArray[np.integer]) -> Tensor:
    """Labels, [replies], places in STRATEGIES, as distributions, [replies, 8], fp32."""
    return torch.from_numpy(np.eye(len(STRATEGIES), dtype=np.float32)[labels])


def earlier_features(strategies: Tensor) -> Tensor:
    """What is known before each reply of a conversation.

    Args:
        strategies: [replies, 8], each reply's strategy as a distribution, in order.

    Returns:
        [replies, FEATURES], of which row i depends on the rows before i alone: the last five in order (zeros where there is none), three
        fading sums, each strategy's share, log(1 + number of earlier replies), and which of MARKS that number has reached.
    """
    number = torch.arange(len(strategies), device=strategies.device)[:, None]
    back = number - number.T
    earlier = back > 0
    order = [back == place for place in range(1, LAST + 1)]
    fading = [earlier * (1 - rate) * rate ** (back - 1).clamp(min=0) for rate in FADING]
    share = earlier / number.clamp(min=1)
    blocks = [counts.to(strategies.dtype) @ strategies for counts in (*order, *fading, share)]
    reached = (number >= number.new_tensor(MARKS)).to(strategies.dtype)
    return torch.cat([*blocks, number.to(strategies.dtype).log1p(), reached], dim=1)
