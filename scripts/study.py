"""The whole study on real data: tuning on validation, every run at every seed, and what is published of it.

    python scripts/study.py prepare  configs/gemma3-270m.yaml --data-dir DATA      # encode the data and fit the text baselines, once
    python scripts/study.py tune     configs/gemma3-270m.yaml --data-dir DATA      # trials of TRIALS, scored on validation
    python scripts/study.py teach    configs/gemma3-270m.yaml --data-dir DATA      # runs that `distill.teachers` can name
    python scripts/study.py runs     configs/gemma3-270m.yaml --data-dir DATA      # seeds x variants, 28 labels, alpha, then their scores
    python scripts/study.py collect  configs/gemma3-270m.yaml --data-dir DATA --out .      # report.md, results/, safety/, data_cards/

Each job is a process of its own, `--jobs` at a time, dealt over the GPUs there are. What is done is skipped, what was interrupted goes on,
so that the same command can be given again; `--minutes` stops in time. Logs lie in <output_dir>/logs. A short table comes last.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from rich.console import Console
from rich.table import Table

from trials import START, TEACHERS, TRIALS
from warmline.ablation.variants import FULL, VARIANTS
from warmline.config import RunConfig, load_config
from warmline.errors import WarmlineError
from warmline.runs import RunFolder, read_json, write_json

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True, help=__doc__)
ConfigFile = Annotated[Path, typer.Argument(help="The study's configuration.")]
DataDir = Annotated[str | None, typer.Option("--data-dir", help="Folder with the official files.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="As of `warmline train`; for every job.")]
Jobs = Annotated[int, typer.Option(min=1, help="Processes at a time.")]
Minutes = Annotated[float, typer.Option(min=0.1, help="Begin nothing later than this; what still runs at the end is stopped.")]
Only = Annotated[str, typer.Option(help="Only jobs whose name holds this text, or one of several with commas between.")]
Seeds = Annotated[str, typer.Option(help="With commas between.")]

ALPHAS = (0.25, 0.5, 1.0)
"""Mixtures of runs beside the main one, which has its own. All train for as many steps."""


class Job(NamedTuple):
    """A process of the study.

    Attributes:
        name: For its log.
        command: What is run.
        done: A file that says that it is done.
        after: Jobs whose files it needs.
    """

    name: str
    command: tuple[str, ...]
    done: Path
    after: tuple[str, ...] = ()


@app.command()
def prepare(config: ConfigFile, data_dir: DataDir = None, overrides: Overrides = None) -> None:
    """Encode every split and fit the text baselines, so that many processes need not do it at once."""
    from warmline.data.conversation import SPLITS
    from warmline.data.encoding import encode_source, encode_split
    from warmline.data.sources import data_checksums, enabled_sources, load_source
    from warmline.data.template import ChatTemplate
    from warmline.evaluation import emotion, strategy
    from warmline.evaluation.evaluate import READ_FOR, evaluation_data
    from warmline.evaluation.rows import emotion_rows, strategy_rows
    from warmline.model.transformers_backbone import load_tokenizer

    run = _config(config, data_dir, overrides)
    template = ChatTemplate(load_tokenizer(run.model), run.model.template, run.data.system_prompt)
    held = evaluation_data(run.data)
    for split in SPLITS:
        encode_split(split, run.data, template)
        encode_split(split, held, template)
        for source in enabled_sources(held):
            encode_source(source._replace(objectives=READ_FOR[source.name]), split, held, template)
    rows = {
        source.name: {split: load_source(source, split, held).conversations for split in SPLITS}
        for source in enabled_sources(held)
        if source.name in ("goemotions", "esconv")
    }
    checksums = data_checksums(held)
    of = {name: {file: digest for file, digest in checksums.items() if file.startswith(f"{name}/")} for name in rows}
    emotion.text_baselines({split: emotion_rows(found) for split, found in rows["goemotions"].items()}, of["goemotions"])
    strategy.text_baselines({split: strategy_rows(found) for split, found in rows["esconv"].items()}, of["esconv"])


@app.command()
def tune(
    config: ConfigFile,
    data_dir: DataDir = None,
    overrides: Overrides = None,
    only: Only = "",
    seeds: Seeds = "13",
    jobs: Jobs = 6,
    minutes: Minutes = 9.0,
) -> None:
    """Train and score the trials on validation; print them side by side."""
    run = _config(config, data_dir, overrides)
    folder = run.output_dir / "tuning"
    found = list(_trials([name for name in TRIALS if _wanted(name, only)], seeds, folder, config, data_dir, overrides))
    run_jobs(found, jobs, minutes, folder / "logs")
    _show_trials([job.done for job in found])
    write_json(folder / "tuning.json", [read_json(path) for path in sorted(folder.glob("*/results/validation.json"))])


@app.command()
def teach(
    config: ConfigFile,
    data_dir: DataDir = None,
    overrides: Overrides = None,
    seeds: Seeds = "13,14,15",
    jobs: Jobs = 6,
    minutes: Minutes = 9.0,
) -> None:
    """Train runs that `distill.teachers` can name, in <output_dir>/teachers, and ask them about the training rows."""
    folder = _config(config, data_dir, overrides).output_dir / "teachers"
    found = list(_trials(TEACHERS, seeds, folder, config, data_dir, overrides, "--ask"))
    run_jobs(found, jobs, minutes, folder / "logs")
    _show_trials([job.done for job in found])


@app.command(hidden=True)
def trial(
    config: ConfigFile,
    name: Annotated[str, typer.Option()],
    seed: Annotated[int, typer.Option()],
    folder: Annotated[Path, typer.Option()],
    data_dir: DataDir = None,
    overrides: Overrides = None,
    ask: Annotated[bool, typer.Option("--ask", help="It will teach: have the cache keep its opinions.")] = False,
) -> None:
    """One trial."""
    from warmline.evaluation.validation import score_validation
    from warmline.training.loop import train

    own = [f"name={name}", f"seed={seed}", f"output_dir={folder}", "validation.artifact=last", "validation.every=1000000"]
    resolved = _config(config, data_dir, [*(overrides or ()), *own])
    run = train(resolved, resume=(folder / name / "config.yaml").is_file())
    shutil.rmtree(run.checkpoints, ignore_errors=True)
    if ask:
        _ask(run, resolved)
    score_validation(run.path, list(overrides or ()))


def _ask(teacher: RunFolder, config: RunConfig) -> None:
    """Let the cache have a teacher's opinions, so that many runs at a time need not ask at once."""
    from warmline.data.encoding import encode_split
    from warmline.data.template import ChatTemplate
    from warmline.model.transformers_backbone import load_tokenizer
    from warmline.training.device import choose_place
    from warmline.training.teachers import Teachers

    asking = config.model_copy(update={"distill": config.distill.model_copy(update={"teachers": (teacher.path,)})})
    template = ChatTemplate(load_tokenizer(config.model), config.model.template, config.data.system_prompt)
    Teachers(asking, encode_split("train", config.data, template), choose_place(config.training), print)


