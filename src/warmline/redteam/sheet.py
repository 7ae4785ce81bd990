"""The red-team sheet: what was asked, what was answered, what the flags saw. It shows failures first and hides none."""

from collections.abc import Iterable
from typing import Any

from warmline.evaluation.statistics import wilson

_SYSTEMS = {"base": "base", "tuned": "tuned", "without_kl": "tuned without KL"}


def render_sheet(result: dict[str, Any]) -> str:
    """Markdown of a `results/red_team.json`.

    Args:
        result: As `redteam.red_team` returns it.
    """
    parts = [_head(result), _numbers(result), _public(result)]
    own = [row for row in result["items"] if row["suite"] == "red_team"]
    own.sort(key=lambda row: (not _tuned(row)["guard_off"]["failed"], ("red", "yellow", "none").index(row["severity"])))
    parts += ["## Our suite, item by item\n\nFailures of the tuned model by the automatic flags come first, red before yellow.\n"]
    parts += [_item(row) for row in own]
    for name in ("simple_safety_tests", "xstest"):
        parts.append(_list_of_public(result, name))
    return "\n".join(part for part in parts if part)


def _tuned(row: dict[str, Any]) -> dict[str, Any]:
    cell: dict[str, Any] = row["systems"]["tuned"]
    return cell


def _head(result: dict[str, Any]) -> str:
    context = result["context"]
    overlap = result["overlap"]
    zero = wilson(0, 20).high
    lines = [
        f"# Red-team sheet: {context['run']}",
        "",
        f"Run `{context['run']}`, step {context['step']}, seed {context['seed']}, base `{context['base_model']}` ({_base_note(context)}). "
        f"Greedy replies of at most {context['decoding']['max_new_tokens']} tokens. Hotlines of: {context['crisis_row']}. "
        f"Protocol `{context['protocol']}`.",
        "",
        "**No clinician has signed this off.** The automatic flags are word patterns: they find replies to read and are no verdict on "
        "safety. Ratings by people go into `human_ratings.yaml` beside this file.",
        "",
        f"Few items prove little: 0 failures in 20 still allow a failure rate of {zero:.0%} (95 % Wilson interval). "
        "Every share below has its interval.",
        "",
        f"Training data: {overlap['turns']} prompts were compared by hash with {overlap['texts']:,} training and validation texts "
        f"({', '.join(overlap['sources'])}); "
        + (f"found: {'; '.join(overlap['found'])}." if overlap["found"] else "none of them stands there."),
        "",
        f"- tuned without KL: {context['without_kl']['run'] if context['without_kl'] else context['without_kl_reason']}",
        f"- judge: {_judge_name(context)}",
    ]
    cut = [f"- {line}" for line in cut_lines(result)]
    missing = [f"- **{name} is missing**: {suite['missing']}" for name, suite in result["suites"].items() if suite["missing"]]
    return "\n".join([*lines, *cut, *missing, ""])


def cut_lines(result: dict[str, Any]) -> list[str]:
    """How many replies of each system were cut, suite by suite, and what follows from that.

    Args:
        result: As `redteam.red_team` returns it.
    """
    lines = []
    for name, summary in result["summary"].items():
        for system, found in (summary or {}).items():
            cut, consequence = found["cut_off"], f"; no share is given: {found['reason']}" if found["reason"] else ""
            lines.append(f"{name}: {cut['n']} of {cut['of']} replies of {_SYSTEMS[system]} were cut{consequence}")
    return lines


def _base_note(context: dict[str, Any]) -> str:
    seed = context["base_random_init_seed"]
    return (
        "pretrained weights"
        if seed is None
        else f"RANDOM weights from seed {seed}: its replies show that the machinery runs, and nothing of safety"
    )


def _judge_name(context: dict[str, Any]) -> str:
    return f"{context['judge']['model']}, rubric `{context['judge']['rubric']}`" if context["judge"] else str(context["judge_reason"])


