"""`report.md`: sections rendered from a run's JSON files. No number is typed in a template, and a missing file becomes a sentence."""

from pathlib import Path
from typing import Any

import jinja2

from warmline.lock import writes_run
from warmline.paths import public_name
from warmline.redteam.summary import ROWS
from warmline.reporting import phrases
from warmline.reporting.facts import Absent, Facts, commands_of, gather, inherited_terms, loss_names, shape_errors
from warmline.reporting.glance import BASELINES, ablation_differences, glance, safety_difference, safety_reason, words_difference
from warmline.runs import RunFolder, write_text
from warmline.tasks import TASKS

SECTIONS = (
    ("summary", None, ""),
    ("examples", "examples", "Examples"),
    ("heads", "evaluation", "Results: the heads"),
    ("language", "evaluation", "Results: the language model"),
    ("eqbench", "eqbench", "Results: EQ-Bench"),
    ("comparison", "comparison", "Blind comparison of replies"),
    ("errors", "errors", "Error taxonomy"),
    ("facts", "facts", "Questions of fact"),
    ("safety", "safety", "Safety"),
    ("ablation", "ablation", "Ablations"),
    ("not_measured", None, ""),
    ("approach", None, ""),
    ("data", None, ""),
    ("implementation", None, ""),
    ("reproduce", None, ""),
)
"""Template, the result that it needs, and its title where that result is absent."""

_EXAMPLE_TURNS = 4
_FACTS = 3
_AGAIN = Path("again")
_TITLES = {"evaluation": "evaluation", "eqbench": "EQ-Bench scores", "ablation": "ablations", "examples": "examples",
           "comparison": "blind comparison of replies", "errors": "error taxonomy", "facts": "questions of fact",
           "safety": "red team"}  # fmt: skip


@writes_run("report")
def write_report(path: Path) -> Path:
    """Write `report.md` into a run folder, with data cards where they are missing; a second time changes no byte.

    Args:
        path: A finished run folder.

    Returns:
        The report.

    Raises:
        WarmlineError: an unfinished run, a damaged results file, a full disk.
    """
    facts = gather(path)
    templates, values = environment(), _values(facts)
    parts = []
    for template, needed, title in SECTIONS:
        found = facts.results[needed] if needed else None
        if isinstance(found, Absent):
            parts.append(f"## {title}\n\nNot measured: {found.why}; `{found.command}` would make it.\n")
        else:
            with shape_errors(facts, needed):
                parts.append(tidy(templates.get_template(f"{template}.md.j2").render(values)))
    write_text(facts.folder.report, "\n".join(part.strip("\n") + "\n" for part in parts))
    return facts.folder.report


def tidy(text: str) -> str:
    """At most one empty line in a row, none inside a table or list of lines that belong together, and no space at a line's end."""
    lines: list[str] = []
    for line in (line.rstrip() for line in text.split("\n")):
        if line or (lines and lines[-1]):
            lines.append(line)
    return "\n".join(line for at, line in enumerate(lines) if line or not _joins(lines, at))


def _joins(lines: list[str], at: int) -> bool:
    """Whether an empty line stands between two rows of a table or two items of a list."""
    if not 0 < at < len(lines) - 1:
        return False
    before, after = lines[at - 1], lines[at + 1]
    new_table = at + 2 < len(lines) and lines[at + 2].startswith("| ---")
    return (before.startswith("|") and after.startswith("|") and not new_table) or (before.startswith("- ") and after.startswith("- "))


