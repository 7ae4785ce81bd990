"""How often a judge is asked, and what it takes to name one."""

import pytest

from tests.eqbench.stub import Reply, Stub, serving
from warmline.errors import WarmlineError
from warmline.judges import Judge, ask_for_verdicts
from warmline.responders import Answer, ChatRequest


def asked_until_settled(stub: Stub) -> tuple[list[str], int]:
    """The prompts that a judge was asked, in order, and how many were reported as done, when only `yes` is a verdict."""
    requests = [ChatRequest([{"role": "user", "content": prompt}], 0.0, 10) for prompt in ("a", "b")]
    reported: list[None] = []

    def take(index: int, answer: Answer) -> bool:
        return answer.text == "yes"

    ask_for_verdicts(Judge(stub.url, "judge", concurrency=1, retries=0).endpoint(), requests, take, lambda: reported.append(None))
    return [request["messages"][0]["content"] for request in stub.requests], len(reported)


def test_only_what_is_no_verdict_is_asked_again_and_three_times_at_most() -> None:
    with serving(lambda request: Reply(content="yes" if request["messages"][0]["content"] == "a" else "hm")) as stub:
        assert asked_until_settled(stub) == (["a", "b", "b", "b"], 2)


def test_a_silent_server_is_not_asked_again() -> None:
    with serving(lambda request: Reply(status=500, raw=b"{}")) as stub:
        assert asked_until_settled(stub) == (["a", "b"], 2)


def test_address_and_model_go_together() -> None:
    assert Judge.named(None, None) is None
    assert Judge.named("http://localhost:1/v1", "m") == Judge("http://localhost:1/v1", "m")
    for url, model in (("http://localhost:1/v1", None), (None, "m"), ("", None)):
        with pytest.raises(WarmlineError, match="--judge-url and --judge-model go together"):
            Judge.named(url, model)
