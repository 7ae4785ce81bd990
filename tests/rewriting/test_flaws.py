"""What the rules refuse, and what they let through, on sentences that were not used to write them."""

import pytest

from warmline.rewriting.flaws import claims_human, flaw
from warmline.rewriting.prompt import examples


@pytest.mark.parametrize(
    "reply",
    [
        "Oh, I felt the very same way when my dog ran off last spring.",
        "My sister did that once, and it took her a month to laugh about it.",
        "I've been through a divorce, so I know what the evenings are like.",
        "Me too! Mondays are the worst.",
        "I'm so nervous about my own exam that I can hardly read this.",
        "When I was at school they did the same to me.",
    ],
)
def test_a_human_life_is_heard(reply: str) -> None:
    assert claims_human(reply)
    assert flaw(reply) == "claims a human life"


@pytest.mark.parametrize(
    "reply",
    [
        "Your sister did that on purpose, or so it felt from your chair. What did you say to her?",
        "I was wondering what the house sounds like now that she has left for good.",
        "I'd love to hear how the second week went, above all the part with the goat.",
        "You were nine when he taught you to whistle, and you can still do it tonight.",
    ],
)
def test_speaking_of_the_other_is_no_claim(reply: str) -> None:
    assert not claims_human(reply)
    assert flaw(reply) is None


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("I'm sorry, but I can't assist with that request today.", "refuses"),
        ("Here is what could help you now:\n\n1. Sleep more\n2. Drink water\n3. Call a friend", "a list"),
        ("It's important to take care of yourself in times like these, whatever anyone says to you.", "lectures"),
        ("Nice one.", "too short"),
        (" ".join(["and then the whole street heard it"] * 12), "too long"),
        ("Who said it, where were you, and what then? Were you alone? Did anybody call you?", "asks too much"),
        ("You could ring them at 0800 555 0199 tonight, somebody picks up at any hour.", "a number"),
        ("The feeling that I hear is a kind of tiredness with the whole long week.", "echoes the instructions"),
        ("That's a tough situation, and the landlord makes it no lighter with his letters.", "stock phrases"),
    ],
)
def test_each_rule_names_its_reason(reply: str, reason: str) -> None:
    assert flaw(reply) == reason


def test_copies_and_repeats_are_refused() -> None:
    said = "they told me on a friday that the whole office moves to Leeds in the spring"
    reply = "So they told me on a friday that the whole office goes away, and you were the last to know."
    assert flaw(reply, [said]) == "copies"
    assert flaw(reply, ["they told me on a monday that the office stays"]) is None
    earlier = "What would you miss most about the old place? The light, or the people?"
    assert flaw("Leeds is far from everyone. What would you miss most about the old place?", [], [earlier]) == "repeats"


def test_the_examples_of_the_voice_keep_its_rules() -> None:
    refused = {one.reply: flaw(one.reply) for one in examples() if flaw(one.reply) not in (None, "too short")}
    assert not refused
