"""Labels of earlier replies as numbers: what a head may know of the replies before the one it is asked about.

A reply's label is a distribution over the head's classes: one-hot where people annotated it, the head's own probabilities where nobody did.
Every block of numbers is a weighted sum of the earlier ones, which differ in how a reply counts that lies so many replies back.
"""

import torch
from torch import Tensor

LAST = 5
"""Replies told apart by their order."""

FADING = (0.5, 0.8, 0.93)
"""What a reply counts in proportion to the one after it: looks of about 2, 5 and 14 replies back."""

MARKS = (1, 2, 3, 5, 10, 15, 20)
"""Numbers of earlier replies that a conversation has reached or not."""


def features(classes: int) -> int:
    """How many numbers `earlier_features` gives of so many classes."""
    return (LAST + len(FADING) + 1) * classes + 1 + len(MARKS)


def earlier_features(labels: Tensor) -> Tensor:
    """What is known before each reply of a conversation.

    Args:
        labels: [replies, classes], each reply's label as a distribution, in order.

    Returns:
        [replies, features], of which row i depends on the rows before i alone: the last five in order (zeros where there is none), three
        fading sums, each label's share, log(1 + number of earlier replies), and which of MARKS that number has reached.
    """
    number = torch.arange(len(labels), device=labels.device)[:, None]
    back = number - number.T
    earlier = back > 0
    order = [back == place for place in range(1, LAST + 1)]
    fading = [earlier * (1 - rate) * rate ** (back - 1).clamp(min=0) for rate in FADING]
    share = earlier / number.clamp(min=1)
    blocks = [counts.to(labels.dtype) @ labels for counts in (*order, *fading, share)]
    reached = (number >= number.new_tensor(MARKS)).to(labels.dtype)
    return torch.cat([*blocks, number.to(labels.dtype).log1p(), reached], dim=1)
