"""The emotion of a user's turn: GoEmotions' 27 emotions, or all 28 labels with neutral (Demszky et al., ACL 2020, arXiv 2005.00547).

27 classes stand under one softmax, and a turn's several labels share the target. 28 labels are sigmoids, each with an answer of its own.
Evaluation knows both protocols: 27-way over rows whose only label is an emotion, and all 28 labels over every row.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from warmline.conversation import Split
from warmline.metrics.scores import compared, multi_label_statistics, per_class, single_label_statistics, with_intervals
from warmline.metrics.statistics import BoolArray, FloatArray, Statistic
from warmline.settings import Section
from warmline.tasks.task import NO_CONTEXT, Evidence, HeadTask, LabelRows, beside, calibrated, in_context_scores, label_rows

EMOTIONS: tuple[str, ...] = (
    "admiration",
    "amusement",
    "anger",
    "annoyance",
    "approval",
    "caring",
    "confusion",
    "curiosity",
    "desire",
    "disappointment",
    "disapproval",
    "disgust",
    "embarrassment",
    "excitement",
    "fear",
    "gratitude",
    "grief",
    "joy",
    "love",
    "nervousness",
    "optimism",
    "pride",
    "realization",
    "relief",
    "remorse",
    "sadness",
    "surprise",
)
"""GoEmotions' 27 emotions; a label's place is its official id."""

NEUTRAL = "neutral"
"""GoEmotions' id 27: a label of the 28-label protocol only, never an emotion class."""

EMOTIONS_AND_NEUTRAL: tuple[str, ...] = (*EMOTIONS, NEUTRAL)

SINGLE = "27-way, rows whose only official label is an emotion"
MULTI = "28 labels with neutral, all rows; each label's threshold has the highest F1 on validation"
NO_MULTI = "the head has 27 outputs under one softmax; train with data.sources.goemotions.labels: 28 for this protocol"
NO_CALIBRATION = "a head of 28 sigmoids gives no distribution over the 27; its calibration stands under multi_label_28"

_FAMILIES: Mapping[str, tuple[str, ...]] = {
    "tender": ("love", "caring", "admiration", "gratitude", "approval"),
    "bright": ("joy", "amusement", "excitement", "pride", "optimism", "relief"),
    "low": ("sadness", "grief", "disappointment", "remorse"),
    "uneasy": ("fear", "nervousness", "embarrassment"),
    "heated": ("anger", "annoyance", "disapproval", "disgust"),
    "stirred": ("surprise", "curiosity", "confusion", "realization", "desire"),
    "still": ("neutral",),
}


