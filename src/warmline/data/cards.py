"""Data cards: one Markdown page and one picture a source, with counts that were just made.

Counts of every source and split, and the mixture they make.
"""

from collections import Counter
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.table import Table

from warmline.config import DataConfig
from warmline.conversation import SPLITS, Loaded
from warmline.data.enabled import EnabledSource, count_targets, data_checksums, enabled_sources
from warmline.data.mixture import sample_probabilities, whole_percent
from warmline.runs import write_picture, write_text
from warmline.sources import SOURCES
from warmline.sources.source import CardFacts
from warmline.tasks import TASKS, all_objectives


def write_cards(config: DataConfig, folder: Path) -> list[Path]:
    """Write `<source>.md` and `<source>.png` for every enabled source.

    Args:
        config: Where the data lie and which sources are enabled.
        folder: Made if it is missing.

    Returns:
        The cards.

    Raises:
        WarmlineError: bad or missing files, or a folder that cannot be written.
    """
    stats, checksums = data_stats(config), data_checksums(config)
    cards = []
    for name, splits in stats["sources"].items():
        facts = SOURCES[name].facts
        card = folder / f"{name}.md"
        write_text(card, _card(name, facts, splits, stats["mixture"], checksums))
        _draw_labels(folder / f"{name}.png", facts, splits)
        cards.append(card)
    return cards


def _card(name: str, facts: CardFacts, splits: dict[str, Any], mixture: dict[str, Any], checksums: dict[str, str]) -> str:
    targets = [f"{objective}_targets" for objective in all_objectives()]
    columns = ["rows", "conversations", "utterances", *targets, *SOURCES[name].counts(())]
    shown = [column for column in columns if any(splits[split][column] for split in SPLITS)]
    cap = "" if mixture["max_passes"] is None else f", until it has been passed {mixture['max_passes']:g} times"
    lines = [
        f"# {facts.title}",
        "",
        facts.what,
        "",
        f"- **Origin:** {facts.origin}",
        f"- **Licence:** {facts.licence}",
        f"- **Share of the mixture:** {mixture['shares'][name]:.1%} of the draws at alpha = {mixture['alpha']}{cap}",
        "",
        "## Counts",
        "",
        "| split | " + " | ".join(column.replace("_", " ") for column in shown) + " |",
        "| --- |" + " ---: |" * len(shown),
        *("| " + " | ".join([split, *(f"{splits[split][column]:,}" for column in shown)]) + " |" for split in SPLITS),
        "",
    ]
    left_out = {split: splits[split]["left_out"] for split in SPLITS if splits[split]["left_out"]}
    for split, reasons in left_out.items():
        lines.append(f"Left out of {split}: " + ", ".join(f"{number:,} rows ({reason})" for reason, number in reasons.items()) + ".")
    lines += [
        "",
        f"![{facts.pictured} of {facts.title}]({name}.png)",
        "",
        "## Preprocessing",
        "",
        *(f"- {line}" for line in facts.preprocessing),
        "",
        "## Known problems",
        "",
        *(f"- {line}" for line in facts.problems),
        "",
        "## Counted from",
        "",
        *(f"- `{file.partition('/')[2]}`, sha256 `{digest}`" for file, digest in checksums.items() if file.startswith(f"{name}/")),
        "",
    ]
    return "\n".join(lines)


def _draw_labels(path: Path, facts: CardFacts, splits: dict[str, Any]) -> None:
    counts: Counter[str] = Counter()
    for split in SPLITS:
        counts.update(splits[split]["labels"].get(facts.pictured, {}))
    names = [name for name, _ in counts.most_common()]
    figure = Figure(figsize=(8, 0.6 + 0.24 * len(names)), layout="constrained")
    axis = figure.subplots()
    left = [0] * len(names)
    for split, colour in zip(SPLITS, ("#2a6f97", "#9db4c0", "#c8553d"), strict=True):
        values = [splits[split]["labels"].get(facts.pictured, {}).get(name, 0) for name in names]
        axis.barh(names, values, left=left, color=colour, label=split)
        left = [start + value for start, value in zip(left, values, strict=True)]
    axis.invert_yaxis()
    axis.margins(y=0.01)
    axis.set_xlabel(f"{facts.pictured} (count)")
    axis.set_title(facts.title, loc="left", fontsize=11)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(axis="y", labelsize=8)
    axis.legend(frameon=False, fontsize=8)
    write_picture(path, figure, dpi=110)


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
    columns = ("conversations", "utterances", *(f"{name}_targets" for name in all_objectives()))
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("source")
    table.add_column("split")
    for heading in ("convs", "turns", *all_objectives()):
        table.add_column(heading, justify="right")
    table.add_column("share", justify="right")
    for source, splits in stats["sources"].items():
        for split, counts in splits.items():
            share = f"{stats['mixture']['shares'][source]:.1%}" if split == "train" else ""
            table.add_row(source, split, *(f"{counts[column]:,}" if counts[column] else "" for column in columns), share)
    return table
