"""Commands that get the data and train."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from warmline.cli.options import AsJson, ConfigFile, DataDir, Overrides, as_name, configured, folder_option, show
from warmline.config import DataConfig
from warmline.errors import WarmlineError

_SEEDS_HELP = "Seeds with commas between, as in 13,14,15; the configuration's own by default."
_VARIANTS_HELP = "Of no-emotion, no-strategy, no-safety and lm-only, with commas between; all by default."
_BENCH_MODEL_HELP = "Folder of the model; made there with random Qwen3-8B weights when it is missing."


def data_fetch(
    data_dir: Annotated[Path | None, folder_option("Where to; the user's cache folder by default.")] = None,
    eqbench: Annotated[bool, typer.Option("--eqbench", help="Get EQ-Bench 3 and v2 instead, at a pinned revision.")] = False,
) -> None:
    """Download the official files, with checksums; goes on where an earlier attempt stopped."""
    from warmline.data.enabled import fetched_dir
    from warmline.sources import official_files
    from warmline.sources.fetch import fetch

    folder = data_dir or fetched_dir()
    if eqbench:
        from warmline.eqbench.suites import EQBENCH_FILES

        lines, told = fetch(folder, EQBENCH_FILES), f"EQ-Bench 3 and v2 in {folder}; both under the MIT licence"
    else:
        lines, told = fetch(folder, official_files()), f"data in {folder}; {_terms()}"
    for line in lines:
        print(line)
    print(told)


def _terms() -> str:
    from warmline.sources import SOURCES

    inherits = {one.facts.title: one.facts.inherits for one in SOURCES.values() if one.facts.inherits}
    return "a model inherits the terms of " + " and ".join(f"{title} ({terms})" for title, terms in inherits.items())


def data_stats(
    data_dir: DataDir = None,
    alpha: Annotated[float, typer.Option(help="Mixture temperature in (0, 1].")] = 0.5,
    as_json: AsJson = False,
) -> None:
    """Counts of every source and split, and the shares of the mixture."""
    from warmline.data.cards import data_stats as count
    from warmline.data.cards import stats_table

    stats = count(_data_config(data_dir, alpha))
    show(stats, as_json, lambda: [stats_table(stats)])


def data_card(
    data_dir: DataDir = None,
    out: Annotated[Path, folder_option("Folder for the cards.")] = Path("data_cards"),
) -> None:
    """Write a data card a source: origin, licence, counts, labels with a picture, preprocessing, known problems."""
    from warmline.data.cards import write_cards

    for card in write_cards(_data_config(data_dir, 0.5), out):
        print(card)


def rewrite(
    config: ConfigFile,
    out: Annotated[Path | None, folder_option("Where to; the configuration's data.own_words by default.")] = None,
    candidates: Annotated[int, typer.Option(min=1, help="Drawn for each reply, of which the best is kept.")] = 6,
    conversations: Annotated[
        int | None, typer.Option(min=0, help="Of each source's train split at most, drawn by the seed; 0 for the hand-written ones alone.")
    ] = None,
    base_url: Annotated[str | None, typer.Option(help="OpenAI-compatible server of the base; in this process by default.")] = None,
    base_model: Annotated[str, typer.Option(help="The base's name there.")] = "base",
    concurrency: Annotated[int, typer.Option(min=1, help="Requests at a time to the server.")] = 64,
    by_run: Annotated[Path | None, folder_option("A run on this base that has learned the voice and writes in its place.")] = None,
    strength: Annotated[float, typer.Option(help="Of that run's adapter, from 0 (the base) to 1 (as trained).")] = 1.0,
    overrides: Overrides = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Let the base write the replies anew that it is to learn, in the voice of a friend; goes on where it stopped."""
    from warmline.responders import Endpoint
    from warmline.rewriting.rewrite import CARD, Options, rewrite
    from warmline.rewriting.view import rewriting_table
    from warmline.runs import RunFolder

    run = configured(config, overrides, data_dir)
    folder = out or run.data.own_words
    if folder is None:
        raise WarmlineError(f"{config}: has no data.own_words; give it a folder, or say --out FOLDER")
    keys = ("WARMLINE_MODEL_KEY", "OPENAI_API_KEY")
    endpoint = None if base_url is None else Endpoint("--base-url", base_url, base_model, keys, concurrency)
    if by_run is not None and endpoint is not None:
        raise WarmlineError("--by-run: writes in this process; leave out --base-url")
    if by_run is None and strength != 1:
        raise WarmlineError(f"--strength {strength:g}: is of a run's adapter; name the run with --by-run")
    tuned = None if by_run is None else RunFolder.open(by_run, strength)
    result = rewrite(run, folder, Options(candidates, conversations), endpoint, tuned)
    show(result, as_json, lambda: [rewriting_table(result), f"written to {folder}; {CARD} there says how"])


