"""The whole command against a recording server: what is asked, what is paid once, what becomes of failures."""

import gzip
import json
import multiprocessing
import re
import shutil
import sys
import threading
import tracemalloc
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import warmline
from tests.eqbench.batch import answer as answer_batch
from tests.eqbench.batch import plain, requests_in
from tests.eqbench.stub import REPLY, Reply, Stub, is_pairwise, proper, serving, verdict
from warmline import cli
from warmline.eqbench.judge import Spending
from warmline.eqbench.play import Transcript, play, without_thoughts
from warmline.eqbench.run import NO_JUDGE, Players, Selection, ServedModel, eq_bench
from warmline.eqbench.suites import sample_suite
from warmline.errors import AnswersNeeded, WarmlineError
from warmline.journal import Journal
from warmline.judges import named_judge
from warmline.responders import Answer, ChatRequest, LocalModel
from warmline.runs import RunFolder, read_json

QUIET = Console(quiet=True)


def bench(path: Path, stub: Stub, **changes: Any) -> dict[str, Any]:
    """The benchmark with every model at the recording server; changes by the names of the command's options."""
    asked = {"suite": "sample", "judge_url": stub.url, "judge_model": "judge", "base_url": stub.url, "tuned_url": stub.url}
    asked |= {"concurrency": 4, "timeout": 240.0, **changes}
    return eq_bench(
        path,
        Selection(asked["suite"], asked.get("eqbench_dir"), asked.get("iterations", 1), asked.get("v2", False)),
        Players(
            ServedModel(asked["base_url"], "base"),
            ServedModel(asked["tuned_url"], "tuned"),
            concurrency=asked["concurrency"],
            timeout=asked["timeout"],
        ),
        named_judge(asked["judge_url"], asked["judge_model"], asked.get("batch"), asked["concurrency"], asked["timeout"]),
        Spending(asked.get("price_in"), asked.get("price_out"), asked.get("max_cost")),
        QUIET,
    )


def prompts(stub: Stub, model: str = "judge") -> list[str]:
    return [request["messages"][-1]["content"] for request in stub.of(model)]


@pytest.fixture(scope="module")
def recorded(finished: RunFolder, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Stub, dict[str, Any]]:
    """One iteration of the official files."""
    run = Path(shutil.copytree(finished.path, tmp_path_factory.mktemp("official") / "run"))
    with serving(proper) as stub:
        return stub, bench(run, stub, suite="official", eqbench_dir=shared / "data", concurrency=16)


class TestProtocol:
    """The requests, against what the protocol prescribes."""

    def test_the_number_of_each_kind_of_call(self, recorded: tuple[Stub, dict[str, Any]]) -> None:
        stub, result = recorded
        kinds = Counter("turn" if "min_p" in each else "debrief" for each in stub.of("tuned"))
        assert kinds == Counter("turn" if "min_p" in each else "debrief" for each in stub.of("base")) == {"turn": 92, "debrief": 26}
        assert len({each["messages"][0]["content"] for each in stub.of("tuned") if each.get("min_p")}) == 45
        assert Counter(map(is_pairwise, prompts(stub))) == {True: 90, False: 2 * 45}  # rubric: 45 a model
        assert (result["context"]["scenarios"], result["context"]["dropped_scenarios"]) == (45, ["409"])

    def test_settings(self, recorded: tuple[Stub, dict[str, Any]]) -> None:
        stub, _ = recorded

        def seen(model: str) -> set[tuple[Any, ...]]:
            return {(each["temperature"], each["max_tokens"], each.get("min_p")) for each in stub.of(model)}

        assert seen("base") == seen("tuned") == {(0.7, 12_000, 0.1), (0.5, 12_000, None)}
        assert seen("judge") == {(0.0, 8_000, None)}
        assert all(len(each["messages"]) == 1 for each in stub.of("judge"))
        assert not any(message["role"] == "system" for each in stub.requests for message in each["messages"])
        assert not any("*" in prompt or "#" in prompt for prompt in prompts(stub))

    def test_every_user_turn_is_wrapped_and_canned(self, recorded: tuple[Stub, dict[str, Any]], shared: Path) -> None:
        stub, _ = recorded
        folder = shared / "data" / "eqbench3" / "data"
        master = (folder / "scenario_master_prompt.txt").read_text(encoding="utf-8")
        first, second = (
            (folder / "scenario_prompts.txt").read_text(encoding="utf-8").split("####### Prompt")[at].split("\n", 1)[1].strip()
            for at in (1, 2)
        )
        wrapped = [master.replace("{scenario_prompt}", turn) for turn in (first, second)]
        asked = [
            each["messages"] for each in stub.of("tuned") if each["messages"][0]["content"] == wrapped[0] and len(each["messages"]) <= 3
        ]
        assert sorted(asked, key=len) == [
            [{"role": "user", "content": wrapped[0]}],
            [{"role": "user", "content": wrapped[0]}, {"role": "assistant", "content": REPLY}, {"role": "user", "content": wrapped[1]}],
        ]
        debriefs = [each for each in stub.of("tuned") if each["temperature"] == 0.5]
        assert {each["messages"][-1]["content"] for each in debriefs} == {(folder / "debrief_prompt.txt").read_text(encoding="utf-8")}

    def test_the_judge_sees_sections_under_their_headings(self, recorded: tuple[Stub, dict[str, Any]]) -> None:
        stub, _ = recorded
        theft = [prompt for prompt in prompts(stub) if "scapegoated by a fellow employee" in prompt and "[TRANSCRIPT START]" in prompt]
        assert len(theft) == 2
        feeling, theirs = "I'm thinking & feeling\nI feel a lot here.", "They're thinking & feeling\nThey hope to be heard."
        said = "My response\nI am glad you told me; say more when you like."
        assert f"Assistant:\n {feeling}\n\n {theirs}\n\n {said}\n\n--\n---\nUser:\n" in theft[0]
        assert "never seen" not in "".join(prompt.split("debrief.")[0] for prompt in theft)
        pairs = [prompt for prompt in prompts(stub) if "scapegoated" in prompt and "[RESPONDENT A0493]" in prompt]
        assert len(pairs) == 2
        assert "Assistant:\n I'm thinking & feeling\n\nI feel a lot here.\n\n They're thinking & feeling\n\nThey hope" in pairs[0]
        assert "The stakes in the scenario have been intentionally constructed" in pairs[0]

    def test_what_is_reported(self, recorded: tuple[Stub, dict[str, Any]]) -> None:
        _, result = recorded
        assert result["context"]["label"] == "EQ-Bench 3"
        assert result["rubric"]["tuned"]["score"] == pytest.approx(60)  # 12 of 20
        assert result["rubric"]["tuned"]["tasks_scored"] == 45
        sections = result["models"]["tuned"]["sections"]
        assert (sections["turns"], sections["parsed"], sections["without_any"]) == (73, 70, 3)  # the draft's sections have other headings
        assert result["pairwise"]["order_flip_rate"] == 1.0  # this judge prefers whoever stands first
        assert result["pairwise"]["win_rate"] == 0.5
        assert result["pairwise"]["claim"] == "none: the interval includes 50 %"
        assert result["ratings"]["tuned"]["elo_normalised"] is None
        assert "not on that scale" in result["ratings"]["reason"]
        assert result["eq_bench_v2"] is None


