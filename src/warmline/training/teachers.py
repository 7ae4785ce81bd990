"""What earlier runs say of the training rows, mixed into the heads' targets.

A label is a few annotators' word on a matter of degree. The mean opinion of some runs that differ in their seeds is a softer target, and
a head learns more from both than from the label alone (Hinton et al. 2015, arXiv 1503.02531; with teachers no larger than the student,
Furlanello et al. 2018, arXiv 1805.04770). Opinions are computed once for each teacher and source, and kept in the cache.
"""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from warmline.cache import cache_file, keep
from warmline.config import RunConfig, load_config
from warmline.data.encoding import EncodedSource, encode_source
from warmline.tasks.emotion import EMOTIONS, EMOTIONS_AND_NEUTRAL
from warmline.data.mixture import Draw
from warmline.data.packing import Batch, all_draws, collate, sequential_rows
from warmline.errors import WarmlineError
from warmline.model.artifacts import load_artifact
from warmline.model.description import read_description
from warmline.model.device import Place
from warmline.model.multitask import MultiTaskModel
from warmline.runs import RunFolder, read_manifest
from warmline.data.enabled import data_checksums, enabled_sources

Head = Literal["emotion", "strategy"]
HEADS: tuple[Head, ...] = ("emotion", "strategy")


class Teachers:
    """The opinions of a run's teachers on its training data.

    Args:
        config: Of the run that learns.
        sources: Its training data.
        where: Device and precision of the teachers.
        say: Shown what is under way.

    Raises:
        WarmlineError: a teacher does not fit; see `teachers_of`.
    """

    def __init__(self, config: RunConfig, sources: Sequence[EncodedSource], where: Place, say: Callable[[str], Any]) -> None:
        self._share = config.distill.share
        self._sources = list(sources)
        self._said: dict[Head, dict[int, Tensor]] = {}
        for head, teachers in teachers_of(config).items():
            labelled = {at: source for at, source in enumerate(self._sources) if len(getattr(source, head))}
            opinions = [_opinions(teacher, head, config, list(labelled.values()), where, say) for teacher in teachers]
            if head == "emotion" and config.data.sources.goemotions.labels == len(EMOTIONS):
                opinions = [[_of_emotions(one) for one in of_teacher] for of_teacher in opinions]
            means = [torch.from_numpy(np.mean(of_source, axis=0)) for of_source in zip(*opinions, strict=True)]
            if means:
                self._said[head] = dict(zip(labelled, means, strict=True))

    def mix(self, batch: Batch) -> Batch:
        """The batch with opinions in its targets; as it is where nobody teaches. On the CPU."""
        soft: dict[str, Any] = {f"{head}_targets": self._mixed(head, batch) for head in self._said}
        return replace(batch, **soft) if soft else batch

    def _mixed(self, head: Head, batch: Batch) -> Tensor:
        labels: Tensor = getattr(batch, f"{head}_targets")
        said = self._said[head]
        nothing = next(iter(said.values()))[:0]
        taught = torch.cat([nothing, *(self._of(head, draw) for draw in batch.draws if draw.source in said)])
        classes = taught.shape[1]
        among = labels[:, :classes]
        if head == "emotion" and classes < labels.shape[1]:  # of 27 classes several labels share one target; of 28 each is its own
            among = among / among.sum(dim=1, keepdim=True)
        mixed = torch.zeros_like(labels)
        mixed[:, :classes] = (1 - self._share) * among + self._share * taught
        return mixed

    def _of(self, head: Head, draw: Draw) -> Tensor:
        """[labels of one conversation, classes]."""
        ends = getattr(self._sources[draw.source], f"{head}_ends")
        first = ends[draw.conversation - 1] if draw.conversation else 0
        return self._said[head][draw.source][first : ends[draw.conversation]]


def teachers_of(config: RunConfig) -> dict[Head, list[Path]]:
    """Which teachers each head has. Looks at their descriptions alone.

    Raises:
        WarmlineError: a teacher is unfinished, has learned fewer labels, was trained on other files of the same source (what is held out
            here may be among them), was trained on no head that this run trains, or stands twice in the list.
    """
    found: dict[Head, list[Path]] = {}
    own_heads = _trained_heads(config)
    checksums = data_checksums(config.data) if config.distill.teachers else {}
    for path in config.distill.teachers:
        try:
            run = RunFolder.open(path)
        except WarmlineError as error:
            raise WarmlineError(f"distill.teachers: {error}, or take it off the list") from None
        if config.distill.teachers.count(path) > 1:
            raise WarmlineError(f"distill.teachers: {path} stands twice; name it once")
        own = load_config(run.config)
        heads = _trained_heads(own)
        if not heads:
            raise WarmlineError(f"distill.teachers: {path} trained neither head; take it off the list")
        if not set(heads) & set(own_heads):
            raise WarmlineError(
                f"distill.teachers: {path} trained the {heads[0]} head alone, which this run does not; take it off the list"
            )
        mine, others = config.data.sources.goemotions.labels, own.data.sources.goemotions.labels
        if "emotion" in heads and mine > others:
            raise WarmlineError(f"distill.teachers: {path} has {others} emotion labels, this run {mine}; name one with as many")
        theirs = read_manifest(run)["data_sha256"]
        changed = sorted(file for file in checksums.keys() & theirs.keys() if checksums[file] != theirs[file])
        if changed:
            raise WarmlineError(f"distill.teachers: {path} was trained on another {changed[0]}, which may hold what this run is tested on")
        for head in heads:
            found.setdefault(head, []).append(path)
    return found


