"""What `warmline evaluate`, `errors` and `facts` print, the first in 80 columns, and pictures of the heads: who is taken for whom, and
how far a probability can be trusted.
"""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from warmline.runs import write_picture
from warmline.tasks import TASKS

_NAMES = {
    "in_context": "in context",
    "own_choices": "as when serving",
    "majority": "majority class",
    "history": "history",
    "history_in_order": "history in order",
    "tfidf": "TF-IDF",
    "linear_probe": "linear probe",
}


def evaluation_summary(result: dict[str, Any]) -> Group:
    """Tables of heads, language model and replies, and every warning.

    Args:
        result: As `evaluate` returns it.
    """
    parts: list[RenderableType] = [
        Text(f"{result['context']['run']}: test split; in brackets 95 % intervals over dialogues", style="bold"),
        "",
        _heads(result["heads"]),
        "",
        _language(result["language"]),
        *(_drift(name, kl) for name, kl in result["language"]["kl_per_token"].items() if kl is not None),
    ]
    if result["replies"] is not None:
        parts += ["", _replies(result["replies"]), *_not_compared(result["replies"]), *_shown(result["replies"])]
    for name, task in TASKS.items():
        lines = task.warnings(result["heads"].get(name) or {})
        parts += [Text(f"warning: {line}", style="bold red") for line in lines]
    return Group(*parts)


def errors_table(result: dict[str, Any]) -> Table:
    """How often base and tuned replies are flagged.

    Args:
        result: As `analyse` returns it.
    """
    table = Table(title=f"{result['context']['run']}: replies flagged, {result['context']['n']} prompts", title_justify="left", box=None)
    for column in ("error", "n", "base", "tuned", "difference, 95 %", "flags right when read"):
        table.add_column(column, justify="left" if column == "error" else "right")
    for name, counts in result["classes"].items():
        table.add_row(name.replace("_", " "), *_error_cells(counts))
    return table


def facts_summary(result: dict[str, Any]) -> list[RenderableType]:
    """How often base and tuned are right, by the way of asking, and what else must be known of it.

    Args:
        result: As `ask_facts` returns it.
    """
    n, longest = result["context"]["n"], result["context"]["decoding"]["max_new_tokens"]
    table = Table(title=f"{result['context']['run']}: right replies to {n} questions of fact", title_justify="left", box=None)
    for column in ("asked", "base", "tuned", "difference, 95 %"):
        table.add_column(column, justify="left" if column == "asked" else "right")
    lines = []
    for way, found in result["ways"].items():
        difference = "not compared" if found["difference"] is None else _difference(found["difference"])
        table.add_row(way.replace("_", " "), *(f"{found[side]['share']:.1%}" for side in ("base", "tuned")), difference)
        if any(cut["n"] for cut in found["cut_off"].values()):
            cuts = ", ".join(f"{cut['n']} of {cut['of']} of the {side}'s" for side, cut in found["cut_off"].items())
            lines.append(f"{way.replace('_', ' ')}: replies cut at {longest} tokens: {cuts}")
    agrees = ", ".join(f"{side} {found['hits']}" for side, found in result["ways"]["wrong_belief"]["agrees"].items())
    return [table, f"agreed with the wrong belief in so many words: {agrees} of {n}", *lines]


def dial_summary(result: dict[str, Any]) -> list[RenderableType]:
    """What replies, forms, drift and heads come to at each strength.

    Args:
        result: As `dial` returns it.
    """
    context, rows = result["context"], result["strengths"]
    table = Table(title=f"{context['run']}: the adapter's strength, on validation", title_justify="left", box=None)
    heads = [key for key in rows[0] if key.endswith("_accuracy")]
    for column in ("strength", "words", "flawless", "forms kept", "perplexity by the base", "KL, task", "KL, safety"):
        table.add_column(column, justify="right")
    for head in heads:
        table.add_column(head.removesuffix("_accuracy"), justify="right")
    for row in rows:
        numbers = [row["base_perplexity"], row["task_kl"], row["safety"]]
        table.add_row(
            f"{row['strength']:g}", f"{row['words_median']:g}", f"{row['flawless']:.0%}", f"{row['forms_kept']:.0%}",
            *("-" if number is None else f"{number:.2f}" for number in numbers),
            *("-" if row[head] is None else f"{row[head]:.1%}" for head in heads),
        )  # fmt: skip
    return [table, f"{context['prompts']} turns and {rows[0]['forms']} forms; rules see no nonsense, so read the examples"]


def _difference(found: dict[str, Any]) -> str:
    low, high = found["interval"]
    return f"{found['value']:+.1%} ({low:+.1%} to {high:+.1%})"


def comparison_tables(result: dict[str, Any]) -> list[RenderableType]:
    """Who is preferred, and what is wrong with whose replies.

    Args:
        result: As `compare` returns it.
    """
    context, parts = result["context"], list[RenderableType]()
    title = f"{context['run']}: {context['n']} held-out turns" + (f", judge {context['judge']['model']}" if context["judge"] else "")
    if result["pairs"] is not None:
        wins = _table("tuned beside", "n", "wins", "losses", "ties", "flips", "% of decided", "% preferred")
        for source, part in {"": result, **result["by_source"]}.items():
            for pair, found in part["pairs"].items():
                wins.add_row(f"{pair.removeprefix('tuned_vs_').replace('_', ' ')}{source and f', {source}'}", *_preference_cells(found))
        claims = [f"{pair.replace('_', ' ')}: {found.get('claim') or found['reason']}" for pair, found in result["pairs"].items()]
        parts += [wins, "", *claims, ""]
    voices = _table("replies", *result["voices"])
    for name, key in (("words, median", "words_median"), ("empty", "empty")):
        voices.add_row(name, *(f"{voice[key]:g}" for voice in result["voices"].values()))
    voices.add_row("cut off", *(f"{voice['cut_off']['n']} of {voice['cut_off']['of']}" for voice in result["voices"].values()))
    for flag in context["flags"] if result["pairs"] is not None else ():
        voices.add_row(f"{flag.replace('_', ' ')} %", *(_percent(**voice["flags"][flag]) for voice in result["voices"].values()))
    remarks = [f"not judged: {result['reason']}"] if result["reason"] else []
    remarks += [f"{len(result['errors'])} requests have no usable answer, and are listed in the results"] if result["errors"] else []
    return [Text(title, style="bold"), *parts, voices, *remarks]


