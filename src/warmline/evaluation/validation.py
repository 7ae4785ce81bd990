"""A run's heads on the validation splits, for choosing between settings: `results/validation.json`. Nothing here looks at a test split."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit

from warmline.data.encoding import encode_source
from warmline.data.labels import EMOTIONS, EMOTIONS_AND_NEUTRAL, STRATEGIES
from warmline.data.sources import enabled_sources
from warmline.evaluation.baselines import best_thresholds
from warmline.evaluation.finished import FinishedRun
from warmline.evaluation.heads import HeadPredictions, predict
from warmline.evaluation.statistics import IntArray, macro_f1, multilabel_macro_f1, point
from warmline.runs import write_json
from warmline.training.curves import read_metrics

NOTE_28 = "thresholds were chosen on the same validation rows, so emotion_28_macro_f1 flatters; compare it only with itself"


def score_validation(path: Path, changes: Sequence[str] = ()) -> dict[str, Any]:
    """Score both heads on every validation row, and repeat the last validation losses of the training.

    Args:
        path: A finished run.
        changes: What this run changes in the study's configuration, for the record.

    Returns:
        What was written: `scores`, null where a head or source was off.

    Raises:
        WarmlineError: an unfinished run, missing data.
    """
    finished = FinishedRun.open(path)
    config = finished.config
    scores: dict[str, Any] = {}
    for source in enabled_sources(config.data):
        if source.name not in ("goemotions", "esconv") or not {"emotion", "strategy"} & set(source.objectives):
            continue
        encoded = encode_source(source, "valid", config.data, finished.template)
        said = predict(finished.model, [encoded], finished.place, config.pass_tokens)
        scores |= emotion_scores(said) if source.name == "goemotions" else strategy_scores(said)
    lines = read_metrics(finished.folder)
    last = next(line for line in reversed(lines) if line["kind"] == "validation")
    steps = [line for line in lines if line["kind"] == "train"]
    result = {
        "context": {**finished.context(), "split": "valid", "note": NOTE_28},
        "changes": list(changes),
        "scores": {**scores, "lm": last["lm"], "safety_kl": last["safety"], "task_kl": last["task_kl"]},
        "steps": len(steps),
        "seconds": sum(line["seconds"] for line in steps),
        "tokens": sum(line["tokens"] for line in steps),
    }
    write_json(finished.folder.results / "validation.json", result)
    return result


def emotion_scores(said: HeadPredictions) -> dict[str, float | None]:
    """Accuracy and macro-F1 over rows whose only label is an emotion; of a head with 28 outputs, macro-F1 over all rows too."""
    labels = said.emotion_targets.numpy().astype(bool)
    logits = said.emotion_logits.double().numpy()
    single = (labels.sum(axis=1) == 1) & ~labels[:, len(EMOTIONS)]
    truth, guess = labels[single].argmax(axis=1), logits[single, : len(EMOTIONS)].argmax(axis=1)
    found = {f"emotion_{name}": value for name, value in _scores(truth, guess, len(EMOTIONS)).items()}
    if logits.shape[1] == len(EMOTIONS_AND_NEUTRAL):
        chances = expit(logits)
        found["emotion_28_macro_f1"] = point(multilabel_macro_f1(labels, chances >= best_thresholds(chances, labels)), len(labels))
    return found


def strategy_scores(said: HeadPredictions) -> dict[str, float | None]:
    """Accuracy and macro-F1, with annotated earlier strategies where the head sees them, and (`own`) with the head's own."""
    truth = said.strategy_targets.numpy()
    guesses = {"strategy": said.strategy_logits, "strategy_own": said.strategy_by_own_choices}
    return {
        f"{kind}_{name}": value
        for kind, logits in guesses.items()
        for name, value in _scores(truth, logits.argmax(dim=1).numpy(), len(STRATEGIES)).items()
    }


def _scores(truth: IntArray, guess: IntArray, classes: int) -> dict[str, float | None]:
    return {"accuracy": float(np.mean(truth == guess)), "macro_f1": point(macro_f1(truth, guess, classes), len(truth))}
