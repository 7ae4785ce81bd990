"""EmpatheticDialogues in its official CSV files (Rashkin et al., ACL 2019, arXiv 1811.00207; CC BY-NC 4.0).

The files are not quoted: a comma inside text is written `_comma_`, and a bare `"` is text, so each line is split on `,`. Odd turns
are the speaker (our user), even turns the listener (our assistant); the files' own `speaker_idx` are worker ids, not roles.
"""

from pathlib import Path

from warmline.data.conversation import Conversation, Loaded, Split, Turn
from warmline.data.labels import SITUATIONS
from warmline.data.sources.files import read_text
from warmline.errors import WarmlineError, shown

HEADER = "conv_id,utterance_idx,context,prompt,speaker_idx,utterance,selfeval,tags"


def load(folder: Path, split: Split) -> Loaded:
    """Load one split.

    Args:
        folder: Holds train.csv, valid.csv and test.csv.
        split: Which file.

    Returns:
        One conversation for each `conv_id`, in file order.

    Raises:
        WarmlineError: a missing or damaged file, a line that does not fit, an unknown situation.
    """
    path = folder / f"{split}.csv"
    lines = read_text(path).split("\n")
    if lines[0] != HEADER:
        raise WarmlineError(f"{path}:1: expected the header `{HEADER}`; this is not an official EmpatheticDialogues file")
    if lines[-1] != "":
        raise WarmlineError(f"{path}:{len(lines)}: the last line has no end; the file is truncated, fetch it again")
    grouped: dict[str, tuple[str, list[str]]] = {}
    for number, line in enumerate(lines[1:-1], 2):
        fields = line.split(",")
        if len(fields) not in (8, 9):  # the ninth, in some official lines, holds retrieval candidates
            raise WarmlineError(f"{path}:{number}: {len(fields)} fields, expected 8 or 9 (a comma in text is `_comma_`)")
        conversation_id, position, situation, text = fields[0], fields[1], fields[2], _text(fields[5])
        if situation not in SITUATIONS:
            raise WarmlineError(f"{path}:{number}: unknown emotion label `{shown(situation)}`, expected one of the 32 situations")
        if not text:
            raise WarmlineError(f"{path}:{number}: empty utterance in {shown(conversation_id)}; remove the conversation")
        _, utterances = grouped.setdefault(conversation_id, (situation, []))
        utterances.append(text)
        if position != str(len(utterances)):
            raise WarmlineError(
                f"{path}:{number}: utterance_idx is {shown(position)}, expected {len(utterances)}; lines of {shown(conversation_id)} are "
                "missing"
            )
    if not grouped:
        raise WarmlineError(f"{path}: no conversation; the file is truncated, fetch it again")
    conversations = tuple(
        _conversation(conversation_id, situation, utterances) for conversation_id, (situation, utterances) in grouped.items()
    )
    return Loaded(conversations, rows=len(conversations), left_out={})


def _text(field: str) -> str:
    return " ".join(field.replace("_comma_", ",").split())


def _conversation(conversation_id: str, situation: str, utterances: list[str]) -> Conversation:
    turns = tuple(Turn("assistant" if index % 2 else "user", text) for index, text in enumerate(utterances))
    return Conversation(conversation_id, turns, situation=situation)
