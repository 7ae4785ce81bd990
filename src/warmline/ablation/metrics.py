"""From the items of a scored run to its metrics, each as a statistic that a bootstrap can work on."""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np

from warmline.metrics.statistics import FloatArray, Statistic, macro_f1, weighted_mean, weighted_ratio
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


_LANGUAGE: dict[str, Metric] = {
    "lm_nats": Metric("LM loss", "nats a reply token", "lower"),
    "lm_nats_empathetic_dialogues": Metric("LM loss, ED", "nats a reply token", "lower"),
    "lm_nats_esconv": Metric("LM loss, ESConv", "nats a reply token", "lower"),
    "perplexity_empathetic_dialogues": Metric("perplexity, ED", "", "lower"),
    "perplexity_esconv": Metric("perplexity, ESConv", "", "lower"),
    "kl_safety": Metric("KL, safety replies", "nats a reply token", None),
    "kl_task": Metric("KL, task replies", "nats a reply token", None),
}


def all_metrics() -> dict[str, Metric]:
    """Every metric, in the order of tables. KL has no better side: drift is how a model learns, and how it forgets."""
    heads = {}
    for name in TASKS:
        heads[f"{name}_accuracy"] = Metric(f"{name} accuracy", "share", "higher")
        heads[f"{name}_macro_f1"] = Metric(f"{name} macro-F1", "F1", "higher")
        heads[f"probe_{name}_accuracy"] = Metric(f"{name} probe acc.", "share", "higher")
        heads[f"probe_{name}_macro_f1"] = Metric(f"{name} probe F1", "F1", "higher")
    return {**heads, **_LANGUAGE}


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
