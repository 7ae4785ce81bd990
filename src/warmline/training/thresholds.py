"""When a head names a class: an offset on each class's logit, chosen on validation rows.

The likeliest class makes for the best accuracy and neglects rare classes. Weights by frequency (`heads.*.class_weights`) move every class
along one curve; but how far a class should be moved depends on what the head can tell of it, which validation rows show (Lipton et al.
2014, arXiv 1402.1892, on thresholds for F1). The offsets that are best on some rows are partly best by chance, so those of many
resamples are averaged. They become part of the output layer's bias: artefact and serving do not know. docs/study.md has their worth.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from warmline.config import RunConfig
from warmline.data.encoding import EncodedSource
from warmline.data.packing import all_draws
from warmline.metrics.scores import confusion
from warmline.metrics.statistics import FloatArray, IntArray
from warmline.model.device import Place
from warmline.model.multitask import MultiTaskModel
from warmline.training.teachers import HEADS, Head, head_logits

RESAMPLES = 25
"""Of the rows, with replacement, each with offsets of its own."""

STEPS = (-0.6, -0.4, -0.2, -0.1, 0.0, 0.1, 0.2, 0.4, 0.6)
"""Offsets that are tried for a class, in nats."""

ROUNDS = 3
"""How often every class has its turn, in an order drawn anew."""

RESTRAINT = 0.003
"""What an offset costs, times its square."""


@torch.no_grad()
def move_thresholds(
    model: MultiTaskModel, held_out: Sequence[EncodedSource], place: Place, config: RunConfig, say: Callable[[str], Any]
) -> dict[Head, list[float]]:
    """Give those heads whose configuration says so (`heads.*.thresholds`) the offsets that are best on the validation split.

    Args:
        model: Trained. The bias of its heads' output layers is changed. Where layers are spread over ranks, every rank takes part.
        held_out: The whole validation split.
        place: Device and precision of the states.
        config: Of the run.
        say: Shown what is under way.

    Returns:
        The offsets of each head that has some, nats, in the order of its classes.
    """
    moved: dict[Head, list[float]] = {}
    was_training = model.training
    model.eval()
    for name in HEADS:
        weight, head = getattr(config.heads, name).thresholds, getattr(model.heads, name)
        draws = [draw for draw in all_draws(held_out) if len(getattr(held_out[draw.source], name))]
        if weight is None or getattr(config.loss, name) == 0 or not draws:
            continue
        say(f"choosing the {name} head's thresholds on the validation split")
        logits, targets = head_logits(model, name, held_out, draws, place, config.pass_tokens)
        single = (targets > 0).sum(dim=1) == 1
        said, truth = logits[single].double().cpu().numpy(), targets[single].argmax(dim=1).cpu().numpy()
        offsets = choose_offsets(said, truth, weight, config.seed)
        head.output.bias += torch.from_numpy(offsets).to(head.output.bias)
        moved[name] = offsets.tolist()
    model.train(was_training)
    return moved


def choose_offsets(logits: FloatArray, truth: IntArray, accuracy_weight: float, seed: int) -> FloatArray:
    """Offsets with which the likeliest class makes macro-F1 plus weighted accuracy greatest.

    Args:
        logits: [rows, classes], of validation rows.
        truth: [rows], the class of each.
        accuracy_weight: What a point of accuracy counts beside a point of macro-F1.
        seed: Of resamples and orders.

    Returns:
        [classes], nats, the mean over resamples.
    """
    random = np.random.default_rng(seed)
    samples = [random.integers(len(truth), size=len(truth)) for _ in range(RESAMPLES)]
    mean: FloatArray = np.mean([_best(logits[rows], truth[rows], accuracy_weight, random) for rows in samples], axis=0)
    return mean


def _best(logits: FloatArray, truth: IntArray, accuracy_weight: float, random: np.random.Generator) -> FloatArray:
    """Coordinate ascent from no offsets."""
    offsets = np.zeros(logits.shape[1])
    reached = _worth(logits, truth, offsets, accuracy_weight)
    for _ in range(ROUNDS):
        for label in random.permutation(len(offsets)):
            for step in STEPS:
                tried = offsets.copy()
                tried[label] = step
                if (worth := _worth(logits, truth, tried, accuracy_weight)) > reached:
                    reached, offsets = worth, tried
    return offsets


def _worth(logits: FloatArray, truth: IntArray, offsets: FloatArray, accuracy_weight: float) -> float:
    counts = confusion(truth, (logits + offsets).argmax(axis=1), len(offsets))
    hits, seen = counts.diagonal(), counts.sum(axis=0) + counts.sum(axis=1)
    f1 = np.mean(2 * hits[seen > 0] / seen[seen > 0])
    return float(f1 + accuracy_weight * hits.sum() / len(truth) - RESTRAINT * np.square(offsets).sum())
