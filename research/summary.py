"""`summary.json`: the study's headline figures, flat, each from the results files that lie beside it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from headline import HEADLINE, PICTURE, draw_summary, table
from warmline.ablation.metrics import LEAST_SEEDS, spread
from warmline.errors import WarmlineError
from warmline.metrics.statistics import cluster_bootstrap, weighted_ratio
from warmline.runs import read_json, write_json, write_text

FULL, LABELS_28 = "full", "labels-28"
"""Folders of evaluation.json files, one a seed, `seed-14.json`: of the study's other runs, and of those with 28 labels."""

MAIN, ABLATION, EQ_BENCH, SUMMARY = "evaluation.json", "ablation_results.json", "eq_bench_results.json", "summary.json"

INTERVALS = (
    "A figure's interval holds what is known to vary. `seeds and items`: half the width is the root of two squares, the mean half width "
    "of the seeds' own bootstrap intervals over test items (all seeds share the test split, so more seeds do not shrink it) and Student's "
    "half width of the mean over seeds; of the drift's ratio, both of its logarithm. `seeds`: Student's alone. `items`: the file's own "
    "bootstrap interval, of one run. What was not measured has no numbers and says why."
)
"""What `summary.json` says of its own intervals."""


class Measured(NamedTuple):
    """A value and its interval over test items; None where there is none."""

    value: float
    interval: Sequence[float] | None
    n: int


Read = Callable[[dict[str, Any]], Measured | None]
"""From an evaluation file to a figure; None where the file does not have it."""


class Figure(NamedTuple):
    """Where a headline figure comes from.

    Attributes:
        kind: Which evaluations: of the folder FULL or LABELS_28.
        read: The figure in each.
        beside: The baselines' values of the same metric in the main run's evaluation, by name.
    """

    kind: str
    read: Read
    beside: Callable[[dict[str, Any]], dict[str, float]] | None = None


def _head(kind: str, *keys: str, metric: str) -> Figure:
    def read(result: dict[str, Any]) -> Measured | None:
        found = _at(result, "heads", *keys)
        if found is None or found.get(metric) is None:
            return None
        return Measured(found[metric], found["intervals"][metric], found["n"])

    def beside(result: dict[str, Any]) -> dict[str, float]:
        found = _at(result, "heads", *keys) or {}
        others = {"majority": found.get("majority"), **(found.get("baselines") or {})}
        return {name: scores[metric] for name, scores in others.items() if scores}

    return Figure(kind, read, beside)


def _ece(*keys: str) -> Read:
    def read(result: dict[str, Any]) -> Measured | None:
        found = _at(result, "heads", *keys)
        if found is None or found["calibration"] is None:
            return None
        return Measured(found["calibration"]["scaled"]["ece"], None, found["n"])

    return read


def _language(source: str, ratio: str) -> Read:
    def read(result: dict[str, Any]) -> Measured | None:
        found = _at(result, "language", "sources", source)
        if found is None or ratio not in found:
            return None
        return Measured(found[ratio]["value"], found[ratio]["interval"], found["conversations"])

    return read


FIGURES: dict[str, Figure] = {
    "emotion_27_accuracy": _head(FULL, "emotion", "single_label_27", metric="accuracy"),
    "emotion_27_macro_f1": _head(FULL, "emotion", "single_label_27", metric="macro_f1"),
    "emotion_28_macro_f1": _head(LABELS_28, "emotion", "multi_label_28", metric="macro_f1"),
    "strategy_accuracy": _head(FULL, "strategy", metric="accuracy"),
    "strategy_macro_f1": _head(FULL, "strategy", metric="macro_f1"),
    "strategy_own_choices_accuracy": _head(FULL, "strategy", "own_choices", metric="accuracy"),
    "strategy_own_choices_macro_f1": _head(FULL, "strategy", "own_choices", metric="macro_f1"),
    "perplexity_ratio_empathetic_dialogues": Figure(FULL, _language("empathetic_dialogues", "perplexity_ratio")),
    "perplexity_ratio_esconv": Figure(FULL, _language("esconv", "perplexity_ratio")),
    "bits_ratio_to_lines_empathetic_dialogues": Figure(FULL, _language("empathetic_dialogues", "bits_ratio_to_lines")),
    "bits_ratio_to_lines_esconv": Figure(FULL, _language("esconv", "bits_ratio_to_lines")),
    "ece_emotion": Figure(FULL, _ece("emotion", "single_label_27")),
    "ece_strategy": Figure(FULL, _ece("strategy")),
}
"""What is read from the evaluations of several seeds, and from which folder."""


