"""The picture of a run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from tests.tools import metrics
from warmline.runs import RunFolder
from warmline.training.curves import draw_curves, read_metrics


def drawn(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> Figure:
    """The figure that is saved; it is saved too."""
    kept: list[Figure] = []
    original = Figure.savefig

    def spy(self: Figure, *args: Any, **kwargs: Any) -> None:
        kept.append(self)
        original(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", spy)
    draw_curves(run)
    return kept[0]


def lines_of(figure: Figure) -> dict[str, dict[str, tuple[list[float], list[float]]]]:
    """By panel title and legend label, x and y."""
    return {
        axis.get_title(loc="left"): {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axis.lines}
        for axis in figure.axes
    }


def test_draws_what_was_measured(finished_copy: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    finished_copy.curves.unlink()
    panels = lines_of(drawn(finished_copy, monkeypatch))
    assert finished_copy.curves.read_bytes().startswith(b"\x89PNG")
    validation = metrics(finished_copy, "validation")
    assert panels["Language model"]["validation"] == ([0, 6, 12], [line["lm"] for line in validation])
    assert panels["Drift from the base"]["validation, task replies"][1] == [line["task_kl"] for line in validation]
    train = metrics(finished_copy, "train")
    steps, values = panels["Emotion head"]["train"]
    assert steps == [line["step"] for line in train if line["emotion"] is not None]
    assert values == pytest.approx([line["emotion"] for line in train if line["emotion"] is not None])


def test_smooths_long_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(tmp_path)
    values = np.random.default_rng(0).random(100)
    write(run, [{"kind": "train", "step": step + 1, "lm": float(value)} for step, value in enumerate(values)])
    steps, smooth = lines_of(drawn(run, monkeypatch))["Language model"]["train (mean of 4 steps)"]
    assert steps[0] == 4
    assert smooth[0] == pytest.approx(values[:4].mean())
    assert smooth[-1] == pytest.approx(values[-4:].mean())


def test_objective_without_targets_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(tmp_path)
    write(run, [{"kind": "train", "step": 1, "lm": 2.0}, {"kind": "validation", "step": 1, "lm": 2.5}])
    panels = lines_of(drawn(run, monkeypatch))
    assert panels["Language model"]["validation"] == ([1], [2.5])
    assert panels["Strategy head"] == {}


@pytest.mark.parametrize("heads", [(), ("emotion",), ("emotion", "strategy")])
def test_a_panel_for_each_head_and_no_empty_one(heads: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(tmp_path)
    names = ("lm", *heads, "safety", "task_kl", *(f"{name}_accuracy" for name in heads))
    run.metrics.write_text(
        "".join(json.dumps({"kind": kind, "step": 1, **dict.fromkeys(names, 1.0)}) + "\n" for kind in ("train", "validation"))
    )
    visible = [axis for axis in drawn(run, monkeypatch).axes if axis.get_ylabel() != "accuracy"]
    titles = ["Language model", *(f"{name.capitalize()} head" for name in heads), "Drift from the base"]
    assert [axis.get_title(loc="left") for axis in visible] == titles


def write(run: RunFolder, lines: list[dict[str, Any]]) -> None:
    empty = dict.fromkeys(("lm", "emotion", "strategy", "safety", "task_kl", "emotion_accuracy", "strategy_accuracy"))
    run.metrics.write_text("".join(json.dumps({**empty, **line}) + "\n" for line in lines))
    assert len(read_metrics(run)) == len(lines)
