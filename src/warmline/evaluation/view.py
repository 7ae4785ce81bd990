"""What `warmline evaluate` prints; it fits a terminal of 80 columns."""

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

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
