"""Reading official files: text with a named error when a file is missing, damaged or not what its checksum says."""

import codecs
import hashlib
import json
from importlib import resources
from pathlib import Path
from typing import Any

from warmline.conversation import Conversation, Turn
from warmline.errors import WarmlineError, shown

CHECKSUMS = "SHA256SUMS"
"""File beside the data, written by `warmline data fetch` in the format of `sha256sum`; verified when it is there."""


_NO_TEXT = {
    b"\x1f\x8b": "a gzip archive; unpack it",
    b"PK\x03\x04": "a zip archive; unpack it",
    b"BZh": "a bzip2 archive; unpack it",
    b"\xfd7zXZ": "an xz archive; unpack it",
    b"\x28\xb5\x2f\xfd": "a zstd archive; unpack it",
    b"\xff\xfe": "UTF-16 text; save it as UTF-8",
    b"\xfe\xff": "UTF-16 text; save it as UTF-8",
    b"version https://git-lfs": "a pointer of Git LFS in place of the file; run `git lfs pull` where it was cloned",
    b"<!doctype html": "a web page, perhaps an error page saved under this name; download the file itself",
    b"<html": "a web page, perhaps an error page saved under this name; download the file itself",
}
"""What stands in a data file's place now and then, by its first bytes, and how to mend it."""


def assets_dir() -> Path:
    """Folder of what ships inside this package."""
    return Path(str(resources.files("warmline") / "assets"))


def sample_dir() -> Path:
    """Folder of the sample data inside this package."""
    return assets_dir() / "sample"


def read_text(path: Path) -> str:
    """The file's text, after its checksum was verified; lines end with a newline alone, and there is no byte-order mark.

    Raises:
        WarmlineError: missing, unreadable, empty, no UTF-8 text, or different from the folder's SHA256SUMS.
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
    body = content.removeprefix(codecs.BOM_UTF8)
    start = body[:64].lstrip()
    for magic, what in _NO_TEXT.items():
        if start.lower().startswith(magic.lower()):
            raise WarmlineError(f"{path}: this is {what}")
    if not body.strip():
        raise WarmlineError(f"{path}: is empty; fetch it again")
    if b"\0" in content:
        line = content.count(b"\n", 0, content.index(b"\0")) + 1
        raise WarmlineError(f"{path}:{line}: holds a zero byte: UTF-16 text, to be saved as UTF-8, or a damaged file, to be fetched again")
    try:
        text = body.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = body.count(b"\n", 0, error.start) + 1
        raise WarmlineError(f"{path}:{line}: not UTF-8 text; the file is damaged, fetch it again") from None
    return text if "\n" in text else text.replace("\r", "\n")


def read_json(text: str, place: str, line: int, mend: str) -> Any:
    """A value out of a data file.

    Args:
        text: JSON.
        place: The file.
        line: Of the file, where the text begins.
        mend: What to do about it.

    Raises:
        WarmlineError: not JSON, deeper than Python reads, or a number of thousands of digits.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise WarmlineError(f"{place}:{line + error.lineno - 1}: not valid JSON ({error.msg}); {mend}") from None
    except (ValueError, RecursionError) as error:
        raise WarmlineError(f"{place}:{line}: not to be read as JSON ({type(error).__name__}); {mend}") from None


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


def read_conversations(path: Path) -> tuple[Conversation, ...]:
    """A file of conversations written for this project: one JSON object a line, `{"id", "about", "messages"}`.

    A message of the assistant's with `"target": false` is somebody else's: context of those after it, and not learned.

    Raises:
        WarmlineError: a missing or damaged file, a line that does not fit.
    """
    found = []
    for number, line in enumerate(split_lines(read_text(path)), 1):
        place = f"{path}:{number}"
        record = read_json(line, str(path), number, "mend or remove the line")
        if not isinstance(record, dict) or not isinstance(record.get("id"), str) or not isinstance(record.get("messages"), list):
            raise WarmlineError(f"{place}: expected an object with id, about and messages")
        turns: list[Turn] = []
        for message in record["messages"]:
            role = message.get("role") if isinstance(message, dict) else None
            if role != ("assistant" if len(turns) % 2 else "user"):
                raise WarmlineError(f"{place}: role is `{shown(role)}`, expected user and assistant in turn")
            target = message.get("target", True)
            if not isinstance(target, bool) or (role == "user" and not target):
                raise WarmlineError(f"{place}: target is `{shown(target)}`, expected true or false, and only of the assistant's messages")
            turns.append(Turn(role, message_text(message.get("content"), place), target=target))
        if not turns:
            raise WarmlineError(f"{place}: has no message")
        found.append(Conversation(record["id"], tuple(turns), kind=str(record.get("about"))))
    if not found:
        raise WarmlineError(f"{path}: no conversation; the file is truncated")
    return tuple(found)


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
