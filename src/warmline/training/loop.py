"""The training loop on Accelerate: one gradient forward a micro-batch, whole-step denominators, exact resume."""

import json
import math
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration
from torch import nn

from warmline.config import RunConfig, differing_keys, dump_config, load_config
from warmline.data.encoding import encode_split
from warmline.data.packing import Row, collate, count_targets, tally
from warmline.data.template import ChatTemplate
from warmline.errors import WarmlineError
from warmline.lock import LOCK, hold
from warmline.model.artifacts import build_model, save_artifact
from warmline.model.base import load_tokenizer
from warmline.model.device import Place, choose_place
from warmline.model.losses import weighted_loss
from warmline.model.multitask import MultiTaskModel, count_weights
from warmline.model.reader import BaseStates, without_unlikely
from warmline.runs import RunFolder, append_text, disk_errors, read_manifest, write_json, write_text
from warmline.training.checkpoint import (
    Progress,
    collect_state,
    restore_checkpoint,
    restore_weights,
    save_checkpoint,
    verify_checkpoint,
)
from warmline.training.curves import draw_curves, keep_metrics
from warmline.training.manifest import make_manifest, record_base, record_resumption, refuse_changes
from warmline.training.memory import what_would_fit
from warmline.training.optimizer import Optimizer, rate_factor
from warmline.training.plan import Way, choose_way, make_packer, make_plan, refuse_hopeless
from warmline.training.selfcheck import self_check
from warmline.training.sharding import average_over_ranks, gathered, shard
from warmline.training.validation import Validator
from warmline.training.view import View


def train(config: RunConfig, resume: bool = False, overwrite: bool = False, view: View | None = None, checked: bool = False) -> RunFolder:
    """Train a run from its configuration to its saved artefact.

    Args:
        config: Everything.
        resume: Go on from the newest checkpoint in the run folder.
        overwrite: Remove a run folder of that name first.
        view: What a person sees; None prints to the terminal.
        checked: A run of the same model and data has passed the self-check, so that it need not be made again.

    Returns:
        The finished run folder.

    Raises:
        WarmlineError: bad data, a failed self-check, a folder that exists or cannot be written, lost numbers (NaN), too little memory.
    """
    place = choose_place(config.training)
    _check_trackers(config)
    accelerator = Accelerator(  # precision is ours: place.autocast() and a loss scaler, the same outside the loop
        mixed_precision="no",
        cpu=place.device.type == "cpu",
        log_with=list(config.trackers) or None,
        project_dir=str(config.output_dir / config.name),
        dataloader_config=DataLoaderConfiguration(),
    )
    place = place._replace(device=accelerator.device)
    refuse_hopeless(config, place)
    run = RunFolder(config.output_dir / config.name)
    way = choose_way(_with_backend_of(run, config) if resume else config, place, accelerator.num_processes)
    view = view or View(quiet=not accelerator.is_main_process)
    now = make_manifest(config, place, accelerator.num_processes, way.choice)
    if accelerator.is_main_process:
        run.create()
    accelerator.wait_for_everyone()
    with hold(run.path, "train"):
        if accelerator.is_main_process:
            _claim(run, config, now, resume, overwrite)
        accelerator.wait_for_everyone()
        try:
            return _Training(config, run, accelerator, place, way, now, view, checked).finish()
        except torch.OutOfMemoryError:
            raise WarmlineError(f"out of GPU memory; {what_would_fit(config, place.dtype != torch.float32, place.device)}") from None
        finally:
            view.close()
            if config.trackers:
                accelerator.end_training()


class StepResult(NamedTuple):
    """What one optimiser step gave: sums over all ranks, and the gradient's norm before clipping, None where fp16 overflowed."""

    sums: dict[str, float]
    counts: dict[str, int]
    grad_norm: float | None


