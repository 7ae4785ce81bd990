"""Scores of one finished run on the test splits, item by item, so that two runs can be compared on the same items.

They are kept in the run's `results/ablation_scores.json`: an ablation that is started again measures only what it has not measured yet.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from warmline.config import load_config
from warmline.conversation import SPLITS, Split
from warmline.data.enabled import data_checksums
from warmline.data.encoding import EncodedSource, encode_split
from warmline.data.mixture import Draw
from warmline.data.packing import all_draws
from warmline.evaluation.finished import FinishedRun
from warmline.evaluation.language import reply_sums
from warmline.lock import writes_run
from warmline.metrics.baselines import fit_dense
from warmline.metrics.statistics import IntArray
from warmline.model.description import read_description
from warmline.model.reader import Reader, Readings
from warmline.runs import RunFolder, read_json, write_json
from warmline.tasks.task import HeadTask, sole

FORMAT = 2

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
        is_full: Probe every head's states, of the tuned model and of the base, also where the heads were trained; and score the base.

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
        self._reader, self._settings, self._tasks, self._loss = finished.reader, settings, config.tasks, config.loss
        self._splits: dict[Split, list[EncodedSource]] = {split: encode_split(split, config.data, finished.template) for split in SPLITS}
        self._test = _chosen(self._splits["test"], settings.conversations)

    def scores(self, is_full: bool) -> dict[str, Any]:
        """Everything that `score_run` says."""
        found: dict[str, Any] = {"heads": {}, "probes": {}, "absent": {}}
        for task in self._tasks:
            head, test = task.name, self._read("test", task)
            if test is None:
                found["heads"][head] = None
                found["absent"][head] = "no test row has a label for this head"
                continue
            if self._loss[head] == 0:
                found["heads"][head] = None
                found["absent"][head] = "its loss was off, so that the head is untrained; the probe reads the same states"
            else:
                found["heads"][head] = _guesses(test, test.logits[:, : task.classes].argmax(axis=1))
            if is_full or found["heads"][head] is None:
                found["probes"][head] = self._probe(test, task)
        found |= language_items(self._reader, self._splits["test"], self._test)
        if is_full:
            with self._reader.model.backbone.reference():
                rows = {task: self._read("test", task) for task in self._tasks}
                found["base"] = {task.name: self._probe(test, task) for task, test in rows.items() if test is not None}
        return found

    def _read(self, split: Split, task: HeadTask) -> Readings | None:
        """Rows with exactly one answer; None where there is none."""
        sources = self._splits[split]
        draws = self._test if split == "test" else _some_draws(sources, task, self._settings.probe_rows)
        labelled = [draw for draw in draws if len(_labels(sources, draw, task))]
        if not labelled:
            return None
        found = self._reader.read(task.name, sources, labelled)
        kept = sole(found.labels, task.classes)
        return found.only(kept) if kept.any() else None

    def _probe(self, test: Readings, task: HeadTask) -> Items:
        rows: dict[Split, Readings | None] = {"train": self._read("train", task), "valid": self._read("valid", task), "test": test}
        empty = test.only(slice(0))
        known = {split: empty if one is None else one for split, one in rows.items()}
        inputs, targets = ({split: one.inputs for split, one in known.items()}, {split: _truth(one) for split, one in known.items()})
        fitted = fit_dense(inputs, targets, task.classes)
        return {**_guesses(test, fitted.test.argmax(axis=1)), "strength": fitted.c, "train_rows": len(targets["train"])}


def language_items(reader: Reader, sources: list[EncodedSource], draws: list[Draw]) -> dict[str, Items]:
    """Language model loss and drift of each conversation.

    Returns:
        `task`, conversations of sources that train the language model and not the safety term: source, tokens (of the replies), nats and
        base_nats (sums of the tuned and the base model's cross-entropy over them), kl (sum of KL(base || tuned), nats). `safety`,
        conversations of sources that train the safety term: kl, mean over the reply's tokens as in the loss.
    """
    task: dict[str, list[Any]] = {"source": [], "tokens": [], "nats": [], "base_nats": [], "kl": []}
    safety: dict[str, list[Any]] = {"kl": []}
    wanted = [draw for draw in draws if {"lm", "safety"} & set(sources[draw.source].objectives)]
    for one in reader.passes(sources, wanted):
        batch, base = one.batch, reader.base_states(one.batch)
        of_task, of_safety = (reply_sums(reader, one, base, positions) for positions in (batch.lm_positions, batch.safety_positions))
        for draw, replies, held in zip(one.row, of_task.tolist(), of_safety.tolist(), strict=True):
            if "safety" in sources[draw.source].objectives:
                if held[0]:
                    safety["kl"].append(held[3] / held[0])
            elif replies[0]:
                task["source"].append(sources[draw.source].name)
                for name, value in zip(("tokens", "nats", "base_nats", "kl"), (int(replies[0]), *replies[1:]), strict=True):
                    task[name].append(value)
    return {"task": task, "safety": safety}


def _truth(rows: Readings) -> IntArray:
    return np.asarray(rows.labels.argmax(axis=1))


def _guesses(test: Readings, guess: IntArray) -> Items:
    return {"truth": _truth(test).tolist(), "guess": guess.tolist(), "conversation": test.conversations.tolist()}


def _labels(sources: Sequence[EncodedSource], draw: Draw, task: HeadTask) -> IntArray:
    """The bits of each label of a head in a conversation, [labels]."""
    none = np.zeros((0, 2), np.int64)
    return sources[draw.source][draw.conversation].labels.get(task.name, none)[:, 1]


def _some_draws(sources: Sequence[EncodedSource], task: HeadTask, most_rows: int) -> list[Draw]:
    """Conversations in a fixed random order until they hold `most_rows` rows with one answer: the same for every model that is probed."""
    candidates: list[tuple[Draw, int]] = []
    for draw in all_draws(sources):
        bits = _labels(sources, draw, task)
        rows = int(((bits > 0) & (bits & (bits - 1) == 0) & (bits < 1 << task.classes)).sum())
        if rows:
            candidates.append((draw, rows))
    chosen: list[Draw] = []
    found = 0
    for at in np.random.default_rng(0).permutation(len(candidates)):
        if found >= most_rows:
            break
        draw, rows = candidates[at]
        chosen.append(draw)
        found += rows
    return sorted(chosen)


def _chosen(sources: list[EncodedSource], conversations: int | None) -> list[Draw]:
    """The same test conversations for every variant and seed."""
    draws: list[Draw] = []
    for place, source in enumerate(sources):
        order = np.random.default_rng([0, place]).permutation(len(source))[:conversations]
        draws += [Draw(place, int(at)) for at in np.sort(order)]
    return draws
