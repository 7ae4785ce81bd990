"""What is written is found again, whatever happened to the process."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from warmline.errors import WarmlineError
from warmline.journal import Journal, content_key


def test_answers_are_found_in_a_new_process(tmp_path: Path) -> None:
    path = tmp_path / "new" / "journal.jsonl"
    with ThreadPoolExecutor(8) as pool:
        journal = Journal(path)
        list(pool.map(lambda n: journal.add(f"key {n % 10}", text=f"\u2028 {n}\n"), range(100)))
    again = Journal(path)
    assert sorted(record["text"] for record in again.find("key 3")) == sorted(f"\u2028 {n}\n" for n in range(3, 100, 10))
    assert again.find("another") == []


def test_a_line_that_was_cut_off_is_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path).add("a", text="1")
    with path.open("a") as file:
        file.write('{"key": "b", "te')
    journal = Journal(path)
    assert journal.find("b") == []
    journal.add("b", text="2")
    assert [Journal(path).find(key)[0]["text"] for key in "ab"] == ["1", "2"]


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    for line in ("[]", '{"key": "b"}', '{"key": "b", "text": 3}', '{"key": ' * 100_000, "\ufeff{"):
        path.write_text(f'{{"key": "a", "text": ""}}\n{line}\n', encoding="utf-8")
        with pytest.raises(WarmlineError, match=r"journal\.jsonl:2: not a JSON object with a key and a text"):
            Journal(path)


def test_a_key_is_of_the_whole_request() -> None:
    key = content_key(model="m", messages=[{"role": "user", "content": "hi"}], temperature=0.7)
    assert key == content_key(temperature=0.7, model="m", messages=[{"content": "hi", "role": "user"}])
    assert key != content_key(model="m", messages=[{"role": "user", "content": "hi"}], temperature=0.5)
