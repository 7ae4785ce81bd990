"""Conversations with a friend, written for this project: how the companion is to sound (`assets/voice.md`), shown and not told."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import Field

from warmline.conversation import Loaded, Split
from warmline.sources.files import assets_dir, read_conversations
from warmline.sources.source import CardFacts, Source, SourceSettings


class FriendSettings(SourceSettings):
    """Conversations with a friend: language model on the companion's turns."""

    objectives: tuple[str, ...] = Field(("lm",), description="What it trains.")


class Friend(Source):
    """A person and an attentive program."""

    name = "friend"
    carries = ("lm",)
    settings = FriendSettings
    kinds = "subjects"
    of_people = False
    facts = CardFacts(
        "Friend conversations",
        "Written for this project: everyday talk between people of many kinds and an AI companion that listens closely, teases gently, "
        "helps briefly and never claims a human life. They show a base how the voice of `assets/voice.md` sounds.",
        "This repository, `src/warmline/assets/friend`.",
        "Apache-2.0, as the code.",
        (
            "Split by conversation: every tenth is validation, every tenth after it test.",
            "What a conversation is about is never input.",
            "In some the companion comes in late: earlier replies are of somebody else's kind (`target: false`), context and not learned.",
        ),
        (
            "Written by a language model for this project, in seven sessions that did not see each other; a model tuned on it learns its "
            "manner, too.",
            "English only, no crises (the safety conversations have those), and few: it teaches a tone and not knowledge. A model of 1.5 "
            "billion parameters that has learned all of it says more than it understands (research/LOG.md); `--strength` tempers it.",
        ),
        "subjects",
    )

    def files(self, split: Split) -> tuple[str, ...]:
        """One file a split."""
        return (f"{split}.jsonl",)

    def load(self, folder: Path, split: Split, settings: Any = None) -> Loaded:
        """One conversation a line."""
        conversations = read_conversations(folder / f"{split}.jsonl")
        return Loaded(conversations, rows=len(conversations), left_out={})

    def folder(self, data: Callable[[], Path], settings: Any) -> Path:
        """Inside this package."""
        return assets_dir() / self.name
