"""The sheet is a page: three prompts in full, every failure, and never longer than somebody reads."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from warmline.companion import Generated
from warmline.evaluation.replies import cut_off
from warmline.redteam import run
from warmline.redteam.flags import FLAGS
from warmline.redteam.guard_report import suite_alarms
from warmline.redteam.sheet import render_sheet
from warmline.redteam.suites import Item, PromptSuite, load_red_team
from warmline.redteam.summary import SYSTEMS, red_team_table, summarise
from warmline.safety.guard import hear

ROOT = Path(__file__).parents[2]
CONTEXT = {
    "run": "r", "base_model": "b", "base_random_init_seed": None, "step": 1, "seed": 2, "without_kl": {"run": "other"},
    "without_kl_reason": None, "judge": None, "judge_reason": "none was given", "crisis_row": "any", "decoding": {"max_new_tokens": 9},
    "protocol": "p",
}  # fmt: skip


def answered(reply: str, public: int = 0) -> dict[str, Any]:
    """What the JSON holds where every system answers everything alike, and everything was rated."""
    harmful = tuple(Item("simple_safety_tests", f"s{at}", "a", "red", ("How?",), None, True) for at in range(public))
    safe = tuple(Item("xstest", f"x{at}", "a", "none", ("Why?",), False, False) for at in range(public))
    suites = [load_red_team(), PromptSuite("simple_safety_tests", harmful, "s", None), PromptSuite("xstest", safe, "x", None)]
    items = [item for suite in suites for item in suite.items]
    rows = [run._row(item, {system: [Generated(reply, False)] * len(item.turns) for system in SYSTEMS}, None) for item in items]
    for cell in (cell for row in rows for cell in row["systems"].values()):
        cell["human"] = {"rating": "fail", "rater": "ana", "note": "n " * 500}
    return {
        "context": CONTEXT,
        "suites": {suite.name: {"n": len(suite.items), "missing": None} for suite in suites},
        "overlap": {"turns": 1, "texts": 2, "sources": ["s"], "found": []},
        "summary": {suite.name: summarise(suite, rows, tuple(SYSTEMS), 9) for suite in suites},
        "guard": {suite.name: suite_alarms(suite) for suite in suites},
        "items": rows,
    }


@pytest.mark.parametrize(
    "reply", ["", "word\n" * 60, "I'm sorry, but I can't help with that. You are mine, I am a real person.\n\n- * | `x` <b>"]
)
def test_it_is_a_page_whatever_was_said(reply: str) -> None:
    sheet = render_sheet(answered(reply, public=12))
    assert sheet.count("\n") < 300
    assert "<b>" not in sheet


def test_three_prompts_in_full_for_each_system_with_the_guard_off_and_on() -> None:
    reply = "A first line.\n\n" + "Many words. " * 100 + "The end."
    result = answered(reply)
    sheet = render_sheet(result)
    shown = "A first line.<br><br>" + "Many words. " * 100 + "The end."
    for row in result["items"][:3]:
        heading = re.search(rf"### .* \({row['id']}\)\n(.*?)\n##", sheet, re.DOTALL)
        assert heading is not None
        for text in (*row["turns"], *row["must"], *row["must_not"]):
            assert text in heading.group(1)
        blocks = re.findall(r"\*\*([\w ]+), guard (off|on)\*\* \((.*)\)\n\n> (.*)\n", heading.group(1))
        assert [(system, guard) for system, guard, _, _ in blocks] == [
            (name, guard) for name in SYSTEMS.values() for guard in ("off", "on")
        ]
        assert all(text == shown for _, guard, _, text in blocks if guard == "off")
        message = hear(row["turns"]).message
        assert message is not None
        assert all(message in text for _, guard, _, text in blocks if guard == "on")
    assert sheet.count(shown) == 3 * 3 + 3  # and once more before each message that does not stand alone


def test_every_failure_stands_in_the_table() -> None:
    result = answered("Yes, of course.")
    sheet = render_sheet(result)
    for row in result["items"]:
        cells = re.findall(rf"^\| {row['id']} \| {row['severity']} \| (.*) \|$", sheet, re.MULTILINE)
        off, on = row["systems"]["tuned"]["guard_off"], row["systems"]["tuned"]["guard_on"]
        assert len(cells) == bool(off["failed"] or on["failed"])
        for cell in cells[0].split(" | ") if cells else ():
            assert all(flag in cell for flag in (*off["missing"], *off["forbidden"]))
            assert cell.endswith("mended") == (not on["failed"])
    legend = next(line for line in sheet.splitlines() if line.startswith("Flags: "))
    assert f"`agrees` {FLAGS['agrees']}" in legend


def test_what_the_guard_leaves_is_quoted_with_the_words_that_were_seen() -> None:
    sheet = render_sheet(answered("Yes, of course."))
    left = sheet.split("## Failures that the guard leaves")[1].split("\n## ")[0]
    assert "- tuned raises agrees (“Yes”): “Yes, of course.” People: fail by ana" in left
    assert "(the guard's message)" in left


def test_its_reservations() -> None:
    result = answered("I hear you.")
    summary = result["summary"]["red_team"]
    summary["base"]["cut_off"] = cut_off([True])
    sheet = render_sheet(result)
    told = " ".join(str(line) for line in red_team_table(result)[1:])
    for text in ("red_team: 1 of 1 replies of base were cut", "judge: none was given"):
        assert text in sheet
        assert text in told
    assert "No clinician has signed this off" in sheet
    assert "0 failures in 20 still allow a rate of 16 %" in sheet


def test_the_published_sheet_follows_from_its_json() -> None:
    published = ROOT / "results" / "recipe"
    result = json.loads((published / "results" / "red_team.json").read_text(encoding="utf-8"))
    assert (published / "safety" / "red_team_sheet.md").read_text(encoding="utf-8") == render_sheet(result)
