"""Draw flagged replies to be read: `python scripts/draw_reading.py DATA SEED 8 test train` prints up to 8 a class, with their place.

DATA is a folder with the official EmpatheticDialogues and ESConv, whose replies are by people. Each class is drawn from the first split
named and topped up from the next; a file beside the splits names places (`source split conversation turn N`, one a line) that were read
while the detectors were made and are left out. What the reader decided goes, without any text, into
`src/warmline/assets/error_detectors/reading.jsonl`.
"""

import hashlib
import sys
from pathlib import Path
from typing import NamedTuple, get_args

from warmline.config import DataConfig
from warmline.conversation import Split
from warmline.data.enabled import enabled_sources
from warmline.data.template import as_messages
from warmline.evaluation.detectors import ERROR_CLASSES, ReplyInContext, detect_all
from warmline.evaluation.errors import usual_words

_SOURCES = ("empathetic_dialogues", "esconv")


class Flagged(NamedTuple):
    """A flagged reply; `digest` is the order of reading."""

    digest: str
    error: str
    source: str
    split: Split
    conversation: str
    turn: int
    exchange: ReplyInContext
    evidence: str

    @property
    def place(self) -> str:
        """Where it stands in the data."""
        return f"{self.source} {self.split} {self.conversation} turn {self.turn}"


def flagged(folder: str, split: Split, seed: int) -> list[Flagged]:
    """Every flagged reply of a split, in the seeded order of reading."""
    found = []
    data = DataConfig(dir=folder)
    for source in enabled_sources(data):
        if source.name not in _SOURCES:
            continue
        conversations = source.load(split).conversations
        usual = usual_words(conversations)
        for conversation in conversations:
            messages = as_messages(conversation)
            for turn in range(1, len(messages)):
                if messages[turn]["role"] == "assistant" and messages[turn - 1]["role"] == "user":
                    exchange = ReplyInContext(messages[:turn], messages[turn]["content"], usual)
                    for error, finding in detect_all(exchange).items():
                        if finding.evidence is not None:
                            place = f"{seed}/{error}/{source.name}/{conversation.id}/{turn}"
                            digest = hashlib.sha256(place.encode()).hexdigest()
                            found.append(Flagged(digest, error, source.name, split, conversation.id, turn, exchange, finding.evidence))
    return sorted(found)


def draw(folder: str, splits: list[Split], seed: int, wanted: int, seen: set[str]) -> list[Flagged]:
    """Up to `wanted` a class, from the first split that has more of it, without the places that were seen before."""
    by_split = [[one for one in flagged(folder, split, seed) if one.place not in seen] for split in splits]
    drawn = []
    for error in ERROR_CLASSES:
        drawn += [one for found in by_split for one in found if one.error == error.name][:wanted]
    return drawn


def main() -> None:
    folder, seed, wanted, *rest = sys.argv[1:]
    splits = [split for split in get_args(Split) for name in rest if name == split]
    splits.sort(key=rest.index)
    seen = {line for name in rest if name not in splits for line in Path(name).read_text(encoding="utf-8").splitlines()}
    for number, one in enumerate(draw(folder, splits, int(seed), int(wanted), seen), 1):
        print(f"\n#{number} {one.error} [{one.place}] {one.evidence}")
        for message in one.exchange.context[-5:]:
            print(f"    {message['role'][0]}: {message['content'][:400]}")
        print(f"  >> {one.exchange.reply[:600]}")


if __name__ == "__main__":
    main()
