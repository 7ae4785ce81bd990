"""Ratings as the official harness computes them: TrueSkill over pairs, a win counted more often the clearer it is."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from trueskill import Rating, TrueSkill, rate_1vs1

START, SIGMA, BETA = 1200.0, 350 / 3, 350 / 6
MAX_DIFFERENCE = 30
"""Pluses by which a pair can be won, both orders summed, before it counts no more."""
ANCHORS = {"o3": 1500.0, "meta-llama/llama-3.2-1b-instruct": 200.0}
"""What the leaderboard's scale is fixed by."""
Z = 1.96


class RatingRules(NamedTuple):
    """What changed between versions of the harness.

    Attributes:
        wins: Most wins that one pair counts as, for the ratings.
        wins_for_sigma: Likewise, for the intervals.
        clamp_analysis: Whether an analysis is won 1 to 0, however clearly.
        window: Ranks by which two models may differ for their pairs to count; None for no limit.
    """

    wins: int = 20
    wins_for_sigma: int = 5
    clamp_analysis: bool = True
    window: int | None = 16


PROTOCOL = RatingRules()
"""Of the pinned revision."""
LAUNCH = RatingRules(wins=1, wins_for_sigma=1, clamp_analysis=False, window=9)
"""What reproduces the ratings published on 2025-04-28; found by search, the harness of that day is not archived."""


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


class Rated(NamedTuple):
    """A model's rating.

    Attributes:
        elo: TrueSkill's mu.
        sigma: Its uncertainty.
        low: Lower end of the interval, 1.96 sigma below.
        high: Upper end.
        normalised: On the leaderboard's scale; None without both anchors.
    """

    elo: float
    sigma: float
    low: float
    high: float
    normalised: float | None


def rate(comparisons: Sequence[Comparison], rules: RatingRules = PROTOCOL) -> dict[str, Rated]:
    """Rate every model that was compared.

    The ladder that the window is measured on comes from a first solution over all pairs, and is taken again until it stands.

    Args:
        comparisons: In the order they were made; TrueSkill depends on it.
        rules: Of the harness's version.
    """
    ratings = _solve(comparisons, rules.wins, rules.clamp_analysis)
    kept = list(comparisons)
    seen = set()
    while rules.window is not None:
        ladder = sorted(ratings, key=lambda model: ratings[model].mu)
        if tuple(ladder) in seen:
            break
        seen.add(tuple(ladder))
        rank = {model: at for at, model in enumerate(ladder)}
        kept = [pair for pair in comparisons if abs(rank[pair.test] - rank[pair.other]) <= rules.window]
        ratings = {**ratings, **_solve(kept, rules.wins, rules.clamp_analysis)}
    sigmas = _solve(kept, rules.wins_for_sigma, rules.clamp_analysis)
    scale = normalisation({model: rating.mu for model, rating in ratings.items()})
    rated = {}
    for model, rating in ratings.items():
        sigma = sigmas[model].sigma if model in sigmas else SIGMA
        normalised = None if scale is None else scale[0] * rating.mu + scale[1]
        rated[model] = Rated(rating.mu, sigma, rating.mu - Z * sigma, rating.mu + Z * sigma, normalised)
    return rated


def normalisation(elo: dict[str, float]) -> tuple[float, float] | None:
    """Factor and shift that put both anchors where the leaderboard has them; None unless both were rated, and apart."""
    if any(anchor not in elo for anchor in ANCHORS):
        return None
    (top, top_target), (low, low_target) = ANCHORS.items()
    if abs(elo[top] - elo[low]) < 1e-6:
        return None
    factor = (top_target - low_target) / (elo[top] - elo[low])
    return factor, top_target - factor * elo[top]


def pseudo_wins(difference: float, most: int) -> int:
    """How many wins a pair counts as: f = 0.5 + min(d / 30, 1) / 2, then ceil((f - 0.5) · 2 · most), at least 1."""
    fraction = 0.5 + min(difference / MAX_DIFFERENCE, 1.0) / 2  # by way of f, whose rounding lifts some pairs by one win, as in the harness
    return max(1, min(most, math.ceil((fraction - 0.5) / (0.5 / most))))


def _solve(comparisons: Sequence[Comparison], most: int, clamp: bool) -> dict[str, Rating]:
    """One pass over the pairs, both orders of a pair summed, in the order in which pairs first appear."""
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
