"""Replies of base and tuned model on held-out turns, beside the human's: how long, how varied, and which strategy they seem to show.

No model can say honestly which strategy a reply shows. What is used is a bag of words fitted on ESConv's supporter turns (reply to
strategy); its own accuracy on test replies stands beside its counts, and it reads the human's replies as well, so that like is compared
with like.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from warmline.companion import Generated
from warmline.conversation import Conversation, Split
from warmline.data.labels import STRATEGIES
from warmline.data.template import Message, as_messages
from warmline.evaluation.compared import cut_off, too_many_cut
from warmline.evaluation.rows import StrategyRows
from warmline.metrics.baselines import reply_judge
from warmline.metrics.statistics import cluster_bootstrap, difference, weighted_mean, wilson
from warmline.model.backbone import Sampling

PROTOCOL = "one reply after a user's turn of a held-out conversation, the same turns for base and tuned, greedy"
JUDGE = "TF-IDF + logistic regression from the text of ESConv supporter turns to their strategy; a rough guess, see its accuracy"
SPEAKERS = ("human", "base", "tuned")


class Prompt(NamedTuple):
    """A held-out turn.

    Attributes:
        source: Which data set.
        conversation: Its id there.
        turn: Place of the reply in it.
        messages: All before the reply, ending with the user's.
        human: The reply that was given.
    """

    source: str
    conversation: str
    turn: int
    messages: list[Message]
    human: str


def draw_prompts(conversations: Mapping[str, Sequence[Conversation]], number: int, seed: int) -> list[Prompt]:
    """Seeded held-out turns, the same for every run with these data: sources in turn, each conversation at most once.

    Args:
        conversations: Of each source's test split.
        number: How many at most.
        seed: Of the draw.
    """
    random = np.random.default_rng([seed, number])
    queues = []
    for source, found in conversations.items():
        shuffled = [found[at] for at in random.permutation(len(found))]
        queues.append(_prompts(source, shuffled, random))
    prompts: list[Prompt] = []
    while queues and len(prompts) < number:
        queue = queues.pop(0)
        prompt = next(queue, None)
        if prompt is not None:
            prompts.append(prompt)
            queues.append(queue)
    return prompts


def _prompts(source: str, conversations: Sequence[Conversation], random: np.random.Generator) -> Iterator[Prompt]:
    for conversation in conversations:
        turns = conversation.turns
        places = [at for at in range(1, len(turns)) if turns[at].role == "assistant" and turns[at - 1].role == "user"]
        if places:
            at = int(random.choice(places))
            yield Prompt(source, conversation.id, at, as_messages(conversation)[:at], turns[at].text)


def score_replies(
    prompts: Sequence[Prompt],
    base: Sequence[Generated],
    tuned: Sequence[Generated],
    sampling: Sampling,
    rows: Mapping[Split, StrategyRows] | None,
    seed: int,
) -> dict[str, Any]:
    """Figures of each speaker, and every reply.

    Args:
        prompts: Those that were answered, at least one.
        base: Its replies.
        tuned: Its replies.
        sampling: Of both.
        rows: ESConv's, for the strategy judge; None where it is not enabled.
        seed: Of the bootstrap.
    """
    texts = {"human": [one.human for one in prompts], "base": [one.text for one in base], "tuned": [one.text for one in tuned]}
    cut = {"base": [one.cut for one in base], "tuned": [one.cut for one in tuned]}
    speakers: dict[str, dict[str, Any]] = {}
    for speaker in SPEAKERS:
        speakers[speaker] = describe_replies(texts[speaker])
        if speaker in cut:
            speakers[speaker]["cut_off"] = cut_off(cut[speaker])
    found: dict[str, Any] = {"protocol": PROTOCOL, "decoding": sampling._asdict(), "n": len(prompts), "speakers": speakers}
    words = {speaker: [len(text.split()) for text in texts[speaker]] for speaker in SPEAKERS}
    if reason := too_many_cut(cut, sampling.max_new_tokens):
        found["tuned_minus_base_words"] = {"value": None, "interval": None, "reason": reason}
    elif len(prompts) > 1:
        change = difference(weighted_mean(words["tuned"]), weighted_mean(words["base"]))
        found["tuned_minus_base_words"] = {
            "value": float(np.mean(words["tuned"]) - np.mean(words["base"])),
            "interval": cluster_bootstrap(change, np.arange(len(prompts)), seed),
        }
    shown: dict[str, list[str]] = {}
    if rows is None:
        found |= {"strategy_judge": None, "absent": {"strategy_judge": "ESConv is not enabled: nothing to fit it on"}}
    else:
        judge = reply_judge(rows["train"].replies, rows["train"].targets)
        right = int((judge.predict(rows["test"].replies) == rows["test"].targets).sum())
        n = len(rows["test"].targets)
        found["strategy_judge"] = {"what": JUDGE, "test_accuracy": right / n, "interval": wilson(right, n), "n": n}
        for speaker in SPEAKERS:
            shown[speaker] = [STRATEGIES[at] for at in judge.predict(texts[speaker])]
            counts = Counter(shown[speaker])
            speakers[speaker]["strategies_shown"] = {strategy: counts[strategy] for strategy in STRATEGIES}
    found["examples"] = [
        {
            "source": prompt.source,
            "conversation": prompt.conversation,
            "turn": prompt.turn,
            "user": prompt.messages[-1]["content"],
            **{speaker: texts[speaker][at] for speaker in SPEAKERS},
            **({"strategies_shown": {speaker: shown[speaker][at] for speaker in SPEAKERS}} if shown else {}),
        }
        for at, prompt in enumerate(prompts)
    ]
    return found


def describe_replies(texts: Sequence[str]) -> dict[str, Any]:
    """Length and variety of a speaker's replies.

    Args:
        texts: At least one.

    Returns:
        `words_mean` and `words_median` (split at white space); `distinct_1` and `distinct_2`, different n-grams over all n-grams of all
        replies together, without case (longer replies have lower values: compare speakers of like length); `repeated`, replies that an
        earlier one already said word for word; `empty`.
    """
    words = [text.lower().split() for text in texts]
    lengths = [len(one) for one in words]
    return {
        "words_mean": float(np.mean(lengths)),
        "words_median": float(np.median(lengths)),
        "distinct_1": distinct(words, 1),
        "distinct_2": distinct(words, 2),
        "repeated": len(texts) - len(set(texts)),
        "empty": sum(not text for text in texts),
    }


def distinct(words: Sequence[Sequence[str]], n: int) -> float | None:
    """Different n-grams over all n-grams (Li et al. 2016); None where no reply has n words."""
    grams = [tuple(one[at : at + n]) for one in words for at in range(len(one) - n + 1)]
    return len(set(grams)) / len(grams) if grams else None
