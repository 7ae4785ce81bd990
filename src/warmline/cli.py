"""Every command: parse, call, print. No logic."""

import json
import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from warmline.config import DataConfig, RunConfig, load_config
from warmline.errors import WarmlineError, printable
from warmline.model import REPLY_TOKENS
from warmline.paths import expand_home, expand_home_in_name, refuse_no_path
from warmline.tasks import all_objectives

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


def _text(typed: str) -> str:
    try:
        return str(refuse_no_path(typed))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _path(typed: str) -> Path:
    """As typed, but for `~`, which a shell leaves alone in `--out=~/x` and inside quotes."""
    return expand_home(Path(_text(typed)))


def _name(typed: str) -> str:
    return expand_home_in_name(_text(typed))


ConfigFile = Annotated[Path, typer.Argument(help="A YAML configuration, such as configs/nano.yaml.", metavar="CONFIG", parser=_path)]
RunPath = Annotated[Path, typer.Argument(help="A run folder, such as runs/nano.", metavar="RUN", parser=_path)]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Change one key, as in --set training.epochs=1; may be repeated. Text and paths are taken as typed (null for none; quotes "
        "around the whole are dropped), other values are YAML.",
    ),
]
DataDir = Annotated[
    str | None,
    typer.Option(
        "--data-dir",
        help="Folder with copies of the official files; `sample` for the data inside this package.",
        parser=_text,
        metavar="FOLDER",
    ),
]
OwnBase = Annotated[
    str | None,
    typer.Option(
        "--base",
        help="Hub id or folder of the run's base, where it is not under the name in config.yaml.",
        parser=_name,
        metavar="BASE",
    ),
]
LongestReply = Annotated[int, typer.Option("--max-new-tokens", min=1, help="Longest reply, in tokens; how many were cut is said.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def main() -> None:
    """Run the command line; bad input ends with one line on standard error and status 2."""
    warnings.simplefilter("ignore", FutureWarning)  # libraries talking to each other
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # on a CPU it asks for a kernel that is not needed
    try:
        status = app(standalone_mode=False)
    except WarmlineError as error:
        print(f"warmline: {printable(str(error))}", file=sys.stderr)
        raise SystemExit(2) from None
    except _UsageError as error:
        print(f"warmline: {' '.join(str(error).split())}; --help lists what there is", file=sys.stderr)
        raise SystemExit(2) from None
    except (KeyboardInterrupt, typer.Abort):
        status = _INTERRUPTED
    if status == _INTERRUPTED:  # typer returns it for Ctrl-C
        print("warmline: interrupted; train goes on with `--resume`, other commands when started again", file=sys.stderr)
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
    resolved = _config(config, overrides, data_dir)
    if resolved.model.backend == "unsloth":
        from warmline.model.choose import import_unsloth

        import_unsloth()  # it asks to come before transformers, which the next line imports
    from warmline.training.loop import train as train_run

    train_run(resolved, resume=resume, overwrite=overwrite)


@app.command()
def evaluate(
    run: RunPath,
    replies: Annotated[int, typer.Option(min=0, help="Held-out turns that base and tuned model answer; 0 for none.")] = 50,
    baselines: Annotated[bool, typer.Option(help="Fit what the heads must beat; on the official data this takes minutes, once.")] = True,
    max_new_tokens: LongestReply = REPLY_TOKENS,
    as_json: AsJson = False,
) -> None:
    """Score a finished run on the test splits: heads beside baselines, language model and replies beside the base."""
    from warmline.evaluation.evaluate import evaluate as evaluate_run
    from warmline.evaluation.view import evaluation_summary
    from warmline.runs import RunFolder

    result = evaluate_run(run, replies, baselines, max_new_tokens)
    if as_json:
        print(json.dumps(result, indent=2))
        return
    console = Console()
    console.print(evaluation_summary(result))
    console.print(f"written to {RunFolder(run).evaluation}, with pictures beside it", highlight=False)


@app.command()
def eqbench(
    run: RunPath,
    suite: Annotated[str | None, typer.Option(help="official or sample; official by default where its files are found.")] = None,
    eqbench_dir: Annotated[
        Path | None, typer.Option(help="Folder with copies of the benchmark's files.", parser=_path, metavar="FOLDER")
    ] = None,
    judge_url: Annotated[str | None, typer.Option(help="OpenAI-compatible judge, such as https://api.openai.com/v1.")] = None,
    judge_model: Annotated[str | None, typer.Option(help="Its model; the key comes from WARMLINE_JUDGE_KEY or OPENAI_API_KEY.")] = None,
    iterations: Annotated[int, typer.Option(min=1, help="Times each scenario is played; 3 to 5 for a claim.")] = 1,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests at a time to each endpoint.")] = 8,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for one request.")] = 240.0,
    price_in: Annotated[float | None, typer.Option(min=0, help="What a million prompt tokens of the judge cost.")] = None,
    price_out: Annotated[float | None, typer.Option(min=0, help="What a million completion tokens of the judge cost.")] = None,
    max_cost: Annotated[float | None, typer.Option(min=0, help="Refuse to start, or stop, above this cost.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest reply; less than the protocol's is recorded.")] = 12_000,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Conversations answered together by a model in this process.")] = None,
    v2: Annotated[bool, typer.Option(help="Run EQ-Bench v2 beside it, which needs no judge.")] = True,
    base_url: Annotated[str | None, typer.Option(help="Endpoint that serves the base; in this process by default.")] = None,
    tuned_url: Annotated[str | None, typer.Option(help="Endpoint that serves the tuned model; in this process by default.")] = None,
    base_model: Annotated[str, typer.Option(help="The base's name at its endpoint.")] = "base",
    tuned_model: Annotated[str, typer.Option(help="The tuned model's name at its endpoint.")] = "tuned",
    as_json: AsJson = False,
) -> None:
    """EQ-Bench 3 and v2, base beside tuned; without a judge the transcripts are written and no score."""
    from warmline.evaluation.eqbench3.picture import remarks, summary
    from warmline.evaluation.eqbench3.run import Options, eq_bench
    from warmline.runs import RunFolder

    options = Options(
        suite, eqbench_dir, judge_url, judge_model, iterations, concurrency, timeout, price_in, price_out, max_cost, max_new_tokens,
        batch_size, v2, base_url, tuned_url, base_model, tuned_model,
    )  # fmt: skip
    result = eq_bench(run, options)
    if as_json:
        print(json.dumps(result, indent=2))
        return
    console = Console()
    console.print(f"{result['context']['run']}: {result['context']['label']}", highlight=False)
    console.print(summary(result))
    for line in remarks(result):
        console.print(line, highlight=False)
    console.print(f"written to {RunFolder(run).eq_bench} and {RunFolder(run).eq_bench_folder}", highlight=False)