class EmotionTask(HeadTask):
    """What a user feels, read at the end of the turn that says so."""

    name = "emotion"
    standard = True
    title = "emotion of the user's turn"
    plural = "emotions"
    labels = EMOTIONS_AND_NEUTRAL
    reads = "user"
    alone = True
    lead = "heard"
    explanation = "What it heard in your words. It is often wrong."
    families: Mapping[str, str] = {label: family for family, labels in _FAMILIES.items() for label in labels}

    @property
    def classes(self) -> int:
        """Neutral is no emotion."""
        return len(EMOTIONS)

    def outputs(self, sources: Mapping[str, Section]) -> tuple[str, ...]:
        """27 or 28, as GoEmotions' `labels` says."""
        return self.labels[: getattr(sources.get("goemotions"), "labels", len(EMOTIONS))]

    def independent(self, outputs: int) -> bool:
        """28 labels are."""
        return outputs == len(EMOTIONS_AND_NEUTRAL)

    def score(self, evidence: Evidence) -> dict[str, Any]:
        """Both protocols."""
        rows = {split: label_rows(self, found) for split, found in evidence.conversations.items()}
        single, multi = _baselines(rows, evidence)
        return {
            "single_label_27": score_single(rows, evidence.logits, single, evidence.seed, evidence.served),
            "multi_label_28": score_multi(rows, evidence.logits, multi, evidence.seed, evidence.served),
        }

    def protocols(self, scores: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """27-way, which reports lead with, and all labels."""
        return {"emotion, 27-way": scores["single_label_27"], "emotion, 28 labels": scores["multi_label_28"]}


Rows = Mapping[Split, LabelRows]
Logits = Mapping[Split, FloatArray]


def _baselines(rows: Rows, evidence: Evidence) -> tuple[dict[str, Any], dict[str, Any]]:
    """TF-IDF and the linear probe, in the 27-way and in the 28-label protocol."""
    if evidence.inputs is None:
        return {}, {}
    from warmline.metrics.baselines import Fitted, cached, fit_dense, fit_labels, fit_text, scaled_features, text_features

    kept = {split: one.single(len(EMOTIONS)) for split, one in rows.items()}
    targets = {split: one.targets(len(EMOTIONS)) for split, one in rows.items()}

    def fit() -> dict[str, Fitted]:
        alone = {split: [text for text, single in zip(one.texts, kept[split], strict=True) if single] for split, one in rows.items()}
        single = fit_text(text_features(alone, pieces=True), targets, len(EMOTIONS))
        everything = text_features({split: one.texts for split, one in rows.items()}, pieces=True)
        return {"single": single, "multi": fit_labels(everything, rows["train"].labels, single.c, sparse=True)}

    tfidf, inputs = cached("emotion", evidence.data, fit), evidence.inputs
    probe = fit_dense({split: inputs[split][single] for split, single in kept.items()}, targets, len(EMOTIONS))
    labelled = fit_labels(scaled_features(inputs), rows["train"].labels, probe.c, sparse=False)
    return {"tfidf": tfidf["single"], "linear_probe": probe}, {"tfidf": tfidf["multi"], "linear_probe": labelled}


def score_single(
    rows: Rows, logits: Logits, baselines: Mapping[str, Any], seed: int, in_context: FloatArray | None = None
) -> dict[str, Any]:
    """The 27-way protocol.

    Args:
        rows: Train, valid and test, as loaded with neutral.
        logits: The head's on valid and test, [rows, 27 or 28]; with 28 the likeliest of the 27 emotions is the answer.
        baselines: Fitted on the single-label rows of train.
        seed: Of the bootstrap.
        in_context: The head's on test behind earlier turns, [rows, 27 or 28]; None where there are none.
    """
    test = rows["test"]
    kept = {split: one.single(len(EMOTIONS)) for split, one in rows.items()}
    targets = {split: one.targets(len(EMOTIONS)) for split, one in rows.items()}
    truth, unseen = targets["test"], ~test.seen(rows["train"])[kept["test"]]
    own = logits["test"][kept["test"]][:, : len(EMOTIONS)]
    clusters = np.arange(len(truth))

    def both(probabilities: FloatArray) -> dict[str, Any]:
        return _both(lambda some: single_label_statistics(truth[some], probabilities[some]), unseen, seed)

    found: dict[str, Any] = {"protocol": SINGLE, **both(own)}
    absent = {}
    if in_context is not None:
        served = in_context[kept["test"]][:, : len(EMOTIONS)]
        changed = served.argmax(axis=1) != own.argmax(axis=1)
        alone, behind = (single_label_statistics(truth, logits) for logits in (own, served))
        found["in_context"] = in_context_scores(alone, behind, changed, clusters, seed)
    else:
        found["in_context"], absent["in_context"] = None, NO_CONTEXT
    found |= beside(truth, own, targets["train"], baselines, EMOTIONS, clusters, seed, both)
    if logits["test"].shape[1] == len(EMOTIONS):
        found["calibration"] = calibrated({split: one[kept[split]] for split, one in logits.items()}, targets)
    else:
        found["calibration"], absent["calibration"] = None, NO_CALIBRATION
    return {**found, **({"absent": absent} if absent else {})}


def score_multi(
    rows: Rows, logits: Logits, baselines: Mapping[str, Any], seed: int, in_context: FloatArray | None = None
) -> dict[str, Any]:
    """The 28-label protocol, arguments as for `score_single`; for a head with 27 outputs only the baselines, and why."""
    from scipy.special import expit

    from warmline.metrics.baselines import best_thresholds
    from warmline.metrics.calibration import fit_multilabel_temperature, multilabel_calibration

    test, valid = rows["test"], rows["valid"]
    truth, unseen = test.labels, ~test.seen(rows["train"])
    clusters = np.arange(len(truth))

    def both(guess: BoolArray) -> dict[str, Any]:
        return _both(lambda kept: multi_label_statistics(truth[kept], guess[kept]), unseen, seed)

    found: dict[str, Any] = {"protocol": MULTI, "n": len(truth), "accuracy": None, "macro_f1": None, "weighted_f1": None}
    head: dict[str, Statistic] | None = None
    if logits["test"].shape[1] == len(EMOTIONS_AND_NEUTRAL):
        thresholds = best_thresholds(expit(logits["valid"]), valid.labels)
        guess = np.asarray(expit(logits["test"]) >= thresholds)
        head = multi_label_statistics(truth, guess)
        found |= both(guess)
        found["per_class"] = per_class(truth, guess, EMOTIONS_AND_NEUTRAL)
        found["thresholds"] = dict(zip(EMOTIONS_AND_NEUTRAL, thresholds.tolist(), strict=True))
        if in_context is not None:
            served = expit(in_context) >= thresholds
            changed = (served != guess).any(axis=1)
            found["in_context"] = in_context_scores(head, multi_label_statistics(truth, served), changed, clusters, seed)
        else:
            found["in_context"], found["absent"] = None, {"in_context": NO_CONTEXT}
        temperature = fit_multilabel_temperature(logits["valid"], valid.labels)
        found["calibration"] = multilabel_calibration(logits["test"], truth, temperature)
    else:
        found["absent"] = {"head": NO_MULTI}
    found["baselines"] = {}
    for name, fitted in baselines.items():
        guess = np.asarray(fitted.test >= best_thresholds(fitted.valid, valid.labels))
        found["baselines"][name] = {"c": fitted.c, **both(guess)}
        if head is not None:
            found["baselines"][name]["head_minus_this"] = compared(head, multi_label_statistics(truth, guess), clusters, seed)
    return found


def _both(statistics: Callable[[BoolArray], dict[str, Statistic]], unseen: BoolArray, seed: int) -> dict[str, Any]:
    """All test rows, and those whose text does not also stand in train.

    Args:
        statistics: Of the rows that are kept, from [rows].
        unseen: [rows].
        seed: Of the bootstrap.
    """
    everything = np.ones_like(unseen)
    return {
        **with_intervals(statistics(everything), np.arange(len(unseen)), seed),
        "without_seen_texts": {
            "left_out": int((~unseen).sum()),
            **with_intervals(statistics(unseen), np.arange(int(unseen.sum())), seed),
        },
    }
