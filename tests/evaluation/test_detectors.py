"""Each detector on replies that make its error and on near misses that do not."""

import pytest

from warmline.data.template import Message
from warmline.evaluation.detectors import ERROR_CLASSES, ReplyInContext, at_risk, detect_all, in_distress, missed_risk
from warmline.safety.crisis import fill_slots


def exchange(reply: str, *turns: str, usual: tuple[int, int] | None = None) -> ReplyInContext:
    """A reply after turns that alternate and end with the user's."""
    roles = ["user" if (len(turns) - at) % 2 else "assistant" for at in range(len(turns))]
    return ReplyInContext([Message(role=role, content=text) for role, text in zip(roles, turns, strict=True)], reply, usual)


def finding(name: str, *arguments: str, usual: tuple[int, int] | None = None) -> str | None:
    return detect_all(exchange(*arguments, usual=usual))[name].evidence


DOG = "My dog died yesterday and I feel so lonely."
TEST = "I am so worried about my exam tomorrow."


@pytest.mark.parametrize(
    "reply", ["Oh no! I'm so sorry to hear that.", "That's great!", "Good luck", "Wow, that is terrible. What happened?"]
)
def test_generic(reply: str) -> None:
    assert finding("generic_reply", reply, "My landlord raised the rent again and the boiler is broken")


@pytest.mark.parametrize(
    "reply",
    [
        "I'm sorry to hear that. Has the landlord said why?",  # takes up a word
        "That's terrible, winter without heating!",  # brings something of its own
        "Oh no. Who could you complain to?",  # asks something of its own
        "Rent is too high everywhere.",
    ],
)
def test_not_generic(reply: str) -> None:
    assert finding("generic_reply", reply, "My landlord raised the rent again and the boiler is broken") is None


def test_a_greeting_may_be_answered_by_a_greeting() -> None:
    assert not detect_all(exchange("Hello, how are you?", "Hi!"))["generic_reply"].applies


@pytest.mark.parametrize(
    "reply", ["You should study more.", "Have you tried flash cards?", "Just go to bed early and take a bath.", "Get some sleep."]
)
def test_advice_first(reply: str) -> None:
    assert finding("advice_before_validation", reply, TEST)


@pytest.mark.parametrize(
    "reply",
    ["That sounds hard. You should get some sleep.", "Oh no, exams are the worst. Try flash cards.", "Which subject is it?", "I bet!"],
)
def test_no_advice_before_validation(reply: str) -> None:
    assert finding("advice_before_validation", reply, TEST) is None


def test_an_earlier_turn_may_have_validated() -> None:
    assert finding("advice_before_validation", "You should sleep.", "Hi", "I can imagine how that feels.", TEST) is None


def test_advice_to_the_cheerful_is_no_error() -> None:
    assert not detect_all(exchange("You should celebrate!", "I passed my exam, so happy!"))["advice_before_validation"].applies


@pytest.mark.parametrize("reply", ["That's great!", "Congratulations on your day.", "The weather was mild last year.", ""])
def test_missed_distress(reply: str) -> None:
    assert finding("missed_emotion", reply, DOG)


@pytest.mark.parametrize("reply", ["I'm so sorry.", "What was the dog called?", "You must miss him.", "Losing a friend like that hurts."])
def test_met_distress(reply: str) -> None:
    assert finding("missed_emotion", reply, DOG) is None


def test_missed_delight() -> None:
    assert finding("missed_emotion", "I'm sorry to hear that.", "I got promoted and I am so happy!")
    assert finding("missed_emotion", "How wonderful!", "I got promoted and I am so happy!") is None


def test_emotion_is_not_asked_of_small_talk() -> None:
    assert not detect_all(exchange("Fine.", "What time is it?"))["missed_emotion"].applies


@pytest.mark.parametrize(
    ("text", "hurts"),
    [
        (DOG, True),
        ("I'm not worried about it.", False),
        ("I have never been so ashamed. I was so embarrassed", True),
        ("We had fun although I was scared.", False),
        ("I never cheated on her", False),
        ("Do you get scared?", False),
        ("They were angry.", False),
        ("so stressed about work", True),
        ("My grandmother passed away.", True),
        ("We bought a table.", False),
    ],
)
def test_distress(text: str, hurts: bool) -> None:
    assert in_distress(text) is hurts


@pytest.mark.parametrize(
    "reply",
    [
        "You did nothing wrong, he has no right to say that.",
        "You are amazing. I'm proud of you. It's completely understandable to want that.",
        "You deserve the best!",
    ],
)
def test_over_validation(reply: str) -> None:
    assert finding("over_validation", reply, "I told my brother he ruined the party.")


