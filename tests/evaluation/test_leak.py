"""A reply that leaks into a strategy predictor is noticed, by its score and by hiding it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tools import CPU, ESCONV, perturb
from warmline.data.encoding import EncodedSource
from warmline.data.labels import STRATEGIES
from warmline.data.sources import sample_dir
from warmline.data.sources.esconv import load
from warmline.evaluation import strategy
from warmline.evaluation.heads import predict
from warmline.evaluation.leak import hidden_reply_agreement, leak_limit, leak_warning
from warmline.evaluation.rows import StrategyRows, strategy_rows
from warmline.evaluation.statistics import FloatArray


def test_the_rule() -> None:
    assert leak_warning("probe", 0.375, history_accuracy=0.34) is None  # what an honest head reaches
    assert "look for a leak" in str(leak_warning("probe", 0.468, history_accuracy=0.34))
    assert leak_limit(0.55) == pytest.approx(0.65)  # strategies that follow each other strictly need no text


def folder_rows(folder: Path) -> dict[str, StrategyRows]:
    return {split: strategy_rows(load(folder, split).conversations) for split in ("train", "valid", "test")}


def warnings_of(rows: dict[str, StrategyRows], leaked: bool) -> list[str]:
    """The evaluation's own path, with a probe whose input is the reply, or the context alone."""
    probe = strategy.text_baseline({split: one.replies if leaked else one.contexts for split, one in rows.items()}, rows)
    histories = {name: strategy.history_baseline(rows, name == "history_in_order") for name in strategy.HISTORY}
    silent: dict[str, FloatArray] = {split: np.zeros((len(rows[split].targets), len(STRATEGIES))) for split in ("valid", "test")}
    return strategy.score_strategy(rows, silent, {**histories, "linear_probe": probe}, seed=13)["leak_warnings"]


def test_evaluation_warns_of_a_leaked_probe() -> None:
    rows = folder_rows(sample_dir() / "esconv")
    assert warnings_of(rows, leaked=False) == []
    (line,) = warnings_of(rows, leaked=True)
    assert line.startswith("linear_probe")


@torch.no_grad()
def test_hiding_the_reply_unmasks_a_head_that_reads_it(tiny, sources: list[EncodedSource]) -> None:
    model = tiny.model.eval()
    perturb(model)
    model.heads.strategy.layers[-1].weight.mul_(30)
    source = replace(sources[ESCONV], **cut(sources[ESCONV], 12))
    honest = predict(model, [source], CPU, 2048).strategy_logits.numpy()
    same, asked = hidden_reply_agreement(model, source, honest, CPU, seed=1)
    assert asked == 32
    assert same >= 31  # a tie may break
    ends = {int(first) - 1: int(end) - 1 for first, end in source.replies.tolist()}
    assert set(source.strategy[:, 0].tolist()) <= set(ends)  # else the leak below is none
    leaking = replace(source, strategy=reads_last_token(source))
    leaked = predict(model, [leaking], CPU, 2048).strategy_logits.numpy()
    same, asked = hidden_reply_agreement(model, leaking, leaked, CPU, seed=1)
    assert same < 0.8 * asked


def cut(source: EncodedSource, conversations: int) -> dict[str, np.ndarray]:
    """The first conversations of a source."""
    found = {"originals": source.originals[:conversations], "token_ends": source.token_ends[:conversations]}
    found["tokens"] = source.tokens[: source.token_ends[conversations - 1]]
    for name, ends in (("replies", "reply_ends"), ("emotion", "emotion_ends"), ("strategy", "strategy_ends")):
        found[ends] = getattr(source, ends)[:conversations]
        found[name] = getattr(source, name)[: getattr(source, ends)[conversations - 1]]
    return found


def reads_last_token(source: EncodedSource) -> np.ndarray:
    """The strategy targets, read at the reply's end instead of before it."""
    moved = []
    for index in range(len(source)):
        one = source[index]
        for position, label in one.strategy.tolist():
            (end,) = [end for first, end in one.replies.tolist() if first == position + 1]
            moved.append((end - 1, label))
    return np.asarray(moved, dtype=np.int32)