def _preference_cells(found: dict[str, Any]) -> list[str]:
    if "reason" in found:
        return ["", "", "", "", "", "not compared", ""]
    counts = [str(found[key]) for key in ("judged", "wins", "losses", "ties", "flips")]
    return [*counts, *(_percent(found[key]["value"], found[key]["interval"]) for key in ("win_rate", "preference"))]


def _percent(share: float | None, interval: tuple[float, float] | None, **_: Any) -> str:
    return "" if share is None else _with_interval(100 * share, interval, ".0f", scale=100)


def _error_cells(counts: dict[str, Any]) -> list[str]:
    read = counts["precision"]
    precision = f"{read['right']} of {read['read']}" if read else "not read"
    shares = [f"{counts[side]['share']:.1%}" if counts[side] else "" for side in ("base", "tuned")]
    difference = counts["reason"] if counts["difference"] is None else _difference(counts["difference"])
    return [str(counts["asked"]), *shares, difference, precision]


def _heads(heads: dict[str, Any]) -> Table:
    table = _table("test rows", "n", "accuracy %", "macro-F1", "top 3 %", "ECE")
    protocols: dict[str, Any] = {}
    for name, task in TASKS.items():
        protocols |= task.protocols(heads[name]) if heads.get(name) else {}
    for title, scores in protocols.items():
        calibration = scores.get("calibration")
        ece = "" if calibration is None else f"{calibration['raw']['ece']:.3f}"
        table.add_row(Text(title, style="bold"), f"{scores['n']:,}", *_scores(scores), ece)
        beside = {name: scores[name] for name in ("in_context", "own_choices", "majority") if scores.get(name)}
        for name, other in {**beside, **scores["baselines"]}.items():
            n = f"{other['n']:,}" if other["n"] != scores["n"] else ""
            table.add_row(f"  {_NAMES.get(name, name)}", n, *_scores(other), "")
    return table


def _scores(scores: dict[str, Any]) -> list[str]:
    if scores["accuracy"] is None:
        return ["no such head", "", ""]
    intervals = scores["intervals"]
    return [
        _with_interval(100 * scores["accuracy"], intervals["accuracy"], ".1f", scale=100),
        _with_interval(scores["macro_f1"], intervals["macro_f1"], ".3f"),
        f"{100 * scores['top_3']:.1f}" if "top_3" in scores else "",
    ]


def _language(language: dict[str, Any]) -> Table:
    table = _table("replies of", "n", "ppl base", "tuned", "tuned / base", "bits a byte")
    for name, found in language["sources"].items():
        ratio, base, tuned = found["perplexity_ratio"], found["base"], found["tuned"]
        table.add_row(
            name,
            f"{found['conversations']:,}",
            f"{base['perplexity']['value']:,.1f}",
            f"{tuned['perplexity']['value']:,.1f}",
            _with_interval(ratio["value"], ratio["interval"], ".3f"),
            f"{base['bits_per_byte']['value']:.3f} → {tuned['bits_per_byte']['value']:.3f}",
        )
    return table


def _drift(name: str, kl: dict[str, Any]) -> str:
    return f"KL(base || tuned) on {name} replies: {_with_interval(kl['value'], kl['interval'], '.4f')} nats a token"


def _replies(replies: dict[str, Any]) -> Table:
    table = _table("replies", "n", "words", "distinct-1", "distinct-2", "repeated", "cut off")
    for speaker, found in replies["speakers"].items():
        table.add_row(
            speaker,
            str(replies["n"]),
            f"{found['words_mean']:.1f}",
            _share(found["distinct_1"]),
            _share(found["distinct_2"]),
            str(found["repeated"]),
            str(found["cut_off"]["n"]) if "cut_off" in found else "",
        )
    return table


def _not_compared(replies: dict[str, Any]) -> list[str]:
    reason = replies.get("tuned_minus_base_words", {}).get("reason")
    return [f"not compared: {reason}"] if reason else []


def _shown(replies: dict[str, Any]) -> list[str]:
    lines = []
    for name, task in TASKS.items():
        judge = replies.get(f"{name}_judge")
        if judge is None:
            continue
        lines.append(f"{task.plural} they seem to show, by a bag of words that is right on {judge['test_accuracy']:.0%} of human replies:")
        for speaker, found in replies["speakers"].items():
            shown = sorted(found[f"{task.plural}_shown"].items(), key=lambda pair: -pair[1])[:3]
            lines.append(f"  {speaker}: " + ", ".join(f"{label} {number}" for label, number in shown if number))
    return lines


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _with_interval(value: float, interval: tuple[float, float] | None, form: str, scale: float = 1) -> str:
    ends = "" if interval is None else f" [{interval[0] * scale:{form}}, {interval[1] * scale:{form}}]"
    return f"{value:{form}}{ends}"


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column(first, no_wrap=True)
    for heading in others:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


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
