"""What a person sees while an ablation runs, and its tables."""

from typing import Any

from rich.console import Console
from rich.table import Table

from warmline.ablation.metrics import LEAST_SEEDS, all_metrics
from warmline.runs import RunFolder
from warmline.training.plan import Plan
from warmline.training.view import View

_TABLE_LEAVES_OUT = "lm_nats_"
"""Of each source: its perplexity says the same."""


class StudyView:
    """Progress over the runs of a study: which of how many. A run's own progress is `ShortView`'s.

    Args:
        quiet: Show nothing.
        console: Where to; None is standard output.
    """

    def __init__(self, quiet: bool = False, console: Console | None = None) -> None:
        self.quiet = quiet
        self._console = console or Console()

    def begin(self, number: int, runs: int, variant: str, seed: int) -> None:
        """Run `number` of `runs` begins."""
        self.say(f"[bold]{number} of {runs}: {variant}, seed {seed}[/bold]")

    def say(self, text: str) -> None:
        """One line about what is going on."""
        if not self.quiet:
            self._console.print(text, highlight=False)

    def finish(self, run: RunFolder) -> None:
        """The results are written."""
        self.say(f"written to {run.ablation_results} and {run.ablation_picture.name}")


class ShortView(View):
    """A training's bar or lines, without what is the same in every variant: the plan and the self-check."""

    def say(self, text: str) -> None:
        """Only where an interrupted run goes on."""
        if text.startswith("resuming"):
            super().say(text)

    def show_plan(self, plan: Plan) -> None:
        """Not shown."""

    def done(self, run: RunFolder, best_step: int, trained: str) -> None:  # noqa: ARG002 - View's
        """Leave the terminal as it was."""
        self.close()


def values_table(result: dict[str, Any]) -> Table:
    """Mean and standard deviation over seeds: a row a metric, a column a variant, the base last."""
    table = Table(title="mean over seeds" + (" (± SD)" if len(result["context"]["seeds"]) > 1 else ""), title_justify="left", box=None)
    table.add_column("test split")
    for variant in [*result["summary"], "base"]:
        table.add_column(variant, justify="right")
    for metric in (name for name in all_metrics() if not name.startswith(_TABLE_LEAVES_OUT)):
        means = [_mean(metric, result["summary"][variant][metric]) for variant in result["summary"]]
        base = result["base"][metric]
        table.add_row(result["metrics"][metric]["title"], *means, "-" if base is None else _number(metric, base))
    return table


def differences_table(result: dict[str, Any]) -> Table:
    """Variant minus full; below it the interval over seeds or, of a single seed, over test items."""
    seeds = len(result["context"]["seeds"])
    below = (
        "95 % interval over seeds below"
        if seeds >= LEAST_SEEDS
        else "95 % bootstrap over test items below"
        if seeds == 1
        else "no interval"
    )
    table = Table(title=f"variant minus full of the same seed ({below})", title_justify="left", box=None)
    table.add_column("")
    for variant in result["differences"]:
        table.add_column(variant, justify="right")
    for metric in (name for name in all_metrics() if not name.startswith(_TABLE_LEAVES_OUT)):
        cells = [_difference(metric, result["differences"][variant][metric]) for variant in result["differences"]]
        table.add_row(result["metrics"][metric]["title"], *cells)
    return table


def interval_of(difference: dict[str, Any]) -> list[float] | None:
    """The interval to show: over seeds where there is one, else over items when there is one seed, else none."""
    interval: list[float] | None = difference["seeds_interval"]
    if interval is None and len(difference["by_seed"]) == 1:
        (one,) = difference["by_seed"].values()
        interval = one["items_interval"]
    return interval


def _mean(metric: str, summary: dict[str, Any] | None) -> str:
    if summary is None:
        return "-"
    sd = "" if summary["sd"] is None else f" ±{_number(metric, summary['sd'])}"
    return f"{_number(metric, summary['mean'])}{sd}"


def _difference(metric: str, difference: dict[str, Any] | None) -> str:
    if difference is None:
        return "-"
    interval = interval_of(difference)
    ends = "" if interval is None else f"\n{_number(metric, interval[0], '+')} to {_number(metric, interval[1], '+')}"
    return f"{_number(metric, difference['mean'], '+')}{ends}"


def _number(metric: str, value: float, sign: str = "") -> str:
    if metric.startswith("perplexity"):
        return f"{value:{sign}.1f}"
    return f"{value:{sign}.1%}" if metric.endswith("accuracy") else f"{value:{sign}.3f}"