@app.command()
def runs(
    config: ConfigFile,
    data_dir: DataDir = None,
    overrides: Overrides = None,
    only: Only = "",
    seeds: Seeds = "13,14,15",
    jobs: Jobs = 6,
    minutes: Minutes = 9.0,
    replies: Annotated[int, typer.Option(help="Held-out turns answered in the main run's evaluation.")] = 50,
    eqbench_tokens: Annotated[int, typer.Option(help="Longest EQ-Bench reply.")] = 400,
    bench_dir: Annotated[Path | None, typer.Option(help="Folder with eqbench3/, eqbench_v2/, xstest/ and simple_safety_tests/.")] = None,
) -> None:
    """Train and score every run of the study; --only takes a part (full, no-, lm-only, labels-28, alpha, eqbench, redteam, ...)."""
    run = _config(config, data_dir, overrides)
    study = Study(config, run, data_dir, list(overrides or ()), [int(seed) for seed in seeds.split(",")])
    found = [job for job in study.jobs(replies, eqbench_tokens, bench_dir) if _wanted(job.name, only)]
    run_jobs(found, jobs, minutes, run.output_dir / "logs")


@app.command(hidden=True)
def variant(
    config: ConfigFile,
    name: Annotated[str, typer.Option()],
    seed: Annotated[int, typer.Option()],
    data_dir: DataDir = None,
    overrides: Overrides = None,
) -> None:
    """One run of the ablation."""
    from warmline.ablation.study import run_variant

    run_variant(_config(config, data_dir, overrides), name, seed)


