"""However it is typed, a plain red sentence stays heard; whatever is typed, the guard answers, and soon."""

import random
import re
import time
from itertools import product

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.safety.plain_words import LOOKALIKES, RISKS
from warmline.safety.guard import LEVELS, assess, normalise, readings
from warmline.safety.patterns import IDIOMS, RULES

HUNDREDS = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
LONGEST_MESSAGE = 20_000
RED = [text for text, _ in RISKS if assess(text).level == "red"]
WORDS = sorted({word for text in (*LOOKALIKES, *(text for text, _ in RISKS)) for word in re.findall(r"[\w']+", text)})

INVISIBLE = "\u200b\u200c\u200d\u200e\u2060\u2063\u00ad\ufeff\u202a\u202e\ufe0f\u034f\u0301\u0308\u0336\u20dd\x00\x08\x7f"
APOSTROPHES = ("'", "\u2019", "\u2018", "`", "\u00b4", "\u02bc", "\u2032", "\uff07", "")
BETWEEN_WORDS = (" ", "  ", "\n", "\r\n", "\n\n", "\r", "\u2028", "\t", "\u00a0", "\u3000", " \U0001f622 ", ", ", " \u2014 ", " ... ")
ALPHABETS = (0xFF41, 0x1D41A, 0x1D482, 0x1D4EA, 0x1D51E, 0x1D552, 0x1D5BA, 0x1D5EE, 0x1D68A, 0x24D0, 0x1F150, 0x1F170, 0xFF21, 0x1D400)
"""Where a to z begin: full-width, mathematical and circled letters, white on black."""
FOREIGN = {
    "a": "\u0430\u03b1\u0251\u1d00\u00e5", "b": "\u0412\u0299", "c": "\u0441\u03f2\u1d04\u00e7", "d": "\u0501\u1d05",
    "e": "\u0435\u1d07\u00e9", "f": "\ua730", "g": "\u0261\u0262", "h": "\u04bb\u029c", "i": "\u0456\u03b9\u0131\u026a\u00ed",
    "j": "\u0458\u03f3\u1d0a", "k": "\u043a\u03ba\u1d0b", "l": "\u029f\u0142", "m": "\u041c\u1d0d", "n": "\u0274\u00f1",
    "o": "\u043e\u03bf\u1d0f\u00f8", "p": "\u0440\u03c1\u1d18", "q": "\u051b", "r": "\u0280", "s": "\u0455\ua731",
    "t": "\u0422\u03c4\u1d1b", "u": "\u03c5\u1d1c\u00fc", "v": "\u03bd\u1d20", "w": "\u051d\u03c9\u1d21", "x": "\u0445\u03c7",
    "y": "\u0443\u028f\u00fd", "z": "\u0396\u1d22",
}  # fmt: skip
TYPOS = {
    "kill": ("kil", "kll", "killl", "kiiiill", "k1ll", "k!ll", "k i l l", "k.i.l.l", "k-i-l-l"),
    "myself": ("mysel", "mysef", "mysefl", "mysself", "nyself", "m y s e l f", "mys3lf"),
    "himself": ("himslef", "himsef", "h1mself"),
    "herself": ("hersef", "herslef", "herse1f"),
    "suicide": ("sucide", "suicde", "suiside", "su1c1de", "suic1d3", "$uicide", "s u i c i d e", "s.u.i.c.i.d.e", "sui cide", "suiiiicide"),
    "suicidal": ("sucidal", "suicidle", "s u i c i d a l"),
    "overdose": ("overdos", "oversode", "over dose", "0verdose", "o v e r d o s e"),
    "overdosed": ("overdosd", "oversoded", "over dosed", "overdsoed", "0verd0sed"),
    "killing": ("kiling", "k1lling", "kiiiilling"),
    "die": ("di e", "diiie", "d1e", "d i e", "d.i.e"),
    "wanna": ("wana", "w a n n a"),
    "want": ("w a n t", "waaaant"),
    "pills": ("p i l l s", "p1lls"),
    "hang": ("h a n g", "h4ng"),
    "end": ("e n d", "3nd"),
    "life": ("l i f e", "l1fe", "liiife"),
}
"""What `reading` says that it mends: a few words a letter off or letter by letter, digits for letters, repeated letters."""


def typed(text: str, chance: random.Random, typos: bool) -> str:
    """The sentence with every disguise at once: each word, gap and letter has one of its own, or none."""
    words = text.split(" ")
    if typos:
        words = [chance.choice((word, *TYPOS.get(word.lower(), ()))) for word in words]
    apostrophe, often, disguised = chance.choice(APOSTROPHES), chance.choice((0.0, 0.2, 0.6, 1.0)), []
    for letter in " ".join(words):
        if letter == " ":
            disguised.append(chance.choice(BETWEEN_WORDS) if chance.random() < 0.5 else letter)
        elif letter == "'":
            disguised.append(apostrophe)
        else:
            disguised.append(alike(letter, chance) if chance.random() < often else letter)
        disguised.append(chance.choice(INVISIBLE) if chance.random() < often / 2 else "")
    return "".join(disguised)


