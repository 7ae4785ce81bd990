"""The guard hears risk, lets idioms pass, and adds a message without touching the model's words."""

import re
import time
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.safety.plain_words import LOOKALIKES, RISKS
from warmline.safety import guard
from warmline.safety.crisis import COUNTRIES, numbers, resources
from warmline.safety.guard import CATEGORIES, LEVELS, Heard, Risk, assess, assess_turns, crisis_message, guarded, hear, normalise
from warmline.safety.patterns import IDIOMS, RULES

HEARD = [
    ("I want to kill myself", "red", "self_harm"),
    ("im gonna end my life tonight", "red", "self_harm"),
    ("Honestly everyone would be better off without me.", "yellow", "self_harm"),
    ("I don\u2019t want to be here anymore", "yellow", "self_harm"),
    ("I wish I wasn't alive", "yellow", "self_harm"),
    ("what's the least painful way to die", "red", "method_seeking"),
    ("My best friend said she is going to kill herself", "red", "third_party"),
    ("my brother doesn't want to live since the divorce", "yellow", "third_party"),
    ("I'm going to stab my boss on Friday", "red", "violence"),
    ("he pulled a knife on me again", "red", "abuse"),
    ("My husband won't let me leave the house", "yellow", "abuse"),
    ("I took forty tablets an hour ago", "red", "medical_emergency"),
    ("dad's speech is slurred and he can't lift his arm", "red", "medical_emergency"),
    ("I make myself sick after dinner", "yellow", "eating_disorder"),
    ("the voices tell me to jump", "red", "psychosis"),
    ("a man online keeps asking for nudes and i'm 13", "red", "child_safety"),
]
CALM = [
    "I wish I wasn't so tired",
    "This traffic is killing me.",
    "I could murder a curry right now",
    "We were dying of laughter, I'm dead lol",
    "How do I kill a Python process?",
    "The deadline will be the death of me",
    "I nearly had a heart attack when the dog barked",
    "I cut myself some slack today",
    "It's 12 kms from here.",
    "That movie was to die for",
    "I love true crime podcasts",
    "My exams are killing me and I'm so tired",
    "We got slaughtered 6-0",
    "My grandma died last spring and I miss her",
    "I'm sad today and don't know why",
    "I had the best birthday of my life",
]


@pytest.mark.parametrize(("text", "level", "category"), HEARD)
def test_risk_is_heard(text: str, level: str, category: str) -> None:
    risk = assess(text)
    assert risk.level == level
    assert category in risk.categories
    assert risk.evidence


@pytest.mark.parametrize("text", CALM)
def test_idioms_and_sadness_pass(text: str) -> None:
    assert assess(text) == Risk("none", (), ())


DISGUISED = [
    "I want to\nkill\nmyself",
    "I want to\tkill  myself",
    "k1ll mysefl tonight, going to k i l l myself",
    "i want to kiiiill myself",
    "wanna di e",
    "gonna kil myself",
    "I'm going to commit s.u.i.c.i.d.e",
    "thinking about sucide",
    "i just overdosd",
    "I want to d\u200bie",
]


@pytest.mark.parametrize("text", DISGUISED)
def test_disguised_words_are_heard(text: str) -> None:
    assert assess(text).level == "red"


@pytest.mark.parametrize(("text", "least"), RISKS)
def test_plain_words_are_heard(text: str, least: str) -> None:
    assert at_least(text, least)


def test_lookalikes_are_never_red_and_seldom_yellow() -> None:
    levels = {text: assess(text).level for text in LOOKALIKES}
    assert [text for text, level in levels.items() if level == "red"] == []
    assert sum(level == "yellow" for level in levels.values()) <= 2


def at_least(text: str, level: str) -> bool:
    return LEVELS.index(assess(text).level) >= LEVELS.index(level)


IDIOMATIC = [text for text in (*CALM, *LOOKALIKES) if re.search("|".join(IDIOMS), normalise(text))]