class _Training:
    """A run in progress. Everything that changes lies in `progress`, the model, the optimiser and the packer."""

    def __init__(
        self,
        config: RunConfig,
        run: RunFolder,
        accelerator: Accelerator,
        place: Place,
        way: Way,
        now: dict[str, Any],
        view: View,
        checked: bool = False,
    ) -> None:
        self.config, self.run, self.accelerator, self.place, self.way, self.view = config, run, accelerator, place, way, view
        self.template = ChatTemplate(load_tokenizer(config.model), config.model.template, config.data.system_prompt)
        view.say("reading and encoding the data")
        with accelerator.main_process_first():
            self.sources = encode_split("train", config.data, self.template)
            self.held_out = encode_split("valid", config.data, self.template)
        self.counts = [source.target_counts() for source in self.sources]
        half = place.dtype != torch.float32
        self.plan = make_plan(config, self.sources, accelerator.num_processes, half, way)
        view.say(f"backend: {way.choice.backend} ({way.choice.reason})")
        view.say(f"loading {config.model.name} on {place.device} in {str(place.dtype).removeprefix('torch.')}")
        self.model = _build(config, way, place, accelerator.num_processes)
        self.model.class_weights = count_weights(
            self.model.heads, self.sources, {task.name: config.heads[task.name].class_weights for task in config.tasks}
        )
        self.optimizer = Optimizer(self.model, config.training)
        self.packer = make_packer(config, self.sources)
        if way.sharded and config.validation.replies:
            raise WarmlineError("validation.replies: a base that is spread over the cards cannot reply while it trains; set it to 0")
        self.validator = Validator(config, self.held_out, place, self.template)
        self.scaler = torch.amp.GradScaler(place.device.type, enabled=place.dtype == torch.float16)
        if accelerator.is_main_process:
            record_base(run, config.model)
        self.progress = self._start_or_resume(now)
        if self.progress.step < self.plan.steps and not checked:
            for line in self_check(self.model, self.sources, place):
                view.say(f"self-check: {line}")
        if config.training.mask_above is not None:
            self.sources = without_unlikely(
                self.model, self.sources, place, config.training.mask_above, self.template.layout.end_of_turn, config.pass_tokens
            )
            before, self.counts = _lm_targets(self.counts), [source.target_counts() for source in self.sources]
            view.say(f"{_lm_targets(self.counts):,} of {before:,} reply tokens are learned; the base finds the others too unlikely")
        self.base_states = BaseStates(self.model, self.sources, place)
        self.wrapped: nn.Module = self.model if way.sharded else accelerator.prepare_model(self.model, device_placement=False)

    def finish(self) -> RunFolder:
        """Train what is left, then write artefact and curves."""
        if self.accelerator.is_main_process:
            write_json(self.run.plan, self.plan.as_json())
        if self.config.trackers:
            self.accelerator.init_trackers("warmline", config={"name": self.config.name, "yaml": dump_config(self.config)})
        self.view.start(self.plan, self.progress.step)
        if self.progress.step == 0:
            self._validate()
        while self.progress.step < self.plan.steps and not self._stopped_early():
            self._one_step()
        self.accelerator.wait_for_everyone()
        kept = self.progress.best_step if self.config.validation.artifact == "best" else self.progress.step
        restore_weights(self.run, kept, self.model)
        with gathered(self.model):
            if self.accelerator.is_main_process:
                save_artifact(self.run, self.model, self.config, self.template, kept)
                draw_curves(self.run)
                self.view.done(self.run, self.progress.best_step, self._trained())
            self.accelerator.wait_for_everyone()
        return self.run

    def _start_or_resume(self, now: dict[str, Any]) -> Progress:
        steps = self.run.steps()
        if not steps:
            if self.accelerator.is_main_process:
                keep_metrics(self.run.metrics, upto=-1)
            return Progress(0, 0, [0] * len(self.sources), self.packer.state(), 0, float("inf"), 0, 0.0, {})
        progress = restore_checkpoint(self.run, steps[-1], self.model, self.optimizer)
        if self.config.validation.artifact == "best" and progress.best_step not in (0, progress.step):
            self._expect_best(progress)
        self.packer.restore(progress.packer)
        if progress.scaler:
            self.scaler.load_state_dict(progress.scaler)
        if self.accelerator.is_main_process:
            keep_metrics(self.run.metrics, upto=progress.step)
            if other := record_resumption(self.run, progress.step, now):
                self.view.say(f"not as the run began, so the last bits may differ: {', '.join(other)}")
        self.view.say(f"resuming after step {progress.step}")
        return progress

    def _expect_best(self, progress: Progress) -> None:
        """Check the checkpoint that the artefact may be made of now, and not after the last step."""
        if self.run.checkpoint(progress.best_step).is_dir():
            verify_checkpoint(self.run, progress.best_step)
            return
        self.view.say(f"the best checkpoint so far, step {progress.best_step}, is gone; the best of those to come will be taken")
        progress.best_step, progress.best_value = 0, float("inf")

    def _one_step(self) -> None:
        began = time.perf_counter()
        progress, config = self.progress, self.config.training
        rows = [self.packer.row() for _ in range(self.plan.rows_per_step)]
        factor = rate_factor(progress.step, self.plan.steps, config)
        self.optimizer.set_rate(factor)
        torch.manual_seed(dropout_seed(self.config.seed, progress.step, self.accelerator.process_index))
        result = self._accumulate(rows)
        progress.step += 1
        tokens = self._account(rows)
        seconds = time.perf_counter() - began
        progress.seconds += seconds
        self._record_step(result, factor * config.learning_rate, tokens, seconds)
        last = progress.step == self.plan.steps
        improved = False
        if last or progress.step % self.config.validation.every == 0:
            improved = self._validate()
        if improved or last or progress.step % self.config.checkpoint.every == 0 or self._stopped_early():
            self._checkpoint()

    def _accumulate(self, rows: list[Row]) -> StepResult:
        """Forward and backward over this rank's micro-batches, then one optimiser step."""
        denominators = count_targets(self.counts, rows)
        ranks, rank = self.accelerator.num_processes, self.accelerator.process_index
        micro_batches = list(_micro_batches(rows, self.config.training.rows_per_micro_batch, ranks, rank))
        sums = torch.zeros(len(self.config.objectives), device=self.place.device)
        for index, micro_rows in enumerate(micro_batches):
            synchronised = index == len(micro_batches) - 1
            batch = collate(self.sources, micro_rows).to(self.place.device)
            with nullcontext() if synchronised or self.way.sharded else self.accelerator.no_sync(self.wrapped):
                with self.place.autocast():
                    terms = self.wrapped(batch, self.base_states(batch))
                # DDP and FSDP average gradients over the ranks; the step's loss is their sum
                loss = weighted_loss(terms, self.config.loss, denominators) * ranks
                torch.autograd.backward(self.scaler.scale(loss))
            sums += torch.stack([term.sum.detach() for term in terms.values()])
        if self.way.sharded:
            average_over_ranks(list(self.model.heads.parameters()))
        self.optimizer.collect()
        self.scaler.unscale_(self.optimizer.inner)
        norm = self.optimizer.clip(self.config.training.max_grad_norm)
        self.optimizer.step(self.scaler)
        sums = self.accelerator.reduce(sums, "sum")
        values = dict(zip(self.config.objectives, sums.tolist(), strict=True))
        bad = [f"loss of {name}" for name, value in values.items() if not math.isfinite(value)]
        if not self.scaler.is_enabled() and not math.isfinite(norm):  # a scaled gradient may overflow: the step is left out
            bad.append("gradient")
        if bad:
            raise WarmlineError(
                f"step {self.progress.step + 1}: the {', '.join(bad)} is not a number; lower training.learning_rate or use another "
                "precision"
            )
        return StepResult(values, {name: denominators[name] for name in values}, float(norm) if math.isfinite(norm) else None)

    def _account(self, rows: list[Row]) -> int:
        drawn, tokens = tally(self.sources, rows)
        self.progress.drawn = [before + number for before, number in zip(self.progress.drawn, drawn, strict=True)]
        self.progress.tokens += tokens
        return tokens

    def _record_step(self, result: StepResult, rate: float, tokens: int, seconds: float) -> None:
        raw = {name: result.sums[name] / count if count else None for name, count in result.counts.items()}
        weighted = {name: self.config.loss[name] * value for name, value in raw.items() if value is not None}
        drawn = self.progress.drawn
        self._record(
            {
                "kind": "train",
                "step": self.progress.step,
                "loss": sum(weighted.values()),
                **{str(name): value for name, value in raw.items()},
                "weighted": weighted,
                "counts": result.counts,
                "shares": dict(zip(self.plan.sources, (number / sum(drawn) for number in drawn), strict=True)),
                "learning_rate": rate,
                "grad_norm": result.grad_norm,
                "tokens": tokens,
                "fill": tokens / (self.plan.rows_per_step * self.plan.row_tokens),
                "seconds": seconds,
                "tokens_per_second": tokens / seconds,
            }
        )

    def _validate(self) -> bool:
        """Score the validation sets; True when this is the best so far."""
        scores = self.validator(self.model, self.accelerator)
        value = self.validator.value(scores)
        if not math.isfinite(value):
            raise WarmlineError(
                f"step {self.progress.step}: the validation loss is not a number; lower training.learning_rate or use another precision"
            )
        self._record({"kind": "validation", "step": self.progress.step, **scores})
        if self.progress.step == 0:  # the base: shown, never the best, since nothing is tuned yet
            return False
        improved = value < self.progress.best_value
        if improved:
            self.progress.best_step, self.progress.best_value = self.progress.step, value
            self.progress.validations_since_best = 0
        else:
            self.progress.validations_since_best += 1
        return improved

    def _stopped_early(self) -> bool:
        patience = self.config.training.early_stop
        return patience is not None and self.progress.validations_since_best >= patience

    def _trained(self) -> str:
        step, planned = self.progress.step, self.plan.steps
        if step == planned:
            return f"{step} steps"
        validations, metric = self.progress.validations_since_best, self.config.validation.metric
        return f"stopped early after step {step} of {planned}: {validations} validations in a row brought no lower {metric} loss"

    def _checkpoint(self) -> None:
        self.progress.packer = self.packer.state()
        self.progress.scaler = dict(self.scaler.state_dict())
        state = collect_state(self.model, self.optimizer)
        if self.accelerator.is_main_process:
            save_checkpoint(self.run, state, self.progress, self.config.checkpoint.keep)
        self.accelerator.wait_for_everyone()

    def _record(self, line: dict[str, Any]) -> None:
        self.view.show(line)
        if self.config.trackers:
            flat = {f"{line['kind']}/{key}": value for key, value in line.items() if isinstance(value, (int, float))}
            self.accelerator.log(flat, step=line["step"])
        if self.accelerator.is_main_process:
            try:
                append_text(self.run.metrics, json.dumps(line) + "\n")
            except OSError as error:
                raise WarmlineError(f"{self.run.metrics}: cannot be written ({error.strerror}); free some space, then --resume") from None


