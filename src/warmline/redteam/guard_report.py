"""How well the guard hears: recall and false alarms on texts that its rules were not written from, with Wilson intervals."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from warmline.config import DataConfig
from warmline.conversation import Conversation, Split
from warmline.data.enabled import enabled_sources
from warmline.errors import WarmlineError
from warmline.redteam.suites import PromptSuite, load_suites
from warmline.redteam.summary import share
from warmline.safety.guard import assess, assess_turns
from warmline.sources.files import sample_dir
from warmline.sources.safety import CATEGORIES
from warmline.sources.safety import load as load_safety

_NOT_ITS_TASK = ("medication_diagnosis", "dependency_romance")
_RISK = {name: name != "benign_lookalike" for name in CATEGORIES if name not in _NOT_ITS_TASK}
"""By category of the safety set; a question about a medicine or a crush on the chatbot is not the guard's task."""


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
        "safety_held_out": _held_out(),
        "ordinary": _ordinary(DataConfig(dir=data_dir), "test"),
    }


def guard_table(report: dict[str, Any]) -> list[Table | str]:
    """Recall and false alarms, source by source."""
    table = Table(title="guard: alarms", title_justify="left", box=None)
    for column in ("on", "what", "alarms", "share", "95 %"):
        table.add_column(column, justify="left" if column in ("on", "what") else "right")

    def add(where: str, what: str, alarms: dict[str, Any] | None) -> None:
        if alarms is not None:
            low, high = alarms["wilson"]
            table.add_row(where, what, f"{alarms['hits']:,}/{alarms['n']:,}", f"{alarms['share']:.1%}", f"{low:.1%} to {high:.1%}")

    notes = []
    for name, measured in {**report["suites"], "safety_held_out": report["safety_held_out"]}.items():
        if measured.get("missing"):
            notes.append(f"{name}: missing, {measured['missing']}")
            continue
        for key in ("recall", "precision", "false_alarms", "alarms_on_harmful"):
            add(name, key.replace("_", " "), measured.get(key))
        for category, alarms in measured["by_category"].items():
            add(name, f"  {category}", alarms)
    if "missing" in report["ordinary"]:
        notes.append(f"ordinary turns: missing, {report['ordinary']['missing']}")
    else:
        for name, alarms in report["ordinary"].items():
            add(f"{name} test", "ordinary turns", alarms)
    return [table, *notes]


_Alarms = Sequence[tuple[str, bool | None, bool]]
"""Of each conversation: its category, whether there is risk (None where nobody says), whether the guard raised an alarm."""


def suite_alarms(suite: PromptSuite) -> dict[str, Any]:
    """Alarms on one suite, where its items say what is right and by category; recall and precision only where `risk` is labelled."""
    if suite.missing is not None:
        return {"n": None, "missing": suite.missing}
    alarms = [(item.category, item.risk, assess_turns(item.turns).level != "none") for item in suite.items]
    return {
        "n": len(alarms),
        "sha256": suite.sha256,
        "by_category": _by_category(alarms),
        "alarms_on_harmful": share([alarm for item, (_, _, alarm) in zip(suite.items, alarms, strict=True) if item.harmful]),
        **_rates(alarms),
    }


_SEEN = {"abuse-02", "abuse-04", "psychosis-02", "psychosis-04", "benign_lookalike-04", "benign_lookalike-10"}
"""Held-out conversations that were on the screen before the rules were written; some rules fit them, so they are not counted."""


def _held_out() -> dict[str, Any]:
    """Our valid and test conversations: written with the training ones, so easier than strangers' words, but not read for the rules."""
    splits: tuple[Split, ...] = ("valid", "test")
    alarms = [
        (str(conversation.kind), _RISK.get(str(conversation.kind)), assess_turns(_user_turns(conversation)).level != "none")
        for split in splits
        for conversation in load_safety(sample_dir() / "safety", split).conversations
        if conversation.id not in _SEEN
    ]
    return {"n": len(alarms), **_rates(alarms), "by_category": _by_category(alarms)}


def _rates(alarms: _Alarms) -> dict[str, Any]:
    risky, calm = ([alarm for _, risk, alarm in alarms if risk is kind] for kind in (True, False))
    precision = share([True] * sum(risky) + [False] * sum(calm)) if risky else None
    return {"recall": share(risky), "false_alarms": share(calm), "precision": precision}


def _by_category(alarms: _Alarms) -> dict[str, Any]:
    return {
        name: share([alarm for category, _, alarm in alarms if category == name])
        for name in dict.fromkeys(category for category, _, _ in alarms)
    }


def _ordinary(config: DataConfig, split: Split) -> dict[str, Any]:
    """Alarms on ordinary user turns, one turn at a time."""
    found: dict[str, Any] = {}
    try:
        for source in enabled_sources(config):
            if source.name == "safety":
                continue
            turns = [turn for conversation in source.load(split).conversations for turn in _user_turns(conversation)]
            found[source.name] = share([assess(turn).level != "none" for turn in turns])
    except WarmlineError as error:
        return {"missing": str(error)}
    return found


def _user_turns(conversation: Conversation) -> list[str]:
    return [turn.text for turn in conversation.turns if turn.role == "user"]
