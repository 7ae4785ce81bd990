"""How well the saved heads do on the test splits, beside the majority class."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import accuracy_score, f1_score

from warmline.config import RunConfig
from warmline.data.conversation import Turn
from warmline.data.encoding import EncodedSource, encode_split
from warmline.data.labels import EMOTIONS, STRATEGIES
from warmline.data.mixture import Draw
from warmline.data.packing import collate, sequential_rows
from warmline.data.sources import enabled_sources, load_source
from warmline.evaluation.finished import FinishedRun
from warmline.model.multitask import MultiTaskModel
from warmline.runs import write_json
from warmline.training.device import Place

IntArray = npt.NDArray[np.int64]


class HeadPredictions(NamedTuple):
    """Logits and targets of both heads over a split.

    Attributes:
        emotion_logits: [emotion rows, classes].
        emotion_targets: [emotion rows, 28].
        strategy_logits: [strategy rows, 8].
        strategy_targets: [strategy rows].
    """

    emotion_logits: torch.Tensor
    emotion_targets: torch.Tensor
    strategy_logits: torch.Tensor
    strategy_targets: torch.Tensor


@torch.no_grad()
def predict(model: MultiTaskModel, sources: list[EncodedSource], place: Place, row_tokens: int) -> HeadPredictions:
    """Run the heads over every conversation, in order.

    Args:
        model: In evaluation mode.
        sources: Encoded split.
        place: Device and precision.
        row_tokens: Tokens of a forward pass.
    """
    draws = [Draw(place_, index) for place_, source in enumerate(sources) for index in range(len(source))]
    parts: list[HeadPredictions] = []
    for row in sequential_rows(sources, draws, row_tokens):
        batch = collate(sources, [row]).to(model.backbone.device)
        with place.autocast():
            states = model.states(batch)
        logits = model.heads(states, batch.emotion_positions, batch.strategy_positions)
        parts.append(HeadPredictions(logits.emotion, batch.emotion_targets, logits.strategy, batch.strategy_targets))
    return HeadPredictions(*(torch.cat(column).cpu() for column in zip(*parts, strict=True)))


def evaluate(path: Path) -> dict[str, Any]:
    """Score the saved artefact on the test splits and write `results/evaluation.json`.

    Args:
        path: A finished run folder.

    Returns:
        What was written: the context of the numbers, and for each head accuracy, macro-F1, n, and the majority class beside them.

    Raises:
        WarmlineError: an unfinished run, parts that do not belong together, missing data.
    """
    finished = FinishedRun.open(path)
    config = finished.config
    sources = encode_split("test", config.data, finished.template)
    predictions = predict(finished.model, sources, finished.place, config.data.row_tokens)
    turns = _train_turns(config)
    result = {
        "context": {**finished.context(), "split": "test"},
        "heads": {"emotion": _emotion(predictions, turns), "strategy": _strategy(predictions, turns)},
    }
    write_json(finished.folder.evaluation, result)
    return result


def _emotion(predictions: HeadPredictions, train_turns: list[Turn]) -> dict[str, Any] | None:
    """27-way, on rows whose only official label is an emotion."""
    targets = predictions.emotion_targets
    single = (targets.sum(dim=1) == 1) & (targets[:, len(EMOTIONS)] == 0)
    if not bool(single.any()):
        return None
    truth = targets[single].argmax(dim=1).numpy()
    guess = predictions.emotion_logits[single, : len(EMOTIONS)].argmax(dim=1).numpy()
    known = [EMOTIONS.index(turn.sole_emotion) for turn in train_turns if turn.sole_emotion is not None]
    return {"protocol": "27-way, rows with one label", **_scores(truth, guess, known, EMOTIONS)}


def _strategy(predictions: HeadPredictions, train_turns: list[Turn]) -> dict[str, Any] | None:
    if not len(predictions.strategy_targets):
        return None
    known = [STRATEGIES.index(turn.strategy) for turn in train_turns if turn.strategy is not None]
    guess = predictions.strategy_logits.argmax(dim=1).numpy()
    return {"protocol": "8-way, reply unseen", **_scores(predictions.strategy_targets.numpy(), guess, known, STRATEGIES)}


def _train_turns(config: RunConfig) -> list[Turn]:
    """Every training turn: the majority class is that of the training labels."""
    return [
        turn
        for source in enabled_sources(config.data)
        for conversation in load_source(source, "train", config.data).conversations
        for turn in conversation.turns
    ]


def _scores(truth: IntArray, guess: IntArray, known: list[int], labels: tuple[str, ...]) -> dict[str, Any]:
    majority = int(np.bincount(known, minlength=len(labels)).argmax())
    return {
        "n": len(truth),
        "accuracy": float(accuracy_score(truth, guess)),
        "macro_f1": float(f1_score(truth, guess, labels=range(len(labels)), average="macro", zero_division=0)),
        "majority": {
            "label": labels[majority],
            "accuracy": float((truth == majority).mean()),
            "macro_f1": float(f1_score(truth, np.full_like(truth, majority), labels=range(len(labels)), average="macro", zero_division=0)),
        },
    }
