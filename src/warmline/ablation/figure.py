"""`results/ablation.png`: above, every run as a dot; below, each variant's difference to the full run of the same seed."""

from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from warmline.ablation.view import interval_of
from warmline.runs import write_picture
from warmline.tasks import TASKS

_LANGUAGE = (
    ("Language model", "nats a reply token", "lm_nats", None),
    ("Drift, safety replies", "KL to the base, nats", "kl_safety", None),
    ("Drift, task replies", "KL to the base, nats", "kl_task", None),
)
"""Title, unit, metric, and the probe that stands beside it."""
_HEAD, _PROBE, _BASE, _FAINT = "#c8553d", "#2a6f97", "#777777", "#dddddd"


def draw_ablation(result: dict[str, Any], path: Path) -> None:
    """Draw what `ablation_results.json` holds.

    Raises:
        WarmlineError: the picture cannot be written.
    """
    variants = list(result["summary"])
    figure = Figure(figsize=(16, 2.2 + 0.62 * len(variants)), layout="constrained")
    heads = [name for name in TASKS if f"{name}_macro_f1" in result["metrics"]]
    panels = (*((name.capitalize(), "macro-F1", f"{name}_macro_f1", f"probe_{name}_macro_f1") for name in heads), *_LANGUAGE)
    axes = figure.subplots(2, len(panels), squeeze=False)
    for column, (title, unit, metric, probe) in enumerate(panels):
        _values(axes[0][column], result, variants, metric, probe)
        axes[0][column].set_title(title, loc="left", fontsize=11)
        axes[0][column].set_xlabel(unit, fontsize=9)
        _differences(axes[1][column], result, variants[1:], metric, probe)
        axes[1][column].set_xlabel(f"minus full, {unit}", fontsize=9)
        for row, names in ((0, variants), (1, variants[1:])):
            _dress(axes[row][column], names, labelled=column == 0)
    context = result["context"]
    short = "" if context["steps"] == context["planned_steps"] else f" of {context['planned_steps']} planned: too short to conclude from"
    seeds = f"seed{'s' if len(context['seeds']) > 1 else ''} {', '.join(map(str, context['seeds']))}"
    figure.suptitle(f"{context['run']}: ablation, {seeds}; {context['steps']} steps{short}", x=0.01, ha="left", fontsize=12)
    figure.legend(handles=_legend(result), loc="outside lower left", ncols=5, frameon=False, fontsize=9)
    write_picture(path, figure, dpi=110)


def _values(axis: Axes, result: dict[str, Any], variants: list[str], metric: str, probe: str | None) -> None:
    """The base as a dashed line behind the runs."""
    shown = 0
    for series in _series(metric, probe):
        for at, variant in enumerate(variants):
            values = [row["metrics"][series.metric] for row in result["rows"] if row["variant"] == variant]
            shown += _dots(axis, [value for value in values if value is not None], at, series)
        base = result["base"][series.metric]
        if base is not None:
            axis.axvline(base, color=_PROBE if series.metric == probe else _BASE, linestyle="--", linewidth=1)
    if not shown:
        axis.text(0.5, 0.5, "not measured", transform=axis.transAxes, ha="center", color=_BASE)


def _differences(axis: Axes, result: dict[str, Any], variants: list[str], metric: str, probe: str | None) -> None:
    """The interval as a line through the dots."""
    axis.axvline(0, color=_BASE, linewidth=1)
    for series in _series(metric, probe):
        for at, variant in enumerate(variants):
            found = result["differences"][variant][series.metric]
            if found is None:
                continue
            _dots(axis, [one["difference"] for one in found["by_seed"].values()], at, series)
            interval = interval_of(found)
            if interval is not None:
                axis.plot(interval, [at + series.shift] * 2, color=series.colour, linewidth=1.2)


class _Series(NamedTuple):
    """One metric in a panel: how it looks, and how far below its variant's line it stands."""

    metric: str
    colour: str
    marker: str
    shift: float


def _series(metric: str, probe: str | None) -> list[_Series]:
    if probe is None:
        return [_Series(metric, _HEAD, "o", 0)]
    return [_Series(metric, _HEAD, "o", -0.12), _Series(probe, _PROBE, "D", 0.16)]


def _dots(axis: Axes, values: list[float], at: int, series: _Series) -> int:
    """A dot a seed and, with several, a bar at their mean; the number of dots."""
    place, several = at + series.shift, len(values) > 1
    axis.plot(values, [place] * len(values), series.marker, color=series.colour, alpha=0.6 if several else 1, ms=5, markeredgewidth=0)
    if several:
        axis.plot([sum(values) / len(values)] * 2, [place - 0.13, place + 0.13], color=series.colour, linewidth=2)
    return len(values)


def _dress(axis: Axes, names: list[str], labelled: bool) -> None:
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.set_yticks(range(len(names)), names if labelled else [""] * len(names))
    axis.tick_params(axis="y", length=0)
    axis.tick_params(axis="x", labelsize=8)
    axis.locator_params(axis="x", nbins=4)
    axis.set_axisbelow(True)
    axis.grid(axis="both", color=_FAINT, linewidth=0.6)
    axis.spines[["top", "right", "left"]].set_visible(False)


def _legend(result: dict[str, Any]) -> list[Line2D]:
    many = len(result["context"]["seeds"])
    interval = "95 % interval over seeds" if many > 2 else "95 % bootstrap over test items, this seed only" if many == 1 else None
    handles = [
        Line2D([], [], color=_HEAD, marker="o", linestyle="", label="a run's score"),
        Line2D([], [], color=_PROBE, marker="D", linestyle="", label="linear probe on its frozen states"),
        Line2D([], [], color=_BASE, linestyle="--", label="base (blue: its probe)"),
    ]
    if many > 1:
        handles.append(Line2D([], [], color=_HEAD, marker="|", ms=10, markeredgewidth=2, linestyle="", label="mean over seeds"))
    return handles + ([Line2D([], [], color=_HEAD, label=interval)] if interval else [])
