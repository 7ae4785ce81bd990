"""What is said about replies, by hand."""

from typing import Any

import pytest

from warmline.evaluation.replies import describe_replies, distinct, score_replies
from warmline.model.backbone import Sampling


def test_description_by_hand() -> None:
    found = describe_replies(["I hear you", "i hear him", "I hear you", ""])
    assert (found["words_mean"], found["words_median"]) == (2.25, 3)
    assert found["distinct_1"] == pytest.approx(4 / 9)  # i, hear, you, him
    assert found["distinct_2"] == pytest.approx(3 / 6)
    assert (found["repeated"], found["empty"]) == (1, 1)
    assert distinct([["one"]], 2) is None


def record(base: str, tuned: str, base_cut: bool = False, tuned_cut: bool = False) -> dict[str, Any]:
    messages = [{"role": "user", "content": "a"}]
    said = {"reference": "b", "base": base, "tuned": tuned, "cut": {"base": base_cut, "tuned": tuned_cut}}
    return {"source": "esconv", "conversation": "s1", "turn": 1, "messages": messages, **said}


def test_without_labelled_replies_the_judge_is_absent() -> None:
    records = [record(base, "x") for base in ("one two", "three", "four five six")]
    found = score_replies(records, Sampling(), {"strategy": None}, seed=1)
    assert found["strategy_judge"] is None
    assert "no enabled source" in found["absent"]["strategy_judge"]
    assert not any("strategies_shown" in one for one in (*found["speakers"].values(), *found["examples"]))
    assert found["tuned_minus_base_words"]["value"] == pytest.approx(-1)
    assert found["speakers"]["base"]["cut_off"]["n"] == 0
    assert found["examples"][1]["base"] == "three"


@pytest.mark.parametrize(("cut", "compared"), [(0, True), (2, True), (3, False), (20, False)])
@pytest.mark.parametrize("speaker", ["base", "tuned"])
def test_words_of_replies_that_were_cut_are_not_compared(speaker: str, cut: int, compared: bool) -> None:
    """Two of twenty are a tenth, three are more."""
    records = [record("one two", "x", **{f"{speaker}_cut": at < cut}) for at in range(20)]
    found = score_replies(records, Sampling(64), {}, seed=1)
    assert (found["speakers"][speaker]["cut_off"]["n"], found["speakers"][speaker]["cut_off"]["of"]) == (cut, 20)
    if compared:
        assert found["tuned_minus_base_words"] == {"value": -1.0, "interval": (-1.0, -1.0)}
    else:
        reason = f"{cut} of 20 {speaker} replies were cut at 64 tokens, more than 10 %"
        assert found["tuned_minus_base_words"] == {"value": None, "interval": None, "reason": reason}
