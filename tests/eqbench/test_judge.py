"""What the judge is shown, and what counts as its answer."""

import json
import time
from typing import Any

import pytest

from warmline.data.template import Message
from warmline.eqbench.play import Transcript, parse_sections
from warmline.eqbench.prompts import pairwise_prompt, parse_pairwise, parse_rubric, rubric_prompt
from warmline.eqbench.suites import Suite, sample_suite
from warmline.judges import UnusableAnswerError, read_verdict

SUITE: Suite = sample_suite()
ROLE_PLAY, ANALYSIS = SUITE.forms["role_play"], SUITE.forms["analysis"]
GOOD: dict[str, Any] = dict.fromkeys(ROLE_PLAY.scored, 10)
WON: dict[str, Any] = dict.fromkeys(ROLE_PLAY.pairwise_criteria, "P2+++")


def transcript(reply: str, debrief: str | None = "a debrief") -> Transcript:
    messages: list[Message] = [{"role": "user", "content": "*hello* #1"}, {"role": "assistant", "content": reply}]
    return Transcript("base", "w1", 1, messages, debrief, None, [])


@pytest.mark.parametrize(
    ("reply", "sections"),
    [
        ("# What I notice\none\n\n# What they may need\ntwo\n# What I say\nthree -- four", ("one", "two", "three")),
        ("## what i NOTICE\none\n#What they may need  \n two", ("one", "two", "")),
        ("**What I notice**\none", ("", "", "")),
        ("# What I notice one", ("", "", "")),
        ("# What I notice\nissue #3 is open\n# What I say\nyes\n# more", ("issue", "", "yes\n# more")),
        ("", ("", "", "")),
    ],
)
def test_sections(reply: str, sections: tuple[str, ...]) -> None:
    assert parse_sections(reply, ROLE_PLAY) == sections


def test_apostrophes_may_be_curly_and_hyphens_spaces() -> None:
    form = ROLE_PLAY._replace(headings=("I'm there", "Perspective-taking", "Draft"))
    assert parse_sections("# I\u2019m there\na\n# perspective taking\nb\n# Draft\nc", form) == ("a", "b", "c")


def test_a_reply_without_sections_shows_the_judge_none() -> None:
    shown = rubric_prompt(SUITE, SUITE.scenarios[0], transcript("I just talk."))
    assert "I just talk" not in shown
    assert "What I notice\n\n\n What they may need\n\n\n What I say\n\n\n--" in shown
    assert "hello 1" in shown
    assert "a debrief" in shown
    assert '"restraint": 0-20' in shown


def test_the_rubric_sees_everything_and_the_pair_judge_a_part() -> None:
    long = transcript(
        "# What I notice\n" + "n" * 5000 + "\n# What they may need\n" + "m" * 5000 + "\n# What I say\n" + "s" * 5000, "d" * 5000
    )
    rubric = rubric_prompt(SUITE, SUITE.scenarios[0], long)
    assert all(letter * 5000 in rubric for letter in "nmsd")
    pair = pairwise_prompt(SUITE, SUITE.scenarios[0], long, transcript("x"))
    for letter, limit in (("n", 2200), ("m", 1600), ("s", 1600), ("d", 4000)):
        assert letter * limit + "... [truncated]" in pair
        assert letter * (limit + 1) not in pair


def test_an_analysis_is_shown_beside_the_text_it_is_about() -> None:
    scenario = SUITE.scenarios[-1]
    first = transcript("<think>hm</think> " + "a" * 7000, None)
    shown = pairwise_prompt(SUITE, scenario, first, transcript("b # c", None))
    assert scenario.prompts[0] in shown
    assert "<respondent_P1>\n" + "a" * 6000 + "... [truncated]\n</respondent_P1>" in shown
    assert "<respondent_P2>\nb  c\n</respondent_P2>" in shown


def found(text: str) -> dict[str, Any]:
    return read_verdict(text, ("a",), lambda content: content)


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1}',
        'Sure.\n```json\n{"a": 1}\n```',
        '{"a": 1,}',
        '{"a": 1, "why": "two\nlines"}',
        '<think>{maybe {"a": 3}? Or {"a": 2</think>{"a": 1}',
        'As in {"a": 2}, so here:\n```json\n{"a": 1}\n```\nI hope {this} helps :} {',
        '{"verdict": {"a": 1}}',
    ],
)
def test_json_is_found(text: str) -> None:
    assert found(text)["a"] == 1


@pytest.mark.parametrize("text", ["", "no", "[1]", '{"a": 1', '{"a" 1}', "}{", '{"a": ' * 100_000, '{"a": ' + "9" * 5000 + "}"])
def test_no_json_is_an_unusable_answer(text: str) -> None:
    with pytest.raises(UnusableAnswerError, match="JSON"):
        found(text)