def _build(config: RunConfig, way: Way, place: Place, ranks: int) -> MultiTaskModel:
    """The model as the way says: on the device, or cut and spread over the ranks."""
    if not way.sharded:
        return build_model(config, place.device, place.dtype, way.checkpointing, way.choice.backend)
    plain = config.model_copy(update={"model": config.model.model_copy(update={"fused": False})})
    model = build_model(plain, torch.device("cpu"), place.dtype, way.checkpointing, way.choice.backend)
    shard(model, model.backbone.decoder, place.device, ranks)
    return model


def dropout_seed(seed: int, step: int, rank: int) -> int:
    """Seed of one step's dropout on one rank: a function of where the run is, so that no random state need be saved."""
    return (seed * 1_000_003 + step) * 4_096 + rank


def _check_trackers(config: RunConfig) -> None:
    for name in config.trackers:
        if find_spec(name) is None:
            raise WarmlineError(f"trackers: {name} is not installed; `pip install {name}` or leave it out")


def _lm_targets(counts: Sequence[dict[str, Any]]) -> int:
    return sum(int(one["lm"].sum()) for one in counts)


def _micro_batches(rows: list[Row], size: int, ranks: int, rank: int) -> Iterator[list[Row]]:
    own = rows[rank::ranks]
    for start in range(0, len(own), size):
        yield own[start : start + size]