def test_a_better_model_wins_in_both_orders(finished_copy: RunFolder) -> None:
    def answer(request: dict[str, Any]) -> Reply:
        prompt = request["messages"][-1]["content"]
        if request["model"] == "judge":
            second = prompt.find("golden") > max(prompt.find("respondent_P2"), prompt.find("looking_back"))
            return Reply(content=verdict(prompt, lambda _: "second" if second else "first", 15 if "golden" in prompt else 10))
        return Reply(content="golden words " * 20 if request["model"] == "tuned" else "plain words " * 20)

    with serving(answer) as stub:
        result = bench(finished_copy.path, stub, iterations=2)
    pairwise = result["pairwise"]
    assert (pairwise["win_rate"], pairwise["order_flip_rate"], pairwise["pairs_judged"], pairwise["pairs"]) == (1.0, 0.0, 12, 12)
    assert pairwise["interval"] == (1.0, 1.0)
    assert pairwise["claim"] == "the judge prefers the tuned model"
    assert result["ratings"]["tuned"]["elo"] > 1200 > result["ratings"]["base"]["elo"]
    assert (result["rubric"]["base"]["score"], result["rubric"]["tuned"]["score"]) == (50, 75)
    assert result["rubric"]["difference"]["tuned_minus_base"] == 25
    assert finished_copy.eq_bench_picture.stat().st_size > 10_000
    assert read_json(finished_copy.eq_bench)["context"]["label"].endswith("not EQ-Bench")


def test_a_model_without_the_format_is_named(finished_copy: RunFolder) -> None:
    with serving(lambda request: Reply(content="Just words. " * 20)) as stub:
        result = bench(finished_copy.path, stub, judge_url=None, judge_model=None)
    sections = result["models"]["base"]["sections"]
    assert (sections["turns"], sections["parsed"], sections["without_any"], sections["rate"]) == (8, 0, 8, 0.0)
    assert "8 of 8 replies lack a section" in sections["note"]


