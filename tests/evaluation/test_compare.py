"""Blind judging: what a judge sees, what its answers come to, and that nothing is made or asked twice."""

import json
import re
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

import warmline
from tests.eqbench.batch import answer as answer_batch
from tests.eqbench.batch import plain, requests_in
from tests.eqbench.stub import Reply, serving
from warmline import cli
from warmline.companion import Companion, Generated
from warmline.config import DataConfig
from warmline.data.enabled import enabled_sources
from warmline.errors import AnswersNeeded, WarmlineError
from warmline.evaluation.compare import NO_JUDGE, compare, draw_dialogue_prompts
from warmline.evaluation.finished import FinishedRun
from warmline.evaluation.preference import FLAGS, Orders, Reading, flag_report, pair_report, preference_request, read_preference
from warmline.evaluation.qualitative import draw_prompts
from warmline.judges import BatchJudge, ServerJudge, UnusableAnswerError, custom_id
from warmline.metrics.statistics import wilson
from warmline.model.backbone import Sampling
from warmline.reporting.report import write_report
from warmline.runs import RunFolder, read_json

SAMPLE = DataConfig(dir="sample")
NONE: dict[str, tuple[str, ...]] = {"A": (), "B": ()}
GENERATE = Companion.replies
WORDS = {"base": "plain", "tuned": "golden", "voiced_base": "silver"}


@pytest.fixture(autouse=True)
def spoken(monkeypatch: pytest.MonkeyPatch) -> list[list[dict[str, str]]]:
    """Whole replies in which each voice has a word of its own: an untrained model's never end."""
    asked: list[list[dict[str, str]]] = []

    def replies(_: Companion, conversations: Sequence[Any], *__: Any, base: bool = False, **___: Any) -> list[Generated]:
        asked.extend(conversations)
        voiced = conversations[0][0]["role"] == "system"
        word = WORDS["voiced_base" if voiced else "base" if base else "tuned"]
        return [Generated(f"{word} words on {' '.join(one[-1]['content'].split()[:3])}", False) for one in conversations]

    monkeypatch.setattr(Companion, "replies", replies)
    return asked


def shown(prompt: str, side: str) -> str:
    found = re.search(f"<reply_{side}>\n(.*)\n</reply_{side}>", prompt)
    assert found is not None
    return found[1]


def verdict(better: str, a: Sequence[str] = (), b: Sequence[str] = ()) -> str:
    return json.dumps({"better": better, "flags": {"A": list(a), "B": list(b)}})


def prefers_gold(prompt: str) -> str:
    """Prefers the tuned reply to the base's wherever it stands, and A before the voiced base's, which it finds too short."""
    flags = [["too_short"] if "silver" in shown(prompt, side) else [] for side in "AB"]
    if "silver" in prompt:
        return verdict("A", *flags)
    return verdict("A" if "golden" in shown(prompt, "A") else "B", *flags)


def orders(first: str | None, second: str | None) -> Orders:
    return Orders(*(None if better is None else Reading(better, NONE) for better in (first, second)))


# ---- prompts


def test_turns_are_of_dialogues_and_as_many_of_each_source() -> None:
    prompts = draw_dialogue_prompts(SAMPLE, 13, 7)
    by_source = {name: [one for one in prompts if one.source == name] for name in ("empathetic_dialogues", "esconv")}
    assert [len(found) for found in by_source.values()] == [4, 3]
    assert len(prompts) == 7
    every = draw_prompts(SAMPLE, 13, 100)
    for name, found in by_source.items():
        assert found == [one for one in every if one.source == name][: len(found)]  # by the rule, of the whole split
        assert len({one.conversation for one in found}) == len(found)
    conversations = {
        (source.name, one.id): one
        for source in enabled_sources(SAMPLE)
        for one in source.load("test").conversations
    }  # fmt: skip
    for prompt in prompts:
        turns = conversations[prompt.source, prompt.conversation].turns
        assert [message["content"] for message in prompt.messages] == [turn.text for turn in turns[: prompt.turn]]
        assert (prompt.messages[-1]["role"], turns[prompt.turn].role) == ("user", "assistant")
    assert draw_dialogue_prompts(SAMPLE, 13, 7) == prompts != draw_dialogue_prompts(SAMPLE, 14, 7)


