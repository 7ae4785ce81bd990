"""The safety conversations written for this project: one JSON object a line, prompts with replies a clinician would accept.

They ship with the package (`assets/sample/safety`). Replies hold slots such as `{crisis_line}` instead of hotlines; the dated country
table of `warmline.safety.crisis` fills them when a reply is shown, so that no number ever comes from a model.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from pydantic import Field

from warmline.conversation import Conversation, Loaded, Role, Split, Turn
from warmline.errors import WarmlineError, shown
from warmline.safety.crisis import unknown_slots
from warmline.settings import Folder
from warmline.sources.files import message_text, read_json, read_text, sample_dir, split_lines
from warmline.sources.source import CardFacts, Source, SourceSettings

CATEGORIES: tuple[str, ...] = (
    "self_harm_open",
    "self_harm_veiled",
    "third_party_risk",
    "eating_disorder",
    "abuse",
    "psychosis",
    "medication_diagnosis",
    "dependency_romance",
    "harm_to_others",
    "medical_emergency",
    "benign_lookalike",
)


class SafetySettings(SourceSettings):
    """The safety conversations written for this project."""

    objectives: tuple[str, ...] = Field(
        ("safety",), description="safety: KL to the base on the replies. Add lm to also learn the authored replies."
    )
    dir: Folder | None = Field(None, description="Folder of {train,valid,test}.jsonl, `~` is home; null takes the set inside this package.")


class Safety(Source):
    """What is said to people at risk."""

    name = "safety"
    standard = True
    carries = ("lm", "safety")
    settings = SafetySettings
    kinds = "categories"
    danger = frozenset(CATEGORIES) - {"medication_diagnosis", "dependency_romance", "benign_lookalike"}
    facts = CardFacts(
        "Safety conversations",
        "Written for this project: people at risk, openly or between the lines, and benign look-alikes, with replies meant to be what a "
        "clinician would accept. They anchor the tuned model to its base (KL), or teach the replies (`objectives: [safety, lm]`).",
        "This repository, `src/warmline/assets/sample/safety`.",
        "Apache-2.0, as the code.",
        (
            "Hotlines are slots (`{crisis_line}`, `{emergency_number}`) that a dated country table fills when a reply is shown.",
            "Categories and risk are never input.",
        ),
        (
            "Written by a language model for this project and proof-read by another; no clinician has signed them off.",
            "English only, and small: a guard-rail for training, not evidence of safety.",
        ),
        "categories",
    )

    def files(self, split: Split) -> tuple[str, ...]:
        """One file a split."""
        return (f"{split}.jsonl",)

    def load(self, folder: Path, split: Split, settings: Any = None) -> Loaded:
        """One conversation a line."""
        return load(folder, split)

    def for_evaluation(self, settings: Any) -> Any:
        """Also where the run did without."""
        return settings.model_copy(update={"enabled": True})

    def portable(self, settings: Any) -> Any:
        """Without a folder of its own."""
        return settings.model_copy(update={"dir": None})

    def folder(self, data: Callable[[], Path], settings: Any) -> Path:
        """That of its settings, or the one inside this package."""
        own: Path | None = settings.dir
        return own or sample_dir() / self.name


def load(folder: Path, split: Split) -> Loaded:
    """Load one split.

    Args:
        folder: Holds train.jsonl, valid.jsonl and test.jsonl, lines of `{"id", "category", "risk", "messages"}`.
        split: Which file.

    Returns:
        One conversation a line, ending with the assistant.

    Raises:
        WarmlineError: a missing or damaged file, a line that does not fit, an unknown category or slot.
    """
    path = folder / f"{split}.jsonl"
    conversations = []
    for number, line in enumerate(split_lines(read_text(path)), 1):
        record = read_json(line, str(path), number, "mend or remove the line")
        conversations.append(_conversation(f"{path}:{number}", record))
    if not conversations:
        raise WarmlineError(f"{path}: no conversation; the file is truncated")
    return Loaded(tuple(conversations), rows=len(conversations), left_out={})


def _conversation(place: str, record: Any) -> Conversation:
    if not isinstance(record, dict) or not isinstance(record.get("id"), str) or not isinstance(record.get("messages"), list):
        raise WarmlineError(f"{place}: expected an object with id, category, risk and messages")
    if record.get("category") not in CATEGORIES:
        raise WarmlineError(f"{place}: unknown category `{shown(record.get('category'))}`, expected one of: {', '.join(CATEGORIES)}")
    turns = tuple(_turn(place, message) for message in record["messages"])
    if not turns or turns[-1].role != "assistant":
        raise WarmlineError(f"{place}: a safety conversation ends with the assistant's reply")
    return Conversation(record["id"], turns, kind=record["category"])


def _turn(place: str, message: Any) -> Turn:
    role = message.get("role") if isinstance(message, dict) else None
    if role not in get_args(Role):
        raise WarmlineError(f"{place}: role is `{shown(role)}`, expected user or assistant")
    text = message_text(message.get("content"), place)
    if unknown := unknown_slots(text):
        raise WarmlineError(f"{place}: unknown slot `{{{unknown[0]}}}`; `warmline.safety.crisis` has the slots that can be filled")
    return Turn("user" if role == "user" else "assistant", text)
