"""What a judge's server may send, and what a judge may write: a verdict, an error in one line, and never anything else."""

import gzip
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.eqbench.stub import Reply, serving
from warmline.eqbench.prompts import parse_pairwise, parse_rubric
from warmline.eqbench.suites import sample_suite
from warmline.errors import WarmlineError
from warmline.journal import Journal
from warmline.judges import BatchJudge, Judgement, UnusableAnswerError, custom_id
from warmline.redteam.judge import CRITERIA, parse_verdict
from warmline.responders import Answer, ChatRequest, Endpoint

SUITE = sample_suite()
FORM = SUITE.forms["role_play"]
SECONDS = 3.0
"""That one answer may take to be read, on a busy machine."""
MANY = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
FEW = settings(
    max_examples=200,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda below: (
        st.lists(below, max_size=4) | st.dictionaries(st.sampled_from([*FORM.scored, "a", "failure"]) | st.text(max_size=5), below)
    ),
    max_leaves=12,
)
PIECES = st.sampled_from(
    ["{", "}", "[", "]", '"', ",", ":", "\\", "```json\n", "```", "<think>", "</think>", "{}", '{"a": ', "}}", "{{", "\n", "'", "P1++", "…"]
)
NOISE = st.lists(PIECES | st.text(max_size=12) | JSON.map(json.dumps), max_size=12).map(" ".join)


def expected(scores: list[int]) -> dict[str, float]:
    return dict(zip(FORM.scored, map(float, scores), strict=True))


SCORES = st.lists(st.integers(0, 20), min_size=len(FORM.scored), max_size=len(FORM.scored))


@MANY
@given(NOISE, SCORES, st.sampled_from([None, 1, 4]), st.sampled_from(["", ",\n"]), NOISE)
def test_a_verdict_that_a_person_can_see_is_found(before: str, scores: list[int], indent: int | None, comma: str, after: str) -> None:
    """Whatever stands before it; and after it anything that is no verdict of its own."""
    written = json.dumps(expected(scores), indent=indent)
    if comma:
        written = written[:-1] + comma + "}"
    began = time.monotonic()
    assert parse_rubric(f"{before}\n{written}\n{after}", FORM) == expected(scores)
    assert time.monotonic() - began < SECONDS


@MANY
@given(NOISE | JSON.map(json.dumps) | st.text())
def test_any_text_is_a_verdict_or_unusable(text: str) -> None:
    began = time.monotonic()
    for parse in (lambda: parse_rubric(text, FORM), lambda: parse_pairwise(text, FORM, SUITE.labels), lambda: parse_verdict(text)):
        try:
            parse()
        except UnusableAnswerError as error:
            told = str(error)
            assert told.isprintable()
            assert len(told) < 300
    assert time.monotonic() - began < SECONDS


@pytest.mark.parametrize(
    "text",
    [
        "{" * 10**6,
        '{"a":' * 10**6,
        "[" * 10**6,
        '{"a":[' * 10**5 + "]}" * 10**5,
        '{"a":{' * 10**5,
        '{"a":1},' * 10**5,
        '{"' * 10**6,
        '{"\\' * 10**6,
        ", " * 10**6,
        "," + " " * 10**6,
        '{"a": ' + "9" * 10**6 + "}",
        ('{"a":' * 900 + "1" + "}" * 900) * 100,
    ],
    ids=range(12),
)
def test_what_is_made_to_take_long_does_not(text: str) -> None:
    verdict = json.dumps({**dict.fromkeys(CRITERIA, 1), "failure": False, "why": ""})
    began = time.monotonic()
    with pytest.raises(UnusableAnswerError):
        parse_rubric(text, FORM)
    assert parse_verdict(f"{text} {verdict}")["failure"] is False
    assert time.monotonic() - began < 2 * SECONDS


# ---- over HTTP

STATUSES = st.sampled_from([200, 200, 200, 204, 301, 307, 400, 401, 403, 404, 408, 409, 413, 418, 422, 429, 500, 502, 503])
MESSAGE = st.fixed_dictionaries({"role": st.just("assistant"), "content": JSON})
CHOICE = st.fixed_dictionaries({"index": st.just(0), "message": MESSAGE | JSON, "finish_reason": st.just("stop") | JSON}) | JSON
COMPLETION = st.fixed_dictionaries(
    {"choices": st.lists(CHOICE, max_size=2) | JSON},
    optional={
        "usage": st.dictionaries(st.sampled_from(["prompt_tokens", "completion_tokens"]), JSON) | JSON,
        "error": JSON,
        "model": JSON,
        "id": JSON,
    },
)
BODIES = (
    (COMPLETION | JSON).map(lambda value: json.dumps(value).encode())
    | st.binary(max_size=200)
    | st.sampled_from([b"", b"null", b"[" * 10**5, b'{"choices":' * 10**5, b"<html><body>Bad gateway</body></html>", b"\xff\xfe{"])
)
HEADERS = st.lists(
    st.tuples(st.just("Content-Encoding"), st.sampled_from(["gzip", "deflate", "br", "identity", "gzip, gzip", "x"]))
    | st.tuples(st.just("Content-Type"), st.sampled_from(["text/html", "text/event-stream", "application/json; charset=utf-7", ""]))
    | st.tuples(st.just("Retry-After"), st.sampled_from(["0", "-1", "soon", "9" * 400]))
    | st.tuples(st.just("Location"), st.sampled_from(["/v1/chat/completions", "http://127.0.0.1:9/", "http://[", "file:///etc/passwd"])),
    max_size=2,
    unique_by=lambda header: header[0],
)
BATCH_LINE = st.fixed_dictionaries(
    {"custom_id": st.just("x")},
    optional={
        "text": JSON,
        "error": JSON,
        "response": JSON | st.fixed_dictionaries({"body": COMPLETION | JSON}, optional={"status_code": JSON}),
    },
).map(lambda value: json.dumps(value).encode())
REQUEST = ChatRequest([{"role": "user", "content": "Judge this."}], 0.0, 100)


