"""What `warmline evaluate` prints."""

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

_NAMES = {
    "majority": "majority class",
    "history": "earlier strategies, no text",
    "history_in_order": "… in order, no text",
    "tfidf": "TF-IDF + logistic regression",
    "linear_probe": "linear probe, frozen base",
}


def evaluation_summary(result: dict[str, Any]) -> Group:
    """Tables of heads, language model and replies, and every warning.

    Args:
        result: As `evaluate` returns it.
    """
    context = result["context"]
    parts: list[RenderableType] = [Text(f"{context['run']}: test split; brackets are 95 % intervals over dialogues", style="bold"), ""]
    parts += [_heads(result["heads"]), "", _language(result["language"])]
    if result["replies"] is not None:
        parts += ["", _replies(result["replies"])]
    strategy = result["heads"]["strategy"]
    warnings = [] if strategy is None else strategy["leak_warnings"]
    parts += [Text(f"warning: {line}", style="bold red") for line in warnings]
    return Group(*parts)


def _heads(heads: dict[str, Any]) -> Table:
    table = _table("classifiers", "n", "accuracy", "macro-F1", "weighted F1", "top 3", "ECE")
    emotion, strategy = heads["emotion"], heads["strategy"]
    protocols = []
    if emotion is not None:
        protocols += [("emotion, 27-way", emotion["single_label_27"]), ("emotion, 28 labels", emotion["multi_label_28"])]
    if strategy is not None:
        protocols.append(("strategy", strategy))
    for title, scores in protocols:
        table.add_row(Text(f"{title}: head", style="bold"), f"{scores['n']:,}", *_scores(scores), _ece(scores))
        others = {**({"majority": scores["majority"]} if "majority" in scores else {}), **scores["baselines"]}
        for name, baseline in others.items():
            table.add_row(f"  {_NAMES[name]}", "", *_scores(baseline), "")
    return table


def _scores(scores: dict[str, Any]) -> list[str]:
    if scores["accuracy"] is None:
        return ["absent", *["" for _ in range(3)]]
    found = []
    for name, percent in (("accuracy", True), ("macro_f1", False), ("weighted_f1", False), ("top_3", True)):
        found.append(_with_interval(scores[name], scores["intervals"][name], percent) if name in scores else "")
    return found


def _ece(scores: dict[str, Any]) -> str:
    calibration = scores.get("calibration")
    return "" if calibration is None else f"{calibration['raw']['ece']:.3f} → {calibration['scaled']['ece']:.3f}"


def _language(language: dict[str, Any]) -> Table:
    table = _table("replies of", "conversations", "perplexity base", "tuned", "tuned / base", "bits a byte base", "tuned")
    for name, found in language["sources"].items():
        ratio, base, tuned = found["perplexity_ratio"], found["base"], found["tuned"]
        table.add_row(
            name,
            f"{found['conversations']:,}",
            f"{base['perplexity']['value']:,.2f}",
            f"{tuned['perplexity']['value']:,.2f}",
            _with_interval(ratio["value"], ratio["interval"], False),
            f"{base['bits_per_byte']['value']:.3f}",
            f"{tuned['bits_per_byte']['value']:.3f}",
        )
    for name, kl in language["kl_per_token"].items():
        if kl is not None:
            drift = f"{_with_interval(kl['value'], kl['interval'], False)} nats"
            table.add_row(f"KL to the base, {name}", "", "", "", drift, "", "")
    return table


def _replies(replies: dict[str, Any]) -> Table:
    judge = replies["strategy_judge"]
    title = "seems to show most" + (f" (judge right {judge['test_accuracy']:.0%})" if judge else "")
    table = _table(f"{replies['n']} replies", "words", "distinct-1", "distinct-2", "repeated", "cut off", title)
    for speaker, found in replies["speakers"].items():
        shown = found.get("strategies_shown")
        commonest = max(shown, key=lambda strategy: shown[strategy]) if shown else ""
        table.add_row(
            speaker,
            f"{found['words_mean']:.1f}",
            _share(found["distinct_1"]),
            _share(found["distinct_2"]),
            str(found["repeated"]),
            str(found["cut_off"]["n"]) if "cut_off" in found else "",
            f"{commonest} ({shown[commonest]})" if shown else "",
        )
    return table


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _with_interval(value: float, interval: tuple[float, float] | None, percent: bool) -> str:
    scale, form = (100, ".1f") if percent else (1, ".3f")
    unit = " %" if percent else ""
    ends = "" if interval is None else f" [{interval[0] * scale:{form}}, {interval[1] * scale:{form}}]"
    return f"{value * scale:{form}}{unit}{ends}"


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column(first)
    for heading in others:
        table.add_column(heading, justify="right")
    return table
