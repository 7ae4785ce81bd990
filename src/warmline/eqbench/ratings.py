"""Ratings as the official harness computes them: TrueSkill over pairs, a win counted more often the clearer it is.

`solve` is checked against the ratings that the leaderboard published, in tests/eqbench/test_ratings.py.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from trueskill import Rating, TrueSkill, rate_1vs1

START, SIGMA, BETA = 1200.0, 350 / 3, 350 / 6
MAX_DIFFERENCE = 30
"""Pluses by which a pair can be won, both orders summed, before it counts no more."""
Z = 1.96
WINS, WINS_FOR_SIGMA = 20, 5
"""Most wins that one pair counts as, for the ratings and for their intervals."""
STAGES = (1, 4, 8, 16)
"""Pairs of two models that the harness has judged at the end of each stage; one more takes the rest."""
FIRST = "404"
"""The scenario that every stage prefers."""


class Comparison(NamedTuple):
    """One judged pair in one order.

    Attributes:
        test: One model.
        other: The other.
        scenario: Id.
        iteration: Which of several.
        plus_test: Pluses of `test`, unclamped.
        plus_other: Pluses of `other`.
        analysis: Whether it is an analysis.
    """

    test: str
    other: str
    scenario: str
    iteration: int
    plus_test: float
    plus_other: float
    analysis: bool

    def pluses(self, clamp: bool) -> tuple[float, float]:
        """Of `test` and `other`; an analysis is clamped to 1 to 0, or 0 to 0 in a draw."""
        if not (self.analysis and clamp):
            return self.plus_test, self.plus_other
        return float(self.plus_test > self.plus_other), float(self.plus_other > self.plus_test)


def rate(comparisons: Sequence[Comparison]) -> dict[str, dict[str, Any]]:
    """Rate every model that was compared, by the pinned revision's rules; its window of 16 ranks leaves out no pair of two models.

    Args:
        comparisons: In the order they were made; TrueSkill depends on it.

    Returns:
        By model `elo` (TrueSkill's mu), `sigma`, `interval` (1.96 sigma around it), and `elo_normalised`, None: the leaderboard's scale is
        fixed by two models that are not compared here.
    """
    ratings, narrow = solve(comparisons, WINS), solve(comparisons, WINS_FOR_SIGMA)
    return {
        model: {
            "elo": rating.mu,
            "sigma": narrow[model].sigma,
            "interval": [rating.mu - Z * narrow[model].sigma, rating.mu + Z * narrow[model].sigma],
            "elo_normalised": None,
        }
        for model, rating in ratings.items()
    }


def in_stages(pairs: Iterable[tuple[str, int]], stages: Sequence[int] = STAGES) -> list[tuple[str, int]]:
    """The order in which the harness judges the pairs of two models, and rates them: a first look, then more and more of them.

    Each stage spreads its picks evenly over what is left, and takes them as sorted texts: of the official scenarios 404; 1, 304, 9; 101,
    145, 407, 6; and so on. Two models are always neighbours on their ladder, so its ranks change nothing.

    Args:
        pairs: Scenario and iteration of each, in any order.
        stages: As of STAGES.
    """
    left = sorted(pairs, key=lambda pair: (pair[0], str(pair[1])))
    order: list[tuple[str, int]] = []
    for most in stages:
        preferred_first = sorted(left, key=lambda pair: (pair[0] != FIRST, *pair))
        picked = set(_evenly(preferred_first, most - len(order)))
        order += [pair for pair in left if pair in picked]
        left = [pair for pair in left if pair not in picked]
    return order + left


def _evenly(pairs: Sequence[tuple[str, int]], count: int) -> Sequence[tuple[str, int]]:
    """So many of them from the first to the last; a single one is the first."""
    if count >= len(pairs):
        return pairs
    step = (len(pairs) - 1) / max(1, count - 1)
    return [pairs[round(at * step)] for at in range(count)]


def pseudo_wins(difference: float, most: int) -> int:
    """How many wins a pair counts as: f = 0.5 + min(d / 30, 1) / 2, then ceil((f - 0.5) · 2 · most), at least 1."""
    fraction = 0.5 + min(difference / MAX_DIFFERENCE, 1.0) / 2  # by way of f, whose rounding lifts some pairs by one win, as in the harness
    return max(1, min(most, math.ceil((fraction - 0.5) / (0.5 / most))))


def solve(comparisons: Sequence[Comparison], most: int, clamp: bool = True) -> dict[str, Rating]:
    """One pass over the pairs, both orders of a pair summed, in the order in which pairs first appear.

    Args:
        comparisons: As of `rate`.
        most: Wins that one pair counts as at most.
        clamp: Whether an analysis is won 1 to 0, however clearly.
    """
    pairs: dict[tuple[str, str, str, int], list[float]] = {}
    for pair in comparisons:
        first, second = sorted((pair.test, pair.other))
        sums = pairs.setdefault((first, second, pair.scenario, pair.iteration), [0.0, 0.0])
        test, other = pair.pluses(clamp)
        sums[pair.test != first] += test
        sums[pair.test == first] += other
    game = TrueSkill(mu=START, sigma=SIGMA, beta=BETA, tau=0.0, draw_probability=0.0)
    ratings: dict[str, Rating] = {}
    for (first, second, _, _), (one, two) in pairs.items():
        ratings.setdefault(first, game.create_rating())
        ratings.setdefault(second, game.create_rating())
        if one == two:
            ratings[first], ratings[second] = _draw(ratings[first], ratings[second])
            continue
        winner, loser = (first, second) if one > two else (second, first)
        for _ in range(pseudo_wins(abs(one - two), most)):
            ratings[winner], ratings[loser] = rate_1vs1(ratings[winner], ratings[loser], env=game)
    return ratings


def _draw(first: Rating, second: Rating) -> tuple[Rating, Rating]:
    """A draw with a draw margin of 0: both skills, given that the two performances were equal.

    The package agrees, except between players whose ratings are exactly equal, such as before their first win: there it loses the update to
    rounding, and both sigmas grow with every draw.
    """
    total = 2 * BETA**2 + first.sigma**2 + second.sigma**2
    gap = first.mu - second.mu
    return (
        Rating(first.mu - first.sigma**2 / total * gap, first.sigma * math.sqrt(1 - first.sigma**2 / total)),
        Rating(second.mu + second.sigma**2 / total * gap, second.sigma * math.sqrt(1 - second.sigma**2 / total)),
    )
