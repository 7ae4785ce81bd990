"""What every source is turned into: a conversation of turns with roles and labels."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Role = Literal["user", "assistant"]
Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")


@dataclass(frozen=True, slots=True)
class Turn:
    """One message.

    Attributes:
        role: Who speaks.
        text: What is said, without surrounding white space.
        labels: By the name of a head (`tasks.TASKS`), the labels that people gave this turn for it; a head without any is left out.
        target: Of the assistant: whether the reply is to be learned, or held to the base's; otherwise it is context alone. Heads read
            before it either way.
    """

    role: Role
    text: str
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    target: bool = True


@dataclass(frozen=True, slots=True)
class Conversation:
    """A dialogue, or a single user turn, from one source.

    Attributes:
        id: Unique within its source and split, as the official file has it where it has one.
        turns: In order; never empty.
        kind: What the source sorts its conversations by, such as EmpatheticDialogues' situation; kept beside them and never an input.
    """

    id: str
    turns: tuple[Turn, ...]
    kind: str | None = None

    def reply_places(self) -> list[int]:
        """Places of the assistant's turns that follow a user's; further messages of one who has just replied are none."""
        return [at for at in range(1, len(self.turns)) if (self.turns[at - 1].role, self.turns[at].role) == ("user", "assistant")]


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
