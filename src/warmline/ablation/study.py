"""`warmline ablate`: train every variant at every seed, score each from its saved artefact, compare.

Everything that is done is on disk: a variant that has finished is not trained again, one that was interrupted goes on from its checkpoint,
and scores are read back when nothing they depend on has changed.
"""

import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import torch

from warmline.ablation.figure import draw_ablation
from warmline.ablation.metrics import CONFIDENCE, LEAST_SEEDS, Table, all_metrics, differences, measured, measured_base, summarise
from warmline.ablation.scores import ScoreSettings, kept_scores, score_run
from warmline.ablation.variants import FULL, ChosenVariants, choose_variants, variant_config
from warmline.ablation.view import ShortView, StudyView
from warmline.config import RunConfig, differing_keys, dump_config, load_config
from warmline.data.enabled import data_checksums
from warmline.errors import WarmlineError
from warmline.lock import hold
from warmline.model.device import choose_place
from warmline.runs import RunFolder, disk_errors, read_json, read_manifest, write_folder, write_json, write_text
from warmline.training.curves import read_metrics
from warmline.training.loop import train
from warmline.training.manifest import base_checksums, changes, make_manifest
from warmline.training.plan import choose_way, plan_run

_NO_MATTER_FOR_THE_LAST_STEP = ("name", "output_dir", "trackers", "training.early_stop", "validation.", "checkpoint.")
"""Keys, or sections, that change nothing of the last step's weights when that step was reached."""


class StudyRun(NamedTuple):
    """One run of the study: its variant and seed, and the configuration it trains with."""

    variant: str
    seed: int
    config: RunConfig


def ablate(
    config: RunConfig,
    seeds: Sequence[int] = (),
    variants: Sequence[str] | None = None,
    max_steps: int | None = None,
    settings: ScoreSettings | None = None,
    overwrite: bool = False,
    view: StudyView | None = None,
) -> dict[str, Any]:
    """Run the ablation and write `results/ablation_results.json` and `results/ablation.png` into the run's folder.

    Args:
        config: Of the run whose losses are switched off one by one.
        seeds: None given takes the configuration's own.
        variants: Names of those to train besides `full`; None takes all.
        max_steps: Cut every run to so many steps: a demonstration, and the results say so.
        settings: How much is scored; None is everything.
        overwrite: Remove this run's earlier ablation first.
        view: What a person sees; None prints to the terminal.

    Returns:
        What was written to `ablation_results.json`.

    Raises:
        WarmlineError: as `train` and `score_run`; unknown variants; several processes; an earlier ablation with another configuration.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise WarmlineError("ablate runs in one process; start it without torchrun or accelerate launch")
    view, settings = view or StudyView(), settings or ScoreSettings()
    planned = plan_run(config).steps if max_steps is not None else None
    shortened = planned if planned is not None and max_steps is not None and max_steps < planned else None
    if shortened is not None:
        config = _cut_short(config, max_steps, settings)
    choice = choose_variants(config, variants)
    own_seeds = sorted(set(seeds)) or [config.seed]
    study = [StudyRun(name, seed, variant_config(config, name, seed, shortened)) for seed in own_seeds for name in choice.variants]
    main = RunFolder(config.output_dir / config.name)
    main.refuse_strangers()
    with hold(main.path, "ablate"):
        if overwrite and main.ablation.exists():
            with disk_errors(main.ablation):
                shutil.rmtree(main.ablation)
        _refuse_other_configurations(study)
        scored: list[dict[str, Any]] = []
        for number, one in enumerate(study, start=1):
            view.begin(number, len(study), one.variant, one.seed)
            scored.append(_train_and_score(one, main, settings, view, _alone_on_a_gpu))
        result = _results(study, scored, choice, config, shortened)
        write_json(main.ablation_results, result)
        draw_ablation(result, main.ablation_picture)
        view.finish(main)
        return result


def run_variant(config: RunConfig, variant: str, seed: int, settings: ScoreSettings | None = None, view: StudyView | None = None) -> Path:
    """Train and score one run of a study in this process, so that several can run at a time; `ablate` then finds them done.

    Args:
        config: Of the run whose losses are switched off one by one.
        variant: A key of `all_variants`.
        seed: Of this run.
        settings: As `ablate` will be told.
        view: What a person sees; None prints to the terminal.

    Returns:
        Its run folder.

    Raises:
        WarmlineError: as `ablate`.
    """
    one = StudyRun(variant, seed, variant_config(config, variant, seed))
    main = RunFolder(config.output_dir / config.name)
    main.refuse_strangers()
    _refuse_other_configurations([one])
    _train_and_score(one, main, settings or ScoreSettings(), view or StudyView(), _here)
    return _folder(one).path


def _train_and_score(one: StudyRun, main: RunFolder, settings: ScoreSettings, view: StudyView, call: Callable[..., Any]) -> dict[str, Any]:
    """The scores of a variant; what is done already is not done again."""
    folder, is_full = _train(one, main, view, call), one.variant == FULL
    scores = kept_scores(folder.path, settings, is_full)
    if scores is None:
        view.say("scoring the test splits")
        scores = call(score_run, folder.path, settings, is_full)
    else:
        view.say("scored earlier")
    _prune(folder)
    return scores


def _cut_short(config: RunConfig, max_steps: int | None, settings: ScoreSettings) -> RunConfig:
    """Fewer steps, and no more conversations to validate on than the scores will take: nothing is chosen by that validation."""
    wanted = config.validation.conversations
    few = wanted if settings.conversations is None else min(wanted, settings.conversations)
    return config.model_copy(
        update={
            "training": config.training.model_copy(update={"max_steps": max_steps}),
            "validation": config.validation.model_copy(update={"conversations": few}),
        }
    )


def _here(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


def _folder(one: StudyRun) -> RunFolder:
    return RunFolder(one.config.output_dir / one.config.name)


def _refuse_other_configurations(study: list[StudyRun]) -> None:
    """Before anything trains: what lies in a variant's folder must have been trained as it would be now."""
    for one in study:
        folder = _folder(one)
        if not folder.config.is_file():
            continue
        keys = differing_keys(load_config(folder.config), one.config)
        if keys:
            raise WarmlineError(
                f"{folder.path}: an earlier ablation differs at `{keys[0]}`; --overwrite removes it, or give the run another name"
            )


