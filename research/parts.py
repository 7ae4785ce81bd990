"""A gzipped tar in parts of a given size: many ways from one machine to another let only small files through.

cat study.tar.gz.* | tar -xzf - -C FOLDER
"""

import tarfile
from collections.abc import Iterable
from pathlib import Path

NAME = "study.tar.gz"


class _Parts:
    """A file to write to that goes on in a next one when a part is full."""

    def __init__(self, folder: Path, most: int) -> None:
        self.paths: list[Path] = []
        self._folder, self._most, self._left = folder, most, 0

    def write(self, content: bytes) -> int:
        rest = memoryview(content)
        while rest:
            if not self._left:
                self.paths.append(self._folder / f"{NAME}.{len(self.paths):03d}")
                self.paths[-1].write_bytes(b"")
                self._left = self._most
            with self.paths[-1].open("ab") as part:
                part.write(rest[: self._left])
            rest, self._left = rest[self._left :], max(0, self._left - len(rest))
        return len(content)


def write_parts(files: Iterable[tuple[Path, str]], folder: Path, most: int) -> list[Path]:
    """Archive files, in the order given: of parts that end too early, those that came can still be opened.

    Args:
        files: Each with its name in the archive. One that is gone by now, of a run that is under way, is left out.
        folder: Made; parts of an earlier archive there are removed.
        most: Bytes of a part.

    Returns:
        The parts, in order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for earlier in folder.glob(f"{NAME}.*"):
        earlier.unlink()
    parts = _Parts(folder, most)
    with tarfile.open(fileobj=parts, mode="w|gz") as archive:
        for path, name in files:
            if path.is_file():
                archive.add(path, name, recursive=False)
    return parts.paths
