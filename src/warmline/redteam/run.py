"""The red-team run: base beside tuned, with the guard off and on, on our own suite and the public ones.

Writes `results/red_team.json` and `safety/red_team_sheet.md`; keeps people's ratings in `safety/human_ratings.yaml`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import Progress

from warmline.companion import Companion, Generated
from warmline.data.enabled import enabled_sources
from warmline.data.template import Message
from warmline.errors import WarmlineError
from warmline.evaluation.finished import FinishedRun
from warmline.evaluation.replies import answer_all
from warmline.journal import Journal
from warmline.judges import Judge
from warmline.lock import writes_run
from warmline.model import REPLY_TOKENS
from warmline.model.backbone import Sampling
from warmline.redteam.flags import raised
from warmline.redteam.guard_report import suite_alarms
from warmline.redteam.judge import ask_first, ask_judge, judge_context, judge_prompt
from warmline.redteam.ratings import Reply, replies_hash, update_ratings
from warmline.redteam.sheet import render_sheet
from warmline.redteam.suites import Item, Overlap, find_overlap, load_suites
from warmline.redteam.summary import summarise
from warmline.runs import write_json, write_text
from warmline.safety.crisis import resources
from warmline.safety.guard import guarded, hear

PROTOCOL = "warmline-redteam/1"

Answer = Callable[[list[list[Message]]], list[Generated]]
"""The next reply of each conversation."""
Said = list[list[Generated]]
"""Of each item one reply a user turn."""


class RedTeamOptions(NamedTuple):
    """What a red-team run may be told.

    Attributes:
        suite_dir: Holds the public suites; None for our own suite alone.
        without_kl: A finished run of the same base, trained without the safety KL.
        why_not: Why there is no such run, where there is none.
        country: ISO 3166 code whose hotlines are right; None where no number is.
        judge: Scores our own suite's conversations; None for no judge.
        max_new_tokens: Longest reply.
        strength: As of `evaluate`; of both runs' adapters.
    """

    suite_dir: Path | None = None
    without_kl: Path | None = None
    why_not: str = "no run trained without the safety KL was given (--without-kl RUN)"
    country: str | None = None
    judge: Judge | None = None
    max_new_tokens: int = REPLY_TOKENS
    strength: float = 1.0


@writes_run("redteam")
def red_team(path: Path, options: RedTeamOptions) -> dict[str, Any]:
    """Ask, flag, judge and write.

    Args:
        path: A finished run folder.
        options: See `RedTeamOptions`.

    Returns:
        What `results/red_team.json` holds.

    Raises:
        WarmlineError: an unfinished run, a run of another base, a suite file that is not the official one, a damaged ratings file, one
            of our own prompts in the training data, or a judge that refuses; AnswersNeeded, where its requests wait for answers.
    """
    suites = load_suites(options.suite_dir)
    items = [item for suite in suites for item in suite.items]
    finished = FinishedRun.open(path, options.strength)
    folder = finished.folder
    if options.judge:
        ask_first(options.judge)
    context = finished.context()
    overlap = _no_overlap(items, finished)
    sampling = Sampling(max_new_tokens=options.max_new_tokens, temperature=0)

    def said_by(companion: Companion, base: bool = False) -> Said:
        return converse(items, lambda asked: answer_all(companion, asked, sampling, base, options.country))

    replies = {"base": said_by(finished.companion, base=True), "tuned": said_by(finished.companion)}
    other_context = None
    if options.without_kl is not None:
        del finished  # one model in memory at a time
        other = FinishedRun.open(options.without_kl, options.strength)
        other_context = _same_base(other, context)
        replies["without_kl"] = said_by(other.companion)
    rows = [_row(item, {system: said[at] for system, said in replies.items()}, options.country) for at, item in enumerate(items)]
    judged = _add_verdicts(items, rows, options.judge, Journal(folder.red_team_judge)) if options.judge else None
    _add_ratings(rows, folder.human_ratings)
    result = {
        "context": {
            **context,
            "split": None,
            "protocol": PROTOCOL,
            "decoding": {"temperature": 0, "max_new_tokens": options.max_new_tokens},
            "country": options.country,
            "crisis_row": resources(options.country).country,
            "without_kl": other_context,
            "without_kl_reason": None if other_context else options.why_not,
            "judge": judged,
            "judge_reason": None if judged else "no judge was given (--judge-url URL --judge-model NAME, or --judge-batch FOLDER)",
        },
        "suites": {suite.name: {"n": len(suite.items) or None, "sha256": suite.sha256, "missing": suite.missing} for suite in suites},
        "overlap": {**overlap._asdict(), "sources": list(overlap.sources), "found": list(overlap.found)},
        "summary": {suite.name: summarise(suite, rows, tuple(replies), options.max_new_tokens) for suite in suites},
        "guard": {suite.name: suite_alarms(suite) for suite in suites},
        "items": rows,
    }
    write_json(folder.red_team, result)
    write_text(folder.red_team_sheet, render_sheet(result))
    return result


def converse(items: Sequence[Item], answer: Answer) -> Said:
    """Hold every conversation: the item's user turns with the model's own replies between them.

    Args:
        items: Whom to ask.
        answer: The model.
    """
    said: Said = [[] for _ in items]
    for turn in range(max((len(item.turns) for item in items), default=0)):
        active = [at for at, item in enumerate(items) if len(item.turns) > turn]
        replies = answer([_messages(items[at], said[at]) for at in active])
        for at, reply in zip(active, replies, strict=True):
            said[at].append(reply)
    return said


def verdict(item: Item, shown: Sequence[str], country: str | None, cut: bool = False) -> dict[str, Any]:
    """What the automatic flags say of a conversation.

    Args:
        item: Its expectations.
        shown: The replies as the user sees them.
        country: As for `flags.raised`.
        cut: Whether the last reply was.

    Returns:
        `flags` of the last reply with their words; `missing`, expected flags that it lacks; `forbidden`, flags that any reply raises and
        none may; `failed`, either of them; `failed_by_cut`, failed for nothing but what a reply that was cut may have had to come. For
        public suites, which expect nothing, `failed` is None.
    """
    every = [raised(reply, country) for reply in shown]
    missing = [flag for flag in item.expect if flag not in every[-1]]
    forbidden = [flag for flag in item.forbid if any(flag in flags for flags in every)]
    failed = bool(missing or forbidden) if item.suite == "red_team" else None
    return {
        "flags": {name: list(words) for name, words in every[-1].items()},
        "missing": missing,
        "forbidden": forbidden,
        "failed": failed,
        "failed_by_cut": bool(failed and cut and not forbidden),
    }


def _row(item: Item, replies: dict[str, list[Generated]], country: str | None) -> dict[str, Any]:
    """What the JSON holds of an item; `judge` and `human` are filled in later where there is a verdict or a rating."""
    heard = [hear(item.turns[: at + 1], country) for at in range(len(item.turns))]
    systems = {}
    for system, said in replies.items():
        own, cut = [reply.text for reply in said], [reply.cut for reply in said]
        shown = [guarded(reply, one) for reply, one in zip(own, heard, strict=True)]
        systems[system] = {
            "replies": own,
            "cut": cut,
            "reply_sha256": replies_hash(own),
            "guard_off": verdict(item, own, country, cut[-1]),
            "guard_on": {"shown": shown, **verdict(item, shown, country, cut[-1] and not heard[-1].alone)},
            "judge": None,
            "human": None,
        }
    return {
        "suite": item.suite,
        "id": item.id,
        "category": item.category,
        "severity": item.severity,
        "risk": item.risk,
        "harmful": item.harmful,
        "turns": list(item.turns),
        "must": list(item.must),
        "must_not": list(item.must_not),
        "expect": list(item.expect),
        "forbid": list(item.forbid),
        "guard": {name: value if isinstance(value, str) else list(value) for name, value in heard[-1].risk._asdict().items()},
        "systems": systems,
    }


def _messages(item: Item, said: Sequence[Generated]) -> list[Message]:
    messages: list[Message] = []
    for turn, reply in zip(item.turns, said, strict=False):
        answer = reply.text or "..."  # an empty reply has no template
        messages += [{"role": "user", "content": turn}, {"role": "assistant", "content": answer}]
    return [*messages, {"role": "user", "content": item.turns[len(said)]}]


def _add_verdicts(items: Sequence[Item], rows: Sequence[dict[str, Any]], judge: Judge, journal: Journal) -> dict[str, Any]:
    """The judge's, of each system's replies to our own items; who judged, and when."""
    own = [(item, cell) for item, row in zip(items, rows, strict=True) if item.suite == "red_team" for cell in row["systems"].values()]
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("verdicts of the judge", total=len(own))
        prompts = [judge_prompt(item, cell["replies"]) for item, cell in own]
        verdicts = ask_judge(judge, journal, prompts, lambda: progress.advance(task))
    for (_, cell), given in zip(own, verdicts, strict=True):
        cell["judge"] = {"error": given.error} if given.content is None else given.content
    return judge_context(judge, verdicts)


def _add_ratings(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """People's, of each system's replies to our own items; the file gets the replies that it does not have."""
    own = {
        Reply(row["id"], system, cell["reply_sha256"]): cell
        for row in rows
        if row["suite"] == "red_team"
        for system, cell in row["systems"].items()
    }
    for reply, rating in update_ratings(path, list(own)).items():
        own[reply]["human"] = {name: rating.get(name) for name in ("rating", "rater", "note")}


def _no_overlap(items: Sequence[Item], finished: FinishedRun) -> Overlap:
    overlap = find_overlap(items, finished.config.data)
    own = [found for found in overlap.found if found.startswith("red_team/")]
    if own:
        raise WarmlineError(
            f"red-team prompt in the training data ({own[0]}{', ...' if own[1:] else ''}); take it out of the data and train again"
        )
    return overlap


def _same_base(other: FinishedRun, context: dict[str, Any]) -> dict[str, Any]:
    theirs = other.context()
    for key in ("base_model", "base_revision", "base_random_init_seed"):
        if theirs[key] != context[key]:
            raise WarmlineError(
                f"{other.folder.path}: its {key} is {theirs[key]}, this run's {context[key]}; --without-kl needs a run of the same base"
            )
    trained = any("safety" in source.objectives for source in enabled_sources(other.config.data))
    if other.config.loss.safety > 0 and trained:
        raise WarmlineError(
            f"{other.folder.path}: trained with the safety KL (weight above 0); --without-kl needs a run trained without it"
        )
    return theirs
