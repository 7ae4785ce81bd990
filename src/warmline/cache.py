"""What can be computed again, kept in the user's cache folder; `WARMLINE_CACHE` names another."""

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
