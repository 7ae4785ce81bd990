"""Replies of base and tuned model to held-out prompts, made once: what examples, the error taxonomy and a reader work with."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from warmline.config import DataConfig
from warmline.conversation import Conversation
from warmline.data.enabled import EnabledSource, enabled_sources
from warmline.data.template import Message, as_messages
from warmline.errors import WarmlineError
from warmline.evaluation.finished import FinishedRun
from warmline.evaluation.replies import MOST_CUT, answer_all
from warmline.model.backbone import Sampling
from warmline.model.description import read_description
from warmline.runs import parse_json, write_json, write_text
from warmline.safety.crisis import fill_slots
from warmline.sources import SOURCES

PROMPTS_PER_SOURCE = 20
EXAMPLES = 5
PROMPTS_SHOWN = 20
RULE = (
    "Of every conversation in a test split the sha256 of `seed/source/conversation id` is taken. The prompts are, in each source, the "
    "conversations with the smallest; the hash also picks the reply position among those that follow a user's turn. The examples are the "
    "smallest of them all. The rule reads no reply, so it cannot favour one."
)
_SHOWN = 3


class Prompt(NamedTuple):
    """A point in a held-out conversation at which a reply is due.

    Attributes:
        digest: sha256 that the choice rests on, in hexadecimal.
        source: Name of the data set.
        conversation: Id within its test split.
        turn: 0-based place of the reply in the conversation.
        messages: All turns before it; the last is the user's.
        reference: The reply that stands there in the data set, hotline slots filled.
        situation: The conversation's emotion label, never shown to a model; None where there is none.
        danger: Whether its label in the safety set says that someone may come to harm, never shown to a model either.
    """

    digest: str
    source: str
    conversation: str
    turn: int
    messages: list[Message]
    reference: str
    situation: str | None
    danger: bool


def draw_prompts(data: DataConfig, seed: int, per_source: int = PROMPTS_PER_SOURCE) -> list[Prompt]:
    """Held-out prompts by `RULE`: at most one a conversation, in order of their digest.

    Args:
        data: Which sources there are, and where. The safety set's test split is drawn from too: ordinary talk holds too little risk to
            see whether it is missed.
        seed: Of the run.
        per_source: Most prompts of one source.

    Raises:
        WarmlineError: bad or missing files, or no source with replies.
    """
    drawn: list[Prompt] = []
    for source in enabled_sources(data):
        if "lm" in source.source.carries and source.source.of_people:
            drawn += sorted(_prompts(source, source.load("test").conversations, seed))[:per_source]
    if not drawn:
        told = [name for name, source in SOURCES.items() if "lm" in source.carries and source.of_people]
        raise WarmlineError(f"data.sources: no held-out prompt; enable one of {', '.join(told)}")
    return sorted(drawn)


def _prompts(source: EnabledSource, conversations: tuple[Conversation, ...], seed: int) -> Iterator[Prompt]:
    danger = source.source.danger
    for conversation in conversations:
        turns = conversation.turns
        places = conversation.reply_places()
        if places:
            digest = hashlib.sha256(f"{seed}/{source.name}/{conversation.id}".encode()).hexdigest()
            turn = places[int(digest, 16) % len(places)]
            messages = as_messages(conversation)[:turn]
            yield Prompt(
                digest, source.name, conversation.id, turn, messages, fill_slots(turns[turn].text), None if danger else conversation.kind,
                danger=conversation.kind in danger,
            )  # fmt: skip


def make_replies(finished: FinishedRun, per_source: int = PROMPTS_PER_SOURCE, sampling: Sampling | None = None) -> list[dict[str, Any]]:
    """Let base and tuned model answer the held-out prompts, and write `results/replies.jsonl`; a file of the same artefact, data and
    settings is read instead of made again.

    Args:
        finished: The run.
        per_source: Most prompts of one source.
        sampling: Of both models; greedy by default.

    Returns:
        One record a prompt: the prompt's fields, `base` and `tuned` (the replies), `cut` (whether each of them was), and under each
        head's name the likeliest labels that it reads in the prompt.

    Raises:
        WarmlineError: bad or missing data, a full disk.
    """
    sampling = sampling or Sampling(temperature=0)
    context = {
        **finished.context(),
        "weights_sha256": read_description(finished.folder)["weights_sha256"],
        "split": "test",
        "prompts_per_source": per_source,
        "decoding": sampling._asdict(),
        "most_cut": MOST_CUT,
        "rule": RULE,
    }
    stored = read_replies(finished.folder.replies)
    if stored is not None and stored[0] == context:
        return stored[1]
    prompts = draw_prompts(finished.config.data, finished.config.seed, per_source)
    asked = [prompt.messages for prompt in prompts]
    both = (answer_all(finished.companion, asked, sampling, base) for base in (True, False))
    records = []
    for prompt, base, tuned in zip(prompts, *both, strict=True):
        reading = finished.companion.read(prompt.messages)
        heads = {head: _likeliest(probabilities) for head, probabilities in reading.items()}
        cut = {"base": base.cut, "tuned": tuned.cut}
        records.append({**prompt._asdict(), "base": base.text, "tuned": tuned.text, "cut": cut, **heads})
    write_text(finished.folder.replies, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in [{"context": context}, *records]))
    return records


def read_replies(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]] | None:
    """Context and records of a `replies.jsonl`; None where there is none, or a damaged one that had better be made again."""
    try:
        head, *records = [parse_json(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
        return head["context"], records
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_examples(finished: FinishedRun, records: list[dict[str, Any]]) -> dict[str, Any]:
    """Write `results/examples.json`: the five examples that `RULE` chooses, base beside tuned, and the replies to the first twenty prompts
    (`prompts`) in short.

    Args:
        finished: The run.
        records: Of `make_replies`, in its order.

    Raises:
        WarmlineError: a full disk.
    """
    context = {**finished.context(), "split": "test", "n": min(EXAMPLES, len(records)), "rule": RULE}
    shown = ("source", "conversation", "turn", "base", "tuned", "cut")
    prompts = [{**{key: one[key] for key in shown}, "user": one["messages"][-1]["content"]} for one in records[:PROMPTS_SHOWN]]
    examples = {"context": context, "examples": records[:EXAMPLES], "prompts": prompts}
    write_json(finished.folder.examples, examples)
    return examples


def _likeliest(probabilities: dict[str, float]) -> dict[str, float]:
    names = sorted(probabilities, key=lambda name: -probabilities[name])[:_SHOWN]
    return {name: round(probabilities[name], 4) for name in names}
