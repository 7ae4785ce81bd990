"""The emotion head on GoEmotions' test split, in both protocols, beside what it must beat."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import expit

from warmline.data.conversation import Split
from warmline.data.labels import EMOTIONS, EMOTIONS_AND_NEUTRAL
from warmline.evaluation.baselines import (
    Fitted,
    best_thresholds,
    cached,
    fit_labels,
    fit_probe,
    fit_text,
    scaled_features,
    text_features,
)
from warmline.evaluation.calibration import calibration, fit_multilabel_temperature, fit_temperature, multilabel_calibration
from warmline.evaluation.rows import EmotionRows
from warmline.evaluation.scores import compared, confusion, multi_label_statistics, per_class, single_label_statistics, with_intervals
from warmline.evaluation.statistics import BoolArray, FloatArray, IntArray, Statistic, weighted_mean

SINGLE = "27-way, rows whose only official label is an emotion"
MULTI = "28 labels with neutral, all rows; each label's threshold has the highest F1 on validation"
NO_MULTI = "the head has 27 outputs under one softmax; train with data.sources.goemotions.labels: 28 for this protocol"
IN_CONTEXT = "the same rows as when serving: each the user's last turn behind turns of a held-out dialogue, drawn by the seed"
NO_CONTEXT = "neither empathetic_dialogues nor esconv is enabled, so there are no earlier turns to stand before a comment"
NO_CALIBRATION = "a head of 28 sigmoids gives no distribution over the 27; its calibration stands under multi_label_28"

Rows = Mapping[Split, EmotionRows]
Logits = Mapping[Split, FloatArray]
Baselines = Mapping[str, Fitted]


def text_baselines(rows: Rows, checksums: Mapping[str, str]) -> tuple[Baselines, Baselines]:
    """TF-IDF in the 27-way and in the 28-label protocol, from the cache where the data are the same."""

    def fit() -> dict[str, Fitted]:
        targets = {split: _targets(one) for split, one in rows.items()}
        single = fit_text(text_features({split: _single_texts(one) for split, one in rows.items()}, pieces=True), targets, len(EMOTIONS))
        everything = text_features({split: one.texts for split, one in rows.items()}, pieces=True)
        return {"single": single, "multi": fit_labels(everything, rows["train"].labels, single.c, sparse=True)}

    found = cached("emotion", checksums, fit)
    return {"tfidf": found["single"]}, {"tfidf": found["multi"]}


def probe_baselines(rows: Rows, states: Mapping[Split, FloatArray]) -> tuple[Baselines, Baselines]:
    """The linear probe on the frozen base's states, [rows, hidden] a split, in both protocols."""
    targets = {split: _targets(one) for split, one in rows.items()}
    single = fit_probe({split: states[split][one.single] for split, one in rows.items()}, targets, len(EMOTIONS))
    multi = fit_labels(scaled_features(states), rows["train"].labels, single.c, sparse=False)
    return {"linear_probe": single}, {"linear_probe": multi}


def score_single(rows: Rows, logits: Logits, baselines: Baselines, seed: int, in_context: FloatArray | None = None) -> dict[str, Any]:
    """The 27-way protocol.

    Args:
        rows: Train, valid and test, as loaded with neutral.
        logits: The head's on valid and test, [rows, 27 or 28]; with 28 the likeliest of the 27 emotions is the answer.
        baselines: Fitted on the single-label rows of train.
        seed: Of the bootstrap.
        in_context: The head's on test behind earlier turns, [rows, 27 or 28]; None where there are none.
    """
    test = rows["test"]
    truth, unseen = _targets(test), ~test.seen(rows["train"])[test.single]
    own = logits["test"][test.single][:, : len(EMOTIONS)]
    guess = own.argmax(axis=1)
    clusters = np.arange(len(truth))
    head = single_label_statistics(truth, own)
    found: dict[str, Any] = {"protocol": SINGLE, **_both(truth, own, unseen, seed)}
    absent = {}
    if in_context is not None:
        served = in_context[test.single][:, : len(EMOTIONS)]
        changed = served.argmax(axis=1) != guess
        found["in_context"] = _in_context(head, single_label_statistics(truth, served), changed, seed)
    else:
        found["in_context"], absent["in_context"] = None, NO_CONTEXT
    majority = int(np.bincount(_targets(rows["train"]), minlength=len(EMOTIONS)).argmax())
    always = np.tile(np.arange(len(EMOTIONS)) == majority, (len(truth), 1)).astype(float)
    found["majority"] = {"label": EMOTIONS[majority], **_both(truth, always, unseen, seed)}
    found["baselines"] = {
        name: {
            "c": fitted.c,
            **_both(truth, fitted.test, unseen, seed),
            "head_minus_this": compared(head, single_label_statistics(truth, fitted.test), clusters, seed),
        }
        for name, fitted in baselines.items()
    }
    found["per_class"] = per_class(_one_hot(truth), _one_hot(guess), EMOTIONS)
    found["labels"] = list(EMOTIONS)
    found["confusion"] = confusion(truth, guess, len(EMOTIONS)).tolist()
    if logits["test"].shape[1] == len(EMOTIONS):
        valid = rows["valid"]
        found["calibration"] = calibration(own, truth, fit_temperature(logits["valid"][valid.single], _targets(valid)))
    else:
        found["calibration"], absent["calibration"] = None, NO_CALIBRATION
    return {**found, **({"absent": absent} if absent else {})}


