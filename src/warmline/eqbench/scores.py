"""From verdicts to numbers: the harness's own, and beside them what it does not say."""

import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from warmline.eqbench.judge import ORDERS, Verdict
from warmline.eqbench.play import MODELS
from warmline.eqbench.prompts import TOP_SCORE
from warmline.eqbench.ratings import Comparison, in_stages, rate
from warmline.eqbench.suites import Suite
from warmline.metrics.statistics import Interval, cluster_bootstrap, weighted_mean

_MAX_RUBRIC = 100.0
_SCALE = _MAX_RUBRIC / TOP_SCORE


class Pair(NamedTuple):
    """One scenario and iteration, judged in both orders.

    Attributes:
        scenario: Id.
        tuned: Pluses of the tuned model, an analysis clamped, by order: tuned first, base first.
        base: Likewise of the base.
    """

    scenario: str
    tuned: tuple[float, float]
    base: tuple[float, float]

    @property
    def outcome(self) -> float:
        """1 if the tuned model has more pluses over both orders, 0.5 in a draw, else 0."""
        return _outcome(sum(self.tuned), sum(self.base))

    @property
    def flipped(self) -> bool:
        """Whether swapping the order changed who wins."""
        first, second = (_outcome(tuned, base) for tuned, base in zip(self.tuned, self.base, strict=True))
        return first != second


def rubric_report(suite: Suite, verdicts: Sequence[Verdict], iterations: int, seed: int) -> dict[str, Any]:
    """Rubric scores of base and tuned: the mean over tasks of the mean of the scored criteria, rounded to 0.01 as in the harness, times 5.

    Args:
        suite: Of the verdicts.
        verdicts: Of rubric jobs.
        iterations: Times each scenario was played.
        seed: Of the bootstrap.

    Returns:
        For each model `score` with its scenario-clustered interval, tasks scored of tasks, and the mean of every criterion (0 to 20);
        and the paired difference over the tasks scored for both; intervals and difference are of scores before rounding.
    """
    tasks = len(suite.scenarios) * iterations
    report: dict[str, Any] = {}
    means: dict[str, dict[tuple[str, int], float]] = {}
    for model in MODELS:
        scored = {
            (verdict.job.scenario.id, verdict.job.iteration): _task_score(suite, verdict)
            for verdict in verdicts
            if verdict.job.subject == model and verdict.scores is not None
        }
        means[model] = scored
        report[model] = {
            "score": _rubric_score(list(scored.values())) if scored else None,
            "reason": None if scored else "no task was scored",
            "interval": _interval([_SCALE * score for score in scored.values()], [task[0] for task in scored], seed),
            "tasks": tasks,
            "tasks_scored": len(scored),
            "criteria": _criteria([verdict for verdict in verdicts if verdict.job.subject == model]),
        }
    both = [task for task in means["base"] if task in means["tuned"]]
    gains = [_SCALE * (means["tuned"][task] - means["base"][task]) for task in both]
    report["difference"] = {
        "tuned_minus_base": float(np.mean(gains)) if gains else None,
        "interval": _interval(gains, [task[0] for task in both], seed),
        "tasks": len(both),
    }
    return report