def test_a_form_to_fill_in_does_not_hide_the_verdict_before_it() -> None:
    filled, form = json.dumps(GOOD), json.dumps(dict.fromkeys(GOOD, "0-20"))
    assert parse_rubric(f"{filled} The form was {form} and {{}}.", ROLE_PLAY) == GOOD
    with pytest.raises(UnusableAnswerError, match=r"`0-20`, expected 0 to 20"):
        parse_rubric(f"{form} {{}}", ROLE_PLAY)


@pytest.mark.parametrize(
    "why",
    [
        'he is "fine" now',
        '"I hear you" is all she says',
        'she says "I hear you"',
        'an "odd number of them',
        'a\nline, then "two words" and \\"one\\" that is escaped',
        'C:\\\\ "quoted"',
    ],
)
def test_stray_quotation_marks_are_mended(why: str) -> None:
    def answer(verdict: dict[str, Any]) -> str:
        return f'Here:\n```json\n{{"chain_of_thought_reasoning": "{why}",\n{json.dumps(verdict)[1:]}\n```'

    assert parse_rubric(answer(GOOD), ROLE_PLAY) == GOOD
    assert parse_pairwise(answer(WON), ROLE_PLAY, SUITE.labels) == {"first": 0, "second": 18}


def test_the_last_of_several_code_blocks_counts_even_if_it_must_be_mended() -> None:
    draft, final = json.dumps({**GOOD, "honesty": 1}), json.dumps({**GOOD, "honesty": 2})
    mended = f'{{"why": "a "second" look", {final[1:]}'
    for last in (final, mended):
        text = f"First:\n```json\n{draft}\n```\nNo, rather:\n```json\n{last}\n```\n"
        assert parse_rubric(text, ROLE_PLAY)["honesty"] == 2
    assert parse_rubric(f"{final}\nIn short:\n```json\n{{}}\n```", ROLE_PLAY)["honesty"] == 2


@pytest.mark.parametrize(
    "text", ['{"a" 1}', '{"a": "b', '{"a": "b" "c" 1', '{"a": "' + '"' * 300_000, '{"' + "\\" * 300_001, '{"a": ' + '" ' * 100_000]
)
def test_what_cannot_be_mended_is_unusable_and_soon(text: str) -> None:
    start = time.perf_counter()
    with pytest.raises(UnusableAnswerError):
        parse_rubric(text, ROLE_PLAY)
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize(("value", "score"), [(0, 0), (20, 20), (12.5, 12.5), ("15", 15), ("15/20", 15), (" 7 / 20 ", 7)])
def test_scores(value: Any, score: float) -> None:
    assert parse_rubric(json.dumps({**GOOD, "honesty": value}), ROLE_PLAY)["honesty"] == score


@pytest.mark.parametrize("value", [21, -1, "high", None, True, [3], "10-12", "25/20"])
def test_what_is_no_score(value: Any) -> None:
    with pytest.raises(UnusableAnswerError, match=r"`honesty` is .*expected 0 to 20"):
        parse_rubric(json.dumps({**GOOD, "honesty": value}), ROLE_PLAY)


def test_style_criteria_may_be_missing_or_odd_and_scored_ones_may_not() -> None:
    assert parse_rubric(json.dumps({**GOOD, "warmth": "lots"}), ROLE_PLAY) == GOOD
    with pytest.raises(UnusableAnswerError, match="`fit` is missing"):
        parse_rubric(json.dumps({key: 1 for key in GOOD if key != "fit"}), ROLE_PLAY)


def test_pluses() -> None:
    assert parse_pairwise(json.dumps(WON), ROLE_PLAY, SUITE.labels) == {"first": 0, "second": 18}
    assert parse_pairwise(json.dumps({**WON, "fit": "P1 +"}), ROLE_PLAY, SUITE.labels) == {"first": 1, "second": 15}


@pytest.mark.parametrize("value", ["P3++", "P1 or P2 +", "P1", "P2++++++", "", 3])
def test_wrong_labels(value: Any) -> None:
    with pytest.raises(UnusableAnswerError, match=r"`fit` is .*expected P1 or P2 and one to five pluses"):
        parse_pairwise(json.dumps({**WON, "fit": value}), ROLE_PLAY, SUITE.labels)


def test_half_a_comparison() -> None:
    with pytest.raises(UnusableAnswerError, match="`overall` is missing"):
        parse_pairwise(json.dumps({key: value for key, value in WON.items() if key != "overall"}), ROLE_PLAY, SUITE.labels)
    assert ANALYSIS.pairwise_criteria[-1] == "overall"
