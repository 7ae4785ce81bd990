"""Paths as people write them."""

import contextlib
import unicodedata
from pathlib import Path
from typing import Any


def expand_home(path: Path) -> Path:
    """The path with `~` as the home folder; one that names an unknown user stays as it is."""
    with contextlib.suppress(RuntimeError):
        return path.expanduser()
    return path


def expand_home_in_name(name: str) -> str:
    """The same for what may be a hub id instead."""
    return str(expand_home(Path(name))) if name.startswith("~") else name


def refuse_no_path(given: Any) -> Any:
    """What was given, unless it is text that names nothing on any disk.

    Raises:
        ValueError: empty text, which would mean the current folder; text with a control character or bytes that are no UTF-8.
    """
    if isinstance(given, (str, Path)):
        if not str(given):
            raise ValueError("expected a path; `.` is the current folder")
        if any(unicodedata.category(character) in ("Cc", "Cs") for character in str(given)):
            raise ValueError("expected a path in UTF-8 without control characters")
    return given