def score_multi(rows: Rows, logits: Logits, baselines: Baselines, seed: int, in_context: FloatArray | None = None) -> dict[str, Any]:
    """The 28-label protocol, arguments as for `score_single`; for a head with 27 outputs only the baselines, and why."""
    test, valid = rows["test"], rows["valid"]
    truth, unseen = test.labels, ~test.seen(rows["train"])
    clusters = np.arange(len(truth))

    def guessed(fitted_valid: FloatArray, fitted_test: FloatArray) -> BoolArray:
        return np.asarray(fitted_test >= best_thresholds(fitted_valid, valid.labels))

    found: dict[str, Any] = {"protocol": MULTI, "n": len(truth), "accuracy": None, "macro_f1": None, "weighted_f1": None}
    head: dict[str, Statistic] | None = None
    if logits["test"].shape[1] == len(EMOTIONS_AND_NEUTRAL):
        guess = guessed(expit(logits["valid"]), expit(logits["test"]))
        head = multi_label_statistics(truth, guess)
        found |= _both_multi(truth, guess, unseen, seed)
        found["per_class"] = per_class(truth, guess, EMOTIONS_AND_NEUTRAL)
        thresholds = best_thresholds(expit(logits["valid"]), valid.labels)
        found["thresholds"] = dict(zip(EMOTIONS_AND_NEUTRAL, thresholds.tolist(), strict=True))
        if in_context is not None:
            served = expit(in_context) >= thresholds
            changed = (served != guess).any(axis=1)
            found["in_context"] = _in_context(head, multi_label_statistics(truth, served), changed, seed)
        else:
            found["in_context"], found["absent"] = None, {"in_context": NO_CONTEXT}
        temperature = fit_multilabel_temperature(logits["valid"], valid.labels)
        found["calibration"] = multilabel_calibration(logits["test"], truth, temperature)
    else:
        found["absent"] = {"head": NO_MULTI}
    found["baselines"] = {}
    for name, fitted in baselines.items():
        guess = guessed(fitted.valid, fitted.test)
        found["baselines"][name] = {"c": fitted.c, **_both_multi(truth, guess, unseen, seed)}
        if head is not None:
            found["baselines"][name]["head_minus_this"] = compared(head, multi_label_statistics(truth, guess), clusters, seed)
    return found


def _both(truth: IntArray, probabilities: FloatArray, unseen: BoolArray, seed: int) -> dict[str, Any]:
    """All test rows, and those whose text does not also stand in train."""
    kept = with_intervals(single_label_statistics(truth[unseen], probabilities[unseen]), np.arange(int(unseen.sum())), seed)
    return {
        **with_intervals(single_label_statistics(truth, probabilities), np.arange(len(truth)), seed),
        "without_seen_texts": {"left_out": int((~unseen).sum()), **kept},
    }


def _both_multi(truth: BoolArray, guess: BoolArray, unseen: BoolArray, seed: int) -> dict[str, Any]:
    kept = with_intervals(multi_label_statistics(truth[unseen], guess[unseen]), np.arange(int(unseen.sum())), seed)
    return {
        **with_intervals(multi_label_statistics(truth, guess), np.arange(len(truth)), seed),
        "without_seen_texts": {"left_out": int((~unseen).sum()), **kept},
    }


def _in_context(alone: Mapping[str, Statistic], served: Mapping[str, Statistic], changed: BoolArray, seed: int) -> dict[str, Any]:
    clusters = np.arange(len(changed))
    return {
        "protocol": IN_CONTEXT,
        **with_intervals({**served, "changed": weighted_mean(changed)}, clusters, seed),
        "head_minus_this": compared(alone, served, clusters, seed),
    }


def _targets(rows: EmotionRows) -> IntArray:
    return np.asarray(rows.labels[rows.single].argmax(axis=1))


def _single_texts(rows: EmotionRows) -> list[str]:
    return [text for text, single in zip(rows.texts, rows.single, strict=True) if single]


def _one_hot(classes: IntArray) -> BoolArray:
    return np.asarray(classes[:, None] == np.arange(len(EMOTIONS)))
