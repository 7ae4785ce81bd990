"""`warmline evaluate`: everything about a finished run that needs no judge, into `results/evaluation.json` and three pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from warmline.config import DataConfig
from warmline.conversation import SPLITS, Conversation, Split
from warmline.data.enabled import EnabledSource, data_checksums, enabled_sources
from warmline.data.encoding import EncodedSource, encode_source
from warmline.evaluation.finished import FinishedRun
from warmline.evaluation.heads import behind_earlier_turns, hide_replies, read_last_turns
from warmline.evaluation.language import reply_losses, score_language
from warmline.evaluation.qualitative import PROMPTS_PER_SOURCE, make_replies
from warmline.evaluation.replies import ReplyJudge, score_replies
from warmline.evaluation.view import draw_confusion, draw_reliability
from warmline.lock import writes_run
from warmline.metrics.scores import METHOD
from warmline.metrics.statistics import FloatArray
from warmline.model import REPLY_TOKENS
from warmline.model.backbone import Sampling
from warmline.model.reader import Readings
from warmline.runs import write_json
from warmline.sources import SOURCES
from warmline.tasks.task import Evidence, HeadTask, label_rows


class HeldOut(NamedTuple):
    """A run's sources as evaluation reads them.

    Attributes:
        data: The run's data settings, each source's as its `for_evaluation` says.
        sources: Those that are enabled, with all they can be scored by.
        conversations: By source name and split.
        encoded: By source name and split.
        checksums: sha256 of every file, by `source/file`.
    """

    data: DataConfig
    sources: dict[str, EnabledSource]
    conversations: dict[str, dict[Split, tuple[Conversation, ...]]]
    encoded: dict[str, dict[Split, EncodedSource]]
    checksums: dict[str, str]

    @classmethod
    def of(cls, finished: FinishedRun) -> "HeldOut":
        """Load and encode.

        Raises:
            WarmlineError: bad or missing files.
        """
        data, heads = evaluation_data(finished.config.data), {task.name for task in finished.config.tasks}
        scored = {"lm", *heads}  # whatever the run trained on it
        sources = {
            one.name: one._replace(
                objectives=tuple(name for name in one.source.carries if name in scored),
                own_words=one.own_words if one.source.unanswered else None,  # heads are scored behind people's replies, on every split
            )
            for one in enabled_sources(data)
        }
        conversations, encoded = {}, {}
        for name, source in sources.items():
            splits = SPLITS if heads & set(source.objectives) else ("test",)
            conversations[name] = {split: source.load(split).conversations for split in splits}
            encoded[name] = {split: encode_source(source, split, data, finished.template) for split in splits}
        return cls(data, sources, conversations, encoded, data_checksums(data))

    @property
    def dialogues(self) -> dict[str, tuple[Conversation, ...]]:
        """Test conversations with replies of people, by source; those of the safety set were written to be kept to."""
        people = {name: one for name, one in self.sources.items() if one.source.of_people and "safety" not in one.source.carries}
        told = [name for name, one in people.items() if "lm" in one.objectives]
        return {name: self.conversations[name]["test"] for name in told}

    def carrier(self, head: str) -> str | None:
        """Name of the source with the head's labels; None where it is not enabled."""
        return next((name for name, one in self.sources.items() if head in one.objectives), None)


def evaluation_data(data: DataConfig) -> DataConfig:
    """The run's data settings with what every evaluation needs, such as neutral rows for the 28-label protocol, and the safety set."""
    wanted = {name: source.for_evaluation(data.sources[name]) for name, source in SOURCES.items()}
    return data.model_copy(update={"sources": data.sources.model_copy(update=wanted)})


@writes_run("evaluate")
def evaluate(
    path: Path, replies: int = PROMPTS_PER_SOURCE, baselines: bool = True, longest: int = REPLY_TOKENS, strength: float = 1.0
) -> dict[str, Any]:
    """Score the saved artefact on the test splits; write `results/evaluation.json` and the pictures.

    Args:
        path: A finished run folder.
        replies: Held-out prompts of each data set that base and tuned model answer; 0 for none.
        baselines: Fit what the heads must beat (the majority class always stands beside them).
        longest: Tokens of a reply at most.
        strength: Of the adapter, from 0 to 1; results at another than 1 lie in a folder of their own.

    Returns:
        What was written; docs/evaluation.md explains each number.

    Raises:
        WarmlineError: an unfinished run, parts that do not belong together, missing data.
    """
    finished = FinishedRun.open(path, strength)
    held = HeldOut.of(finished)
    heads = score_heads(finished, held, baselines)
    losses = {
        name: reply_losses(finished.reader, held.encoded[name]["test"], held.conversations[name]["test"], finished.template)
        for name, source in held.sources.items()
        if "lm" in source.objectives
    }
    result = {
        "context": {
            **finished.context(),
            "data_sha256": held.checksums,
            "split": "test",
            "intervals": METHOD,
            "loss_weights": finished.config.loss.model_dump(),
        },
        "heads": heads,
        "language": score_language(losses, finished.config.seed),
        **_replies(finished, held, replies, longest),
    }
    write_json(finished.folder.evaluation, result)
    _draw(finished, heads)
    return result


