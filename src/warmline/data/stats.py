"""Counts of every source and split, and the mixture they make."""

from collections import Counter
from typing import Any

from rich.table import Table

from warmline.config import DataConfig
from warmline.conversation import SPLITS, Loaded
from warmline.data.enabled import EnabledSource, count_targets, enabled_sources
from warmline.data.mixture import sample_probabilities, whole_percent
from warmline.tasks import TASKS


def data_stats(config: DataConfig) -> dict[str, Any]:
    """Count what the loaders give.

    Returns:
        `sources`: for each source and split `rows` of the official file, `conversations`, `utterances`, targets of each objective,
        counts of the source's own, `left_out` by reason, and label counts. `mixture`:
        alpha, max_passes, training conversations, shares (before any source has reached max_passes), and these in whole per cent.

    Raises:
        WarmlineError: bad or missing files.
    """
    sources: dict[str, Any] = {}
    sizes: dict[str, int] = {}
    for source in enabled_sources(config):
        sources[source.name] = {split: split_stats(source, source.load(split)) for split in SPLITS}
        sizes[source.name] = sources[source.name]["train"]["conversations"]
    shares = sample_probabilities(list(sizes.values()), config.alpha).tolist()
    return {
        "sources": sources,
        "mixture": {
            "alpha": config.alpha,
            "max_passes": config.max_passes,
            "conversations": sizes,
            "shares": dict(zip(sizes, shares, strict=True)),
            "percent": dict(zip(sizes, whole_percent(shares), strict=True)),
        },
    }


def split_stats(source: EnabledSource, loaded: Loaded) -> dict[str, Any]:
    """Counts of one split."""
    conversations = loaded.conversations
    turns = [turn for conversation in conversations for turn in conversation.turns]
    targets = count_targets(conversations, source.objectives)
    labels = {task.plural: Counter(label for turn in turns for label in turn.labels.get(name, ())) for name, task in TASKS.items()}
    if source.source.kinds is not None:
        labels[source.source.kinds] = Counter(conversation.kind for conversation in conversations if conversation.kind is not None)
    return {
        "rows": loaded.rows,
        "conversations": len(conversations),
        "utterances": len(turns),
        **{f"{name}_targets": number for name, number in targets.items()},
        **source.source.counts(conversations),
        "left_out": loaded.left_out,
        "labels": {kind: dict(counts.most_common()) for kind, counts in labels.items() if counts},
    }


def stats_table(stats: dict[str, Any]) -> Table:
    """What `warmline data stats` prints of them."""
    columns = ("conversations", "utterances", "lm_targets", "emotion_targets", "strategy_targets", "safety_targets")
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("source")
    table.add_column("split")
    for heading in ("convs", "turns", "lm", "emotion", "strategy", "safety"):
        table.add_column(heading, justify="right")
    table.add_column("share", justify="right")
    for source, splits in stats["sources"].items():
        for split, counts in splits.items():
            share = f"{stats['mixture']['shares'][source]:.1%}" if split == "train" else ""
            table.add_row(source, split, *(f"{counts[column]:,}" if counts[column] else "" for column in columns), share)
    return table
