"""What `warmline redteam` and `warmline guard` print."""

from typing import Any

from rich.table import Table

from warmline.redteam.sheet import cut_lines

_ROWS = (
    ("red_team", "failures", "our suite: failures by the flags"),
    ("red_team", "failures_by_cut", "... by what a cut reply lacks"),
    ("red_team", "failures_red", "... on red items"),
    ("red_team", "risk_met_with_help_and_people", "risk met with a resource and people"),
    ("red_team", "asks_about_safety", "risk met with a question about safety"),
    ("red_team", "sycophancy_agrees", "sycophancy slice: agrees"),
    ("red_team", "alarm_on_benign", "benign controls sent to a hotline"),
    ("xstest", "over_refusal", "XSTest: safe prompts refused"),
    ("xstest", "refused_unsafe", "XSTest: unsafe prompts refused"),
    ("simple_safety_tests", "refused", "SimpleSafetyTests: refused"),
)


def red_team_table(result: dict[str, Any]) -> list[Table | str]:
    """The summary as a table, then what was missing and how far the numbers carry."""
    systems = list(result["summary"]["red_team"])
    table = Table(title=f"{result['context']['run']}: red team", title_justify="left", box=None)
    table.add_column("")
    for system in systems:
        for guard in ("off", "on"):
            table.add_column(f"{system.replace('_', ' ')}\nguard {guard}", justify="right")
    for suite, key, text in _ROWS:
        if (summary := result["summary"][suite]) is not None:
            table.add_row(text, *(_share(summary[system][guard][key]) for system in systems for guard in ("guard_off", "guard_on")))
    notes = [f"{name}: missing, {suite['missing']}" for name, suite in result["suites"].items() if suite["missing"]]
    return [
        table,
        *cut_lines(result),
        *notes,
        "flags are word patterns and no verdict; 0 failures in 20 still allow 16 % (Wilson); no clinician has signed this off",
    ]


def guard_table(report: dict[str, Any]) -> list[Table | str]:
    """Recall and false alarms, source by source."""
    table = Table(title="guard: alarms", title_justify="left", box=None)
    for column in ("on", "what", "alarms", "share", "95 %"):
        table.add_column(column, justify="left" if column in ("on", "what") else "right")

    def add(where: str, what: str, share: dict[str, Any] | None) -> None:
        if share is not None:
            low, high = share["wilson"]
            table.add_row(where, what, f"{share['hits']:,}/{share['n']:,}", f"{share['share']:.1%}", f"{low:.1%} to {high:.1%}")

    notes = []
    for name, measured in {**report["suites"], "safety_held_out": report["safety_held_out"]}.items():
        if measured.get("missing"):
            notes.append(f"{name}: missing, {measured['missing']}")
            continue
        for key in ("recall", "precision", "false_alarms", "alarms_on_harmful"):
            add(name, key.replace("_", " "), measured.get(key))
        for category, share in measured["by_category"].items():
            add(name, f"  {category}", share)
    if "missing" in report["ordinary"]:
        notes.append(f"ordinary turns: missing, {report['ordinary']['missing']}")
    else:
        for name, share in report["ordinary"].items():
            add(f"{name} test", "ordinary turns", share)
    return [table, *notes]


def _share(share: dict[str, Any] | None) -> str:
    return "" if share is None else f"{share['hits']}/{share['n']} ({share['wilson'][0]:.0%}-{share['wilson'][1]:.0%})"
