"""The whole study on real data: tuning on validation, every run at every seed, and what is published of it.

    python research/study.py prepare  CONFIG --data-dir DATA      # encode the data, once
    python research/study.py tune     CONFIG --data-dir DATA      # trials of TRIALS, scored on validation
    python research/study.py runs     CONFIG --data-dir DATA      # seeds x variants, 28 labels, alpha, then their scores
    python research/study.py pack     CONFIG --out PARTS          # what collect needs, to take home from a borrowed GPU
    python research/study.py collect  CONFIG --data-dir DATA --out results/STUDY      # a run folder of small files

Each job is a process of its own, `--jobs` at a time, dealt over the GPUs there are. What is done is skipped, what was interrupted goes on,
so that the same command can be given again; `--minutes` stops in time. Logs lie in <output_dir>/logs. A short table comes last.
`--only TEXT,TEXT` takes the jobs whose names hold one of them.

`pack` works at any time, also while runs go on: a gzipped tar in parts, small files first, then the weights of the main run and of those
whose names hold `--weights`. `cat PARTS/study.tar.gz.* | tar -xzf - -C runs` opens it; of parts that break off, what came still opens.
"""

import shutil
import sys
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from jobs import Job, run_jobs
from parts import NAME, write_parts
from summary import write_summary
from trials import START, TRIALS
from warmline.ablation.variants import FULL, all_variants
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


@app.command()
def prepare(config: ConfigFile, data_dir: DataDir = None, overrides: Overrides = None) -> None:
    """Encode every split, so that many processes need not do it at once."""
    from warmline.conversation import SPLITS
    from warmline.data.encoding import encode_split
    from warmline.data.template import ChatTemplate
    from warmline.model.base import load_tokenizer

    run = _config(config, data_dir, overrides)
    template = ChatTemplate(load_tokenizer(run.model), run.model.template, run.data.system_prompt)
    for split in SPLITS:
        encode_split(split, run.data, template)


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
    _bring_trials_together(found, folder)


@app.command(hidden=True)
def trial(
    config: ConfigFile,
    name: Annotated[str, typer.Option()],
    seed: Annotated[int, typer.Option()],
    folder: Annotated[Path, typer.Option()],
    data_dir: DataDir = None,
    overrides: Overrides = None,
) -> None:
    """One trial."""
    from warmline.training.loop import train

    own = [f"name={name}", f"seed={seed}", f"output_dir={folder}", "validation.artifact=last", "validation.every=1000000"]
    resolved = _config(config, data_dir, [*(overrides or ()), *own])
    run = train(resolved, resume=(folder / name / "config.yaml").is_file())
    shutil.rmtree(run.checkpoints, ignore_errors=True)
    score_validation(run.path, list(overrides or ()))


