"""Several small networks, trained on finished states, whose mean is a head with one hidden layer.

What earlier strategies say of a reply depends on what was said last; a linear head can only add the two up. A hidden layer can combine
them, and overfits: so each network is small, forgets a third of its inputs and half of its hidden layer at every step, and several that
differ in start and order of the rows answer together (a deep ensemble: Lakshminarayanan et al. 2017, arXiv 1612.01474). The mean of
their logits is again one network, with all their hidden units side by side. docs/study.md has what it is worth.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, gelu

from warmline.training.linear import standardise, write_layers

PASSES, ROWS = 12, 128
"""Of each network: how often it sees every row, and how many at a step. Twenty passes were no better (docs/study.md)."""

RATE, DECAY = 1e-3, 0.3
"""Of AdamW. The rate falls to 0 along half a cosine."""

DROPPED_INPUTS, DROPPED_UNITS = 0.3, 0.5
"""Shares that a network forgets at a step."""


def fit_ensemble(
    first: Sequence[nn.Linear],
    output: nn.Linear,
    inputs: Sequence[Tensor],
    loss: Callable[[Tensor, Tensor], Tensor],
    members: int,
    seed: int,
) -> None:
    """Give a head with a hidden layer (GELU) the weights of an ensemble, which is trained where the head is.

    Args:
        first: The layers before it, whose outputs add up; changed. The first of them takes the bias.
        output: The layer after it; changed.
        inputs: [rows, width] of each first layer, on the CPU. They are scaled in place to a mean of 0, and to a variance at which none
            outweighs another by its width alone: 1 for the narrowest.
        loss: Of logits [some rows, classes] and the places of these rows, on the CPU; summed over them.
        members: Networks, each with its part of the hidden units.
        seed: Of starts, order and dropout.
    """
    device, narrowest = output.weight.device, min(one.shape[1] for one in inputs)
    shares = [(narrowest / one.shape[1]) ** 0.5 for one in inputs]
    scales = [standardise(one) for one in inputs]
    given = torch.cat([one * share for one, share in zip(inputs, shares, strict=True)], dim=1)
    rows, width, units = len(given), given.shape[1], output.in_features // members
    steps = max(1, PASSES * rows // ROWS)
    with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.enable_grad():
        torch.manual_seed(seed)
        shapes = ((members, width, units), (members, 1, units), (members, units, output.out_features), (members, 1, output.out_features))
        spans = (width, width, units, units)
        weights = [torch.empty(shape).uniform_(-(span**-0.5), span**-0.5).to(device) for shape, span in zip(shapes, spans, strict=True)]
        inner, inner_bias, outer, outer_bias = (weight.requires_grad_() for weight in weights)
        optimizer = torch.optim.AdamW(weights, RATE, weight_decay=DECAY)
        for step in range(steps):
            chosen = torch.randint(rows, (members, ROWS))
            hidden = gelu(dropout(given[chosen].to(device), DROPPED_INPUTS) @ inner + inner_bias)
            logits = dropout(hidden, DROPPED_UNITS) @ outer + outer_bias
            optimizer.param_groups[0]["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * step / steps))
            optimizer.zero_grad()
            torch.autograd.backward(loss(logits.flatten(0, 1), chosen.flatten()) / ROWS)
            optimizer.step()
    with torch.no_grad():
        side_by_side = inner.transpose(0, 1).reshape(width, -1).T.split([one.shape[1] for one in inputs], dim=1)
        of_each = [weight * share for weight, share in zip(side_by_side, shares, strict=True)]
        write_layers(first, of_each, inner_bias.flatten(), scales)
        output.weight.copy_(outer.reshape(-1, output.out_features).T / members)
        output.bias.copy_(outer_bias.mean(dim=(0, 1)))