def _with_backend_of(run: RunFolder, config: RunConfig) -> RunConfig:
    """The configuration with the backend that a begun run took: `auto` asks how much memory is free, which is not the same every day."""
    try:
        begun = read_manifest(run).get("backend") if run.steps() else None
    except WarmlineError:  # which `refuse_changes` tells
        begun = None
    if config.model.backend != "auto" or begun not in ("transformers", "unsloth"):
        return config
    return config.model_copy(update={"model": config.model.model_copy(update={"backend": begun})})


def _claim(run: RunFolder, config: RunConfig, now: dict[str, Any], resume: bool, overwrite: bool) -> None:
    """Begin in the run folder, or say why it may not be used."""
    if overwrite and (run.config.exists() or run.steps()):
        _clear(run)
    elif run.metrics.exists() or run.steps():  # what failed over its data or its base before has left nothing to lose
        run.refuse_strangers()
        if not resume:
            raise WarmlineError(f"{run.path}: this run exists; --resume goes on with it, --overwrite removes it, or give another name")
        saved = load_config(run.config)
        if saved != config:
            raise WarmlineError(
                f"{run.path}: the configuration differs from the run's at `{differing_keys(saved, config)[0]}`; resume unchanged"
            )
        if run.steps():
            refuse_changes(run, now)
            return
    run.create()
    write_text(run.config, dump_config(config))
    write_json(run.manifest, now)


def _clear(run: RunFolder) -> None:
    """Remove all but the lock, which is held."""
    with disk_errors(run.path):
        for path in run.path.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != LOCK:
                path.unlink()
