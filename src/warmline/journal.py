"""Answers kept as they come, in a file that grows by one line each: a killed run never asks, or pays, for the same thing twice."""

import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from warmline.errors import WarmlineError
from warmline.responders import Answer, ChatRequest, Responder
from warmline.runs import append_text, disk_errors, parse_json, write_bytes


def content_key(**request: Any) -> str:
    """A hash of everything an answer depends on."""
    return hashlib.sha256(json.dumps(request, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


class Journal:
    """Answers by the key of their request, in memory and on disk.

    Args:
        path: JSON lines, each with a `key`; need not exist yet. A last line that was cut off is removed.

    Raises:
        WarmlineError: unreadable, or a line that is no JSON object with a key and a text.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._records: dict[str, list[dict[str, Any]]] = {}
        if path.exists():
            self._read()

    def find(self, key: str) -> list[dict[str, Any]]:
        """What was answered to a request, oldest first."""
        return self._records.get(key, [])

    def add(self, key: str, **record: Any) -> None:
        """Append an answer and see it to the disk; may be called from several threads.

        Raises:
            WarmlineError: the disk is full or read-only.
        """
        entry = {"key": key, **record}
        with self._lock, disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            append_text(self.path, json.dumps(entry, ensure_ascii=True) + "\n", sync=True)
            self._records.setdefault(key, []).append(entry)

    def _read(self) -> None:
        with disk_errors(self.path):
            content = self.path.read_bytes()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):  # killed while writing
                write_bytes(self.path, content[:whole])
        for number, line in enumerate(content[:whole].splitlines(), 1):
            try:
                record = parse_json(line)
            except ValueError:
                record = None
            if not isinstance(record, dict) or not all(isinstance(record.get(name), str) for name in ("key", "text")):
                raise WarmlineError(f"{self.path}:{number}: not a JSON object with a key and a text; remove the line to ask again")
            self._records.setdefault(record["key"], []).append(record)


def ask_once(
    journal: Journal,
    responder: Responder,
    requests: Sequence[ChatRequest],
    about: Sequence[Mapping[str, Any]],
    keys: Sequence[str],
    advance: Callable[[], None] = lambda: None,
    before: Callable[[], None] = lambda: None,
) -> list[Answer]:
    """An answer to each request: found in the journal, or asked for and kept there.

    Args:
        journal: Of replies.
        responder: Who answers.
        requests: What to answer.
        about: What the journal says of each answer besides its text.
        keys: Of each request in the journal, from `content_key`.
        advance: Called once an answer.
        before: Called before anything is asked for; not at all when the journal has every answer.
    """
    answers = [Answer(None, "no answer came") for _ in requests]
    missing = []
    for at, key in enumerate(keys):
        if found := journal.find(key):
            answers[at] = Answer(found[-1]["text"], cut=found[-1].get("cut", False))  # older journals do not say it
            advance()
        else:
            missing.append(at)

    def done(index: int, answer: Answer) -> None:
        at = missing[index]
        answers[at] = answer
        if answer.text is not None:
            journal.add(keys[at], **about[at], text=answer.text, cut=answer.cut)
        advance()

    if missing:
        before()
        responder.run([requests[at] for at in missing], done)
    return answers