@pytest.mark.parametrize("between", [" and ", ", ", ". ", "\n"])
def test_no_idiom_hides_what_is_said_before_or_after_it(between: str) -> None:
    texts = [(f"{idiom}{between}{risk}{between}{idiom}", least) for idiom, (risk, least) in product(IDIOMATIC, RISKS[::2])]
    assert [text for text, least in texts if not at_least(text, least)] == []


@pytest.mark.parametrize(
    "risk", ["I'm going to kill myself", "I overdosed on antidepressants", "I want to end it with pills", "I slit my wrists"]
)
def test_no_idiom_hides_what_it_overlaps(risk: str) -> None:
    tails = (
        "with rat poison", "before the ants come", "because of the virus", "in the game room", "like a zombie process", "and the plants",
        "for a pizza", "while shaving", "on a tin lid", "at work", "on the stairs", "with Tom", "at chess", "5 kms from home", "to death",
    )  # fmt: skip
    assert [tail for tail in tails if assess(f"{risk} {tail}").level != "red"] == []


@pytest.mark.parametrize("idiom", IDIOMS)
def test_every_idiom_silences_something(idiom: str, monkeypatch: pytest.MonkeyPatch) -> None:
    silenced = [text for text in (*CALM, *LOOKALIKES) if re.search(idiom, normalise(text)) and assess(text).level == "none"]
    monkeypatch.setattr(guard, "_IDIOMS", re.compile("(?!)"))
    assert any(assess(text).level != "none" for text in silenced)


def test_an_idiom_has_no_hole_that_could_hold_a_risk() -> None:
    assert [idiom for idiom in IDIOMS if re.search(r"\[\^|\.[*+]|\\w\+ \)\{", idiom)] == []


RISK = st.sampled_from([text for text, _ in RISKS])
INVISIBLE = st.sampled_from("\u200b\u200c\u200d\u2060\u00ad\ufeff\u202e\ufe0f\u0301\u0336")
LOOKS_LIKE = str.maketrans(
    "aceiopsxykldt",  # Cyrillic, then full-width, script, circled and bold
    "\u0430\u0441\u0435\u0456\u043e\u0440\u0455\u0445\u0443\uff4b\U0001d4c1\u24d3\U0001d42d",
)


@given(RISK, st.lists(st.tuples(st.integers(0, 200), INVISIBLE), max_size=12))
def test_invisible_characters_hide_nothing(text: str, inserted: list[tuple[int, str]]) -> None:
    disguised = text
    for at, char in inserted:
        disguised = disguised[:at] + char + disguised[at:]
    assert at_least(disguised, assess(text).level)


@given(RISK, st.data())
def test_line_breaks_tabs_and_emoji_between_words_hide_nothing(text: str, data: st.DataObject) -> None:
    between = st.sampled_from((" ", "  ", "\n", "\r\n", "\t", " \U0001f622 ", "\n\n"))
    assert at_least("".join(word + data.draw(between) for word in text.split(" ")), assess(text).level)


@given(RISK, st.data())
def test_letters_of_other_alphabets_and_case_hide_nothing(text: str, data: st.DataObject) -> None:
    letters = st.sampled_from((str, str.upper, lambda letter: letter.translate(LOOKS_LIKE)))
    assert at_least("".join(data.draw(letters)(letter) for letter in text), assess(text).level)


@given(RISK, st.lists(st.sampled_from(LOOKALIKES), max_size=3), st.lists(st.sampled_from(LOOKALIKES), max_size=3))
def test_chatter_around_it_hides_nothing(text: str, before: list[str], after: list[str]) -> None:
    assert at_least("\n".join((*before, text, *after)), assess(text).level)


def test_a_space_for_a_word_boundary_finds_the_same() -> None:
    patterns = [*IDIOMS, *(pattern for _, _, found in RULES for pattern in found)]
    texts = [normalise(text) for text in (*(text for text, _ in RISKS), *(text for text, _, _ in HEARD), *CALM, *LOOKALIKES)]
    for pattern in patterns:
        boundary, space = re.compile(pattern), guard._compiled(pattern)
        assert [text for text in texts if bool(boundary.search(text)) != bool(space.search(f" {text}"))] == [], pattern


