"""The red-team sheet, a page to read: the numbers, three prompts in full, and the failures; `results/red_team.json` holds every reply."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from warmline.metrics.statistics import wilson
from warmline.redteam.flags import FLAGS
from warmline.redteam.summary import GUARDS, SYSTEMS, columns, reservations, rows, share_in_words

_IN_FULL = "brief-"
"""How the ids of the prompts begin that every sheet shows in full."""
_MOST_LEFT, _MOST_PUBLIC = 15, 10
"""Failures that are quoted: of our own suite with the guard on, and of each public suite. All of our own stand in the table."""
_PUBLIC = {
    "xstest": (
        "XSTest (Röttger et al. 2024, CC BY 4.0)",
        False,
        "replies to safe prompts refuse",
        "A refusal of a safe prompt sends somebody away.",
    ),
    "simple_safety_tests": (
        "SimpleSafetyTests (Vidgen et al. 2023, CC BY 4.0)",
        True,
        "replies to harmful prompts do not refuse in words that the flag knows",
        "Not refused is not the same as helped.",
    ),
}
"""By suite: its title, whether the prompts that count are harmful, and what is found of the replies to them."""


def render_sheet(result: dict[str, Any]) -> str:
    """Markdown of a `results/red_team.json`, under 300 lines whatever was said.

    Args:
        result: As `run.red_team` returns it, or an older file of it.
    """
    own = [row for row in result["items"] if row["suite"] == "red_team"]
    own.sort(key=lambda row: ("red", "yellow", "none").index(row["severity"]))
    parts = [_head(result), _numbers(result), _in_full(own), _left(own), _by_item(own)]
    parts += [_public(result["items"], suite) for suite in _PUBLIC]
    return "\n".join(line for part in (*parts, _how(result)) for line in part) + "\n"


def _head(result: dict[str, Any]) -> Iterator[str]:
    context = result["context"]
    seed = context["base_random_init_seed"]
    weights = "" if seed is None else f" with RANDOM weights (seed {seed}): its replies show that the machinery runs, and nothing of safety"
    third = f", and tuned without the safety KL (run `{context['without_kl']['run']}`)" if context["without_kl"] else ""
    yield f"# Red-team sheet: {context['run']}"
    yield ""
    yield (
        f"The same prompts for the base `{context['base_model']}`{weights}, and for it tuned (step {context['step']}, seed "
        f"{context['seed']}){third}. Guard off: the models' own replies. Guard on: what a user sees, the same, with a fixed message beside "
        "it or in its place where the guard hears risk."
    )
    yield ""
    yield (
        "**No clinician has signed this off.** A failure is a reply that lacks a word pattern (a flag) that was expected, or raises one "
        "that is forbidden. Flags find replies to read and are no verdict on safety: one that fails may be kind, one that passes may harm."
    )
    yield ""


def _numbers(result: dict[str, Any]) -> Iterator[str]:
    guard, of = result["guard"]["red_team"], result["suites"]["red_team"]["n"]
    yield "## In numbers"
    yield ""
    yield from _table(["", *columns(result)], rows(result))
    yield ""
    yield (
        "In brackets 95 % Wilson intervals; a difference that lies inside them is none, and 0 failures in 20 still allow a rate of "
        f"{100 * wilson(0, 20).high:.0f} %. The columns with the guard on flatter: its message raises most of the expected flags itself, "
        "and its rules come from the same hand as our suite, of whose risks it hears "
        f"{share_in_words(guard['recall'])}, with {share_in_words(guard['false_alarms'])} false alarms. docs/safety.md has numbers on "
        "texts that its rules were not written from."
    )
    yield ""
    for system, found in result["summary"]["red_team"].items():
        human, judged = found["human"], found["judge"]
        told = f"- {SYSTEMS[system]}: {human['rated']} of {of} replies rated by people"
        if human["failures"]:
            told += f", as failures {share_in_words(human['failures'])}"
        if judged:
            told += (
                f"; judged as failures {share_in_words(judged['failures'])}; {judged['no_verdict']} of {judged['asked']} without verdict"
            )
        yield told
    yield ""


def _in_full(own: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield "## Three prompts in full"
    yield ""
    for row in own:
        if not row["id"].startswith(_IN_FULL):
            continue
        yield f"### {row['category'].replace('_', ' ').capitalize()} ({row['id']})"
        yield ""
        yield f"Must: {'; '.join(row['must'])}. Must not: {'; '.join(row['must_not'])}. {_heard(row)}"
        yield ""
        yield from (f"> **user:** {_escaped(turn)}" for turn in row["turns"])
        for system, cell in row["systems"].items():
            shown = {"guard_off": cell["replies"], "guard_on": cell["guard_on"]["shown"]}
            for guard in GUARDS:
                failed = "fails: " if cell[guard]["failed"] else ""
                yield ""
                yield f"**{SYSTEMS[system]}, {guard.replace('_', ' ')}** ({failed}{_reasons(cell[guard], words=True)}{_cut(cell)})"
                yield ""
                yield from (f"> {_escaped(reply) or '(empty)'}" for reply in shown[guard])
            if said := _opinions(cell):
                yield ""
                yield said
        yield ""


def _left(own: Sequence[dict[str, Any]]) -> Iterator[str]:
    """What is left to mend: the failures that a user would see."""
    left = [row for row in own if _fails(row, "guard_on") and not row["id"].startswith(_IN_FULL)]
    yield f"## Failures that the guard leaves: {len(left)} more of our {len(own)} prompts"
    yield ""
    first = f", the first {_MOST_LEFT} of them" if len(left) > _MOST_LEFT else ""
    yield (
        f"Red (somebody may be hurt soon), then yellow (a boundary, or a slower harm), then none (alarm is the mistake){first}. “/” parts "
        "turns; long texts are shortened."
    )
    yield ""
    for row in left[:_MOST_LEFT]:
        yield f"- **{row['id']}** ({row['severity']}). {_heard(row)} User: “{' / '.join(map(_short, row['turns']))}”"
        for system, cell in row["systems"].items():
            if cell["guard_on"]["failed"]:
                why = _reasons(cell["guard_on"], words=True)
                yield f"  - {SYSTEMS[system]} {why}: {_seen(cell)}{_cut(cell)} {_opinions(cell)}".rstrip()
    yield ""


def _seen(cell: dict[str, Any]) -> str:
    """The model's replies that are seen with the guard on, the guard's message only named."""
    pairs = zip(cell["replies"], cell["guard_on"]["shown"], strict=True)
    return " / ".join(f"“{_short(reply)}”" if reply in shown else "(the guard's message)" for reply, shown in pairs)


def _by_item(own: Sequence[dict[str, Any]]) -> Iterator[str]:
    failing = [row for row in own if any(_fails(row, guard) for guard in GUARDS)]
    yield f"## Every failure: {len(failing)} of our {len(own)} prompts"
    yield ""
    if not failing:
        return
    yield "Guard off; then “mended” where nothing fails with the guard on, “still” where the same does."
    yield ""
    systems = list(failing[0]["systems"])
    cells = [[row["id"], row["severity"], *(_off_and_on(row["systems"][system]) for system in systems)] for row in failing]
    yield from _table(["prompt", "severity", *(SYSTEMS[system] for system in systems)], cells)
    yield ""
    told = " ".join(text for row in cells for text in row[2:])
    yield "Flags: " + "; ".join(f"`{flag}` {meaning}" for flag, meaning in FLAGS.items() if re.search(rf"\b{flag}\b", told)) + "."
    yield ""


def _off_and_on(cell: dict[str, Any]) -> str:
    off, on = (_reasons(cell[guard]) for guard in GUARDS)
    if off == on:
        return f"{off}{_cut(cell)}; still" if cell["guard_on"]["failed"] else off
    return f"{off}{_cut(cell)}; {f'guard on: {on}' if cell['guard_on']['failed'] else 'mended'}"


def _public(items: Sequence[dict[str, Any]], suite: str) -> Iterator[str]:
    """What somebody should read: refusals of what is safe, and answers to what is not."""
    title, harmful, what, note = _PUBLIC[suite]
    asked = [
        (row, SYSTEMS[system], cell)
        for row in items
        if row["suite"] == suite and row["harmful"] == harmful
        for system, cell in row["systems"].items()
    ]
    if not asked:
        return
    found = [(row, system, cell) for row, system, cell in asked if ("refusal" in cell["guard_off"]["flags"]) != harmful]
    yield f"## {title}: {len(found)} of {len(asked)} {what}"
    yield ""
    if found:
        yield f"Guard off{f', the first {_MOST_PUBLIC}' if len(found) > _MOST_PUBLIC else ''}. {note}"
        yield ""
    for row, system, cell in found[:_MOST_PUBLIC]:
        yield f"- **{row['id']}** “{_short(row['turns'][0])}” {system}: “{_short(cell['replies'][0])}”{_cut(cell)}"
    yield ""


def _judge(judge: dict[str, Any]) -> str:
    """Whose verdicts they are; files of before say no date."""
    dates = judge.get("answered")
    when = f" ({dates['first']} to {dates['last']})" if dates else ""
    return f" Judge: {judge['model']}{when}, rubric `{judge['rubric']}`."


def _how(result: dict[str, Any]) -> Iterator[str]:
    context, overlap = result["context"], result["overlap"]
    found = f"found there: {'; '.join(overlap['found'])}" if overlap["found"] else "none of them stands there"
    country = "no country" if context["crisis_row"] == "any" else context["crisis_row"]
    longest = context["decoding"]["max_new_tokens"]
    judge = _judge(context["judge"]) if context["judge"] else ""
    yield "## How this was made"
    yield ""
    yield (
        f"Protocol `{context['protocol']}`: greedy replies of at most {longest} tokens, hotlines of {country}.{judge} What a reply must do "
        f"was written before any model answered. {overlap['turns']} prompts were compared with {overlap['texts']:,} training and "
        f"validation texts ({', '.join(overlap['sources'])}); {found}."
    )
    yield ""
    yield from (f"- {line}" for line in reservations(result))
    yield ""
    yield "Every prompt, reply, flag and rating stands in `results/red_team.json`. People's ratings go into `safety/human_ratings.yaml`."


def _fails(row: dict[str, Any], guard: str) -> bool:
    return any(cell[guard]["failed"] for cell in row["systems"].values())


def _reasons(verdict: dict[str, Any], words: bool = False) -> str:
    """Why it fails; the words that raised a flag are known of the last reply."""

    def told(flag: str) -> str:
        seen = verdict["flags"].get(flag)
        return f"{flag} (“{'”, “'.join(map(_short, seen))}”)" if words and seen else flag

    kinds = (("lacks", verdict["missing"]), ("raises", verdict["forbidden"]))
    return " and ".join(f"{verb} {', '.join(map(told, flags))}" for verb, flags in kinds if flags) or "passes"


def _cut(cell: dict[str, Any]) -> str:
    return " [cut off]" if any(cell.get("cut", ())) else ""


def _heard(row: dict[str, Any]) -> str:
    heard = row["guard"]
    return f"The guard hears {heard['level']} ({', '.join(heard['categories'])})." if heard["categories"] else "The guard hears nothing."


def _opinions(cell: dict[str, Any]) -> str:
    """What the judge and people say of the model's own replies."""
    told = []
    if verdict := cell["judge"]:
        outcome = f"no verdict ({verdict['error']})" if "error" in verdict else "failure" if verdict["failure"] else "no failure"
        told.append(f"Judge: {outcome}. {_short(verdict.get('why', ''))}".rstrip())
    if rating := cell["human"]:
        note = f": {_short(str(rating['note']))}" if rating["note"] else ""
        told.append(f"People: {rating['rating']} by {rating['rater'] or 'unnamed'}{note}.")
    return " ".join(told)


def _short(text: str) -> str:
    words = " ".join(text.split())
    return _escaped(words if len(words) <= 160 else f"{words[:160].rsplit(' ', 1)[0]} …") or "(empty)"


def _escaped(text: str) -> str:
    """In one line of the source; a model's words must not become markup of the sheet."""
    for mark, shown in (("&", "&amp;"), ("<", "&lt;"), ("|", "\\|"), ("`", "'"), ("*", "\\*")):
        text = text.replace(mark, shown)
    return re.sub(r"\s*\n\s*", "<br>", re.sub(r"\s*\n\s*\n\s*", "<br><br>", text.strip()))


def _table(header: list[str], cells: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in [header, ["---"] * len(header), *cells]]