def score_heads(finished: FinishedRun, held: HeldOut, baselines: bool = True) -> dict[str, Any]:
    """Every head in its protocols, beside the majority class and, if asked for, the fitted baselines."""
    found: dict[str, Any] = {}
    absent = {}
    for task in finished.config.tasks:
        source = held.carrier(task.name)
        if source is None:
            carriers = " or ".join(name for name, one in SOURCES.items() if task.name in one.carries)
            found[task.name], absent[task.name] = None, f"{carriers} is not enabled in this run"
        else:
            found[task.name] = task.score(_evidence(finished, held, task, source, baselines))
    return {**found, **({"absent": absent} if absent else {})}


def _evidence(finished: FinishedRun, held: HeldOut, task: HeadTask, source: str, baselines: bool) -> Evidence:
    reader, encoded, conversations = finished.reader, held.encoded[source], held.conversations[source]
    tested: tuple[Split, ...] = ("valid", "test")
    said = {split: reader.read(task.name, [encoded[split]]) for split in tested}
    for split, one in said.items():
        if not np.array_equal(one.labels, label_rows(task, conversations[split]).labels):
            raise RuntimeError(f"{source}, {split}: encoded labels and loaded rows differ")
    inputs = None
    if baselines:
        with finished.model.backbone.reference():
            inputs = {split: reader.read(task.name, [encoded[split]]).inputs for split in SPLITS}
    return Evidence(
        conversations,
        {split: one.logits for split, one in said.items()},
        inputs,
        _served(finished, held, task, conversations["test"], said["test"]),
        None if task.reads == "user" else hide_replies(reader, task.name, encoded["test"], said["test"].logits, finished.config.seed),
        {
            **{file: digest for file, digest in held.checksums.items() if file.startswith(f"{source}/")},
            "version": str(SOURCES[source].version),
            "labels": " ".join(task.labels),
        },
        finished.config.seed,
    )


def _served(finished: FinishedRun, held: HeldOut, task: HeadTask, test: Sequence[Conversation], said: Readings) -> FloatArray | None:
    """A head's logits on test as when serving, where that is something else."""
    if task.alone:
        dialogues = [one for of_source in held.dialogues.values() for one in of_source]
        texts = label_rows(task, test).texts
        talks = behind_earlier_turns(texts, dialogues, finished.config.seed) if dialogues else None
        return None if talks is None else read_last_turns(finished.prompt_reader, task.name, talks)
    return said.own_choices if finished.model.heads[task.name].sees_earlier else None


def _replies(finished: FinishedRun, held: HeldOut, number: int, longest: int) -> dict[str, Any]:
    if not number:
        return {"replies": None, "absent": {"replies": "no reply was asked for"}}
    sampling = Sampling(longest, temperature=0)  # the likeliest token each time: what differs is the model, not the draw
    made = make_replies(finished, number, sampling) if held.dialogues else []
    records = [one for one in made if one["source"] in held.dialogues]
    if not records:
        return {"replies": None, "absent": {"replies": "no enabled source has a test dialogue in which a reply follows a user's turn"}}
    judges: dict[str, ReplyJudge | None] = {}
    for task in finished.config.tasks:
        if task.reads == "assistant":
            source = held.carrier(task.name)
            judges[task.name] = None if source is None else ReplyJudge.fit(task, held.conversations[source])
    return {"replies": score_replies(records, sampling, judges, finished.config.seed)}


def _draw(finished: FinishedRun, heads: dict[str, Any]) -> None:
    run, name = finished.folder, finished.config.name
    calibrations: dict[str, Any] = {}
    for task in finished.config.tasks:
        if heads[task.name] is None:
            continue
        protocols = task.protocols(heads[task.name])
        title, lead = next(iter(protocols.items()))
        draw_confusion(run.confusion(task.name), lead, f"{name}: {title}, {lead['n']:,} test rows")
        calibrated = {told: scores["calibration"] for told, scores in protocols.items() if scores.get("calibration")}
        calibrations |= dict([next(iter(calibrated.items()))] if calibrated else [])
    if calibrations:
        draw_reliability(run.reliability, calibrations)
