"""Linear layers, fitted to the minimum of a convex loss."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

_ROUNDS = 200
_LEAST_SCALE = 1e-3  # of an input that hardly varies


def fit_linear(layers: Sequence[nn.Linear], inputs: Sequence[Tensor], strengths: Sequence[float], loss: Callable[[Tensor], Tensor]) -> None:
    """Give linear layers, whose outputs add up, those weights at which a loss plus L2 on the weights is least.

    Args:
        layers: Changed; the first takes the bias.
        inputs: [rows, width] of each layer, on the CPU. They are scaled in place to a mean of 0 and a variance of 1.
        strengths: C of logistic regression for each layer, on inputs so scaled: the smaller, the stronger L2.
        loss: Of logits [rows, classes], convex, summed over rows.
    """
    scales = [standardise(one) for one in inputs]
    slopes = [torch.zeros(layer.out_features, layer.in_features, dtype=inputs[0].dtype, requires_grad=True) for layer in layers]
    starts = torch.zeros(layers[0].out_features, dtype=inputs[0].dtype, requires_grad=True)
    solver = torch.optim.LBFGS([*slopes, starts], max_iter=_ROUNDS, tolerance_grad=1e-6, line_search_fn="strong_wolfe")

    def objective() -> Tensor:
        solver.zero_grad()
        logits = starts + sum(given @ slope.T for given, slope in zip(inputs, slopes, strict=True))
        squares = sum(slope.square().sum() / (2 * strength) for slope, strength in zip(slopes, strengths, strict=True))
        mean: Tensor = (loss(logits) + squares) / len(inputs[0])
        torch.autograd.backward(mean)
        return mean

    with torch.enable_grad():
        solver.step(objective)
    write_layers(layers, slopes, starts, scales)


@torch.no_grad()
def write_layers(layers: Sequence[nn.Linear], weights: Sequence[Tensor], bias: Tensor, scales: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Give linear layers, whose outputs add up, what was found on standardised inputs, so that they read plain ones.

    Args:
        layers: Changed; the first takes the bias.
        weights: [outputs, width] of each layer.
        bias: [outputs].
        scales: What `standardise` took out of the inputs of each.
    """
    for layer, weight, (mean, scale) in zip(layers, weights, scales, strict=True):
        plain = weight / scale.to(weight.device)
        layer.weight.copy_(plain)
        layer.bias.zero_()
        bias = bias - plain @ mean.to(weight.device)
    layers[0].bias.copy_(bias)


def standardise(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Bring inputs, [rows, width], to a mean of 0 and a variance of 1, in place.

    Returns:
        Mean and scale that were taken out, [width] each.
    """
    mean, scale = inputs.mean(dim=0), inputs.std(dim=0, correction=0).clamp(min=_LEAST_SCALE)
    inputs.sub_(mean).div_(scale)
    return mean, scale
