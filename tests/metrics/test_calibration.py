"""Calibration against sums done by hand."""

import numpy as np
import pytest
from scipy.special import softmax

from warmline.metrics.calibration import (
    calibration,
    expected_calibration_error,
    fit_multilabel_temperature,
    fit_temperature,
    multilabel_calibration,
    reliability,
)

RNG = np.random.default_rng(2)


def test_ece_by_hand() -> None:
    """Two predictions near 0.9 (one right), two at 0.5 (both right): (2 |0.9 - 0.5| + 2 |0.5 - 1|) / 4."""
    bins = reliability(np.array([0.89, 0.91, 0.5, 0.5]), np.array([True, False, True, True]), bins=5)
    assert [(one.n, one.accuracy) for one in bins] == [(2, 1.0), (2, 0.5)]
    assert expected_calibration_error(bins) == pytest.approx(0.45)


def test_ece_equals_a_loop() -> None:
    confidence, correct = RNG.random(500), RNG.random(500) < 0.5
    total = 0.0
    for at in range(15):
        inside = [row for row in range(500) if at / 15 < confidence[row] <= (at + 1) / 15]
        total += abs(sum(confidence[row] for row in inside) - sum(correct[row] for row in inside))
    assert expected_calibration_error(reliability(confidence, correct)) == pytest.approx(total / 500)
    assert sum(one.n for one in reliability(np.array([0.0, 1.0]), np.array([False, True]))) == 2


def test_brier_by_hand() -> None:
    logits = np.log(np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]]))
    found = calibration(logits, np.array([0, 0]), temperature=1.0)["raw"]
    assert found["brier"] == pytest.approx(((0.3**2 + 0.2**2 + 0.1**2) + (0.9**2 + 0.1**2 + 0.8**2)) / 2)
    assert found["nll"] == pytest.approx(-(np.log(0.7) + np.log(0.1)) / 2)


def test_temperature_recovers_the_one_that_labels_were_drawn_with() -> None:
    logits = RNG.normal(size=(20_000, 6)) * 2
    truth = np.array([RNG.choice(6, p=row) for row in softmax(logits, axis=1)])
    assert fit_temperature(logits * 3, truth) == pytest.approx(3, rel=0.05)
    scaled = calibration(logits * 3, truth, fit_temperature(logits * 3, truth))
    assert scaled["scaled"]["ece"] < 0.02 < 0.1 < scaled["raw"]["ece"]


def test_multilabel_temperature_and_brier() -> None:
    logits = RNG.normal(size=(20_000, 3)) * 2
    truth = RNG.random(logits.shape) < 1 / (1 + np.exp(-logits))
    assert fit_multilabel_temperature(logits * 0.5, truth) == pytest.approx(0.5, rel=0.05)
    found = multilabel_calibration(np.array([[0.0, np.log(3)]]), np.array([[True, False]]), 1.0)["raw"]
    assert found["brier"] == pytest.approx((0.5**2 + 0.75**2) / 2)
