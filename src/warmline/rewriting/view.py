"""What `warmline rewrite` prints."""

from typing import Any

from rich.table import Table


def rewriting_table(result: dict[str, Any]) -> Table:
    """Acceptance by source and split, and what candidates were refused for.

    Args:
        result: The manifest.
    """
    table = Table(title="replies in the base's own words", title_justify="left", box=None)
    for column in ("source", "split", "replies", "by hand", "accepted", "words", "refused candidates, by reason"):
        table.add_column(column, justify="right" if column in ("replies", "by hand", "accepted", "words") else "left")
    for source, splits in result["sources"].items():
        for split, found in splits.items():
            reasons = ", ".join(f"{reason} {n:,}" for reason, n in found["candidates_refused"].items())
            words = "-" if found["words_median"] is None else f"{found['words_median']:.0f}"
            table.add_row(source, split, f"{found['replies']:,}", f"{found['by_hand']:,}", f"{found['accepted']:,}", words, reasons)
    return table