def plan(
    config: ConfigFile,
    overrides: Overrides = None,
    data_dir: DataDir = None,
    ranks: Annotated[int, typer.Option(min=1, help="GPUs that will train together.")] = 1,
    as_json: AsJson = False,
) -> None:
    """The run's arithmetic before it starts: mixture, tokens, steps, memory, what will be written."""
    from warmline.training.plan import plan_run
    from warmline.training.view import plan_summary

    resolved = configured(config, overrides, data_dir)
    made = plan_run(resolved, ranks)
    writes = f"writes {resolved.output_dir / resolved.name}/: adapter, heads, metrics.jsonl, checkpoints, training curves"
    show(made.as_json(), as_json, lambda: [plan_summary(made), writes])


def train(
    config: ConfigFile,
    overrides: Overrides = None,
    data_dir: DataDir = None,
    resume: Annotated[bool, typer.Option(help="Go on from the newest checkpoint of this run.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Remove an existing run of this name first.")] = False,
) -> None:
    """Multi-task fine-tuning, with live progress, validation, checkpoints and curves."""
    resolved = configured(config, overrides, data_dir)
    if resolved.model.backend == "unsloth":
        from warmline.model.choose import import_unsloth

        import_unsloth()  # it asks to come before transformers, which the next line imports
    from warmline.training.loop import train as train_run

    train_run(resolved, resume=resume, overwrite=overwrite)


def ablate(
    config: ConfigFile,
    overrides: Overrides = None,
    data_dir: DataDir = None,
    seeds: Annotated[str | None, typer.Option(help=_SEEDS_HELP)] = None,
    variants: Annotated[str | None, typer.Option(help=_VARIANTS_HELP)] = None,
    max_steps: Annotated[int | None, typer.Option(min=1, help="Cut every run to so many steps: a demonstration.")] = None,
    conversations: Annotated[int | None, typer.Option(min=2, help="Test conversations of each source; all by default.")] = None,
    probe_rows: Annotated[int, typer.Option(min=2, help="Training rows of a linear probe.")] = 4000,
    overwrite: Annotated[bool, typer.Option(help="Remove this run's earlier ablation first.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train the run again with one loss or another off, at every seed, and compare; goes on where it was interrupted."""
    from warmline.ablation.scores import ScoreSettings
    from warmline.ablation.study import ablate as ablate_run
    from warmline.ablation.view import StudyView, differences_table, values_table

    result = ablate_run(
        configured(config, overrides, data_dir),
        _integers("--seeds", seeds),
        variants.split(",") if variants else None,
        max_steps,
        ScoreSettings(conversations, probe_rows),
        overwrite,
        StudyView(quiet=as_json),
    )
    notes = [f"[dim]- {note}[/dim]" for note in result["notes"]]
    show(result, as_json, lambda: [values_table(result), differences_table(result), *notes], None if sys.stdout.isatty() else 120)


def run_all(
    config: ConfigFile,
    overrides: Overrides = None,
    data_dir: DataDir = None,
    quick: Annotated[bool, typer.Option(help="Cut ablations, replies and prompts short, to see everything work.")] = False,
) -> None:
    """Everything in order, from training to report; goes on where it was interrupted, and skips what is done."""
    from warmline.pipeline import FULL, QUICK, run_steps

    run_steps(configured(config, overrides, data_dir), QUICK if quick else FULL)


def bench(
    model: Annotated[str, typer.Option(help=_BENCH_MODEL_HELP, parser=as_name, metavar="FOLDER")],
    out: Annotated[Path, folder_option("Folder for bench.json and bench.png.")] = Path("results"),
    only: Annotated[str, typer.Option(help="Run only the cases whose name holds this text.")] = "",
) -> None:
    """Training step speed and memory, beside padded transformers + PEFT and Unsloth, each in its own process."""
    from warmline.bench.step import cases, count_gpus, run_bench
    from warmline.bench.workload import in_4bit, qwen3_8b, store_in_4bit, write_random_model

    gpus = count_gpus()
    if not (Path(model) / "config.json").exists():
        write_random_model(qwen3_8b(), Path(model))
    selected = [case for case in cases(model, gpus) if only in case.case]
    if any(case.model == in_4bit(model) for case in selected) and not (Path(in_4bit(model)) / "config.json").exists():
        store_in_4bit(model)
    run_bench(selected, out, lambda line: print(line, flush=True))


def _data_config(data_dir: str | None, alpha: float) -> DataConfig:
    if not 0 < alpha <= 1:
        raise WarmlineError(f"--alpha {alpha}: expected above 0 and at most 1")
    return DataConfig(dir=data_dir, alpha=alpha)


def _integers(option: str, text: str | None) -> list[int]:
    try:
        return [int(part) for part in text.split(",")] if text else []
    except ValueError:
        raise WarmlineError(f"{option} {text}: expected whole numbers with commas between, as in 13,14,15") from None
