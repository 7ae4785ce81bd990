"""Intervals: a bootstrap that resamples whole dialogues, and Wilson's for a share of few.

Turns of one dialogue resemble each other, so that resampling turns would promise too much. A bootstrap sample is therefore a draw of
*clusters* with replacement, and a cluster drawn twice counts twice. Instead of copying rows, each sample is a weight a row, and a statistic
works on all samples at once:

    correct = truth == guess
    interval = cluster_bootstrap(weighted_mean(correct), dialogues, seed=13)

A paired comparison resamples both sides together: `cluster_bootstrap(difference(statistic_a, statistic_b), dialogues, seed=13)`.
"""

from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

Statistic = Callable[[FloatArray], FloatArray]
"""From the rows' weights, [samples, rows], to the statistic of each sample, [samples]; NaN where it is undefined."""

RESAMPLES = 1000
_CHUNK = 2_000_000
"""Weights held at once, 8 bytes each: 16 MB, and a statistic's intermediates of about the same size."""


class Interval(NamedTuple):
    """The two ends; a plain `[low, high]` in JSON."""

    low: float
    high: float


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a share, honest for few trials and at 0 and 1.

    Args:
        successes: From 0 to n.
        n: Independent trials, at least 1.
        confidence: In (0, 1).

    Returns:
        Ends in [0, 1]; 0 of 20 gives about (0, 0.16).

    Raises:
        ValueError: successes outside 0..n, or no trial.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}: expected 0 <= successes <= n and n >= 1")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / n
    centre = share + z * z / (2 * n)
    reach = z * float(np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)))
    scale = 1 + z * z / n
    low = 0.0 if successes == 0 else (centre - reach) / scale
    high = 1.0 if successes == n else (centre + reach) / scale
    return Interval(low, high)


def bootstrap_samples(
    statistic: Statistic, clusters: Sequence[Any] | npt.NDArray[Any], seed: int, resamples: int = RESAMPLES
) -> FloatArray:
    """The statistic of each bootstrap sample, where it is defined.

    Args:
        statistic: Works on many samples at once.
        clusters: [rows], the dialogue (scenario, prompt) each row belongs to; every row its own where rows are independent.
        seed: Of the draws: the same seed and clusters give the same samples to every statistic.
        resamples: Number of samples.

    Returns:
        [samples], at most `resamples`: those without a value (no row of the needed kind was drawn) are left out.

    Raises:
        ValueError: fewer than two clusters, or no sample has a value.
    """
    names, cluster_of_row = np.unique(np.asarray(clusters), return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"{len(names)} clusters: a bootstrap needs at least two")
    random = np.random.default_rng(seed)
    together = max(1, _CHUNK // max(len(names), len(cluster_of_row)))
    values = []
    for start in range(0, resamples, together):
        samples = min(together, resamples - start)
        drawn = random.integers(len(names), size=(samples, len(names))) + len(names) * np.arange(samples)[:, None]
        times = np.bincount(drawn.ravel(), minlength=samples * len(names)).reshape(samples, len(names)).astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            values.append(statistic(times[:, cluster_of_row]))
    found = np.concatenate(values)
    found = found[np.isfinite(found)]
    if not len(found):
        raise ValueError("the statistic has no value in any bootstrap sample")
    return found


def cluster_bootstrap(
    statistic: Statistic,
    clusters: Sequence[Any] | npt.NDArray[Any],
    seed: int,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
) -> Interval:
    """Percentile interval of a statistic when whole clusters are drawn again with replacement.

    Args:
        statistic: For instance `weighted_mean(correct)`.
        clusters: [rows], as for `bootstrap_samples`.
        seed: Of the draws.
        resamples: Number of samples.
        confidence: In (0, 1).

    Raises:
        ValueError: as for `bootstrap_samples`.
    """
    return percentiles(bootstrap_samples(statistic, clusters, seed, resamples), confidence)


def percentiles(samples: FloatArray, confidence: float = 0.95) -> Interval:
    """The middle `confidence` of the samples."""
    low, high = np.quantile(samples, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))


def point(statistic: Statistic, rows: int) -> float:
    """The statistic of the data itself: every row once."""
    return float(statistic(np.ones((1, rows)))[0])


def weighted_mean(values: Sequence[float] | npt.NDArray[Any]) -> Statistic:
    """The mean of one number a row, such as 1 where a guess is right."""
    numbers = np.asarray(values, dtype=np.float64)
    return lambda weights: weights @ numbers / weights.sum(axis=1)


def weighted_ratio(numerators: Sequence[float] | npt.NDArray[Any], denominators: Sequence[float] | npt.NDArray[Any]) -> Statistic:
    """The ratio of two sums over the rows, such as nats over tokens."""
    above, below = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    return lambda weights: (weights @ above) / (weights @ below)


def difference(first: Statistic, second: Statistic) -> Statistic:
    """`first - second` on the same samples: the paired comparison of two systems on the same rows."""
    return lambda weights: first(weights) - second(weights)


def macro_f1(truth: IntArray, guess: IntArray, classes: int) -> Statistic:
    """Unweighted mean of the F1 of `classes` classes; a class neither true nor guessed counts 0, as in scikit-learn.

    Args:
        truth: [rows].
        guess: [rows].
        classes: How many there are.
    """
    each = np.arange(classes)
    return multilabel_macro_f1(np.asarray(truth)[:, None] == each, np.asarray(guess)[:, None] == each)


def multilabel_macro_f1(truth: npt.NDArray[np.bool_], guess: npt.NDArray[np.bool_]) -> Statistic:
    """Unweighted mean over labels of F1 = 2 hits / (true + guessed); 0 for a label neither true nor guessed.

    Args:
        truth: [rows, labels].
        guess: [rows, labels].
    """
    hits = (truth & guess).astype(np.float64)
    asked = truth.astype(np.float64) + guess

    def statistic(weights: FloatArray) -> FloatArray:
        below = weights @ asked
        return np.asarray(np.divide(2 * (weights @ hits), below, out=np.zeros_like(below), where=below > 0).mean(axis=1))

    return statistic
