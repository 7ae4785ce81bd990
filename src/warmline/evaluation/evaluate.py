"""`warmline evaluate`: everything about a finished run that needs no judge, into `results/evaluation.json` and three pictures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from warmline.config import DataConfig
from warmline.conversation import SPLITS, Conversation, Objective, Split
from warmline.data.encoding import EncodedSource, encode_source
from warmline.evaluation import emotion, strategy
from warmline.evaluation.compared import answer_all
from warmline.evaluation.context import behind_earlier_turns, read_emotions
from warmline.evaluation.figures import draw_confusion, draw_reliability
from warmline.evaluation.finished import FinishedRun
from warmline.evaluation.heads import HeadPredictions, base_states, predict
from warmline.evaluation.language import reply_losses, score_language
from warmline.evaluation.leak import hide_replies
from warmline.evaluation.replies import draw_prompts, score_replies
from warmline.evaluation.rows import emotion_rows, strategy_rows
from warmline.lock import writes_run
from warmline.metrics.baselines import Fitted
from warmline.metrics.scores import METHOD
from warmline.model import REPLY_TOKENS
from warmline.model.backbone import Sampling
from warmline.runs import write_json
from warmline.sources import Source, data_checksums, enabled_sources, load_source

READ_FOR: dict[str, tuple[Objective, ...]] = {
    "empathetic_dialogues": ("lm",),
    "esconv": ("lm", "strategy"),
    "goemotions": ("emotion",),
    "safety": ("lm",),
}
"""What each source can be scored by, whatever the run trained on it."""

REPLY_SOURCES = ("empathetic_dialogues", "esconv")


class HeldOut(NamedTuple):
    """A run's sources as evaluation reads them.

    Attributes:
        data: The run's data settings, with GoEmotions' neutral rows, and with the safety set even where the run did without.
        sources: Those that are enabled, with all they can be scored by.
        conversations: By source name and split.
        encoded: By source name and split.
    """

    data: DataConfig
    sources: dict[str, Source]
    conversations: dict[str, dict[Split, tuple[Conversation, ...]]]
    encoded: dict[str, dict[Split, EncodedSource]]

    @classmethod
    def of(cls, finished: FinishedRun) -> "HeldOut":
        """Load and encode.

        Raises:
            WarmlineError: bad or missing files.
        """
        data = evaluation_data(finished.config.data)
        sources = {source.name: source._replace(objectives=READ_FOR[source.name]) for source in enabled_sources(data)}
        heads_need = [name for name in sources if set(READ_FOR[name]) & {"emotion", "strategy"}]
        conversations, encoded = {}, {}
        for name, source in sources.items():
            splits = SPLITS if name in heads_need else ("test",)
            conversations[name] = {split: load_source(source, split, data).conversations for split in splits}
            encoded[name] = {split: encode_source(source, split, data, finished.template) for split in splits}
        return cls(data, sources, conversations, encoded)


def evaluation_data(data: DataConfig) -> DataConfig:
    """The run's data settings with what every evaluation needs: neutral rows for the 28-label protocol, and the safety set."""
    goemotions = data.sources.goemotions.model_copy(update={"labels": 28})
    safety = data.sources.safety.model_copy(update={"enabled": True})
    return data.model_copy(update={"sources": data.sources.model_copy(update={"goemotions": goemotions, "safety": safety})})


