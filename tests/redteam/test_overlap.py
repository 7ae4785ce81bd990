"""Red-team prompts are not training data."""

import json
from pathlib import Path

import pytest

from warmline.config import DataConfig
from warmline.redteam.overlap import find_overlap, text_hash
from warmline.redteam.suites import Item, load_red_team, load_suites


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