def test_without_a_judge_nothing_stands_in_for_a_score(finished_copy: RunFolder) -> None:
    with serving(proper) as stub:
        result = bench(finished_copy.path, stub, judge_url=None, judge_model=None)
    assert [result[part] for part in ("judge", "rubric", "pairwise", "ratings")] == [None] * 4
    assert result["reason"] == NO_JUDGE
    lines = (finished_copy.eq_bench_folder / "transcripts.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 12
    assert not finished_copy.eq_bench_picture.exists()
    assert not stub.of("judge")


def test_the_same_command_again_asks_for_nothing(finished_copy: RunFolder) -> None:
    with serving(proper) as stub:
        first = bench(finished_copy.path, stub)
        asked = len(stub.requests)
        second = bench(finished_copy.path, stub)
        assert len(stub.requests) == asked == 2 * (10 + 4) + 2 * 6 + 12
    assert (first["judge"]["answers"], second["judge"]["answers"], second["judge"]["answers_from_an_earlier_run"]) == (24, 0, 24)
    assert [first[part] for part in ("rubric", "pairwise", "ratings")] == [second[part] for part in ("rubric", "pairwise", "ratings")]


def test_a_batch_is_written_answered_in_parts_and_scored(finished_copy: RunFolder, tmp_path: Path) -> None:
    """The same scores as a server's, from files; nothing that was answered is asked again, and nothing asked names a model of ours."""
    folder = tmp_path / "judge"

    def unlike(request: dict[str, Any]) -> Reply:
        reply = proper(request)
        return reply._replace(content=reply.content.replace("glad", "so glad")) if request["model"] == "tuned" else reply

    with serving(unlike) as stub:
        batch = {"judge_url": None, "judge_model": None, "batch": folder}
        with pytest.raises(AnswersNeeded, match=r"requests\.jsonl: 24 requests wait for the judge; "):
            bench(finished_copy.path, stub, **batch)
        assert not finished_copy.eq_bench.exists()
        asked = answer_batch(folder, verdict, every=slice(0, 15))
        assert {(one["body"]["temperature"], one["body"]["max_tokens"]) for one in asked} == {(0.0, 8000)}
        assert not any(word in json.dumps(one) for one in asked for word in ("tuned", '"base"', "tiny", str(finished_copy.path)))
        with pytest.raises(AnswersNeeded, match=r"requests\.jsonl: 9 requests wait for the judge; "):
            bench(finished_copy.path, stub, **batch)
        answer_batch(folder, lambda _: "well")
        with pytest.raises(AnswersNeeded, match=r"requests wait for the judge \(9 of them had an answer that is not usable\)"):
            bench(finished_copy.path, stub, **batch)
        answer_batch(folder, verdict)
        result = bench(finished_copy.path, stub, **batch)
        assert bench(finished_copy.path, stub, **batch)["judge"]["answers_from_an_earlier_run"] == 24
        assert stub.of("judge") == []
        assert len(stub.requests) == 28
        served = bench(finished_copy.path, stub)
    judge = result["context"]["judge"]
    assert (judge["model"], judge["url"]) == ("judge-2026", None)
    assert judge["answered"] == {"first": "2026-01-31", "last": "2026-01-31"}
    assert [result[part] for part in ("rubric", "pairwise", "ratings")] == [served[part] for part in ("rubric", "pairwise", "ratings")]
    assert served["context"]["judge"]["answered"]["first"] > "2026"
    assert (result["judge"]["answers"], result["judge"]["answers_from_an_earlier_run"], result["errors"]) == (9, 15, [])


def test_what_a_batch_will_never_answer_is_listed(finished_copy: RunFolder, tmp_path: Path) -> None:
    with serving(proper) as stub:
        batch = {"judge_url": None, "judge_model": None, "batch": tmp_path / "judge"}
        with pytest.raises(AnswersNeeded):
            bench(finished_copy.path, stub, **batch)
        never = requests_in(tmp_path / "judge")[0]["custom_id"]
        answer_batch(tmp_path / "judge", verdict, lambda name, text: plain(name, text) | ({"text": None} if name == never else {}))
        result = bench(finished_copy.path, stub, **batch)
    assert {one["error"] for one in result["errors"]} == {"there is no answer, say the judge's files"}
    assert result["context"]["judge"]["model"] == "a reader"


def test_a_killed_run_pays_for_no_answer_twice(finished_copy: RunFolder) -> None:
    """kill -9 while the judge thinks about its eighth answer; a line cut off in the middle stands for a kill while writing."""
    asked, resumed = threading.Semaphore(7), threading.Event()
    eighth = threading.Event()

    def answer(request: dict[str, Any]) -> Reply:
        if request["model"] != "judge" or resumed.is_set() or asked.acquire(blocking=False):
            return proper(request)
        eighth.set()
        return proper(request)._replace(wait=60.0)

    journal = finished_copy.eq_bench_folder / "judge.jsonl"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.tools"])
    with serving(answer) as stub:
        process = context.Process(target=bench, args=(finished_copy.path, stub), kwargs={"concurrency": 1})
        process.start()
        assert eighth.wait(60)
        process.kill()
        process.join()
        assert len(journal.read_text(encoding="utf-8").splitlines()) == 7
        with journal.open("a", encoding="utf-8") as file:
            file.write('{"key": "half a li')
        assert len(stub.requests) == 28 + 8
        stub.requests.clear()
        resumed.set()
        result = bench(finished_copy.path, stub, concurrency=1)
    assert {request["model"] for request in stub.requests} == {"judge"}
    assert len(stub.requests) == 24 - 7
    assert (result["judge"]["answers_from_an_earlier_run"], result["errors"]) == (7, [])


FAILURES = {
    "429": Reply(status=429, raw=b"{}"),
    "500": Reply(status=500, raw=b"{}"),
    "timeout": Reply(wait=2.0),
    "not JSON": Reply(content="I would rather not."),
    "not a completion": Reply(raw=b"[]"),
    "half an answer": Reply(content='{"chain_of_thought_reasoning": "well", "empathy": 1', finish="length"),
    "wrong labels": Reply(
        content=json.dumps(dict.fromkeys(("empathy", "understanding", "honesty", "fit", "restraint", "overall"), "P3++"))
    ),
    "missing criterion": Reply(content='{"empathy": "P1++"}'),
    "off the scale": Reply(content=json.dumps(dict.fromkeys(("empathy", "understanding", "honesty", "fit", "restraint"), 21))),
}


def test_every_failure_is_asked_again(finished_copy: RunFolder) -> None:
    """Each of them answers the first request of some rubric and some pair; all are scored in the end, and the failures counted."""
    failed: dict[str, Reply] = {}
    left = {False: [*FAILURES.values()], True: [*FAILURES.values()]}

    def answer(request: dict[str, Any]) -> Reply:
        prompt = request["messages"][-1]["content"]
        if request["model"] == "judge" and prompt not in failed and left[is_pairwise(prompt)]:
            failed[prompt] = left[is_pairwise(prompt)].pop()
            return failed[prompt]
        return Reply(content=f"{request['model']} speaks") if request["model"] != "judge" else proper(request)

    with serving(answer) as stub:
        result = bench(finished_copy.path, stub, timeout=1.0)
    assert left == {False: [], True: []}
    assert result["errors"] == []
    assert result["rubric"]["base"]["tasks_scored"] == result["rubric"]["tuned"]["tasks_scored"] == 6
    assert result["pairwise"]["pairs_judged"] == 6
    usage = result["judge"]
    assert usage["requests_sent_again"] == 6  # 429, 500, timeout: sent again by the client
    assert usage["failed_requests"] == 2  # no chat completion
    assert usage["unusable_answers"] == 10


@pytest.mark.parametrize(
    ("failure", "message"),
    [(Reply(status=500, raw=b"{}"), "500"), (Reply(content="{}"), "unusable answer: `empathy` is missing")],
    ids=["500 for good", "never usable"],
)
def test_what_fails_for_good_is_listed_and_counted(finished_copy: RunFolder, failure: Reply, message: str) -> None:
    """The judge never manages one rubric and one order of one pair: both are missing from the means, and said to be.

    The harness compares no two transcripts of which one has no rubric, so that pair is not even asked about.
    """

    def answer(request: dict[str, Any]) -> Reply:
        prompt = request["messages"][-1]["content"]
        hard = "Ines" in prompt if is_pairwise(prompt) else "garden" in prompt
        if request["model"] != "judge" or not hard:
            return Reply(content=prompt_model(request)) if request["model"] != "judge" else proper(request)
        first = "golden" in prompt.split("respondent_P2")[0] if is_pairwise(prompt) else "golden" in prompt
        return failure if first else proper(request)

    def prompt_model(request: dict[str, Any]) -> str:
        return ("golden " if request["model"] == "tuned" else "plain ") * 40

    with serving(answer) as stub:
        result = bench(finished_copy.path, stub)
    assert [(error["kind"], error["scenario"], error["subject"]) for error in result["errors"]] == [
        ("rubric", "w4", "tuned"),
        ("pairwise", "w1", "tuned first"),
    ]
    assert not any(is_pairwise(prompt) and "garden" in prompt for prompt in prompts(stub))
    assert all(message in error["error"] for error in result["errors"])
    assert (result["rubric"]["tuned"]["tasks_scored"], result["rubric"]["base"]["tasks_scored"]) == (5, 6)
    assert result["rubric"]["difference"]["tasks"] == 5
    pairwise = result["pairwise"]
    assert (pairwise["pairs"], pairwise["pairs_judged"], pairwise["pairs_with_one_order"]) == (6, 4, 1)


def test_a_batch_without_one_rubric_leaves_its_pair_out(finished_copy: RunFolder, tmp_path: Path) -> None:
    """Both kinds are asked in one batch; a pair that was answered is left out again when its rubric turns out to have no answer."""
    folder = tmp_path / "judge"
    batch = {"judge_url": None, "judge_model": None, "batch": folder}

    def unlike(request: dict[str, Any]) -> Reply:
        return proper(request)._replace(content=f"{request['model']} speaks. " * 20)

    def never(name: str, text: str) -> dict[str, Any]:
        return plain(name, text) | ({"text": None} if name == missing else {})

    with serving(unlike) as stub:
        with pytest.raises(AnswersNeeded, match="24 requests wait"):
            bench(finished_copy.path, stub, **batch)
        bodies = {one["custom_id"]: one["body"]["messages"][0]["content"] for one in requests_in(folder)}
        missing = next(name for name, prompt in bodies.items() if not is_pairwise(prompt) and "garden" in prompt)
        answer_batch(folder, verdict, never)
        result = bench(finished_copy.path, stub, **batch)
    assert [(error["kind"], error["scenario"]) for error in result["errors"]] == [("rubric", "w4")]
    assert (result["pairwise"]["pairs_judged"], result["pairwise"]["pairs"]) == (5, 6)


def test_an_answer_that_an_earlier_version_could_not_read_is_not_paid_for_again(finished_copy: RunFolder) -> None:
    """Journals keep what was unusable; stray quotation marks are mended when they are read again."""
    with serving(proper) as stub:
        first = bench(finished_copy.path, stub)
        journal = finished_copy.eq_bench_folder / "judge.jsonl"
        records = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
        for record in records:
            record["text"] = record["text"].replace("{", '{"why": "a "stray" one", ', 1)
        journal.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
        stub.requests.clear()
        second = bench(finished_copy.path, stub)
    assert stub.requests == []
    assert [first[part] for part in ("rubric", "pairwise", "ratings")] == [second[part] for part in ("rubric", "pairwise", "ratings")]


def test_a_model_that_fails_is_listed_and_not_judged(finished_copy: RunFolder) -> None:
    def answer(request: dict[str, Any]) -> Reply:
        if request["model"] == "base" and "Ines" in request["messages"][0]["content"]:
            return Reply(status=400, raw=b'{"error": {"message": "too long"}}')
        return proper(request)

    with serving(answer) as stub:
        result = bench(finished_copy.path, stub)
    assert [(error["kind"], error["scenario"], error["subject"]) for error in result["errors"]] == [("reply", "w1", "base")]
    assert (result["rubric"]["base"]["tasks_scored"], result["rubric"]["base"]["tasks"]) == (5, 6)
    assert (result["pairwise"]["pairs_judged"], result["pairwise"]["pairs"]) == (5, 6)


@pytest.mark.parametrize(
    ("answer", "message"),
    [(Reply(status=503, raw=b"{}"), "503: {}"), (Reply(content="{" * 1000), "unusable answer: no JSON object")],
    ids=["silent", "never usable"],
)
def test_a_judge_without_one_usable_answer_is_no_result(finished_copy: RunFolder, answer: Reply, message: str) -> None:
    """It would read like a run that was judged; the replies are kept, so another judge costs its own answers only."""
    answers = [answer]
    with serving(lambda request: answers[0] if request["model"] == "judge" and answers else proper(request)) as stub:
        with pytest.raises(WarmlineError, match=re.escape(f"no usable answer of `judge` to any of 12 questions, such as: {message}")):
            bench(finished_copy.path, stub)
        stub.requests.clear()
        answers.clear()
        result = bench(finished_copy.path, stub)
    assert (len(stub.requests), result["errors"]) == (24, [])


def error(text: str, **more: Any) -> bytes:
    return json.dumps({"error": {"message": text, "type": "invalid_request_error", **more}}).encode()


NO_MAX_TOKENS = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
NO_TEMPERATURE = "Unsupported value: 'temperature' does not support 0.0 with this model. Only the default (1) value is supported."


@pytest.mark.parametrize(
    ("refusal", "says"),
    [
        (Reply(status=401, raw=error("Incorrect API key provided: sk-secret\n\x1b[31m")), "401: Incorrect API key provided: (the key)"),
        (Reply(status=403, raw=error("Country not supported")), "403: Country not supported"),
        (Reply(status=404, raw=error("The model `judge` does not exist")), "404: The model `judge` does not exist"),
        (Reply(status=400, raw=error("max_tokens is too large: 8000")), "400: max_tokens is too large: 8000"),
        (Reply(status=429, raw=error("You exceeded your quota", code="insufficient_quota")), "429: You exceeded your quota"),
        (Reply(status=503, raw=b"<html>\n<h1>Busy</h1>"), "does not answer (503: <html> <h1>Busy</h1>"),
        (Reply(raw=b'{"object": "list"}'), "does not answer (not a chat completion"),
        (Reply(raw=b"[" * 100_000), "does not answer (not a chat completion"),
    ],
)
def test_a_judge_that_refuses_is_found_before_anything_is_asked(
    finished_copy: RunFolder, monkeypatch: pytest.MonkeyPatch, refusal: Reply, says: str
) -> None:
    monkeypatch.setenv("WARMLINE_JUDGE_KEY", "sk-secret")
    with serving(proper, first=lambda request: refusal if request["model"] == "judge" else Reply()) as stub:
        with pytest.raises(WarmlineError, match=re.escape(says)) as caught:
            bench(finished_copy.path, stub)
        assert stub.requests == []
    message = str(caught.value)
    assert message.isprintable()
    assert message.startswith(f"--judge-url {stub.url}: ")
    assert "sk-secret" not in message


def test_a_reasoning_judge_is_asked_as_it_wants(finished_copy: RunFolder) -> None:
    """Its refusals of the first question decide, as in the official harness: another name for the limit, and temperature 1."""

    def choosy(request: dict[str, Any]) -> Reply:
        if "max_tokens" in request:
            return Reply(status=400, raw=error(NO_MAX_TOKENS, param="max_tokens", code="unsupported_parameter"))
        return Reply(status=400, raw=error(NO_TEMPERATURE)) if request["temperature"] != 1 else proper(request)

    with serving(
        lambda request: choosy(request) if request["model"] == "judge" else proper(request),
        first=lambda request: choosy(request) if request["model"] == "judge" else Reply(),
    ) as stub:
        result = bench(finished_copy.path, stub)
        again = bench(finished_copy.path, stub)
    assert len([each for each in stub.first if each["model"] == "judge"]) == 3
    assert {(each.get("max_tokens"), each["max_completion_tokens"], each["temperature"]) for each in stub.of("judge")} == {(None, 8000, 1)}
    assert (len(stub.of("judge")), result["errors"]) == (24, [])
    assert (result["context"]["judge"]["temperature"], again["context"]["judge"]["temperature"]) == (1.0, 1.0)
    assert "the judge takes no other temperature than 1" in again["context"]["deviations"]


def test_a_key_that_is_withdrawn_stops_the_run_and_what_was_answered_is_kept(finished_copy: RunFolder) -> None:
    left = [7]

    def answer(request: dict[str, Any]) -> Reply:
        if request["model"] == "judge":
            left[0] -= 1
            if left[0] < 0:
                return Reply(status=401, raw=error("This key was withdrawn"))
        return proper(request)

    with serving(answer) as stub:
        with pytest.raises(WarmlineError, match=r"refused for model `judge` \(401: This key was withdrawn\)"):
            bench(finished_copy.path, stub, concurrency=1)
        assert len(stub.of("judge")) == 8
        stub.requests.clear()
        left[0] = 1000
        result = bench(finished_copy.path, stub)
    assert (len(stub.requests), result["judge"]["answers_from_an_earlier_run"], result["errors"]) == (17, 7, [])


def test_a_judge_that_changes_its_mind_about_the_settings_stops_the_run(finished_copy: RunFolder) -> None:
    firsts = [Reply(content="Yes."), Reply(status=400, raw=error("no longer"))]
    refuse = Reply(status=400, raw=error("no longer"))
    with serving(
        lambda request: refuse if request["model"] == "judge" else proper(request),
        first=lambda request: firsts.pop(0) if request["model"] == "judge" else Reply(),
    ) as stub:
        with pytest.raises(WarmlineError, match="400: no longer"):
            bench(finished_copy.path, stub, concurrency=1)
        assert len(stub.of("judge")) == 1


def test_a_message_against_the_judges_filter_is_one_missing_answer(finished_copy: RunFolder) -> None:
    """A 400 that the first question does not get is about that message alone; without the rubrics nobody asks about the pair."""

    def answer(request: dict[str, Any]) -> Reply:
        if request["model"] == "judge" and "garden" in request["messages"][0]["content"]:
            return Reply(status=400, raw=error("filtered", code="content_filter"))
        return proper(request)

    with serving(answer) as stub:
        result = bench(finished_copy.path, stub)
    assert [each["error"] for each in result["errors"]] == ["400: filtered"] * 2
    assert {(each["kind"], each["scenario"]) for each in result["errors"]} == {("rubric", "w4")}
    assert result["pairwise"]["pairs_judged"] == 5


def test_a_redirect_is_not_followed(finished_copy: RunFolder) -> None:
    with serving(proper) as elsewhere:
        moved = Reply(status=307, raw=b"", headers=(("Location", f"{elsewhere.url}/chat/completions"),))
        told = pytest.raises(WarmlineError, match=f"307: redirects to {elsewhere.url}")
        with serving(lambda request: moved, first=lambda request: moved) as stub, told:
            bench(finished_copy.path, stub)
        assert elsewhere.requests == elsewhere.first == []


@pytest.mark.parametrize(
    ("body", "packed"),
    [(b"x" * 2**25, None), (gzip.compress(b"x" * 2**28), "gzip"), (b"not gzip", "gzip"), (b"x", "br"), (b"x", "gzip, gzip")],
    ids=["long", "bomb", "no gzip", "unknown", "twice"],
)
def test_an_answer_without_end_is_one_line(finished_copy: RunFolder, body: bytes, packed: str | None) -> None:
    endless = Reply(raw=body, headers=(("Content-Encoding", packed),) if packed else ())
    with serving(proper, first=lambda request: endless) as stub:
        tracemalloc.start()
        with pytest.raises(WarmlineError, match=r"the answer (is longer than 16 MiB|cannot be unpacked|is packed as)"):
            bench(finished_copy.path, stub)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 2**28


def test_a_packed_answer_is_read(finished_copy: RunFolder) -> None:
    completion = {
        "choices": [{"message": {"content": "Yes.", "role": "assistant"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": "1"},
    }
    packed = Reply(raw=gzip.compress(json.dumps(completion).encode()), headers=(("Content-Encoding", "gzip"),))
    with serving(proper, first=lambda request: packed) as stub:
        assert bench(finished_copy.path, stub)["errors"] == []


@pytest.mark.parametrize(
    ("name", "value", "changes", "says"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:1", {}, "ALL_PROXY: cannot be used"),
        ("http_proxy", "http://127.0.0.1:abc", {}, "http_proxy: cannot be used"),
        ("SSL_CERT_FILE", "/no/such/file", {}, "SSL_CERT_FILE: cannot be used"),
        ("WARMLINE_JUDGE_KEY", "sk-\u201cquoted\u201d", {}, "WARMLINE_JUDGE_KEY or OPENAI_API_KEY: holds a character that no key has"),
        ("X", "", {"judge_url": "http://127.0.0.1:abc/v1"}, "--judge-url http://127.0.0.1:abc/v1: not an address"),
        ("X", "", {"tuned_url": "http://[::1/v1"}, "--tuned-url http://[::1/v1: not an address"),
        ("X", "", {"base_url": "localhost:8000"}, "--base-url localhost:8000: not an address"),
        ("X", "", {"judge_url": "https://me:secret@host/v1"}, "--judge-url: holds a user or a password"),
    ],
)
def test_what_makes_no_client_is_one_line(
    finished_copy: RunFolder, monkeypatch: pytest.MonkeyPatch, name: str, value: str, changes: dict[str, Any], says: str
) -> None:
    for other in ("SSL_CERT_FILE", "SSL_CERT_DIR", "OPENAI_API_KEY"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, value)
    with serving(proper) as stub, pytest.raises(WarmlineError, match=re.escape(says)) as caught:
        bench(finished_copy.path, stub, **changes)
    assert len(str(caught.value).splitlines()) == 1
    assert "secret" not in str(caught.value)
    assert stub.requests == stub.first == []


def test_a_reply_with_half_a_character_can_be_kept_and_sent(finished_copy: RunFolder) -> None:
    raw = json.dumps({"choices": [{"message": {"role": "assistant", "content": f"{REPLY} \ud83d"}, "finish_reason": "stop"}]}).encode()
    with serving(lambda request: proper(request) if request["model"] == "judge" else Reply(raw=raw)) as stub:
        result = bench(finished_copy.path, stub)
    assert result["errors"] == []
    assert "\ufffd" in (finished_copy.eq_bench_folder / "transcripts.jsonl").read_text(encoding="utf-8")


def test_the_cost_is_refused_before_anything_is_asked(finished_copy: RunFolder) -> None:
    with serving(proper) as stub:
        with pytest.raises(WarmlineError, match=r"--max-cost 0\.01: 24 judge calls are likely to cost"):
            bench(finished_copy.path, stub, max_cost=0.01, price_in=3.0, price_out=15.0)
        with pytest.raises(WarmlineError, match="--price-in and --price-out"):
            bench(finished_copy.path, stub, max_cost=1.0)
        assert stub.requests == []


def test_a_judge_that_costs_more_than_thought_is_stopped(finished_copy: RunFolder) -> None:
    """100,000 tokens an answer, where 750 were expected."""

    def answer(request: dict[str, Any]) -> Reply:
        reply = proper(request)
        if request["model"] != "judge":
            return reply
        content = {
            "id": "x", "object": "chat.completion", "created": 0, "model": "judge",
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": reply.content}}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 100_000, "total_tokens": 100_010},
        }  # fmt: skip
        return Reply(raw=json.dumps(content).encode())

    with serving(answer) as stub:
        with pytest.raises(WarmlineError, match="reached after 5 judge answers, which are kept"):
            bench(finished_copy.path, stub, concurrency=1, max_cost=4.5, price_in=0.0, price_out=10.0)
        stub.requests.clear()
        result = bench(finished_copy.path, stub, max_cost=40.0, price_in=0.0, price_out=10.0)
    assert len(stub.requests) == 19
    assert result["judge"]["cost"] == pytest.approx(19.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"suite": "official"}, "warmline data fetch --eqbench"),
        ({"suite": None, "eqbench_dir": Path("nowhere")}, "nowhere: no EQ-Bench 3 files"),
        ({"suite": "mine"}, "expected official or sample"),
        ({"judge_url": None}, "go together"),
        ({"price_in": 1.0}, "belong together"),
    ],
)
def test_bad_requests_are_one_line(finished_copy: RunFolder, changes: dict[str, Any], message: str) -> None:
    with serving(proper) as stub, pytest.raises(WarmlineError, match=re.escape(message)) as caught:
        bench(finished_copy.path, stub, **changes)
    assert len(str(caught.value).splitlines()) == 1


def test_models_in_this_process(finished_copy: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    """The sample set, no judge, no files fetched: said aloud, transcripts written, both models loaded here."""
    players = Players(max_new_tokens=6, batch_size=4)
    result = eq_bench(finished_copy.path, Selection(), players)
    assert "Their results are not EQ-Bench" in " ".join(capsys.readouterr().err.split())
    assert (result["context"]["official"], result["eq_bench_v2"]) == (False, None)
    assert result["models"]["tuned"]["complete"] == 6
    assert any("replies end at 6 tokens" in deviation for deviation in result["context"]["deviations"])
    before = (finished_copy.eq_bench_folder / "replies.jsonl").read_bytes()
    assert eq_bench(finished_copy.path, Selection(), players, console=QUIET) == result
    assert (finished_copy.eq_bench_folder / "replies.jsonl").read_bytes() == before


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_each_iteration_is_another_draw_and_comes_again(batch_size: int, finished: RunFolder, tmp_path: Path) -> None:
    """Iterations of one scenario are never the same reply by design, whatever shares a batch; a second run draws the same."""
    companion, suite = warmline.load(finished.path), sample_suite()
    suite = suite._replace(scenarios=suite.scenarios[:2])

    def played(name: str) -> list[Transcript]:
        local = LocalModel(companion, False, "x", batch_size, max_tokens=8, seed=1)
        return play(suite, local, "tuned", 4, Journal(tmp_path / name))

    transcripts = played("once.jsonl")
    for scenario in suite.scenarios:
        first = [each.replies[0] for each in transcripts if each.scenario == scenario.id]
        assert len(set(first)) == len(first) == 4
    assert played("again.jsonl") == transcripts == played("once.jsonl")


def test_the_repetition_changes_no_key() -> None:
    """Answers that were paid for stay where they are found."""
    request = ChatRequest([{"role": "user", "content": "a"}], 0.7, 9, 0.1, repetition=2)
    assert request.sent() == {"messages": [{"role": "user", "content": "a"}], "temperature": 0.7, "max_tokens": 9, "min_p": 0.1}


def test_replies_that_were_cut_are_counted_and_not_judged(finished_copy: RunFolder) -> None:
    """Nothing is paid for scores that would be about the room that replies had."""

    def answer(request: dict[str, Any]) -> Reply:
        cut = request["model"] == "base" and "Ines" in request["messages"][0]["content"]
        return proper(request)._replace(finish="length" if cut else "stop")

    with serving(answer) as stub:
        result = bench(finished_copy.path, stub)
        again = bench(finished_copy.path, stub)
    base, tuned = (result["models"][model]["cut_off"] for model in ("base", "tuned"))
    assert (base["n"], base["of"], tuned["n"]) == (3, 14, 0)
    assert result["reason"].startswith("3 of 14 base replies were cut at 12,000 tokens, more than 10 %: the judge was not asked")
    assert [result[part] for part in ("judge", "rubric", "pairwise", "ratings")] == [None] * 4
    assert stub.of("judge") == []
    assert again == result  # the journal remembers which were cut


def test_a_model_in_this_process_says_what_was_cut(finished: RunFolder) -> None:
    answers: dict[int, Answer] = {}
    local = LocalModel(warmline.load(finished.path), True, "x", max_tokens=5)
    local.run([ChatRequest([{"role": "user", "content": "Hello"}], 0.7, 9)], answers.__setitem__)
    assert answers[0].cut


def test_v2_goes_with_the_sample_suite(finished_copy: RunFolder, shared: Path) -> None:
    folder = shared / "data"
    with serving(lambda request: Reply(content="Sad: 2\nGlad: 0")) as stub:
        result = bench(finished_copy.path, stub, v2=True, eqbench_dir=folder, judge_url=None, judge_model=None)
    assert result["context"]["official"] is False
    assert result["eq_bench_v2"]["context"]["questions"] == 171
    assert result["eq_bench_v2_reason"] is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"v2": False}, "EQ-Bench v2 was switched off (--no-v2)"),
        ({"v2": True}, "EQ-Bench v2's questions are not in the fetched data; `warmline data fetch --eqbench` gets them"),
        (
            {"v2": True, "eqbench_dir": Path("nowhere")},
            "EQ-Bench v2's questions are not in nowhere; `warmline data fetch --eqbench` gets them",
        ),
    ],
)
def test_why_there_is_no_v2(changes: dict[str, Any], reason: str, finished_copy: RunFolder) -> None:
    with serving(proper) as stub:
        result = bench(finished_copy.path, stub, judge_url=None, judge_model=None, **changes)
    assert (result["eq_bench_v2"], result["eq_bench_v2_reason"]) == (None, reason)


