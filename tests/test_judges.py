"""How often a judge is asked, what it takes to name one, and judging by files that somebody answers in between."""

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from tests.eqbench.batch import answer, plain, provided, requests_in, write_answers
from tests.eqbench.stub import Reply, Stub, serving
from warmline.errors import AnswersNeeded, WarmlineError
from warmline.journal import Journal
from warmline.judges import BatchJudge, Judgement, ServerJudge, UnusableAnswerError, Verdict, custom_id, named_judge, verdicts
from warmline.responders import ChatRequest

A, B = (ChatRequest([{"role": "user", "content": prompt}], 0.0, 10) for prompt in ("a", "b"))


def asked_until_settled(stub: Stub) -> tuple[list[str], int]:
    """The prompts that a judge was asked, in order, and how many were reported as done, when only `yes` is a verdict."""
    reported: list[None] = []

    def take(index: int, given: Judgement) -> bool:
        return given.answer.text == "yes"

    ServerJudge(stub.url, "judge", concurrency=1, retries=0).ask([A, B], take, lambda: reported.append(None))
    return [request["messages"][0]["content"] for request in stub.requests], len(reported)


def test_only_what_is_no_verdict_is_asked_again_and_three_times_at_most() -> None:
    with serving(lambda request: Reply(content="yes" if request["messages"][0]["content"] == "a" else "hm")) as stub:
        assert asked_until_settled(stub) == (["a", "b", "b", "b"], 2)


def test_a_silent_server_is_not_asked_again() -> None:
    with serving(lambda request: Reply(status=500, raw=b"{}")) as stub:
        assert asked_until_settled(stub) == (["a", "b"], 2)


def test_there_is_one_judge_at_most(tmp_path: Path) -> None:
    assert named_judge(None, None) is None
    server, files = named_judge("http://localhost:1/v1", "m"), named_judge(None, "m", tmp_path / "judge")
    assert server is not None
    assert (server.name, server.url, server.place) == ("m", "http://localhost:1/v1", "http://localhost:1/v1")
    assert files is not None
    assert (files.name, files.url, files.identity) == ("m", None, "batch|judge")
    for url, model in (("http://localhost:1/v1", None), (None, "m"), ("", None)):
        with pytest.raises(WarmlineError, match="--judge-url and --judge-model go together"):
            named_judge(url, model)
    with pytest.raises(WarmlineError, match="two ways to ask a judge"):
        named_judge("http://localhost:1/v1", "m", tmp_path)


def read(text: str) -> str:
    if text.startswith("yes"):
        return text
    raise UnusableAnswerError("not a yes")


def judged(tmp_path: Path, *requests: ChatRequest, model: str | None = None) -> list[Verdict[str]]:
    """The command, over and over."""
    judge = BatchJudge(tmp_path / "judge", model)
    found = verdicts(judge, Journal(tmp_path / "journal.jsonl"), requests, read)
    judge.settle()
    return found


def test_requests_are_those_of_a_batch_and_each_is_there_once(tmp_path: Path) -> None:
    with pytest.raises(AnswersNeeded, match=r"requests\.jsonl: 2 requests wait for the judge; put the answers into .*answers\.jsonl"):
        judged(tmp_path, A, B, A, model="judge-2026")
    assert [one["custom_id"] for one in requests_in(tmp_path / "judge")] == sorted((custom_id(A), custom_id(B)))  # no order of ours
    assert next(one for one in requests_in(tmp_path / "judge") if one["custom_id"] == custom_id(A)) == {
        "custom_id": custom_id(A),
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": "judge-2026", "messages": A.messages, "temperature": 0.0, "max_tokens": 10},
    }


def test_an_id_is_of_what_is_asked_alone() -> None:
    assert custom_id(A) == custom_id(A._replace(repetition=3)) == "8f70631cb9600f999a44523e807018210beb13a1"
    assert len({custom_id(one) for one in (A, B, A._replace(temperature=1.0), A._replace(max_tokens=11))}) == 4


@pytest.mark.parametrize(("line", "model", "date"), [(provided, "judge-2026", "2026-01-31"), (plain, "a reader", None)])
def test_answers_in_any_order_some_now_and_some_later(tmp_path: Path, line: Any, model: str, date: str | None) -> None:
    folder = tmp_path / "judge"
    with pytest.raises(AnswersNeeded):
        judged(tmp_path, A, B)
    write_answers(folder, [line(custom_id(B), "yes, b")])
    with pytest.raises(AnswersNeeded, match=r": 1 requests wait for the judge; "):
        judged(tmp_path, A, B)
    assert [one["custom_id"] for one in requests_in(folder)] == [custom_id(A)]
    answer(folder, lambda prompt: f"yes, {prompt}", line)  # the answer to B stands in the journal alone now
    found = judged(tmp_path, A, B)
    assert [(one.content, one.model) for one in found] == [("yes, a", model), ("yes, b", model)]
    assert date in (None, found[0].date)
    assert not (folder / "requests.jsonl").exists()
    (folder / "answers.jsonl").unlink()
    assert judged(tmp_path, A, B) == found


