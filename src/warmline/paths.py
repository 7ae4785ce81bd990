"""Paths as people write them."""

import contextlib
from pathlib import Path


def expand_home(path: Path) -> Path:
    """The path with `~` as the home folder; one that names an unknown user stays as it is."""
    with contextlib.suppress(RuntimeError):
        return path.expanduser()
    return path
