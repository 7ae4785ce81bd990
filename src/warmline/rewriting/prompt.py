"""What the base is shown when it writes a reply anew: the voice, five examples of it, the conversation, and what a human answered there.

A small model that is only told how to sound lectures all the same; examples are what it follows. They were written for this project and are
in `assets/voice_examples.jsonl`; those of the strategy that the human reply has come last. The voice and the examples are never part of a
training prompt.
"""

import json
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import NamedTuple

from warmline.conversation import Turn
from warmline.data.template import Message
from warmline.tasks import TASKS

LATEST = 8
"""Turns of the conversation that it sees."""
EXAMPLES = 5


class Example(NamedTuple):
    """An exchange in the voice.

    Attributes:
        strategy: What its reply does, as ESConv calls it; None where that is left open.
        said: The user's message.
        answered: A human's reply to it.
        reply: One in the voice.
    """

    strategy: str | None
    said: str
    answered: str
    reply: str


def _asset(name: str) -> str:
    return (resources.files("warmline") / "assets" / name).read_text(encoding="utf-8").strip()


@cache
def voice() -> str:
    """How the companion is to sound, as a system prompt."""
    return _asset("voice.md")


@cache
def examples() -> tuple[Example, ...]:
    """All of them, in order."""
    return tuple(Example(**json.loads(line)) for line in _asset("voice_examples.jsonl").splitlines())


@cache
def examples_for(labels: tuple[str, ...]) -> tuple[Example, ...]:
    """Those that stand before a reply with these labels: its own strategy's last, and before them others that differ among each other."""
    own = [one for one in examples() if (one.strategy in labels if labels else one.strategy is None)]
    others = list({one.strategy: one for one in examples() if one not in own and one.strategy is not None}.values())
    return (*others[: EXAMPLES - len(own[:3])], *own[:3])


def rewriting_prompt(history: Sequence[Turn], reply: Turn, kind: str | None = None) -> list[Message]:
    """The messages that the base answers with a reply in its own words.

    Args:
        history: The turns before the reply, the last of them the user's.
        reply: A person's, with the labels that people gave it.
        kind: What the source says of the whole conversation, such as EmpatheticDialogues' situation.
    """
    labels = tuple(label for found in reply.labels.values() for label in found)
    notes = [f"- {hint}" for name, found in reply.labels.items() for label in found if (hint := TASKS[name].hint(label)) is not None]
    if kind is not None:
        notes.append(f"- They tell of a time when they felt {kind}.")
    system = "\n".join([voice(), *(["", "This time:", *notes] if notes else [])])
    messages = [Message(role="system", content=system)]
    for one in examples_for(labels):
        messages += [Message(role="user", content=one.said), Message(role="assistant", content=one.reply)]
    turns = list(history[-LATEST:])
    while turns[0].role != "user":
        turns.pop(0)
    return [*messages, *(Message(role=turn.role, content=turn.text) for turn in turns)]
