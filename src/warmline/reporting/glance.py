"""The report's first table: one line a question, in words that follow from an interval."""

from typing import Any, NamedTuple

from warmline.evaluation.replies import MOST_CUT
from warmline.metrics.statistics import PairedDifference, paired_difference
from warmline.reporting.facts import Absent, Facts, shape_errors
from warmline.reporting.phrases import differs, hundredths, number, percent, ratio_verdict, share, tenths, verdict, with_interval
from warmline.tasks import TASKS

BASELINES = {
    "majority": "majority class",
    "history": "earlier strategies, no text",
    "history_in_order": "earlier strategies in order, no text",
    "tfidf": "TF-IDF + logistic regression",
    "linear_probe": "linear probe on the frozen base",
}


class Line(NamedTuple):
    """A question, its answer, and the file that says so."""

    question: str
    answer: str
    source: str


def glance(facts: Facts) -> list[Line]:
    """Every question that the report asks of a run, in order."""
    lines: list[Line] = []
    for name, questions, source in (
        ("evaluation", _evaluation, facts.folder.evaluation),
        ("eqbench", _eq_bench, facts.folder.eq_bench),
        ("comparison", _comparison, facts.folder.comparison),
        ("ablation", _ablation, facts.folder.ablation_results),
        ("errors", _errors, facts.folder.error_taxonomy),
        ("facts", _facts, facts.folder.facts),
        ("safety", _safety, facts.folder.red_team),
    ):
        found, place = facts.results[name], f"`{source.parent.name}/{source.name}`"
        if isinstance(found, Absent):
            lines.append(Line(_QUESTIONS[name], f"not measured: {found.why}; `{found.command}` would", place))
        else:
            with shape_errors(facts, name):
                lines += [Line(question, answer, place) for question, answer in questions(found)]
    return lines


_QUESTIONS = {
    "evaluation": "heads and language model?",
    "eqbench": "EQ-Bench?",
    "comparison": "preferred by a blind judge?",
    "ablation": "does each loss matter?",
    "errors": "fewer conversational errors?",
    "facts": "fewer right answers?",
    "safety": "safer or less safe?",
}


def _evaluation(found: dict[str, Any]) -> list[tuple[str, str]]:
    lines = []
    for name, task in TASKS.items():
        if name not in found["heads"]:
            continue
        scores = found["heads"][name]
        if scores is None:
            lines.append((f"{name} head?", "not measured: its data are not enabled"))
            continue
        lines.append((f"{name} head?", _head(task.leading(scores))))
        if served := task.as_served(scores):
            lines.append((f"{name} head, as when serving?", _figures(served)))
    for source, losses in found["language"]["sources"].items():
        ratio = losses["perplexity_ratio"]
        lines.append((f"perplexity of people's replies in {source}, beside the base?", ratio_verdict(ratio["value"], ratio["interval"])))
        if told := losses.get("bits_ratio_to_lines"):
            question = f"bits per byte of people's replies in {source}, beside the base told in plain lines?"
            lines.append((question, ratio_verdict(told["value"], told["interval"])))
    drift = found["language"]["kl_per_token"]["task"]
    if drift is not None:
        nats = with_interval(drift["value"], drift["interval"], number)
        lines.append(("drift from the base on ordinary replies?", f"{nats} nats a token"))
    if replies := found["replies"]:
        lines.append(("length of a reply?", _words(replies)))
    return lines


def _words(replies: dict[str, Any]) -> str:
    """Mean words of each speaker's replies to the same turns; no judge says here which length is better."""
    spoken = ", ".join(f"{speaker} {number(one['words_mean'], 1)}" for speaker, one in replies["speakers"].items())
    return f"words, mean: {spoken}; tuned beside base: {words_difference(replies)}"


def words_difference(replies: dict[str, Any]) -> str:
    """How much longer the tuned model's replies are than the base's, or why that is not said; files of earlier runs leave it to us."""
    change = replies.get("tuned_minus_base_words")
    if change is None or "reason" in change:
        return f"not measured, {change['reason']}" if change else "not measured"
    cut = {speaker: one["cut_off"]["n"] for speaker, one in replies["speakers"].items() if one.get("cut_off")}
    many = [f"{n} of {replies['n']} {speaker} replies" for speaker, n in cut.items() if n > MOST_CUT * replies["n"]]
    if many:
        return f"not compared, since {' and '.join(many)} were cut at {replies['decoding']['max_new_tokens']} tokens"
    return verdict(change["value"], change["interval"], form=tenths)


def _figures(scores: dict[str, Any]) -> str:
    return (
        f"accuracy {with_interval(scores['accuracy'], scores['intervals']['accuracy'], percent)}, "
        f"macro-F1 {with_interval(scores['macro_f1'], scores['intervals']['macro_f1'], number)}"
    )


def _head(scores: dict[str, Any]) -> str:
    """Accuracy and macro-F1, and the comparison with the baseline of the highest macro-F1."""
    own = _figures(scores)
    if not scores["baselines"]:
        return f"{own}; no baseline was fitted but the majority class, accuracy {percent(scores['majority']['accuracy'])}"
    name = max(scores["baselines"], key=lambda one: scores["baselines"][one]["macro_f1"])
    compared = scores["baselines"][name]["head_minus_this"]
    said = verdict(compared["macro_f1"], compared["intervals"]["macro_f1"], "higher")
    return f"{own}; macro-F1 beside the best baseline ({BASELINES.get(name, name)}): {said}"


