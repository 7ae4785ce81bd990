"""What the classifiers are scored on, as plain rows: texts, labels, and which dialogue a row belongs to.

The rows stand in the order in which encoded sources give their targets, so that row i here is row i of a head's logits.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from warmline.conversation import Conversation, Role, Turn
from warmline.data.labels import EMOTIONS, EMOTIONS_AND_NEUTRAL, STRATEGIES
from warmline.metrics.statistics import BoolArray, FloatArray, IntArray

CONTEXT_TURNS = 3
LAST_STRATEGIES = 3


class EmotionRows(NamedTuple):
    """GoEmotions rows of one split, those that are only neutral included.

    Attributes:
        texts: [rows].
        labels: [rows, 28].
    """

    texts: list[str]
    labels: BoolArray

    @property
    def single(self) -> BoolArray:
        """[rows], True where the only official label is one of the 27 emotions: the rows of the 27-way protocol."""
        return np.asarray((self.labels.sum(axis=1) == 1) & ~self.labels[:, len(EMOTIONS)])

    def seen(self, others: "EmotionRows") -> BoolArray:
        """[rows], True where the text, without regard to case, also stands in the other split, whatever its labels there."""
        known = {text.lower() for text in others.texts}
        return np.asarray([text.lower() in known for text in self.texts], dtype=bool)


def emotion_rows(conversations: Sequence[Conversation]) -> EmotionRows:
    """Rows of GoEmotions: one user turn each."""
    texts = [conversation.turns[0].text for conversation in conversations]
    labels = np.zeros((len(texts), len(EMOTIONS_AND_NEUTRAL)), dtype=bool)
    for row, conversation in enumerate(conversations):
        labels[row, [EMOTIONS_AND_NEUTRAL.index(label) for label in conversation.turns[0].emotions]] = True
    return EmotionRows(texts, labels)


class StrategyRows(NamedTuple):
    """Supporter turns of one split of ESConv.

    Attributes:
        targets: [rows], places in STRATEGIES.
        dialogues: [rows], which conversation a row belongs to.
        after: [rows], who spoke last before the reply; None where it opens the dialogue.
        contexts: [rows], the last turns before the reply.
        replies: [rows], the reply itself: never an input of a strategy predictor.
        history: [rows, features], how often each strategy was used before, and the turn's position. No text.
        history_in_order: [rows, features], that and the last three strategies in order, and whether the supporter spoke last.
    """

    targets: IntArray
    dialogues: IntArray
    after: list[Role | None]
    contexts: list[str]
    replies: list[str]
    history: FloatArray
    history_in_order: FloatArray


def strategy_rows(conversations: Sequence[Conversation]) -> StrategyRows:
    """One row for each labelled supporter turn."""
    targets, dialogues, after, contexts, replies, history, in_order = [], [], [], [], [], [], []
    for number, conversation in enumerate(conversations):
        used: list[int] = []
        for at, turn in enumerate(conversation.turns):
            if turn.strategy is None:
                continue
            before = conversation.turns[:at]
            after.append(before[-1].role if before else None)
            contexts.append(" ".join(one.text for one in before[-CONTEXT_TURNS:]))
            replies.append(turn.text)
            history.append(_history(used, at))
            in_order.append(np.concatenate([history[-1], _in_order(used, before)]))
            used.append(STRATEGIES.index(turn.strategy))
            targets.append(used[-1])
            dialogues.append(number)
    return StrategyRows(
        np.asarray(targets, dtype=np.int64),
        np.asarray(dialogues, dtype=np.int64),
        after,
        contexts,
        replies,
        np.asarray(history),
        np.asarray(in_order),
    )


def _history(used: list[int], position: int) -> FloatArray:
    return np.concatenate([np.bincount(used, minlength=len(STRATEGIES)), [position]]).astype(np.float64)


def _in_order(used: list[int], before: Sequence[Turn]) -> FloatArray:
    last = np.zeros((LAST_STRATEGIES, len(STRATEGIES)))
    for back, strategy in enumerate(reversed(used[-LAST_STRATEGIES:])):
        last[back, strategy] = 1
    shares = np.bincount(used, minlength=len(STRATEGIES)) / max(len(used), 1)
    position = [np.log1p(len(before)), 1 / (1 + len(before)), float(bool(before) and before[-1].role == "assistant")]
    return np.concatenate([last.ravel(), shares, position])