def score_validation(path: Path, changes: Sequence[str]) -> None:
    """Score the heads on every validation row and repeat the last validation losses of the training: `results/validation.json`."""
    import numpy as np

    from warmline.data.encoding import encode_split
    from warmline.evaluation.finished import FinishedRun
    from warmline.metrics.statistics import macro_f1, point
    from warmline.tasks.task import sole
    from warmline.training.curves import read_metrics

    finished, scores = FinishedRun.open(path), {}
    encoded = encode_split("valid", finished.config.data, finished.template)
    for task in finished.config.tasks:
        if not (carrying := [source for source in encoded if task.name in source.labels]):
            continue
        found = finished.reader.read(task.name, carrying)
        kept = sole(found.labels, task.classes)
        truth = found.labels[kept].argmax(axis=1)
        for kind, logits in (("", found.logits), ("_own", found.own_choices)):
            guess = logits[kept][:, : task.classes].argmax(axis=1)
            scores[f"{task.name}{kind}_accuracy"] = float(np.mean(truth == guess))
            scores[f"{task.name}{kind}_macro_f1"] = point(macro_f1(truth, guess, task.classes), len(truth))
    lines = read_metrics(finished.folder)
    last = next(line for line in reversed(lines) if line["kind"] == "validation")
    steps = [line for line in lines if line["kind"] == "train"]
    result = {
        "context": {**finished.context(), "split": "valid"},
        "changes": list(changes),
        "scores": {**scores, "lm": last["lm"], "safety_kl": last["safety"], "task_kl": last["task_kl"]},
        "steps": len(steps),
        "seconds": sum(line["seconds"] for line in steps),
        "tokens": sum(line["tokens"] for line in steps),
    }
    write_json(finished.folder.results / "validation.json", result)


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
    eqbench_tokens: Annotated[int, typer.Option(help="Longest EQ-Bench reply; its prompts ask for about 1,350 tokens.")] = 2048,
    bench_dir: Annotated[Path | None, typer.Option(help="Folder with eqbench3/, eqbench_v2/, xstest/ and simple_safety_tests/.")] = None,
) -> None:
    """Train and score every run of the study; --only takes a part (full, no-, lm-only, labels-28, alpha, eqbench, redteam, ...)."""
    study = _study(config, data_dir, overrides, seeds)
    found = [job for job in study.jobs(replies, eqbench_tokens, bench_dir) if _wanted(job.name, only)]
    run_jobs(found, jobs, minutes, study.main.path.parent / "logs")


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
def pack(
    config: ConfigFile,
    out: Annotated[Path, typer.Option(help="Folder for the parts.")],
    overrides: Overrides = None,
    seeds: Seeds = "13,14,15",
    weights: Annotated[str, typer.Option(help="Beside the main run's, the weights of runs whose names hold one of these.")] = "full",
    part_mib: Annotated[float, typer.Option(min=0.001, help="Largest part.")] = 15.0,
) -> None:
    """Archive what there is by now, to collect it elsewhere: small files first, then weights; no checkpoints."""
    study = _study(config, None, overrides, seeds)
    top = study.main.path.parent
    files = [(path, path.relative_to(top).as_posix()) for path in study.packed(weights)]
    parts = write_parts(files, out, int(part_mib * 2**20))
    table = Table("part", "MiB", title=f"{len(files)} files; cat {NAME}.* | tar -xzf - -C {top}", title_justify="left", box=None)
    for path in parts:
        table.add_row(path.name, f"{path.stat().st_size / 2**20:.2f}")
    Console(width=None if sys.stdout.isatty() else 120).print(table)


@app.command()
def collect(
    config: ConfigFile,
    out: Annotated[Path, typer.Option(help="Folder to publish in: report.md, config.yaml, results/, safety/, ...")],
    data_dir: DataDir = None,
    overrides: Overrides = None,
    seeds: Seeds = "13,14,15",
    base: Annotated[str | None, typer.Option(help="Hub id under which others find the base, for the adapter's card.")] = None,
) -> None:
    """Write the main run's report, copy what is small, export the adapter, and bring the headline figures together."""
    from warmline.export.folder import Options, export
    from warmline.reporting.report import write_report

    study = _study(config, data_dir, overrides, seeds)
    write_report(study.main.path)
    for source, name in study.published():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, out / name)
    if study.main.heads.is_file():  # the weights may have stayed where they were trained
        export(study.main.path, out / "export", Options(base=base, tokenizer=False, overwrite=True), print)
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
            for name in all_variants():
                taken_over = name == FULL and seed == self._config.seed
                yield Job(
                    f"variant-{name}-seed{seed}",
                    _self("variant", str(self._path), *self._own(), "--name", name, "--seed", str(seed)),
                    self._variant(name, seed).ablation_scores,
                    (main,) if taken_over else (),
                )
                if name == FULL and not taken_over:
                    yield self._evaluation(f"full-seed{seed}", self._variant(FULL, seed), f"variant-full-seed{seed}", 0, baselines=False)
        for label, more in self._others():
            folder = self._other(label)
            options = self._own([*more, f"name={folder.path.name}"])
            yield Job(f"train-{label}", _warmline("train", str(self._path), *options, "--resume"), folder.heads_description)
            yield self._evaluation(label, folder, f"train-{label}", 0, baselines=False)
        every = tuple(f"variant-{name}-seed{seed}" for seed in self._seeds for name in all_variants())
        command = _warmline("ablate", str(self._path), *self._own(), "--seeds", ",".join(map(str, self._seeds)))
        yield Job("ablate", command, self.main.ablation_picture, every)

    def published(self) -> list[tuple[Path, str]]:
        """Each small file that is there, and its place in the publication: the main run's folder, others' scores in results/."""
        main = self.main
        found = [(path, f"results/{path.name}") for path in sorted(main.results.glob("*.*"))]
        records = (main.config, main.manifest, main.plan, main.metrics, main.heads_description, main.pipeline)
        found += [(path, path.name) for path in records]
        found += [(path, f"data_cards/{path.name}") for path in sorted(main.data_cards.glob("*.*"))]
        found += [(main.report, "report.md"), (main.red_team_sheet, f"safety/{main.red_team_sheet.name}")]
        found += [(main.eq_bench_folder / "transcripts.jsonl", "eqbench/transcripts.jsonl")]
        found += [(self._variant(FULL, seed).evaluation, f"results/full/seed-{seed}.json") for seed in self._other_seeds]
        for label, _ in self._others():
            kind, _, seed_text = label.rpartition("-seed")
            found.append((self._other(label).evaluation, f"results/{kind}/seed-{seed_text}.json"))
        found.append((main.path.parent / "tuning" / "tuning.json", "results/tuning.json"))
        return [(path, name) for path, name in found if path.is_file()]

    def packed(self, weights: str) -> list[Path]:
        """Files from which `collect` can go on elsewhere: the small ones first, then weights of the main run and of those asked for."""
        top, name = self._config.output_dir, self._config.name
        ours = (name, f"{name}-*", "tuning", "logs")
        found = sorted(path for pattern in ours for path in top.glob(f"{pattern}/**/*") if path.is_file())
        kept = [path for path in found if "checkpoints" not in path.parts and not path.name.startswith(".")]
        small = [path for path in kept if path.suffix != ".safetensors"]
        wanted = [path for path in kept if path.suffix == ".safetensors" and self._weights_wanted(path, weights)]
        return small + sorted(wanted, key=lambda path: not self._is_main(path))

    def _weights_wanted(self, path: Path, asked: str) -> bool:
        """They are a finished run's: the main one's, or one's of its own whose name holds what was asked for."""
        run = next(RunFolder(folder) for folder in path.parents if (folder / "config.yaml").is_file())
        others = not run.origin.is_file() and _wanted(run.path.name, asked)
        return run.heads_description.is_file() and (self._is_main(path) or others)

    def _is_main(self, path: Path) -> bool:
        return path.is_relative_to(self.main.path) and not path.is_relative_to(self.main.ablation)

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
            yield f"labels-28-seed{seed}", [f"seed={seed}", "data.sources.goemotions.labels=28", "heads.emotion.class_weights=0"]
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