class Judging:
    """An endpoint before a server that answers as the test says."""

    def __init__(self, url: str) -> None:
        self.reply = Reply()
        self._endpoint = Endpoint("--judge-url", url, "judge", ("WARMLINE_JUDGE_KEY",), concurrency=1, timeout=5.0, retries=0)

    def ask(self, again: bool) -> Answer:
        """One answer, whether or not the first question was answered before."""
        self._endpoint._ready = again
        found: list[Answer] = []
        self._endpoint.run([REQUEST], lambda _, answer: found.append(answer))
        (answer,) = found
        return answer


@pytest.fixture(scope="module")
def judging() -> Iterator[Judging]:
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("WARMLINE_JUDGE_KEY", "sk-secret-key")
        held: list[Judging] = []
        stub = stack.enter_context(serving(lambda request: held[0].reply, first=lambda request: held[0].reply))
        held.append(Judging(stub.url))
        yield held[0]


@FEW
@given(STATUSES, BODIES, HEADERS, st.booleans())
def test_any_http_answer_is_an_answer_or_one_line(
    judging: Judging, status: int, body: bytes, headers: list[tuple[str, str]], again: bool
) -> None:
    judging.reply = Reply(status=status, raw=body, headers=(*headers, ("Connection", "close")))  # a 204 has no body: it would be the next's
    began = time.monotonic()
    try:
        answer = judging.ask(again)
    except WarmlineError as error:
        told = str(error)
    else:
        assert isinstance(answer.text, str) is (answer.error is None)
        (answer.text or "").encode("utf-8")
        assert answer.prompt_tokens >= 0
        assert answer.completion_tokens >= 0
        told = answer.error or "fine"
    assert told.isprintable()
    assert len(told) < 500
    assert "sk-secret-key" not in told
    assert time.monotonic() - began < SECONDS


@FEW
@given(content=st.text(), packed=st.booleans())
def test_a_text_arrives_as_it_was_sent(judging: Judging, content: str, packed: bool) -> None:
    raw = json.dumps({"choices": [{"message": {"role": "assistant", "content": content}, "finish_reason": "stop"}]}).encode()
    judging.reply = Reply(raw=gzip.compress(raw) if packed else raw, headers=(("Content-Encoding", "gzip"),) if packed else ())
    assert judging.ask(again=True) == Answer(content)


# ---- files of a batch


@MANY
@given(st.lists(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()) | BATCH_LINE, max_size=4))
def test_any_answers_file_is_read_or_names_its_line(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]) -> None:
    path: Path = tmp_path_factory.getbasetemp() / "answers.jsonl"
    path.write_bytes(b"\n".join(lines))
    try:
        judge = BatchJudge(path.parent, "somebody")
    except WarmlineError as error:
        told = str(error)
        assert told.startswith(f"{path}:")
        assert told.isprintable()
    else:
        given: list[Judgement] = []
        judge._found[custom_id(REQUEST)] = next(iter(judge._found.values()), Judgement(Answer("x"), "m", "2026-01-01"))
        judge.ask([REQUEST], lambda _, one: not given.append(one))
        assert isinstance(given[0].answer.text, str) is (given[0].answer.error is None)
        (given[0].answer.text or "").encode("utf-8")
        assert judge.waiting == 0


# ---- the journal


@MANY
@given(st.lists(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()), max_size=4), st.booleans())
def test_any_journal_is_read_or_names_its_line(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], ended: bool) -> None:
    path: Path = tmp_path_factory.getbasetemp() / "judge.jsonl"
    path.write_bytes(b"\n".join([b'{"key": "a", "text": "kept"}', *lines]) + b"\n" * ended)
    try:
        journal = Journal(path)
    except WarmlineError as error:
        told = str(error)
        assert told.startswith(f"{path}:")
        assert len(told.splitlines()) == 1
    else:
        found: list[dict[str, Any]] = journal.find("a")
        assert all(isinstance(record["text"], str) for record in found)
