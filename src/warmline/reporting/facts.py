"""What a report is made from: the run's own records and the results that are there, each checked to be of this artefact."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from warmline.config import RunConfig, load_config
from warmline.data.cards import write_cards
from warmline.data.enabled import SAMPLE
from warmline.errors import WarmlineError
from warmline.model.description import read_description
from warmline.runs import RunFolder, parse_json, read_json, read_manifest
from warmline.sources import SOURCES


def loss_names(heads: Iterable[str]) -> dict[str, str]:
    """What `metrics.jsonl` calls its losses, and in words."""
    return {
        "total": "total",
        "lm": "language model, nats a reply token",
        **{name: f"{name}, nats" for name in heads},
        "safety": "KL on safety replies, nats a token",
        "task_kl": "KL on task replies, nats a token",
    }


def enabled_names(config: RunConfig) -> list[str]:
    """The data sets of a run."""
    return [name for name in SOURCES if config.data.sources[name].enabled]


def inherited_terms(config: RunConfig) -> dict[str, str]:
    """The licence that the tuned weights inherit, by the data set's title; none of the sample, which was written for this package."""
    facts = [SOURCES[name].facts for name in enabled_names(config) if config.data.dir != SAMPLE]
    return {one.title: one.inherits for one in facts if one.inherits is not None}


class Absent(NamedTuple):
    """A results file that cannot be used: why, and the command that makes it."""

    why: str
    command: str


class Facts(NamedTuple):
    """Everything a report may say.

    Attributes:
        folder: The run.
        config: Its configuration.
        manifest: Its versions, checksums and machine.
        plan: Its arithmetic.
        heads: Its artefact.
        training: What `metrics.jsonl` says, in sum.
        results: By name, the content of each results file or why there is none.
        commands: By name, what makes each file.
        cards: By source, the data card's place relative to the folder.
        cards_reason: Why there is none.
        quick: Whether `warmline run` cut steps short.
    """

    folder: RunFolder
    config: RunConfig
    manifest: dict[str, Any]
    plan: dict[str, Any]
    heads: dict[str, Any]
    training: dict[str, Any]
    results: dict[str, dict[str, Any] | Absent]
    commands: dict[str, str]
    cards: dict[str, str]
    cards_reason: str | None
    quick: bool


@contextmanager
def shape_errors(facts: Facts, name: str | None) -> Iterator[None]:
    """Say which file lacks something that the report needs: it is of another version, or was changed by hand.

    Args:
        facts: Of the run.
        name: Of the result that is being told; None for the run's own records.

    Raises:
        WarmlineError: as said.
    """
    try:
        yield
    except (jinja2.UndefinedError, LookupError, TypeError, AttributeError, ValueError) as error:
        place = f"the results of `{facts.commands[name]}`" if name else "the run's own records"
        raise WarmlineError(f"{facts.folder.path}: {place} lack what the report needs ({error!r}); make them again") from None


def gather(path: Path, cards: bool = True) -> Facts:
    """Read a finished run folder.

    Args:
        path: The folder.
        cards: Write its data cards where they are missing and the data are there.

    Raises:
        WarmlineError: an unfinished run, a damaged file.
    """
    folder = RunFolder.open(path)
    config, heads = load_config(folder.config), read_description(folder)
    commands = commands_of(config.output_dir / config.name)
    files = {
        "evaluation": folder.evaluation,
        "errors": folder.error_taxonomy,
        "examples": folder.examples,
        "facts": folder.facts,
        "eqbench": folder.eq_bench,
        "comparison": folder.comparison,
        "ablation": folder.ablation_results,
        "safety": folder.red_team,
    }
    results = {name: _result(file, commands[name], config, heads) for name, file in files.items()}
    training = summarise_training(folder, heads["step"])
    manifest, plan = read_manifest(folder), read_json(folder.plan)
    reason = _write_missing_cards(folder, config) if cards else None
    written = {card.stem: f"{folder.data_cards.name}/{card.name}" for card in sorted(folder.data_cards.glob("*.md"))}
    quick = folder.pipeline.is_file() and "quick" in read_json(folder.pipeline).values()
    return Facts(folder, config, manifest, plan, heads, training, results, commands, written, reason, quick)


def commands_of(run: Path, config: Path | None = None, more: str = "") -> dict[str, str]:
    """By name, the command that makes each file of a run.

    Args:
        run: The run folder.
        config: The configuration file; the one in the run folder by default.
        more: Options of the commands that take a configuration.
    """
    folder, file = run.as_posix(), (config or run / "config.yaml").as_posix()
    return {
        "run": f"warmline run {file}{more}",
        "train": f"warmline train {file}{more}",
        "evaluation": f"warmline evaluate {folder}",
        "errors": f"warmline errors {folder}",
        "examples": f"warmline errors {folder}",
        "facts": f"warmline facts {folder}",
        "eqbench": f"warmline eqbench {folder}",
        "comparison": f"warmline compare {folder}",
        "ablation": f"warmline ablate {file}{more}",
        "safety": f"warmline redteam {folder}",
        "report": f"warmline report {folder}",
    }


def _result(path: Path, command: str, config: RunConfig, heads: dict[str, Any]) -> dict[str, Any] | Absent:
    if not path.is_file():
        return Absent(f"there is no `{path.parent.name}/{path.name}`", command)
    content = read_json(path)
    try:
        context = content["context"]
        wanted = {"run": config.name, "base_model": heads["base_model"], "base_revision": heads["base_revision"], "seed": config.seed}
        wanted |= {"step": heads["step"], "weights_sha256": heads["weights_sha256"]}
        for key, value in wanted.items():
            if key in context and context[key] != value:
                return Absent(f"`{path.parent.name}/{path.name}` is of another artefact ({key} {context[key]}, here {value})", command)
    except (TypeError, KeyError):
        raise WarmlineError(f"{path}: has no `context`; make it again with `{command}`") from None
    return dict(content)


def _write_missing_cards(folder: RunFolder, config: RunConfig) -> str | None:
    names = [f"{name}.{kind}" for name in enabled_names(config) for kind in ("md", "png")]
    if all((folder.data_cards / name).is_file() for name in names):
        return None
    try:
        write_cards(config.data, folder.data_cards)
    except WarmlineError as error:
        return str(error)
    return None


def summarise_training(folder: RunFolder, step: int) -> dict[str, Any]:
    """Sums over `metrics.jsonl`, and its validations at the start and at the artefact's step.

    Raises:
        WarmlineError: the file is missing or damaged.
    """
    try:
        lines = [parse_json(line) for line in folder.metrics.read_text(encoding="utf-8").splitlines()]
        train = [line for line in lines if line["kind"] == "train"]
        validation = {line["step"]: line for line in lines if line["kind"] == "validation"}
        tokens, seconds = sum(line["tokens"] for line in train), sum(line["seconds"] for line in train)
        return {
            "steps": len(train),
            "first_step": train[0]["step"],
            "tokens": tokens,
            "seconds": seconds,
            "tokens_per_second": tokens / seconds,
            "fill": sum(line["fill"] for line in train) / len(train),
            "validation": {f"step {at} (the base)" if at == 0 else f"step {at}": validation[at] for at in (0, step)},
        }
    except (OSError, ValueError, KeyError, IndexError, ZeroDivisionError) as error:
        raise WarmlineError(f"{folder.metrics}: missing or damaged ({error!r}); train the run again") from None