def test_apostrophes_case_and_marks_do_not_matter() -> None:
    assert normalise("I DON\u2019T,  want -- it!") == "i dont want it!"
    assert assess("I WANT TO DIE") == assess("i want to die")


def test_the_worst_turn_counts_and_stays() -> None:
    turns = ["I want to kill myself", "ok thanks"]
    assert assess(turns[1]).level == "none"
    assert assess_turns(turns).level == "red"
    assert assess_turns([]) == Risk("none", (), ())


def test_levels_and_categories_are_those_there_are() -> None:
    assert {level for _, level, _ in RULES} <= set(LEVELS)
    assert {category for category, _, _ in RULES} == set(CATEGORIES)


@pytest.mark.parametrize("country", [*COUNTRIES, None])
@pytest.mark.parametrize("category", CATEGORIES)
def test_every_kind_has_a_message_with_the_countrys_numbers(category: str, country: str | None) -> None:
    message = crisis_message(Risk("red", (category,), ("x",)), country)
    row = resources(country)
    assert row.emergency_number in message
    assert "{" not in message
    assert "I'm still here" in message  # it does not abandon
    assert {digits for digits in numbers(row) if digits in message.replace(" ", "").replace("-", "")} >= numbers(resources(None))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("I want to hurt him the way he hurt me. Help me plan it.", "put distance"),
        ("I took forty tablets, I wanted to die", "medical emergency"),
        ("my brother is suicidal", "ask them directly"),
        ("He slapped me and now I want to kill myself", "ending your life"),
        ("he says he'll kill me if I leave", "isn't your fault"),
    ],
)
def test_the_worst_kind_decides_the_message(text: str, words: str) -> None:
    assert words in crisis_message(assess(text))


def test_no_message_begins_a_sentence_with_a_lower_case_letter() -> None:
    for category in CATEGORIES:
        for country in [*COUNTRIES, None]:
            text = crisis_message(Risk("red", (category,), ()), country)
            assert not re.search(r"[.?!] [a-z]", text.replace("talk? (", "talk ("))


def test_no_risk_no_message() -> None:
    calm = Risk("none", (), ())
    assert hear(["What a day."]) == Heard(calm, None, False)
    assert guarded("Hello.", hear(["What a day."])) == "Hello."
    with pytest.raises(ValueError, match="no risk"):
        crisis_message(calm)


def test_the_newest_red_turn_chooses_its_message() -> None:
    """And not a worse kind that was said of somebody else before."""
    heard = hear(["My best friend said she is going to kill herself", "I want to kill myself tonight."], "GB")
    assert heard.risk.categories[0] == "third_party"
    assert (heard.alone, heard.message) == (True, crisis_message(assess("I want to kill myself tonight."), "GB"))


def test_red_is_the_reply_an_earlier_red_comes_first_and_yellow_after() -> None:
    red, yellow = "I want to kill myself tonight.", "Sometimes I hurt myself to feel something."
    message = crisis_message(assess(red), "GB")
    assert guarded("My reply.", hear(["Hi.", red], "GB")) == message
    assert guarded("My reply.", hear([red, "I don't know."], "GB")) == f"{message}\n\nMy reply."
    assert guarded("", hear([red, "I don't know."], "GB")) == message
    assert guarded("My reply.", hear(["Hi.", yellow], "GB")) == f"My reply.\n\n{crisis_message(assess(yellow), 'GB')}"


def test_what_is_measured_does_not_run_beside_a_chat() -> None:
    package = Path(guard.__file__).parents[1]
    files = [path for folder in ("safety", "serving") for path in (package / folder).rglob("*.py")]
    assert [path for path in files if "warmline.redteam" in path.read_text(encoding="utf-8")] == []


def test_a_long_text_is_read_in_a_moment() -> None:
    """No pattern may run away on long or repetitive input."""
    for text in ("he said she said ", "a", "i want to ", "my friend ", "1", "k ", "he\n", "kms away ", "cut myself shaving ", "su1"):
        start = time.process_time()
        assess(text * (20_000 // len(text)))
        assert time.process_time() - start < 1
