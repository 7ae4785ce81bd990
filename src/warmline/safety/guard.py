"""Hears risk in the user's turns by rules, and puts a fixed message with people and a hotline beside the model's reply.

Its task: somebody (the user or another person) may be hurt, by themselves, by others or by an illness, and the user's words say so. A
request for harmful knowledge that names nobody ("how do I pick a lock") is not its task. It reads the words alone, in about
a millisecond, and knows English only. It waits for no model: a message is there before one is asked, and where the newest turn is red it is
the whole reply.

What somebody typed, as the guard's patterns can read it. Only the guard sees this text; nobody is ever shown it.
"""

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Literal, NamedTuple

from warmline.safety.crisis import fill_slots
from warmline.safety.patterns import IDIOMS, RULES

Level = Literal["none", "yellow", "red"]
LEVELS: tuple[Level, ...] = ("none", "yellow", "red")
CATEGORIES: tuple[str, ...] = (
    "medical_emergency",
    "third_party",
    "self_harm",
    "method_seeking",
    "child_safety",
    "violence",
    "abuse",
    "psychosis",
    "eating_disorder",
)
"""Which kind decides the message when several were heard at the same level: what cannot wait first."""


def _compiled(pattern: str) -> re.Pattern[str]:
    """A space for the word boundary that opens a pattern or ends a gap: every word follows one (`_heard`), and `re` finds it faster.

    What may not stand before that word is looked at behind the space.
    """
    return re.compile(re.sub(r"(^|\||\]\{0,\d+\})((?:\(\?<![^()]*\))*)\\b", r"\1 \2", pattern))


_RULES: list[tuple[str, Level, re.Pattern[str]]] = [
    (category, level, _compiled(pattern)) for category, level, patterns in RULES for pattern in patterns
]
_IDIOMS = _compiled("|".join(IDIOMS))


class Risk(NamedTuple):
    """What the guard hears.

    Attributes:
        level: red, soon and serious; yellow, a sign worth asking about; none.
        categories: What kinds, the worst first, then in the order of `CATEGORIES`.
        evidence: The words that each came from, as `readings` leaves them.
    """

    level: Level
    categories: tuple[str, ...]
    evidence: tuple[str, ...]


def assess(text: str) -> Risk:
    """What the guard hears in one user turn.

    The rules look at the whole text. An idiom ("cut myself shaving") silences only a match that lies wholly inside it, so what is said
    beside it or reaches out of it still counts.

    Args:
        text: As the user wrote it.
    """
    return assess_turns([text])


def assess_turns(turns: Sequence[str]) -> Risk:
    """What the guard hears in a conversation: every user turn so far, since a risk said earlier is not gone two turns later.

    Args:
        turns: The user's turns, in order.
    """
    found = [heard for turn in turns for heard in _heard(turn)]
    worst = {category: _worst(level for other, level, _ in found if other == category) for category, _, _ in found}
    categories = sorted(worst, key=lambda category: (-LEVELS.index(worst[category]), CATEGORIES.index(category)))
    return Risk(_worst(worst.values()), tuple(categories), tuple(dict.fromkeys(words for _, _, words in found)))


def _heard(text: str) -> list[tuple[str, Level, str]]:
    found = []
    for words in (f" {reading}" for reading in readings(text)):
        idioms = [match.span() for match in _IDIOMS.finditer(words)]
        for category, level, rule in _RULES:
            if match := _unexplained(rule, words, idioms):
                found.append((category, level, match.group().strip()))
    return found


def _unexplained(rule: re.Pattern[str], words: str, idioms: Sequence[tuple[int, int]]) -> re.Match[str] | None:
    """The first match of a rule that does not lie wholly inside an idiom; the idioms' spans are in order and apart."""
    match = rule.search(words)
    while match and (before := bisect_right(idioms, match.start(), key=itemgetter(0))) and match.end() <= idioms[before - 1][1]:
        match = rule.search(words, match.start() + 1)
    return match


def _worst(levels: Iterable[Level]) -> Level:
    return max(levels, key=LEVELS.index, default="none")


