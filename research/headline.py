"""A study's headline figures for people: a Markdown table and a picture, from `summary.json` alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from warmline.reporting.phrases import Format, between, number, percent, tenths
from warmline.runs import write_picture

HEADLINE, PICTURE = "headline.md", "summary.png"
BESIDE = {
    "majority": "majority",
    "history": "earlier strategies",
    "history_in_order": "the same in order",
    "tfidf": "TF-IDF",
    "linear_probe": "base's states",
}
"""Baselines, in few words."""


class Row(NamedTuple):
    """How a figure is shown.

    Attributes:
        name: In `summary.json`.
        label: In words.
        form: Of the number.
    """

    name: str
    label: str
    form: Format


ROWS = (
    Row("emotion_27_accuracy", "emotion, 27 classes: accuracy", percent),
    Row("emotion_27_macro_f1", "emotion, 27 classes: macro-F1", number),
    Row("emotion_28_macro_f1", "emotion, 28 labels: macro-F1", number),
    Row("strategy_accuracy", "strategy, 8 classes: accuracy", percent),
    Row("strategy_macro_f1", "strategy, 8 classes: macro-F1", number),
    Row("strategy_own_choices_accuracy", "strategy, as when serving: accuracy", percent),
    Row("strategy_own_choices_macro_f1", "strategy, as when serving: macro-F1", number),
    Row("ece_emotion", "calibration of the emotion head: ECE", number),
    Row("ece_strategy", "calibration of the strategy head: ECE", number),
    Row("perplexity_ratio_empathetic_dialogues", "perplexity over the base's: EmpatheticDialogues", number),
    Row("perplexity_ratio_esconv", "perplexity over the base's: ESConv", number),
    Row("bits_ratio_to_lines_empathetic_dialogues", "bits per byte over the base's, told in plain lines: EmpatheticDialogues", number),
    Row("bits_ratio_to_lines_esconv", "bits per byte over the base's, told in plain lines: ESConv", number),
    Row("safety_kl_ratio", "drift on safety replies: with the safety term over without", number),
    Row("eqbench_v2_base", "EQ-Bench v2, base", tenths),
    Row("eqbench_v2_tuned", "EQ-Bench v2, tuned", tenths),
)


def table(summary: dict[str, Any]) -> str:
    """Every figure on a line: mean, 95 % interval, what stands beside it, items, seeds, file."""
    lines = ["| on the test splits | tuned (95 %) | beside it | items | seeds | from |", "| --- | --- | --- | --- | --- | --- |"]
    for row in ROWS:
        one = summary.get(row.name)
        if one is None:
            continue
        source = ", ".join(f"`{name}`" for name in one["source"])
        if one["mean"] is None:
            lines.append(f"| {row.label} | not measured: {one['absent']} | | | | {source} |")
            continue
        beside = ", ".join(f"{BESIDE[name]} {row.form(value)}" for name, value in one.get("beside", {}).items())
        if one.get("parse_rate") is not None:
            beside = f"{percent(one['parse_rate'])} of the answers could be read"
        seeds = ", ".join(map(str, one["seeds"]))
        lines.append(f"| {row.label} | {_value(one, row.form)} | {beside} | {one['n']:,} | {seeds} | {source} |")
    return "\n".join(lines) + "\n"


def _value(one: dict[str, Any], form: Format) -> str:
    """The mean with its interval, and a word where that leaves out the test items; or why there is none."""
    if one["low"] is None:
        return f"{form(one['mean'])} (no interval{one['interval'].removeprefix('none')})"
    alone = " over seeds alone" if one["interval"] == "seeds" else ""
    return f"{form(one['mean'])} ({between((one['low'], one['high']), form)}{alone})"


_TUNED, _BESIDE, _FAINT = "#c8553d", "#2a6f97", "#dddddd"
_MARKERS = {"majority": "|", "history": "<", "history_in_order": ">", "tfidf": "s", "linear_probe": "D"}
_HOLLOW: dict[str, Any] = {"color": _BESIDE, "markerfacecolor": "none", "ms": 8}
_PANELS = (
    ("Heads: accuracy and macro-F1, higher is better", ("emotion_27_accuracy", "emotion_27_macro_f1", "emotion_28_macro_f1",
     "strategy_accuracy", "strategy_macro_f1", "strategy_own_choices_accuracy", "strategy_own_choices_macro_f1"), None),
    ("Against the base, or the term left out: lower is better",
     ("perplexity_ratio_empathetic_dialogues", "perplexity_ratio_esconv", "bits_ratio_to_lines_empathetic_dialogues",
      "bits_ratio_to_lines_esconv", "safety_kl_ratio"), 1.0),
)  # fmt: skip


def draw_summary(summary: dict[str, Any], path: Path) -> None:
    """Draw what `summary.json` holds: each figure as a dot with its interval, its baselines hollow.

    Raises:
        WarmlineError: the picture cannot be written.
    """
    labels = {row.name: row.label for row in ROWS}
    shown = [[name for name in names if (summary.get(name) or {}).get("mean") is not None] for _, names, _ in _PANELS]
    heights = [max(1, len(names)) for names in shown]
    figure = Figure(figsize=(10, 1.6 + 0.42 * sum(heights)), layout="constrained")
    axes = figure.subplots(len(_PANELS), 1, height_ratios=heights, squeeze=False)[:, 0]
    for axis, (title, _, line), names in zip(axes, _PANELS, shown, strict=True):
        _panel(axis, summary, names, [labels[name] for name in names])
        if line is not None:
            axis.axvline(line, color=_BESIDE, linewidth=1, linestyle="--")
        axis.set_xlim(0, max(axis.get_xlim()[1], (line or 0) * 1.03))
        axis.set_title(title, loc="left", fontsize=10)
    context = summary["context"]
    figure.suptitle(f"{context['run']} on {context['base_model']}", x=0.01, ha="left", fontsize=12)
    figure.legend(handles=_legend(), loc="outside lower left", ncols=7, frameon=False, fontsize=9)
    write_picture(path, figure, dpi=110)


def _panel(axis: Axes, summary: dict[str, Any], names: Sequence[str], labels: Sequence[str]) -> None:
    for at, name in enumerate(names):
        one = summary[name]
        if one["low"] is not None:
            axis.plot([one["low"], one["high"]], [at, at], color=_TUNED, linewidth=2)
        axis.plot([one["mean"]], [at], "o", color=_TUNED, ms=7)
        for baseline, value in one.get("beside", {}).items():
            axis.plot([value], [at], _MARKERS[baseline], **_HOLLOW)
    if not names:
        axis.text(0.5, 0.5, "not measured", transform=axis.transAxes, ha="center", color=_BESIDE)
    axis.set_ylim(len(labels) - 0.4, -0.6)
    axis.set_yticks(range(len(labels)), list(labels))
    axis.grid(axis="x", color=_FAINT, linewidth=0.6)
    axis.set_axisbelow(True)
    axis.tick_params(axis="y", length=0, labelsize=9)
    axis.spines[["top", "right", "left"]].set_visible(False)


def _legend() -> list[Line2D]:
    hollow = [Line2D([], [], marker=marker, linestyle="", label=BESIDE[name], **_HOLLOW) for name, marker in _MARKERS.items()]
    base = Line2D([], [], color=_BESIDE, linestyle="--", label="no change")
    return [Line2D([], [], color=_TUNED, marker="o", linewidth=2, label="tuned, 95 %"), *hollow, base]
