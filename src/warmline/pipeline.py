"""`warmline run`: every step in order. A step whose output is newer than the artefact is skipped, so an interrupted run goes on."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from warmline.config import RunConfig, load_config
from warmline.lock import hold
from warmline.model import REPLY_TOKENS
from warmline.runs import RunFolder, read_json, write_json


class Budget(NamedTuple):
    """How much the steps after training do.

    Attributes:
        name: Written down for each step; a step done with another is done again.
        prompts: Most held-out prompts of one data set that base and tuned model answer.
        reply_tokens: Longest reply to those and to the red team.
        questions: Questions of fact that both answer, each in three ways; None is all.
        compared: Turns that base, tuned and voiced base answer for whoever judges them later.
        eqbench_tokens: Longest EQ-Bench reply; None is the protocol's.
        ablation_steps: Optimiser steps of each ablation run; None is all.
        ablation_conversations: Test conversations of each source that score an ablation; None is all.
        probe_rows: Training rows of an ablation's linear probe.
    """

    name: str
    prompts: int
    reply_tokens: int
    questions: int | None
    compared: int
    eqbench_tokens: int | None
    ablation_steps: int | None
    ablation_conversations: int | None
    probe_rows: int


FULL = Budget(
    name="full",
    prompts=20,
    reply_tokens=REPLY_TOKENS,
    questions=None,
    compared=100,
    eqbench_tokens=None,
    ablation_steps=None,
    ablation_conversations=None,
    probe_rows=4000,
)
QUICK = Budget(
    name="quick", prompts=8, reply_tokens=64, questions=16, compared=8, eqbench_tokens=24, ablation_steps=8, ablation_conversations=6,
    probe_rows=100,
)  # fmt: skip
"""For a demonstration on a CPU; every results file says how far it was cut. warmline-nano's replies end within 64 tokens."""


class Step(NamedTuple):
    """One step.

    Attributes:
        name: As its command.
        output: The file that it writes last; None for a step that is done each time.
        act: Does it.
    """

    name: str
    output: Callable[[RunFolder], Path] | None
    act: Callable[[RunConfig, RunFolder, Budget], object]


def run_steps(config: RunConfig, budget: Budget, steps: Sequence[Step] | None = None, console: Console | None = None) -> RunFolder:
    """Train, then do every step that is not done.

    Args:
        config: Of the run.
        budget: How much the steps do.
        steps: After training; None is all of STEPS.
        console: Says what is done and what is skipped.

    Returns:
        The run folder.

    Raises:
        WarmlineError: as the steps.
    """
    folder = RunFolder(config.output_dir / config.name)
    folder.refuse_strangers()
    with hold(folder.path, "run"):
        _run_steps(config, folder, budget, STEPS if steps is None else steps, console or Console())
    return folder


def _run_steps(config: RunConfig, folder: RunFolder, budget: Budget, steps: Sequence[Step], console: Console) -> None:
    if folder.heads_description.is_file() and load_config(folder.config) == config:
        console.print(f"train: done before ({folder.heads_description})", highlight=False)
    else:
        console.rule("train", align="left")
        _train(config, folder)
    done: dict[str, str] = read_json(folder.pipeline) if folder.pipeline.is_file() else {}
    for step in steps:
        output = step.output(folder) if step.output else None
        if output is not None and is_newer(output, folder.heads_description) and done.get(step.name, budget.name) == budget.name:
            console.print(f"{step.name}: done before ({output})", highlight=False)
            continue
        console.rule(step.name, align="left")
        step.act(config, folder, budget)
        done[step.name] = budget.name
        write_json(folder.pipeline, done)
        console.print(f"{step.name}: {output or 'done'}", highlight=False)
    console.print(f"read {folder.report}", highlight=False)


def is_newer(output: Path, artefact: Path) -> bool:
    """Whether a step's output was written after the artefact that it is about."""
    return output.is_file() and output.stat().st_mtime_ns >= artefact.stat().st_mtime_ns