@writes_run("evaluate")
def evaluate(path: Path, replies: int = 50, baselines: bool = True, longest: int = REPLY_TOKENS) -> dict[str, Any]:
    """Score the saved artefact on the test splits; write `results/evaluation.json` and the pictures.

    Args:
        path: A finished run folder.
        replies: Held-out turns that base and tuned model answer; 0 for none.
        baselines: Fit what the heads must beat (the majority class always stands beside them).
        longest: Tokens of a reply at most.

    Returns:
        What was written; docs/evaluation.md explains each number.

    Raises:
        WarmlineError: an unfinished run, parts that do not belong together, missing data.
    """
    finished = FinishedRun.open(path)
    held = HeldOut.of(finished)
    heads = score_heads(finished, held, baselines)
    losses = {
        name: reply_losses(
            finished.model, held.encoded[name]["test"], held.conversations[name]["test"], finished.template, finished.place,
            finished.config.pass_tokens,
        )
        for name, source in held.sources.items() if "lm" in source.objectives
    }  # fmt: skip
    result = {
        "context": {
            **finished.context(),
            "data_sha256": data_checksums(held.data),
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
    """Both heads in their protocols, each beside the majority class and, if asked for, the fitted baselines."""
    found: dict[str, Any] = {"emotion": None, "strategy": None}
    absent = {}
    if "goemotions" in held.sources:
        found["emotion"] = _emotion(finished, held, baselines)
    else:
        absent["emotion"] = "goemotions is not enabled in this run"
    if "esconv" in held.sources:
        found["strategy"] = _strategy(finished, held, baselines)
    else:
        absent["strategy"] = "esconv is not enabled in this run"
    return {**found, **({"absent": absent} if absent else {})}


def _emotion(finished: FinishedRun, held: HeldOut, baselines: bool) -> dict[str, Any]:
    encoded = held.encoded["goemotions"]
    rows = {split: emotion_rows(found) for split, found in held.conversations["goemotions"].items()}
    said = _said(finished, held, "goemotions")
    logits = {split: one.emotion_logits.double().numpy() for split, one in said.items()}
    _check_rows("goemotions", {split: (one.emotion_targets, rows[split].labels) for split, one in said.items()})
    single: dict[str, Fitted] = {}
    multi: dict[str, Fitted] = {}
    if baselines:
        states = {
            split: base_states(finished.model, [encoded[split]], finished.place, finished.config.pass_tokens).emotion for split in SPLITS
        }
        for one, several in (emotion.text_baselines(rows, _checksums(held, "goemotions")), emotion.probe_baselines(rows, states)):
            single |= one
            multi |= several
    seed, in_context = finished.config.seed, None
    if dialogues := [one for name in REPLY_SOURCES if name in held.sources for one in held.conversations[name]["test"]]:
        in_context = read_emotions(finished.reader, behind_earlier_turns(rows["test"].texts, dialogues, seed))
    return {
        "single_label_27": emotion.score_single(rows, logits, single, seed, in_context),
        "multi_label_28": emotion.score_multi(rows, logits, multi, seed, in_context),
    }


def _strategy(finished: FinishedRun, held: HeldOut, baselines: bool) -> dict[str, Any]:
    encoded = held.encoded["esconv"]
    rows = {split: strategy_rows(found) for split, found in held.conversations["esconv"].items()}
    said = _said(finished, held, "esconv")
    logits = {split: one.strategy_logits.double().numpy() for split, one in said.items()}
    _check_rows("esconv", {split: (one.strategy_targets, rows[split].targets) for split, one in said.items()})
    own = said["test"].strategy_by_own_choices.double().numpy() if finished.model.heads.strategy.sees_earlier else None
    fitted = {}
    if baselines:
        states = {
            split: base_states(finished.model, [encoded[split]], finished.place, finished.config.pass_tokens).strategy for split in SPLITS
        }
        fitted = {**strategy.text_baselines(rows, _checksums(held, "esconv")), **strategy.probe_baselines(rows, states)}
    scores = strategy.score_strategy(rows, logits, fitted, finished.config.seed, own)
    hidden = hide_replies(
        finished.model, encoded["test"], logits["test"], finished.place, finished.config.pass_tokens, finished.config.seed
    )
    scores["hidden_reply"] = hidden._asdict()
    warning = hidden.warning()
    if warning is not None:
        scores["leak_warnings"].append(warning)
    return scores


def _said(finished: FinishedRun, held: HeldOut, source: str) -> dict[Split, HeadPredictions]:
    """What the heads say on valid and test."""
    splits: tuple[Split, ...] = ("valid", "test")
    return {split: predict(finished.model, [held.encoded[source][split]], finished.place, finished.config.pass_tokens) for split in splits}


def _check_rows(source: str, pairs: Mapping[Split, tuple[Any, Any]]) -> None:
    """Refuse when the rows of the loaded data are not those of the encoded ones.

    Raises:
        RuntimeError: they differ.
    """
    for split, (encoded, loaded) in pairs.items():
        if not np.array_equal(encoded.numpy().astype(loaded.dtype), loaded):
            raise RuntimeError(f"{source}, {split}: encoded targets and loaded rows differ")


def _replies(finished: FinishedRun, held: HeldOut, number: int, longest: int) -> dict[str, Any]:
    conversations = {name: held.conversations[name]["test"] for name in REPLY_SOURCES if name in held.sources}
    prompts = draw_prompts(conversations, number, finished.config.seed)
    if not prompts:
        reason = "no reply was asked for" if not number else "neither empathetic_dialogues nor esconv is enabled in this run"
        return {"replies": None, "absent": {"replies": reason}}
    sampling = Sampling(longest, temperature=0)  # the likeliest token each time: what differs is the model, not the draw
    asked = [prompt.messages for prompt in prompts]
    base, tuned = (answer_all(finished.companion, asked, sampling, base) for base in (True, False))
    rows = {split: strategy_rows(found) for split, found in held.conversations["esconv"].items()} if "esconv" in held.sources else None
    return {"replies": score_replies(prompts, base, tuned, sampling, rows, finished.config.seed)}


def _checksums(held: HeldOut, source: str) -> dict[str, str]:
    return {file: digest for file, digest in data_checksums(held.data).items() if file.startswith(f"{source}/")}


def _draw(finished: FinishedRun, heads: dict[str, Any]) -> None:
    run, name = finished.folder, finished.config.name
    calibrations = {}
    if heads["emotion"] is not None:
        single, multi = heads["emotion"]["single_label_27"], heads["emotion"]["multi_label_28"]
        draw_confusion(run.confusion_emotion, single, f"{name}: emotion, 27-way, {single['n']:,} test rows")
        found = single["calibration"] or multi["calibration"]
        calibrations["emotion, 27-way" if single["calibration"] else "emotion, 28 labels, all (row, label) pairs"] = found
    if heads["strategy"] is not None:
        scores = heads["strategy"]
        draw_confusion(run.confusion_strategy, scores, f"{name}: strategy, {scores['n']:,} test turns")
        calibrations["strategy"] = scores["calibration"]
    if calibrations:
        draw_reliability(run.reliability, calibrations)
