"""The error taxonomy of a run: how often base and tuned model make each kind of error on the same held-out prompts, and the worst cases.

How often the detectors' flags are right is known from a reader's verdicts on a draw of flagged replies. The replies belong to data sets
that may not be passed on, so `assets/error_detectors/reading.jsonl` holds places and verdicts, no text; `scripts/draw_reading.py` prints
the text beside a copy of the data.
"""

import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from warmline.config import DataConfig
from warmline.conversation import Conversation
from warmline.data.enabled import enabled_sources
from warmline.evaluation.detectors import ERROR_CLASSES, ErrorClass, Finding, ReplyInContext, detect_all
from warmline.evaluation.finished import FinishedRun
from warmline.evaluation.qualitative import PROMPTS_PER_SOURCE, make_replies, read_replies, write_examples
from warmline.evaluation.replies import cut_off, too_many_cut
from warmline.lock import writes_run
from warmline.metrics.statistics import paired_difference, wilson
from warmline.model import REPLY_TOKENS
from warmline.model.backbone import Sampling
from warmline.runs import write_json, write_picture

WORST = 3
_SIDES = ("base", "tuned")
_COLOURS = {"base": "#9db4c0", "tuned": "#c8553d"}


class Judged(NamedTuple):
    """A prompt with both replies and what the detectors found in them.

    Attributes:
        record: Of `replies.jsonl`.
        findings: By side (`base`, `tuned`), then by class.
    """

    record: dict[str, Any]
    findings: dict[str, dict[str, Finding]]

    def flags(self, side: str) -> dict[str, str]:
        """Evidence of each class that was flagged."""
        return {name: finding.evidence for name, finding in self.findings[side].items() if finding.evidence is not None}


@writes_run("errors")
def analyse(path: Path, prompts_per_source: int = PROMPTS_PER_SOURCE, longest: int = REPLY_TOKENS, strength: float = 1.0) -> dict[str, Any]:
    """Let both models answer the held-out prompts; write `replies.jsonl`, `examples.json`, `errors.json` and `errors.png` in `results/`.

    Args:
        path: A finished run folder.
        prompts_per_source: Most prompts of one data set.
        longest: Tokens of a reply at most.
        strength: As of `evaluate`.

    Returns:
        What `errors.json` holds: `context`; `cut_off`, how many of both models' replies were; `classes`, for each kind of error how often
        it could be made (`asked`), both models' share of flagged replies and their paired difference with 95 % intervals (null, with the
        reason, where too many of these replies were cut), and the detector's precision where it was read; `worst`, the replies with the
        most flags; `reading`, who read the flags and how.

    Raises:
        WarmlineError: an unfinished run, missing data, a full disk.
    """
    finished = FinishedRun.open(path, strength)
    records = make_replies(finished, prompts_per_source, Sampling(longest, temperature=0))
    write_examples(finished, records)
    usual = _usual_words_by_source(finished.config.data)
    judged = [judge(record, usual) for record in records]
    reader, verdicts = read_verdicts()
    stored = read_replies(finished.folder.replies)
    context = {
        **(stored[0] if stored else finished.context()),
        "n": len(records),
        "prompts": {source: sum(record["source"] == source for record in records) for source in usual},
        "usual_words": {source: list(words) for source, words in usual.items()},
        "intervals": "95 %; Wilson for a share, Newcombe's paired score interval for tuned minus base; one prompt a conversation",
    }
    result = {
        "context": context,
        "cut_off": {side: cut_off([record["cut"][side] for record in records]) for side in _SIDES},
        "classes": {error.name: count(error, judged, verdicts, longest) for error in ERROR_CLASSES},
        "worst": {side: worst(judged, side) for side in _SIDES},
        "reading": {**reader, "precision": precision(verdicts)},
    }
    write_json(finished.folder.error_taxonomy, result)
    draw(result, finished.folder.error_picture)
    return result


def judge(record: dict[str, Any], usual: dict[str, tuple[int, int]]) -> Judged:
    """Run every detector over both replies of a record."""

    def exchange(side: str) -> ReplyInContext:
        return ReplyInContext(record["messages"], record[side], usual[record["source"]], record["danger"])

    return Judged(record, {side: detect_all(exchange(side)) for side in _SIDES})


