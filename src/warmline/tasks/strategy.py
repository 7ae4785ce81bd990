"""The support strategy of the assistant's next reply: ESConv's eight (Liu et al., ACL 2021, arXiv 2106.01144), read before the reply.

The reply gives its strategy away: with it in the input a bag of words says 50 to 57 % of ESConv's strategies, without it about 30 %, and
what honest models of these eight labels have published lies between 28 and 36 %. So a score far above what the earlier strategies tell is
a reason to look for a leak, and evaluation warns of one.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from pydantic import Field

from warmline.conversation import Conversation, Role, Split, Turn
from warmline.metrics.scores import compared, confusion, preference, single_label_statistics, with_intervals
from warmline.metrics.statistics import FloatArray, IntArray
from warmline.tasks.task import CONTEXT_TURNS, Evidence, HeadSettings, HeadTask, beside, calibrated

STRATEGIES: tuple[str, ...] = (
    "Question",
    "Restatement or Paraphrasing",
    "Reflection of feelings",
    "Self-disclosure",
    "Affirmation and Reassurance",
    "Providing Suggestions",
    "Information",
    "Others",
)
"""ESConv's eight support strategies, in the order of its official `strategy.json`."""

_HINTS: Mapping[str, str | None] = {
    "Question": "It asks one open question about what was just said.",
    "Restatement or Paraphrasing": "It says in fresh words what they mean, so that they can tell whether it was understood. No advice.",
    "Reflection of feelings": "It names the feeling behind what they said, and stays with it. No advice.",
    "Self-disclosure": "It shows that others feel so, too, and that they are not odd; you have no story of your own.",
    "Affirmation and Reassurance": "It says what they do well or may trust in, and why, from what they told. No advice.",
    "Providing Suggestions": "It offers one small thing that they could try, as an offer and not an order.",
    "Information": "It gives one useful fact, plainly.",
    "Others": None,
}
"""What a reply does that follows a strategy, as a note to whoever writes one."""

PROTOCOL = "8-way, reply unseen; earlier strategies are an input of the history baselines only"
WITH_EARLIER = "8-way, reply unseen; the head and its linear probe, too, see the annotated strategies of earlier replies"
AS_SERVED = "the same head on the replies to a user's turn, the only ones that serving can be asked for"
OWN_CHOICES = f"{AS_SERVED}, with its own probabilities in place of annotated earlier strategies"
NO_PREFERENCE = "its errors do not connect all strategies, so that no Bradley-Terry strengths follow from them"
HISTORY = ("history", "history_in_order")
LAST_STRATEGIES = 3
SUSPICIOUS = 0.45
MARGIN = 0.10


def leak_limit(history_accuracy: float) -> float:
    """Accuracy above which a leak is likely: 45 % on ESConv; where strategies follow each other more strictly than there, 10 points more
    than the best text-free predictor.

    Args:
        history_accuracy: Of the best predictor from earlier strategies and position, on the same rows.
    """
    return max(SUSPICIOUS, history_accuracy + MARGIN)


def leak_warning(name: str, accuracy: float, history_accuracy: float) -> str | None:
    """A line that says what to look for, or None.

    Args:
        name: Of the predictor.
        accuracy: On the eight strategies of the test split.
        history_accuracy: As for `leak_limit`.
    """
    limit = leak_limit(history_accuracy)
    if accuracy <= limit:
        return None
    return (
        f"{name}: {accuracy:.1%} is above {limit:.1%}, which honest strategy predictors do not reach (earlier strategies alone give "
        f"{history_accuracy:.1%}); look for a leak of the reply into its input"
    )


class StrategySettings(HeadSettings):
    """The strategy head."""

    earlier_strategies: bool = Field(
        False,
        description="It also sees which strategies the earlier replies had: as annotated in training; when serving, its own "
        "probabilities, since nobody annotates. A run of some hundred steps hardly learns to use them.",
    )


