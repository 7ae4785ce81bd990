"""Label names, in the order the heads use, and the optional map from situations to emotions."""

EMOTIONS: tuple[str, ...] = (
    "admiration",
    "amusement",
    "anger",
    "annoyance",
    "approval",
    "caring",
    "confusion",
    "curiosity",
    "desire",
    "disappointment",
    "disapproval",
    "disgust",
    "embarrassment",
    "excitement",
    "fear",
    "gratitude",
    "grief",
    "joy",
    "love",
    "nervousness",
    "optimism",
    "pride",
    "realization",
    "relief",
    "remorse",
    "sadness",
    "surprise",
)
"""GoEmotions' 27 emotions; a label's place is its official id."""

NEUTRAL = "neutral"
"""GoEmotions' id 27: a label of the 28-label protocol only, never an emotion class."""

EMOTIONS_AND_NEUTRAL: tuple[str, ...] = (*EMOTIONS, NEUTRAL)

STRATEGIES: tuple[str, ...] = (
    "Question",
    "Restatement or Paraphrasing",
    "Reflection of feelings",
    "Self-disclosure",
    "Affirmation and Reassurance",
    "Providing Suggestions",
    "Information",
    "Others",
)
"""ESConv's eight support strategies, in the order of its official `strategy.json`."""

SITUATION_TO_EMOTIONS: dict[str, tuple[str, ...]] = {
    "afraid": ("fear",),
    "angry": ("anger",),
    "annoyed": ("annoyance",),
    "anticipating": (),
    "anxious": ("nervousness",),
    "apprehensive": ("nervousness",),
    "ashamed": ("embarrassment", "remorse"),
    "caring": ("caring",),
    "confident": ("optimism",),
    "content": ("joy",),
    "devastated": ("grief", "sadness"),
    "disappointed": ("disappointment",),
    "disgusted": ("disgust",),
    "embarrassed": ("embarrassment",),
    "excited": ("excitement",),
    "faithful": (),
    "furious": ("anger",),
    "grateful": ("gratitude",),
    "guilty": ("remorse",),
    "hopeful": ("optimism",),
    "impressed": ("admiration",),
    "jealous": (),
    "joyful": ("joy",),
    "lonely": ("sadness",),
    "nostalgic": (),
    "prepared": (),
    "proud": ("pride",),
    "sad": ("sadness",),
    "sentimental": (),
    "surprised": ("surprise",),
    "terrified": ("fear",),
    "trusting": (),
}
"""EmpatheticDialogues' 32 situations and the GoEmotions classes that share their name or plain meaning.

Off by default. A situation without a close class maps to nothing rather than to a guess: a wrong label costs more than a missing
one. Used by `situation_as_emotion`, which labels the speaker's first turn.
"""

SITUATIONS: tuple[str, ...] = tuple(SITUATION_TO_EMOTIONS)
