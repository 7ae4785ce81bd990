"""What can be computed again, kept in the user's cache folder (`WARMLINE_CACHE` names another), and checksums of files: whole, and
sampled where a file has many gigabytes.
"""

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import platformdirs

from warmline.paths import expand_home


def cache_file(name: str) -> Path:
    """Where something of that name is kept. The name holds a hash of all it depends on."""
    return expand_home(Path(os.environ.get("WARMLINE_CACHE") or Path(platformdirs.user_cache_dir("warmline")) / "encoded")) / name


def keep(path: Path, write: Callable[[Path], object], *failures: type[Exception]) -> None:
    """Write a file of the cache as a whole or not at all. A cache is a convenience: a full or read-only disk only costs time.

    Args:
        path: Of `cache_file`.
        write: Writes to the path it is given.
        failures: What `write` may raise beside OSError.
    """
    expected: tuple[type[Exception], ...] = (OSError, *failures)
    aside = path.with_suffix(f".{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(aside)
        aside.replace(path)
    except expected:
        with suppress(OSError):
            aside.unlink()


_BLOCK = 2**20
_SAMPLES = 64


def sha256_of(*paths: Path) -> str:
    """sha256 of whole files, one after another, in hexadecimal.

    Raises:
        OSError: one cannot be read.
    """
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(16 * _BLOCK):
                digest.update(block)
    return digest.hexdigest()


def sampled_sha256(path: Path) -> str:
    """sha256 of a file's length and of 64 MiB spread evenly over it; of all of it where it is no longer.

    Says in a tenth of a second whether a base's weights were trained on or replaced, which changes all of them; not whether a bit flipped.

    Raises:
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    step = max(_BLOCK, size // _SAMPLES)
    with path.open("rb") as file:
        for start in range(0, size, step):
            file.seek(start)
            digest.update(file.read(_BLOCK))
    return digest.hexdigest()
