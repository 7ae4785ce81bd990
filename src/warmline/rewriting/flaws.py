"""What a reply in the companion's voice must not be, each with a rule that a reader can argue with.

The same rules count a finished model's flaws (`voice_flaws` in results), so they look at the reply and what stands before it, and at
nothing else. They are patterns over English words: a claim of a human life that is put otherwise passes.
"""

import re
from collections.abc import Callable, Sequence

FEWEST, MOST = 8, 75
"""Words of a reply."""
_QUESTIONS = 2
_SENTENCES = 6
_RUN = 7
"""Words in a row that are a copy."""
_WORDS = re.compile(r"[a-z0-9']+")
_RELATIVES = (
    "mom|mum|mother|dad|father|wife|husband|brother|sister|son|daughter|kids?|children|parents?|grandma|grandpa|grandmother|grandfather|"
    "girlfriend|boyfriend|partner|family|dog|cat|boss|job|school|college|house|car|childhood|friends?|best friend|roommate|neighbou?rs?"
)
_FELT = "tired|scared|nervous|excited|lonely|sad|relieved|grateful|angry|annoyed|disappointed|embarrassed|ashamed|jealous|proud of my"
_PAST = (
    "been|had|felt|lost|lived|done|gone|seen|experienced|struggled|dealt|known|tried|worked|made|taken|learned|gotten|got|met|always|never"
)
_DID = (
    "had|felt|went|lived|grew|worked|studied|bought|ate|got|lost|met|remember|moved|started|struggled|experienced|tried|learned|thought i|"
    "can relate|relate|could relate|know (?:exactly )?how (?:it|that|you) feels?"
)
_HUMAN = re.compile(
    rf"\b(?:me too|same here|(?:as|like) another human|i'?(?:m| am) (?:also )?(?:a )?human|my (?:own )?(?:{_RELATIVES})|"
    rf"(?:when|since|while) i was|i was (?!wondering|just wondering)|i(?:'ve| have) (?:also |always |never |often |a |just )?(?:{_PAST})|"
    rf"i(?:'d| would) (?:often|always|feel|be (?!happy|glad)|have|go|do|hate)|i used to|"
    rf"i (?:also |too |really |still |once |just )?(?:{_DID})|"
    rf"i(?:'m| am) (?:also |so |very |really |feeling )*(?:{_FELT})|i(?:'m| am) (?:going to|from|in my|married|at work)|"
    r"in my (?:own )?(?:experience|life|case)|for me,|my (?:own )?(?:past|life|experience|story|feelings|shoulders|heart))\b"
)
_LIST = re.compile(r"(?m)^\s*(?:[-*•]|\d+[.)])\s|\*\*|^#|:\s*\n|\n\s*\n")
_LECTURE = re.compile(
    r"\b(?:it(?:'s| is) (?:always |also |completely |perfectly )?"
    r"(?:important|essential|crucial|best|okay|ok|normal|natural|understandable|good) (?:to|that|for|if|when)|"
    r"remember,? (?:that|to|you|this|even)|here are|first(?:ly)?,|secondly|stay positive|prioriti[sz]e|self-care|i (?:recommend|suggest)|"
    r"(?:a|your) (?:licensed )?(?:therapist|counsell?or|mental health|professional)|(?:positive|supportive) (?:people|mindset|attitude)|"
    r"you should|you need to|make sure to|don't (?:forget|hesitate) to|keep in mind|coping (?:mechanisms?|strategies)|"
    r"everyone (?:has|goes)|life is)\b"
)
_STOCK = re.compile(
    r"\b(?:sorry to hear|sorry (?:that )?you|i understand|you(?:'re| are) not alone|going through|i(?:'m| am) (?:just )?here (?:for|to)|"
    r"that(?:'s| is) (?:understandable|(?:a )?(?:very |really )?(?:tough|difficult|hard|challenging)(?: situation)?[,.])|let me know|"
    r"(?:tough|difficult|hard|challenging) (?:times?|situation)|anything (?:else )?you(?:'d| would) like to (?:talk|share)|"
    r"please (?:provide|let me know|feel free)|how does that make you feel|how do you feel about that)\b"
)
_ECHO = re.compile(
    r"\b(?:the feeling (?:that )?(?:you|i) hear|something particular|in (?:my|your) own words|plain chat|language model|this time:|"
    r"short sentences|open question|small idea|as an ai|assistant|they (?:tell|told) of|your reply|the user)\b|"
    r"\[|\]|them:|you:"
)
_REFUSAL = re.compile(r"\b(?:can(?:'t|not) (?:assist|help) (?:you )?with (?:that|this|it)|(?:am|'m) unable to)\b")
_NUMBER = re.compile(r"\b(?:\d[\d -]{5,}\d|988|911|999|116 ?123|hotline|helpline|crisis (?:line|text))\b")

Rule = Callable[[str, Sequence[str], Sequence[str]], bool]


def _plain(text: str) -> str:
    """In small letters, with plain apostrophes."""
    return text.lower().replace("\u2019", "'")


def words(text: str) -> list[str]:
    """In small letters, without marks."""
    return _WORDS.findall(_plain(text))


def claims_human(text: str) -> bool:
    """Whether it speaks of a life of its own."""
    return _HUMAN.search(_plain(text)) is not None


def _copies(text: str, sources: Sequence[str]) -> bool:
    seen = {tuple(found[at : at + _RUN]) for found in map(words, sources) for at in range(len(found) - _RUN + 1)}
    own = words(text)
    return any(tuple(own[at : at + _RUN]) in seen for at in range(len(own) - _RUN + 1))


def _repeats(text: str, earlier: Sequence[str]) -> bool:
    sentences = [" ".join(words(part)) for part in re.split(r"(?<=[.!?])\s+", text)]
    before = {" ".join(words(part)) for said in earlier for part in re.split(r"(?<=[.!?])\s+", said)}
    long = [one for one in sentences if len(one.split()) > 3]
    return len(set(long)) < len(long) or any(one in before for one in long)


RULES: dict[str, Rule] = {
    "claims a human life": lambda reply, _, __: claims_human(reply),
    "a list": lambda reply, _, __: _LIST.search(reply) is not None,
    "lectures": lambda reply, _, __: _LECTURE.search(_plain(reply)) is not None or len(re.findall(r"[.!?]+(?:\s|$)", reply)) > _SENTENCES,
    "too short": lambda reply, _, __: len(reply.split()) < FEWEST,
    "too long": lambda reply, _, __: len(reply.split()) > MOST,
    "asks too much": lambda reply, _, __: reply.count("?") > _QUESTIONS,
    "refuses": lambda reply, _, __: _REFUSAL.search(_plain(reply)) is not None,
    "a number": lambda reply, _, __: _NUMBER.search(_plain(reply)) is not None,
    "echoes the instructions": lambda reply, _, __: _ECHO.search(_plain(reply)) is not None,
    "copies": lambda reply, said, _: _copies(reply, said),
    "repeats": lambda reply, _, earlier: _repeats(reply, earlier),
    "stock phrases": lambda reply, _, __: _STOCK.search(_plain(reply)) is not None,
}
"""By reason, from a reply, what it must not copy (the user's messages, the examples) and what the companion said before."""


def flaw(reply: str, said: Sequence[str] = (), earlier: Sequence[str] = ()) -> str | None:
    """The first reason against a reply; None where it passes.

    Args:
        reply: As it would be shown.
        said: Texts of which it must not hold seven words in a row.
        earlier: The companion's earlier replies, of which it must not say a sentence again.
    """
    return next((reason for reason, broken in RULES.items() if broken(reply, said, earlier)), None)