def _train(one: StudyRun, main: RunFolder, view: StudyView, call: Callable[..., Any]) -> RunFolder:
    """The finished run of a variant."""
    folder = _folder(one)
    if folder.heads_description.is_file():
        if read_manifest(folder)["data_sha256"] != data_checksums(one.config.data):
            raise WarmlineError(f"{folder.path}: was trained on other data (checksums differ); --overwrite trains the ablation again")
        view.say("trained earlier")
        return folder
    if not folder.steps() and same_training(main, one.config):
        view.say(f"taking the last step of {main.path}, which trained alike")
        with hold(folder.path, "ablate"):
            _adopt(main, folder, one.config)
    call(train_variant, one.config, view.quiet, one.variant != FULL)
    return folder


def train_variant(config: RunConfig, quiet: bool, checked: bool = False) -> None:
    """Train a variant, or what is left of it; `full`, the first, has passed the self-check for all."""
    train(config, resume=True, view=ShortView(quiet), checked=checked)


def _alone_on_a_gpu(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call it in a process of its own where there is a GPU, so that memory, and a backend that patches classes, end with it.

    On a CPU that would only cost the imports: runs of one process equal runs alone to the last bit.
    """
    return apart(function, *arguments) if torch.cuda.is_available() else function(*arguments)


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a module's function in a fresh process and give back what it returns or raises.

    Raises:
        WarmlineError: the process was killed, for instance by the system for its memory.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except BrokenProcessPool:
            raise WarmlineError("a process of the ablation was killed (out of memory?); start the same command again to go on") from None


def same_training(main: RunFolder, wanted: RunConfig) -> bool:
    """Whether a run's last checkpoint holds the very weights that training `wanted` in one process here would give.

    Configuration (but for what cannot matter), files of data and base, steps, rows a step, device and precision are compared.
    """
    steps = main.steps()
    if not steps or not all(path.is_file() for path in (main.config, main.plan, main.manifest, main.metrics, main.heads_description)):
        return False
    keys = differing_keys(load_config(main.config), wanted)
    if any(not key.startswith(_NO_MATTER_FOR_THE_LAST_STEP) for key in keys):
        return False
    plan, begun, place = read_json(main.plan), read_manifest(main), choose_place(wanted.training)
    now = {**make_manifest(wanted, place, 1, choose_way(wanted, place).choice), "base_sha256": base_checksums(wanted.model)}
    return bool(
        steps[-1] == plan["steps"]
        and plan["rows_per_step"] == wanted.training.rows_per_micro_batch * wanted.training.accumulation
        and not changes(begun, now)
        and (place.device.type == "cpu" or begun["device"] == now["device"])
    )


def _adopt(main: RunFolder, folder: RunFolder, config: RunConfig) -> None:
    """Give a variant the main run's last checkpoint; `train` finds nothing left to do but to write the artefact."""
    folder.create()
    write_text(folder.config, dump_config(config))
    write_json(folder.manifest, {**read_manifest(main), "run": config.name})
    write_json(folder.origin, {"run": main.path.name, "step": main.steps()[-1]})
    write_text(folder.metrics, main.metrics.read_text(encoding="utf-8"))
    last = main.steps()[-1]

    def fill(aside: Path) -> None:
        shutil.copytree(main.checkpoint(last), aside, dirs_exist_ok=True)

    write_folder(folder.checkpoint(last), fill)


def _prune(folder: RunFolder) -> None:
    """Checkpoints of a finished variant are not needed any more; they are the bulk of its folder."""
    shutil.rmtree(folder.checkpoints, ignore_errors=True)


def _results(
    study: list[StudyRun], scored: list[dict[str, Any]], choice: ChosenVariants, config: RunConfig, planned_steps: int | None
) -> dict[str, Any]:
    """What `ablation_results.json` holds."""
    table: Table = {name: {} for name in choice.variants}
    rows = []
    for one, scores in zip(study, scored, strict=True):
        values = table[one.variant][one.seed] = measured(scores)
        rows.append(
            {
                "variant": one.variant,
                "seed": one.seed,
                "run": one.config.name,
                "step": scores["context"]["step"],
                "taken_over_from": read_json(origin)["run"] if (origin := _folder(one).origin).is_file() else None,
                "backend": read_manifest(_folder(one))["backend"],
                "clipped_steps": _clipped_share(one),
                "weights_sha256": scores["made_with"]["weights_sha256"],
                "metrics": {metric: values[metric].value if metric in values else None for metric in all_metrics()},
                "safety_kl": scores["safety"]["kl"],
                "absent": scores["absent"],
            }
        )
    first = scored[0]
    base = measured_base(first)
    seeds = sorted({one.seed for one in study})
    return {
        "context": {
            **{key: value for key, value in first["context"].items() if key not in ("run", "seed", "step")},
            "run": config.name,
            "seeds": seeds,
            "steps": first["context"]["step"],
            "planned_steps": planned_steps or first["context"]["step"],
            "weights": "of the last step, in every variant",
            "n": _counts(first),
            "test_conversations_a_source": first["made_with"]["conversations"] or "all",
            "probe_rows": first["made_with"]["probe_rows"],
            "confidence": CONFIDENCE,
        },
        "notes": _notes(seeds, first["context"]["step"], planned_steps),
        "variants": {name: {"loss": variant_config(config, name, 0).loss.model_dump()} for name in choice.variants},
        "left_out": choice.left_out,
        "metrics": {name: metric._asdict() for name, metric in all_metrics().items()},
        "rows": rows,
        "base": {metric: base[metric].value if metric in base else None for metric in all_metrics()},
        "summary": summarise(table),
        "differences": differences(table),
    }


def _clipped_share(one: StudyRun) -> float:
    """Share of steps whose gradient was scaled down: clipping is where the losses' sizes touch each other."""
    norms = [line["grad_norm"] or 0.0 for line in read_metrics(_folder(one)) if line["kind"] == "train"]
    return float(sum(norm > one.config.training.max_grad_norm for norm in norms) / len(norms))


def _counts(scores: dict[str, Any]) -> dict[str, int]:
    heads = {head: len(items["truth"]) if (items := scores["heads"][head] or scores["probes"].get(head)) else 0 for head in scores["heads"]}
    task, safety = scores["task"], scores["safety"]
    return {
        **heads,
        "task_conversations": len(task["tokens"]),
        "task_reply_tokens": sum(task["tokens"]),
        "safety_replies": len(safety["kl"]),
    }


def _notes(seeds: list[int], steps: int, planned_steps: int | None) -> list[str]:
    notes = [
        "A head whose loss was off is untrained: its scores are null, and a linear probe on the frozen states at its reading positions "
        "says what the representation knows. The same probe on the full run and on the base is the comparison for it.",
        "Differences are variant minus full of the same seed: same data order, same steps, same initial weights.",
        "Gradients are clipped to one norm for all losses together: where clipped_steps is high, a loss that is off also leaves the others "
        "larger steps.",
        "items_interval is a bootstrap over test conversations for the weights at hand; it leaves out what another seed would change.",
        "Many metrics and variants are compared here without correction: some intervals miss 0 by chance.",
    ]
    if planned_steps is not None:
        notes.insert(0, f"{steps} of {planned_steps} planned steps: a demonstration of the machinery, too short to conclude from.")
    if len(seeds) < LEAST_SEEDS:
        number = "one seed" if len(seeds) == 1 else f"{len(seeds)} seeds"
        notes.append(f"{number}: no interval over seeds; it takes {LEAST_SEEDS}.")
    return notes