_OPENING = {
    "medical_emergency": (
        "This sounds like it could be a medical emergency, so please don't wait it out: call {emergency_number} now, even if it "
        "feels like making a fuss. If somebody is near, call them over to stay with you, or with the person who is ill."
    ),
    "third_party": (
        "It's good that you're taking this seriously. If they may be in danger right now, call {emergency_number} and, if it is "
        "safe, have somebody stay with them. You can ask them directly about suicide; asking does not put the idea there. For "
        "people who worry about somebody else, too, there is {crisis_line}. And you don't have to carry this alone: tell somebody"
        " you trust."
    ),
    "abuse": (
        "What you describe isn't your fault, and nobody should have to live with it. If you're in danger now, call "
        "{emergency_number}; if speaking isn't safe, keep the line open. A domestic abuse service, a doctor or somebody you trust"
        " can help you plan at your own pace, and {crisis_line} will listen. Are you safe where you are right now?"
    ),
    "child_safety": (
        "If a child or a young person is being hurt or pushed into something sexual, it is never their fault. Don't send anything"
        " more, keep the messages, and tell an adult you trust today. If somebody is in danger now, call {emergency_number}."
    ),
    "violence": (
        "It sounds as if somebody could get hurt. Is anybody in danger right now? Please put distance between you and it first: "
        "step away, and put down or leave behind anything that could hurt. If it can't wait, call {emergency_number}. This much "
        "anger is something to say to a person, too: try {crisis_line}, or is there somebody you trust who could be with you "
        "tonight?"
    ),
    "eating_disorder": (
        "Your body may be under more strain than it shows. Please let a doctor look at you soon, and tell one person you trust. "
        "If you faint, your heart races or skips, or there is blood, call {emergency_number}. You can also talk to {crisis_line}."
    ),
    "psychosis": (
        "What you're going through sounds frightening, and a doctor or a crisis team can help with it. Please have somebody you "
        "trust stay with you. If you feel pushed to hurt yourself or somebody else, call {emergency_number} now."
    ),
    "self_harm": (
        "I'm glad you said this, and I'm taking it seriously. Are you thinking about ending your life, or are you in danger right"
        " now? If so, please call {emergency_number}, or move towards another person. You deserve a real person with you in this:"
        " try {crisis_line}. Is there somebody who could sit with you, or whom you could text now?"
    ),
}
"""By kind; method_seeking is answered as self-harm."""
_CLOSING = "I'm an AI and can't call anyone for you, but I'm still here while you do."


def crisis_message(risk: Risk, country: str | None = None) -> str:
    """The fixed text for what was heard: ours, never the model's, with numbers from the country table.

    Args:
        risk: At least yellow.
        country: ISO 3166 code; None for the row that names no number.

    Raises:
        ValueError: no risk was heard.
    """
    if risk.level == "none":
        raise ValueError("no risk was heard: there is nothing to say")
    kind = "self_harm" if risk.categories[0] == "method_seeking" else risk.categories[0]
    return fill_slots(f"{_OPENING[kind]} {_CLOSING}", country)


class Heard(NamedTuple):
    """What the guard heard in a conversation, and what it says to that.

    Attributes:
        risk: Of all user turns.
        message: Its fixed text, for the newest turn where that is red; None where no risk was heard.
        alone: Whether that is the whole reply, since the newest turn is red: no model is asked.
    """

    risk: Risk
    message: str | None
    alone: bool


def hear(turns: Sequence[str], country: str | None = None) -> Heard:
    """Listen to a conversation before anything else is done with it.

    Args:
        turns: The user's turns, in order.
        country: As for `crisis_message`.
    """
    risk = assess_turns(turns)
    if risk.level == "none":
        return Heard(risk, None, False)
    newest = assess(turns[-1])
    alone = newest.level == "red"
    return Heard(risk, crisis_message(newest if alone else risk, country), alone)


def guarded(reply: str, heard: Heard) -> str:
    """What is shown with the guard on.

    Where the newest turn is red, the message alone. Where an earlier one was, the message stands before the reply. Yellow: it follows the
    reply, because a block of help before the first human sentence reads like being sent away.

    Args:
        reply: The model's, kept word for word where it is shown.
        heard: In the user's turns up to this reply.
    """
    if heard.message is None:
        return reply
    if heard.alone:
        return heard.message
    parts = (heard.message, reply) if heard.risk.level == "red" else (reply, heard.message)
    return "\n\n".join(part for part in parts if part.strip())


_CONTROL = "".join(char for char in map(chr, (*range(32), 127)) if not char.isspace())
_DROPPED = str.maketrans("", "", _CONTROL + "'\u2018\u2019\u201b\u02b9\u02bb\u02bc\u02c8`\u00b4\u2032\uff07")
_LOOKALIKES = str.maketrans(
    "АВЕЅІЈКМНОРСТУХаеѕіјкмнорстухһԁԛԝвіΑΒΕΖΗΙΚΜΝΟΡΤΥΧαεηικνορτυχωςϳıłøđɑɡᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢ",
    "ABESIJKMHOPCTYXaesijkmhopctyxhdqwbiABEZHIKMNOPTYXaenikvoptuxwcjilodagabcdefghijklmnoprstuvwyz",
    "\u115f\u1160",  # fillers, which show nothing
) | {first + at: chr(ord("a") + at) for first in (0x1F150, 0x1F170) for at in range(26)}  # white on black
_DIGITS = str.maketrans("013457@$!", "oieastasi")
_DISGUISED = re.compile(r"(?<=[a-z])!(?=[a-z])|(?<=[a-z])[013457@$]{1,3}|[013457@$]{1,3}(?=[a-z])")

