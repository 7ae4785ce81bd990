"""Scores of one finished run on the test splits, item by item, so that two runs can be compared on the same items.

They are kept in the run's `results/ablation_scores.json`: an ablation that is started again measures only what it has not measured yet.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from warmline.config import load_config
from warmline.conversation import Split
from warmline.data.enabled import data_checksums
from warmline.data.encoding import EncodedSource, encode_split
from warmline.data.mixture import Draw
from warmline.data.packing import collate, sequential_rows
from warmline.evaluation.finished import FinishedRun
from warmline.evaluation.language import reply_sums
from warmline.evaluation.probe import HeadName, Readings, known_emotions, read_states, some_draws
from warmline.lock import writes_run
from warmline.model.description import read_description
from warmline.model.device import Place
from warmline.model.multitask import MultiTaskModel
from warmline.runs import RunFolder, read_json, write_json
from warmline.tasks.emotion import EMOTIONS

FORMAT = 1
HEADS: tuple[HeadName, ...] = ("emotion", "strategy")

Items = dict[str, Any]
"""Columns of equal length, plain lists."""


@dataclass(frozen=True)
class ScoreSettings:
    """How much is scored.

    Attributes:
        conversations: Test conversations of each source, chosen once and for all variants; None takes all.
        probe_rows: Training rows of a probe, and at most as many validation rows.
    """

    conversations: int | None = None
    probe_rows: int = 4000


@writes_run("ablate")
def score_run(path: Path, settings: ScoreSettings, is_full: bool) -> dict[str, Any]:
    """Score the saved artefact, or read the scores back when artefact, data and settings are those they were made with.

    Args:
        path: A finished run.
        settings: How much is scored.
        is_full: Probe both heads' states, of the tuned model and of the base, also where the heads were trained; and score the base.

    Returns:
        `context`, and items for `heads`, `probes`, `task` and `safety`; with `is_full` also `base`. What cannot be measured is null in
        `heads` and has its reason in `absent`.

    Raises:
        WarmlineError: an unfinished run, parts that do not belong together, missing data.
    """
    kept = kept_scores(path, settings, is_full)
    if kept is not None:
        return kept
    finished = FinishedRun.open(path)
    made_with = _made_with(finished.folder, settings, is_full)
    result = {"context": {**finished.context(), "split": "test"}, "made_with": made_with, **_Scorer(finished, settings).scores(is_full)}
    write_json(finished.folder.ablation_scores, result)
    return result


def kept_scores(path: Path, settings: ScoreSettings, is_full: bool) -> dict[str, Any] | None:
    """What `score_run` would read back, without the model; None where it would have to score.

    Raises:
        WarmlineError: an unfinished run, missing data.
    """
    folder = RunFolder.open(path)
    if not folder.ablation_scores.is_file():
        return None
    saved: dict[str, Any] = read_json(folder.ablation_scores)
    same = saved.get("made_with") == _made_with(folder, settings, is_full)
    return saved if same and saved["context"]["data_sha256"] == data_checksums(load_config(folder.config).data) else None


def _made_with(folder: RunFolder, settings: ScoreSettings, is_full: bool) -> dict[str, Any]:
    heads = read_description(folder)
    return {
        "format": FORMAT, **asdict(settings), "is_full": is_full,
        "weights_sha256": heads["weights_sha256"], "heads_sha256": heads["heads_sha256"],
    }  # fmt: skip


class _Scorer:
    """One loaded run and the encoded data it is scored on."""

    def __init__(self, finished: FinishedRun, settings: ScoreSettings) -> None:
        config = finished.config
        self._model, self._place, self._settings = finished.model, finished.place, settings
        self._loss, self._pass_tokens = config.loss, config.pass_tokens
        self._splits = {split: encode_split(split, config.data, finished.template) for split in ("train", "valid", "test")}
        self._test = _chosen(self._splits["test"], settings.conversations)

    def scores(self, is_full: bool) -> dict[str, Any]:
        """Everything that `score_run` says."""
        found: dict[str, Any] = {"heads": {}, "probes": {}, "absent": {}}
        for head in HEADS:
            test = self._read("test", head)
            if not len(test.labels):
                found["heads"][head] = None
                found["absent"][head] = "no test row has a label for this head"
                continue
            if getattr(self._loss, head) == 0:
                found["heads"][head] = None
                found["absent"][head] = "its loss was off, so that the head is untrained; the probe reads the same states"
            else:
                found["heads"][head] = _guesses(test, self._head_says(head))
            if is_full or found["heads"][head] is None:
                found["probes"][head] = self._probe(test, head)
        found |= language_items(self._model, self._splits["test"], self._test, self._place, self._pass_tokens)
        if is_full:
            with self._model.backbone.reference():
                rows = {head: self._read("test", head) for head in HEADS}
                found["base"] = {head: self._probe(test, head) for head, test in rows.items() if len(test.labels)}
        return found

    def _read(self, split: str, head: HeadName) -> Readings:
        return read_states(self._model, self._splits[split], self._draws(split, head), head, self._place, self._pass_tokens)

    def _draws(self, split: str, head: HeadName) -> list[Draw]:
        sources = self._splits[split]
        draws = self._test if split == "test" else some_draws(sources, head, self._settings.probe_rows)
        return [draw for draw in draws if len(getattr(sources[draw.source][draw.conversation], head))]

    @torch.no_grad()
    def _head_says(self, head: HeadName) -> np.ndarray:
        """Its guess on every row of `_read("test", head)`, [rows]."""
        found = [np.zeros(0, np.int64)]
        sources = self._splits["test"]
        for row in sequential_rows(sources, self._draws("test", head), self._pass_tokens):
            batch = collate(sources, [row]).to(self._model.backbone.device)
            with self._place.autocast():
                states = self._model.states(batch)
            said = self._model.heads(states, batch)
            if head == "emotion":
                found.append(said.emotion[:, : len(EMOTIONS)].argmax(dim=1).cpu().numpy()[known_emotions(batch) >= 0])
            else:
                found.append(said.strategy.argmax(dim=1).cpu().numpy())
        return np.concatenate(found)

    def _probe(self, test: Readings, head: HeadName) -> Items:
        rows: dict[Split, Readings] = {"train": self._read("train", head), "valid": self._read("valid", head), "test": test}
        states, targets = {split: one.states for split, one in rows.items()}, {split: one.labels for split, one in rows.items()}
        fitted = fit_probe(states, targets, len(EMOTIONS if head == "emotion" else STRATEGIES))
        return {**_guesses(test, fitted.test.argmax(axis=1)), "strength": fitted.c, "train_rows": len(rows["train"].labels)}


@torch.no_grad()
def language_items(
    model: MultiTaskModel, sources: list[EncodedSource], draws: list[Draw], place: Place, pass_tokens: int
) -> dict[str, Items]:
    """Language model loss and drift of each conversation.

    Returns:
        `task`, conversations of sources that train the language model and not the safety term: source, tokens (of the replies), nats and
        base_nats (sums of the tuned and the base model's cross-entropy over them), kl (sum of KL(base || tuned), nats). `safety`,
        conversations of sources that train the safety term: kl, mean over the reply's tokens as in the loss.
    """
    task: dict[str, list[Any]] = {"source": [], "tokens": [], "nats": [], "base_nats": [], "kl": []}
    safety: dict[str, list[Any]] = {"kl": []}
    wanted = [draw for draw in draws if {"lm", "safety"} & set(sources[draw.source].objectives)]
    for row in sequential_rows(sources, wanted, pass_tokens):
        batch = collate(sources, [row]).to(model.backbone.device)
        with place.autocast():
            tuned = model.states(batch)
            with model.backbone.reference():
                base = model.states(batch)
            of_task, of_safety = (
                reply_sums(model, batch, tuned, base, positions) for positions in (batch.lm_positions, batch.safety_positions)
            )
        for draw, replies, held in zip(row, of_task.tolist(), of_safety.tolist(), strict=True):
            if "safety" in sources[draw.source].objectives:
                if held[0]:
                    safety["kl"].append(held[3] / held[0])
            elif replies[0]:
                task["source"].append(sources[draw.source].name)
                for name, value in zip(("tokens", "nats", "base_nats", "kl"), (int(replies[0]), *replies[1:]), strict=True):
                    task[name].append(value)
    return {"task": task, "safety": safety}


def _guesses(test: Readings, guess: np.ndarray) -> Items:
    return {"truth": test.labels.tolist(), "guess": guess.tolist(), "conversation": test.conversations.tolist()}


def _chosen(sources: list[EncodedSource], conversations: int | None) -> list[Draw]:
    """The same test conversations for every variant and seed."""
    draws: list[Draw] = []
    for place, source in enumerate(sources):
        order = np.random.default_rng([0, place]).permutation(len(source))[:conversations]
        draws += [Draw(place, int(at)) for at in np.sort(order)]
    return draws
