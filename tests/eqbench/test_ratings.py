"""The solver, against the ratings that the leaderboard published."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import trueskill

from warmline.eqbench.judge import Job, Verdict
from warmline.eqbench.prompts import parse_pairwise
from warmline.eqbench.ratings import Comparison, in_stages, pseudo_wins, rate, solve
from warmline.eqbench.scores import ratings_report
from warmline.eqbench.suites import Scenario, official_suite


@pytest.fixture(scope="module")
def leaderboard(shared: Path) -> dict[str, Any]:
    with gzip.open(shared / "data" / "eqbench3" / "canonical_leaderboard_elo_results.2025-04-28.json.gz") as file:
        content: dict[str, Any] = json.load(file)
    return content


def comparisons(leaderboard: dict[str, Any]) -> list[Comparison]:
    judged = [each for each in leaderboard["__metadata__"]["global_pairwise_comparisons"] if "error" not in each]
    return [
        Comparison(
            each["pair"]["test_model"],
            each["pair"]["neighbor_model"],
            each["scenario_id"],
            int(each["pair"]["iteration_index"]),
            each["plus_for_test"],
            each["plus_for_other"],
            int(each["scenario_id"]) >= 400,
        )
        for each in judged
    ]


def within(pairs: list[Comparison], window: int) -> list[Comparison]:
    """The pairs of models at most so many ranks apart, on a ladder that is solved again until it stands."""
    ratings, kept, seen = solve(pairs, 1, clamp=False), pairs, set()
    while (ladder := tuple(sorted(ratings, key=lambda model: ratings[model].mu))) not in seen:
        seen.add(ladder)
        kept = [pair for pair in pairs if abs(ladder.index(pair.test) - ladder.index(pair.other)) <= window]
        ratings |= solve(kept, 1, clamp=False)
    return kept


def test_the_published_ratings_are_reproduced(leaderboard: dict[str, Any]) -> None:
    """All 27, from their 6,362 usable comparisons: within 1.2 points of a ladder of 552 (0.2 %), their sigmas within 0.06.

    By the rules of that day, found by search: one win a pair, analyses not clamped, models at most nine ranks apart.
    """
    published = {model: rating for model, rating in leaderboard.items() if model != "__metadata__"}
    rated = solve(within(comparisons(leaderboard), 9), 1, clamp=False)
    assert rated.keys() == published.keys()
    elo = {model: abs(rated[model].mu - published[model]["elo"]) for model in published}
    sigma = {model: abs(rated[model].sigma - published[model]["sigma"]) for model in published}
    print(f"largest difference: elo {max(elo.values()):.3f}, sigma {max(sigma.values()):.3f}")
    assert max(elo.values()) < 1.2
    assert max(sigma.values()) < 0.06
    order = sorted(published, key=lambda model: published[model]["elo"])
    ranks = {model: rank for rank, model in enumerate(sorted(rated, key=lambda model: rated[model].mu))}
    assert max(abs(ranks[model] - rank) for rank, model in enumerate(order)) <= 1


def test_the_judges_answers_give_the_stored_pluses(leaderboard: dict[str, Any], shared: Path) -> None:
    """Our parser, on every answer of the leaderboard's judge that is whole."""
    suite = official_suite(shared / "data" / "eqbench3" / "data")
    scenarios = {scenario.id: scenario for scenario in suite.scenarios}
    same = other = 0
    for each in leaderboard["__metadata__"]["global_pairwise_comparisons"]:
        if "error" in each or each["scenario_id"] not in scenarios:
            continue
        pluses = parse_pairwise(json.dumps(each["judge_response"]), suite.form(scenarios[each["scenario_id"]]), suite.labels)
        test, neighbour = ("first", "second") if each["order"].startswith("A0493:test") else ("second", "first")
        same += (pluses[test], pluses[neighbour]) == (each["plus_for_test"], each["plus_for_other"])
        other += 1
    print(f"{same} of {other} answers")
    assert other > 6000
    assert same == other


STAGED = [
    str(number)
    for number in (
        *(404,), *(1, 304, 9), *(101, 145, 407, 6), *(11, 134, 140, 3, 402, 410, 415, 420),
        13, 131, 132, 133, 136, 137, 138, 139, 141, 15, 2, 208, 301, 302, 303, 4, 401, 403, 405, 406, 408, 411, 412, 413, 414, 416, 417,
        418, 419,
    )
]  # fmt: skip
"""The official scenarios, in the order in which the harness compares two models on them."""


def test_pairs_are_fed_in_stages(shared: Path) -> None:
    scenarios = [scenario.id for scenario in official_suite(shared / "data" / "eqbench3" / "data").scenarios]
    assert sorted(scenarios) == sorted(STAGED)
    assert in_stages((scenario, 1) for scenario in scenarios) == [(scenario, 1) for scenario in STAGED]
    assert in_stages([]) == []


def test_iterations_are_texts_and_404_leads_every_stage() -> None:
    pairs = [(scenario, iteration) for scenario in ("1", "404", "9") for iteration in range(1, 12)]
    order = in_stages(pairs)
    assert sorted(order) == sorted(pairs)
    assert order[:4] == [("404", 1), ("1", 7), ("404", 2), ("9", 11)]  # of the 32 left: first, middle and last, then sorted
    assert order[16:] == sorted(order[16:], key=lambda pair: (pair[0], str(pair[1])))
    assert order.index(("9", 10)) < order.index(("9", 2))