@app.command()
def redteam(
    run: RunPath,
    suite_dir: Annotated[
        Path | None,
        typer.Option(
            "--suite-dir",
            help="Folder with simple_safety_tests/ and xstest/; our own suite runs without it.",
            parser=_path,
            metavar="FOLDER",
        ),
    ] = None,
    without_kl: Annotated[
        Path | None,
        typer.Option("--without-kl", help="A run of the same base, trained without the safety KL.", parser=_path, metavar="RUN"),
    ] = None,
    country: Annotated[str | None, typer.Option(help="ISO code, such as GB: whose hotlines are right.")] = None,
    judge_url: Annotated[
        str | None,
        typer.Option("--judge-url", help="OpenAI-compatible judge; its key in WARMLINE_JUDGE_KEY or OPENAI_API_KEY."),
    ] = None,
    judge_model: Annotated[str | None, typer.Option("--judge-model", help="The judge's name there.")] = None,
    max_new_tokens: LongestReply = REPLY_TOKENS,
    as_json: AsJson = False,
) -> None:
    """The safety sheet: base beside tuned on red-team prompts, with the guard off and on."""
    from warmline.runs import RunFolder
    from warmline.safety.judge import Judge
    from warmline.safety.redteam import Options, red_team
    from warmline.safety.view import red_team_table

    if (judge_url is None) != (judge_model is None):
        raise WarmlineError("--judge-url and --judge-model go together; give both or neither")
    judge = Judge(judge_url, judge_model) if judge_url and judge_model else None
    console = Console(stderr=as_json)
    result = red_team(run, Options(suite_dir, without_kl, country=country, judge=judge, max_new_tokens=max_new_tokens), console)
    if as_json:
        print(json.dumps(result, indent=2))
        return
    for part in red_team_table(result):
        console.print(part, highlight=False)
    folder = RunFolder(run)
    console.print(f"written to {folder.red_team_sheet} and {folder.red_team}; rate replies in {folder.human_ratings}", highlight=False)


