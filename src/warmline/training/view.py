"""What a person sees while a run trains: a live table in a terminal, a line now and then elsewhere."""

import time
from collections.abc import Iterable, Iterator
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from warmline.runs import RunFolder
from warmline.tasks import TASKS, all_objectives
from warmline.training.plan import MANY_PASSES, Plan

_LINE_EVERY = 5.0
"""Seconds between lines when the output is no terminal."""


class View:
    """Progress of a run.

    Args:
        quiet: Show nothing: ranks other than the first, tests.
        console: Where to; None is standard output.
    """

    def __init__(self, quiet: bool = False, console: Console | None = None) -> None:
        self._quiet = quiet
        self._console = console or Console()
        self._live: Live | None = None
        self._last_line = 0.0
        self._train: dict[str, Any] = {}
        self._validation: dict[str, Any] = {}
        self._first_validation: dict[str, Any] = {}
        self._bar = Progress(
            TextColumn("step"), MofNCompleteColumn(), BarColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
            console=self._console,
        )  # fmt: skip
        self._task: TaskID | None = None

    def say(self, text: str) -> None:
        """One line about what is going on."""
        if not self._quiet:
            self._console.print(text, style="dim", highlight=False)

    def start(self, plan: Plan, step: int) -> None:
        """Training begins after `step` steps."""
        if self._quiet:
            return
        self.show_plan(plan)
        self._task = self._bar.add_task("train", total=plan.steps, completed=step)
        if self._console.is_terminal:
            self._live = Live(self._bar, console=self._console, refresh_per_second=4)
            self._live.start()

    def show_plan(self, plan: Plan) -> None:
        """The run's arithmetic."""
        self._console.print(plan_summary(plan))

    def show(self, line: dict[str, Any]) -> None:
        """A line of `metrics.jsonl`."""
        if self._quiet:
            return
        if line["kind"] == "train":
            self._train = line
            if self._task is not None:
                self._bar.update(self._task, completed=line["step"])
        else:
            self._validation = line
            self._first_validation = self._first_validation or line
        if self._live is not None:
            self._live.update(self._table())
        elif line["kind"] == "validation" or time.monotonic() - self._last_line > _LINE_EVERY:
            self._last_line = time.monotonic()
            self._console.print(_as_text(line), highlight=False, soft_wrap=True)

    def done(self, run: RunFolder, best_step: int, trained: str) -> None:
        """The artefact is written; `trained` says over how many steps, and why not over all."""
        self.close()
        if not self._quiet:
            self._console.print(f"done: {trained}; best validation at step {best_step}; run folder {run.path}", highlight=False)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _named(self, names: Iterable[str]) -> list[str]:
        """Those that this run has."""
        return [name for name in names if name in self._train or name in self._validation]

    def _table(self) -> Table:
        table = Table(title=f"{self._train.get('tokens_per_second', 0):,.0f} tokens/s", title_justify="left", box=None)
        for column in ("loss (nats)", "train", "validation", "at start"):
            table.add_column(column, justify="left" if column.startswith("loss") else "right")
        for name in self._named(all_objectives()):
            table.add_row(name, *(_number(line.get(name)) for line in (self._train, self._validation, self._first_validation)))
        for accuracy in self._named(f"{head}_accuracy" for head in TASKS):
            table.add_row(
                accuracy.replace("_", " "), "", *(_percent(line.get(accuracy)) for line in (self._validation, self._first_validation))
            )
        for share in self._named(("flawed", "forms_kept")):
            table.add_row(share.replace("_", " "), "", *(_percent(line.get(share)) for line in (self._validation, self._first_validation)))
        whole = Table.grid()
        whole.add_row(table)
        whole.add_row(self._bar)
        return whole


def plan_summary(plan: Plan) -> Group:
    """The plan as a person reads it."""
    table = Table(title="plan", title_justify="left", box=None, padding=(0, 1, 0, 0), pad_edge=False)  # 80 columns with what follows
    for column in ("source", "conver-\nsations", "share", "drawn", "passes", *(f"{name}\ntargets" for name in plan.targets)):
        table.add_column(column, justify="left" if column == "source" else "right")
    for at, name in enumerate(plan.sources):
        of_targets = (plan.target_shares[objective][at] for objective in plan.targets)
        table.add_row(
            name, f"{plan.conversations[at]:,}", f"{plan.probabilities[at]:.1%}", f"{plan.realised[at]:.1%}", f"{plan.passes[at]:.1f}",
            *(f"{share:.1%}" if share else "-" for share in of_targets),
        )  # fmt: skip
    targets = ", ".join(f"{number:,} {name}" for name, number in plan.targets.items())
    memory = ", ".join(f"{name} {size:.2f}" for name, size in plan.memory_gib.items())
    text = (
        f"{plan.draws:,} conversations, {plan.tokens:,} tokens in {plan.steps:,} steps of {plan.rows_per_step} rows x "
        f"{plan.row_tokens:,} tokens ({plan.fill:.1%} full)\n"
        f"targets: {targets}\n"
        f"{plan.trainable:,} of {plan.parameters:,} parameters train; estimated memory {sum(plan.memory_gib.values()):.1f} GiB "
        f"({memory}), checkpointing: {plan.checkpointing}\n"
        f"backend: {plan.backend} ({plan.backend_reason})"
    )
    notes = [*_notes(plan), text]
    warning = _warning(plan)
    return Group(table, Text("\n".join(notes)), *([Text(warning, style="yellow")] if warning else []))


def _notes(plan: Plan) -> Iterator[str]:
    """What the table cannot say: which conversations are in parts, and which sources leave the mixture."""
    split = [f"{number} of {name}" for name, number in zip(plan.sources, plan.split_conversations, strict=True) if number]
    if split:
        yield f"split to fit a row, and counted in parts: {', '.join(split)}"
    leaving = [f"{name} after step {step}" for name, step in zip(plan.sources, plan.leaves_after, strict=True) if step is not None]
    if leaving:
        yield f"leaves the mixture at data.max_passes: {', '.join(leaving)}"
    if plan.ends_by == "data.max_passes":
        yield "then nothing is left, and the run ends before training.epochs is over"


def _warning(plan: Plan) -> str | None:
    """One line on the sources that are passed too often."""
    often = [
        f"{name} {passes:.1f} times with {share:.1%} of the lm targets"
        for name, passes, share in zip(plan.sources, plan.passes, plan.target_shares["lm"], strict=True)
        if passes > MANY_PASSES
    ]
    if not often:
        return None
    return (
        f"warning: passed more than {MANY_PASSES} times, which was too often for ESConv (docs/study.md): {', '.join(often)}; "
        "set data.alpha nearer 1, data.max_passes, or fewer training.epochs"
    )


def _as_text(line: dict[str, Any]) -> str:
    parts = [f"{line['kind']:>10} step {line['step']}"]
    parts += [f"{name} {_number(line.get(name))}" for name in all_objectives() if name in line]
    parts += [f"{name.replace('_', ' ')} {_percent(line[name])}" for name in (f"{head}_accuracy" for head in TASKS) if name in line]
    parts += [f"{name.replace('_', ' ')} {_percent(line[name])}" for name in ("flawed", "forms_kept") if name in line]
    if "tokens_per_second" in line:
        parts.append(f"{line['tokens_per_second']:,.0f} tokens/s")
    return "  ".join(parts)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