def summarise(folder: Path) -> dict[str, Any]:
    """The headline figures of a study whose results files lie in a folder.

    Args:
        folder: Holds the main run's `evaluation.json`, `full/seed-*.json` and `labels-28/seed-*.json` (as `warmline evaluate` writes them),
            `ablation_results.json` and `eq_bench_results.json`; all but the first may be missing.

    Returns:
        `context`, and each figure under its name: `mean`, `low`, `high`, `n` (test items), `seeds`, `source` (files, relative to the
        folder) and `interval` (what it covers); or `mean` null and the reason in `absent`. A head's figure has its baselines in `beside`,
        from the main run's file.

    Raises:
        WarmlineError: a damaged file, files of different base models or data, or no file at all.
    """
    if not (folder / MAIN).is_file():
        raise WarmlineError(
            f"{folder / MAIN}: file not found; name the results/ of a run or of a study (`python research/study.py collect`)"
        )
    evaluations = {FULL: _by_seed(folder, [folder / MAIN, *sorted((folder / FULL).glob("seed-*.json"))])}
    evaluations[LABELS_28] = _by_seed(folder, sorted((folder / LABELS_28).glob("seed-*.json")))
    _same_study(folder, [one for found in evaluations.values() for one in found.values()])
    main = read_json(folder / MAIN)
    figures: dict[str, Any] = {name: _over_seeds(one.kind, evaluations[one.kind], one.read) for name, one in FIGURES.items()}
    for name, one in FIGURES.items():
        if one.beside is not None:
            figures[name]["beside"] = one.beside(main)
    figures["safety_kl_ratio"] = _safety_ratio(folder)
    figures |= {f"eqbench_v2_{model}": _eq_bench(folder, model) for model in ("base", "tuned")}
    first = main["context"]
    kept = ("base_model", "base_revision", "base_random_init_seed", "data_sha256", "split", "dtype", "loss_weights")
    return {
        "context": {"run": first["run"], **{key: first.get(key) for key in kept}, "intervals": INTERVALS},
        **figures,
    }


def write_summary(folder: Path) -> dict[str, Any]:
    """`summarise`, written to the same folder as `summary.json`, `headline.md` and `summary.png`; the same files give the same bytes."""
    found = summarise(folder)
    write_json(folder / SUMMARY, found)
    write_text(folder / HEADLINE, table(found))
    draw_summary(found, folder / PICTURE)
    return found


def over_seeds(values: Sequence[Measured]) -> dict[str, Any]:
    """Mean and interval of one figure that several seeds measured on the same test items.

    Args:
        values: One a seed, at least one.

    Returns:
        `mean`, `low`, `high` and `interval`; low and high are null where neither seeds nor items say how far it may be off.
    """
    over = spread([one.value for one in values])
    widths = [(one.interval[1] - one.interval[0]) / 2 for one in values if one.interval is not None]
    of_items = float(np.mean(widths)) if len(widths) == len(values) else None
    of_seeds = None if over.interval is None else over.interval[1] - over.mean
    parts = [width for width in (of_items, of_seeds) if width is not None]
    covered = " and ".join(name for name, width in (("seeds", of_seeds), ("items", of_items)) if width is not None)
    reach = float(np.hypot.reduce(parts)) if parts else None
    return {
        "mean": over.mean,
        "low": None if reach is None else over.mean - reach,
        "high": None if reach is None else over.mean + reach,
        "interval": covered or f"none: {len(values)} of {LEAST_SEEDS} seeds, and no interval over items",
    }


def _over_seeds(kind: str, found: dict[str, dict[str, Any]], read: Read) -> dict[str, Any]:
    if not found:
        return _absent(f"no evaluation in {kind}/", f"{kind}/")
    files = list(found)
    values = {result["context"]["seed"]: read(result) for result in found.values()}
    measured = {seed: value for seed, value in values.items() if value is not None}
    if len(measured) < len(values):
        return _absent("not in every one of these files", *files)
    own = list(measured.values())
    if len({one.n for one in own}) > 1:
        return _absent("these files count different test items; evaluate the runs again with one version", *files)
    return {**over_seeds(own), "n": own[0].n, "seeds": list(measured), "source": files}


