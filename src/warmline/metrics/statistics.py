"""Intervals: a bootstrap that resamples whole dialogues, and Wilson's for a share of few.

Turns of one dialogue resemble each other, so that resampling turns would promise too much. A bootstrap sample is therefore a draw of
*clusters* with replacement, and a cluster drawn twice counts twice. Instead of copying rows, each sample is a weight a row, and a statistic
works on all samples at once:

    correct = truth == guess
    interval = cluster_bootstrap(weighted_mean(correct), dialogues, seed=13)

A paired comparison resamples both sides together: `cluster_bootstrap(difference(statistic_a, statistic_b), dialogues, seed=13)`.
"""

from collections.abc import Callable, Sequence
from math import sqrt
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

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
    return multilabel_macro_f1(_one_hot(truth, classes), _one_hot(guess, classes))


def weighted_f1(truth: IntArray, guess: IntArray, classes: int) -> Statistic:
    """Mean of the F1 of `classes` classes, each weighted by how often it is true."""
    return multilabel_weighted_f1(_one_hot(truth, classes), _one_hot(guess, classes))


def multilabel_macro_f1(truth: BoolArray, guess: BoolArray) -> Statistic:
    """Unweighted mean over labels of F1 = 2 hits / (true + guessed); 0 for a label neither true nor guessed.

    Args:
        truth: [rows, labels].
        guess: [rows, labels].
    """
    each = _f1_of_each(truth, guess)
    return lambda weights: np.asarray(each(weights).mean(axis=1))


def multilabel_weighted_f1(truth: BoolArray, guess: BoolArray) -> Statistic:
    """Mean of the labels' F1, each weighted by how often it is true."""
    each, true = _f1_of_each(truth, guess), truth.astype(np.float64)

    def statistic(weights: FloatArray) -> FloatArray:
        support = weights @ true
        return np.asarray((each(weights) * support).sum(axis=1) / support.sum(axis=1))

    return statistic


def _f1_of_each(truth: BoolArray, guess: BoolArray) -> Callable[[FloatArray], FloatArray]:
    """From weights, [samples, rows], to each label's F1, [samples, labels]."""
    hits = (truth & guess).astype(np.float64)
    asked = truth.astype(np.float64) + guess

    def each(weights: FloatArray) -> FloatArray:
        below = weights @ asked
        return np.divide(2 * (weights @ hits), below, out=np.zeros_like(below), where=below > 0)

    return each


def _one_hot(classes_of_rows: IntArray, classes: int) -> BoolArray:
    return np.asarray(np.asarray(classes_of_rows)[:, None] == np.arange(classes))


class PairedDifference(NamedTuple):
    """Second share minus first, with its interval."""

    value: float
    interval: Interval


def paired_difference(first: Sequence[bool], second: Sequence[bool], confidence: float = 0.95) -> PairedDifference:
    """How much larger the second share is, with Newcombe's hybrid score interval for pairs (1998, Statistics in Medicine 17, method 10).

    A bootstrap of pairs that all agree gives [0, 0], however few they are; this one stays honest there, as Wilson's does for one share.

    Args:
        first: [cases].
        second: [cases], on the same cases in the same order.
        confidence: In (0, 1).

    Raises:
        ValueError: no case, or lists of different lengths.
    """
    pairs = list(zip(first, second, strict=True))
    n = len(pairs)
    both, only_first = pairs.count((True, True)), pairs.count((True, False))
    only_second, neither = pairs.count((False, True)), pairs.count((False, False))
    low_1, high_1 = wilson(both + only_first, n, confidence)
    low_2, high_2 = wilson(both + only_second, n, confidence)
    share_1, share_2 = (both + only_first) / n, (both + only_second) / n
    correlation = _correlation(both, only_first, only_second, neither)
    value = share_2 - share_1
    down = _reach(share_2 - low_2, high_1 - share_1, correlation)
    up = _reach(high_2 - share_2, share_1 - low_1, correlation)
    return PairedDifference(value, Interval(max(-1.0, value - down), min(1.0, value + up)))


def _correlation(both: int, only_first: int, only_second: int, neither: int) -> float:
    """Phi of the two by two table, towards zero by the continuity correction when positive; 0 where a margin is empty."""
    n = both + only_first + only_second + neither
    margins = (both + only_first) * (only_second + neither) * (both + only_second) * (only_first + neither)
    if not margins:
        return 0.0
    excess = both * neither - only_first * only_second
    return (max(excess - n / 2, 0) if excess > 0 else excess) / sqrt(margins)


def _reach(one: float, other: float, correlation: float) -> float:
    return sqrt(max(0.0, one * one - 2 * correlation * one * other + other * other))
