"""What a linear probe is fitted on and scored by: the states that a head reads, with their labels."""

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from warmline.data.encoding import EncodedSource
from warmline.data.labels import EMOTIONS
from warmline.data.mixture import Draw
from warmline.data.packing import Batch, collate, sequential_rows
from warmline.evaluation.statistics import IntArray
from warmline.model.multitask import MultiTaskModel
from warmline.training.device import Place

HeadName = Literal["emotion", "strategy"]


class Readings(NamedTuple):
    """What a head reads over a split, and what it should say.

    Attributes:
        states: [rows, hidden], fp32.
        labels: [rows], places in EMOTIONS or STRATEGIES; rows of the emotion head have exactly one emotion.
        conversations: [rows], a number for the conversation each row belongs to.
    """

    states: npt.NDArray[np.float32]
    labels: IntArray
    conversations: IntArray


@torch.no_grad()
def read_states(
    model: MultiTaskModel, sources: list[EncodedSource], draws: list[Draw], head: HeadName, place: Place, pass_tokens: int
) -> Readings:
    """What a head reads at its positions; inside `model.backbone.reference()` they are the base's.

    Args:
        model: In evaluation mode.
        sources: What the draws point into.
        draws: Conversations; those without a row of this head only cost time.
        head: Which one.
        place: Device and precision.
        pass_tokens: Tokens of a forward pass.
    """
    states, labels, conversations = [np.zeros((0, model.backbone.hidden_size), np.float32)], [], []
    for row in sequential_rows(sources, draws, pass_tokens):
        batch = collate(sources, [row]).to(model.backbone.device)
        with place.autocast():
            here = getattr(model.heads, head).pick(model.states(batch))
        if head == "emotion":
            known = known_emotions(batch)
            positions = batch.emotion_positions[torch.from_numpy(known >= 0).to(here.device)]
            labels.append(known[known >= 0])
        else:
            positions = batch.strategy_positions
            labels.append(batch.strategy_targets.argmax(dim=1).cpu().numpy())
        states.append(here[positions].float().cpu().numpy())
        at = np.searchsorted(batch.bounds.cpu().numpy(), positions.cpu().numpy(), side="right") - 1
        numbers = np.array([(draw.source << 32) + int(sources[draw.source].originals[draw.conversation]) for draw in row], np.int64)
        conversations.append(numbers[at])
    none = np.zeros(0, np.int64)
    return Readings(np.concatenate(states), np.concatenate([none, *labels]), np.concatenate([none, *conversations]))


def known_emotions(batch: Batch) -> IntArray:
    """`sole_emotions` of a batch's emotion rows."""
    labels = torch.arange(batch.emotion_targets.shape[1], device=batch.emotion_targets.device)
    return sole_emotions((batch.emotion_targets.long() << labels).sum(dim=1).cpu().numpy())


def sole_emotions(bits: IntArray) -> IntArray:
    """The emotion of rows that have exactly one label and whose label is no neutral, else -1.

    Args:
        bits: [rows], bit i is GoEmotions id i.
    """
    one = (bits != 0) & (bits & (bits - 1) == 0)
    place = np.where(one, np.log2(np.maximum(bits, 1)).astype(np.int64), -1)
    return np.where(place < len(EMOTIONS), place, -1)


def some_draws(sources: list[EncodedSource], head: HeadName, most_rows: int) -> list[Draw]:
    """Conversations in a fixed random order until they hold `most_rows` rows of a head: the same for every model that is probed."""
    order = np.random.default_rng(0)
    candidates: list[tuple[Draw, int]] = []
    for place, source in enumerate(sources):
        for index in range(len(source)):
            one = source[index]
            rows = int((sole_emotions(one.emotion[:, 1].astype(np.int64)) >= 0).sum()) if head == "emotion" else len(one.strategy)
            if rows:
                candidates.append((Draw(place, index), rows))
    chosen: list[Draw] = []
    found = 0
    for at in order.permutation(len(candidates)):
        if found >= most_rows:
            break
        draw, rows = candidates[at]
        chosen.append(draw)
        found += rows
    return sorted(chosen)
