"""Thresholds from validation: rare classes are named more often where a head knows them, less so the more accuracy counts."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from tests.conftest import ConfigFactory
from tests.tools import CPU, perturb, quiet_train
from warmline.data.encoding import EncodedSource
from warmline.errors import WarmlineError
from warmline.evaluation.heads import predict
from warmline.metrics.statistics import FloatArray, IntArray
from warmline.model.artifacts import build_model, load_artifact
from warmline.training.curves import read_metrics
from warmline.training.thresholds import choose_offsets, move_thresholds

HEADS = {"strategy": {"earlier_strategies": True, "thresholds": 1.0}}


def made(rows: int, seed: int) -> tuple[FloatArray, IntArray]:
    """True log posteriors of four classes, two of them rare and seldom the likeliest, and classes drawn from them."""
    random = np.random.default_rng(seed)
    chances = random.dirichlet((2, 2, 1, 1), size=rows) * [1, 1, 0.5, 0.5]
    chances /= chances.sum(axis=1, keepdims=True)
    return np.log(chances + 1e-9), np.array([random.choice(4, p=one) for one in chances])


def test_macro_f1_gains_on_other_rows() -> None:
    offsets = choose_offsets(*made(3000, 1), accuracy_weight=0.5, seed=13)
    logits, truth = made(6000, 2)
    before, after = (f1_score(truth, one.argmax(axis=1), average="macro") for one in (logits, logits + offsets))
    assert after > before + 0.02
    assert min(offsets[2:]) > max(offsets[:2])


def test_the_more_accuracy_counts_the_less_is_moved() -> None:
    logits, truth = made(2000, 1)
    moved = [np.abs(choose_offsets(logits, truth, weight, 13)).sum() for weight in (0.5, 50.0)]
    assert moved[1] < 0.5 * moved[0]


def test_the_seed_decides() -> None:
    logits, truth = made(300, 1)
    one, same, other = (choose_offsets(logits, truth, 1.0, seed) for seed in (13, 13, 14))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_only_the_bias_moves_and_by_what_is_said(tiny_config: ConfigFactory, tmp_path: Path, sources: list[EncodedSource]) -> None:
    config = tiny_config(tmp_path, heads=HEADS)
    model = build_model(config, CPU.device, CPU.dtype)
    perturb(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    said = predict(model.eval(), sources, CPU, config.pass_tokens).strategy_logits
    moved = move_thresholds(model.train(), sources, CPU, config, print)
    assert list(moved) == ["strategy"]
    assert model.training
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"heads.strategy.layers.1.bias"}
    now = predict(model.eval(), sources, CPU, config.pass_tokens).strategy_logits
    torch.testing.assert_close(now - said, torch.tensor(moved["strategy"]).expand_as(said), atol=1e-4, rtol=0)


def test_a_run_ends_with_them(tiny_config: ConfigFactory, tmp_path: Path) -> None:
    run = quiet_train(tiny_config(tmp_path, heads=HEADS))
    [line] = [line for line in read_metrics(run) if line.get("offsets")]
    assert line["refit"] == []
    plain = quiet_train(tiny_config(tmp_path / "plain", heads={"strategy": {"earlier_strategies": True}}))
    biases = [load_artifact(one, CPU.device, CPU.dtype)[1].heads.strategy.output.bias for one in (run, plain)]
    torch.testing.assert_close(biases[0] - biases[1], torch.tensor(line["offsets"]["strategy"]), atol=1e-5, rtol=0)


def test_28_labels_have_their_own(tiny_config: ConfigFactory, tmp_path: Path) -> None:
    with pytest.raises(WarmlineError, match=r"heads\.emotion\.thresholds: evaluation chooses those of 28 labels"):
        tiny_config(tmp_path, heads={"emotion": {"thresholds": 1.0}}, data={"sources": {"goemotions": {"labels": 28}}})
