"""What earlier strategies say of the next one, fitted before the first step.

An optimiser of Adam's kind moves a weight by no more than its rate in a step. In some hundred steps at 1e-3, the weights of inputs that
are 0 or 1 end far below what they should be: 0.03 in the mean where a fit has 0.5 (docs/study.md). The fit needs no states, so it takes
seconds.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from warmline.data.earlier import annotated, earlier_features
from warmline.data.encoding import EncodedSource
from warmline.model.heads import StrategyHead
from warmline.training.linear import fit_linear

STRENGTH = 0.01
"""C of logistic regression, on features of variance 1: strong regularisation, since the states are to say the rest."""


def fit_earlier(head: StrategyHead, sources: Sequence[EncodedSource], weights: Tensor | None) -> None:
    """Give a head that sees earlier strategies those weights for them that a logistic regression has. Training goes on from there.

    Args:
        head: Changed, if the data have strategies.
        sources: Training data; each conversation counts once.
        weights: [8], what a target of each strategy counts; None each once.
    """
    told = (source[at].strategy[:, 1] for source in sources if len(source.strategy) for at in range(len(source)))
    replies = [labels for labels in told if len(labels)]
    if head.earlier is None or not replies:
        return
    labels = torch.cat([annotated(one) for one in replies]).double()
    features = torch.cat([earlier_features(annotated(one)) for one in replies]).double()
    counts = None if weights is None else weights.detach().cpu().double()
    fit_linear([head.earlier], [features], [STRENGTH], partial(cross_entropy, target=labels, weight=counts, reduction="sum"))
