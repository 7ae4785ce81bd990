"""Pictures of the heads: who is taken for whom, and how far a probability can be trusted."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from warmline.runs import write_picture

_RAW, _SCALED = "#c8553d", "#2a6f97"
_ANNOTATED = 12


def draw_confusion(path: Path, scores: dict[str, Any], title: str) -> None:
    """A confusion matrix, each true class's row as shares of it.

    Args:
        path: Of the PNG.
        scores: With `labels` and `confusion` ([true][guessed] counts).
        title: Above it.

    Raises:
        WarmlineError: it cannot be written.
    """
    labels, counts = scores["labels"], np.asarray(scores["confusion"])
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.full(counts.shape, np.nan), where=totals > 0)
    size = 3.2 + 0.42 * len(labels) if len(labels) > _ANNOTATED else 8.4
    figure = Figure(figsize=(size + 0.8, size), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)  # a class without test rows stays white
    axis.set_xticks(range(len(labels)), labels, rotation=60, ha="right", fontsize=9, rotation_mode="anchor")
    axis.set_yticks(range(len(labels)), [f"{label} ({n:,})" for label, n in zip(labels, totals[:, 0], strict=True)], fontsize=9)
    axis.set_xlabel("what the head says")
    axis.set_ylabel("official label (test rows)")
    axis.set_title(title, loc="left", fontsize=11)
    for true, guess in np.argwhere(shares >= (0.005 if len(labels) <= _ANNOTATED else 0.1)):
        share = shares[true, guess]
        color = "white" if share > 0.55 else "#333333"
        axis.text(guess, true, f"{share * 100:.0f}", ha="center", va="center", fontsize=9 if len(labels) <= _ANNOTATED else 7, color=color)
    figure.colorbar(image, ax=axis, shrink=0.6, label="share of the true class (numbers: per cent)")
    write_picture(path, figure, dpi=110)


def draw_reliability(path: Path, calibrations: dict[str, dict[str, Any]]) -> None:
    """Confidence against how often it comes true, before and after temperature scaling, one panel a head.

    Args:
        path: Of the PNG.
        calibrations: By panel title, as `warmline.metrics.calibration` gives them; at least one.

    Raises:
        WarmlineError: it cannot be written.
    """
    figure = Figure(figsize=(5.6 * len(calibrations), 6.2), layout="constrained")
    grid = figure.subplots(2, len(calibrations), squeeze=False, sharex=True, height_ratios=(4, 1))
    for (title, found), (curve, sizes) in zip(calibrations.items(), grid.T, strict=True):
        _reliability(curve, sizes, title, found)
    write_picture(path, figure, dpi=110)


def _reliability(curve: Axes, sizes: Axes, title: str, found: dict[str, Any]) -> None:
    curve.plot([0, 1], [0, 1], color="#999999", linewidth=1, linestyle=":", label="perfectly calibrated")
    for name, color, label in (("raw", _RAW, "as trained"), ("scaled", _SCALED, f"temperature {found['temperature']:.2f}")):
        bins = found[name]["bins"]
        confidence, accuracy, n = ([one[key] for one in bins] for key in ("confidence", "accuracy", "n"))
        curve.plot(confidence, accuracy, color=color, marker="o", markersize=4, label=f"{label}: ECE {found[name]['ece']:.3f}")
        sizes.bar(confidence, n, width=0.02, color=color, alpha=0.6)
    curve.set(xlim=(0, 1), ylim=(0, 1), ylabel="share that comes true")
    curve.set_title(title, loc="left", fontsize=11)
    curve.legend(frameon=False, fontsize=9, loc="upper left")
    sizes.set(xlabel="confidence", ylabel="predictions")
    for axis in (curve, sizes):
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", alpha=0.25)