def test_one_source_has_them_all_and_none_is_refused() -> None:
    one = DataConfig.model_validate({"dir": "sample", "sources": {"esconv": {"enabled": False}}})
    assert {prompt.source for prompt in draw_dialogue_prompts(one, 13, 5)} == {"empathetic_dialogues"}
    off = DataConfig.model_validate({"dir": "sample", "sources": {name: {"enabled": False} for name in ("esconv", "empathetic_dialogues")}})
    with pytest.raises(WarmlineError, match=r"no held-out dialogue; enable one of empathetic_dialogues, esconv$"):
        draw_dialogue_prompts(off, 13, 5)


# ---- what a judge is asked, and says


def test_a_request_shows_the_conversation_and_two_replies() -> None:
    messages: Any = [
        {"role": "user", "content": "I failed."},
        {"role": "assistant", "content": "Oh no."},
        {"role": "user", "content": "Again </reply_A>"},
    ]
    request = preference_request(messages, "  I am with you. ", "")
    (message,) = request.messages
    assert message["role"] == "user"
    assert "Person: I failed.\nFriend: Oh no.\nPerson: Again < /reply_A>\n</conversation>" in message["content"]
    assert shown(message["content"], "A") == "I am with you."
    assert shown(message["content"], "B") == "(nothing)"
    assert all(f"- {flag}: it " in message["content"] for flag in FLAGS)
    assert not re.search("tuned|base|voice|model", message["content"])


@pytest.mark.parametrize(
    ("text", "better"),
    [
        (verdict("A"), "A"),
        ('<think>{"better": "A"}</think>```json\n{"better": "b", "flags": {"A": [], "B": ["generic", "generic"],}}\n```', "B"),
        (verdict("tie"), "tie"),
    ],
)
def test_a_verdict_is_read(text: str, better: str) -> None:
    assert read_preference(text).better == better


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("A", "no JSON"),
        (verdict("C"), "`better` is `C`, expected A, B or tie"),
        ('{"flags": {"A": [], "B": []}}', "`better` is `None`"),
        ('{"better": "A"}', "`flags` has no list"),
        ('{"better": "A", "flags": {"A": []}}', "`flags` has no list"),
        (verdict("A", ["rude"]), "unknown flag `rude`"),
        ('{"better": "A", "flags": {"A": [[]], "B": []}}', "unknown flag `a list`"),
    ],
)
def test_what_is_no_verdict(text: str, says: str) -> None:
    with pytest.raises(UnusableAnswerError, match=says):
        read_preference(text)


@pytest.mark.parametrize(
    ("first", "second", "outcome"),
    [
        ("A", "B", "win"), ("A", "tie", "win"), ("tie", "B", "win"),
        ("B", "A", "loss"), ("B", "tie", "loss"), ("tie", "A", "loss"),
        ("A", "A", "flip"), ("B", "B", "flip"), ("tie", "tie", "tie"),
        ("A", None, None), (None, "B", None),
    ],
)  # fmt: skip
def test_both_orders_decide(first: str | None, second: str | None, outcome: str | None) -> None:
    assert orders(first, second).outcome == outcome


def test_the_figures_of_a_pair() -> None:
    read = [orders("A", "B")] * 5 + [orders("B", "A")] + [orders("tie", "tie")] * 2 + [orders("A", "A")] + [orders("A", None)]
    found = pair_report(read, 13)
    assert {key: found[key] for key in ("prompts", "judged", "not_judged", "wins", "losses", "ties", "flips")} == {
        "prompts": 10, "judged": 9, "not_judged": 1, "wins": 5, "losses": 1, "ties": 2, "flips": 1,
    }  # fmt: skip
    assert found["win_rate"] == {"value": 5 / 6, "of": 6, "interval": list(wilson(5, 6))}
    assert found["preference"]["value"] == pytest.approx((5 + 0.5 * 3) / 9)
    low, high = found["preference"]["interval"]
    assert 0.3 < low < 6.5 / 9 < high < 1
    assert pair_report([orders("A", "B")] * 5, 13)["claim"] == "the judge prefers the tuned model"
    assert pair_report([orders("B", "A")] * 5, 13)["claim"] == "the judge prefers the other"
    assert pair_report([orders("A", "B")] * 3, 13)["claim"] == "none: an interval includes 50 %"  # three of three are few
    assert pair_report([orders("A", "A")] * 5, 13)["claim"] == "none: no prompt was decided"
    nothing = pair_report([orders(None, None)], 13)
    assert (nothing["win_rate"]["value"], nothing["preference"]["interval"], nothing["claim"]) == (None, None, "none: no interval")


