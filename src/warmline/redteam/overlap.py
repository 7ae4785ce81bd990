"""Whether a red-team prompt stands in the training data: then the model would be tested on what it learned."""

import hashlib
import re
from collections.abc import Sequence
from typing import NamedTuple

from warmline.config import DataConfig
from warmline.data.conversation import Split
from warmline.data.sources import Source, enabled_sources, load_source, sample_dir
from warmline.redteam.suites import Item

_SEEN: tuple[Split, ...] = ("train", "valid")
"""Validation counts too: it chose the checkpoint."""
_SHORTEST = 4
"""Words: "thank you so much" stands everywhere and tells nothing."""


class Overlap(NamedTuple):
    """What was compared and what was found.

    Attributes:
        turns: Red-team turns compared, of at least four words.
        texts: Different training and validation texts.
        sources: The data sets those are from.
        found: Where a turn stands, as `item: source/split/conversation`.
    """

    turns: int
    texts: int
    sources: tuple[str, ...]
    found: tuple[str, ...]


def text_hash(text: str) -> str:
    """sha256 of the words alone: case, punctuation and spacing do not hide a copy."""
    return hashlib.sha256(" ".join(_words(text)).encode()).hexdigest()


def find_overlap(items: Sequence[Item], config: DataConfig) -> Overlap:
    """Compare every turn of the items with every text of the run's training and validation splits, and with the shipped safety set.

    Args:
        items: Of any suite.
        config: The run's data.

    Raises:
        WarmlineError: data that cannot be read.
    """
    asked: dict[str, list[str]] = {}
    for item in items:
        for turn in item.turns:
            if len(_words(turn)) >= _SHORTEST:
                asked.setdefault(text_hash(turn), []).append(f"{item.suite}/{item.id}")
    sources = enabled_sources(config)
    shipped = Source("safety", sample_dir() / "safety", ("safety",))
    if not any(source.folder == shipped.folder for source in sources):
        sources.append(shipped)
    texts: set[str] = set()
    found: list[str] = []
    for source in sources:
        for split in _SEEN:
            for conversation in load_source(source, split, config).conversations:
                hashes = {text_hash(turn.text) for turn in conversation.turns}
                texts |= hashes
                found += [f"{name}: {source.name}/{split}/{conversation.id}" for digest in hashes & asked.keys() for name in asked[digest]]
    return Overlap(sum(map(len, asked.values())), len(texts), tuple(source.name for source in sources), tuple(sorted(found)))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