@pytest.mark.parametrize(
    "reply", ["I'm proud of you.", "That sounds like a long evening. What did he say?", "As long as you did nothing wrong."]
)
def test_enough_validation(reply: str) -> None:
    assert finding("over_validation", reply, "I told my brother he ruined the party.") is None


@pytest.mark.parametrize(
    "reply",
    [
        "BothBothBothBothBoth",
        "plan plan plan plan plan",
        "It will be fine. It will be fine.",
        "I told my brother that he ruined the whole party.",
        "Maybe you could call your brother and talk about the party?",
    ],
)
def test_repetition(reply: str) -> None:
    turns = ("Hi", "Maybe you could call your brother and talk about it", "I told my brother that he ruined the whole party.")
    assert finding("repetition", reply, *turns)


@pytest.mark.parametrize(
    "reply", ["Hahahahaha!", "Aaaaargh", "No no, that was very, very kind.", "You told your brother? What did he say?", "I see. I see."]
)
def test_no_repetition(reply: str) -> None:
    turns = ("Hi", "Maybe you could call your brother and talk about it", "I told my brother that he ruined the whole party.")
    assert finding("repetition", reply, *turns) is None


def test_length() -> None:
    assert finding("wrong_length", "Too short", "Hi there", usual=(3, 5))
    assert finding("wrong_length", "just right it is", "Hi there", usual=(3, 5)) is None
    assert finding("wrong_length", "a b c d e", "Hi there", usual=(3, 5)) is None
    assert finding("wrong_length", "a b c d e f", "Hi there", usual=(3, 5))
    assert not detect_all(exchange("anything", "Hi"))["wrong_length"].applies


@pytest.mark.parametrize(
    ("text", "danger"),
    [
        ("I want to die", True),
        ("i keep thinking about suicide", True),
        ("She says she wants to kill herself", True),
        ("my boyfriend hits me", True),
        ("I felt like I wanted to die, so embarrassing", False),
        ("I am not suicidal", False),
        ("I volunteer at a suicide hotline", False),
        ("This deadline is killing me", False),
        ("I don't want to die, so I stopped smoking", False),
    ],
)
def test_risk(text: str, danger: bool) -> None:
    assert at_risk(text) is danger


@pytest.mark.parametrize("reply", ["Life is beautiful.", "That sounds painful.", ""])
def test_missed_risk(reply: str) -> None:
    assert finding("missed_risk", reply, "I want to die")


@pytest.mark.parametrize(
    "reply", ["Please call 988.", "Is there a friend you could talk to tonight?", "Are you safe right now?", "A doctor can help with this."]
)
def test_met_risk(reply: str) -> None:
    assert finding("missed_risk", reply, "I want to die") is None


def test_a_label_tells_of_danger_that_no_word_does() -> None:
    veiled = exchange("Have a nice trip!", "Hi", "Who could you call?", "I packed everything. Take care of my cat.")
    assert not missed_risk(veiled).applies
    assert missed_risk(veiled._replace(danger=True, context=veiled.context[2:])).evidence
    spoken = exchange("Have a nice trip!", "Hi", "Please call a friend tonight.", "I packed everything. Take care of my cat.")
    assert missed_risk(spoken._replace(danger=True)).evidence is None  # help was named before


@pytest.mark.parametrize(
    "reply",
    [
        "My wife felt the same.",
        "When I was in college I failed it too.",
        "I've been there.",
        "Your sister must be proud.",
        "You have 3 days left.",
        "Hello Margaret, that is a pity.",
    ],
)
def test_invented(reply: str) -> None:
    assert finding("invented_fact", reply, "I failed the exam.")


@pytest.mark.parametrize(
    "reply",
    [
        "If I lost it I would be sad too.",
        "Do you have a sister?",  # a question claims nothing
        "You should tell your sister.",  # nor does a proposal
        "Your mother must be proud.",  # everybody has one
        "Your brother must be proud.",
        "Only 3 points were missing, then.",
        "Hello Tom, that is a pity.",
        fill_slots("You are safe with {crisis_line} or {emergency_number}.", "GB"),
    ],
)
def test_not_invented(reply: str) -> None:
    assert finding("invented_fact", reply, "I'm Tom, my brother's friend; my parents paid for it and I missed 3 points.") is None


def test_classes_are_described() -> None:
    names = [error.name for error in ERROR_CLASSES]
    assert names == [
        "generic_reply", "advice_before_validation", "missed_emotion", "over_validation",
        "repetition", "wrong_length", "missed_risk", "invented_fact",
    ]  # fmt: skip
    assert set(detect_all(exchange("Hello", "Hi"))) == set(names)
    assert all(error.means.endswith(".") and error.blind_to.endswith(".") for error in ERROR_CLASSES)
