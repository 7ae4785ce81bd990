"""An archive in parts: no part is too large, together they are all that went in, and those that came alone still open."""

import io
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from parts import write_parts


@pytest.fixture
def files(tmp_path: Path) -> list[tuple[Path, str]]:
    """Three files of noise, which gzip cannot make smaller, in the order in which they are to be packed."""
    noise, folder = np.random.default_rng(13), tmp_path / "files"
    folder.mkdir()
    for name, size in (("one", 100), ("two", 5_000), ("three", 90_000)):
        (folder / name).write_bytes(noise.bytes(size))
    return [(folder / name, f"sub/{name}") for name in ("one", "two", "three")]


def until_it_breaks_off(part: Path) -> Iterator[tuple[str, bytes]]:
    """What can be read of an archive whose end is missing."""
    with tarfile.open(part, mode="r|gz") as archive, suppress(tarfile.ReadError, EOFError):
        for entry in archive:
            content = archive.extractfile(entry)
            assert content is not None
            yield entry.name, content.read()


def test_together_they_are_all_that_went_in(files: list[tuple[Path, str]], tmp_path: Path) -> None:
    parts = write_parts(files, tmp_path / "out", 40_000)
    assert [part.stat().st_size <= 40_000 for part in parts] == [True] * 3
    with tarfile.open(fileobj=io.BytesIO(b"".join(part.read_bytes() for part in parts)), mode="r:gz") as archive:
        archive.extractall(tmp_path / "again", filter="data")
    assert all((tmp_path / "again" / name).read_bytes() == path.read_bytes() for path, name in files)


def test_the_first_part_alone_has_the_first_files(files: list[tuple[Path, str]], tmp_path: Path) -> None:
    first = write_parts(files, tmp_path / "out", 40_000)[0]
    found = dict(until_it_breaks_off(first))
    assert found == {name: path.read_bytes() for path, name in files[:2]}


def test_a_smaller_archive_leaves_no_part_of_a_larger_one(files: list[tuple[Path, str]], tmp_path: Path) -> None:
    write_parts(files, tmp_path / "out", 10_000)
    gone = (tmp_path / "files" / "gone", "gone")
    parts = write_parts([gone, *files[:1]], tmp_path / "out", 10_000)
    assert sorted((tmp_path / "out").iterdir()) == parts
    with tarfile.open(parts[0]) as archive:
        assert archive.getnames() == ["sub/one"]
