"""`warmline dial`: what the adapter's strength changes, on the validation split, so that it is chosen there and not on the test.

Little of it often suffices for a manner, and all of it may cost sense: what was learned from few texts is then said where it does not fit.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from warmline.data.encoding import encode_split
from warmline.errors import WarmlineError
from warmline.evaluation.finished import FinishedRun
from warmline.lock import writes_run
from warmline.model.artifacts import refuse_strength, weakened
from warmline.progress import watched
from warmline.rewriting.insight import Insight
from warmline.rewriting.manner import manner, waiting_turns
from warmline.runs import RunFolder, write_json, write_picture
from warmline.training.validation import Validator

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
PROMPTS, LONGEST, SHOWN = 40, 200, 10


@writes_run("dial")
def dial(path: Path, strengths: Sequence[float] = STRENGTHS, prompts: int = PROMPTS, longest: int = LONGEST) -> dict[str, Any]:
    """Measure a run at several strengths, and write `results/dial.json` and its picture.

    Args:
        path: A finished run folder, trained with an adapter.
        strengths: Each from 0, the base, to 1, as trained.
        prompts: Held-out turns of validation dialogues that are answered.
        longest: Tokens of a reply at most.

    Returns:
        `context`; `strengths`, for each what `manner` and validation give; `examples`, the first prompts with every strength's reply.

    Raises:
        WarmlineError: an unfinished run, a strength that cannot be, missing data.
    """
    if not strengths:
        raise WarmlineError("--strengths: expected at least one, such as 0,0.5,1")
    finished = FinishedRun.open(path)
    for strength in strengths:
        refuse_strength(strength, finished.config)
    config, backbone = finished.config, finished.model.backbone
    drawn = waiting_turns(config.data, config.seed, prompts, "valid")
    validator = Validator(config, encode_split("valid", config.data, finished.template), finished.place)
    accelerator = Accelerator(cpu=finished.place.device.type == "cpu")
    insight = Insight(backbone, finished.template, finished.place)
    rows, replies = [], []
    for strength in watched(list(strengths), "strengths"):
        with weakened(backbone, strength):
            found, said = manner(finished.companion, insight, [one.messages for one in drawn], longest)
            scores = validator(finished.model, accelerator)
        rows.append({"strength": strength, **found, **{key: value for key, value in scores.items() if key != "lm_by_source"}})
        replies.append(said)
    result = {
        "context": {**finished.context(), "split": "valid", "prompts": len(drawn), "longest": longest},
        "strengths": rows,
        "examples": [
            {
                "source": one.source,
                "conversation": one.conversation,
                "turn": one.turn,
                "user": one.messages[-1]["content"],
                "replies": {f"{strength:g}": said[at] for strength, said in zip(strengths, replies, strict=True)},
            }
            for at, one in enumerate(drawn[:SHOWN])
        ],
    }
    folder = RunFolder(path)
    write_json(folder.dial, result)
    _draw(folder, rows)
    return result


def _draw(folder: RunFolder, rows: Sequence[dict[str, Any]]) -> None:
    figure = Figure(figsize=(11, 7), layout="constrained")
    says, words, drift, heads = figure.subplots(2, 2).flat
    _panel(says, rows, {"flawless": "replies without a flaw", "forms_kept": "forms kept"}, "Replies, by rules", "share")
    says.set_ylim(0, 1)
    _panel(words, rows, {"words_median": "words (median)", "base_perplexity": "perplexity by the base"}, "Length, and how odd", "")
    _panel(drift, rows, {"task_kl": "task replies", "safety": "safety replies"}, "Drift from the base", "KL(base || tuned), nats a token")
    accuracies = {key: key.removesuffix("_accuracy") for key in rows[0] if key.endswith("_accuracy")}
    _panel(heads, rows, accuracies, "Heads", "validation accuracy")
    figure.suptitle(f"{folder.path.name}: what the adapter's strength changes (validation)", x=0.01, ha="left", fontsize=12)
    write_picture(folder.dial_picture, figure, dpi=130)


def _panel(axis: Axes, rows: Sequence[dict[str, Any]], lines: dict[str, str], title: str, unit: str) -> None:
    for (key, label), color in zip(lines.items(), ("#c8553d", "#2a6f97", "#6a994e"), strict=False):
        points = [(row["strength"], row[key]) for row in rows if row.get(key) is not None]
        if points:
            axis.plot(*zip(*points, strict=True), marker="o", color=color, label=label)
    axis.set_title(title, loc="left", fontsize=11)
    axis.set_xlabel("strength of the adapter")
    axis.set_ylabel(unit)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", alpha=0.25)
    if axis.lines:
        axis.legend(frameon=False, fontsize=8)
