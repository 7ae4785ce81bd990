"""Prompts that have nothing to do with friendship, written for this project: what the base answers to them is to stay as it is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import Field

from warmline.conversation import Loaded, Split
from warmline.sources.files import assets_dir, read_conversations
from warmline.sources.source import CardFacts, Source, SourceSettings


class RetentionSettings(SourceSettings):
    """Instructions, facts, arithmetic, formats and long answers, held to the base by the KL that holds the safety conversations."""

    objectives: tuple[str, ...] = Field(("safety",), description="safety: KL to the base on its own answers.")


class Retention(Source):
    """What the base can do beside being a friend."""

    name = "retention"
    carries = ("lm", "safety")
    of_people = False
    settings = RetentionSettings
    kinds = "categories"
    unanswered = True
    facts = CardFacts(
        "Retention prompts",
        "Written for this project: questions of fact, arithmetic, exact instructions, answers under headings, JSON, lists, code, long "
        "answers. The base answers them itself (`warmline rewrite`), and the tuned model is held to these answers (KL to the base), so "
        "that it does not unlearn them.",
        "This repository, `src/warmline/assets/retention`.",
        "Apache-2.0, as the code; the answers inherit the base's terms.",
        (
            "Split by prompt: every tenth is validation, every tenth after it test.",
            "The base's answers are greedy, cut at 400 tokens, and never checked: what counts is that they stay the base's.",
        ),
        (
            "Written by a language model for this project; none is from a benchmark.",
            "English only. They hold what they ask for; what nobody asks here may still be forgotten.",
        ),
        "categories",
    )

    def files(self, split: Split) -> tuple[str, ...]:
        """One file a split."""
        return (f"{split}.jsonl",)

    def load(self, folder: Path, split: Split, settings: Any = None) -> Loaded:
        """One prompt a line, without an answer."""
        conversations = read_conversations(folder / f"{split}.jsonl")
        return Loaded(conversations, rows=len(conversations), left_out={})

    def folder(self, data: Callable[[], Path], settings: Any) -> Path:
        """Inside this package."""
        return assets_dir() / self.name
