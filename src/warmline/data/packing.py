"""Many conversations in one row, never cut, and the batch of tensors that a forward pass takes.

Conversations are laid in the order they are drawn; where the next does not fit, the longest of the following `lookahead` that does fills
the gap. So a row is nearly full, no conversation waits for long, and the shares of the mixture stay what the sampler promised.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor

from warmline.data.conversation import OBJECTIVES, Objective
from warmline.data.earlier import FEATURES, annotated, earlier_features
from warmline.data.encoding import Encoded, EncodedSource
from warmline.data.labels import EMOTIONS_AND_NEUTRAL
from warmline.data.mixture import Draw, MixtureSampler, SamplerState

Row = tuple[Draw, ...]


class PackerState(TypedDict):
    """The draws that wait, and the sampler behind them."""

    waiting: list[tuple[int, int]]
    sampler: SamplerState


class RowPacker:
    """A stream of rows from a mixture, as long as its draws.

    Args:
        sources: In the sampler's order.
        sampler: Draws conversations; what waits here counts as drawn.
        row_tokens: Capacity of a row.
        lookahead: Number of drawn conversations among which a gap's filler is looked for.
    """

    def __init__(self, sources: Sequence[EncodedSource], sampler: MixtureSampler, row_tokens: int, lookahead: int) -> None:
        self._lengths = [source.lengths for source in sources]
        self.sampler = sampler
        self._row_tokens = row_tokens
        self._lookahead = lookahead
        self._waiting: list[Draw] = []

    def row(self) -> Row:
        """The next row: at least one conversation, at most `row_tokens` tokens; empty when the mixture has come to its end."""
        taken: list[Draw] = []
        room = self._row_tokens
        while True:
            while len(self._waiting) < self._lookahead and (drawn := self.sampler.draw()) is not None:
                self._waiting.append(drawn)
            at = self._next(room) if self._waiting else None
            if at is None:
                return tuple(taken)
            draw = self._waiting.pop(at)
            taken.append(draw)
            room -= self._length(draw)

    def _next(self, room: int) -> int | None:
        """Place of the first waiting conversation if it fits, else of the longest that does, else None."""
        if self._length(self._waiting[0]) <= room:
            return 0
        fitting = [(self._length(draw), -at) for at, draw in enumerate(self._waiting) if self._length(draw) <= room]
        return -max(fitting)[1] if fitting else None

    def _length(self, draw: Draw) -> int:
        return int(self._lengths[draw.source][draw.conversation])

    def state(self) -> PackerState:
        """What `restore` needs, JSON-serialisable."""
        return {"waiting": [(draw.source, draw.conversation) for draw in self._waiting], "sampler": self.sampler.state()}

    def restore(self, state: PackerState) -> None:
        """Go on exactly where `state` was taken."""
        self._waiting = [Draw(*pair) for pair in state["waiting"]]
        self.sampler.restore(state["sampler"])


def all_draws(sources: Sequence[EncodedSource]) -> list[Draw]:
    """Every conversation of every source, in order."""
    return [Draw(place, index) for place, source in enumerate(sources) for index in range(len(source))]


def sequential_rows(sources: Sequence[EncodedSource], chosen: Sequence[Draw], row_tokens: int) -> Iterator[Row]:
    """Rows over a fixed list of conversations, each exactly once, in order: for validation and scoring."""
    taken: list[Draw] = []
    room = row_tokens
    for draw in chosen:
        length = int(sources[draw.source].lengths[draw.conversation])
        if taken and length > room:
            yield tuple(taken)
            taken, room = [], row_tokens
        taken.append(draw)
        room -= length
    if taken:
        yield tuple(taken)


@dataclass(frozen=True)
class Batch:
    """One micro-batch as one flat sequence of conversations. Positions are places in that sequence.

    Two conversations of 3 and 2 tokens give

        tokens       = [11 12 13 21 22]
        position_ids = [ 0  1  2  0  1]      restart, so rotary angles are those of each conversation alone
        bounds       = [ 0  3  5]            where attention may not look across

    Attributes:
        tokens: [tokens], int64.
        position_ids: [tokens], int64.
        bounds: [conversations + 1], int32.
        longest: Tokens of the longest conversation.
        lm_positions: [lm targets], states that predict a reply token.
        lm_targets: [lm targets], those tokens.
        emotion_positions: [emotion targets].
        emotion_targets: [emotion targets, 28], 1 where a label applies, fp32.
        strategy_positions: [strategy targets].
        strategy_targets: [strategy targets, 8], 1 at the label, fp32.
        strategy_earlier: [strategy targets, FEATURES], what the labels of the conversation's earlier replies say, fp32.
        safety_positions: [safety targets], states that predict a reply token of a safety conversation.
        safety_weights: [safety targets], 1 / (reply tokens of its conversation), so that each conversation sums to a mean, fp32.
        safety_draws: The safety conversations, in order, to look up the base's states.
    """

    tokens: Tensor
    position_ids: Tensor
    bounds: Tensor
    longest: int
    lm_positions: Tensor
    lm_targets: Tensor
    emotion_positions: Tensor
    emotion_targets: Tensor
    strategy_positions: Tensor
    strategy_targets: Tensor
    strategy_earlier: Tensor
    safety_positions: Tensor
    safety_weights: Tensor
    safety_draws: tuple[Draw, ...]

    def to(self, device: torch.device) -> "Batch":
        """The same batch on a device."""
        moved = {
            field.name: getattr(self, field.name).to(device, non_blocking=True)
            for field in fields(self)
            if isinstance(getattr(self, field.name), Tensor)
        }
        return replace(self, **moved)


def collate(sources: Sequence[EncodedSource], rows: Sequence[Row]) -> Batch:
    """Lay the conversations of some rows one after the other.

    Args:
        sources: What the rows' draws point into.
        rows: At least one.
    """
    draws = [draw for row in rows for draw in row]
    encoded = [sources[draw.source][draw.conversation] for draw in draws]
    bounds = np.concatenate([[0], np.cumsum([len(one.tokens) for one in encoded])])
    lm, safety, weights, emotion, strategy = [], [], [], [], []
    earlier, safety_draws = [torch.zeros(0, FEATURES)], []
    for draw, one, start in zip(draws, encoded, bounds[:-1], strict=True):
        objectives = sources[draw.source].objectives
        predicting = reply_states(one) + start
        if "lm" in objectives:
            lm.append(predicting)
        if "safety" in objectives and len(predicting):
            safety.append(predicting)
            weights.append(np.full(len(predicting), 1 / len(predicting)))
            safety_draws.append(draw)
        emotion.append(one.emotion + [[start, 0]])
        if len(one.strategy):
            earlier.append(earlier_features(annotated(one.strategy[:, 1])))
        strategy.append(one.strategy + [[start, 0]])
    tokens = np.concatenate([one.tokens for one in encoded]).astype(np.int64)
    lm_positions = _joined(lm)
    emotions, strategies = np.concatenate(emotion).astype(np.int64), np.concatenate(strategy).astype(np.int64)
    bits = emotions[:, 1:] >> np.arange(len(EMOTIONS_AND_NEUTRAL)) & 1
    return Batch(
        tokens=torch.from_numpy(tokens),
        position_ids=torch.from_numpy(np.arange(len(tokens)) - np.repeat(bounds[:-1], np.diff(bounds))),
        bounds=torch.from_numpy(bounds.astype(np.int32)),
        longest=int(np.diff(bounds).max()),
        lm_positions=torch.from_numpy(lm_positions),
        lm_targets=torch.from_numpy(tokens[lm_positions + 1]),
        emotion_positions=torch.from_numpy(emotions[:, 0].copy()),
        emotion_targets=torch.from_numpy(bits.astype(np.float32)),
        strategy_positions=torch.from_numpy(strategies[:, 0].copy()),
        strategy_targets=annotated(strategies[:, 1]),
        strategy_earlier=torch.cat(earlier),
        safety_positions=torch.from_numpy(_joined(safety)),
        safety_weights=torch.from_numpy(np.concatenate([np.zeros(0), *weights]).astype(np.float32)),
        safety_draws=tuple(safety_draws),
    )


def reply_states(encoded: Encoded) -> np.ndarray:
    """Places whose states predict the supervised reply tokens, in order, [reply tokens], int64."""
    return _joined([np.arange(first - 1, end - 1) for first, end in encoded.replies.tolist()])


def count_targets(counts: Sequence[dict[Objective, np.ndarray]], rows: Sequence[Row]) -> dict[Objective, int]:
    """Targets of each objective in some rows: the denominators of a step, known without asking any other rank.

    Args:
        counts: `EncodedSource.target_counts()` of each source.
        rows: Any number.
    """
    draws = [draw for row in rows for draw in row]
    return {name: sum(int(counts[draw.source][name][draw.conversation]) for draw in draws) for name in OBJECTIVES}


def tally(sources: Sequence[EncodedSource], rows: Sequence[Row]) -> tuple[list[int], int]:
    """Conversations of each source in some rows, and their tokens."""
    drawn, tokens = [0] * len(sources), 0
    for draw in (draw for row in rows for draw in row):
        drawn[draw.source] += 1
        tokens += int(sources[draw.source].lengths[draw.conversation])
    return drawn, tokens


def _joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.int64), *arrays]).astype(np.int64)