def _trained_heads(config: RunConfig) -> list[Head]:
    taught = {objective for source in enabled_sources(config.data) for objective in source.objectives}
    return [head for head in HEADS if head in taught and getattr(config.loss, head) > 0]


def teacher_hashes(config: RunConfig) -> dict[str, str]:
    """sha256 of each teacher's heads, by its folder, for the manifest."""
    return {str(path): read_description(RunFolder(path))["heads_sha256"] for path in config.distill.teachers}


def _opinions(
    path: Path, head: Head, config: RunConfig, sources: Sequence[EncodedSource], place: Place, say: Callable[[str], Any]
) -> list[np.ndarray]:
    """One teacher's probabilities for each label of each source that has some, [labels, classes] in fp32."""
    run = RunFolder(path)
    description = read_description(run)
    files = [_file(head, description, source) for source in sources]
    kept = [one for file in files if (one := _read(file)) is not None]
    if len(kept) == len(files):
        return kept
    say(f"asking the teacher {path} about the {head} of the training rows")
    found = _ask(run, head, config, sources, place)
    for file, one in zip(files, found, strict=True):
        keep(file, partial(np.save, arr=one))
    return found


def _of_emotions(said: np.ndarray) -> np.ndarray:
    """A teacher of 28 labels' probabilities, [labels, 28], as shares of the 27 emotions; another's as they are."""
    emotions: np.ndarray = said[:, : len(EMOTIONS)]
    shares: np.ndarray = emotions / emotions.sum(axis=1, keepdims=True)
    return shares


def _ask(run: RunFolder, head: Head, config: RunConfig, sources: Sequence[EncodedSource], place: Place) -> list[np.ndarray]:
    """Load the teacher, which reads the conversations in its own template."""
    _, model, template = load_artifact(run, place.device, place.dtype, bidirectional=True)
    said = []
    by_name = {source.name: source for source in enabled_sources(config.data)}
    for encoded in sources:
        own = encode_source(by_name[encoded.name], "train", config.data, template)
        logits, labels = head_logits(model, head, [own], all_draws([own]), place, config.pass_tokens)[0], len(getattr(encoded, head))
        if len(logits) != labels:
            raise WarmlineError(f"distill.teachers: {run.path} reads {len(logits)} labels of {encoded.name}, this run {labels}")
        answers = logits.sigmoid() if logits.shape[1] == len(EMOTIONS_AND_NEUTRAL) else logits.softmax(dim=1)
        said.append(answers.cpu().numpy())
    return said


@torch.no_grad()
def head_logits(
    model: MultiTaskModel, head: Head, sources: Sequence[EncodedSource], draws: Sequence[Draw], place: Place, pass_tokens: int
) -> tuple[Tensor, Tensor]:
    """What a head says of every label of some conversations, and the labels: [labels, classes] each, in order, where the model is.

    Args:
        model: In evaluation mode.
        head: Which.
        sources: Encoded split.
        draws: The conversations.
        place: Device and precision.
        pass_tokens: Tokens of a forward pass.
    """
    logits, targets = [], []
    for row in sequential_rows(sources, draws, pass_tokens):
        batch = collate(sources, [row]).to(model.backbone.device)
        with place.autocast():
            states = model.states(batch)
        logits.append(getattr(model.heads(states, batch), head).float())
        targets.append(getattr(batch, f"{head}_targets"))
    return torch.cat(logits), torch.cat(targets)


def _file(head: Head, description: dict[str, Any], source: EncodedSource) -> Path:
    digest = hashlib.sha256(f"{head} {description['weights_sha256']} {description['heads_sha256']}".encode())
    for array in (source.tokens, getattr(source, head)):
        digest.update(array.tobytes())
    return cache_file(f"opinions-{source.name}-{digest.hexdigest()[:24]}.npy")


def _read(path: Path) -> np.ndarray | None:
    with suppress(OSError, ValueError):
        found: np.ndarray = np.load(path)
        return found
    return None