class StrategyTask(HeadTask):
    """How the reply to come supports, read before its first token."""

    name = "strategy"
    standard = True
    title = "support strategy of the reply to come"
    plural = "strategies"
    labels = STRATEGIES
    reads = "assistant"
    lead = "leans to"
    explanation = "How it meant to answer, settled before its first word."
    settings = StrategySettings

    def hint(self, label: str) -> str | None:
        """A sentence for each strategy; a program has no self to disclose."""
        return _HINTS[label]

    def missed(self, label: str, reply: str) -> bool:
        """A question that asks nothing."""
        return label == "Question" and "?" not in reply

    def sees_earlier(self, settings: HeadSettings) -> bool:
        """As configured."""
        return isinstance(settings, StrategySettings) and settings.earlier_strategies

    def score(self, evidence: Evidence) -> dict[str, Any]:
        """8-way, with preference bias and warnings of a leak."""
        rows = {split: strategy_rows(found) for split, found in evidence.conversations.items()}
        found = score_strategy(rows, evidence.logits, _baselines(rows, evidence), evidence.seed, evidence.served)
        if evidence.hidden is not None:
            found["hidden_reply"] = evidence.hidden._asdict()
            if (warning := evidence.hidden.warning(self.name)) is not None:
                found["leak_warnings"].append(warning)
        return found

    def as_served(self, scores: dict[str, Any]) -> dict[str, Any] | None:
        """Where a user has just spoken."""
        served: dict[str, Any] | None = scores.get("own_choices")
        return served

    def warnings(self, scores: dict[str, Any]) -> list[str]:
        """Of a leak."""
        lines: list[str] = scores.get("leak_warnings", [])
        return lines


class StrategyRows(NamedTuple):
    """Supporter turns of one split of ESConv.

    Attributes:
        targets: [rows], places in STRATEGIES.
        dialogues: [rows], which conversation a row belongs to.
        after: [rows], who spoke last before the reply; None where it opens the dialogue.
        contexts: [rows], the last turns before the reply.
        history: [rows, features], how often each strategy was used before, and the turn's position. No text.
        history_in_order: [rows, features], that and the last three strategies in order, and whether the supporter spoke last.
    """

    targets: IntArray
    dialogues: IntArray
    after: list[Role | None]
    contexts: list[str]
    history: FloatArray
    history_in_order: FloatArray


def strategy_rows(conversations: Sequence[Conversation]) -> StrategyRows:
    """One row for each labelled supporter turn."""
    targets, dialogues, after, contexts, history, in_order = [], [], [], [], [], []
    for number, conversation in enumerate(conversations):
        used: list[int] = []
        for at, turn in enumerate(conversation.turns):
            if not (label := turn.labels.get("strategy")):
                continue
            before = conversation.turns[:at]
            after.append(before[-1].role if before else None)
            contexts.append(" ".join(one.text for one in before[-CONTEXT_TURNS:]))
            history.append(_history(used, at))
            in_order.append(np.concatenate([history[-1], _in_order(used, before)]))
            used.append(STRATEGIES.index(label[0]))
            targets.append(used[-1])
            dialogues.append(number)
    return StrategyRows(
        np.asarray(targets, dtype=np.int64),
        np.asarray(dialogues, dtype=np.int64),
        after,
        contexts,
        np.asarray(history),
        np.asarray(in_order),
    )


def _history(used: list[int], position: int) -> FloatArray:
    return np.concatenate([np.bincount(used, minlength=len(STRATEGIES)), [position]]).astype(np.float64)


def _in_order(used: list[int], before: Sequence[Turn]) -> FloatArray:
    last = np.zeros((LAST_STRATEGIES, len(STRATEGIES)))
    for back, strategy in enumerate(reversed(used[-LAST_STRATEGIES:])):
        last[back, strategy] = 1
    shares = np.bincount(used, minlength=len(STRATEGIES)) / max(len(used), 1)
    position = [np.log1p(len(before)), 1 / (1 + len(before)), float(bool(before) and before[-1].role == "assistant")]
    return np.concatenate([last.ravel(), shares, position])


Rows = Mapping[Split, StrategyRows]
Logits = Mapping[Split, FloatArray]


