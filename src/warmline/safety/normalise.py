"""What somebody typed, as the guard's patterns can read it. Only the guard sees this text; nobody is ever shown it."""

import re
import unicodedata

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
