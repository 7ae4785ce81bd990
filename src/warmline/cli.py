"""Every command: parse, call, print. No logic."""

import json
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from warmline.config import DataConfig, RunConfig, load_config
from warmline.errors import WarmlineError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Fine-tune an open LLM into an empathetic friend.",
)
data_app = typer.Typer(no_args_is_help=True, help="Get, count and describe the data sets.")
app.add_typer(data_app, name="data")

_INTERRUPTED = 130
_UsageError: Any = typer.BadParameter.__base__  # what a wrong option or argument raises; typer gives it no public name

ConfigFile = Annotated[Path, typer.Argument(help="A YAML configuration, such as configs/nano.yaml.", metavar="CONFIG")]
RunPath = Annotated[Path, typer.Argument(help="A run folder, such as runs/nano.", metavar="RUN")]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="Change one key, as in --set training.epochs=1; may be repeated.")]
DataDir = Annotated[
    str | None,
    typer.Option("--data-dir", help="Folder with copies of the official files; `sample` for the data inside this package."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def main() -> None:
    """Run the command line; bad input ends with one line on standard error and status 2."""
    warnings.simplefilter("ignore", FutureWarning)  # libraries talking to each other
    try:
        status = app(standalone_mode=False)
    except WarmlineError as error:
        print(f"warmline: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except _UsageError as error:
        print(f"warmline: {' '.join(str(error).split())}; --help lists what there is", file=sys.stderr)
        raise SystemExit(2) from None
    except (KeyboardInterrupt, typer.Abort):
        status = _INTERRUPTED
    if status == _INTERRUPTED:  # typer returns it for Ctrl-C
        print("warmline: interrupted; `--resume` goes on from the last checkpoint", file=sys.stderr)
    raise SystemExit(status or 0)


@app.command()
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

    resolved = _config(config, overrides, data_dir)
    made = plan_run(resolved, ranks)
    if as_json:
        print(json.dumps(made.as_json(), indent=2))
        return
    console = Console()
    console.print(plan_summary(made))
    console.print(f"writes {resolved.output_dir / resolved.name}/: adapter, heads, metrics.jsonl, checkpoints, training curves")


@app.command()
def train(
    config: ConfigFile,
    overrides: Overrides = None,
    data_dir: DataDir = None,
    resume: Annotated[bool, typer.Option(help="Go on from the newest checkpoint of this run.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Remove an existing run of this name first.")] = False,
) -> None:
    """Multi-task fine-tuning, with live progress, validation, checkpoints and curves."""
    from warmline.training.loop import train as train_run

    train_run(_config(config, overrides, data_dir), resume=resume, overwrite=overwrite)


@app.command()
def evaluate(run: RunPath, as_json: AsJson = False) -> None:
    """Score the saved heads on the test splits, beside the majority class."""
    from warmline.evaluation.heads import evaluate as evaluate_run
    from warmline.runs import RunFolder

    result = evaluate_run(run)
    if as_json:
        print(json.dumps(result, indent=2))
        return
    table = Table(title=f"{result['context']['run']}: test split", title_justify="left", box=None)
    for column in ("head", "n", "accuracy", "macro-F1", "majority accuracy", "majority macro-F1"):
        table.add_column(column, justify="left" if column == "head" else "right")
    for name, scores in result["heads"].items():
        if scores is None:
            table.add_row(name, "0", *["no test targets"] * 4)
            continue
        both = (scores, scores["majority"])
        table.add_row(name, str(scores["n"]), *(text for each in both for text in (f"{each['accuracy']:.1%}", f"{each['macro_f1']:.3f}")))
    console = Console()
    console.print(table)
    console.print(f"written to {RunFolder(run).evaluation}", highlight=False)


@app.command()
def errors(
    run: RunPath,
    prompts: Annotated[int, typer.Option(min=1, help="Most held-out prompts of one data set.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Base and tuned replies to held-out prompts: five examples, and how often each makes eight kinds of error."""
    from warmline.evaluation.errors import analyse
    from warmline.runs import RunFolder

    result = analyse(run, prompts)
    if as_json:
        print(json.dumps(result, indent=2))
        return
    table = Table(title=f"{result['context']['run']}: replies flagged, {result['context']['n']} prompts", title_justify="left", box=None)
    for column in ("error", "n", "base", "tuned", "difference, 95 %", "flags right when read"):
        table.add_column(column, justify="left" if column == "error" else "right")
    for name, counts in result["classes"].items():
        table.add_row(name.replace("_", " "), *_error_cells(counts))
    console = Console()
    console.print(table)
    folder = RunFolder(run)
    console.print(f"written to {folder.error_taxonomy}, {folder.examples.name}, {folder.replies.name}", highlight=False)


@app.command()
def report(run: RunPath) -> None:
    """Write report.md into the run folder, from its JSON files; what was not measured is said, with the command that would."""
    from warmline.reporting.report import write_report

    print(write_report(run))


@app.command("run")
def run_all(
    config: ConfigFile,
    overrides: Overrides = None,
    data_dir: DataDir = None,
    quick: Annotated[bool, typer.Option(help="Cut ablations, EQ-Bench replies and prompts short, to see everything work.")] = False,
) -> None:
    """Everything in order, from training to report; goes on where it was interrupted, and skips what is done."""
    from warmline.pipeline import FULL, QUICK, run_steps

    run_steps(_config(config, overrides, data_dir), QUICK if quick else FULL)


@app.command()
def bench(
    model: Annotated[str, typer.Option(help="Folder of the model; made there with random Qwen3-8B weights when it is missing.")],
    out: Annotated[Path, typer.Option(help="Folder for bench.json and bench.png.")] = Path("results"),
    only: Annotated[str, typer.Option(help="Run only the cases whose name holds this text.")] = "",
) -> None:
    """Training step speed and memory, beside padded transformers + PEFT and Unsloth, each in its own process."""
    from warmline.bench.model import qwen3_8b, write_random_model
    from warmline.bench.step import cases, run_bench

    if not (Path(model) / "config.json").exists():
        write_random_model(qwen3_8b(), Path(model))
    run_bench([case for case in cases(model) if only in case.case], out, lambda line: print(line, flush=True))


@data_app.command("fetch")
def data_fetch(
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="Where to; the user's cache folder by default.")] = None,
) -> None:
    """Download the official files, with checksums; goes on where an earlier attempt stopped."""
    from warmline.data.fetch import fetch
    from warmline.data.sources import fetched_dir

    folder = data_dir or fetched_dir()
    for line in fetch(folder):
        print(line)
    print(f"data in {folder}; ESConv and EmpatheticDialogues are for non-commercial use only")


@data_app.command("stats")
def data_stats(
    data_dir: DataDir = None,
    alpha: Annotated[float, typer.Option(help="Mixture temperature in (0, 1].")] = 0.5,
    as_json: AsJson = False,
) -> None:
    """Counts of every source and split, and the shares of the mixture."""
    from warmline.data.stats import data_stats as count

    stats = count(_data_config(data_dir, alpha))
    if as_json:
        print(json.dumps(stats, indent=2))
    else:
        Console().print(_stats_table(stats))


@data_app.command("card")
def data_card(
    data_dir: DataDir = None,
    out: Annotated[Path, typer.Option(help="Folder for the cards.")] = Path("data_cards"),
) -> None:
    """Write a data card a source: origin, licence, counts, labels with a picture, preprocessing, known problems."""
    from warmline.data.cards import write_cards

    for card in write_cards(_data_config(data_dir, 0.5), out):
        print(card)


def _config(path: Path, overrides: list[str] | None, data_dir: str | None) -> RunConfig:
    return load_config(path, [*(overrides or []), *([f"data.dir={data_dir}"] if data_dir else [])])


def _data_config(data_dir: str | None, alpha: float) -> DataConfig:
    if not 0 < alpha <= 1:
        raise WarmlineError(f"--alpha {alpha}: expected above 0 and at most 1")
    return DataConfig(dir=data_dir, alpha=alpha)


def _error_cells(counts: dict[str, Any]) -> list[str]:
    read = counts["precision"]
    precision = f"{read['right']} of {read['read']}" if read else "not read"
    if counts["base"] is None:
        return ["0", "", "", counts["reason"], precision]
    low, high = counts["difference"]["interval"]
    shares = [f"{counts[side]['share']:.1%}" for side in ("base", "tuned")]
    return [str(counts["asked"]), *shares, f"{counts['difference']['value']:+.1%} ({low:+.1%} to {high:+.1%})", precision]


def _stats_table(stats: dict[str, Any]) -> Table:
    columns = ("conversations", "utterances", "lm_targets", "emotion_targets", "strategy_targets", "safety_targets")
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("source")
    table.add_column("split")
    for heading in ("convs", "turns", "lm", "emotion", "strategy", "safety"):
        table.add_column(heading, justify="right")
    table.add_column("share", justify="right")
    for source, splits in stats["sources"].items():
        for split, counts in splits.items():
            share = f"{stats['mixture']['shares'][source]:.1%}" if split == "train" else ""
            table.add_row(source, split, *(f"{counts[column]:,}" if counts[column] else "" for column in columns), share)
    return table


if __name__ == "__main__":
    main()