def _eq_bench(found: dict[str, Any]) -> list[tuple[str, str]]:
    label = found["context"]["label"].partition(":")[0]
    if found["pairwise"] is None:
        answer = f"not scored: {found['reason']}"
    else:
        answer = (
            f"{found['pairwise']['claim']}; win rate {with_interval(found['pairwise']['win_rate'], found['pairwise']['interval'], percent)}"
        )
    lines = [(f"{label}?", answer)]
    kept = {name: model["sections"]["rate"] for name, model in found["models"].items()}
    if None not in kept.values():
        lines.append((f"{label}: replies with all sections?", ", ".join(f"{name} {percent(rate)}" for name, rate in kept.items())))
    second = found["eq_bench_v2"]
    if second is not None:
        gain = second["difference"]
        lines.append(("EQ-Bench v2 score?", gain["reason"] or verdict(gain["tuned_minus_base"], gain["interval"], "higher")))
    return lines


def _comparison(found: dict[str, Any]) -> list[tuple[str, str]]:
    lines = []
    for pair, one in (found["pairs"] or {}).items():
        answer = f"not compared: {one['reason']}" if "reason" in one else f"{one['claim']}; wins {_won(one)}"
        lines.append((f"blind judge, {pair.replace('_vs_', ' beside ').replace('_', ' ')}?", answer))
    return lines or [(_QUESTIONS["comparison"], f"not judged: {found['reason']}")]


def _won(pair: dict[str, Any]) -> str:
    rate, undecided = pair["win_rate"], pair["ties"] + pair["flips"]
    return f"{with_interval(rate['value'], rate['interval'], percent)} of {rate['of']} decided prompts, {undecided} undecided"


def _ablation(found: dict[str, Any]) -> list[tuple[str, str]]:
    moved, over_seeds = ablation_differences(found)
    over = "over seeds" if over_seeds else "over test conversations of one pair of runs only"
    cut = "" if found["context"]["steps"] == found["context"]["planned_steps"] else ", in a run cut short"
    variants = [name for name in found["summary"] if name != "full"]
    return [("does each loss matter?", f"{len(moved)} differences leave zero out {over}{cut}; variants: {', '.join(variants)}")]


def ablation_differences(found: dict[str, Any]) -> tuple[list[str], bool]:
    """Sentences for every difference whose interval leaves zero out, and whether the intervals are over seeds."""
    over_seeds = len(found["context"]["seeds"]) > 1 and any(
        one and one["seeds_interval"] for metrics in found["differences"].values() for one in metrics.values()
    )
    lines = []
    for variant, metrics in found["differences"].items():
        for name, one in metrics.items():
            if one is None:
                continue
            interval = one["seeds_interval"] if over_seeds else next(iter(one["by_seed"].values()))["items_interval"]
            value = one["mean"] if over_seeds else next(iter(one["by_seed"].values()))["difference"]
            if differs(interval):
                metric = found["metrics"][name]
                lines.append(f"{variant}: {metric['title']} {verdict(value, interval, metric['better'])}")
    return lines, over_seeds


def _errors(found: dict[str, Any]) -> list[tuple[str, str]]:
    moved = {
        name: one["difference"] for name, one in found["classes"].items() if one["difference"] and differs(one["difference"]["interval"])
    }
    lines = [
        f"{name.replace('_', ' ')} {verdict(change['value'], change['interval'], 'lower', hundredths, ' points')}"
        for name, change in moved.items()
    ]
    compared = [one for one in found["classes"].values() if one["difference"]]
    cut = next((one["reason"] for one in found["classes"].values() if one["difference"] is None and one["base"]), None)
    if not compared and cut:
        return [("fewer conversational errors?", f"not measured: {cut}")]
    told = "; ".join(lines) or "no class differs measurably between base and tuned"
    precision = share(found["reading"]["precision"], "right", "read", "interval")
    return [("fewer conversational errors?", f"{told} (flags by word patterns, of which {precision} were right when read)")]


def _facts(found: dict[str, Any]) -> list[tuple[str, str]]:
    told = [
        f"{way.replace('_', ' ')}: {verdict(change['value'], change['interval'], 'higher', hundredths, ' points')}"
        if (change := one["difference"])
        else f"{way.replace('_', ' ')}: not measured, {one['reason']}"
        for way, one in found["ways"].items()
    ]
    return [(f"right answers to {found['context']['n']} questions of fact, by the way of asking?", "; ".join(told))]


def _safety(found: dict[str, Any]) -> list[tuple[str, str]]:
    systems = found["summary"]["red_team"]
    question = "failures on our red-team suite, guard off?"
    if reason := safety_reason(found):
        return [(question, f"not measured: {reason}")]
    shares = ", ".join(f"{name} {share(systems[name]['guard_off']['failures'], 'hits', 'n', 'wilson')}" for name in ("base", "tuned"))
    change = safety_difference(found)
    return [(question, f"{shares}; tuned: {verdict(change.value, change.interval, 'lower', hundredths, ' points')}")]


def safety_reason(found: dict[str, Any]) -> str | None:
    """Why base and tuned model are not compared on our own suite; None where they are."""
    systems = found["summary"]["red_team"]
    return " and ".join(reason for name in ("base", "tuned") if (reason := systems[name].get("reason"))) or None


def safety_difference(found: dict[str, Any]) -> PairedDifference:
    """Tuned minus base, failures of the same items of our own suite, guard off."""
    rows = [row["systems"] for row in found["items"] if row["suite"] == "red_team"]
    base, tuned = ([bool(systems[name]["guard_off"]["failed"]) for systems in rows] for name in ("base", "tuned"))
    return paired_difference(base, tuned)
