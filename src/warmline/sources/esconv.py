"""ESConv in its official `ESConv.json` (Liu et al., ACL 2021, arXiv 2106.01144; CC BY-NC 4.0).

Seeker is our user, supporter our assistant; a supporter often sends several messages in a row, and each stays a turn of its own with
its own strategy, unless `clean` joins them. Of the survey fields (`situation`, `emotion_type`, `problem_type`, scores, feedback) none is
read: they were written before or after the chat, and the model will not have them.
"""

import random
import re
from itertools import groupby
from pathlib import Path
from typing import Any

from pydantic import Field

from warmline.conversation import Conversation, Loaded, Split, Turn
from warmline.errors import WarmlineError, shown
from warmline.sources.files import message_text, read_json, read_text, split_lines
from warmline.sources.source import CardFacts, RemoteFile, Source, SourceSettings
from warmline.tasks.strategy import STRATEGIES

SPLIT_SEED = 13
HELD_OUT_FRACTION = 0.15
_PLATFORM = re.compile(
    r"\b(?:m?turk|survey|(?:press|hit|click|push|use) (?:on )?(?:the )?[\"']?(?:quit|finish|end)|(?:quit|finish) button|"
    r"(?:end|finish|close|quit|leave) (?:the|this|our) (?:chat|conversation|session|hit|task)|this (?:hit|task)|"
    r"(?:15|fifteen) min(?:ute)?s|peer supporter|full bonus|(?:get|got|be) paid)\b",
    re.IGNORECASE,
)
"""What crowd workers say of the study they take part in; it catches a talk of wages now and then."""


class ESConvSettings(SourceSettings):
    """ESConv: language model and support strategy on the supporter's turns."""

    objectives: tuple[str, ...] = Field(("lm", "strategy"), description="What it trains.")
    clean: bool = Field(
        False,
        description="A supporter's messages in a row are one reply, with all their strategies; replies that talk of the platform (survey, "
        "quit button, payment) are context alone.",
    )


class ESConv(Source):
    """Seeker and supporter."""

    name = "esconv"
    standard = True
    carries = ("lm", "strategy")
    settings = ESConvSettings
    official = (
        RemoteFile(
            "esconv",
            "ESConv.json",
            "https://raw.githubusercontent.com/thu-coai/Emotional-Support-Conversation/f262d062ad74cb39b17ea476facc81568ddcba24/ESConv.json",
            "git-blob:2f7a69eeda505053eac68f9ab26fd728d0f6db31",
            16 * 2**20,
        ),
    )
    facts = CardFacts(
        "ESConv",
        "English support chats between a help seeker and a trained supporter, each supporter message labelled with one of eight support "
        "strategies. It trains the language model and the strategy head on the supporter's messages.",
        "Liu et al., ACL 2021, arXiv 2106.01144; `thu-coai/Emotional-Support-Conversation`.",
        "CC BY-NC 4.0, with the authors' note that data and code are for academic research: a model tuned on it inherits these terms.",
        (
            "Seeker is the user, supporter the assistant. Supporter messages in a row stay turns of their own, each with its strategy.",
            "Split by dialogue: shuffle with `random.seed(13)`, 15 % valid, the next 15 % test, the rest train.",
            "With `clean` a supporter's messages in a row are one reply, and talk of the platform is context alone.",
            "`situation`, `emotion_type`, `problem_type`, scores and feedback come from surveys before or after the chat; none is input.",
        ),
        (
            "`Others` is a mixed bag of greetings, thanks and small talk, and one label in six.",
            "Strategy is a matter of taste: several would do at most points, so accuracy has a low ceiling.",
            "Written during 2020: the pandemic is a frequent topic. Some supporters give advice a clinician would not.",
        ),
        "strategies",
        hub="thu-coai/esconv",
        inherits="CC BY-NC 4.0",
    )

    def files(self, split: Split) -> tuple[str, ...]:
        """All splits lie in one."""
        return ("ESConv.json",)

    def load(self, folder: Path, split: Split, settings: Any = None) -> Loaded:
        """One conversation a dialogue."""
        return load(folder, split, settings is not None and settings.clean)


