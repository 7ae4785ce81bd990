"""A run's arithmetic before it starts: the mixture, the steps, the memory, and what will be written."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from warmline.config import RunConfig
from warmline.data.encoding import EncodedSource, encode_split
from warmline.data.mixture import MixtureSampler, sample_probabilities
from warmline.data.packing import RowPacker
from warmline.data.template import ChatTemplate
from warmline.errors import WarmlineError
from warmline.model.base import holds_4bit, load_architecture, load_tokenizer
from warmline.model.choose import Backend, Choice, choose_backend
from warmline.model.device import Place, choose_place
from warmline.model.fast.decoder import Checkpointing
from warmline.model.transformers_backbone import refuse_targets
from warmline.training.memory import (
    choose_checkpointing,
    choose_sharding,
    estimate_memory,
    plain_fits,
    read_architecture,
    trainable_parameters,
)

MOST_ON_CPU = 2e9
"""Parameters of the largest base that is trained on a CPU."""

MANY_PASSES = 4
"""More passes over a source than this are warned of. A run that went through ESConv nearly eight times had its lowest strategy loss on
validation half way, and two passes were better (docs/study.md)."""


@dataclass(frozen=True)
class Plan:
    """What will happen, counted rather than guessed: the draws and rows are those of the run itself.

    Attributes:
        sources: Names, in the mixture's order.
        conversations: Training conversations of each source; of one that was longer than a row, its parts.
        split_conversations: How many were longer than a row and were split between turns.
        probabilities: p_i = n_i^alpha / sum n_j^alpha, until a source reaches `data.max_passes`.
        draws: Conversations that will be seen, repeats included.
        steps: Optimiser steps.
        ends_by: The key that ends the run; `data.max_passes` where every source has reached it before `training.epochs` is over.
        rows_per_step: Packed rows in one optimiser step, over all ranks.
        row_tokens: Capacity of a row.
        tokens: Real tokens that will be seen.
        fill: Share of the rows' capacity that is real tokens.
        realised: Share of each source among the draws.
        passes: How often each source is passed: its draws / its conversations.
        leaves_after: The step that has the last of a source which reaches `data.max_passes`; null for one that stays in the mixture.
        targets: Targets of each objective over the run.
        target_shares: Share of each source among the targets of each objective; 0 where there are none.
        parameters: Of the base model.
        trainable: Of adapter (or model) and heads.
        backend: Library that runs the model.
        backend_reason: Why this one.
        checkpointing: What each layer keeps for its backward pass; the rest is computed again.
        memory_gib: Estimated peak, by part.
    """

    sources: list[str]
    conversations: list[int]
    split_conversations: list[int]
    probabilities: list[float]
    draws: int
    steps: int
    ends_by: Literal["training.epochs", "training.max_steps", "data.max_passes"]
    rows_per_step: int
    row_tokens: int
    tokens: int
    fill: float
    realised: list[float]
    passes: list[float]
    leaves_after: list[int | None]
    targets: dict[str, int]
    target_shares: dict[str, list[float]]
    parameters: int
    trainable: int
    backend: Backend
    backend_reason: str
    checkpointing: Checkpointing
    memory_gib: dict[str, float]

    def as_json(self) -> dict[str, Any]:
        """Plain data, for `plan.json`."""
        return asdict(self)


def make_packer(config: RunConfig, sources: list[EncodedSource]) -> RowPacker:
    """The run's stream of rows, from its beginning.

    Raises:
        WarmlineError: `data.max_passes` leaves nothing of a source.
    """
    most = config.data.max_passes
    for source in sources:
        if most is not None and most * len(source) < 1:
            raise WarmlineError(
                f"data.max_passes: {most:g} times the {len(source)} conversations of {source.name} is less than one; raise it, or disable "
                "the source"
            )
    sampler = MixtureSampler([len(source) for source in sources], config.data.alpha, config.seed, most)
    return RowPacker(sources, sampler, config.data.row_tokens, config.data.lookahead)


class Way(NamedTuple):
    """How the model will be run: by which backend and why, what its layers keep, and whether they are spread over the ranks."""

    choice: Choice
    checkpointing: Checkpointing
    sharded: bool = False


def choose_way(config: RunConfig, place: Place, ranks: int = 1) -> Way:
    """What `model.backend`, `model.checkpointing` and `training.sharding` come to on this machine.

    Args:
        config: Of the run.
        place: Device and precision.
        ranks: Processes that train together.

    Raises:
        WarmlineError: the base model's configuration cannot be found, or what is asked for is not in it or cannot run here.
    """
    architecture = load_architecture(config.model)
    holds_4bit(config.model, architecture)
    if config.lora is not None:
        refuse_targets(config.lora, list(dict.fromkeys(name for name, *_ in read_architecture(architecture).adapted)))
    half = config.model.load_in_4bit or place.dtype != torch.float32
    if choose_sharding(config, half, place.device, ranks):
        keeps: Checkpointing = "none" if config.model.checkpointing == "none" else "full"
        return Way(Choice("transformers", "layers are spread over the GPUs"), keeps, sharded=True)
    choice = choose_backend(config, architecture, place.device, place.dtype, lambda: plain_fits(config, half, place.device))
    return Way(choice, choose_checkpointing(config, half, place.device, backend=choice.backend))


def refuse_hopeless(config: RunConfig, place: Place) -> None:
    """Say at once that a CPU is not the place for this base.

    Raises:
        WarmlineError: more than MOST_ON_CPU parameters and no CUDA GPU.
    """
    if place.device.type != "cpu":
        return
    parameters = read_architecture(load_architecture(config.model)).parameters
    if parameters > MOST_ON_CPU:
        raise WarmlineError(
            f"model.name: `{config.model.name}` has {parameters / 1e9:.1f} billion parameters and there is no CUDA GPU here: training it "
            "would take weeks; run it on a machine with one, or take configs/nano.yaml"
        )


def make_plan(config: RunConfig, sources: list[EncodedSource], ranks: int, half_precision: bool, way: Way) -> Plan:
    """Count the run by drawing and packing it once without a model.

    Args:
        config: Of the run.
        sources: Encoded training data.
        ranks: Processes that train together.
        half_precision: Whether base weights take 2 bytes or 4.
        way: As `choose_way` says.

    Raises:
        WarmlineError: `data.max_passes` leaves nothing of a source, or less than a step of them all.
    """
    rows_per_step = config.training.rows_per_micro_batch * config.training.accumulation * ranks
    packer = make_packer(config, sources)
    steps, ends_by, times, last_seen = _drawn(config, sources, packer, rows_per_step)
    drawn = [int(own.sum()) for own in times]
    tokens = sum(int(own @ source.lengths) for own, source in zip(times, sources, strict=True))
    counts = [source.target_counts() for source in sources]
    targets = {name: [int(own @ count[name]) for own, count in zip(times, counts, strict=True)] for name in config.objectives}
    architecture = read_architecture(load_architecture(config.model))
    memory = estimate_memory(config, architecture, half_precision, way.checkpointing, shards=ranks if way.sharded else 1)
    return Plan(
        sources=[source.name for source in sources],
        conversations=[len(source) for source in sources],
        split_conversations=[source.split_conversations for source in sources],
        probabilities=sample_probabilities([len(source) for source in sources], config.data.alpha).tolist(),
        draws=sum(drawn),
        steps=steps,
        ends_by=ends_by,
        rows_per_step=rows_per_step,
        row_tokens=config.data.row_tokens,
        tokens=tokens,
        fill=tokens / (steps * rows_per_step * config.data.row_tokens),
        realised=[number / sum(drawn) for number in drawn],
        passes=[number / len(source) for number, source in zip(drawn, sources, strict=True)],
        leaves_after=[step if capped else None for step, capped in zip(last_seen, packer.sampler.capped, strict=True)],
        targets={name: sum(numbers) for name, numbers in targets.items()},
        target_shares={name: [number / (sum(numbers) or 1) for number in numbers] for name, numbers in targets.items()},
        parameters=architecture.parameters,
        trainable=trainable_parameters(config, architecture),
        backend=way.choice.backend,
        backend_reason=way.choice.reason,
        checkpointing=way.checkpointing,
        memory_gib=memory,
    )


class _Drawn(NamedTuple):
    """The draws of a run.

    Attributes:
        steps: That they make.
        ends_by: The key that ends them.
        times: How often each conversation comes, [conversations] of each source.
        last_seen: The last step of each source.
    """

    steps: int
    ends_by: Literal["training.epochs", "training.max_steps", "data.max_passes"]
    times: list[npt.NDArray[np.int64]]
    last_seen: list[int]


def _drawn(config: RunConfig, sources: list[EncodedSource], packer: RowPacker, rows_per_step: int) -> _Drawn:
    wanted = round(config.training.epochs * sum(len(source) for source in sources))
    times = [np.zeros(len(source), np.int64) for source in sources]
    last_seen = [0] * len(sources)
    steps = draws = 0
    while True:
        rows = [packer.row() for _ in range(rows_per_step)]
        if not all(rows):  # what is left would not give every rank a row
            if not steps:
                raise WarmlineError(
                    f"data.max_passes: {config.data.max_passes:g} passes fill less than one step of {rows_per_step} rows; raise it, or "
                    "lower training.accumulation"
                )
            return _Drawn(steps, "data.max_passes", times, last_seen)
        steps += 1
        for draw in (draw for row in rows for draw in row):
            times[draw.source][draw.conversation] += 1
            last_seen[draw.source] = steps
        draws += sum(map(len, rows))
        if steps == config.training.max_steps:
            return _Drawn(steps, "training.max_steps", times, last_seen)
        if draws >= wanted:
            return _Drawn(steps, "training.epochs", times, last_seen)


def plan_run(config: RunConfig, ranks: int = 1) -> Plan:
    """The plan of a configuration on this machine.

    Args:
        config: Of the run.
        ranks: Processes that will train together.

    Raises:
        WarmlineError: the base model's tokenizer or configuration cannot be found, bad or missing data.
    """
    template = ChatTemplate(load_tokenizer(config.model), config.model.template, config.data.system_prompt)
    place = choose_place(config.training)
    half = config.model.load_in_4bit or place.dtype != torch.float32
    way = choose_way(config, place, ranks)
    return make_plan(config, encode_split("train", config.data, template), ranks, half, way)