def environment() -> jinja2.Environment:
    """Where templates of reports and model cards are rendered: undefined names are errors, `phrases` format numbers."""
    made = jinja2.Environment(  # noqa: S701 - Markdown; `quoted` escapes what people and models said
        loader=jinja2.PackageLoader("warmline.reporting"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        name: getattr(phrases, name)
        for name in ("number", "percent", "verdict", "ratio_verdict", "with_interval", "share", "quoted", "cell", "likeliest")
    }
    made.globals |= {
        "number": phrases.number,
        "percent": phrases.percent,
        "hundredths": phrases.hundredths,
        "tenths": phrases.tenths,
    }
    made.globals["whole"] = phrases.whole
    made.globals["words_difference"] = words_difference
    return made


def _values(facts: Facts) -> dict[str, Any]:
    """Everything that templates look numbers up in."""
    results = {name: found for name, found in facts.results.items() if not isinstance(found, Absent)}
    compared = ["comparison"] if "comparison" in results else []  # runs of before it was a step have none
    values: dict[str, Any] = {
        **results,
        "config": facts.config.model_dump(mode="json"),
        "manifest": {**facts.manifest, "base_model": public_name(facts.manifest["base_model"])},
        "plan": facts.plan,
        "heads": facts.heads,
        "training": facts.training,
        "commands": facts.commands,
        "again": commands_of(
            _AGAIN / facts.config.name, facts.config.output_dir / facts.config.name / "config.yaml", f" --set output_dir={_AGAIN}"
        ),
        "quick": facts.quick,
        "command_order": ["train", "evaluation", "errors", "facts", "eqbench", *compared, "ablation", "safety", "report"],
        "cards": {**dict.fromkeys(facts.plan["sources"]), **facts.cards},
        "cards_reason": facts.cards_reason,
        "inherited": inherited_terms(facts.config),
        "pictures": _pictures(facts.folder),
        "has_sheet": facts.folder.red_team_sheet.is_file(),
        "loss_names": loss_names(facts.heads["labels"]),
        "baseline_names": BASELINES,
        "safety_rows": ROWS,
        "examples_shown": _EXAMPLE_TURNS,
        "facts_shown": _FACTS,
        "glance": glance(facts),
        "tasks": {name: task for name, task in TASKS.items() if name in facts.heads["labels"]},
        "not_measured": _not_measured(facts),
    }
    if "ablation" in results:
        with shape_errors(facts, "ablation"):
            values |= _ablation_values(results["ablation"])
    if "safety" in results:
        with shape_errors(facts, "safety"):
            values["safety_difference"] = safety_difference(results["safety"])
            values["safety_reason"] = safety_reason(results["safety"])
    return values


def _ablation_values(ablation: dict[str, Any]) -> dict[str, Any]:
    lines, over_seeds = ablation_differences(ablation)
    of_heads = [f"{prefix}{head}_macro_f1" for head in TASKS for prefix in ("", "probe_")]
    metrics = [name for name in (*of_heads, "lm_nats", "kl_safety", "kl_task") if name in ablation["metrics"]]
    return {"ablation_metrics": metrics, "ablation_differences": lines, "ablation_over_seeds": over_seeds}


def _pictures(folder: RunFolder) -> dict[str, str | None]:
    """Places relative to the report; None where there is no such picture."""
    places = {
        "curves": folder.curves,
        **{f"confusion_{head}": folder.confusion(head) for head in TASKS},
        "reliability": folder.reliability,
        "eq_bench": folder.eq_bench_picture,
        "ablation": folder.ablation_picture,
        "errors": folder.error_picture,
    }
    return {name: place.relative_to(folder.path).as_posix() if place.is_file() else None for name, place in places.items()}


def _not_measured(facts: Facts) -> list[dict[str, str]]:
    """Results that are absent, and what those that are there say of themselves; a reason is given once."""
    reasons: dict[str, str] = {}
    for name, found in facts.results.items():
        if isinstance(found, Absent):
            reasons.setdefault(f"{found.why}; `{found.command}` would make it", _TITLES[name])
        else:
            for place, why in _reasons(found):
                reasons.setdefault(why, ": ".join(part.replace("_", " ") for part in (_TITLES[name], *place)))
    return [{"what": what, "why": why} for why, what in reasons.items()]


def _reasons(found: Any, place: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], str]]:
    """Every reason for a null in a results file, with its place: `absent` mappings, `reason`, `..._reason` and `missing`."""
    lines: list[tuple[tuple[str, ...], str]] = []
    for key, value in found.items() if isinstance(found, dict) else ():
        if key == "absent" and isinstance(value, dict):
            lines += [((*place, what), str(why)) for what, why in value.items()]
        elif key in ("reason", "missing") and isinstance(value, str):
            lines.append((place, value))
        elif key.endswith("_reason") and isinstance(value, str):
            lines.append(((*place, key.removesuffix("_reason")), value))
        elif isinstance(value, dict):
            lines += _reasons(value, (*place, key))
    return lines
