"""Reading official files: text with a named error when a file is missing, damaged or not what its checksum says."""

import hashlib
from functools import lru_cache
from pathlib import Path

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
    expected = _checksums(path.parent).get(path.name)
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


@lru_cache(maxsize=64)
def _checksums(folder: Path) -> dict[str, str]:
    path = folder / CHECKSUMS
    if not path.exists():
        return {}
    sums = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        digest, _, name = line.partition("  ")
        if len(digest) != 64 or not name:
            raise WarmlineError(f"{path}:{number}: expected `<sha256>  <file name>`; delete the file or fetch the data again")
        sums[name] = digest
    return sums
