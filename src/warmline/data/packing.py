"""Many conversations in one row, never cut; the batch of tensors that a forward pass takes; and what a head may know of earlier replies.

Conversations are laid in the order they are drawn; where the next does not fit, the longest of the following `lookahead` that does fills
the gap. So a row is nearly full, no conversation waits for long, and the shares of the mixture stay what the sampler promised.

A head may be told the labels of the replies before the one it is asked about (`earlier_features`). Each is a distribution over the labels:
one-hot where people annotated it, the head's own probabilities where nobody did. Every block of numbers is a weighted sum of the earlier
ones, which differ in how a reply counts that lies so many replies back.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple, TypedDict

import numpy as np
import torch
from torch import Tensor

from warmline.data.encoding import Encoded, EncodedSource
from warmline.data.mixture import Draw, MixtureSampler, SamplerState
from warmline.tasks import TASKS, all_objectives

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


class HeadRows(NamedTuple):
    """Where one head reads in a batch, and what it should say.

    Attributes:
        positions: [rows], places in the flat sequence.
        targets: [rows, labels], 1 where a label applies, fp32.
        earlier: [rows, features], what the labels of the conversation's earlier replies say, fp32; no features for a head of users' turns.
    """

    positions: Tensor
    targets: Tensor
    earlier: Tensor

    def to(self, device: torch.device) -> "HeadRows":
        """The same rows on a device."""
        return HeadRows(*(tensor.to(device, non_blocking=True) for tensor in self))


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
        heads: By the name of each head, its rows; none where no conversation is labelled for it.
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
    heads: dict[str, HeadRows]
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
        return replace(self, **moved, heads={name: rows.to(device) for name, rows in self.heads.items()})


def collate(sources: Sequence[EncodedSource], rows: Sequence[Row]) -> Batch:
    """Lay the conversations of some rows one after the other.

    Args:
        sources: What the rows' draws point into.
        rows: At least one.
    """
    draws = [draw for row in rows for draw in row]
    encoded = [sources[draw.source][draw.conversation] for draw in draws]
    bounds = np.concatenate([[0], np.cumsum([len(one.tokens) for one in encoded])])
    lm, safety, weights, safety_draws = [], [], [], []
    for draw, one, start in zip(draws, encoded, bounds[:-1], strict=True):
        trained = sources[draw.source].objectives
        predicting = reply_states(one) + start
        if "lm" in trained:
            lm.append(predicting if one.skipped is None else predicting[~one.skipped[predicting - start + 1]])
        if "safety" in trained and len(predicting):
            safety.append(predicting)
            weights.append(np.full(len(predicting), 1 / len(predicting)))
            safety_draws.append(draw)
    tokens = np.concatenate([one.tokens for one in encoded]).astype(np.int64)
    lm_positions = _joined(lm)
    return Batch(
        tokens=torch.from_numpy(tokens),
        position_ids=torch.from_numpy(np.arange(len(tokens)) - np.repeat(bounds[:-1], np.diff(bounds))),
        bounds=torch.from_numpy(bounds.astype(np.int32)),
        longest=int(np.diff(bounds).max()),
        lm_positions=torch.from_numpy(lm_positions),
        lm_targets=torch.from_numpy(tokens[lm_positions + 1]),
        heads={name: _head_rows(name, encoded, bounds[:-1]) for name in TASKS},
        safety_positions=torch.from_numpy(_joined(safety)),
        safety_weights=torch.from_numpy(np.concatenate([np.zeros(0), *weights]).astype(np.float32)),
        safety_draws=tuple(safety_draws),
    )


def _head_rows(name: str, encoded: Sequence[Encoded], starts: np.ndarray) -> HeadRows:
    """A head's rows in conversations that begin at `starts`."""
    classes, follows = len(TASKS[name].labels), TASKS[name].reads == "assistant"
    positions, targets, earlier = [], [np.zeros((0, classes), np.float32)], [torch.zeros(0, features(classes) if follows else 0)]
    for one, start in zip(encoded, starts, strict=True):
        if name in one.labels:
            positions.append(one.labels[name][:, 0] + start)
            targets.append((one.labels[name][:, 1:] >> np.arange(classes) & 1).astype(np.float32))
            earlier.append(earlier_features(torch.from_numpy(targets[-1])) if follows else torch.zeros(len(targets[-1]), 0))
    return HeadRows(torch.from_numpy(_joined(positions)), torch.from_numpy(np.concatenate(targets)), torch.cat(earlier))


def reply_states(encoded: Encoded) -> np.ndarray:
    """Places whose states predict the supervised reply tokens, in order, [reply tokens], int64."""
    return _joined([np.arange(first - 1, end - 1) for first, end in encoded.replies.tolist()])


def count_targets(counts: Sequence[dict[str, np.ndarray]], rows: Sequence[Row]) -> dict[str, int]:
    """Targets of each objective in some rows: the denominators of a step, known without asking any other rank.

    Args:
        counts: `EncodedSource.target_counts()` of each source.
        rows: Any number.
    """
    draws = [draw for row in rows for draw in row]
    return {name: sum(int(counts[draw.source][name][draw.conversation]) for draw in draws) for name in all_objectives()}


def tally(sources: Sequence[EncodedSource], rows: Sequence[Row]) -> tuple[list[int], int]:
    """Conversations of each source in some rows, and their tokens."""
    drawn, tokens = [0] * len(sources), 0
    for draw in (draw for row in rows for draw in row):
        drawn[draw.source] += 1
        tokens += int(sources[draw.source].lengths[draw.conversation])
    return drawn, tokens


def _joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.int64), *arrays]).astype(np.int64)


LAST = 5
"""Replies told apart by their order."""

FADING = (0.5, 0.8, 0.93)
"""What a reply counts in proportion to the one after it: looks of about 2, 5 and 14 replies back."""

MARKS = (1, 2, 3, 5, 10, 15, 20)
"""Numbers of earlier replies that a conversation has reached or not."""


def features(classes: int) -> int:
    """How many numbers `earlier_features` gives of so many classes."""
    return (LAST + len(FADING) + 1) * classes + 1 + len(MARKS)


def earlier_features(labels: Tensor) -> Tensor:
    """What is known before each reply of a conversation.

    Args:
        labels: [replies, classes], each reply's label as a distribution, in order.

    Returns:
        [replies, features], of which row i depends on the rows before i alone: the last five in order (zeros where there is none), three
        fading sums, each label's share, log(1 + number of earlier replies), and which of MARKS that number has reached.
    """
    number = torch.arange(len(labels), device=labels.device)[:, None]
    back = number - number.T
    earlier = back > 0
    order = [back == place for place in range(1, LAST + 1)]
    fading = [earlier * (1 - rate) * rate ** (back - 1).clamp(min=0) for rate in FADING]
    share = earlier / number.clamp(min=1)
    blocks = [counts.to(labels.dtype) @ labels for counts in (*order, *fading, share)]
    reached = (number >= number.new_tensor(MARKS)).to(labels.dtype)
    return torch.cat([*blocks, number.to(labels.dtype).log1p(), reached], dim=1)
