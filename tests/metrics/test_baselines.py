"""Baselines on data whose answer is known, and thresholds against trying every one."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score

from warmline.metrics.baselines import (
    DENSE_GRID,
    Fitted,
    best_thresholds,
    cached,
    fit_dense,
    fit_labels,
    fit_text,
    scaled_features,
    text_features,
)

RNG = np.random.default_rng(4)


@pytest.mark.parametrize("pieces", [False, True])
def test_text_baseline_finds_the_word(pieces: bool) -> None:
    words = ["yes", "no", "perhaps"]
    targets = {split: RNG.integers(3, size=60) for split in ("train", "valid", "test")}
    texts = {split: [f"well {words[at]} then" for at in found] for split, found in targets.items()}
    fitted = fit_text(text_features(texts, pieces), targets, classes=4)
    assert (fitted.test.argmax(axis=1) == targets["test"]).all()
    assert fitted.test.shape == (60, 4)
    assert not fitted.test[:, 3].any()  # a class that train does not have


def test_c_is_chosen_on_validation_not_on_test() -> None:
    """Noise features: validation labels follow the third column, test labels another; only validation may decide."""
    features = {split: RNG.normal(size=(80, 5)) for split in ("train", "valid", "test")}
    targets = {split: (features[split][:, 2] > 0).astype(int) for split in features}
    first = fit_dense(features, targets, 2)
    second = fit_dense(features, {**targets, "test": 1 - targets["test"]}, 2)
    assert first.c == second.c
    np.testing.assert_array_equal(first.test, second.test)


def test_labels_are_fitted_one_by_one() -> None:
    features = {split: RNG.normal(size=(200, 4)) for split in ("train", "valid", "test")}
    labels = features["train"][:, :3] > 0
    fitted = fit_labels(scaled_features(features), labels, c=1.0, sparse=False)
    assert ((fitted.test > 0.5) == (features["test"][:, :3] > 0)).mean() > 0.9


def states_with(signal: float, rows: dict[str, int]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Three labels that shift the states' first two coordinates, in 20 dimensions of noise."""
    random = np.random.default_rng(0)
    targets = {split: random.integers(3, size=number) for split, number in rows.items()}
    shifts = signal * np.array([[0, 0], [1, 0], [0, 1]], np.float32)
    states = {split: random.normal(size=(number, 20)).astype(np.float32) for split, number in rows.items()}
    for split, labels in targets.items():
        states[split][:, :2] += shifts[labels]
    return states, targets


def test_a_probe_finds_what_is_linear_and_nothing_else() -> None:
    for signal, low, high in ((6.0, 0.97, 1.0), (0.0, 0.2, 0.45)):
        states, targets = states_with(signal, {"train": 300, "valid": 100, "test": 300})
        guess = fit_dense(states, targets, 3).test.argmax(axis=1)
        assert low < (guess == targets["test"]).mean() <= high


def test_a_probe_without_validation_rows_is_the_most_regular() -> None:
    states, targets = states_with(6, {"train": 300, "valid": 0, "test": 300})
    found = fit_dense(states, targets, 3)
    assert (found.c, found.valid.shape) == (DENSE_GRID[0], (0, 3))
    assert (found.test.argmax(axis=1) == targets["test"]).mean() > 0.6


def test_thresholds_equal_trying_every_one() -> None:
    probabilities = RNG.random((300, 4)).round(2)  # with ties
    truth = RNG.random((300, 4)) < probabilities**2
    truth[:, 3] = False
    thresholds = best_thresholds(probabilities, truth)
    for label in range(3):
        best = max(f1_score(truth[:, label], probabilities[:, label] >= at) for at in np.linspace(0, 1, 201))
        assert f1_score(truth[:, label], probabilities[:, label] >= thresholds[label]) == pytest.approx(best)
    assert thresholds[3] == 0.5


def test_cache_by_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARMLINE_CACHE", str(tmp_path))
    calls = []

    def compute() -> dict[str, Fitted]:
        calls.append(1)
        return {"tfidf": Fitted(RNG.random((2, 3)), RNG.random((4, 3)), 0.1)}

    first, again = (cached("x", {"file": "abc"}, compute) for _ in range(2))
    np.testing.assert_array_equal(first["tfidf"].test, again["tfidf"].test)
    assert again["tfidf"].c == 0.1
    cached("x", {"file": "other"}, compute)
    assert len(calls) == 2
    for path in tmp_path.glob("*.npz"):
        path.write_bytes(b"damaged")
    cached("x", {"file": "abc"}, compute)
    assert len(calls) == 3