@app.command()
def collect(
    config: ConfigFile,
    out: Annotated[Path, typer.Option(help="Folder to publish in, such as the repository: report.md, results/, safety/, data_cards/.")],
    data_dir: DataDir = None,
    overrides: Overrides = None,
    seeds: Seeds = "13,14,15",
    base: Annotated[str | None, typer.Option(help="Hub id under which others find the base, for the adapter's card.")] = None,
) -> None:
    """Write the main run's report, copy what is small, export the adapter, and bring the headline figures together."""
    from warmline.export.folder import Options, export
    from warmline.reporting.report import write_report
    from warmline.reporting.summary import write_summary

    run = _config(config, data_dir, overrides)
    study = Study(config, run, data_dir, list(overrides or ()), [int(seed) for seed in seeds.split(",")])
    write_report(study.main.path)
    for source, name in study.published():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, out / name)
    if study.main.heads.is_file():  # the weights may have stayed where they were trained
        export(study.main.path, out / "results" / "adapter", Options(base=base, tokenizer=False, overwrite=True), print)
    summary = write_summary(out / "results")
    table = Table("figure", "mean", "low", "high", "seeds", title="summary.json", title_justify="left", box=None)
    for name, one in summary.items():
        if name != "context":
            numbers = ["-" if one[key] is None else f"{one[key]:.4f}" for key in ("mean", "low", "high")]
            table.add_row(name, *numbers, one.get("absent") or ", ".join(map(str, one["seeds"])))
    Console(width=None if sys.stdout.isatty() else 140).print(table)