_SPELT_OUT = (
    "suicide", "suicidal", "overdose", "overdosed", "himself", "herself", "killing", "myself", "going", "gonna", "wanna", "pills", "kill",
    "want", "hang", "hurt", "life", "die", "end", "cut", "to", "my", "it",
)  # fmt: skip
"""Words that are read letter by letter, longer ones first: `k i l l`, `s.u.i.c.i.d.e`."""
_LETTER_BY_LETTER = re.compile(r"\b(?:" + "|".join("[ .?!]{1,3}".join(word) for word in _SPELT_OUT) + r")\b")

_OFTEN_MISTYPED = ("suicide", "suicidal", "overdose", "overdosed", "overdosing", "myself", "himself", "herself")
_ANOTHER_WORD = ("overdone", "overdoes", "overdoses", "suicides")
_MISSPELT = {
    "kil": "kill", "kll": "kill", "kiling": "killing", "ki ll": "kill", "kil l": "kill", "di e": "die", "d ie": "die", "wana": "wanna",
    "suicidle": "suicidal", "sui cide": "suicide", "su icide": "suicide", "suic ide": "suicide", "su cide": "suicide",
    "sewerslide": "suicide", "sewer slide": "suicide", "oversode": "overdose", "oversoded": "overdosed", "over dose": "overdose",
    "over dosed": "overdosed", "killmyself": "kill myself", "killingmyself": "killing myself", "hurtmyself": "hurt myself",
    "endmylife": "end my life", "wanttodie": "want to die", "wannadie": "wanna die",
}  # fmt: skip


def _one_off(word: str) -> set[str]:
    """Every spelling with one letter left out, added, or wrong, or two neighbours swapped."""
    halves = [(word[:at], word[at:]) for at in range(len(word) + 1)]
    letters = "abcdefghijklmnopqrstuvwxyz"
    return (
        {left + right[1:] for left, right in halves if right}
        | {left + right[1] + right[0] + right[2:] for left, right in halves if len(right) > 1}
        | {left + letter + right[1:] for left, right in halves if right for letter in letters}
        | {left + letter + right for left, right in halves for letter in letters}
    )


_TYPOS = {typo: word for word in _OFTEN_MISTYPED for typo in _one_off(word) - {*_OFTEN_MISTYPED, *_ANOTHER_WORD}}
_MISSPELLINGS = re.compile(r"\b(?:" + "|".join(_MISSPELT) + r"|[a-z]{5,11})\b")


def normalise(text: str) -> str:
    """The same words in one plain form: `Don't, please!` is `dont please!`.

    Lower-case Latin letters without accents, invisible characters or look-alikes from other alphabets; no apostrophes; a line break or
    semicolon ends a sentence; every other mark than `.?!` is a space; one space between words.
    """
    return _marks(_letters(text))


def readings(text: str) -> tuple[str, ...]:
    """The text as `normalise` leaves it, and, where that differs, what it says if its words were broken up, disguised or mistyped.

    In the second reading a line break or an ellipsis falls within a sentence, repeated letters are one (`diiie`), digits inside a word are
    letters (`su1c1de`), a few words are read letter by letter (`k i l l`), and a few misspellings are mended. Such guesses may also spoil
    what was plain (`bye xxx` becomes `bye x`), so both readings are to be searched.
    """
    letters = _letters(text)
    disguised = _DISGUISED.sub(lambda match: match.group().translate(_DIGITS), " ".join(re.sub(r"\.{2,}", " ", letters).split()))
    words = re.sub(r"([a-z])\1{2,}", r"\1", _marks(disguised))
    words = _LETTER_BY_LETTER.sub(lambda match: re.sub("[^a-z]", "", match.group()), words)
    words = _MISSPELLINGS.sub(lambda match: _MISSPELT.get(match.group()) or _TYPOS.get(match.group(), match.group()), words)
    return tuple(dict.fromkeys((_marks(letters), words)))


def _letters(text: str) -> str:
    """Lower case, without apostrophes, accents, invisible characters or look-alikes."""
    text = text.translate(_DROPPED)  # before NFKD, which would make an accent that was typed for an apostrophe a space
    if not text.isascii():
        decomposed = unicodedata.normalize("NFKD", text)
        text = "".join(char for char in decomposed if unicodedata.category(char) not in ("Mn", "Me", "Cf")).translate(_LOOKALIKES)
    return text.lower()


def _marks(text: str) -> str:
    text = re.sub(r"[\n\r\v\f\x85\u2028\u2029;]+", ". ", text)
    return " ".join(re.sub(r"[^\w.?!]+|_+|(?<=[.?!])(?=\w)", " ", text).split())