def _train(config: RunConfig, folder: RunFolder) -> None:
    from warmline.training.loop import train

    train(config, resume=folder.config.exists())


def _evaluate(_: RunConfig, folder: RunFolder, budget: Budget) -> object:
    from warmline.evaluation.evaluate import evaluate

    return evaluate(folder.path, replies=budget.prompts, longest=budget.reply_tokens)


def _errors(_: RunConfig, folder: RunFolder, budget: Budget) -> object:
    from warmline.evaluation.errors import analyse

    return analyse(folder.path, budget.prompts, budget.reply_tokens)


def _facts(_: RunConfig, folder: RunFolder, budget: Budget) -> object:
    from warmline.evaluation.facts import ask_facts

    return ask_facts(folder.path, budget.questions, budget.reply_tokens)


def _compare(_: RunConfig, folder: RunFolder, budget: Budget) -> object:
    from warmline.evaluation.compare import compare

    return compare(folder.path, budget.compared, budget.reply_tokens)


def _eqbench(_: RunConfig, folder: RunFolder, budget: Budget) -> object:
    from warmline.eqbench.run import Players, Selection, eq_bench

    players = Players() if budget.eqbench_tokens is None else Players(max_new_tokens=budget.eqbench_tokens)
    return eq_bench(folder.path, Selection(), players)


def _ablate(config: RunConfig, _: RunFolder, budget: Budget) -> object:
    from warmline.ablation.scores import ScoreSettings
    from warmline.ablation.study import ablate

    return ablate(config, max_steps=budget.ablation_steps, settings=ScoreSettings(budget.ablation_conversations, budget.probe_rows))


def _redteam(config: RunConfig, folder: RunFolder, budget: Budget) -> object:
    from warmline.redteam.run import RedTeamOptions, red_team

    options, found = RedTeamOptions(max_new_tokens=budget.reply_tokens), _without_safety(config, budget)
    return red_team(folder.path, options._replace(without_kl=found) if isinstance(found, Path) else options._replace(why_not=found))


def _without_safety(config: RunConfig, budget: Budget) -> Path | str:
    """The ablation's run without the safety term, or why there is none to compare with."""
    from warmline.ablation.variants import choose_variants, trained_objectives, variant_config

    if "safety" not in trained_objectives(config):
        return "this run was itself trained without it"
    if budget.ablation_steps is not None:
        return f"the ablation's runs were cut to {budget.ablation_steps} steps, no match for this one"
    left_out = choose_variants(config, None).left_out
    if "no-safety" in left_out:
        return f"the ablation has none (no-safety: {left_out['no-safety']})"
    without = variant_config(config, "no-safety", config.seed)
    run = RunFolder(without.output_dir / without.name)
    if not run.heads_description.is_file():
        return f"the ablation has no finished {without.name}; `warmline ablate` trains it"
    return run.path


def _cards(config: RunConfig, folder: RunFolder, _: Budget) -> object:
    from warmline.data.cards import write_cards

    return write_cards(config.data, folder.data_cards)


def _report(_: RunConfig, folder: RunFolder, __: Budget) -> object:
    from warmline.reporting.report import write_report

    return write_report(folder.path)


STEPS: tuple[Step, ...] = (
    Step("evaluate", lambda folder: folder.evaluation, _evaluate),
    Step("errors", lambda folder: folder.error_picture, _errors),
    Step("facts", lambda folder: folder.facts, _facts),
    Step("compare", lambda folder: folder.comparison, _compare),
    Step("eqbench", lambda folder: folder.eq_bench, _eqbench),
    Step("ablate", lambda folder: folder.ablation_picture, _ablate),
    Step("redteam", lambda folder: folder.red_team_sheet, _redteam),
    Step("data card", lambda folder: folder.data_cards / "safety.md", _cards),
    Step("report", None, _report),
)
