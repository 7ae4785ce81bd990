"""Does a probability of 0.8 come true eight times in ten? ECE, Brier score, reliability bins, and one temperature.

Expected calibration error (Naeini et al. 2015; Guo et al. 2017, arXiv 1706.04599): sort predictions into 15 equal-width bins of confidence;
ECE is the mean gap between confidence and accuracy in a bin, weighted by how many predictions it holds. The temperature divides the
logits; it is fitted on validation only and changes no ranking, so accuracy stays what it was.
"""

from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, softmax

from warmline.metrics.statistics import BoolArray, FloatArray, IntArray

BINS = 15
_LOG_TEMPERATURES = (-3.0, 4.0)


class Bin(NamedTuple):
    """Predictions of similar confidence.

    Attributes:
        confidence: Their mean confidence.
        accuracy: Share of them that came true.
        n: How many.
    """

    confidence: float
    accuracy: float
    n: int


def reliability(confidence: FloatArray, correct: BoolArray, bins: int = BINS) -> list[Bin]:
    """Equal-width bins over [0, 1], empty ones left out; a confidence on an edge belongs to the bin below it.

    Args:
        confidence: [predictions], in [0, 1].
        correct: [predictions].
        bins: How many.
    """
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    return [
        Bin(float(confidence[place == at].mean()), float(correct[place == at].mean()), int((place == at).sum()))
        for at in range(bins)
        if (place == at).any()
    ]


def expected_calibration_error(found: list[Bin]) -> float:
    """Mean |confidence - accuracy| over the bins, weighted by their size."""
    total = sum(one.n for one in found)
    return sum(one.n * abs(one.confidence - one.accuracy) for one in found) / total


def fit_temperature(logits: FloatArray, truth: IntArray) -> float:
    """The temperature that makes validation labels likeliest under softmax(logits / T).

    Args:
        logits: [rows, classes].
        truth: [rows].
    """
    rows = np.arange(len(truth))
    return _best_temperature(lambda scale: -float(log_softmax(logits * scale, axis=1)[rows, truth].mean()))


def fit_multilabel_temperature(logits: FloatArray, truth: BoolArray) -> float:
    """The temperature that makes validation labels likeliest under sigmoid(logits / T).

    Args:
        logits: [rows, labels].
        truth: [rows, labels].
    """
    signed = np.where(truth, logits, -logits)
    return _best_temperature(lambda scale: float(np.logaddexp(0, -signed * scale).mean()))


def _best_temperature(loss: Any) -> float:
    """The loss is convex in 1/T, so the search over its logarithm has one minimum."""
    found = minimize_scalar(lambda log: loss(np.exp(-log)), bounds=_LOG_TEMPERATURES, method="bounded", options={"xatol": 1e-4})
    return float(np.exp(found.x))


def calibration(logits: FloatArray, truth: IntArray, temperature: float) -> dict[str, Any]:
    """Calibration of a softmax on test rows: the likeliest class's probability against how often it is right.

    Args:
        logits: [rows, classes].
        truth: [rows].
        temperature: From validation.

    Returns:
        `raw` and `scaled` (after dividing by the temperature): `ece`, `brier` (sum over classes of squared error, mean over rows: 0 to 2),
        `nll` (nats), `bins`.
    """
    rows = np.arange(len(truth))

    def measured(scaled: FloatArray) -> dict[str, Any]:
        probabilities = softmax(scaled, axis=1)
        misses = probabilities.copy()
        misses[rows, truth] -= 1
        return _measured(
            probabilities.max(axis=1),
            probabilities.argmax(axis=1) == truth,
            brier=float((misses**2).sum(axis=1).mean()),
            nll=-float(log_softmax(scaled, axis=1)[rows, truth].mean()),
        )

    return {"temperature": temperature, "raw": measured(logits), "scaled": measured(logits / temperature)}


def multilabel_calibration(logits: FloatArray, truth: BoolArray, temperature: float) -> dict[str, Any]:
    """Calibration of sigmoids on test rows, all (row, label) pairs pooled: most are confident noes, so look at the bins too.

    Args:
        logits: [rows, labels].
        truth: [rows, labels].
        temperature: From validation.

    Returns:
        As `calibration`; `brier` is the squared error of a pair (0 to 1), `nll` the cross-entropy of a pair.
    """

    def measured(scaled: FloatArray) -> dict[str, Any]:
        probabilities = expit(scaled)
        return _measured(
            probabilities.ravel(),
            truth.ravel(),
            brier=float(((probabilities - truth) ** 2).mean()),
            nll=float(np.logaddexp(0, np.where(truth, -scaled, scaled)).mean()),
        )

    return {"temperature": temperature, "raw": measured(logits), "scaled": measured(logits / temperature)}


def _measured(confidence: FloatArray, correct: BoolArray, brier: float, nll: float) -> dict[str, Any]:
    bins = reliability(confidence, correct)
    return {"ece": expected_calibration_error(bins), "brier": brier, "nll": nll, "bins": [one._asdict() for one in bins]}
