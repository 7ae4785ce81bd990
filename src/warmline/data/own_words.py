"""Replies in the base's own words, as `warmline rewrite` wrote them, in the place of people's.

A file a source and split, one JSON object a line: `{"conversation": id, "turn": index, "reply": text or null, ...}`. null says that no
candidate was good enough. Replies stand in the history of later ones, too, as they will when the model is talked to; where there is none,
the human reply stays there, as context that is not learned.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from warmline.conversation import Conversation, Loaded, Split, Turn
from warmline.errors import WarmlineError
from warmline.sources.files import read_json, read_text, split_lines


class Spot(NamedTuple):
    """Where a reply belongs.

    Attributes:
        conversation: Its id.
        turn: Its index; behind the last turn where nobody has answered yet.
    """

    conversation: str
    turn: int


def words_file(folder: Path, source: str, split: Split) -> Path:
    """Where the replies of a split of a source lie."""
    return folder / f"{source}-{split}.jsonl"


def read_words(path: Path) -> dict[Spot, dict[str, Any]]:
    """The lines of a file, by their spots; a last line without an end, which a crash left behind, counts as not written.

    Raises:
        WarmlineError: a line that is none of ours.
    """
    text = read_text(path) if path.is_file() else ""
    found: dict[Spot, dict[str, Any]] = {}
    for number, line in enumerate(split_lines(text[: text.rfind("\n") + 1]), 1):
        record = read_json(line, str(path), number, "mend the line, or remove the file and run `warmline rewrite` again")
        known = isinstance(record, dict) and isinstance(record.get("conversation"), str) and type(record.get("turn")) is int
        if not known or record.get("reply", "") == "" or not isinstance(record["reply"], str | None):
            raise WarmlineError(f"{path}:{number}: expected conversation, turn and reply (a text or null), as `warmline rewrite` writes")
        found[Spot(record["conversation"], record["turn"])] = record
    return found


def with_own_words(loaded: Loaded, folder: Path, source: str, split: Split, unanswered: bool) -> Loaded:
    """Conversations with the base's replies in the place of people's; as they are where it was not asked for the split.

    Args:
        loaded: A split of the source.
        folder: Where `warmline rewrite` put them.
        source: Its name.
        split: Which.
        unanswered: Whether its conversations end with the user's turn, and the reply comes behind it.

    Raises:
        WarmlineError: a line that is none of ours.
    """
    path = words_file(folder, source, split)
    if not path.is_file():
        return loaded
    words: dict[Spot, str | None] = {spot: record["reply"] for spot, record in read_words(path).items()}
    return replace(loaded, conversations=tuple(_retold(one, words, unanswered) for one in loaded.conversations))


def _retold(conversation: Conversation, words: dict[Spot, str | None], unanswered: bool) -> Conversation:
    turns = list(conversation.turns)
    for at, turn in enumerate(turns):
        if turn.role == "assistant":
            own = words.get(Spot(conversation.id, at))
            turns[at] = replace(turn, target=False) if own is None else replace(turn, text=own)
    if unanswered and (answer := words.get(Spot(conversation.id, len(turns)))) is not None:
        turns.append(Turn("assistant", answer))
    return replace(conversation, turns=tuple(turns))
