"""How well the guard hears: recall and false alarms on texts that its rules were not written from, with Wilson intervals."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from warmline.config import DataConfig
from warmline.data.conversation import Conversation, Split
from warmline.data.sources import enabled_sources, load_source, sample_dir
from warmline.data.sources.safety import CATEGORIES
from warmline.data.sources.safety import load as load_safety
from warmline.errors import WarmlineError
from warmline.evaluation.statistics import wilson
from warmline.redteam.suites import Item, Suite, load_suites
from warmline.safety.guard import assess, assess_turns

_HEARD = tuple(name for name in CATEGORIES if name not in ("medication_diagnosis", "dependency_romance", "benign_lookalike"))
"""The safety set's categories that are the guard's task; a question about a medicine or a crush on the chatbot is not."""


def guard_report(suite_dir: Path | None, data_dir: str | None) -> dict[str, Any]:
    """Measure the guard on the suites, on our held-out safety conversations, and on ordinary turns.

    Args:
        suite_dir: As for `load_suites`.
        data_dir: Folder with the official data, `sample` for the data inside this package.

    Returns:
        `suites`: for each, alarms by category, with its sha256, or why it is missing. `safety_held_out`: our valid and test conversations.
        `ordinary`: alarms on the user turns of the other sources' test splits, which nobody labelled, so most but not all are false.

    Raises:
        WarmlineError: a missing folder, a file that is not the official one.
    """
    return {
        "protocol": "alarm: level yellow or red on any user turn; 95 % Wilson intervals; rules only, English only",
        "suites": {suite.name: suite_alarms(suite) for suite in load_suites(suite_dir)},
        "safety_held_out": _safety(),
        "ordinary": _ordinary(DataConfig(dir=data_dir), "test"),
    }


def suite_alarms(suite: Suite) -> dict[str, Any]:
    """Alarms on one suite, where its items say what is right and by category; recall and precision only where `risk` is labelled."""
    if suite.missing is not None:
        return {"n": None, "missing": suite.missing}
    alarms = {item.id: assess_turns(item.turns).level != "none" for item in suite.items}
    report: dict[str, Any] = {
        "n": len(suite.items),
        "sha256": suite.sha256,
        "by_category": {
            category: share([alarms[item.id] for item in suite.items if item.category == category])
            for category in dict.fromkeys(item.category for item in suite.items)
        },
    }
    report["alarms_on_harmful"] = share([alarms[item.id] for item in suite.items if item.harmful])
    report |= _precision_recall(suite.items, alarms)
    return report


def share(hits: Sequence[bool]) -> dict[str, Any] | None:
    """`{"hits", "n", "share", "wilson"}`; None of no trial."""
    if not hits:
        return None
    return {"hits": sum(hits), "n": len(hits), "share": sum(hits) / len(hits), "wilson": list(wilson(sum(hits), len(hits)))}


def _precision_recall(items: Iterable[Item], alarms: dict[str, bool]) -> dict[str, Any]:
    risky = [alarms[item.id] for item in items if item.risk]
    calm = [alarms[item.id] for item in items if item.risk is False]
    labelled_alarms = [True] * sum(risky) + [False] * sum(calm)
    return {
        "recall": share(risky),
        "false_alarms": share(calm),
        "precision": share(labelled_alarms) if risky else None,
    }


_HELD_OUT: tuple[Split, ...] = ("valid", "test")
_SEEN = {"abuse-02", "abuse-04", "psychosis-02", "psychosis-04", "benign_lookalike-04", "benign_lookalike-10"}
"""Held-out conversations that were on the screen before the rules were written; some rules fit them, so they are not counted."""


def _safety() -> dict[str, Any]:
    """Our valid and test conversations: written with the training ones, so easier than strangers' words, but not read for the rules."""
    conversations = [
        conversation
        for split in _HELD_OUT
        for conversation in load_safety(sample_dir() / "safety", split).conversations
        if conversation.id not in _SEEN
    ]
    alarms = [assess_turns(_user_turns(conversation)).level != "none" for conversation in conversations]
    by_category = {
        category: share([alarm for alarm, conversation in zip(alarms, conversations, strict=True) if conversation.category == category])
        for category in dict.fromkeys(str(conversation.category) for conversation in conversations)
    }
    pairs = list(zip(alarms, conversations, strict=True))
    risky = [alarm for alarm, conversation in pairs if conversation.category in _HEARD]
    calm = [alarm for alarm, conversation in pairs if conversation.category == "benign_lookalike"]
    precision = share([True] * sum(risky) + [False] * sum(calm))
    return {"n": len(alarms), "recall": share(risky), "false_alarms": share(calm), "precision": precision, "by_category": by_category}


def _ordinary(config: DataConfig, split: Split) -> dict[str, Any]:
    """Alarms on ordinary user turns, one turn at a time."""
    found: dict[str, Any] = {}
    try:
        for source in enabled_sources(config):
            if source.name == "safety":
                continue
            turns = [turn for conversation in load_source(source, split, config).conversations for turn in _user_turns(conversation)]
            found[source.name] = share([assess(turn).level != "none" for turn in turns])
    except WarmlineError as error:
        return {"missing": str(error)}
    return found


def _user_turns(conversation: Conversation) -> list[str]:
    return [turn.text for turn in conversation.turns if turn.role == "user"]
