"""What the saved heads say on a split, and the base's states where they read."""

from typing import NamedTuple

import torch

from warmline.data.encoding import EncodedSource
from warmline.data.packing import Batch, all_draws, collate, sequential_rows
from warmline.evaluation.progress import watched
from warmline.evaluation.statistics import FloatArray
from warmline.model.multitask import MultiTaskModel
from warmline.training.device import Place


class HeadPredictions(NamedTuple):
    """Logits and targets of both heads over a split.

    Attributes:
        emotion_logits: [emotion rows, classes].
        emotion_targets: [emotion rows, 28].
        strategy_logits: [strategy rows, 8].
        strategy_targets: [strategy rows].
        strategy_by_own_choices: [strategy rows, 8], with the head's own probabilities in place of annotated earlier strategies; the same
            as `strategy_logits` where it sees none.
    """

    emotion_logits: torch.Tensor
    emotion_targets: torch.Tensor
    strategy_logits: torch.Tensor
    strategy_targets: torch.Tensor
    strategy_by_own_choices: torch.Tensor


class BaseStates(NamedTuple):
    """The frozen base's hidden states where the heads read.

    Attributes:
        emotion: [emotion rows, hidden].
        strategy: [strategy rows, hidden].
    """

    emotion: FloatArray
    strategy: FloatArray


@torch.no_grad()
def predict(model: MultiTaskModel, sources: list[EncodedSource], place: Place, pass_tokens: int) -> HeadPredictions:
    """Run the heads over every conversation, in order.

    Args:
        model: In evaluation mode.
        sources: Encoded split.
        place: Device and precision.
        pass_tokens: Tokens of a forward pass.
    """
    parts: list[HeadPredictions] = []
    for row in watched(list(sequential_rows(sources, all_draws(sources), pass_tokens)), "heads"):
        batch = collate(sources, [row]).to(model.backbone.device)
        with place.autocast():
            states = model.states(batch)
        logits = model.heads(states, batch)
        own = _own_choices(model, model.heads.strategy.pick(states), batch) if model.heads.strategy.sees_earlier else logits.strategy
        parts.append(HeadPredictions(logits.emotion, batch.emotion_targets, logits.strategy, batch.strategy_targets.argmax(dim=1), own))
    return HeadPredictions(*(torch.cat(column).cpu() for column in zip(*parts, strict=True)))


def _own_choices(model: MultiTaskModel, states: torch.Tensor, batch: Batch) -> torch.Tensor:
    """[strategy rows, 8], conversation by conversation."""
    edges = torch.searchsorted(batch.strategy_positions, batch.bounds.to(batch.strategy_positions.dtype)).tolist()
    places = [batch.strategy_positions[first:end] for first, end in zip(edges[:-1], edges[1:], strict=True)]
    return torch.cat([model.heads.strategy.by_own_choices(states[at]) for at in places])


def base_states(model: MultiTaskModel, sources: list[EncodedSource], place: Place, pass_tokens: int) -> BaseStates:
    """What the linear probe sees: the base's states at every head's reading position, in order.

    Args:
        model: Its `backbone.reference()` is the base.
        sources: Encoded split.
        place: Device and precision.
        pass_tokens: Tokens of a forward pass.
    """
    emotion, strategy = [], []
    with model.backbone.reference(), place.autocast():
        for row in watched(list(sequential_rows(sources, all_draws(sources), pass_tokens)), "base states for the probe"):
            batch = collate(sources, [row]).to(model.backbone.device)
            states = model.states(batch)
            emotion.append(model.heads.emotion.pick(states)[batch.emotion_positions].float().cpu())
            strategy.append(model.heads.strategy.pick(states)[batch.strategy_positions].float().cpu())
    return BaseStates(torch.cat(emotion).numpy(), torch.cat(strategy).numpy())
