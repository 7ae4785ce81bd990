"""`results/eq_bench.png`, and the tables that the command prints."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.table import Table

from warmline.runs import RunFolder, disk_errors, write_picture

_BASE, _TUNED, _EVEN = "#9db4c0", "#c8553d", "#777777"


def write_picture_of_scores(folder: RunFolder, result: dict[str, Any]) -> None:
    """Win rate with its interval, and the rubric by criterion, base beside tuned. Without scores there is no picture.

    Raises:
        WarmlineError: the picture cannot be written.
    """
    with disk_errors(folder.eq_bench_picture):
        folder.eq_bench_picture.unlink(missing_ok=True)  # an older one would show other numbers
    if result["rubric"] is None or result["pairwise"] is None:
        return
    figure = Figure(figsize=(10, 6.2), layout="constrained")
    wins, rubric = figure.subplots(1, 2, width_ratios=[1, 2.4])
    _win_rate(wins, result["pairwise"])
    _criteria(rubric, result["rubric"])
    context = result["context"]
    title = f"{context['run']}: {context['label']}, judge {context['judge']['model']}, {context['iterations']} iteration(s)"
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    write_picture(folder.eq_bench_picture, figure, dpi=130)


def _win_rate(axis: Axes, pairwise: dict[str, Any]) -> None:
    rate, interval = pairwise["win_rate"], pairwise["interval"]
    axis.axhline(0.5, color=_EVEN, linewidth=1, linestyle="--")
    if rate is None:
        axis.text(0.5, 0.6, "no pair judged\nin both orders", ha="center", color=_EVEN)
    else:
        axis.bar([0.5], [rate], width=0.5, color=_TUNED)
        if interval is not None:
            axis.vlines(0.5, interval[0], interval[1], color="black", linewidth=1.5)
        axis.text(0.5, 0.02, f"{rate:.0%}", ha="center", color="white")
    axis.set_xlim(0, 1)
    axis.set_ylim(0, 1)
    axis.set_xticks([])
    axis.set_title("Tuned wins over base\n(both orders merged)", loc="left", fontsize=10)
    axis.set_ylabel("share of pairs, with the 95 % interval over scenarios")
    axis.spines[["top", "right"]].set_visible(False)


def _criteria(axis: Axes, rubric: dict[str, Any]) -> None:
    names = list(dict.fromkeys([*rubric["base"]["criteria"], *rubric["tuned"]["criteria"]]))
    rows = np.arange(len(names))
    for model, color, shift in (("base", _BASE, -0.2), ("tuned", _TUNED, 0.2)):
        means = [rubric[model]["criteria"].get(name, {"mean": np.nan})["mean"] for name in names]
        score = rubric[model]["score"]
        label = f"{model}: rubric score {score:.1f} of 100" if score is not None else f"{model}: no score"
        axis.barh(rows + shift, means, height=0.38, color=color, label=label)
    axis.set_yticks(rows, [name.replace("_", " ") for name in names], fontsize=8)
    axis.invert_yaxis()
    axis.set_xlim(0, 20)
    axis.set_xlabel("mean judge score, 0 to 20 (style criteria: more is not better)")
    axis.set_title("Rubric", loc="left", fontsize=10)
    axis.legend(frameon=False, fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.1))
    axis.spines[["top", "right"]].set_visible(False)


def scores_table(result: dict[str, Any]) -> Table:
    """What a person reads first: base beside tuned."""
    table = Table(box=None)
    table.add_column("")
    for model in ("base", "tuned"):
        table.add_column(model, justify="right")
    base, tuned = result["models"]["base"], result["models"]["tuned"]
    table.add_row("tasks complete", *(f"{model['complete']} of {model['tasks']}" for model in (base, tuned)))
    table.add_row("replies with all sections", *(_percent(model["sections"]["rate"]) for model in (base, tuned)))
    table.add_row("mean reply, characters", *(_number(model["mean_characters"], "{:.0f}") for model in (base, tuned)))
    table.add_row("replies cut, debriefs included", *(f"{model['cut_off']['n']} of {model['cut_off']['of']}" for model in (base, tuned)))
    if (rubric := result["rubric"]) is not None:
        table.add_row("rubric score, 0 to 100", *(_scored(rubric[model]) for model in ("base", "tuned")))
        table.add_row("tasks scored", *(f"{rubric[model]['tasks_scored']} of {rubric[model]['tasks']}" for model in ("base", "tuned")))
    if (second := result["eq_bench_v2"]) is not None:
        table.add_row("EQ-Bench v2 score", *(_scored(second[model]) for model in ("base", "tuned")))
        table.add_row("EQ-Bench v2 parseable", *(_percent(second[model]["parse_rate"]) for model in ("base", "tuned")))
    return table


def remarks(result: dict[str, Any]) -> Iterator[str]:
    """The sentences under the table."""
    if result["reason"]:
        yield f"not scored: {result['reason']}"
    if result["eq_bench_v2_reason"]:
        yield f"EQ-Bench v2 was not run: {result['eq_bench_v2_reason']}"
    for model in ("base", "tuned"):
        if note := result["models"][model]["sections"]["note"]:
            yield f"{model} does not keep the section format: {note}"
    if (pairwise := result["pairwise"]) is not None:
        if pairwise["win_rate"] is None:
            yield f"no win rate: {pairwise['reason']}"
        else:
            between = f" ({_ends(pairwise['interval'], 100)} %)" if pairwise["interval"] else ""
            yield f"tuned wins {pairwise['win_rate']:.0%}{between} of {pairwise['pairs_judged']} pairs; claim: {pairwise['claim']}"
            yield f"{pairwise['order_flip_rate']:.0%} of the pairs change their winner when the order is swapped"
    if result["errors"]:
        yield f"{len(result['errors'])} errors, each left out of the means and listed in the results"
    if result["judge"] is not None:
        usage = result["judge"]
        cost = "" if usage["cost"] is None else f", cost {usage['cost']:.2f}"
        yield f"judge: {usage['answers']} answers now, {usage['answers_from_an_earlier_run']} from before{cost}"


def _scored(part: dict[str, Any]) -> str:
    if part["score"] is None:
        return "no score"
    return f"{part['score']:.1f}" + (f" ({_ends(part['interval'], 1)})" if part["interval"] else "")


def _ends(interval: Any, scale: float) -> str:
    return f"{interval[0] * scale:.1f} to {interval[1] * scale:.1f}"


def _percent(share: float | None) -> str:
    return "none asked for" if share is None else f"{share:.0%}"


def _number(value: float | None, form: str) -> str:
    return "none" if value is None else form.format(value)