@app.command()
def guard(
    suite_dir: Annotated[
        Path | None,
        typer.Option("--suite-dir", help="Folder with simple_safety_tests/ and xstest/.", parser=_path, metavar="FOLDER"),
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """How well the guard hears risk: recall and false alarms on the suites and on ordinary turns. Needs no run."""
    from warmline.safety.guard_report import guard_report
    from warmline.safety.view import guard_table

    report = guard_report(suite_dir, data_dir)
    if as_json:
        print(json.dumps(report, indent=2))
        return
    console = Console()
    for part in guard_table(report):
        console.print(part, highlight=False)


@app.command()
def ablate(
    config: ConfigFile,
    overrides: Overrides = None,
    data_dir: DataDir = None,
    seeds: Annotated[
        str | None, typer.Option(help="Seeds with commas between, as in 13,14,15; the configuration's own by default.")
    ] = None,
    variants: Annotated[
        str | None, typer.Option(help="Of no-emotion, no-strategy, no-safety and lm-only, with commas between; all by default.")
    ] = None,
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
        _config(config, overrides, data_dir),
        _integers("--seeds", seeds),
        variants.split(",") if variants else None,
        max_steps,
        ScoreSettings(conversations, probe_rows),
        overwrite,
        StudyView(quiet=as_json),
    )
    if as_json:
        print(json.dumps(result, indent=2))
        return
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(values_table(result))
    console.print(differences_table(result))
    for note in result["notes"]:
        console.print(f"- {note}", style="dim", highlight=False)


@app.command()
def errors(
    run: RunPath,
    prompts: Annotated[int, typer.Option(min=1, help="Most held-out prompts of one data set.")] = 20,
    max_new_tokens: LongestReply = REPLY_TOKENS,
    as_json: AsJson = False,
) -> None:
    """Base and tuned replies to held-out prompts: five examples, and how often each makes eight kinds of error."""
    from warmline.evaluation.errors import analyse
    from warmline.runs import RunFolder

    result = analyse(run, prompts, max_new_tokens)
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
    for side, cut in result["cut_off"].items():
        console.print(f"{side}: {cut['n']} of {cut['of']} replies were cut at {max_new_tokens} tokens", highlight=False)
    folder = RunFolder(run)
    console.print(f"written to {folder.error_taxonomy}, {folder.examples.name}, {folder.replies.name}", highlight=False)


@app.command()
def report(run: RunPath) -> None:
    """Write report.md into the run folder, from its JSON files; what was not measured is said, with the command that would."""
    from warmline.reporting.report import write_report

    print(write_report(run))


@app.command()
def summary(
    folder: Annotated[Path, typer.Argument(help="Results of a run or a study, such as results.", metavar="FOLDER", parser=_path)],
) -> None:
    """Write summary.json: a study's headline figures with intervals, from the results files in a folder."""
    from warmline.reporting.summary import SUMMARY, write_summary

    write_summary(folder)
    print(folder / SUMMARY)


@app.command()
def chat(
    run: Annotated[
        Path,
        typer.Argument(help="A run folder; or a configuration or model folder, for an untuned model.", metavar="RUN", parser=_path),
    ],
    country: Annotated[str | None, typer.Option(help="ISO code, such as GB: whose hotlines are shown.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest reply, in tokens.")] = None,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token each time.")] = 0.7,
    seed: Annotated[int | None, typer.Option(help="The same words get the same reply.")] = None,
    base: OwnBase = None,
) -> None:
    """Talk to a run in the terminal, or through a pipe; /help there lists commands."""
    from warmline.serving.engine import Generation
    from warmline.serving.terminal import chat as talk

    talk(run, Generation(max_tokens=max_tokens, temperature=temperature, seed=seed), country, base)


@app.command()
def export(
    run: RunPath,
    out: Annotated[Path, typer.Option(help="Folder to write; new, or an earlier export with --overwrite.", parser=_path, metavar="FOLDER")],
    merged: Annotated[bool, typer.Option("--merged", help="Also the whole model, the adapter merged into unquantised weights.")] = False,
    dtype: Annotated[str, typer.Option(help="Of the merged weights: bfloat16, float16 or float32.")] = "bfloat16",
    base: Annotated[
        str | None,
        typer.Option(
            help="Hub id or folder of the base's unquantised weights; the run's own name by default.", parser=_name, metavar="BASE"
        ),
    ] = None,
    tokenizer: Annotated[bool, typer.Option(help="Copy the base's tokenizer too; Gemma's is 32 MiB.")] = True,
    overwrite: Annotated[bool, typer.Option(help="Replace an earlier export.")] = False,
    push: Annotated[str | None, typer.Option(help="Upload to this model repository, such as me/friend.", metavar="HUB_ID")] = None,
    private: Annotated[bool, typer.Option("--private", help="Make that repository a private one.")] = False,
) -> None:
    """The adapter for PEFT and vLLM, merged weights for transformers, the heads and a model card; to a hub when asked."""
    from warmline.export.folder import Options, vllm_command
    from warmline.export.folder import export as export_run
    from warmline.export.hub import Destination
    from warmline.export.merge import known_dtype

    options = Options(merged, known_dtype(dtype), base, overwrite, tokenizer)
    destination = Destination.check(push, private) if push else None
    described = export_run(run, out, options, print)
    if described["adapter"].get("vllm"):
        print(vllm_command(described["base"]["hub_id"], described["adapter"]["rank"], out.as_posix()))
    print(f"written to {out}; its README.md is the model card")
    if destination:
        print(destination.upload(out))


@app.command("inspect")
def inspect_folder(
    folder: Annotated[Path, typer.Argument(help="A run folder or an export, such as one from a hub.", metavar="FOLDER")],
    as_json: AsJson = False,
) -> None:
    """What is in a folder before it is loaded: base, adapter, files and hashes, links, pickles; status 2 where loading is refused."""
    from warmline.inspection import inspect, tables

    found = inspect(folder)
    if as_json:
        print(json.dumps({**found._asdict(), "entries": [entry._asdict() for entry in found.entries]}, indent=2))
    else:
        console = Console(width=None if sys.stdout.isatty() else 160)
        for part in tables(found):
            console.print(part, highlight=False)
        for note in found.notes:
            print(f"note: {printable(note)}")
    for why in found.refusals:
        print(f"warmline: {printable(why)}", file=sys.stderr)
    if found.refusals:
        raise typer.Exit(2)


@app.command("run")
def run_all(
    config: ConfigFile,
    overrides: Overrides = None,
    data_dir: DataDir = None,
    quick: Annotated[bool, typer.Option(help="Cut ablations, replies and prompts short, to see everything work.")] = False,
) -> None:
    """Everything in order, from training to report; goes on where it was interrupted, and skips what is done."""
    from warmline.pipeline import FULL, QUICK, run_steps

    run_steps(_config(config, overrides, data_dir), QUICK if quick else FULL)


@app.command()
def serve(
    run: Annotated[
        Path, typer.Argument(help="A run folder; or a configuration or a model, for a base alone.", metavar="RUN", parser=_path)
    ],
    host: Annotated[str, typer.Option(help="Address to listen on; any other than this machine's own needs an API key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    api_key: Annotated[str | None, typer.Option(envvar="WARMLINE_API_KEY", help="Key that clients must send.")] = None,
    country: Annotated[str | None, typer.Option(help="ISO code, such as GB: whose hotlines are shown.")] = None,
    slots: Annotated[int, typer.Option(min=1, max=256, help="Replies made at a time.")] = 16,
    queue: Annotated[int, typer.Option(min=0, help="Requests that may wait; more are refused.")] = 256,
    grace: Annotated[float, typer.Option(min=0, help="Seconds that replies have to end after SIGTERM or Ctrl-C.")] = 20.0,
    generate_at: Annotated[str | None, typer.Option(help="Let this OpenAI-compatible server generate, such as vLLM's.")] = None,
    generate_model: Annotated[str | None, typer.Option(help="What it calls the tuned model.")] = None,
    generate_base: Annotated[str | None, typer.Option(help="What it calls the base; generated here by default.")] = None,
    base: OwnBase = None,
) -> None:
    """A web page and an OpenAI-compatible API, on this machine unless told otherwise."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch comes: its threads must not spin where requests have to be answered
    from warmline.serving import require_extra

    require_extra()
    from warmline.serving.relay import Remote
    from warmline.serving.server import Options
    from warmline.serving.server import serve as serve_run

    if (generate_at is None) != (generate_model is None):
        raise WarmlineError("--generate-at and --generate-model go together; give both or neither")
    remote = Remote(generate_at, generate_model, generate_base) if generate_at and generate_model else None
    serve_run(run, Options(host, port, api_key or None, country, slots, queue, grace, remote, base))


@app.command()
def bench(
    model: Annotated[
        str,
        typer.Option(
            help="Folder of the model; made there with random Qwen3-8B weights when it is missing.", parser=_name, metavar="FOLDER"
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for bench.json and bench.png.", parser=_path, metavar="FOLDER")] = Path("results"),
    only: Annotated[str, typer.Option(help="Run only the cases whose name holds this text.")] = "",
) -> None:
    """Training step speed and memory, beside padded transformers + PEFT and Unsloth, each in its own process."""
    from warmline.bench.model import in_4bit, qwen3_8b, store_in_4bit, write_random_model
    from warmline.bench.step import cases, count_gpus, run_bench

    gpus = count_gpus()
    if not (Path(model) / "config.json").exists():
        write_random_model(qwen3_8b(), Path(model))
    selected = [case for case in cases(model, gpus) if only in case.case]
    if any(case.model == in_4bit(model) for case in selected) and not (Path(in_4bit(model)) / "config.json").exists():
        store_in_4bit(model)
    run_bench(selected, out, lambda line: print(line, flush=True))


@data_app.command("fetch")
def data_fetch(
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", help="Where to; the user's cache folder by default.", parser=_path, metavar="FOLDER"),
    ] = None,
    eqbench: Annotated[bool, typer.Option("--eqbench", help="Get EQ-Bench 3 and v2 instead, at a pinned revision.")] = False,
) -> None:
    """Download the official files, with checksums; goes on where an earlier attempt stopped."""
    from warmline.data.enabled import fetched_dir
    from warmline.sources import official_files
    from warmline.sources.fetch import fetch

    folder = data_dir or fetched_dir()
    if eqbench:
        from warmline.evaluation.eqbench3.fetch import EQBENCH_FILES

        for line in fetch(folder, EQBENCH_FILES):
            print(line)
        print(f"EQ-Bench 3 and v2 in {folder}; both under the MIT licence")
        return
    for line in fetch(folder, official_files()):
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
    out: Annotated[Path, typer.Option(help="Folder for the cards.", parser=_path, metavar="FOLDER")] = Path("data_cards"),
) -> None:
    """Write a data card a source: origin, licence, counts, labels with a picture, preprocessing, known problems."""
    from warmline.data.cards import write_cards

    for card in write_cards(_data_config(data_dir, 0.5), out):
        print(card)


def _config(path: Path, overrides: list[str] | None, data_dir: str | None) -> RunConfig:
    return load_config(path, overrides or (), data_dir)


def _data_config(data_dir: str | None, alpha: float) -> DataConfig:
    if not 0 < alpha <= 1:
        raise WarmlineError(f"--alpha {alpha}: expected above 0 and at most 1")
    return DataConfig(dir=data_dir, alpha=alpha)


def _integers(option: str, text: str | None) -> list[int]:
    try:
        return [int(part) for part in text.split(",")] if text else []
    except ValueError:
        raise WarmlineError(f"{option} {text}: expected whole numbers with commas between, as in 13,14,15") from None


def _error_cells(counts: dict[str, Any]) -> list[str]:
    read = counts["precision"]
    precision = f"{read['right']} of {read['read']}" if read else "not read"
    shares = [f"{counts[side]['share']:.1%}" if counts[side] else "" for side in ("base", "tuned")]
    if counts["difference"] is None:
        return [str(counts["asked"]), *shares, counts["reason"], precision]
    low, high = counts["difference"]["interval"]
    return [str(counts["asked"]), *shares, f"{counts['difference']['value']:+.1%} ({low:+.1%} to {high:+.1%})", precision]


def _stats_table(stats: dict[str, Any]) -> Table:
    columns = ("conversations", "utterances", *(f"{name}_targets" for name in all_objectives()))
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("source")
    table.add_column("split")
    for heading in ("convs", "turns", *all_objectives()):
        table.add_column(heading, justify="right")
    table.add_column("share", justify="right")
    for source, splits in stats["sources"].items():
        for split, counts in splits.items():
            share = f"{stats['mixture']['shares'][source]:.1%}" if split == "train" else ""
            table.add_row(source, split, *(f"{counts[column]:,}" if counts[column] else "" for column in columns), share)
    return table


if __name__ == "__main__":
    main()
