"""Frequencies, differences and worst cases, worked out again from the written replies."""

from typing import Any

import pytest

from warmline.conversation import Conversation, Turn
from warmline.evaluation import replies
from warmline.evaluation.detectors import ERROR_CLASSES, ReplyInContext, detect_all
from warmline.evaluation.errors import WORST, Judged, analyse, count, judge, usual_words, worst
from warmline.evaluation.qualitative import read_replies
from warmline.metrics.statistics import paired_difference, wilson
from warmline.runs import RunFolder, read_json


@pytest.fixture(scope="module")
def analysed(finished: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, dict[str, Any]]:
    import shutil

    run = RunFolder(tmp_path_factory.mktemp("analysed") / "run")
    shutil.copytree(finished.path, run.path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replies, "MOST_CUT", 1.0)  # an untrained model's replies never end
        return run, analyse(run.path, 4, 32)


def test_counts_by_hand(analysed: tuple[RunFolder, dict[str, Any]]) -> None:
    run, result = analysed
    stored = read_replies(run.replies)
    assert stored is not None
    for error in ERROR_CLASSES:
        counts, flagged = result["classes"][error.name], {"base": [], "tuned": []}
        for record in stored[1]:
            usual = tuple(result["context"]["usual_words"][record["source"]])
            for side, flags in flagged.items():
                found = detect_all(ReplyInContext(record["messages"], record[side], usual, record["danger"]))[error.name]  # type: ignore[arg-type]
                if found.applies:
                    flags.append(found.evidence is not None)
        n = len(flagged["base"])
        assert counts["asked"] == n == len(flagged["tuned"])
        if not n:
            assert counts["base"] is counts["tuned"] is counts["difference"] is None
            assert counts["reason"]
            continue
        for side, flags in flagged.items():
            assert counts[side] == {"flagged": sum(flags), "share": sum(flags) / n, "interval": list(wilson(sum(flags), n))}
        difference = paired_difference(flagged["base"], flagged["tuned"])
        assert counts["difference"] == {"value": difference.value, "interval": list(difference.interval)}


def test_everything_is_written(analysed: tuple[RunFolder, dict[str, Any]]) -> None:
    run, result = analysed
    assert read_json(run.error_taxonomy) == result
    assert run.error_picture.read_bytes().startswith(b"\x89PNG")
    assert len(read_json(run.examples)["examples"]) == 5
    context = result["context"]
    assert (context["run"], context["split"], context["n"]) == ("tiny", "test", 12)
    assert context["prompts"] == {"empathetic_dialogues": 4, "esconv": 4, "safety": 4}
    assert context["decoding"]["temperature"] == 0


def test_a_second_time_changes_no_byte(analysed: tuple[RunFolder, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    run, _ = analysed
    before = {path.name: path.read_bytes() for path in run.results.iterdir()}
    monkeypatch.setattr(replies, "MOST_CUT", 1.0)
    analyse(run.path, 4, 32)
    assert {path.name: path.read_bytes() for path in run.results.iterdir()} == before


def test_worst_cases(analysed: tuple[RunFolder, dict[str, Any]]) -> None:
    _, result = analysed
    for side in ("base", "tuned"):
        numbers = [len(case["flags"]) for case in result["worst"][side]]
        assert 0 < len(numbers) <= WORST
        assert numbers == sorted(numbers, reverse=True)


def record(digest: str, tuned: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": "I want to die"}]
    return {
        "digest": digest, "source": "esconv", "conversation": digest, "turn": 1, "messages": messages, "danger": False,
        "base": "Please call a friend you trust.", "tuned": tuned, "cut": {"base": False, "tuned": False},
    }  # fmt: skip


def test_worst_first_and_the_unflagged_stay_out() -> None:
    usual = {"esconv": (3, 9)}
    judged = [judge(one, usual) for one in (record("c", "That's great!"), record("b", "Call a friend you trust now."), record("a", "No."))]
    cases = worst(judged, "tuned")
    assert [case["conversation"] for case in cases] == ["c", "a"]
    assert set(cases[1]["flags"]) == {"wrong_length", "missed_risk"}
    assert cases[0]["reply"] == "That's great!"
    assert worst([one for one in judged if not one.flags("base")], "base") == []


def test_shares_of_replies_that_were_cut_are_not_compared() -> None:
    (wrong_length,) = [error for error in ERROR_CLASSES if error.name == "wrong_length"]
    records = [record(str(at), "No.") for at in range(10)]
    records[0]["cut"] = {"base": True, "tuned": False}
    judged = [judge(one, {"esconv": (3, 9)}) for one in records]
    found = count(wrong_length, judged, [], 64)
    assert found["difference"]["value"] == 1.0
    records[1]["cut"] = {"base": True, "tuned": False}
    found = count(wrong_length, judged, [], 64)
    assert (found["difference"], found["tuned"]) == (None, {"flagged": 10, "share": 1.0, "interval": None})
    assert found["reason"] == "2 of 10 base replies were cut at 64 tokens, more than 10 %"


def test_a_run_whose_replies_never_end_compares_nothing(finished_copy: RunFolder) -> None:
    result = analyse(finished_copy.path, 2, 4)
    assert result["cut_off"]["base"]["n"] == result["cut_off"]["base"]["of"] == 6
    assert all(one["difference"] is None for one in result["classes"].values())
    assert finished_copy.error_picture.is_file()
    assert result["worst"]["base"][0]["cut"]


def test_flags_hold_the_evidence() -> None:
    judged: Judged = judge(record("a", "No."), {"esconv": (3, 9)})
    assert judged.flags("tuned")["wrong_length"] == "1 words; usual are 3 to 9"


def test_usual_words_are_the_middle_nine_tenths() -> None:
    turns = tuple(Turn("assistant", " ".join(["word"] * length)) for length in range(1, 102))
    assert usual_words([Conversation("a", (Turn("user", "x"), *turns))]) == (6, 96)
