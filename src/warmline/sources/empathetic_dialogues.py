"""EmpatheticDialogues in its official CSV files (Rashkin et al., ACL 2019, arXiv 1811.00207; CC BY-NC 4.0).

The files are not quoted: a comma inside text is written `_comma_`, and a bare `"` is text, so each line is split on `,`. Odd turns
are the speaker (our user), even turns the listener (our assistant); the files' own `speaker_idx` are worker ids, not roles.
"""

from pathlib import Path
from typing import Any

from pydantic import Field

from warmline.conversation import Conversation, Loaded, Split, Turn
from warmline.errors import WarmlineError, shown
from warmline.sources.files import read_text
from warmline.sources.source import CardFacts, RemoteFile, Source, SourceSettings

HEADER = "conv_id,utterance_idx,context,prompt,speaker_idx,utterance,selfeval,tags"
SITUATIONS = (
    "afraid", "angry", "annoyed", "anticipating", "anxious", "apprehensive", "ashamed", "caring", "confident", "content",
    "devastated", "disappointed", "disgusted", "embarrassed", "excited", "faithful", "furious", "grateful", "guilty", "hopeful",
    "impressed", "jealous", "joyful", "lonely", "nostalgic", "prepared", "proud", "sad", "sentimental", "surprised", "terrified",
    "trusting"
)  # fmt: skip
"""What a speaker was asked to tell of, in 32 words; kept beside a conversation."""


class EmpatheticDialoguesSettings(SourceSettings):
    """EmpatheticDialogues: language model on the listener's turns."""

    objectives: tuple[str, ...] = Field(("lm",), description="What it trains.")


class EmpatheticDialogues(Source):
    """Speaker and listener about a situation."""

    name = "empathetic_dialogues"
    standard = True
    carries = ("lm",)
    settings = EmpatheticDialoguesSettings
    kinds = "situations"
    official = (
        RemoteFile(
            "empathetic_dialogues",
            "empatheticdialogues.tar.gz",
            "https://dl.fbaipublicfiles.com/parlai/empatheticdialogues/empatheticdialogues.tar.gz",
            "sha256:56f234d77b7dd1f005fd365bb17769cfe346c3c84295b69bc069c8ccb83be03d",
            64 * 2**20,
            ("empatheticdialogues/train.csv", "empatheticdialogues/valid.csv", "empatheticdialogues/test.csv"),
        ),
    )
    facts = CardFacts(
        "EmpatheticDialogues",
        "Crowd-sourced English conversations in which a speaker tells of a situation written for one of 32 emotion labels and a "
        "listener responds. It trains the language model on the listener's turns.",
        "Rashkin et al., ACL 2019, arXiv 1811.00207; `facebookresearch/EmpatheticDialogues`.",
        "CC BY-NC 4.0: a model tuned on it inherits the non-commercial terms.",
        (
            "Lines are split on `,` without quoting, `_comma_` becomes a comma, runs of white space become one space.",
            "Odd turns are the user, even turns the assistant; the files' `speaker_idx` are worker ids and are not used.",
            "The situation text (`prompt`), `selfeval` and `tags` are never input. The situation label is kept beside the conversation.",
        ),
        (
            "A default CSV reader merges rows, because text holds bare quotation marks.",
            "Listeners are crowd workers who were asked to be empathetic: replies are short and often a question.",
            "Labels were given before the conversation was written; a conversation may drift away from its label.",
        ),
        "situations",
        hub="facebook/empathetic_dialogues",
        inherits="CC BY-NC 4.0",
    )

    def files(self, split: Split) -> tuple[str, ...]:
        """One CSV a split."""
        return (f"{split}.csv",)

    def load(self, folder: Path, split: Split, settings: Any = None) -> Loaded:
        """One conversation for each `conv_id`, in file order."""
        return load(folder, split)


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
    conversations = tuple(_conversation(name, situation, utterances) for name, (situation, utterances) in grouped.items())
    return Loaded(conversations, rows=len(conversations), left_out={})


def _text(field: str) -> str:
    return " ".join(field.replace("_comma_", ",").split())


def _conversation(conversation_id: str, situation: str, utterances: list[str]) -> Conversation:
    turns = tuple(Turn("user" if index % 2 == 0 else "assistant", text) for index, text in enumerate(utterances))
    return Conversation(conversation_id, turns, kind=situation)
