"""What earlier strategies say of the next one, fitted before the first step.

An optimiser of Adam's kind moves a weight by no more than its rate in a step. In some hundred steps at 1e-3, the weights of inputs that
are 0 or 1 end far below what they should be: 0.03 in the mean where a fit has 0.5 (docs/study.md). The fit needs no states, so it takes
seconds.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from warmline.data.earlier import annotated, earlier_features
from warmline.data.encoding import EncodedSource
from warmline.data.labels import STRATEGIES
from warmline.model.heads import StrategyHead

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
    mean, scale = features.mean(dim=0), features.std(dim=0, correction=0).clamp(min=1e-3)
    features = (features - mean) / scale
    slopes = torch.zeros(len(STRATEGIES), features.shape[1], dtype=torch.float64, requires_grad=True)
    starts = torch.zeros(len(STRATEGIES), dtype=torch.float64, requires_grad=True)
    counts = None if weights is None else weights.detach().cpu().double()
    solver = torch.optim.LBFGS([slopes, starts], max_iter=200, tolerance_grad=1e-6, line_search_fn="strong_wolfe")

    def objective() -> Tensor:
        solver.zero_grad()
        errors = nn.functional.cross_entropy(features @ slopes.T + starts, labels, counts, reduction="sum")
        loss = (errors + slopes.square().sum() / (2 * STRENGTH)) / len(labels)
        torch.autograd.backward(loss)
        return loss

    with torch.enable_grad():
        solver.step(objective)
    with torch.no_grad():
        head.earlier.weight.copy_(slopes / scale)
        head.earlier.bias.copy_(starts - (slopes / scale) @ mean)