class Study:
    """Which runs there are, where they lie, and what is made from them.

    Args:
        path: Of the configuration.
        config: Resolved.
        data_dir: As given.
        overrides: As given.
        seeds: That of the main run, and others.
    """

    def __init__(self, path: Path, config: RunConfig, data_dir: str | None, overrides: list[str], seeds: list[int]) -> None:
        self._path, self._config, self._data_dir, self._overrides, self._seeds = path, config, data_dir, overrides, seeds
        self._other_seeds = [seed for seed in seeds if seed != config.seed]
        self.main = RunFolder(config.output_dir / config.name)

    def jobs(self, replies: int, eqbench_tokens: int, bench_dir: Path | None) -> Iterator[Job]:
        """The main run and what reads it stand first: the longest chain."""
        main = f"train-{FULL}-seed{self._config.seed}"
        yield Job(main, _warmline("train", str(self._path), *self._own(), "--resume"), self.main.heads_description)
        yield self._evaluation(f"full-seed{self._config.seed}", self.main, main, replies, baselines=True)
        yield from self._benchmarks(main, eqbench_tokens, bench_dir)
        for seed in self._seeds:
            for name in VARIANTS:
                taken_over = name == FULL and seed == self._config.seed
                yield Job(
                    f"variant-{name}-seed{seed}",
                    _self("variant", str(self._path), *self._own(), "--name", name, "--seed", str(seed)),
                    self._variant(name, seed).ablation_scores,
                    (main,) if taken_over else (),
                )
        for label, more in self._others():
            folder = self._other(label)
            options = self._own([*more, f"name={folder.path.name}"])
            yield Job(f"train-{label}", _warmline("train", str(self._path), *options, "--resume"), folder.heads_description)
            yield self._evaluation(label, folder, f"train-{label}", 0, baselines=False)
        for seed in self._other_seeds:
            yield self._evaluation(f"full-seed{seed}", self._variant(FULL, seed), f"variant-full-seed{seed}", 0, baselines=False)
        every = tuple(f"variant-{name}-seed{seed}" for seed in self._seeds for name in VARIANTS)
        command = _warmline("ablate", str(self._path), *self._own(), "--seeds", ",".join(map(str, self._seeds)))
        yield Job("ablate", command, self.main.ablation_picture, every)

    def published(self) -> list[tuple[Path, str]]:
        """Each small file that is there, and its place in the publication, which is laid out as the main run's folder.

        The run's own records, without which `warmline report` has nothing to say, go to results/run/.
        """
        main = self.main
        found = [(path, f"results/{path.name}") for path in sorted(main.results.glob("*.*"))]
        records = (main.config, main.manifest, main.plan, main.metrics, main.heads_description, main.pipeline)
        found += [(path, f"results/run/{path.name}") for path in records]
        found += [(path, f"data_cards/{path.name}") for path in sorted(main.data_cards.glob("*.*"))]
        found += [(main.report, "report.md"), (main.red_team_sheet, f"safety/{main.red_team_sheet.name}")]
        found += [(main.eq_bench_folder / "transcripts.jsonl", "eqbench/transcripts.jsonl")]
        found += [(self._variant(FULL, seed).evaluation, f"results/full/seed-{seed}.json") for seed in self._other_seeds]
        for label, _ in self._others():
            kind, _, seed_text = label.rpartition("-seed")
            found.append((self._other(label).evaluation, f"results/{kind}/seed-{seed_text}.json"))
        found.append((main.path.parent / "tuning" / "tuning.json", "results/tuning.json"))
        return [(path, name) for path, name in found if path.is_file()]

    def _benchmarks(self, main: str, eqbench_tokens: int, bench_dir: Path | None) -> Iterator[Job]:
        run = str(self.main.path)
        eqbench, suites = (["--eqbench-dir", str(bench_dir / "eqbench3")], ["--suite-dir", str(bench_dir)]) if bench_dir else ([], [])
        yield Job(
            "eqbench", _warmline("eqbench", run, *eqbench, "--max-new-tokens", str(eqbench_tokens), "--batch-size", "48"),
            self.main.eq_bench, (main,),
        )  # fmt: skip
        without = self._variant("no-safety", self._config.seed)
        yield Job(
            "redteam", _warmline("redteam", run, *suites, "--without-kl", str(without.path)), self.main.red_team,
            (main, f"variant-no-safety-seed{self._config.seed}"),
        )  # fmt: skip
        yield Job("errors", _warmline("errors", run), self.main.error_picture, (main,))

    def _others(self) -> Iterator[tuple[str, list[str]]]:
        for seed in self._seeds:
            teachers = [str(path).replace("emotion-seed", "emotion-28-seed") for path in self._config.distill.teachers]
            yield f"labels-28-seed{seed}", [
                f"seed={seed}", "data.sources.goemotions.labels=28", "heads.emotion.class_weights=0",
                f"distill.teachers=[{', '.join(teachers)}]",
            ]  # fmt: skip
        for alpha in ALPHAS:
            if alpha != self._config.data.alpha:
                yield f"alpha-{alpha}-seed{self._config.seed}", [f"data.alpha={alpha}", f"training.max_steps={self._steps}"]

    def _evaluation(self, label: str, folder: RunFolder, after: str, replies: int, baselines: bool) -> Job:
        options = ["--replies", str(replies), *([] if baselines else ["--no-baselines"])]
        return Job(f"evaluate-{label}", _warmline("evaluate", str(folder.path), *options), folder.evaluation, (after,))

    def _variant(self, name: str, seed: int) -> RunFolder:
        return RunFolder(self.main.ablation / f"{self._config.name}-{name}-seed{seed}")

    def _other(self, label: str) -> RunFolder:
        return RunFolder(self._config.output_dir / f"{self._config.name}-{label}")

    def _own(self, more: Sequence[str] = ()) -> list[str]:
        return _options(self._data_dir, [*self._overrides, *more])

    @cached_property
    def _steps(self) -> int:
        """Of the main run: another mixture gets as many, since its draws are longer conversations."""
        from warmline.training.plan import plan_run

        return plan_run(self._config).steps