def load(folder: Path, split: Split, clean: bool = False) -> Loaded:
    """Load one split of the published conversion: shuffle with `random.seed(13)`, 15 % valid, the next 15 % test, the rest train.

    Args:
        folder: Holds ESConv.json.
        split: Which part.
        clean: As of the settings.

    Returns:
        One conversation a dialogue; `id` is the dialogue's 0-based place in the file.

    Raises:
        WarmlineError: a missing or damaged file, a dialogue that does not fit, an unknown strategy.
    """
    path = folder / "ESConv.json"
    dialogues = _dialogues(path, read_text(path))
    if not isinstance(dialogues, list) or not dialogues:
        raise WarmlineError(f"{path}: expected a list of dialogues; this is not an official ESConv.json")
    chosen = split_indices(len(dialogues))[split]
    conversations = tuple(_conversation(path, index, dialogues[index]) for index in chosen)
    if clean:
        conversations = tuple(map(_cleaned, conversations))
    return Loaded(conversations, rows=len(conversations), left_out={})


def _dialogues(path: Path, text: str) -> Any:
    """The file's own list, or one dialogue a line."""
    lines = [(number, line) for number, line in enumerate(split_lines(text), 1) if line.strip()]
    if len(lines) > 1 and all(line.startswith("{") for _, line in lines):
        return [read_json(line, str(path), number, "mend or remove the line") for number, line in lines]
    return read_json(text, str(path), 1, "the file is damaged or truncated, fetch it again")


def split_indices(dialogues: int) -> dict[Split, list[int]]:
    """Places in `ESConv.json` of each split's dialogues, in the order of the published conversion."""
    order = list(range(dialogues))
    random.Random(SPLIT_SEED).shuffle(order)
    held_out = int(dialogues * HELD_OUT_FRACTION)
    return {"valid": order[:held_out], "test": order[held_out : 2 * held_out], "train": order[2 * held_out :]}


def _conversation(path: Path, index: int, dialogue: Any) -> Conversation:
    place = f"{path}: dialogue {index}"
    messages = dialogue.get("dialog") if isinstance(dialogue, dict) else None
    if not isinstance(messages, list) or not messages:
        raise WarmlineError(f"{place}: expected a non-empty list under `dialog`; remove the dialogue or fetch the file again")
    return Conversation(str(index), tuple(_turn(f"{place}, message {at}", message) for at, message in enumerate(messages)))


def _cleaned(conversation: Conversation) -> Conversation:
    turns: list[Turn] = []
    for role, found in groupby(conversation.turns, key=lambda turn: turn.role):
        run = list(found)
        if role == "user":
            turns += run
            continue
        strategies = tuple(dict.fromkeys(label for turn in run for label in turn.labels["strategy"]))
        text = " ".join(turn.text for turn in run)
        turns.append(Turn("assistant", text, {"strategy": strategies}, target=_PLATFORM.search(text) is None))
    return Conversation(conversation.id, tuple(turns))


def _turn(place: str, message: Any) -> Turn:
    if not isinstance(message, dict):
        raise WarmlineError(f"{place}: expected an object with speaker, annotation and content")
    speaker = message.get("speaker")
    if speaker not in ("seeker", "supporter"):
        raise WarmlineError(f"{place}: speaker is `{shown(speaker)}`, expected seeker or supporter; is this the official ESConv.json?")
    text = message_text(message.get("content"), place)
    if speaker == "seeker":
        return Turn("user", text)
    annotation = message.get("annotation")
    strategy = annotation.get("strategy") if isinstance(annotation, dict) else None
    if strategy not in STRATEGIES:
        raise WarmlineError(f"{place}: unknown strategy `{shown(strategy)}`, expected one of: {', '.join(STRATEGIES)}")
    return Turn("assistant", text, {"strategy": (strategy,)})