def alike(letter: str, chance: random.Random) -> str:
    """The letter in upper case, of another alphabet, or with a mark; whatever is no letter as it is."""
    lower = letter.lower()
    if not ("a" <= lower <= "z"):
        return letter
    return chance.choice((lower.upper(), lower, *(chr(start + ord(lower) - ord("a")) for start in ALPHABETS), *FOREIGN[lower]))


@HUNDREDS
@given(st.sampled_from(RED), st.randoms(use_true_random=True), st.booleans())
def test_a_red_sentence_stays_heard_however_it_is_typed(sentence: str, chance: random.Random, typos: bool) -> None:
    text = typed(sentence, chance, typos)
    assert assess(text).level == "red", (text, readings(text))


@pytest.mark.parametrize("text", RED)
def test_line_breaks_alone_hide_nothing(text: str) -> None:
    """As a client sends them that makes a text part of every line, which the API joins by line breaks."""
    words = text.split(" ")
    assert [at for at in range(1, len(words)) if assess(f"{' '.join(words[:at])}\n{' '.join(words[at:])}").level != "red"] == []
    assert assess("\n".join(words)).level == "red"


def test_each_typo_that_is_claimed_is_mended() -> None:
    missed = [
        (text, word, typo)
        for text, (word, typos) in product(RED, TYPOS.items())
        if re.search(rf"\b{word}\b", text)
        for typo in typos
        if assess(re.sub(rf"\b{word}\b", typo, text)).level != "red"
    ]
    assert missed == []


ANYTHING = st.text(st.characters(), max_size=60)  # half a surrogate pair, too
PIECES = st.one_of(
    ANYTHING,
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=8).map(" ".join),
    st.sampled_from([*LOOKALIKES, *RED]),
    st.text("013457@$!abilos", min_size=1, max_size=6),
    st.text("ki l.\n;_'\u200b\u0301", min_size=1, max_size=8),
)


@HUNDREDS
@given(st.lists(PIECES, max_size=6).map(" ".join))
@example("\ud800")
@example("\u0301" * 50)
@example("\U000e0041kill\U000e0042 myself")
def test_any_text_is_read(text: str) -> None:
    risk = assess(text)
    assert risk.level in LEVELS
    assert (risk.level == "none") == (not risk.categories) == (not risk.evidence)
    for reading in (normalise(text), *readings(text)):
        assert not set(reading) & set("\n\r\t'\u200b")
        assert "  " not in reading


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(PIECES, min_size=1, max_size=3).map(" ".join).filter(bool))
@example("he said she said ")
@example("i want to ")
@example("k i l l ")
@example("kms away ")
@example("\u00b4")
@example("\u0301")
@example("\u0390\u1fb7")  # three characters each when decomposed
def test_the_longest_message_is_read_in_a_moment(piece: str) -> None:
    text = (piece * (LONGEST_MESSAGE // len(piece) + 1))[:LONGEST_MESSAGE]
    began = time.process_time()
    assess(text)
    assert time.process_time() - began < 0.5


def reference(text: str) -> str:
    """The level by the plainest reading of the rule: a match counts unless an idiom holds all of it."""
    worst = "none"
    for words in readings(text):
        idioms = [match.span() for match in re.finditer("|".join(IDIOMS), words)]
        for _, level, patterns in RULES:
            for pattern, at in product(patterns, range(len(words))):
                match = re.compile(pattern).match(words, at)
                if match and not any(start <= match.start() and match.end() <= end for start, end in idioms):
                    worst = max(worst, level, key=LEVELS.index)
                    break
    return worst


@st.composite
def overlapping(draw: st.DrawFn) -> str:
    """Words of an idiom and of a risk run into each other, so that they share some, one holds the other, or one ends in the other."""
    idiom, risk = draw(st.sampled_from(LOOKALIKES)).split(" "), draw(st.sampled_from([text for text, _ in RISKS])).split(" ")
    first, second = draw(st.permutations((idiom, risk)))
    cut, begin = draw(st.integers(0, len(first))), draw(st.integers(0, len(second)))
    joint = draw(st.sampled_from((" ", ", ", ". ", "\n")))
    parts = (" ".join(first[:cut]), " ".join(second[begin:]), *((" ".join(first[cut:]),) if draw(st.booleans()) else ()))
    return joint.join(parts)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(overlapping())
def test_an_idiom_silences_only_what_lies_wholly_in_it(text: str) -> None:
    assert LEVELS.index(assess(text).level) >= LEVELS.index(reference(text))


@HUNDREDS
@given(st.sampled_from(RED), st.sampled_from(LOOKALIKES), st.data())
def test_no_idiom_hides_a_red_sentence_that_it_stands_in(risk: str, idiom: str, data: st.DataObject) -> None:
    """The whole sentence in the midst of an idiom's words, whose rest is a sentence of its own: `hang myself laughing` is another thing."""
    words = idiom.split(" ")
    at = data.draw(st.integers(0, len(words)))
    between = data.draw(st.sampled_from((" ", ", ", "\n", ". ")))
    before, after = " ".join(words[:at]), " ".join(words[at:])
    assert assess(f"{before}{between}{risk}. {after}").level == "red"
