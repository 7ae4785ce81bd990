"""The guard hears risk, lets idioms pass, and adds a message without touching the model's words."""

import re
import time

import pytest

from warmline.safety.crisis import COUNTRIES, numbers, resources
from warmline.safety.guard import CATEGORIES, LEVELS, Risk, assess, assess_turns, crisis_message, guarded, normalise
from warmline.safety.patterns import BROAD_RULES, RULES

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


def test_an_idiom_does_not_cover_what_stands_beside_it() -> None:
    assert assess("This job is killing me and I want to kill myself").level == "red"


def test_apostrophes_case_and_marks_do_not_matter() -> None:
    assert normalise("I DON\u2019T,  want -- it!") == "i dont want it!"
    assert assess("I WANT TO DIE") == assess("i want to die")


def test_the_worst_turn_counts_and_stays() -> None:
    turns = ["I want to kill myself", "ok thanks"]
    assert assess(turns[1]).level == "none"
    assert assess_turns(turns).level == "red"
    assert assess_turns([]) == Risk("none", (), ())


def test_levels_and_categories_are_those_there_are() -> None:
    assert {level for rules in (RULES, BROAD_RULES) for _, level in rules} <= set(LEVELS)
    assert {category for rules in (RULES, BROAD_RULES) for category, _ in rules} == set(CATEGORIES)


@pytest.mark.parametrize("country", [*COUNTRIES, None])
@pytest.mark.parametrize("category", sorted({category for rules in (RULES, BROAD_RULES) for category, _ in rules}))
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
    assert guarded("Hello.", calm) == "Hello."
    with pytest.raises(ValueError, match="no risk"):
        crisis_message(calm)


def test_red_comes_first_yellow_after_and_the_reply_is_kept_word_for_word() -> None:
    red, yellow = Risk("red", ("self_harm",), ()), Risk("yellow", ("self_harm",), ())
    assert guarded("My reply.", red, "GB") == f"{crisis_message(red, 'GB')}\n\nMy reply."
    assert guarded("My reply.", yellow, "GB") == f"My reply.\n\n{crisis_message(yellow, 'GB')}"
    assert guarded("", red, "GB") == crisis_message(red, "GB")


def test_a_long_text_is_read_in_a_moment() -> None:
    """No pattern may run away on long or repetitive input."""
    for text in ("he said she said " * 600, "a" * 20_000, "i want to " * 1500, "my friend " * 1500):
        start = time.perf_counter()
        assess(text)
        assert time.perf_counter() - start < 5