def test_flags_are_counted_by_reading_and_doubted_by_prompt() -> None:
    read = [[("generic",), ("generic", "lecture")], [(), ()], [("generic",), ()], []]
    found = flag_report(read, 13)
    assert (found["generic"]["readings"], found["generic"]["flagged"], found["generic"]["share"]) == (6, 3, 0.5)
    assert found["generic"]["interval"] == [0.0, 1.0]
    assert found["harmful"]["interval"] == list(wilson(0, 3))  # not 0 to 0
    assert flag_report([[]], 13)["harmful"] == {"readings": 0, "flagged": 0, "share": None, "interval": None}


# ---- the whole


def test_without_a_judge_replies_are_written_and_no_verdict(finished_copy: RunFolder, spoken: list[list[dict[str, str]]]) -> None:
    result = compare(finished_copy.path, 4)
    assert result == read_json(finished_copy.comparison)
    assert (result["reason"], result["pairs"], result["context"]["judge"], result["voices"]["tuned"]["flags"]) == (
        NO_JUDGE,
        None,
        None,
        None,
    )
    assert {source: part["prompts"] for source, part in result["by_source"].items()} == {"empathetic_dialogues": 2, "esconv": 2}
    context = result["context"]
    assert (context["run"], context["split"], context["n"], context["decoding"]["temperature"]) == ("tiny", "test", 4, 0.0)
    assert context["decoding"]["max_new_tokens"] == 400
    voiced = [one for one in spoken if one[0]["role"] == "system"]
    assert (len(spoken), len(voiced)) == (12, 4)
    assert voiced[0][0]["content"].startswith("You are a warm, attentive friend in a chat.")
    assert result["examples"][0]["replies"]["voiced_base"].startswith("silver")
    assert len(result["items"]) == 4


