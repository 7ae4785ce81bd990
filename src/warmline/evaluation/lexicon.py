"""The word patterns of the error detectors, read from `assets/error_detectors/patterns.yaml`."""

import re
from functools import cache
from importlib import resources

from warmline.plain_yaml import read_yaml

PATTERNS = "patterns.yaml"


@cache
def _sections() -> dict[str, tuple[str, ...]]:
    text = (resources.files("warmline") / "assets" / "error_detectors" / PATTERNS).read_text(encoding="utf-8")
    return {name: tuple(lines.splitlines()) for name, lines in read_yaml(text).items()}


@cache
def pattern(section: str) -> re.Pattern[str]:
    """One section's alternatives as a pattern of whole words, for text that went through `plain`."""
    return re.compile(rf"\b(?:{'|'.join(_sections()[section])})(?!\w)")


@cache
def opening(section: str) -> re.Pattern[str]:
    """The same, at the beginning of a clause only."""
    return re.compile(
        rf"(?:^|[.!?,;:] *)(?:(?:just|so|then|well|maybe|perhaps|but|and|please) )*(?:{'|'.join(_sections()[section])})(?!\w)"
    )


def word_groups(section: str) -> list[tuple[frozenset[str], frozenset[str]]]:
    """For each line the words before its bar, and all of its words."""
    lines = [line.partition("|") for line in _sections()[section]]
    return [(frozenset(before.split()), frozenset(f"{before} {after}".split())) for before, _, after in lines]


def plain(text: str) -> str:
    """Lower case, plain apostrophes, single spaces."""
    return " ".join(text.replace("\u2019", "'").lower().split())
