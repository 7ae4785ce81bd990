"""Heads fitted anew: against scikit-learn, on a run's own states, with teachers' targets, and from a run that is taken up again."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.nn.functional import cross_entropy

from tests.conftest import ConfigFactory
from tests.tools import CPU, quiet_train
from warmline.data.encoding import EncodedSource
from warmline.data.packing import Batch, all_draws, collate, sequential_rows
from warmline.errors import WarmlineError
from warmline.model.artifacts import build_model
from warmline.model.losses import TargetSettings
from warmline.model.multitask import MultiTaskModel, head_targets
from warmline.runs import RunFolder
from warmline.training.curves import read_metrics
from warmline.training.linear import fit_linear
from warmline.training.refit import refit_heads

REFIT = {"emotion": {"pooling": "attention", "refit": 0.01}, "strategy": {"earlier_strategies": True, "refit": 0.01}}


def run_with(make: ConfigFactory, folder: Path, resume: bool = False, **strengths: float | None) -> RunFolder:
    heads = {name: {**REFIT[name], "refit": strengths[name]} for name in REFIT}
    return quiet_train(make(folder, heads=heads), resume)


def test_it_is_logistic_regression_with_a_strength_for_each_layer() -> None:
    noise = np.random.default_rng(13)
    inputs = [noise.normal(2, 3, (400, 6)), noise.normal(-1, 0.2, (400, 3))]
    labels = (inputs[0][:, 0] + 9 * inputs[1][:, 1] + noise.normal(0, 2, 400) > -7).astype(int) + (inputs[0][:, 1] > 4)
    strengths, layers = (0.003, 0.3), [nn.Linear(6, 3), nn.Linear(3, 3)]
    loss = partial(cross_entropy, target=torch.from_numpy(labels), reduction="sum")
    fit_linear(layers, [torch.from_numpy(one.copy()) for one in inputs], strengths, loss)
    with torch.no_grad():
        ours = sum(layer(torch.from_numpy(one).float()) for layer, one in zip(layers, inputs, strict=True)).softmax(dim=1)
    scaled = [(one - one.mean(axis=0)) / one.std(axis=0) * strength**0.5 for one, strength in zip(inputs, strengths, strict=True)]
    theirs = LogisticRegression(C=1.0, max_iter=5000, tol=1e-10).fit(np.hstack(scaled), labels)
    np.testing.assert_allclose(ours.numpy(), theirs.predict_proba(np.hstack(scaled)), atol=1e-4)


def head_losses(model: MultiTaskModel, sources: list[EncodedSource]) -> dict[str, float]:
    """Mean loss of each head on all training rows."""
    found = {"emotion": torch.zeros(2), "strategy": torch.zeros(2)}
    nothing = torch.zeros(0, model.backbone.hidden_size)
    with torch.no_grad():
        for row in sequential_rows(sources, all_draws(sources), 512):
            batch = replace(collate(sources, [row]), safety_positions=torch.zeros(0, dtype=torch.int64), safety_weights=torch.zeros(0))
            terms, _ = model.terms(model.states(batch), batch, nothing)
            for name, total in found.items():
                term = getattr(terms, name)
                total += torch.tensor([float(term.sum), term.targets])
    return {name: float(total[0] / total[1]) for name, total in found.items()}


def test_a_head_fitted_anew_has_a_lower_loss_and_leaves_all_else(
    tiny_config: ConfigFactory, tmp_path: Path, sources: list[EncodedSource]
) -> None:
    config = tiny_config(tmp_path, heads=REFIT, loss={"emotion": 1.0})
    model = build_model(config, CPU.device, CPU.dtype)
    model.targets = head_targets(config.heads, sources, 27, CPU.device)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    losses = head_losses(model, sources)
    assert refit_heads(model, sources, lambda batch: batch, CPU, config, print) == ["emotion", "strategy"]
    after = head_losses(model, sources)
    assert all(after[name] < losses[name] - 0.1 for name in losses), (losses, after)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    linear = {f"heads.{name}.{part}" for name in ("emotion.layers.1", "strategy.layers.1") for part in ("weight", "bias")}
    assert changed == {*linear, "heads.strategy.earlier.weight"}


def test_a_loss_that_is_off_leaves_its_head(tiny_config: ConfigFactory, tmp_path: Path, sources: list[EncodedSource]) -> None:
    config = tiny_config(tmp_path, heads=REFIT, loss={"emotion": 0.0})
    assert refit_heads(build_model(config, CPU.device, CPU.dtype), sources, lambda batch: batch, CPU, config, print) == ["strategy"]


def test_it_learns_what_teachers_say(tiny_config: ConfigFactory, tmp_path: Path, sources: list[EncodedSource]) -> None:
    config = tiny_config(tmp_path, heads=REFIT)
    model = build_model(config, CPU.device, CPU.dtype)

    def always(batch: Batch) -> Batch:
        targets: Any = {name: torch.zeros_like(getattr(batch, name)) for name in ("emotion_targets", "strategy_targets")}
        for one in targets.values():
            one[:, 3] = 1
        return replace(batch, **targets)

    refit_heads(model, sources, always, CPU, config, print)
    batch = collate(sources, [next(iter(sequential_rows(sources, all_draws(sources), 4096)))])
    with torch.no_grad():
        said = model.heads(model.states(batch), batch)
    assert all(bool((logits.argmax(dim=1) == 3).all()) for logits in said)


def test_class_weights_count(tiny_config: ConfigFactory, tmp_path: Path, sources: list[EncodedSource]) -> None:
    config, guesses = tiny_config(tmp_path, heads=REFIT), []
    for weights in (None, torch.tensor([1e-3] * 7 + [1.0])):
        model = build_model(config, CPU.device, CPU.dtype)
        model.targets = model.targets._replace(strategy=TargetSettings(0.0, weights))
        refit_heads(model, sources, lambda batch: batch, CPU, config, print)
        batch = collate(sources, list(sequential_rows(sources, all_draws(sources), 512)))
        with torch.no_grad():
            guesses.append(float((model.heads(model.states(batch), batch).strategy.argmax(dim=1) == 7).float().mean()))
    assert guesses[0] < 0.6 < 0.9 < guesses[1]


def test_a_run_ends_with_heads_fitted_anew(tiny_config: ConfigFactory, tmp_path: Path) -> None:
    plain = run_with(tiny_config, tmp_path / "plain", emotion=None, strategy=None)
    refit = run_with(tiny_config, tmp_path / "refit", emotion=None, strategy=0.01)
    weights = "adapter/adapter_model.safetensors"
    assert (plain.path / weights).read_bytes() == (refit.path / weights).read_bytes()
    assert plain.heads.read_bytes() != refit.heads.read_bytes()
    lines = read_metrics(refit)
    assert [line["step"] for line in lines if line.get("refit") == ["strategy"]] == [4]
    last, earlier = lines[-1], lines[-2]
    assert last["emotion"] == earlier["emotion"]
    assert last["strategy"] != earlier["strategy"]
    heads, metrics = refit.heads.read_bytes(), [{**line, "seconds": 0} for line in lines]
    again = run_with(tiny_config, tmp_path / "refit", resume=True, emotion=None, strategy=0.01)
    assert again.heads.read_bytes() == heads
    assert [{**line, "seconds": 0} for line in read_metrics(again)] == metrics


def test_a_hidden_layer_cannot_be_fitted_so(tiny_config: ConfigFactory, tmp_path: Path) -> None:
    with pytest.raises(WarmlineError, match=r"heads\.strategy.*refit fits a linear head"):
        tiny_config(tmp_path, heads={"strategy": {"refit": 0.1, "hidden_size": 8}})
