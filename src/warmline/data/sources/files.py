"""Reading official files: text with a named error when a file is missing, damaged or not what its checksum says."""

import hashlib
from pathlib import Path
from typing import Any

from warmline.errors import WarmlineError

CHECKSUMS = "SHA256SUMS"
"""File beside the data, written by `warmline data fetch` in the format of `sha256sum`; verified when it is there."""


def read_text(path: Path) -> str:
    """The file's text, after its checksum was verified.

    Raises:
        WarmlineError: missing, unreadable, not UTF-8, or different from the folder's SHA256SUMS.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise WarmlineError(f"{path}: file not found; fetch it with `warmline data fetch` or point --data-dir at a copy") from None
    except OSError as error:
        raise WarmlineError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from None
    expected = checksums(path.parent).get(path.name)
    if expected is not None and hashlib.sha256(content).hexdigest() != expected:
        raise WarmlineError(
            f"{path}: sha256 differs from {CHECKSUMS} beside it (truncated or changed); fetch it again with `warmline data fetch`"
        )
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise WarmlineError(f"{path}:{line}: not UTF-8 text; the file is damaged, fetch it again") from None


def write_checksums(folder: Path) -> None:
    """Write SHA256SUMS over the files that lie directly in `folder`."""
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name != CHECKSUMS
    ]
    (folder / CHECKSUMS).write_text("".join(lines), encoding="utf-8")


def checksums(folder: Path) -> dict[str, str]:
    """What SHA256SUMS in `folder` says of each file; empty where there is none.

    Raises:
        WarmlineError: it cannot be read, or a line is no checksum.
    """
    path = folder / CHECKSUMS
    if not path.exists():
        return {}
    mend = "delete it and fetch the data again"
    try:
        lines = split_lines(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise WarmlineError(f"{path}: cannot be read ({error}); {mend}") from None
    sums = {}
    for number, line in enumerate(lines, 1):
        digest, _, name = line.partition("  ")
        if len(digest) != 64 or not name:
            raise WarmlineError(f"{path}:{number}: expected `<sha256>  <file name>`; {mend}")
        sums[name] = digest
    return sums


def split_lines(text: str) -> list[str]:
    """The lines of a text, ended by a newline alone: `splitlines` also cuts at U+2028 and its like, which JSON strings may hold."""
    lines = text.split("\n")
    return lines if lines[-1] else lines[:-1]


def message_text(content: Any, place: str) -> str:
    """The text of a message that came as JSON, with runs of white space as one space.

    Raises:
        WarmlineError: no text, or half of a surrogate pair, which JSON can escape and no tokenizer reads; `place` says where.
    """
    text = " ".join(content.split()) if isinstance(content, str) else ""
    if not text:
        raise WarmlineError(f"{place}: empty `content`; remove the message")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        half = f"\\u{ord(text[error.start]):04x}"
        raise WarmlineError(f"{place}: half a character ({half}) in `content`; mend or remove the message") from None
    return text