def pairwise_report(suite: Suite, verdicts: Sequence[Verdict], iterations: int, seed: int) -> dict[str, Any]:
    """How often the tuned model wins over the base, both orders of a pair merged.

    Args:
        suite: Of the verdicts.
        verdicts: Of pairwise jobs, both orders.
        iterations: Times each scenario was played.
        seed: Of the bootstrap.

    Returns:
        `win_rate` (a draw is half a win) with its scenario-clustered interval and what may be claimed, `order_flip_rate`, the pairs
        judged in both orders of all pairs, and the pairs with one order only, which are left out here and counted.
    """
    answers: dict[tuple[str, int], dict[str, tuple[float, float]]] = {}
    for verdict in verdicts:
        orders = answers.setdefault((verdict.job.scenario.id, verdict.job.iteration), {})
        if verdict.scores is not None:
            orders[verdict.job.subject] = _comparison(verdict).pluses(clamp=True)
    pairs = []
    for (scenario, _), orders in answers.items():
        if len(orders) == len(ORDERS):
            (tuned_1, base_1), (tuned_2, base_2) = (orders[order] for order in ORDERS)
            pairs.append(Pair(scenario, (tuned_1, tuned_2), (base_1, base_2)))
    outcomes, clusters = [pair.outcome for pair in pairs], [pair.scenario for pair in pairs]
    interval = _interval(outcomes, clusters, seed)
    return {
        "win_rate": float(np.mean(outcomes)) if pairs else None,
        "reason": None if pairs else "no pair was judged in both orders",
        "interval": interval,
        "claim": claim(interval),
        "wins": outcomes.count(1.0),
        "draws": outcomes.count(0.5),
        "losses": outcomes.count(0.0),
        "order_flip_rate": float(np.mean([pair.flipped for pair in pairs])) if pairs else None,
        "pairs": len(suite.scenarios) * iterations,
        "pairs_judged": len(pairs),
        "pairs_with_one_order": sum(len(orders) == 1 for orders in answers.values()),
    }


def ratings_report(verdicts: Sequence[Verdict]) -> dict[str, Any] | None:
    """TrueSkill ratings of base and tuned from these pairs alone, as the harness solves them; None without a usable verdict.

    Args:
        verdicts: Of pairwise jobs, the tuned model first and then the base first.
    """
    pairs = {(verdict.job.scenario.id, verdict.job.iteration) for verdict in verdicts}
    place = {pair: at for at, pair in enumerate(in_stages(pairs))}
    staged = sorted(verdicts, key=lambda verdict: place[verdict.job.scenario.id, verdict.job.iteration])
    comparisons = [_comparison(verdict) for verdict in staged if verdict.scores is not None]
    if not comparisons:
        return None
    return {
        **rate(comparisons),
        "reason": "no normalised rating: the leaderboard's scale is fixed by o3 and llama-3.2-1b-instruct, and neither was compared here; "
        "a two-model rating is not on that scale",
    }


def claim(interval: Interval | None) -> str:
    """What an interval of the win rate allows to be said."""
    if interval is None:
        return "none: no interval"
    if interval.low > 0.5:
        return "the judge prefers the tuned model"
    if interval.high < 0.5:
        return "the judge prefers the base"
    return "none: the interval includes 50 %"


def _comparison(verdict: Verdict) -> Comparison:
    scores = verdict.scores or {}
    tuned, base = ("first", "second") if verdict.job.subject == "tuned first" else ("second", "first")
    scenario = verdict.job.scenario
    return Comparison("tuned", "base", scenario.id, verdict.job.iteration, scores[tuned], scores[base], scenario.kind == "analysis")


def _task_score(suite: Suite, verdict: Verdict) -> float:
    """0 to 20."""
    scores = verdict.scores or {}
    return statistics.mean(scores[criterion] for criterion in suite.form(verdict.job.scenario).scored)


def _rubric_score(tasks: Sequence[float]) -> float:
    """0 to 100, of the tasks' 0 to 20; the harness rounds before it scales, and its mean is exact, which decides ties."""
    return round(statistics.mean(tasks), 2) * _SCALE


def _criteria(verdicts: Sequence[Verdict]) -> dict[str, dict[str, float]]:
    values: dict[str, list[float]] = {}
    for verdict in verdicts:
        for criterion, score in (verdict.scores or {}).items():
            values.setdefault(criterion, []).append(score)
    return {criterion: {"mean": float(np.mean(scores)), "n": len(scores)} for criterion, scores in values.items()}


def _interval(values: Sequence[float], clusters: Sequence[str], seed: int) -> Interval | None:
    """Bootstrap over scenarios; None for fewer than two of them."""
    return cluster_bootstrap(weighted_mean(values), clusters, seed) if len(set(clusters)) > 1 else None


def _outcome(tuned: float, base: float) -> float:
    return 1.0 if tuned > base else 0.0 if tuned < base else 0.5
