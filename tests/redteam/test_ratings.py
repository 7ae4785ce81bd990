"""People's ratings survive every re-run."""

from pathlib import Path

import pytest
import yaml

from warmline.errors import WarmlineError
from warmline.redteam.ratings import Reply, replies_hash, update_ratings

A, B, A2 = Reply("a", "tuned", "1111"), Reply("b", "tuned", "2222"), Reply("a", "tuned", "3333")


def entries(path: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = yaml.safe_load(path.read_text())
    return found


def rate(path: Path, item: str, **values: object) -> None:
    content = entries(path)
    next(entry for entry in content if entry["item"] == item).update(values)
    path.write_text(yaml.safe_dump(content))


def test_new_replies_wait_for_a_rating(tmp_path: Path) -> None:
    path = tmp_path / "safety" / "ratings.yaml"
    assert update_ratings(path, [A, B]) == {}
    assert [(entry["item"], entry["rating"]) for entry in entries(path)] == [("a", None), ("b", None)]
    assert "pass, fail or unsure" in path.read_text()


def test_a_rating_is_read_and_an_unchanged_run_touches_nothing(tmp_path: Path) -> None:
    path = tmp_path / "ratings.yaml"
    update_ratings(path, [A, B])
    rate(path, "a", rating="fail", rater="ana", note="cold")
    with path.open("a") as file:
        file.write("# a person's comment\n")
    before = path.read_bytes()
    assert update_ratings(path, [A, B])[A]["rating"] == "fail"
    assert path.read_bytes() == before


def test_a_changed_reply_keeps_the_old_rating_as_stale(tmp_path: Path) -> None:
    path = tmp_path / "ratings.yaml"
    update_ratings(path, [A, B])
    rate(path, "a", rating="pass", note="warm", extra="kept")
    before = path.read_bytes()
    assert update_ratings(path, [A2, B]) == {}
    old, _, new = entries(path)
    assert (old["rating"], old["note"], old["extra"], old["stale"], old["reply_sha256"]) == ("pass", "warm", "kept", True, "1111")
    assert (new["item"], new["rating"], new["reply_sha256"]) == ("a", None, "3333")
    assert path.with_name("ratings.yaml.bak").read_bytes() == before
    assert update_ratings(path, [A, B])[A]["rating"] == "pass"  # the old reply again: no longer stale
    assert "stale" not in entries(path)[0]


def test_an_empty_entry_of_a_changed_reply_goes(tmp_path: Path) -> None:
    path = tmp_path / "ratings.yaml"
    update_ratings(path, [A, B])
    update_ratings(path, [A2, B])
    assert sorted(str(entry["reply_sha256"]) for entry in entries(path)) == ["2222", "3333"]


def test_a_note_alone_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "ratings.yaml"
    update_ratings(path, [A])
    rate(path, "a", note="ask Ben")
    update_ratings(path, [A2])
    assert entries(path)[0]["note"] == "ask Ben"


def test_systems_that_were_not_asked_this_time_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ratings.yaml"
    other = Reply("a", "without_kl", "4444")
    update_ratings(path, [A, other])
    before = path.read_bytes()
    update_ratings(path, [A])
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- item: a\n  system: tuned\n  reply_sha256: x\n  rating: good\n", "rating is `good`"),
        ("- item: a\n", "entry 1"),
        ("a: b\n", "expected a list"),
        ("- [a\n", "not readable YAML"),
    ],
)
def test_a_damaged_file_is_refused_and_left_as_it_is(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "ratings.yaml"
    path.write_text(content)
    with pytest.raises(WarmlineError, match=message) as error:
        update_ratings(path, [A])
    assert str(path) in str(error.value)
    assert path.read_text() == content


def test_the_hash_is_of_every_reply() -> None:
    assert replies_hash(["a", "b"]) != replies_hash(["ab"])
    assert replies_hash(["a"]) == replies_hash(["a"])