def test_replies_are_made_once_and_judging_again_needs_no_model(finished_copy: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    first = compare(finished_copy.path, 4)
    with monkeypatch.context() as patch:
        patch.setattr(FinishedRun, "open", None)
        assert compare(finished_copy.path, 4) == first
        with pytest.raises(TypeError):
            compare(finished_copy.path, 5)
    lines = finished_copy.comparison_replies.read_text().splitlines()
    finished_copy.comparison_replies.write_text("\n".join(lines[:-1]) + "\n{")  # damaged: made again
    assert compare(finished_copy.path, 4) == first


@pytest.mark.filterwarnings("ignore:the reply was cut")
def test_the_voices_are_the_models_own(finished_copy: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Companion, "replies", GENERATE)
    result = compare(finished_copy.path, 2, longest=6)
    companion, sampling = warmline.load(finished_copy.path), Sampling(6, temperature=0)
    voice = resources.files("warmline").joinpath("assets", "voice.md").read_text(encoding="utf-8").strip()
    for one in result["examples"]:
        told: Any = [{"role": "system", "content": voice}, *one["messages"]]
        made = {
            "base": companion.reply(one["messages"], sampling, base=True),
            "tuned": companion.reply(one["messages"], sampling),
            "voiced_base": companion.reply(told, sampling, base=True),
        }
        assert made == one["replies"]
    assert result["voices"]["tuned"]["cut_off"]["n"] == 2


def test_what_was_judged_before_a_crash_is_kept(finished_copy: RunFolder) -> None:
    left = [5]

    def answer(request: dict[str, Any]) -> Reply:
        left[0] -= 1
        return Reply(content=prefers_gold(request["messages"][0]["content"])) if left[0] >= 0 else Reply(status=401, raw=b"{}")

    with serving(answer) as stub:
        with pytest.raises(WarmlineError, match="refused for model `judge`"):
            compare(finished_copy.path, 4, judge=ServerJudge(stub.url, "judge", concurrency=1))
        with finished_copy.comparison_judge.open("a") as journal:
            journal.write('{"key": "half a li')
        stub.requests.clear()
        left[0] = 100
        assert compare(finished_copy.path, 4, judge=ServerJudge(stub.url, "judge"))["pairs"]["tuned_vs_base"]["wins"] == 4
        assert len(stub.requests) == 16 - 5


def test_a_server_judges_both_orders(finished_copy: RunFolder) -> None:
    def answer(request: dict[str, Any]) -> Reply:
        return Reply(content=prefers_gold(request["messages"][0]["content"]))

    with serving(answer) as stub:
        result = compare(finished_copy.path, 6, judge=ServerJudge(stub.url, "judge"))
        asked = len(stub.requests)
        again = compare(finished_copy.path, 6, judge=ServerJudge(stub.url, "judge"))
        assert len(stub.requests) == asked == 6 * 2 * 2
        assert again == result
    prompts = [request["messages"][0]["content"] for request in stub.requests]
    for word in ("plain", "silver"):
        pairs = [tuple(shown(prompt, side).split()[0] for side in "AB") for prompt in prompts if f"{word} words" in prompt]
        assert sorted(pairs) == sorted([("golden", word), (word, "golden")] * 6)
    base, voiced = result["pairs"]["tuned_vs_base"], result["pairs"]["tuned_vs_voiced_base"]
    assert (base["wins"], base["judged"], base["claim"]) == (6, 6, "the judge prefers the tuned model")
    assert base["win_rate"] == {"value": 1.0, "of": 6, "interval": list(wilson(6, 6))}
    assert (voiced["flips"], voiced["win_rate"]["value"], voiced["preference"]["value"]) == (6, None, 0.5)
    flags = {voice: found["flags"]["too_short"] for voice, found in result["voices"].items()}
    assert {voice: (found["flagged"], found["readings"]) for voice, found in flags.items()} == {
        "base": (0, 12),
        "tuned": (0, 24),
        "voiced_base": (12, 12),
    }
    assert result["by_source"]["esconv"]["pairs"]["tuned_vs_base"]["wins"] == 3
    assert result["context"]["judge"]["model"] == "judge"
    assert result["context"]["judge"]["answered"]["first"] > "2026"
    one = result["items"][0]["pairs"]["tuned_vs_voiced_base"]
    assert one["outcome"] == "flip"
    assert [reading["better"] for reading in one["readings"]] == ["tuned", "voiced_base"]
    assert one["readings"][1]["flags"] == {"voiced_base": ["too_short"], "tuned": []}


def test_a_judge_that_fails_is_counted_and_one_that_never_answers_is_no_result(finished_copy: RunFolder) -> None:
    def answer(request: dict[str, Any]) -> Reply:
        prompt = request["messages"][0]["content"]
        return Reply(content="well" if "plain" in shown(prompt, "A") else prefers_gold(prompt))

    with serving(answer) as stub:
        result = compare(finished_copy.path, 2, judge=ServerJudge(stub.url, "judge"))
    pair = result["pairs"]["tuned_vs_base"]
    assert (pair["prompts"], pair["judged"], pair["not_judged"]) == (2, 0, 2)
    assert [(one["pair"], one["order"], one["error"]) for one in result["errors"]] == [
        ("tuned_vs_base", "tuned is B", "unusable answer: no JSON at all")
    ] * 2
    with (
        serving(lambda request: Reply(content="well")) as stub,
        pytest.raises(WarmlineError, match="no usable answer to any of 8 questions"),
    ):
        compare(finished_copy.path, 2, judge=ServerJudge(stub.url, "another"))


def test_a_batch_is_answered_in_parts(finished_copy: RunFolder, tmp_path: Path) -> None:
    folder = tmp_path / "judge"
    with pytest.raises(AnswersNeeded, match="24 requests wait for the judge"):
        compare(finished_copy.path, 6, judge=BatchJudge(folder))
    asked = requests_in(folder)
    assert not finished_copy.comparison.exists()
    assert not any(re.search("tuned|base|voice|tiny", json.dumps(one)) for one in asked)  # nothing says which model is ours
    firsts = [shown(one["body"]["messages"][0]["content"], "A").startswith("golden") for one in asked]
    assert 0 < sum(firsts[::2]) < 12  # nor does the order in the file
    answer_batch(folder, prefers_gold, plain, slice(0, 10))
    with pytest.raises(AnswersNeeded, match="14 requests wait for the judge"):
        compare(finished_copy.path, 6, judge=BatchJudge(folder))
    assert requests_in(folder) == asked[10:]
    answer_batch(folder, prefers_gold)
    result = compare(finished_copy.path, 6, judge=BatchJudge(folder))
    assert result["pairs"]["tuned_vs_base"]["wins"] == 6
    assert result["context"]["judge"]["model"] == "a reader and judge-2026"  # who answered what
    (folder / "answers.jsonl").unlink()
    assert compare(finished_copy.path, 6, judge=BatchJudge(folder)) == result


def test_ids_say_nothing_of_the_voices(finished_copy: RunFolder, tmp_path: Path) -> None:
    """Which reply is whose changes no id: it is of the text alone."""
    messages: Any = [{"role": "user", "content": "I failed."}]
    assert custom_id(preference_request(messages, "a", "b")) == custom_id(preference_request(messages, "a", "b"))
    assert custom_id(preference_request(messages, "a", "b")) != custom_id(preference_request(messages, "b", "a"))


def test_replies_that_were_cut_are_not_compared(finished_copy: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def replies(_: Companion, conversations: Sequence[Any], *__: Any, base: bool = False, **___: Any) -> list[Generated]:
        return [Generated("words", base and one[0]["role"] != "system") for one in conversations]

    monkeypatch.setattr(Companion, "replies", replies)
    with pytest.raises(AnswersNeeded):
        compare(finished_copy.path, 4, judge=BatchJudge(tmp_path / "judge"))
    answer_batch(tmp_path / "judge", lambda _: verdict("tie"))
    result = compare(finished_copy.path, 4, judge=BatchJudge(tmp_path / "judge"))
    assert result["pairs"]["tuned_vs_base"] == {"reason": "4 of 4 base replies were cut at 400 tokens, more than 10 %"}
    assert result["pairs"]["tuned_vs_voiced_base"]["ties"] == 4
    assert (result["voices"]["base"]["cut_off"]["n"], result["voices"]["base"]["flags"]["generic"]["share"]) == (4, None)
    text = write_report(finished_copy.path).read_text(encoding="utf-8")
    assert "tuned beside base: not compared, 4 of 4 base replies were cut" in text


def test_the_report_has_a_section(finished_copy: RunFolder, tmp_path: Path) -> None:
    assert "Not measured: there is no `results/comparison.json`; `warmline compare " in write_report(finished_copy.path).read_text()
    compare(finished_copy.path, 4)
    text = write_report(finished_copy.path).read_text(encoding="utf-8")
    assert "## Blind comparison of replies" in text
    assert "Not judged: no judge was given" in text
    assert "golden words on" in text
    with serving(lambda request: Reply(content=prefers_gold(request["messages"][0]["content"]))) as stub:
        compare(finished_copy.path, 4, judge=ServerJudge(stub.url, "judge"))
    text = write_report(finished_copy.path).read_text(encoding="utf-8")
    assert "| tuned beside base, all | 4 | 4 | 0 | 0 | 0 | 100.0 % (51.0 % to 100.0 %) | 100.0 % (100.0 % to 100.0 %) |" in text
    assert "- tuned beside base: what may be claimed: the judge prefers the tuned model." in text
    assert "Judge: `judge`, answers of 20" in text
    assert "blind judge, tuned beside voiced base?" in text


def test_the_command(finished_copy: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["warmline", "compare", str(finished_copy.path), "--prompts", "4", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err.strip()

    status, out, _ = run()
    assert (status, "not judged: no judge was given" in " ".join(out.split())) == (0, True)
    batch = ("--judge-batch", tmp_path / "judge", "--judge-model", "me")
    status, out, err = run(*batch)
    assert (status, out, len(err.splitlines())) == (3, "", 1)
    assert err.startswith(f"warmline: {tmp_path / 'judge' / 'requests.jsonl'}: 16 requests wait for the judge; put the answers into ")
    assert requests_in(tmp_path / "judge")[0]["body"]["model"] == "me"
    (tmp_path / "judge" / "answers.jsonl").write_text("no\n")
    status, _, err = run(*batch)
    assert (status, err) == (2, f"warmline: {tmp_path / 'judge' / 'answers.jsonl'}:1: not JSON; mend or remove the line")
    answer_batch(tmp_path / "judge", prefers_gold, lambda name, text: {"custom_id": name, "text": text})
    status, out, _ = run(*batch)
    assert status == 0
    assert "tiny: 4 held-out turns, judge me" in out
    assert "tuned vs base: the judge prefers the tuned model" in out
    assert json.loads(run(*batch, "--json")[1]) == read_json(finished_copy.comparison)
    assert run(*batch, "--judge-url", "http://localhost:1/v1")[0] == 2
