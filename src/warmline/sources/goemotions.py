"""GoEmotions in its official TSV files (Demszky et al., ACL 2020, arXiv 2005.00547; CC BY 4.0).

A row is one user turn with all its official labels, each once. With 27 classes, rows whose only label is neutral are left out: neutral
is not a class, and mapping it to one would teach a wrong answer (the loss ignores a neutral that stands beside an emotion). With 28
labels every row is used.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from warmline.conversation import Conversation, Loaded, Split, Turn
from warmline.errors import WarmlineError, shown
from warmline.sources.files import read_text
from warmline.sources.source import CardFacts, RemoteFile, Source, SourceSettings
from warmline.tasks.emotion import EMOTIONS, EMOTIONS_AND_NEUTRAL, NEUTRAL, EmotionTask
from warmline.tasks.task import label_rows

FILE_NAMES: dict[Split, str] = {"train": "train.tsv", "valid": "dev.tsv", "test": "test.tsv"}
NEUTRAL_ONLY = "only neutral"
_ADDRESS = "https://raw.githubusercontent.com/google-research/google-research/master/goemotions/data"


class GoEmotionsSettings(SourceSettings):
    """GoEmotions: emotion of a single user turn; never touches the language model."""

    objectives: tuple[str, ...] = Field(("emotion",), description="What it trains.")
    labels: Literal[27, 28] = Field(
        27,
        description="27: softmax over emotions, several labels as soft targets, neutral-only rows left out. 28: sigmoid, all rows.",
    )


_DIGITS = 3
"""Of a label id at most; Python reads no number of thousands."""


class GoEmotions(Source):
    """Comments and how they feel."""

    name = "goemotions"
    standard = True
    carries = ("emotion",)
    settings = GoEmotionsSettings
    official = (
        RemoteFile(
            "goemotions",
            "train.tsv",
            f"{_ADDRESS}/train.tsv",
            "sha256:1c254a142be5c00e80d819b9ae1bbd36d94b2eeb8f4b1271846508d57e57d9c5",
            3_519_053,
        ),
        RemoteFile(
            "goemotions",
            "dev.tsv",
            f"{_ADDRESS}/dev.tsv",
            "sha256:575489c079c9de1097062a01738f998590d6b7ead66dd1c9fd1d2ba01fd8bc62",
            439_059,
        ),
        RemoteFile(
            "goemotions",
            "test.tsv",
            f"{_ADDRESS}/test.tsv",
            "sha256:0587b2dd8b27b97352adbfc3fb083d46005c8946657fdc2b1ca8b1cc7f1f8be4",
            436_706,
        ),
        RemoteFile(
            "goemotions",
            "emotions.txt",
            f"{_ADDRESS}/emotions.txt",
            "sha256:45c3ef86782d2a4d7fedcd6d8c111aa0d0e94720689bd164fac94fefb4495a89",
            248,
        ),
    )
    facts = CardFacts(
        "GoEmotions",
        "English Reddit comments labelled with 27 emotions or neutral by three raters or more. It trains the emotion head and never "
        "touches the language model.",
        "Demszky et al., ACL 2020, arXiv 2005.00547; `google-research/google-research`, folder `goemotions`.",
        "CC BY 4.0.",
        (
            "A row is one user turn with all its official labels; runs of white space become one space.",
            "With 27 classes, rows whose only label is neutral are left out and several labels share the target's mass; with 28 "
            "labels every row is used with binary cross-entropy.",
        ),
        (
            "Very uneven: the rarest classes (grief, pride, relief) have a handful of test rows, so macro-F1 moves by chance.",
            "Single comments without their thread; raters often disagree. Names and religions are masked.",
            "Some test texts also stand in train, so a test score is a little too kind.",
        ),
        "emotions",
        hub="google-research-datasets/go_emotions",
    )

    def files(self, split: Split) -> tuple[str, ...]:
        """One TSV a split."""
        return (FILE_NAMES[split],)

    def load(self, folder: Path, split: Split, settings: Any = None) -> Loaded:
        """One conversation of one user turn a row."""
        return load(folder, split, with_neutral=settings is not None and settings.labels == 28)

    def for_evaluation(self, settings: Any) -> Any:
        """With the neutral rows, for the 28-label protocol."""
        return settings.model_copy(update={"labels": 28})

    def counts(self, conversations: Sequence[Conversation]) -> Mapping[str, int]:
        """Rows whose only official label is an emotion."""
        return {"single_label": int(label_rows(EmotionTask(), conversations).single(len(EMOTIONS)).sum())}


def load(folder: Path, split: Split, with_neutral: bool = False) -> Loaded:
    """Load one split.

    Args:
        folder: Holds train.tsv, dev.tsv and test.tsv.
        split: Which file; `valid` is the official dev.
        with_neutral: Neutral is a 28th label, so rows that have no other are used too.

    Returns:
        One conversation of one user turn for each row that is used; `id` is the official comment id.

    Raises:
        WarmlineError: a missing or damaged file, a line that does not fit, an unknown label id.
    """
    path = folder / FILE_NAMES[split]
    lines = read_text(path).split("\n")
    if lines[-1] != "":
        raise WarmlineError(f"{path}:{len(lines)}: the last line has no end; the file is truncated, fetch it again")
    conversations = []
    neutral_only = 0
    for number, line in enumerate(lines[:-1], 1):
        fields = line.split("\t")
        if len(fields) != 3:
            raise WarmlineError(f"{path}:{number}: {len(fields)} fields, expected text, label ids and comment id between tabs")
        text, ids, comment = " ".join(fields[0].split()), fields[1], fields[2]
        if not text:
            raise WarmlineError(f"{path}:{number}: empty text; remove the line")
        emotions = _emotions(path, number, ids)
        if with_neutral or emotions != (NEUTRAL,):
            conversations.append(Conversation(comment, (Turn("user", text, {"emotion": emotions}),)))
        else:
            neutral_only += 1
    if not conversations:
        raise WarmlineError(f"{path}: no row with an emotion; the file is truncated, fetch it again")
    return Loaded(tuple(conversations), rows=len(lines) - 1, left_out={NEUTRAL_ONLY: neutral_only} if neutral_only else {})


def _emotions(path: Path, number: int, ids: str) -> tuple[str, ...]:
    names = []
    for part in ids.split(","):
        if not part.isdecimal() or len(part) > _DIGITS or int(part) >= len(EMOTIONS_AND_NEUTRAL):
            raise WarmlineError(f"{path}:{number}: unknown emotion label id `{shown(part)}`, expected 0 to {len(EMOTIONS_AND_NEUTRAL) - 1}")
        names.append(EMOTIONS_AND_NEUTRAL[int(part)])
    return tuple(dict.fromkeys(names))
