"""What every source is turned into: a conversation of turns with roles, emotions and strategies."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from warmline.data.labels import NEUTRAL

Role = Literal["user", "assistant"]
Split = Literal["train", "valid", "test"]
Objective = Literal["lm", "emotion", "strategy", "safety"]

SPLITS: tuple[Split, ...] = ("train", "valid", "test")
OBJECTIVES: tuple[Objective, ...] = ("lm", "emotion", "strategy", "safety")


@dataclass(frozen=True, slots=True)
class Turn:
    """One message.

    Attributes:
        role: Who speaks.
        text: What is said, without surrounding white space.
        emotions: GoEmotions label names heard in a user's turn; empty when unlabelled.
        strategy: ESConv strategy name of an assistant's turn; None when unlabelled.
    """

    role: Role
    text: str
    emotions: tuple[str, ...] = ()
    strategy: str | None = None

    @property
    def sole_emotion(self) -> str | None:
        """The emotion, where it is the turn's only official label; neutral is none."""
        return self.emotions[0] if len(self.emotions) == 1 and self.emotions[0] != NEUTRAL else None


@dataclass(frozen=True, slots=True)
class Conversation:
    """A dialogue, or a single user turn, from one source.

    Attributes:
        id: Unique within its source and split, as the official file has it where it has one.
        turns: In order; never empty.
        situation: EmpatheticDialogues' situation label, kept beside the conversation and never an input.
        category: The safety set's category, never an input.
    """

    id: str
    turns: tuple[Turn, ...]
    situation: str | None = None
    category: str | None = None


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a loader found in one split.

    Attributes:
        conversations: Those that are used.
        rows: Rows (or dialogues) that the official file holds.
        left_out: Why rows were left out, with how many; they sum with the conversations to `rows` where one row is one
            conversation.
    """

    conversations: tuple[Conversation, ...]
    rows: int
    left_out: dict[str, int]


def count_targets(conversations: Sequence[Conversation], objectives: Sequence[Objective]) -> dict[str, int]:
    """How many targets each objective finds.

    Args:
        conversations: Any number.
        objectives: Those the source trains.

    Returns:
        `lm` and `safety`: assistant turns; `emotion`: user turns with a label; `strategy`: assistant turns with a label. An
        objective that the source does not train counts 0.
    """
    turns = [turn for conversation in conversations for turn in conversation.turns]
    found = {
        "lm": sum(turn.role == "assistant" for turn in turns),
        "emotion": sum(bool(turn.emotions) for turn in turns),
        "strategy": sum(turn.strategy is not None for turn in turns),
        "safety": sum(turn.role == "assistant" for turn in turns),
    }
    return {name: found[name] if name in objectives else 0 for name in OBJECTIVES}
