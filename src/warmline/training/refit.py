"""Heads fitted anew on the finished states.

While everything trains, a head follows states that move, from a handful of conversations a step, and an optimiser of Adam's kind moves
a weight by no more than its rate in a step: those of inputs that are 0 or 1, like earlier strategies, hardly begin to count. Once the
states stand still, the best linear head on them is a convex problem: the head's own loss on every training row, plus L2 (the last layer
trained again, as in Kirichenko et al. 2022, arXiv 2204.02937). It costs one pass over the labelled rows; docs/study.md has its worth. A
head with a hidden layer becomes an ensemble of small networks instead (`ensemble.py`).
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from warmline.config import HeadConfig, RunConfig
from warmline.data.encoding import EncodedSource
from warmline.data.packing import Batch, all_draws, collate, sequential_rows
from warmline.model.device import Place
from warmline.model.heads import EmotionHead, StrategyHead
from warmline.model.losses import TargetSettings, emotion_loss, strategy_loss
from warmline.model.multitask import MultiTaskModel
from warmline.training.ensemble import fit_ensemble
from warmline.training.linear import fit_linear
from warmline.training.teachers import HEADS, Head

EARLIER_STRENGTH = 0.01
"""C for the weights of earlier strategies, which are few and need no more restraint than that. Those of the states have the setting's."""

_LOSSES = {"emotion": emotion_loss, "strategy": strategy_loss}


def refit_heads(
    model: MultiTaskModel,
    sources: Sequence[EncodedSource],
    mix: Callable[[Batch], Batch],
    place: Place,
    config: RunConfig,
    say: Callable[[str], Any],
) -> list[Head]:
    """Fit anew those heads that the configuration names (`heads.*.refit`, `heads.*.ensemble`), on all their training rows.

    Args:
        model: Trained. Its heads are changed, its states are not. Where layers are spread over ranks, every rank takes part.
        sources: Training data; each conversation counts once.
        mix: Puts the teachers' opinions into a batch's targets.
        place: Device and precision of the states.
        config: Of the run.
        say: Shown what is under way.

    Returns:
        The heads that were fitted.
    """
    fitted: list[Head] = []
    for name in HEADS:
        own = getattr(config.heads, name)
        draws = [draw for draw in all_draws(sources) if len(getattr(sources[draw.source], name))]
        if (own.refit is None and own.ensemble is None) or getattr(config.loss, name) == 0 or not draws:
            continue
        say(f"fitting the {name} head anew on the finished states")
        batches = (mix(collate(sources, [row])) for row in sequential_rows(sources, draws, config.pass_tokens))
        inputs, targets = _read(model, name, batches, place)
        _fit(getattr(model.heads, name), own, config.seed, inputs, targets, _LOSSES[name], getattr(model.targets, name))
        fitted.append(name)
    return fitted


def _fit(
    head: EmotionHead | StrategyHead,
    config: HeadConfig,
    seed: int,
    inputs: list[Tensor],
    targets: Tensor,
    loss: Callable[[Tensor, Tensor, TargetSettings], Tensor],
    settings: TargetSettings,
) -> None:
    """As the head's configuration says. Inputs and targets lie on the CPU, where there is room for all rows of a large model."""
    if config.ensemble is not None:
        device = head.output.weight.device
        fit_ensemble(
            head.first_layers,
            head.output,
            inputs,
            lambda logits, rows: loss(logits, targets[rows].to(device), settings),
            config.ensemble,
            seed,
        )
    elif config.refit is not None:
        on_cpu = settings._replace(weights=None if settings.weights is None else settings.weights.cpu())
        strengths = [config.refit, EARLIER_STRENGTH][: len(inputs)]
        fit_linear(head.first_layers, inputs, strengths, lambda logits: loss(logits, targets, on_cpu))


@torch.no_grad()
def _read(model: MultiTaskModel, name: Head, batches: Iterable[Batch], place: Place) -> tuple[list[Tensor], Tensor]:
    """What a head's first layers read, [rows, width] each, and its targets, [rows, classes]; on the CPU."""
    was_training = model.training
    model.eval()
    head, inputs, targets = getattr(model.heads, name), [], []
    for batch in batches:
        here = batch.to(model.backbone.device)
        with place.autocast():
            states = model.states(here)
        inputs.append([one.float().cpu() for one in head.inputs(states, here)])
        targets.append(getattr(batch, f"{name}_targets"))
    model.train(was_training)
    return [torch.cat(of_layer) for of_layer in zip(*inputs, strict=True)], torch.cat(targets)
