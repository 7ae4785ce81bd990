"""`results/training_curves.png`: what a person looks at first after a run."""

import json
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from warmline.runs import RunFolder, disk_errors

_TRAIN, _VALIDATION, _ACCURACY = "#9db4c0", "#c8553d", "#2a6f97"


def read_metrics(run: RunFolder) -> list[dict[str, Any]]:
    """Lines of `metrics.jsonl`."""
    return [json.loads(line) for line in run.metrics.read_text(encoding="utf-8").splitlines()]


def draw_curves(run: RunFolder) -> None:
    """Draw the run's losses, accuracies and learning rate from its metrics."""
    lines = read_metrics(run)
    train = [line for line in lines if line["kind"] == "train"]
    validation = [line for line in lines if line["kind"] == "validation"]
    figure = Figure(figsize=(11, 7), layout="constrained")
    axes = figure.subplots(2, 2)
    panels = (
        (axes[0, 0], "lm", "Language model", "cross-entropy a reply token (nats)", None),
        (axes[0, 1], "emotion", "Emotion head", "cross-entropy (nats)", "emotion_accuracy"),
        (axes[1, 0], "strategy", "Strategy head", "cross-entropy (nats)", "strategy_accuracy"),
        (axes[1, 1], "safety", "Drift from the base", "KL(base || tuned) a reply token (nats)", None),
    )
    for axis, name, title, unit, accuracy in panels:
        _panel(axis, train, validation, name, title, unit)
        if accuracy is not None:
            _accuracy(axis, validation, accuracy)
    _plot(axes[1, 1], validation, "task_kl", color=_ACCURACY, marker="s", label="validation, task replies")
    _legend(axes[1, 1])
    figure.suptitle(f"{run.path.name}: {len(train)} steps", x=0.01, ha="left", fontsize=12)
    with disk_errors(run.curves):
        run.curves.parent.mkdir(exist_ok=True)
        figure.savefig(run.curves, dpi=130)


def _panel(axis: Axes, train: list[dict[str, Any]], validation: list[dict[str, Any]], name: str, title: str, unit: str) -> None:
    points = [(line["step"], line[name]) for line in train if line[name] is not None]
    if points:
        steps, values = np.asarray(points).T
        axis.plot(steps, values, color=_TRAIN, alpha=0.45, linewidth=0.8)
        window = max(1, len(values) // 25)
        smooth = np.convolve(values, np.ones(window) / window, mode="valid")
        axis.plot(
            steps[window - 1 :],
            smooth,
            color=_TRAIN,
            linewidth=2,
            label=f"train (mean of {window} steps)" if window > 1 else "train",
        )
    _plot(
        axis,
        validation,
        name,
        color=_VALIDATION,
        marker="o",
        label="validation" if name != "safety" else "validation, safety replies",
    )
    axis.set_title(title, loc="left", fontsize=11)
    axis.set_xlabel("optimiser step")
    axis.set_ylabel(unit)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", alpha=0.25)
    _legend(axis)


def _legend(axis: Axes) -> None:
    """A legend, unless the run had nothing of this objective."""
    if axis.get_legend_handles_labels()[0]:
        axis.legend(frameon=False, fontsize=8)
    else:
        axis.text(0.5, 0.5, "no targets in this run", transform=axis.transAxes, ha="center", color="#777777")


def _accuracy(axis: Axes, validation: list[dict[str, Any]], name: str) -> None:
    other = axis.twinx()
    _plot(other, validation, name, color=_ACCURACY, marker="s", label="validation accuracy (right)", linestyle="--")
    other.set_ylim(0, 1)
    other.set_ylabel("accuracy")
    other.spines[["top"]].set_visible(False)
    if not other.get_legend_handles_labels()[0]:
        other.set_axis_off()
        return
    handles, labels = axis.get_legend_handles_labels()
    more, more_labels = other.get_legend_handles_labels()
    axis.legend(handles + more, labels + more_labels, frameon=False, fontsize=8)


def _plot(axis: Axes, lines: list[dict[str, Any]], name: str, **style: Any) -> None:
    points = [(line["step"], line[name]) for line in lines if line[name] is not None]
    if points:
        axis.plot(*np.asarray(points).T, markersize=4, **style)
