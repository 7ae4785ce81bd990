"""Means over seeds, and each variant's difference to the full run of the same seed."""

from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from warmline.ablation.metrics import Measured, all_metrics
from warmline.ablation.variants import FULL
from warmline.metrics.statistics import cluster_bootstrap, difference

CONFIDENCE = 0.95
LEAST_SEEDS = 3
"""Fewer give no interval over seeds: with two, the t quantile is 12.7 and the interval says nothing."""

Table = dict[str, dict[int, dict[str, Measured]]]
"""By variant, then seed, then metric."""


class Spread(NamedTuple):
    """A number that was measured once a seed."""

    mean: float
    sd: float | None
    interval: list[float] | None


def spread(values: list[float]) -> Spread:
    """Mean, standard deviation (n - 1) from two values on, and Student's 95 % interval of the mean from three on.

    Args:
        values: At least one.
    """
    mean = float(np.mean(values))
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    if sd is None or len(values) < LEAST_SEEDS:
        return Spread(mean, sd, None)
    reach = float(stats.t.ppf(0.5 + CONFIDENCE / 2, len(values) - 1)) * sd / len(values) ** 0.5
    return Spread(mean, sd, [mean - reach, mean + reach])


def summarise(table: Table) -> dict[str, dict[str, Any]]:
    """For each variant and metric the mean and the standard deviation over seeds; null where it was not measured."""
    summary: dict[str, dict[str, Any]] = {}
    for variant, seeds in table.items():
        summary[variant] = {}
        for metric in all_metrics():
            values = [found[metric].value for found in seeds.values() if metric in found]
            means = spread(values) if values else None
            summary[variant][metric] = means and {"seeds": len(values), "mean": means.mean, "sd": means.sd}
    return summary


def differences(table: Table) -> dict[str, dict[str, Any]]:
    """For each variant but `full`, variant minus full of the same seed, metric by metric.

    Returns:
        `by_seed`: the difference and its `items_interval`, a bootstrap over test conversations that knows nothing of other seeds. `mean`,
        `sd` and `seeds_interval` over seeds; the interval is null below three seeds. Null where either side was not measured.
    """
    return {variant: {metric: _paired(table, variant, metric) for metric in all_metrics()} for variant in table if variant != FULL}


def _paired(table: Table, variant: str, metric: str) -> dict[str, Any] | None:
    by_seed: dict[str, Any] = {}
    for seed, found in table[variant].items():
        full = table[FULL][seed]
        if metric not in found or metric not in full:
            continue
        own, other = found[metric], full[metric]
        interval = None
        if len(set(own.clusters.tolist())) > 1:
            interval = list(cluster_bootstrap(difference(own.statistic, other.statistic), own.clusters, seed, confidence=CONFIDENCE))
        by_seed[str(seed)] = {"difference": own.value - other.value, "items_interval": interval}
    if not by_seed:
        return None
    over = spread([one["difference"] for one in by_seed.values()])
    return {"by_seed": by_seed, "mean": over.mean, "sd": over.sd, "seeds_interval": over.interval}
