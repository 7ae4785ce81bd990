"""From the items of a scored run to its metrics, each as a statistic that a bootstrap can work on.

Means over seeds, and each variant's difference to the full run of the same seed.
"""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy import stats

from warmline.ablation.variants import FULL
from warmline.metrics.statistics import FloatArray, Statistic, cluster_bootstrap, difference, macro_f1, weighted_mean, weighted_ratio
from warmline.sources import SOURCES
from warmline.tasks import TASKS


class Metric(NamedTuple):
    """What a metric is, for tables and pictures.

    Attributes:
        title: For tables; ED is EmpatheticDialogues, KL is to the base.
        unit: Of its values.
        better: Which way is better; None where that depends on what is wanted.
    """

    title: str
    unit: str
    better: Literal["higher", "lower"] | None


_SHORT = {"empathetic_dialogues": "ED", "esconv": "ESConv"}


def all_metrics() -> dict[str, Metric]:
    """Every metric, in the order of tables. KL has no better side: drift is how a model learns, and how it forgets."""
    heads, told = {}, [name for name, one in SOURCES.items() if "lm" in one.carries and "safety" not in one.carries and one.of_people]
    for name in TASKS:
        heads[f"{name}_accuracy"] = Metric(f"{name} accuracy", "share", "higher")
        heads[f"{name}_macro_f1"] = Metric(f"{name} macro-F1", "F1", "higher")
        heads[f"probe_{name}_accuracy"] = Metric(f"{name} probe acc.", "share", "higher")
        heads[f"probe_{name}_macro_f1"] = Metric(f"{name} probe F1", "F1", "higher")
    return {
        **heads,
        "lm_nats": Metric("LM loss", "nats a reply token", "lower"),
        **{f"lm_nats_{name}": Metric(f"LM loss, {_SHORT.get(name, name)}", "nats a reply token", "lower") for name in told},
        **{f"perplexity_{name}": Metric(f"perplexity, {_SHORT.get(name, name)}", "", "lower") for name in told},
        "kl_safety": Metric("KL, safety replies", "nats a reply token", None),
        "kl_task": Metric("KL, task replies", "nats a reply token", None),
    }


class Measured(NamedTuple):
    """One metric of one run.

    Attributes:
        statistic: On weights of the items.
        clusters: [items], what the bootstrap draws: conversations.
    """

    statistic: Statistic
    clusters: np.ndarray

    @property
    def value(self) -> float:
        """The metric itself: every item once."""
        return float(self.statistic(np.ones((1, len(self.clusters))))[0])


def measured(scores: dict[str, Any]) -> dict[str, Measured]:
    """The metrics that a scored run has, by their names in `all_metrics`.

    Args:
        scores: What `score_run` gave.
    """
    found = dict(_language(scores["task"], "nats"))
    for head, items in scores["heads"].items():
        if items is not None:
            found |= _classified(items, head, "")
    for head, items in scores["probes"].items():
        found |= _classified(items, head, "probe_")
    if scores["safety"]["kl"]:
        found["kl_safety"] = Measured(weighted_mean(scores["safety"]["kl"]), np.arange(len(scores["safety"]["kl"])))
    if scores["task"]["kl"]:
        found["kl_task"] = Measured(weighted_ratio(scores["task"]["kl"], scores["task"]["tokens"]), np.arange(len(scores["task"]["kl"])))
    return {name: found[name] for name in all_metrics() if name in found}


def measured_base(scores: dict[str, Any]) -> dict[str, Measured]:
    """The same for the untuned base, which a scored full run has beside its own scores: no heads, no drift."""
    found = dict(_language(scores["task"], "base_nats"))
    for head, items in scores["base"].items():
        found |= _classified(items, head, "probe_")
    return {name: found[name] for name in all_metrics() if name in found}


def _classified(items: dict[str, Any], head: str, prefix: str) -> dict[str, Measured]:
    truth, guess, clusters = (np.asarray(items[column]) for column in ("truth", "guess", "conversation"))
    return {
        f"{prefix}{head}_accuracy": Measured(weighted_mean(truth == guess), clusters),
        f"{prefix}{head}_macro_f1": Measured(macro_f1(truth, guess, TASKS[head].classes), clusters),
    }


def _language(task: dict[str, Any], column: str) -> Iterator[tuple[str, Measured]]:
    nats, tokens, sources = np.asarray(task[column]), np.asarray(task["tokens"]), np.asarray(task["source"])
    if len(nats):
        yield "lm_nats", Measured(weighted_ratio(nats, tokens), np.arange(len(nats)))
    for source in sorted(set(task["source"])):
        of_source = sources == source
        loss = weighted_ratio(nats[of_source], tokens[of_source])
        clusters = np.arange(int(of_source.sum()))
        yield f"lm_nats_{source}", Measured(loss, clusters)
        yield f"perplexity_{source}", Measured(_exponential(loss), clusters)


def _exponential(statistic: Statistic) -> Statistic:
    def exponential(weights: FloatArray) -> FloatArray:
        return np.asarray(np.exp(statistic(weights)))

    return exponential


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
