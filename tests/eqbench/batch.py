"""Whoever answers a batch, in the forms that answers come in."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Line = Callable[[str, str], dict[str, Any]]
NOON = 1_769_860_800
"""2026-01-31, 12:00 UTC."""


def provided(name: str, text: str) -> dict[str, Any]:
    """A line of a provider's output."""
    message = {"role": "assistant", "content": text}
    body = {
        "id": "chatcmpl-1", "object": "chat.completion", "created": NOON, "model": "judge-2026",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 100},
    }  # fmt: skip
    return {"id": "batch_req_1", "custom_id": name, "response": {"status_code": 200, "request_id": "r", "body": body}, "error": None}


def plain(name: str, text: str) -> dict[str, Any]:
    """A line that somebody wrote."""
    return {"custom_id": name, "text": text, "model": "a reader"}


def requests_in(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "requests.jsonl").read_text(encoding="utf-8").splitlines()]


def write_answers(folder: Path, lines: list[dict[str, Any]]) -> None:
    (folder / "answers.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")


def answer(folder: Path, judge: Callable[[str], str], line: Line = provided, every: slice = slice(None)) -> list[dict[str, Any]]:
    """Answer some of the requests that wait, last first; what was asked."""
    asked = requests_in(folder)[every]
    write_answers(folder, [line(one["custom_id"], judge(one["body"]["messages"][-1]["content"])) for one in reversed(asked)])
    return asked