@pytest.mark.parametrize(
    ("test", "other", "stages"),
    [
        ("google/gemini-2.5-flash-preview", "google/gemma-3-27b-it", (1, 4, 8)),
        ("qwen/qwq-32b", "gpt-4.5-preview-2025-02-27", (1, 4, 8)),
        ("google/gemini-2.5-pro-preview-03-25", "openai/gpt-4.1", (1, 4, 8)),
        ("deepseek/deepseek-r1", "openai/o4-mini", (1, 8)),
        ("openai/chatgpt-4o-latest", "o3", (1, 8)),
        ("google/gemini-2.0-flash-001", "anthropic/claude-3.5-sonnet", (1,)),
    ],
)
def test_the_leaderboards_own_order(leaderboard: dict[str, Any], test: str, other: str, stages: tuple[int, ...]) -> None:
    """Models met in those of the stages in which their ranks were near enough: every one of up to 45 pairs stands where it was judged."""
    judged = [pair for pair in comparisons(leaderboard) if (pair.test, pair.other) == (test, other)]
    order = list(dict.fromkeys((pair.scenario, pair.iteration) for pair in judged))
    assert len(order) >= 41
    assert in_stages(order, stages) == order


def test_ratings_follow_that_order() -> None:
    """One clear win, which is fed first, and then narrow losses: the same pairs sorted rate otherwise."""

    def verdict(scenario: str, order: str) -> Verdict:
        tuned, base = (30.0, 0.0) if scenario == "404" else (8.0, 10.0)
        first, second = (tuned, base) if order == "tuned first" else (base, tuned)
        job = Job("pairwise", Scenario(scenario, "role_play", "", ("",), ""), 1, order, "", "")
        return Verdict(job, {"first": first, "second": second}, None)

    verdicts = [verdict(scenario, order) for scenario in sorted(STAGED) for order in ("tuned first", "base first")]
    fed = [Comparison("tuned", "base", name, 1, 30 if name == "404" else 8, 0 if name == "404" else 10, False) for name in STAGED]
    both_orders = [each for each in fed for _ in range(2)]
    as_sorted = sorted(both_orders, key=lambda pair: pair.scenario)
    report = ratings_report(verdicts) or {}
    assert report["tuned"] == rate(both_orders)["tuned"]
    assert abs(report["tuned"]["elo"] - rate(as_sorted)["tuned"]["elo"]) > 1
    failed = verdicts[0]._replace(scores=None, error="never answered")
    assert ratings_report([failed]) is None


@pytest.mark.parametrize(
    ("difference", "most", "wins"), [(0, 20, 1), (1, 20, 1), (3, 20, 3), (15, 20, 10), (29, 20, 20), (99, 20, 20), (15, 5, 3), (30, 1, 1)]
)
def test_a_clearer_win_counts_as_more(difference: float, most: int, wins: int) -> None:
    """3 pluses of 30 are exactly 2 of 20 wins, and 3 in floating point: the harness rounds so, and so do we."""
    assert pseudo_wins(difference, most) == wins


def test_an_analysis_is_won_one_to_nothing() -> None:
    analysis = Comparison("a", "b", "401", 1, 9, 25, analysis=True)
    assert analysis.pluses(clamp=True) == (0, 1)
    assert analysis.pluses(clamp=False) == (9, 25)
    assert analysis._replace(plus_other=9).pluses(clamp=True) == (0, 0)


def test_both_orders_are_one_pair() -> None:
    """Two pluses more in one order and two less in the other are a draw: nobody moves."""
    drawn = rate([Comparison("a", "b", "1", 1, 8, 10, False), Comparison("a", "b", "1", 1, 10, 8, False)])
    assert drawn["a"]["elo"] == pytest.approx(drawn["b"]["elo"]) == pytest.approx(1200)
    assert drawn["a"]["elo_normalised"] is None
    assert drawn["a"]["sigma"] < 350 / 3
    won = rate([Comparison("a", "b", "1", 1, 20, 0, False), Comparison("b", "a", "1", 1, 8, 10, False)])
    assert won["a"]["elo"] > 1200 > won["b"]["elo"]
    assert won["a"]["interval"][0] == pytest.approx(won["a"]["elo"] - 1.96 * won["a"]["sigma"])


def test_draws_make_ratings_surer() -> None:
    """As the package's, between players that differ; between equals, its sigmas grow and ours must not."""
    win = Comparison("a", "b", "0", 1, 30, 0, False)
    draws = [Comparison("a", "b", str(n), 1, 5, 5, False) for n in range(1, 46)]
    equals = rate(draws)
    assert (equals["a"]["elo"], equals["b"]["elo"]) == pytest.approx((1200, 1200))
    assert equals["a"]["sigma"] < 85  # 350 / 3 / sqrt(2) = 82.5 stays open: only the difference was seen
    game = trueskill.TrueSkill(mu=1200, sigma=350 / 3, beta=350 / 6, tau=0, draw_probability=0)
    winner, loser = trueskill.rate_1vs1(game.create_rating(), game.create_rating(), env=game)
    winner, loser = trueskill.rate_1vs1(winner, loser, drawn=True, env=game)
    ours = solve([win, draws[0]], 1)
    assert (ours["a"].mu, ours["b"].mu) == pytest.approx((winner.mu, loser.mu), rel=1e-5)
    assert (ours["a"].sigma, ours["b"].sigma) == pytest.approx((winner.sigma, loser.sigma), rel=1e-4)