def test_the_command(finished_copy: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["warmline", "eqbench", str(finished_copy.path), *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return f"{ended.value.code} " + " ".join("".join(capsys.readouterr()).split())

    with serving(proper) as stub:
        asked = ("--suite", "sample", "--base-url", stub.url, "--tuned-url", stub.url)
        shown = run(*asked, "--judge-url", stub.url, "--judge-model", "judge")
        assert shown.startswith("0 ")
        assert "tiny: warmline-six: six scenarios written for this project; not EQ-Bench" in shown
        assert "rubric score, 0 to 100 60.0 (60.0 to 60.0)" in shown
        assert "100% of the pairs change their winner when the order is swapped" in shown
        assert "not scored: no judge was given" in run(*asked)
        assert "2 warmline: --suite mine: expected official or sample" in run("--suite", "mine")
        batch = (*asked, "--judge-batch", finished_copy.path.parent / "judge")
        waits = run(*batch)
        assert waits.startswith("3 ")
        assert re.search(r" warmline: \S+/judge/requests\.jsonl: 12 requests wait for the judge; put the answers into", waits)
        (finished_copy.path.parent / "judge" / "answers.jsonl").write_text("[1]\n")
        assert re.match(r"2 warmline: \S+/judge/answers\.jsonl:1: not a JSON object with a custom_id; mend", run(*batch))
        assert "2 warmline: --judge-batch and --judge-url are two ways" in run(*batch, "--judge-url", stub.url)


def test_what_a_model_thought_aloud_is_taken_out_on_arrival(tmp_path: Path) -> None:
    """Before history, sections and debrief; the journal keeps what came."""

    class Thinker:
        identity, max_tokens = "thinker", 100

        def run(self, requests: Sequence[ChatRequest], done: Callable[[int, Answer], None]) -> None:
            for at, request in enumerate(requests):
                assert not any("secret" in message["content"] for message in request.messages)
                done(at, Answer("<think>\nsecret\n</think>\n\nHello.<reasoning>more secret</reasoning> Bye."))

    suite = sample_suite()
    transcripts = play(suite, Thinker(), "tuned", 1, Journal(tmp_path / "replies.jsonl"))
    assert {reply for each in transcripts for reply in each.replies} == {"Bye."}
    assert {each.debrief for each in transcripts} <= {"Bye.", None, ""}
    assert "secret" in (tmp_path / "replies.jsonl").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("reply", "kept"),
    [
        (" Hello. ", " Hello. "),
        ("<think>a</think>\n\nHello. ", "Hello."),
        ("Well.<think>a</think> Hello.", "Hello."),
        ("<reasoning>a</reasoning>Hello.", "Hello."),
        ("<reasoning>a</reasoning> b <think>c</think> Hello.", "Hello."),
        ("<think>a</think> b <think>c</think> Hello.", "b <think>c</think> Hello."),
        ("<think>a Hello.", "<think>a Hello."),
        ("a</think> Hello.", "a</think> Hello."),
    ],
)
def test_what_follows_the_first_closing_tag_is_the_reply(reply: str, kept: str) -> None:
    assert without_thoughts(reply) == kept
