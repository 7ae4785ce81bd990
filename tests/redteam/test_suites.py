"""Our suite is well formed and no training data; the public ones are the official files or are reported missing."""

import json
import shutil
from pathlib import Path

import pytest

from warmline.config import DataConfig
from warmline.errors import WarmlineError
from warmline.redteam.suites import (
    ALWAYS_FORBIDDEN,
    SHA256,
    Item,
    find_overlap,
    load_red_team,
    load_simple_safety_tests,
    load_suites,
    load_xstest,
    red_team_path,
    text_hash,
)

GOOD = """
items:
  - {id: a, category: c, severity: red, risk: true, turns: [hello there], must: [x], must_not: [y], expect: [people], forbid: [agrees]}
"""


def test_our_suite() -> None:
    suite = load_red_team()
    assert len(suite.items) >= 40
    assert [item.id.split("-", 2)[2] for item in suite.items[:3]] == ["self-harm-adjacent", "revenge", "medical-emergency"]
    assert {item.severity for item in suite.items} == {"red", "yellow", "none"}
    assert all(item.must and item.must_not for item in suite.items)
    assert all(set(ALWAYS_FORBIDDEN) <= set(item.forbid) for item in suite.items)
    assert sum(len(item.turns) > 1 for item in suite.items) >= 5
    needed = {"veiled_risk", "third_party", "explicit_self_harm", "revenge", "medical_emergency", "eating_disorder", "abuse", "dependency"}
    needed |= {"diagnosis_seeking", "method_seeking", "are_you_human", "substance", "minors", "sycophancy"}
    needed |= {"grief_control", "venting_control", "humour_control"}
    assert needed == {item.category for item in suite.items}
    benign = [item for item in suite.items if item.severity == "none"]
    assert benign
    assert all(item.risk is False and "crisis_help" in item.forbid for item in benign)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("severity: red", "severity: bad"), "severity is `bad`"),
        (("risk: true", "risk: maybe"), "risk is `maybe`"),
        (("expect: [people]", "expect: [kindness]"), "unknown flag `kindness`"),
        (("expect: [people]", "expect: [agrees]"), "`agrees` is both expected and forbidden"),
        (("must: [x]", "must: []"), "`must` must be a list of texts"),
        (("turns: [hello there]", "turns: [3]"), "`turns` must be a list of texts"),
        (("category: c", "kategory: c"), "unknown key `kategory`"),
        (("id: a", "id: 3"), "`id` is missing or no text"),
        (("items:", "things:"), "a list under `items`"),
        (("[hello there]", "[hello"), "cannot be read"),
    ],
)
def test_a_bad_suite_is_one_line(change: tuple[str, str], message: str, tmp_path: Path) -> None:
    path = tmp_path / "suite.yaml"
    path.write_text(GOOD)
    assert load_red_team(path).items[0].forbid[0] == "agrees"
    path.write_text(GOOD.replace(*change))
    with pytest.raises(WarmlineError, match=message) as error:
        load_red_team(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_two_items_of_one_id(tmp_path: Path) -> None:
    path = tmp_path / "suite.yaml"
    path.write_text(GOOD + GOOD.split("items:\n")[1])
    with pytest.raises(WarmlineError, match="two items have the id `a`"):
        load_red_team(path)


def test_a_missing_suite_says_why_and_whence(tmp_path: Path) -> None:
    for suite in load_suites(None)[1:] + load_suites(tmp_path)[1:]:
        assert suite.items == ()
        assert suite.sha256 is None
        assert suite.missing is not None
        assert "github.com" in suite.missing


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(WarmlineError, match="--suite-dir"):
        load_suites(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["xstest/xstest_prompts.csv", "SimpleSafetyTests - test cases.csv"])
def test_a_changed_file_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("id,prompt,type,label,focus,note\n1,hello,homonyms,safe,a,b\n")
    with pytest.raises(WarmlineError, match="sha256"):
        load_suites(tmp_path)


def test_the_official_files(shared: Path, tmp_path: Path) -> None:
    sst, xstest = load_suites(shared / "data")[1:]
    assert len(sst.items) == 100
    assert all(item.harmful for item in sst.items)
    assert len({item.category for item in sst.items}) == 5
    assert [sum(item.harmful is kind for item in xstest.items) for kind in (False, True)] == [250, 200]
    assert len({item.category for item in xstest.items}) == 18
    assert (sst.sha256, xstest.sha256) == (SHA256["simple_safety_tests"], SHA256["xstest"])
    shutil.copy(shared / "data" / "xstest" / "xstest_prompts.csv", tmp_path)  # the file itself, without its folder
    assert load_xstest(tmp_path) == xstest
    assert load_simple_safety_tests(tmp_path).missing is not None


def test_the_suite_ships_with_the_package() -> None:
    assert red_team_path().is_file()


def item(*turns: str) -> Item:
    return Item("red_team", "x", "c", "red", turns, True, False)


def test_our_suite_is_not_in_the_sample_data() -> None:
    overlap = find_overlap(load_red_team().items, DataConfig(dir="sample"))
    assert overlap.found == ()
    assert overlap.turns >= 40
    assert overlap.texts > 300
    assert set(overlap.sources) == {"empathetic_dialogues", "esconv", "goemotions", "safety"}


@pytest.mark.slow
def test_no_suite_is_in_the_official_data(shared: Path) -> None:
    items = [item for suite in load_suites(shared / "data") for item in suite.items]
    assert find_overlap(items, DataConfig(dir=str(shared / "data"))).found == ()


def test_a_copy_is_found_whatever_its_case_and_marks() -> None:
    training = json.loads((Path(__file__).parents[2] / "src/warmline/assets/sample/safety/train.jsonl").read_text().splitlines()[1])
    text = training["messages"][0]["content"]
    found = find_overlap([item("ok", text.upper().replace(".", " !!"))], DataConfig(dir="sample")).found
    assert found == (f"red_team/x: safety/train/{training['id']}",)


def test_the_shipped_safety_set_counts_even_when_the_run_leaves_it_out() -> None:
    config = DataConfig.model_validate({"dir": "sample", "sources": {"safety": {"enabled": False}}})
    assert "safety" in find_overlap(load_red_team().items, config).sources


def test_hash_ignores_what_is_no_word() -> None:
    assert text_hash("Hello,  World!") == text_hash("hello world")
    assert text_hash("hello world") != text_hash("hello word")
