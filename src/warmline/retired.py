"""Settings that are no more: an older config.yaml may have them at the value at which each changed nothing."""

from collections.abc import Sequence
from typing import Any

from warmline.errors import WarmlineError, shown

_ANY: Any = object()


_RETIRED: dict[str, Any] = {
    "model.bidirectional": False,
    "data.sources.empathetic_dialogues.situation_as_emotion": False,
    "heads.layer": None,
    "heads.emotion.pooling": "last",
    **{
        f"heads.{head}.{name}": neutral
        for head in ("emotion", "strategy")
        for name, neutral in {"final_states": False, "refit": None, "ensemble": None, "thresholds": None, "label_smoothing": 0}.items()
    },
    "distill.teachers": [],
    "distill.share": _ANY,
    "distill": {},
}
"""Settings that are no more, and the value at which each changed nothing. A section follows its keys."""


def without_retired(content: dict[str, Any], place: str) -> dict[str, Any]:
    """A configuration that came as plain data, without the retired settings that older ones have.

    Args:
        content: Left as it is.
        place: Where it came from.

    Raises:
        WarmlineError: a retired setting has a value that would change the run.
    """
    for key, neutral in _RETIRED.items():
        content = _without(content, key.split("."), key, neutral, place)
    return content


def _without(section: Any, levels: Sequence[str], key: str, neutral: Any, place: str) -> Any:
    first, *below = levels
    if not isinstance(section, dict) or first not in section:
        return section
    if below:
        return {**section, first: _without(section[first], below, key, neutral, place)}
    if neutral is not _ANY and section[first] != neutral:
        raise WarmlineError(
            f"{place}: `{key}`: retired, since runs showed no gain from it (research/LOG.md says what was measured); leave it out, "
            f"got {shown(section[first])}"
        )
    return {name: value for name, value in section.items() if name != first}
