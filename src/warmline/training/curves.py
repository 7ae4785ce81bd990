"""`results/training_curves.png`: what a person looks at first after a run."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from warmline.runs import RunFolder, parse_json, write_picture, write_text
from warmline.tasks import TASKS

_TRAIN, _VALIDATION, _OTHER = "#9db4c0", "#c8553d", "#2a6f97"


def read_metrics(run: RunFolder) -> list[dict[str, Any]]:
    """Lines of `metrics.jsonl`."""
    return [parse_json(line) for line in run.metrics.read_text(encoding="utf-8").splitlines()]


def draw_curves(run: RunFolder) -> None:
    """Draw the run's losses, accuracies and drift from its metrics.

    Raises:
        WarmlineError: the picture cannot be written.
    """
    lines = read_metrics(run)
    train = [line for line in lines if line["kind"] == "train"]
    validation = [line for line in lines if line["kind"] == "validation"]
    heads = [name for name in TASKS if any(name in line for line in lines)]
    says = any("flawed" in line for line in validation)
    panels = len(heads) + 2 + says
    rows = (panels + 1) // 2
    figure = Figure(figsize=(11, 3.8 * rows), layout="constrained")
    axes = list(figure.subplots(rows, 2).flat)
    for unused in axes[panels:]:
        unused.remove()
    lm, *of_heads, drift = axes[: len(heads) + 2]
    if says:
        _replies(axes[panels - 1], validation)
    _panel(lm, train, validation, "lm", "Language model", "cross-entropy a reply token (nats)")
    for axis, name in zip(of_heads, heads, strict=True):
        _panel(axis, train, validation, name, f"{name.capitalize()} head", "cross-entropy (nats)", accuracy=f"{name}_accuracy")
    _panel(drift, train, validation, "safety", "Drift from the base", "KL(base || tuned) a reply token (nats)", other="task_kl")
    figure.suptitle(f"{run.path.name}: {len(train)} steps", x=0.01, ha="left", fontsize=12)
    write_picture(run.curves, figure, dpi=130)


def _replies(axis: Axes, validation: list[dict[str, Any]]) -> None:
    """What rules see in the replies that validation wrote, and their length."""
    _plot(axis, validation, "flawless", color=_VALIDATION, marker="o", label="replies without a flaw")
    _plot(axis, validation, "forms_kept", color=_OTHER, marker="s", label="forms kept")
    axis.set_ylim(0, 1)
    right = axis.twinx()
    _plot(right, validation, "words_median", color=_TRAIN, marker="^", linestyle="--", label="words of a reply (right)")
    right.set_ylim(bottom=0)
    _dress(axis, "What it says", "share", right)


def _panel(
    axis: Axes,
    train: list[dict[str, Any]],
    validation: list[dict[str, Any]],
    name: str,
    title: str,
    unit: str,
    accuracy: str | None = None,
    other: str | None = None,
) -> None:
    """One objective: its training and validation loss, and its accuracy on an axis of its own or another validation loss beside it."""
    _plot_train(axis, train, name)
    _plot(axis, validation, name, color=_VALIDATION, marker="o", label="validation" if other is None else "validation, safety replies")
    if other is not None:
        _plot(axis, validation, other, color=_OTHER, marker="s", label="validation, task replies")
    right = None
    if accuracy is not None and axis.get_legend_handles_labels()[0]:
        right = axis.twinx()
        _plot(right, validation, accuracy, color=_OTHER, marker="s", linestyle="--", label="validation accuracy (right)")
        right.set_ylim(0, 1)
        right.set_ylabel("accuracy")
    _dress(axis, title, unit, right)


def _dress(axis: Axes, title: str, unit: str, right: Axes | None) -> None:
    """Title, labels, and one legend for a panel and the axis at its right."""
    handles, labels = axis.get_legend_handles_labels()
    if right is not None:
        right.spines[["top"]].set_visible(False)
        more_handles, more_labels = right.get_legend_handles_labels()
        handles, labels = handles + more_handles, labels + more_labels
    if handles:
        axis.legend(handles, labels, frameon=False, fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    else:
        axis.text(0.5, 0.5, "no targets in this run", transform=axis.transAxes, ha="center", color="#777777")
    axis.set_title(title, loc="left", fontsize=11)
    axis.set_xlabel("optimiser step")
    axis.set_ylabel(unit)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", alpha=0.25)


def _plot_train(axis: Axes, train: list[dict[str, Any]], name: str) -> None:
    """Every step faintly, and a running mean over them."""
    points = [(line["step"], line[name]) for line in train if line[name] is not None]
    if not points:
        return
    steps, values = np.asarray(points).T
    window = max(1, len(values) // 25)
    smooth = np.convolve(values, np.ones(window) / window, mode="valid")
    axis.plot(steps, values, color=_TRAIN, alpha=0.45, linewidth=0.8)
    label = f"train (mean of {window} steps)" if window > 1 else "train"
    axis.plot(steps[window - 1 :], smooth, color=_TRAIN, linewidth=2, label=label)


def _plot(axis: Axes, lines: list[dict[str, Any]], name: str, **style: Any) -> None:
    points = [(line["step"], line[name]) for line in lines if line[name] is not None]
    if points:
        axis.plot(*np.asarray(points).T, markersize=4, **style)


def keep_metrics(path: Path, upto: int) -> None:
    """Drop metrics lines after step `upto`, and a half-written last line: all that will be done again."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            read = parse_json(line)
            if read["step"] <= upto:
                kept.append(line + "\n")
        except (ValueError, KeyError, TypeError):
            continue
    write_text(path, "".join(kept))
