"""What the heads and their labels are called where a person reads them: in the terminal, on the page, in a saved conversation."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from warmline.companion import Reading
from warmline.data.labels import EMOTIONS_AND_NEUTRAL, STRATEGIES
from warmline.model.heads import Heads


class HeadWords(NamedTuple):
    """The words of one head.

    Attributes:
        title: Of the head.
        lead: Stands before a label in a sentence, as in `heard joy`.
        explanation: What its probabilities say, in a sentence or two.
        reads: `message`, what the user said last, or `reply`, the one to come: its label stands beside that.
        families: Of labels, each with one hue on the page (`web/style.css`); empty for a head without colours.
        words: Of labels whose names are not what a person should read.
    """

    title: str
    lead: str
    explanation: str
    reads: Literal["message", "reply"]
    families: Mapping[str, str] = {}
    words: Mapping[str, str] = {}


_FAMILIES = {
    "tender": ("love", "caring", "admiration", "gratitude", "approval"),
    "bright": ("joy", "amusement", "excitement", "pride", "optimism", "relief"),
    "low": ("sadness", "grief", "disappointment", "remorse"),
    "uneasy": ("fear", "nervousness", "embarrassment"),
    "heated": ("anger", "annoyance", "disapproval", "disgust"),
    "stirred": ("surprise", "curiosity", "confusion", "realization", "desire"),
    "still": ("neutral",),
}
HEADS: dict[str, HeadWords] = {
    "emotion": HeadWords(
        "Emotion",
        "heard",
        "What it heard in your words. It is often wrong.",
        "message",
        {label: family for family, labels in _FAMILIES.items() for label in labels},
    ),
    "strategy": HeadWords("Strategy", "leans to", "How it meant to answer, settled before its first word.", "reply"),
}
"""Of every head that a run may have, by its name, in the order in which they are shown."""


def labels_of(heads: Heads) -> dict[str, tuple[str, ...]]:
    """The labels of each head of a run."""
    return {"emotion": EMOTIONS_AND_NEUTRAL[: heads.emotion.classes], "strategy": STRATEGIES}


def by_head(reading: Reading | None) -> dict[str, dict[str, float]]:
    """Probabilities by label, by the name of the head that gave them; none where nothing was read."""
    return {} if reading is None else reading._asdict()


def likeliest(scores: Mapping[str, float]) -> str:
    """The label with the highest probability."""
    return max(scores, key=lambda label: scores[label])


def in_words(reading: Reading) -> str:
    """The likeliest label of each head: `heard sadness 62 %, leans to Question 41 %`."""
    return ", ".join(_in_words(HEADS[name], scores) for name, scores in by_head(reading).items())


def _in_words(head: HeadWords, scores: Mapping[str, float]) -> str:
    label = likeliest(scores)
    return f"{head.lead} {head.words.get(label, label)} {f'{scores[label]:.0%}'.removesuffix('%')} %"