def _baselines(rows: Rows, evidence: Evidence) -> dict[str, Any]:
    """The text-free histories (earlier strategies and position), TF-IDF of the last turns, and the linear probe."""
    if evidence.inputs is None:
        return {}
    from warmline.metrics.baselines import Fitted, cached, fit_dense, fit_text, text_features

    classes, targets = len(STRATEGIES), {split: one.targets for split, one in rows.items()}

    def fit() -> dict[str, Fitted]:
        texts = text_features({split: one.contexts for split, one in rows.items()}, pieces=False)
        return {
            "history": fit_dense({split: one.history for split, one in rows.items()}, targets, classes),
            "history_in_order": fit_dense({split: one.history_in_order for split, one in rows.items()}, targets, classes),
            "tfidf": fit_text(texts, targets, classes),
        }

    return {**cached("strategy", evidence.data, fit), "linear_probe": fit_dense(evidence.inputs, targets, classes)}


def score_strategy(
    rows: Rows, logits: Logits, baselines: Mapping[str, Any], seed: int, by_own_choices: FloatArray | None = None
) -> dict[str, Any]:
    """Scores of head and baselines.

    Args:
        rows: Train, valid and test.
        logits: The head's on valid and test, [rows, 8].
        baselines: Fitted on train.
        seed: Of the bootstrap.
        by_own_choices: [test rows, 8], of a head that sees earlier strategies, with its own in place of the annotated; None for one that
            sees none.

    Returns:
        `own_choices` is the head as when serving, on the rows that serving can be asked for; `leak_warnings` holds a line for each
        predictor whose accuracy is too good to be honest.
    """
    test = rows["test"]
    truth, own, clusters = test.targets, logits["test"], test.dialogues

    def told(probabilities: FloatArray) -> dict[str, Any]:
        return {
            **with_intervals(single_label_statistics(truth, probabilities), clusters, seed),
            "preference": preferences(truth, probabilities.argmax(axis=1)),
        }

    found: dict[str, Any] = {
        "protocol": PROTOCOL if by_own_choices is None else WITH_EARLIER,
        "dialogues": len(np.unique(clusters)),
        **told(own),
        "own_choices": _as_served(test, own, by_own_choices, seed),
        **beside(truth, own, rows["train"].targets, baselines, STRATEGIES, clusters, seed, told),
        "calibration": calibrated(logits, {split: rows[split].targets for split in logits}),
    }
    found["leak_warnings"] = leak_warnings(found)
    return found


def _as_served(test: StrategyRows, annotated: FloatArray, by_own_choices: FloatArray | None, seed: int) -> dict[str, Any]:
    """The head where a user has just spoken, and how many other rows there are; its gain from annotation on those same rows."""
    asked = np.asarray([role == "user" for role in test.after])
    dialogues, said = test.dialogues[asked], annotated if by_own_choices is None else by_own_choices
    told, served = (single_label_statistics(test.targets[asked], logits[asked]) for logits in (annotated, said))
    return {
        "protocol": AS_SERVED if by_own_choices is None else OWN_CHOICES,
        "left_out": {
            "follow the supporter's own message": test.after.count("assistant"),
            "open a dialogue": test.after.count(None),
        },
        **with_intervals(served, dialogues, seed),
        "head_minus_this": compared(told, served, dialogues, seed),
    }


def leak_warnings(scores: dict[str, Any]) -> list[str]:
    """A line for the head and for each baseline that reads text, where it is too good to be honest.

    Args:
        scores: With `accuracy` and `baselines`, whose histories give the measure; without them nothing is said.
    """
    histories = [scores["baselines"][name]["accuracy"] for name in HISTORY if name in scores["baselines"]]
    if not histories:
        return []
    predictors = {"strategy head": scores, **{name: one for name, one in scores["baselines"].items() if name not in HISTORY}}
    lines = (leak_warning(name, one["accuracy"], max(histories)) for name, one in predictors.items())
    return [line for line in lines if line is not None]


def preferences(truth: IntArray, guess: IntArray) -> dict[str, Any]:
    """Preference bias and each strategy's preference (mean 1), or null and the reason."""
    found = preference(confusion(truth, guess, len(STRATEGIES)))
    if found is None:
        return {"bias": None, "strengths": None, "absent": NO_PREFERENCE}
    return {"bias": found.bias, "strengths": dict(zip(STRATEGIES, found.strengths.tolist(), strict=True))}
