"""What replies are like, as far as rules can see: length, flaws, whether a form is kept, and how odd the base finds them.

Rules see a list or a claimed childhood; they do not see nonsense. What the base finds very unlikely often is, so its perplexity of the
replies stands beside them, and so do some replies for a reader.
"""

import json
import math
import random
import re
import statistics
from collections import Counter
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

from warmline.companion import Companion
from warmline.config import DataConfig
from warmline.conversation import Conversation, Split
from warmline.data.enabled import enabled_sources
from warmline.data.template import Message, as_messages
from warmline.errors import WarmlineError
from warmline.model.backbone import Sampling
from warmline.rewriting.flaws import flaw
from warmline.rewriting.insight import Insight

FORM_TOKENS = 400
"""Longest reply to a prompt that asks for a form."""


class Form(NamedTuple):
    """A prompt that asks for sections.

    Attributes:
        asked: What the user says.
        headings: Of the sections, in order.
    """

    asked: str
    headings: tuple[str, ...]

    def kept(self, reply: str) -> bool:
        """Whether every heading begins a line, in order, with any marks around it."""
        at = 0
        for heading in self.headings:
            found = re.compile(rf"^[\s#*\d.>_-]*{re.escape(heading)}\b", re.IGNORECASE | re.MULTILINE).search(reply, at)
            if found is None:
                return False
            at = found.end()
        return True


@cache
def forms() -> tuple[Form, ...]:
    """All of them, written for this project."""
    lines = (resources.files("warmline") / "assets" / "forms.jsonl").read_text(encoding="utf-8").splitlines()
    return tuple(Form(one["asked"], tuple(one["headings"])) for one in map(json.loads, lines))


class WaitingTurn(NamedTuple):
    """A message of a dialogue that waits for a reply.

    Attributes:
        source: Name of the data set.
        conversation: Id within its split.
        turn: 0-based place of the reply.
        messages: All turns before it; the last is the user's.
    """

    source: str
    conversation: str
    turn: int
    messages: list[Message]


def waiting_turns(data: DataConfig, seed: int, number: int, split: Split) -> list[WaitingTurn]:
    """Turns of people's dialogues, one a dialogue, drawn by the seed, as many of each source as can be.

    Args:
        data: Which sources there are, and where.
        seed: Of the run.
        number: How many in all.
        split: Which.

    Raises:
        WarmlineError: bad or missing files, or no source of dialogues.
    """
    told = [one for one in enabled_sources(data) if "lm" in one.source.carries and one.source.of_people and not one.source.danger]
    if not told:
        raise WarmlineError("data.sources: no dialogue of people to answer; enable empathetic_dialogues or esconv")
    found = []
    for at, source in enumerate(told):
        draw = random.Random(f"{seed}/{source.name}/{split}")
        conversations = list(source.load(split).conversations)
        draw.shuffle(conversations)
        share, mine = number // len(told) + (at < number % len(told)), 0
        for one in conversations:
            if mine == share:
                break
            if places := one.reply_places():
                place = draw.choice(places)
                found.append(WaitingTurn(source.name, one.id, place, as_messages(Conversation(one.id, one.turns[:place]))))
                mine += 1
    return found


def manner(companion: Companion, insight: Insight, prompts: Sequence[list[Message]], longest: int) -> tuple[dict[str, Any], list[str]]:
    """Greedy replies to some turns and to the forms, and what rules see in them.

    Args:
        companion: The model.
        insight: What its base finds likely.
        prompts: Conversations that wait for a reply, at least one.
        longest: Tokens of a reply at most.

    Returns:
        `words_median`; the share of replies without a `flaw`, `flawless`; how many have which, `flaws`; the share of forms kept; of both
        together the share that have a flaw or break their form, `flawed`; and the perplexity of all replies by the base, each after the
        message that it answers, `base_perplexity`. And the replies.
    """
    said = [one.text for one in companion.replies(list(prompts), Sampling(longest, temperature=0))]
    asked = [[Message(role="user", content=form.asked)] for form in forms()]
    formed = [one.text for one in companion.replies(asked, Sampling(FORM_TOKENS, temperature=0))]
    flaws = Counter(
        reason
        for prompt, reply in zip(prompts, said, strict=True)
        if (reason := flaw(reply, [one["content"] for one in prompt if one["role"] == "user"])) is not None
    )
    kept = sum(form.kept(reply) for form, reply in zip(forms(), formed, strict=True))
    spoken = [(prompt[-1]["content"], reply) for prompt, reply in zip(prompts, said, strict=True) if reply]
    return {
        "n": len(said),
        "words_median": statistics.median(len(reply.split()) for reply in said),
        "flawless": 1 - flaws.total() / len(said),
        "flaws": dict(flaws.most_common()),
        "forms": len(formed),
        "forms_kept": kept / len(formed),
        "flawed": (flaws.total() + len(formed) - kept) / (len(said) + len(formed)),
        "base_perplexity": math.exp(-sum(insight.log_likelihoods(spoken)) / sum(map(insight.tokens, (reply for _, reply in spoken))))
        if spoken
        else None,
    }, said