_OWN_ROWS = (
    ("failures", "failures by the flags (any missing or forbidden flag)"),
    ("failures_by_cut", "... for nothing but what a reply lacks that was cut"),
    ("failures_red", "... on red items"),
    ("risk_met_with_help_and_people", "risk met with a resource *and* people"),
    ("asks_about_safety", "risk met with a question about safety"),
    ("sycophancy_agrees", "sycophancy slice: agrees"),
    ("alarm_on_benign", "benign controls answered with a hotline"),
)
_OWN_FLAGS = ("invented_number", "method", "diagnosis", "possessive", "claims_human", "refusal", "empty")


def _numbers(result: dict[str, Any]) -> str:
    summary = result["summary"]["red_team"]
    systems = list(summary)
    columns = [(system, guard) for system in systems for guard in ("guard_off", "guard_on")]
    header = ["", *(f"{_SYSTEMS[system]}, guard {guard.removeprefix('guard_')}" for system, guard in columns)]
    rows = [[text, *(_share(summary[system][guard][key]) for system, guard in columns)] for key, text in _OWN_ROWS]
    rows += [[f"flag `{flag}`", *(_share(summary[system][guard]["flags"][flag]) for system, guard in columns)] for flag in _OWN_FLAGS]
    names = next(iter(summary.values()))["guard_off"]["failures_by_category"]
    by_category = [[name, *(_short(summary[system][guard]["failures_by_category"][name]) for system, guard in columns)] for name in names]
    guard = result["guard"]["red_team"]
    people = ", ".join(f"{_SYSTEMS[system]} {summary[system]['human']['rated']}" for system in systems)
    lines = [
        "## Our suite in numbers\n",
        _table(header, rows),
        "\nFailures by category:\n",
        _table(["category", *header[1:]], by_category),
        f"\nThe guard on our suite: recall {_share(guard['recall'])}, false alarms {_share(guard['false_alarms'])}. "
        "The suite and the guard's rules come from one hand, so this flatters; docs/safety.md has held-out numbers.",
        f"\nRated by people: {people} of {result['suites']['red_team']['n']} replies each.",
    ]
    lines += [
        f"\n{_SYSTEMS[system]}, rated by people as failures: {_share(failed)}"
        for system in systems
        if (failed := summary[system]["human"]["failures"])
    ]
    for system in systems:
        if judged := summary[system]["judge"]:
            lines.append(
                f"\n{_SYSTEMS[system]}, judged as failures: {_share(judged['failures'])}; "
                f"{judged['no_verdict']} of {judged['asked']} without a verdict."
            )
    return "\n".join(lines) + "\n"


def _public(result: dict[str, Any]) -> str:
    lines = []
    for name, title, keys in (
        (
            "xstest",
            "XSTest: over-refusal",
            (
                ("over_refusal", "safe prompts refused"),
                ("crisis_help_on_safe", "safe prompts answered with a hotline"),
                ("refused_unsafe", "unsafe contrasts refused"),
            ),
        ),
        (
            "simple_safety_tests",
            "SimpleSafetyTests",
            (("refused", "harmful prompts refused in words the flag knows"), ("flags.method", "flag `method`")),
        ),
    ):
        summary = result["summary"][name]
        if summary is None:
            continue
        columns = [(system, guard) for system in summary for guard in ("guard_off", "guard_on")]
        header = ["", *(f"{_SYSTEMS[system]}, guard {guard.removeprefix('guard_')}" for system, guard in columns)]
        rows = [[text, *(_share(_at(summary[system][guard], key)) for system, guard in columns)] for key, text in keys]
        lines += [
            f"## {title}\n",
            _table(header, rows),
            "\nNot refused is not the same as helped: read the replies at the end of this sheet.\n",
        ]
    return "\n".join(lines)


def _at(shares: dict[str, Any], key: str) -> Any:
    for part in key.split("."):
        shares = shares[part]
    return shares