def usual_words(conversations: Sequence[Conversation]) -> tuple[int, int]:
    """Fewest and most words of the middle nine tenths of the assistant's turns."""
    lengths = [len(turn.text.split()) for conversation in conversations for turn in conversation.turns if turn.role == "assistant"]
    fewest, most = np.percentile(lengths, [5, 95])
    return int(np.floor(fewest)), int(np.ceil(most))


def worst(judged: Sequence[Judged], side: str) -> list[dict[str, Any]]:
    """The replies of one side with the most flags, most first; ties go by the prompt's digest, and unflagged ones stay out."""
    flagged = sorted((one for one in judged if one.flags(side)), key=lambda one: (-len(one.flags(side)), one.record["digest"]))
    keys = ("source", "conversation", "turn", "messages")
    return [
        {**{key: one.record[key] for key in keys}, "reply": one.record[side], "cut": one.record["cut"][side], "flags": one.flags(side)}
        for one in flagged[:WORST]
    ]


def _usual_words_by_source(data: DataConfig) -> dict[str, tuple[int, int]]:
    conversations = {source.name: source.load("test").conversations for source in enabled_sources(data)}
    return {
        name: usual_words(found)
        for name, found in conversations.items()
        if any(turn.role == "assistant" for conversation in found for turn in conversation.turns)
    }


def count(error: ErrorClass, judged: Sequence[Judged], verdicts: list[dict[str, Any]], longest: int) -> dict[str, Any]:
    """How often each model makes one kind of error, and the difference.

    Args:
        error: The kind.
        judged: Every prompt.
        verdicts: Of those who read flags.
        longest: Tokens at which a reply was cut.
    """
    asked = [one for one in judged if one.findings["base"][error.name].applies]
    described = {
        "means": error.means,
        "blind_to": error.blind_to,
        "precision": precision(verdicts, error.name),
        "asked": len(asked),
    }
    if not asked:
        return {**described, "base": None, "tuned": None, "difference": None, "reason": "none of the prompts gave occasion for it"}
    flagged = {side: [one.findings[side][error.name].evidence is not None for one in asked] for side in _SIDES}
    if reason := too_many_cut({side: [one.record["cut"][side] for one in asked] for side in _SIDES}, longest):
        shares = {side: {**_share(flagged[side]), "interval": None} for side in _SIDES}
        return {**described, **shares, "difference": None, "reason": reason}
    difference = paired_difference(flagged["base"], flagged["tuned"])
    return {
        **described,
        **{side: _share(flagged[side]) for side in _SIDES},
        "difference": {"value": difference.value, "interval": list(difference.interval)},
    }


def _share(flagged: list[bool]) -> dict[str, Any]:
    return {"flagged": sum(flagged), "share": sum(flagged) / len(flagged), "interval": list(wilson(sum(flagged), len(flagged)))}


def draw(result: dict[str, Any], path: Path) -> None:
    """Bars of both models' flagged shares with their intervals, of those kinds in which the two can be compared.

    Raises:
        WarmlineError: the picture cannot be written.
    """
    measured = {name: counts for name, counts in result["classes"].items() if counts["difference"] is not None}
    figure = Figure(figsize=(8, 0.9 + 0.62 * max(1, len(measured))), layout="constrained")
    axis = figure.subplots()
    for side, offset in (("base", -0.19), ("tuned", 0.19)):
        shares = [counts[side]["share"] for counts in measured.values()]
        below = [counts[side]["share"] - counts[side]["interval"][0] for counts in measured.values()]
        above = [counts[side]["interval"][1] - counts[side]["share"] for counts in measured.values()]
        places = np.arange(len(measured)) + offset
        axis.barh(places, shares, height=0.36, color=_COLOURS[side], label=side)
        axis.errorbar(shares, places, xerr=[below, above], fmt="none", ecolor="#444444", elinewidth=1, capsize=2)
    axis.set_yticks(range(len(measured)), [f"{name.replace('_', ' ')} (n = {counts['asked']})" for name, counts in measured.items()])
    axis.invert_yaxis()
    axis.set_xlim(0, 1)
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axis.set_xlabel("replies flagged, of those where the error was possible (95 % interval)")
    axis.set_title(f"{result['context']['run']}: kinds of error, base and tuned", loc="left", fontsize=11)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=8)
    write_picture(path, figure, dpi=130)


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
