"""The strategy head on ESConv's test split, beside what it must beat, with preference bias and a watch for leaks."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from warmline.data.conversation import Split
from warmline.data.labels import STRATEGIES
from warmline.evaluation.baselines import Fitted, cached, fit_dense, fit_probe, fit_text, scaled_features, text_features
from warmline.evaluation.calibration import calibration, fit_temperature
from warmline.evaluation.leak import leak_warning
from warmline.evaluation.preference import preference
from warmline.evaluation.rows import StrategyRows
from warmline.evaluation.scores import compared, confusion, per_class, single_label_statistics, with_intervals
from warmline.evaluation.statistics import BoolArray, FloatArray, IntArray

PROTOCOL = "8-way, reply unseen; earlier strategies are an input of the history baselines only"
WITH_EARLIER = "8-way, reply unseen; the head, too, sees the annotated strategies of earlier replies"
AS_SERVED = "the same head on the replies to a user's turn, the only ones that serving can be asked for"
OWN_CHOICES = f"{AS_SERVED}, with its own probabilities in place of annotated earlier strategies"
NO_PREFERENCE = "its errors do not connect all strategies, so that no Bradley-Terry strengths follow from them"
HISTORY = ("history", "history_in_order")

Rows = Mapping[Split, StrategyRows]
Logits = Mapping[Split, FloatArray]
Baselines = Mapping[str, Fitted]


def text_baselines(rows: Rows, checksums: Mapping[str, str]) -> Baselines:
    """The text-free histories and TF-IDF of the last turns, from the cache where the data are the same."""

    def fit() -> dict[str, Fitted]:
        return {
            "history": history_baseline(rows, in_order=False),
            "history_in_order": history_baseline(rows, in_order=True),
            "tfidf": text_baseline({split: one.contexts for split, one in rows.items()}, rows),
        }

    return cached("strategy", checksums, fit)


def history_baseline(rows: Rows, in_order: bool) -> Fitted:
    """Earlier strategies and position, no text: as counts, or with the last three in order as well."""
    features = scaled_features({split: one.history_in_order if in_order else one.history for split, one in rows.items()})
    return fit_dense(features, _targets(rows), len(STRATEGIES))


def text_baseline(texts: Mapping[Split, Sequence[str]], rows: Rows) -> Fitted:
    """TF-IDF of a text a row."""
    return fit_text(text_features(texts, pieces=False), _targets(rows), len(STRATEGIES))


def probe_baselines(rows: Rows, states: Mapping[Split, FloatArray]) -> Baselines:
    """The linear probe on the frozen base's states, [rows, hidden] a split."""
    return {"linear_probe": fit_probe(states, _targets(rows), len(STRATEGIES))}


def score_strategy(rows: Rows, logits: Logits, baselines: Baselines, seed: int, by_own_choices: FloatArray | None = None) -> dict[str, Any]:
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
    truth, own = test.targets, logits["test"]
    guess = own.argmax(axis=1)
    head = single_label_statistics(truth, own)
    found: dict[str, Any] = {
        "protocol": PROTOCOL if by_own_choices is None else WITH_EARLIER,
        "dialogues": len(np.unique(test.dialogues)),
        **with_intervals(head, test.dialogues, seed),
    }
    found["own_choices"] = _as_served(test, own, by_own_choices, seed)
    majority = int(np.bincount(rows["train"].targets, minlength=len(STRATEGIES)).argmax())
    always = np.tile(np.arange(len(STRATEGIES)) == majority, (len(truth), 1)).astype(float)
    found["majority"] = {"label": STRATEGIES[majority], **with_intervals(single_label_statistics(truth, always), test.dialogues, seed)}
    found["baselines"] = {
        name: {
            "c": fitted.c,
            **with_intervals(single_label_statistics(truth, fitted.test), test.dialogues, seed),
            "head_minus_this": compared(head, single_label_statistics(truth, fitted.test), test.dialogues, seed),
            "preference": preferences(truth, fitted.test.argmax(axis=1)),
        }
        for name, fitted in baselines.items()
    }
    found["per_class"] = per_class(_one_hot(truth), _one_hot(guess), STRATEGIES)
    found["labels"] = list(STRATEGIES)
    found["confusion"] = confusion(truth, guess, len(STRATEGIES)).tolist()
    found["preference"] = preferences(truth, guess)
    found["calibration"] = calibration(own, truth, fit_temperature(logits["valid"], rows["valid"].targets))
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


def _targets(rows: Rows) -> dict[Split, IntArray]:
    return {split: one.targets for split, one in rows.items()}


def _one_hot(classes: IntArray) -> BoolArray:
    return np.asarray(classes[:, None] == np.arange(len(STRATEGIES)))
