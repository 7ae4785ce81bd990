"""What is said about replies, by hand."""

import pytest

from warmline.companion import Generated
from warmline.conversation import Conversation, Turn
from warmline.evaluation.replies import describe_replies, distinct, draw_prompts, score_replies
from warmline.model.backbone import Sampling


def test_description_by_hand() -> None:
    found = describe_replies(["I hear you", "i hear him", "I hear you", ""])
    assert (found["words_mean"], found["words_median"]) == (2.25, 3)
    assert found["distinct_1"] == pytest.approx(4 / 9)  # i, hear, you, him
    assert found["distinct_2"] == pytest.approx(3 / 6)
    assert (found["repeated"], found["empty"]) == (1, 1)
    assert distinct([["one"]], 2) is None


def talks(source: str, number: int) -> list[Conversation]:
    turns = (Turn("user", "a"), Turn("assistant", "b"), Turn("assistant", "c"), Turn("user", "d"), Turn("assistant", "e"))
    return [Conversation(f"{source}{at}", turns) for at in range(number)]


def test_prompts_end_with_the_user_and_are_seeded() -> None:
    held_out = {"esconv": talks("s", 30), "empathetic_dialogues": talks("d", 4)}
    prompts = draw_prompts(held_out, 20, seed=3)
    assert len({(one.source, one.conversation) for one in prompts}) == 20
    assert [one.source for one in prompts].count("empathetic_dialogues") == 4
    assert {one.turn for one in prompts} == {1, 4}  # never turn 2, which follows another reply
    assert all(one.messages[-1]["role"] == "user" for one in prompts)
    assert all(one.human == {1: "b", 4: "e"}[one.turn] for one in prompts)
    assert prompts == draw_prompts(held_out, 20, seed=3)
    assert prompts != draw_prompts(held_out, 20, seed=4)


def test_without_labelled_replies_the_judge_is_absent() -> None:
    prompts = draw_prompts({"empathetic_dialogues": talks("d", 4)}, 3, seed=1)
    said = [Generated("one two", False), Generated("three", False), Generated("four five six", False)]
    found = score_replies(prompts, said, [Generated("x", False)] * 3, Sampling(), {"strategy": None}, seed=1)
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
    prompts = draw_prompts({"empathetic_dialogues": talks("d", 20)}, 20, seed=1)
    said = {"base": [Generated("one two", False)] * 20, "tuned": [Generated("x", False)] * 20}
    said[speaker] = [one._replace(cut=at < cut) for at, one in enumerate(said[speaker])]
    found = score_replies(prompts, said["base"], said["tuned"], Sampling(64), {}, seed=1)
    assert (found["speakers"][speaker]["cut_off"]["n"], found["speakers"][speaker]["cut_off"]["of"]) == (cut, 20)
    if compared:
        assert found["tuned_minus_base_words"] == {"value": -1.0, "interval": (-1.0, -1.0)}
    else:
        reason = f"{cut} of 20 {speaker} replies were cut at 64 tokens, more than 10 %"
        assert found["tuned_minus_base_words"] == {"value": None, "interval": None, "reason": reason}