def _wanted(name: str, only: str) -> bool:
    return any(part in name for part in only.split(","))


def _trials(
    names: Sequence[str], seeds: str, folder: Path, config: Path, data_dir: str | None, overrides: Sequence[str] | None
) -> Iterator[Job]:
    for name, seed in ((name, seed) for name in names for seed in seeds.split(",")):
        options = _options(data_dir, [*START, *(overrides or ()), *TRIALS[name]])
        own = ("--name", f"{name}-seed{seed}", "--seed", seed, "--folder", str(folder))
        done = folder / f"{name}-seed{seed}" / "results" / "validation.json"
        yield Job(f"{name}-seed{seed}", _self("trial", str(config), *options, *own), done)


def _bring_trials_together(asked: Sequence[Job], folder: Path) -> None:
    """Print the scores of those asked for; write those of all in the folder, under its name."""
    _show_trials([job.done for job in asked])
    write_json(folder / f"{folder.name}.json", [read_json(path) for path in sorted(folder.glob("*/results/validation.json"))])


def _show_trials(paths: Sequence[Path]) -> None:
    columns = {
        "emotion_accuracy": "emotion", "emotion_macro_f1": "F1", "strategy_accuracy": "strategy",
        "strategy_macro_f1": "F1", "strategy_own_accuracy": "own", "strategy_own_macro_f1": "own F1", "lm": "lm",
    }  # fmt: skip
    table = Table("trial", *columns.values(), "seconds", title="validation", title_justify="left", box=None)
    for path in paths:
        if path.is_file():
            one = read_json(path)
            cells = ["-" if one["scores"].get(name) is None else f"{one['scores'][name]:.4f}" for name in columns]
            table.add_row(one["context"]["run"], *cells, f"{one['seconds']:.0f}")
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _study(path: Path, data_dir: str | None, overrides: Sequence[str] | None, seeds: str) -> Study:
    config = _config(path, data_dir, overrides)
    return Study(path, config, data_dir, list(overrides or ()), [int(seed) for seed in seeds.split(",")])


def _config(path: Path, data_dir: str | None, overrides: Sequence[str] | None) -> RunConfig:
    return load_config(path, overrides or (), data_dir)


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
