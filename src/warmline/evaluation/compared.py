"""Replies in which base and tuned model are compared: how they are made, and when too many were cut for a comparison."""

from collections.abc import Mapping, Sequence
from typing import Any

from warmline.companion import Companion, Generated
from warmline.data.template import Message
from warmline.metrics.statistics import wilson
from warmline.model.backbone import Sampling
from warmline.progress import watched

MOST_CUT = 0.1
"""Share of a speaker's replies that may be cut. Above it the replies say how much room there was, and not how the speaker talks, so that no
difference and no interval is made from them."""
BATCH = 32


def answer_all(
    companion: Companion, conversations: Sequence[list[Message]], sampling: Sampling, base: bool = False, country: str | None = None
) -> list[Generated]:
    """The next reply of each conversation, in their order; those of like length share a batch, so that little is padded.

    Args:
        companion: Of the run.
        conversations: As for `Companion.replies`.
        sampling: How they are drawn.
        base: Let the untuned base answer.
        country: As for `Companion.replies`.
    """
    order = sorted(range(len(conversations)), key=lambda at: (sum(len(message["content"]) for message in conversations[at]), at))
    batches = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
    found: dict[int, Generated] = {}
    for batch in watched(batches, f"replies of the {'base' if base else 'tuned model'}"):
        found.update(zip(batch, companion.replies([conversations[at] for at in batch], sampling, country, base=base), strict=True))
    return [found[at] for at in range(len(conversations))]


def cut_off(cut: Sequence[bool]) -> dict[str, Any]:
    """How many of a speaker's replies were cut: `n`, `of`, and Wilson's `interval` of the share, None where there is no reply."""
    return {"n": sum(cut), "of": len(cut), "interval": list(wilson(sum(cut), len(cut))) if cut else None}


def too_many_cut(cut: Mapping[str, Sequence[bool]], longest: int) -> str | None:
    """Why these speakers' replies are not compared; None where at most `MOST_CUT` of each one's were cut.

    Args:
        cut: By speaker, whether each reply was cut.
        longest: Tokens at which they were.
    """
    many = [f"{sum(each)} of {len(each)} {speaker} replies" for speaker, each in cut.items() if sum(each) > MOST_CUT * len(each)]
    return f"{' and '.join(many)} were cut at {longest:,} tokens, more than {MOST_CUT * 100:.0f} %" if many else None
