"""The difference of two shares that were counted on the same cases."""

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

from warmline.evaluation.statistics import Interval, wilson


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