def run_jobs(jobs: Sequence[Job], at_a_time: int, minutes: float, logs: Path) -> None:
    """Run what is not done, so many at a time, dealt over the GPUs, until the minutes are over; print what became of each."""
    console, began = Console(width=None if sys.stdout.isatty() else 120), time.monotonic()
    logs.mkdir(parents=True, exist_ok=True)
    waiting = [job for job in jobs if not job.done.is_file()]
    outcome = {job.name: "done before" for job in jobs if job.done.is_file()}
    done, asked = set(outcome), {job.name for job in jobs}
    running: dict[int, tuple[Job, subprocess.Popen[bytes], float]] = {}
    while waiting or running:
        if time.monotonic() - began > 60 * minutes:
            break
        for slot in range(at_a_time):
            job = next((one for one in waiting if _ready(one, asked, done)), None) if slot not in running else None
            if job is not None:
                waiting.remove(job)
                running[slot] = job, _start(job, slot, logs), time.monotonic()
        for slot, (job, process, started) in list(running.items()):
            if process.poll() is not None:
                seconds = time.monotonic() - started
                if process.returncode == 0:
                    done.add(job.name)
                    outcome[job.name] = f"{seconds:.0f} s"
                else:
                    outcome[job.name] = f"FAILED after {seconds:.0f} s: {_last_line(job, logs)}"
                console.print(f"{job.name}: {outcome[job.name]}", highlight=False)
                del running[slot]
        if not running and not any(_ready(one, asked, done) for one in waiting):
            break
        time.sleep(0.5)
    for job, process, _ in running.values():
        process.terminate()
        process.wait()  # so that the next call does not meet it
        outcome[job.name] = "stopped: out of time"
    table = Table("job", "outcome", title=f"{time.monotonic() - began:.0f} s", title_justify="left", box=None)
    for job in jobs:
        table.add_row(job.name, outcome.get(job.name, "not begun"))
    console.print(table)


def _wanted(name: str, only: str) -> bool:
    return any(part in name for part in only.split(","))


def _trials(
    names: Sequence[str], seeds: str, folder: Path, config: Path, data_dir: str | None, overrides: Sequence[str] | None, *more: str
) -> Iterator[Job]:
    for name, seed in ((name, seed) for name in names for seed in seeds.split(",")):
        options = _options(data_dir, [*START, *(overrides or ()), *TRIALS[name]])
        own = ("--name", f"{name}-seed{seed}", "--seed", seed, "--folder", str(folder))
        done = folder / f"{name}-seed{seed}" / "results" / "validation.json"
        yield Job(f"{name}-seed{seed}", _self("trial", str(config), *options, *own, *more), done)


def _ready(job: Job, asked: set[str], done: set[str]) -> bool:
    """Whether what it needs is done; a job that was not asked for is taken as done earlier."""
    return all(name in done or name not in asked for name in job.after)


def _start(job: Job, slot: int, logs: Path) -> "subprocess.Popen[bytes]":
    gpus = [number for number in os.environ.get("CUDA_VISIBLE_DEVICES", _all_gpus()).split(",") if number]
    chosen = {"CUDA_VISIBLE_DEVICES": gpus[slot % len(gpus)]} if gpus else {}
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2"), "TOKENIZERS_PARALLELISM": "false", **chosen}
    with (logs / f"{job.name}.log").open("wb") as log:
        return subprocess.Popen(job.command, stdout=log, stderr=subprocess.STDOUT, env=environment)  # noqa: S603 - our own command


def _all_gpus() -> str:
    import torch

    return ",".join(map(str, range(torch.cuda.device_count())))


def _last_line(job: Job, logs: Path) -> str:
    lines = (logs / f"{job.name}.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else "no output"


def _show_trials(paths: Sequence[Path]) -> None:
    columns = {
        "emotion_accuracy": "emotion", "emotion_macro_f1": "F1", "emotion_28_macro_f1": "28 F1", "strategy_accuracy": "strategy",
        "strategy_macro_f1": "F1", "strategy_own_accuracy": "own", "strategy_own_macro_f1": "own F1", "lm": "lm",
    }  # fmt: skip
    table = Table("trial", *columns.values(), "seconds", title="validation", title_justify="left", box=None)
    for path in paths:
        if path.is_file():
            one = read_json(path)
            cells = ["-" if one["scores"].get(name) is None else f"{one['scores'][name]:.4f}" for name in columns]
            table.add_row(one["context"]["run"], *cells, f"{one['seconds']:.0f}")
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _config(path: Path, data_dir: str | None, overrides: Sequence[str] | None) -> RunConfig:
    return load_config(path, [*([f"data.dir={data_dir}"] if data_dir else []), *(overrides or ())])


def _options(data_dir: str | None, overrides: Sequence[str]) -> list[str]:
    return [*(["--data-dir", data_dir] if data_dir else []), *(part for override in overrides for part in ("--set", override))]


def _warmline(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "warmline", *arguments)


def _self(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, __file__, *arguments)


if __name__ == "__main__":
    try:
        app()
    except WarmlineError as error:
        raise SystemExit(f"study: {error}") from None
