"""The fit of earlier strategies before the first step: against scikit-learn, strategies nobody used, and where it applies."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression

from tests.conftest import ConfigFactory
from warmline.config import HeadsConfig
from warmline.data.earlier import annotated, earlier_features
from warmline.data.encoding import Encoded, EncodedSource, join_parts
from warmline.model.heads import Heads, StrategyHead
from warmline.model.losses import class_weights
from warmline.training.earlier import STRENGTH, fit_earlier
from warmline.training.loop import train
from warmline.training.view import View


def head(sees: bool = True) -> StrategyHead:
    return Heads(16, 27, HeadsConfig.model_validate({"strategy": {"earlier_strategies": sees}})).strategy


def source(*conversations: list[int]) -> EncodedSource:
    """Conversations of which only the strategies matter."""
    none = np.zeros((0, 2), np.int32)
    parts = [
        Encoded(
            np.zeros(2 * len(labels), np.int32),
            none,
            none,
            np.array([[2 * at, label] for at, label in enumerate(labels)], np.int32).reshape(-1, 2),
        )
        for labels in conversations
    ]
    return join_parts("made", ("strategy",), parts, range(len(parts)))


def talks(number: int, strategies: int) -> list[list[int]]:
    """Two replies in three have the strategy after the one before; the third is any."""
    noise, found = np.random.default_rng(13), []
    for _ in range(number):
        labels = [int(noise.integers(strategies))]
        for _ in range(int(noise.integers(3, 20))):
            labels.append((labels[-1] + 1) % strategies if noise.random() < 2 / 3 else int(noise.integers(strategies)))
        found.append(labels)
    return found


@pytest.mark.parametrize("exponent", [0.0, 0.5])
def test_it_is_logistic_regression(exponent: float) -> None:
    made, fitted = talks(150, 8), head()
    labels = np.concatenate(made)
    weights = class_weights(np.bincount(labels, minlength=8).tolist(), exponent)
    fit_earlier(fitted, [source(*made)], None if weights is None else torch.tensor(weights))
    features = torch.cat([earlier_features(annotated(np.array(one, np.int32))) for one in made]).double().numpy()
    scaled = (features - features.mean(axis=0)) / np.maximum(features.std(axis=0), 1e-3)
    theirs = LogisticRegression(C=STRENGTH, class_weight=dict(enumerate(weights)) if weights else None, max_iter=5000, tol=1e-8)
    expected = theirs.fit(scaled, labels).predict_proba(scaled)
    ours = fitted.earlier(torch.from_numpy(features).float()).softmax(dim=1)
    np.testing.assert_allclose(ours.detach().numpy(), expected, atol=1e-3)
    assert float((ours.argmax(dim=1).numpy() == labels).mean()) > 0.6


def test_strategies_that_nobody_used_become_unlikely() -> None:
    fitted = head()
    fit_earlier(fitted, [source(*talks(60, 3))], None)
    said = fitted.earlier(earlier_features(annotated(np.array([0, 1, 2, 0], np.int32)))).softmax(dim=1)
    assert float(said[:, 3:].sum(dim=1).max()) < 0.01


def test_nothing_to_fit() -> None:
    blind = head(sees=False)
    fit_earlier(blind, [source(*talks(5, 8))], None)
    assert blind.earlier is None
    untouched = head()
    fit_earlier(untouched, [source([])], None)
    assert not any(bool(parameter.any()) for parameter in untouched.earlier.parameters())


@pytest.mark.parametrize(("weight", "fitted"), [(1.0, True), (0.0, False)])
def test_a_run_begins_with_it_unless_the_head_does_not_train(
    weight: float, fitted: bool, tiny_config: ConfigFactory, tmp_path: Path
) -> None:
    heads = {"strategy": {"earlier_strategies": True}}
    config = tiny_config(tmp_path, heads=heads, loss={"strategy": weight}, training={"max_steps": 1, "head_learning_rate": 1e-6})
    run = train(config, view=View(quiet=True))
    weights = load_file(run.heads)["strategy.earlier.weight"]
    assert (float(weights.abs().mean()) > 0.01) == fitted
