"""Scenarios and prompts: the official files as the harness loads them, and our own six."""

import shutil
from collections import Counter
from pathlib import Path

import pytest

from warmline.eqbench.suites import (
    EQBENCH_FILES,
    fill,
    find_eqbench2,
    find_eqbench3,
    official_suite,
    parse_notes,
    parse_scenarios,
    sample_suite,
)
from warmline.errors import WarmlineError
from warmline.sources.fetch import fetch
from warmline.sources.source import RemoteFile


def test_the_official_scenarios(shared: Path) -> None:
    suite = official_suite(shared / "data" / "eqbench3" / "data")
    assert Counter(scenario.kind for scenario in suite.scenarios) == {"role_play": 25, "analysis": 19, "drafting": 1}
    assert (len(suite.scenarios), suite.turns, suite.debriefs, suite.dropped) == (45, 92, 26, ("409",))
    assert suite.forms["role_play"].headings == ("I'm thinking & feeling", "They're thinking & feeling", "My response")
    assert suite.forms["drafting"].headings == ("Perspective-taking", "Draft brainstorming", "Draft")
    assert suite.forms["analysis"].headings == ()
    assert (len(suite.forms["role_play"].rubric_criteria), len(suite.forms["role_play"].scored)) == (18, 6)
    assert set(suite.forms["role_play"].scored) <= set(suite.forms["role_play"].rubric_criteria)
    assert suite.forms["analysis"].scored == suite.forms["analysis"].rubric_criteria
    assert all(len(form.pairwise_criteria) == 8 for form in suite.forms.values())
    assert all(scenario.notes for scenario in suite.scenarios if scenario.id in ("1", "301"))


def test_a_missing_or_changed_file_is_named(shared: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(shared / "data" / "eqbench3" / "data", tmp_path / "data"))
    (folder / "debrief_prompt.txt").write_text("Well?")
    with pytest.raises(WarmlineError, match=r"debrief_prompt\.txt: sha256 is .* of the pinned revision"):
        official_suite(folder)
    (folder / "debrief_prompt.txt").unlink()
    with pytest.raises(WarmlineError, match=r"debrief_prompt\.txt: cannot be read .*warmline data fetch --eqbench"):
        official_suite(folder)


def test_the_files_are_found_wherever_the_folder_is_named(shared: Path, tmp_path: Path) -> None:
    data = shared / "data"
    for named in (data, data / "eqbench3", data / "eqbench3" / "data"):
        assert (find_eqbench3(named) or tmp_path).samefile(data / "eqbench3" / "data")
        assert (find_eqbench2(named) or tmp_path).samefile(data / "eqbench_v2" / "data")
    assert find_eqbench3(tmp_path) is None


def test_fetching_lays_them_out_so_that_they_are_found(shared: Path, tmp_path: Path) -> None:
    """From local copies under file addresses: the digests of all 13 pinned files hold, and the suite loads."""
    local = tuple(
        RemoteFile(file.source, file.name, (shared / "data" / file.source / file.name).resolve().as_uri(), file.digest, file.most)
        for file in EQBENCH_FILES
    )
    assert len(fetch(tmp_path, local)) == 13
    found = find_eqbench3(tmp_path)
    assert found is not None
    assert len(official_suite(found).scenarios) == 45
    assert all("/3c21bcc514bd43f93a00a5cf9c630aa3eb73a380/" in file.url or "/EQ-Bench/d28c60c5" in file.url for file in EQBENCH_FILES)


def test_scenarios_are_read_as_the_harness_reads_them() -> None:
    text = (
        "ignored\n######## 7 | Work | The Title\nnot read\n####### Prompt1\n  indented\n\nlast \n\n####### Prompt2  \nsecond\r\n"
        "######## 409 | Analysis | Broken\n####### 1\nlost\n######## 208 | Friend | Draft\n####### Prompt1\n# a line\n"
    )
    scenarios, dropped = parse_scenarios(text, parse_notes("# 7\nbe\nkind\n# 208\n\n"))
    assert [(each.id, each.kind, each.title, each.prompts, each.notes) for each in scenarios] == [
        ("7", "role_play", "The Title", ("indented\n\nlast", "second"), "be\nkind"),
        ("208", "drafting", "Draft", ("# a line",), ""),
    ]
    assert dropped == ("409",)
    with pytest.raises(WarmlineError, match="no scenario found"):
        parse_scenarios("nothing here", {})
    with pytest.raises(WarmlineError, match="`x` is no number"):
        parse_scenarios("######## x\n####### Prompt1\nhi\n", {})


def test_our_six_are_never_called_eq_bench() -> None:
    suite = sample_suite()
    assert (suite.name, suite.official, len(suite.scenarios)) == ("warmline-six", False, 6)
    assert Counter(scenario.kind for scenario in suite.scenarios) == {"role_play": 4, "analysis": 2}
    assert (suite.turns, suite.debriefs) == (10, 4)
    for form in suite.forms.values():
        assert set(form.scored) <= set(form.rubric_criteria)
        assert "{output_format}" in form.rubric
        assert "{scenario_notes}" in form.pairwise
        assert len(form.pairwise_criteria) >= 5
    assert len(suite.forms["role_play"].headings) == 3


def test_text_that_is_put_in_is_not_searched_again() -> None:
    assert fill("{a} and {b} and {c}", a="{b}", b="2") == "{b} and 2 and {c}"