def _safety_ratio(folder: Path) -> dict[str, Any]:
    """Drift on held-out safety replies with the safety term over that without, geometric mean over seeds."""
    path = folder / ABLATION
    if not path.is_file():
        return _absent("the ablation was not run", ABLATION)
    result = read_json(path)
    rows = {(row["variant"], row["seed"]): row for row in result["rows"] if row["metrics"]["kl_safety"]}
    pairs = {
        seed: (rows["full", seed], rows["no-safety", seed])
        for seed in result["context"]["seeds"]
        if ("full", seed) in rows and ("no-safety", seed) in rows
    }
    if not pairs:
        return _absent("no seed has a run without the safety term", ABLATION)
    own = [_log_ratio(full, without, seed) for seed, (full, without) in pairs.items()]
    found = over_seeds(own)
    if any(one.interval is None for one in own):
        found |= {"low": None, "high": None, "interval": f"none: {ABLATION} has no KL of each conversation"}
    else:
        found |= {end: float(np.exp(found[end])) for end in ("low", "high")}
    return {
        **found,
        "mean": float(np.exp(found["mean"])),
        "n": result["context"]["n"]["safety_replies"],
        "seeds": list(pairs),
        "source": [ABLATION],
    }


def _log_ratio(full: dict[str, Any], without: dict[str, Any], seed: int) -> Measured:
    """Of the mean KLs of two runs; with its interval over the conversations, drawn for both runs together, where the file has them."""
    value = float(np.log(full["metrics"]["kl_safety"] / without["metrics"]["kl_safety"]))
    ours, theirs = full.get("safety_kl", []), without.get("safety_kl", [])
    if len(ours) < 2 or len(ours) != len(theirs):
        return Measured(value, None, len(ours))
    ratio = weighted_ratio(ours, theirs)
    return Measured(value, cluster_bootstrap(lambda weights: np.log(ratio(weights)), range(len(ours)), seed), len(ours))


def _eq_bench(folder: Path, model: str) -> dict[str, Any]:
    path = folder / EQ_BENCH
    if not path.is_file():
        return _absent("EQ-Bench was not run", EQ_BENCH)
    result = read_json(path)
    second = result["eq_bench_v2"]
    if second is None:
        return _absent(result["eq_bench_v2_reason"], EQ_BENCH)
    found, questions = second[model], second["context"]["questions"]
    parsed = {"parse_rate": found["parse_rate"], "n": questions, "seeds": [result["context"]["seed"]], "source": [EQ_BENCH]}
    if found["score"] is None:
        return {**_absent(found["reason"], EQ_BENCH), **parsed}
    low, high = found["interval"]
    return {"mean": found["score"], "low": low, "high": high, "interval": "items", **parsed}


def _by_seed(folder: Path, paths: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Evaluations by their file's name, relative to the folder; one for each seed, in the seeds' order."""
    found = sorted(((path, read_json(path)) for path in paths), key=lambda one: int(one[1]["context"]["seed"]))
    seeds = [result["context"]["seed"] for _, result in found]
    if len(set(seeds)) < len(seeds):
        raise WarmlineError(f"{folder}: two evaluations of one seed (seeds {', '.join(map(str, seeds))}); each counts once")
    return {path.relative_to(folder).as_posix(): result for path, result in found}


def _same_study(folder: Path, results: Sequence[dict[str, Any]]) -> None:
    for key in ("base_model", "base_revision", "base_random_init_seed", "data_sha256"):
        first = results[0]["context"].get(key)
        if any(result["context"].get(key) != first for result in results):
            raise WarmlineError(f"{folder}: the evaluations differ in their {key}; collect runs of one base model on the same data")


def _absent(reason: str, *source: str) -> dict[str, Any]:
    return {"mean": None, "low": None, "high": None, "absent": reason, "n": None, "seeds": [], "source": list(source)}


def _at(content: dict[str, Any], *keys: str) -> Any:
    """The value under nested keys; None where one is missing or null."""
    found: Any = content
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found