def _item(row: dict[str, Any]) -> str:
    heard = row["guard"]
    guard = f"{heard['level']} ({', '.join(heard['categories'])}: “{'”, “'.join(heard['evidence'])}”)" if heard["categories"] else "nothing"
    lines = [
        f"### {row['id']}: {row['category']}, {row['severity']}",
        "",
        f"must: {'; '.join(row['must'])}  ",
        f"must not: {'; '.join(row['must_not'])}  ",
        f"expected flags: {', '.join(row['expect']) or 'none'}; the guard hears: {guard}",
        "",
    ]
    for system, cell in row["systems"].items():
        lines += [f"**{_SYSTEMS[system]}** ({_outcome(cell['guard_off'])}; with the guard on: {_outcome(cell['guard_on'])})", ""]
        for turn, reply, cut in zip(row["turns"], cell["replies"], cell["cut"], strict=True):
            lines += [_quote("user", turn), _quote(system, _said(reply, cut))]
        if cell["guard_on"]["shown"] != cell["replies"]:
            lines += [
                "<details><summary>shown with the guard on</summary>\n",
                _quote("shown", cell["guard_on"]["shown"][-1]),
                "</details>\n",
            ]
        lines += [
            f"flags: {_flags(cell['guard_off'])}  ",
            f"judge: {_judged(cell['judge'])}  ",
            f"human: {_human(cell['human'])} (reply {cell['reply_sha256']})",
            "",
        ]
    return "\n".join(lines)


def _outcome(verdict: dict[str, Any]) -> str:
    if verdict["failed"] is None:
        return "no expectation"
    if not verdict["failed"]:
        return "passes the flags"
    reasons = [f"lacks {flag}" for flag in verdict["missing"]] + [f"raises {flag}" for flag in verdict["forbidden"]]
    return f"**FAILS**{', cut off' if verdict['failed_by_cut'] else ''}: {', '.join(reasons)}"


def _flags(verdict: dict[str, Any]) -> str:
    return ", ".join(f"{name} (“{'”, “'.join(_line(word) for word in words)}”)" for name, words in verdict["flags"].items()) or "none"


def _judged(verdict: dict[str, Any] | None) -> str:
    if verdict is None:
        return "not judged"
    if "error" in verdict:
        return f"no verdict ({verdict['error']})"
    scores = ", ".join(f"{name} {value}" for name, value in verdict.items() if name not in ("failure", "why"))
    return f"{'failure' if verdict['failure'] else 'no failure'}; {scores}; {_line(verdict['why'])}"


def _human(rating: dict[str, Any] | None) -> str:
    if rating is None:
        return "not rated"
    return f"{rating['rating']} by {rating['rater'] or 'unnamed'}" + (f": {_line(str(rating['note']))}" if rating["note"] else "")


def _list_of_public(result: dict[str, Any], name: str) -> str:
    """The replies that somebody should read: refusals of what is safe, and answers to what is not."""
    rows = [row for row in result["items"] if row["suite"] == name]
    lines = []
    for row in rows:
        for system, cell in row["systems"].items():
            if ("refusal" in cell["guard_off"]["flags"]) == row["harmful"]:
                continue
            lines += [
                f"**{row['id']}** ({row['category']}), {_SYSTEMS[system]}",
                "",
                _quote("user", row["turns"][0]),
                _quote(system, _said(cell["replies"][0], cell["cut"][0])),
            ]
    if not rows:
        return ""
    licence = "prompts: CC BY 4.0, " + ("Röttger et al. 2024" if name == "xstest" else "Vidgen et al. 2023")
    return "\n".join([f"## {name}: safe prompts refused, harmful prompts not refused ({licence})\n", *(lines or ["none"])])


def _said(reply: str, cut: bool) -> str:
    return (reply or "(empty)") + (" [cut off]" if cut else "")


def _quote(who: str, text: str) -> str:
    return f"> {who}: " + "\n> ".join(_escape(line) for line in text.splitlines() or [""]) + "\n"


def _escape(text: str) -> str:
    """A model's words must not become markup of the sheet."""
    return text.replace("<", "&lt;").replace("|", "\\|").replace("`", "'")


def _line(text: str) -> str:
    return _escape(" ".join(text.split()))


def _share(share: dict[str, Any] | None) -> str:
    if share is None:
        return "n/a"
    low, high = share["wilson"]
    return f"{share['hits']}/{share['n']} = {share['share']:.0%} ({low:.0%} to {high:.0%})"


def _short(share: dict[str, Any] | None) -> str:
    return "n/a" if share is None else f"{share['hits']}/{share['n']}"


def _table(header: list[str], rows: Iterable[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, ["---"] * len(header), *rows])
