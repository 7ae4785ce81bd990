"""How often the detectors' flags were right, by a reader's verdicts on a fresh draw of flagged replies.

The replies belong to data sets that may not be passed on, so `assets/error_detectors/reading.jsonl` holds places and verdicts, no text;
`scripts/draw_reading.py` prints the text beside a copy of the data.
"""

import json
from importlib import resources
from typing import Any

from warmline.metrics.statistics import wilson


def read_verdicts() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Who read what and how, and one record a flagged reply: `source`, `split`, `conversation`, `turn`, `class`, `right`, `why`."""
    path = resources.files("warmline") / "assets" / "error_detectors" / "reading.jsonl"
    head, *verdicts = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return head["context"], verdicts


def precision(verdicts: list[dict[str, Any]], name: str | None = None) -> dict[str, Any] | None:
    """Share of flags that were right, with Wilson's interval.

    Args:
        verdicts: Of `read_verdicts`.
        name: Of one class; None for all.

    Returns:
        `read`, `right`, `share`, `interval`; None where nothing was read.
    """
    right = [verdict["right"] for verdict in verdicts if name in (None, verdict["class"])]
    if not right:
        return None
    return {"read": len(right), "right": sum(right), "share": sum(right) / len(right), "interval": list(wilson(sum(right), len(right)))}