def test_what_is_not_usable_waits_again(tmp_path: Path) -> None:
    folder = tmp_path / "judge"
    folder.mkdir()
    expired = {"custom_id": custom_id(B), "response": None, "error": {"code": "batch_expired", "message": "This one came too late"}}
    write_answers(folder, [provided(custom_id(A), "no"), expired])
    with pytest.raises(AnswersNeeded, match=r"2 requests wait for the judge \(2 of them had an answer that is not usable\)"):
        judged(tmp_path, A, B)
    assert len(requests_in(folder)) == 2
    assert not (tmp_path / "journal.jsonl").exists()
    write_answers(folder, [plain(custom_id(A), "no"), plain(custom_id(A), "yes"), {"custom_id": custom_id(B), "text": None}])
    first, second = judged(tmp_path, A, B)
    assert first.content == "yes"  # the last of several
    assert (second.content, second.error) == (None, "there is no answer, say the judge's files")


def test_whoever_answered_has_a_name(tmp_path: Path) -> None:
    folder = tmp_path / "judge"
    folder.mkdir()
    write_answers(folder, [{"custom_id": custom_id(A), "text": "yes"}])
    with pytest.raises(WarmlineError, match=r"answers\.jsonl:1: does not say which model answered; name it with --judge-model"):
        judged(tmp_path, A)
    (found,) = judged(tmp_path, A, model="me")
    assert found.model == "me"
    assert found.date is not None


COMPLETION = provided("x", "yes")["response"]["body"]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object with a custom_id"),
        ('{"custom_id": 3, "text": ""}', "not a JSON object with a custom_id"),
        ('{"custom_id": "x"}', "neither a `text` nor a `response` with a body"),
        ('{"custom_id": "x", "response": {"body": "yes"}}', "neither a `text` nor a `response` with a body"),
        ('{"custom_id": "x", "text": ["yes"], "model": "m"}', "the answer is `a list`, which is no text"),
        ('{"custom_id": "x", "response": {"status_code": 200, "body": {"choices": []}}}', "the body is not a chat completion"),
        (json.dumps({"custom_id": "x", "response": {"body": {**COMPLETION, "model": 3}}}), "does not say which model answered"),
        ('{"a": ' * 100_000, "nested too deep"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: str, says: str) -> None:
    (tmp_path / "answers.jsonl").write_text(f"{json.dumps(plain('y', 'yes'))}\n\n{line}\n", encoding="utf-8")
    with pytest.raises(WarmlineError) as caught:
        BatchJudge(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'answers.jsonl'}:3: {says}")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ({"response": {"status_code": 400, "body": {"error": {"message": "filtered\nfor good"}}}, "error": None}, "filtered for good"),
        ({"response": {"status_code": 500, "body": {}}, "error": None}, "failed"),
        ({"response": None, "error": {"code": "batch_expired"}}, "batch_expired"),
        ({"response": {"body": {"choices": []}}, "error": "no"}, "no"),
    ],
)
def test_a_failed_request_is_no_malformed_line(tmp_path: Path, line: dict[str, Any], why: str) -> None:
    write_answers(tmp_path, [{"custom_id": custom_id(A), **line}])
    given: list[Judgement] = []
    BatchJudge(tmp_path).ask([A], lambda _, one: bool(given.append(one)))
    assert given[0].answer.error == f"the batch says: {why}"


def test_dates_are_those_of_the_answers(tmp_path: Path) -> None:
    write_answers(tmp_path, [provided(custom_id(A), "yes"), plain(custom_id(B), "yes \ud83d")])
    given: list[Judgement] = []
    BatchJudge(tmp_path).ask([A, B], lambda _, one: not given.append(one))
    assert given[0].date == "2026-01-31"
    assert given[1].date == datetime.fromtimestamp((tmp_path / "answers.jsonl").stat().st_mtime, timezone.utc).date().isoformat()
    assert given[1].answer.text == "yes \ufffd"


def test_a_disk_that_refuses_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "answers.jsonl").mkdir()
    with pytest.raises(WarmlineError, match=r"answers\.jsonl: cannot be read"):
        BatchJudge(tmp_path)
