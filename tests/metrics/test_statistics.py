"""Intervals against a naive loop that copies the rows of every drawn dialogue."""

import random

import numpy as np
import pytest
from sklearn.metrics import f1_score

from warmline.metrics.scores import with_intervals
from warmline.metrics.statistics import (
    Interval,
    bootstrap_samples,
    cluster_bootstrap,
    difference,
    macro_f1,
    multilabel_macro_f1,
    point,
    weighted_mean,
    weighted_ratio,
    wilson,
)

RNG = np.random.default_rng(0)
DIALOGUES = RNG.integers(60, size=400)
TRUTH = RNG.integers(5, size=400)
GUESS = np.where(RNG.random(400) < 0.4 + 0.3 * (DIALOGUES % 2), TRUTH, RNG.integers(5, size=400))


def naive(value, clusters, resamples=4000) -> Interval:
    """Draw dialogues one by one, copy their rows, compute the statistic on the copy."""
    draw = random.Random(1)
    names = sorted(set(clusters.tolist()))
    rows = {name: np.flatnonzero(clusters == name) for name in names}
    values = [value(np.concatenate([rows[draw.choice(names)] for _ in names])) for _ in range(resamples)]
    return Interval(*np.quantile(values, [0.025, 0.975]))


def test_accuracy_interval_equals_the_naive_loop() -> None:
    fast = cluster_bootstrap(weighted_mean(TRUTH == GUESS), DIALOGUES, seed=3, resamples=4000)
    slow = naive(lambda rows: (TRUTH == GUESS)[rows].mean(), DIALOGUES)
    assert fast == pytest.approx(slow, abs=0.005)  # Monte Carlo error of two draws of 4,000
    assert fast.high - fast.low > 0.05


def test_ratio_and_paired_difference_equal_the_naive_loop() -> None:
    nats, tokens = RNG.random(400) * 9, RNG.integers(1, 9, size=400)
    other = nats * (0.8 + 0.2 * RNG.random(400))
    fast = cluster_bootstrap(difference(weighted_ratio(nats, tokens), weighted_ratio(other, tokens)), DIALOGUES, seed=3, resamples=4000)
    slow = naive(lambda rows: (nats[rows].sum() - other[rows].sum()) / tokens[rows].sum(), DIALOGUES)
    assert fast == pytest.approx(slow, rel=0.02)


def test_macro_f1_of_weights_is_macro_f1_of_copied_rows() -> None:
    """Exact: whole weights mean copies, also when a class is absent from the sample."""
    weights = RNG.integers(3, size=(20, 400)).astype(float)
    weights[0, TRUTH == 2] = 0
    weights[0, GUESS == 2] = 0
    for row, value in zip(weights, macro_f1(TRUTH, GUESS, 5)(weights), strict=True):
        copied = np.repeat(np.arange(400), row.astype(int))
        expected = f1_score(TRUTH[copied], GUESS[copied], labels=range(5), average="macro", zero_division=0)
        assert value == pytest.approx(expected)


def test_multilabel_macro_f1() -> None:
    truth, guess = RNG.random((50, 4)) < 0.3, RNG.random((50, 4)) < 0.3
    truth[:, 3] = guess[:, 3] = False
    assert point(multilabel_macro_f1(truth, guess), 50) == pytest.approx(f1_score(truth, guess, average="macro", zero_division=0))


def test_a_dialogue_is_drawn_whole() -> None:
    """Ten copies of every row change nothing when they share a cluster, and would shrink the interval if they did not."""
    correct = (TRUTH == GUESS).astype(float)
    once = cluster_bootstrap(weighted_mean(correct), np.arange(400), seed=5)
    copies = cluster_bootstrap(weighted_mean(np.repeat(correct, 10)), np.repeat(np.arange(400), 10), seed=5)
    apart = cluster_bootstrap(weighted_mean(np.repeat(correct, 10)), np.arange(4000), seed=5)
    assert copies == pytest.approx(once)
    assert apart.high - apart.low < 0.5 * (once.high - once.low)


def test_seeded_and_independent_of_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    statistic = weighted_mean(TRUTH == GUESS)
    whole = bootstrap_samples(statistic, DIALOGUES, seed=7)
    assert (whole == bootstrap_samples(statistic, DIALOGUES, seed=7)).all()
    assert (whole != bootstrap_samples(statistic, DIALOGUES, seed=8)).any()
    monkeypatch.setattr("warmline.metrics.statistics._CHUNK", 400 * 37)
    np.testing.assert_array_equal(bootstrap_samples(statistic, DIALOGUES, seed=7), whole)


def test_samples_without_a_value_are_left_out() -> None:
    values = bootstrap_samples(weighted_ratio([1, 2, 3, 0], [1, 1, 1, 0]), ["a", "b", "c", "d"], seed=1)
    assert 900 < len(values) < 1000  # (1/4)^4 of the samples draw only the row without a denominator
    assert np.isfinite(values).all()


def test_refusals() -> None:
    with pytest.raises(ValueError, match="at least two"):
        cluster_bootstrap(weighted_mean([1, 0]), ["same", "same"], seed=1)
    with pytest.raises(ValueError, match="no value"):
        cluster_bootstrap(weighted_ratio([1, 0], [0, 0]), [1, 2], seed=1)
    with pytest.raises(ValueError, match="0 <= successes <= n"):
        wilson(3, 2)


@pytest.mark.parametrize(
    ("successes", "n", "expected"),
    [(0, 20, (0.0, 0.1611)), (20, 20, (0.8389, 1.0)), (9, 10, (0.5958, 0.9821)), (50, 100, (0.4038, 0.5962))],
)
def test_wilson(successes: int, n: int, expected: tuple[float, float]) -> None:
    """Published examples; both ends solve the equation that defines the interval, |share - p| = z sqrt(p (1 - p) / n)."""
    interval = wilson(successes, n)
    assert interval == pytest.approx(expected, abs=1e-4)
    for end in interval:
        if 0 < end < 1:
            assert abs(successes / n - end) == pytest.approx(1.959964 * (end * (1 - end) / n) ** 0.5, rel=1e-5)


def test_a_statistic_without_a_value_is_null() -> None:
    undefined = lambda weights: np.full(len(weights), np.nan)  # noqa: E731
    found = with_intervals({"mcc": undefined, "mean": weighted_mean([0, 1, 1])}, np.arange(3), 13)
    assert found["mcc"] is None is found["intervals"]["mcc"]
    assert found["intervals"]["mean"].low < found["mean"] < found["intervals"]["mean"].high
