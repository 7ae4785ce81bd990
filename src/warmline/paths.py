"""Paths as people write them, and as others may see them."""

import contextlib
import re
import unicodedata
from pathlib import Path, PureWindowsPath
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


NANO = "nano"
"""The base that lies inside this package."""


def is_folder(model: str) -> bool:
    """Whether a model's name is a place on a machine, this one or another, and no hub id."""
    is_hub_id = re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", model) and not expand_home(Path(model)).is_dir()
    return model != NANO and not is_hub_id


def public_name(model: str) -> str:
    """A model as anyone may be told of it: a hub id whole; of a folder the last part alone, as `./last`, which is no hub id."""
    return f"./{PureWindowsPath(model).name}" if is_folder(model) else model  # which knows both kinds of slashes
