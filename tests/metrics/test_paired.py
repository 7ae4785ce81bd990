"""The paired interval against what it promises: coverage, symmetry, and the bootstrap where there are many pairs."""

import itertools
import math

import numpy as np
import pytest

from warmline.metrics.statistics import cluster_bootstrap, paired_difference, weighted_mean


def pairs(both: int, only_first: int, only_second: int, neither: int) -> tuple[list[bool], list[bool]]:
    counts = ((True, True, both), (True, False, only_first), (False, True, only_second), (False, False, neither))
    rows = [(first, second) for first, second, times in counts for _ in range(times)]
    return [first for first, _ in rows], [second for _, second in rows]


@pytest.mark.parametrize("shares", [(0.1, 0.2, 0.3, 0.4), (0.02, 0.05, 0.1, 0.83), (0.6, 0.1, 0.1, 0.2)])
def test_coverage_by_adding_up_every_outcome(shares: tuple[float, ...]) -> None:
    n, truth, covered = 14, shares[2] - shares[1], 0.0
    for a, b, c in itertools.product(range(n + 1), repeat=3):
        if a + b + c <= n:
            counts = (a, b, c, n - a - b - c)
            low, high = paired_difference(*pairs(*counts)).interval
            if low <= truth <= high:
                ways = math.factorial(n) / math.prod(math.factorial(count) for count in counts)
                covered += ways * math.prod(share**count for share, count in zip(shares, counts, strict=True))
    assert 0.93 < covered <= 1


def test_swapping_the_sides_mirrors_the_interval() -> None:
    first, second = pairs(5, 2, 9, 4)
    there, back = paired_difference(first, second), paired_difference(second, first)
    assert there.value == pytest.approx(7 / 20)
    assert there.interval == pytest.approx((-back.interval.high, -back.interval.low))


def test_many_pairs_agree_with_the_bootstrap() -> None:
    first, second = pairs(300, 150, 250, 300)
    change = np.asarray(second, dtype=float) - np.asarray(first, dtype=float)
    resampled = cluster_bootstrap(weighted_mean(change), np.arange(len(change)), seed=1, resamples=4000)
    assert paired_difference(first, second).interval == pytest.approx(resampled, abs=0.006)


def test_few_pairs_that_agree_prove_little() -> None:
    value, (low, high) = paired_difference([False] * 5, [False] * 5)
    assert value == 0
    assert low < -0.3
    assert high > 0.3


def test_no_pair_is_refused() -> None:
    with pytest.raises(ValueError, match="n >= 1"):
        paired_difference([], [])
    with pytest.raises(ValueError, match="shorter"):
        paired_difference([True, False], [True])
