"""GoEmotions in its official TSV files (Demszky et al., ACL 2020, arXiv 2005.00547; CC BY 4.0).

A row is one user turn with all its official labels, each once. With 27 classes, rows whose only label is neutral are left out: neutral
is not a class, and mapping it to one would teach a wrong answer (the loss ignores a neutral that stands beside an emotion). With 28
labels every row is used.
"""

from pathlib import Path

from warmline.conversation import Conversation, Loaded, Split, Turn
from warmline.data.labels import EMOTIONS_AND_NEUTRAL, NEUTRAL
from warmline.errors import WarmlineError, shown
from warmline.sources.files import read_text

FILE_NAMES: dict[Split, str] = {"train": "train.tsv", "valid": "dev.tsv", "test": "test.tsv"}
NEUTRAL_ONLY = "only neutral"


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
            conversations.append(Conversation(comment, (Turn("user", text, emotions=emotions),)))
        else:
            neutral_only += 1
    if not conversations:
        raise WarmlineError(f"{path}: no row with an emotion; the file is truncated, fetch it again")
    return Loaded(tuple(conversations), rows=len(lines) - 1, left_out={NEUTRAL_ONLY: neutral_only} if neutral_only else {})


def _emotions(path: Path, number: int, ids: str) -> tuple[str, ...]:
    names = []
    for part in ids.split(","):
        if not part.isdecimal() or int(part) >= len(EMOTIONS_AND_NEUTRAL):
            raise WarmlineError(f"{path}:{number}: unknown emotion label id `{shown(part)}`, expected 0 to {len(EMOTIONS_AND_NEUTRAL) - 1}")
        names.append(EMOTIONS_AND_NEUTRAL[int(part)])
    return tuple(dict.fromkeys(names))
