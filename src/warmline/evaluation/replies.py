"""Replies of base and tuned model on held-out turns, beside the human's: how they are made, how long and how varied they are, and
which label they seem to show; nothing is compared where too many were cut.

No model can say honestly which label (an ESConv strategy) a reply shows. What is used is a bag of words fitted on people's labelled
replies; its own accuracy on test replies stands beside its counts, and it reads the human's replies as well, so that like is compared with
like.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from warmline.companion import Companion, Generated
from warmline.conversation import Conversation, Split
from warmline.data.template import Message
from warmline.metrics.baselines import reply_judge
from warmline.metrics.statistics import cluster_bootstrap, difference, weighted_mean, wilson
from warmline.model.backbone import Sampling
from warmline.progress import counted
from warmline.tasks.task import HeadTask

PROTOCOL = "one reply after a user's turn of a held-out conversation, drawn by rule (replies.jsonl), the same for base and tuned, greedy"
JUDGE = "TF-IDF + logistic regression from the text of people's replies to their {name}; a rough guess, see its accuracy"
NO_JUDGE = "no enabled source has its labels: nothing to fit it on"
SPEAKERS = ("human", "base", "tuned")


class ReplyJudge(NamedTuple):
    """Guesses from a reply's text which label of a head it shows.

    Attributes:
        task: The head's.
        model: From texts to places in the task's labels.
        right: Test replies of people on which it is right.
        n: Test replies of people.
    """

    task: HeadTask
    model: Any
    right: int
    n: int

    @classmethod
    def fit(cls, task: HeadTask, conversations: Mapping[Split, Sequence[Conversation]]) -> "ReplyJudge":
        """Fit it on train, and try it on test.

        Args:
            task: One whose labels assistants' turns carry.
            conversations: Of a source that carries them.
        """
        turns = {
            split: [(turn.text, turn.labels[task.name]) for one in conversations[split] for turn in one.turns if turn.labels.get(task.name)]
            for split in ("train", "test")
        }
        texts = {split: [text for text, _ in found] for split, found in turns.items()}
        truth = {split: np.asarray([task.labels.index(labels[0]) for _, labels in found]) for split, found in turns.items()}
        model = reply_judge(texts["train"], truth["train"])
        return cls(task, model, int((model.predict(texts["test"]) == truth["test"]).sum()), len(truth["test"]))

    def labels(self, texts: Sequence[str]) -> list[str]:
        """Its guess on each text."""
        return [self.task.labels[at] for at in self.model.predict(texts)]

    def described(self) -> dict[str, Any]:
        """What it is, and how far it can be trusted."""
        share = {"test_accuracy": self.right / self.n, "interval": wilson(self.right, self.n), "n": self.n}
        return {"what": JUDGE.format(name=self.task.name), **share}


def score_replies(
    records: Sequence[dict[str, Any]], sampling: Sampling, judges: Mapping[str, ReplyJudge | None], seed: int
) -> dict[str, Any]:
    """Figures of each speaker, and every reply.

    Args:
        records: As `qualitative.make_replies` gives them, at least one.
        sampling: Of both models' replies.
        judges: By the name of each head whose label a reply may show; None where no enabled source has labelled replies.
        seed: Of the bootstrap.
    """
    texts = {speaker: [one[key] for one in records] for speaker, key in zip(SPEAKERS, ("reference", "base", "tuned"), strict=True)}
    cut = {speaker: [one["cut"][speaker] for one in records] for speaker in ("base", "tuned")}
    speakers: dict[str, dict[str, Any]] = {}
    for speaker in SPEAKERS:
        speakers[speaker] = describe_replies(texts[speaker])
        if speaker in cut:
            speakers[speaker]["cut_off"] = cut_off(cut[speaker])
    found: dict[str, Any] = {"protocol": PROTOCOL, "decoding": sampling._asdict(), "n": len(records), "speakers": speakers}
    words = {speaker: [len(text.split()) for text in texts[speaker]] for speaker in SPEAKERS}
    if reason := too_many_cut(cut, sampling.max_new_tokens):
        found["tuned_minus_base_words"] = {"value": None, "interval": None, "reason": reason}
    elif len(records) > 1:
        change = difference(weighted_mean(words["tuned"]), weighted_mean(words["base"]))
        found["tuned_minus_base_words"] = {
            "value": float(np.mean(words["tuned"]) - np.mean(words["base"])),
            "interval": cluster_bootstrap(change, np.arange(len(records)), seed),
        }
    shown: dict[str, dict[str, list[str]]] = {}
    for head, judge in judges.items():
        if judge is None:
            found[f"{head}_judge"] = None
            found.setdefault("absent", {})[f"{head}_judge"] = NO_JUDGE
            continue
        found[f"{head}_judge"] = judge.described()
        shown[judge.task.plural] = {speaker: judge.labels(texts[speaker]) for speaker in SPEAKERS}
        for speaker in SPEAKERS:
            counts = Counter(shown[judge.task.plural][speaker])
            speakers[speaker][f"{judge.task.plural}_shown"] = {label: counts[label] for label in judge.task.labels}
    found["examples"] = [
        {
            **{key: record[key] for key in ("source", "conversation", "turn")},
            "user": record["messages"][-1]["content"],
            **{speaker: texts[speaker][at] for speaker in SPEAKERS},
            **{f"{kind}_shown": {speaker: labels[speaker][at] for speaker in SPEAKERS} for kind, labels in shown.items()},
        }
        for at, record in enumerate(records)
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


MOST_CUT = 0.1
"""Share of a speaker's replies that may be cut. Above it the replies say how much room there was, and not how the speaker talks, so that no
difference and no interval is made from them."""


def answer_all(
    companion: Companion, conversations: Sequence[list[Message]], sampling: Sampling, base: bool = False, country: str | None = None
) -> list[Generated]:
    """The next reply of each conversation, in their order.

    Args:
        companion: Of the run.
        conversations: As for `Companion.replies`.
        sampling: How they are drawn.
        base: Let the untuned base answer.
        country: As for `Companion.replies`.
    """
    with counted(len(conversations), f"replies of the {'base' if base else 'tuned model'}") as ended:
        return companion.replies(list(conversations), sampling, country, base=base, ended=ended)


def cut_off(cut: Sequence[bool]) -> dict[str, Any]:
    """How many of a speaker's replies were cut: `n`, `of`, and Wilson's `interval` of the share, None where there is no reply."""
    return {"n": sum(cut), "of": len(cut), "interval": list(wilson(sum(cut), len(cut))) if cut else None}


def too_many_cut(cut: Mapping[str, Sequence[bool]], longest: int) -> str | None:
    """Why these speakers' replies are not compared; None where at most `MOST_CUT` of each one's were cut.

    Args:
        cut: By speaker, whether each reply was cut.
        longest: Tokens at which they were.
    """
    many = [f"{sum(each)} of {len(each)} {speaker} replies" for speaker, each in cut.items() if sum(each) > MOST_CUT * len(each)]
    return f"{' and '.join(many)} were cut at {longest:,} tokens, more than {MOST_CUT * 100:.0f} %" if many else None
