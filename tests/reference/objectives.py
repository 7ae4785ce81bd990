"""The multi-task loss as its formula says it: conversation by conversation, target by target, no packing and no chunks."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from warmline.config import LossWeights
from warmline.data.encoding import EncodedSource
from warmline.data.mixture import Draw
from warmline.model.multitask import MultiTaskModel


def states_alone(model: MultiTaskModel, tokens: Tensor) -> Tensor:
    """Final hidden states of one conversation by itself."""
    return model.backbone.hidden(tokens, torch.arange(len(tokens)), torch.tensor([0, len(tokens)], dtype=torch.int32), len(tokens))


def plain_terms(model: MultiTaskModel, sources: Sequence[EncodedSource], draws: Sequence[Draw]) -> dict[str, list[Tensor]]:
    """Each objective's value at each of its targets (for safety: each conversation); each head under one softmax."""
    found: dict[str, list[Tensor]] = {"lm": [], "emotion": [], "strategy": [], "safety": []}
    for draw in draws:
        objectives, one = sources[draw.source].objectives, sources[draw.source][draw.conversation]
        tokens = torch.tensor(one.tokens.tolist())
        states = states_alone(model, tokens)
        read = states / (states.square().mean(dim=1, keepdim=True) + 1e-6).sqrt()  # by the heads
        replies = [at for first, end in one.replies.tolist() for at in range(first, end)]
        tuned = log_softmax(states @ model.backbone.unembedding.T, dim=1)
        if "lm" in objectives:
            found["lm"] += [-tuned[at - 1, tokens[at]] for at in replies]
        if "safety" in objectives:
            with model.backbone.reference():
                base = log_softmax(states_alone(model, tokens) @ model.backbone.base_unembedding.T, dim=1)
            drift = [(base[at - 1].exp() * (base[at - 1] - tuned[at - 1])).sum() for at in replies]
            found["safety"].append(torch.stack(drift).mean())
        for name, classes in (("emotion", 27), ("strategy", 8)):
            for position, bits in one.labels[name].tolist() if name in one.labels else []:
                labels = [label for label in range(classes) if bits >> label & 1]
                scores = log_softmax(model.heads[name](read[position : position + 1])[0], dim=0)
                found[name].append(-scores[labels].mean())
    return found


def plain_loss(model: MultiTaskModel, sources: Sequence[EncodedSource], draws: Sequence[Draw], weights: LossWeights) -> Tensor:
    """sum_o lambda_o * mean over the targets of o."""
    terms = plain_terms(model, sources, draws)
    means = {name: torch.stack(values).mean() for name, values in terms.items() if values}
    return sum((weights[name] * value for name, value in means.items()), start=torch.zeros(()))
