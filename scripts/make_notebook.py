"""Write notebooks/empathetic_sft.ipynb, the way in through Colab, without outputs.

    python scripts/make_notebook.py

A test runs its code cells on the nano model and compares the file with what this script makes, so edit the cells here.
"""

import json
from pathlib import Path
from typing import Any

TARGET = Path(__file__).parents[1] / "notebooks" / "empathetic_sft.ipynb"

INSTALL, PARAMETERS = "install", "parameters"
"""Tags: what a test leaves out, and the settings it changes."""

CELLS: list[tuple[str, str]] = [
    (
        "",
        """# warmline: an empathetic friend from an open LLM

This notebook fine-tunes a language model with four objectives at once: replies (EmpatheticDialogues, ESConv), the user's emotion
(GoEmotions), the support strategy of the next reply (ESConv), and closeness to the base model on safety prompts. Then it measures
what changed.

- **With a GPU** (Runtime → Change runtime type → T4) it trains Qwen3-8B, quantised to 4 bits.
- **Without one** it tunes a small base inside the package on sample data: minutes on a CPU, plain English, and no more than small talk.

EmpatheticDialogues and ESConv are for non-commercial use only, and so is a model tuned on them. The result is a friend to talk to, no
therapist and no crisis service.""",
    ),
    ("", "## Install"),
    (
        INSTALL,
        """from pathlib import Path

REPOSITORY = ""  # the https address of warmline's git repository

if not Path("pyproject.toml").is_file():
    if not REPOSITORY:
        raise ValueError("put the repository's address into REPOSITORY")
    !git clone --quiet {REPOSITORY} warmline
    %cd warmline
!pip install --quiet ".[cuda]"  # torch stays Colab's own""",
    ),
    (
        "",
        """## Settings

A T4 holds one packed row at a time, so eight of them are added up to the same step as the recipe's. A free session lasts a few hours:
`MAX_STEPS` takes the first part of the recipe; `None` trains all of it. If the session ends, run the notebook again on the same
folder (for instance on a mounted Drive, `OUTPUT = "/content/drive/MyDrive/runs"`): training goes on from its last checkpoint.""",
    ),
    (
        PARAMETERS,
        """import torch

GPU = torch.cuda.is_available()
print(torch.cuda.get_device_name() if GPU else "no GPU: the small model on the CPU")

CONFIG = "configs/training_config.yaml" if GPU else "configs/nano.yaml"
OVERRIDES = ["training.rows_per_micro_batch=1", "training.accumulation=8", "checkpoint.every=25"] if GPU else []
MAX_STEPS = 200 if GPU else None
OUTPUT = "runs"
LONG_TESTS = False  # error counts, EQ-Bench and the red-team sheet: an hour and more on a T4
JUDGE = []  # for scores by a judge, as in ["--judge-url", "https://...", "--judge-model", "..."]; its key in OPENAI_API_KEY""",
    ),
    (
        "",
        """from pathlib import Path
from subprocess import PIPE, STDOUT, Popen
from sys import executable

from IPython.display import Image, display

import warmline
from warmline.config import load_config


def command(*arguments):
    \"\"\"Run a warmline command in a process of its own, which gives its GPU memory back; a failure stops the notebook.\"\"\"
    with Popen([executable, "-m", "warmline", *map(str, arguments)], stdout=PIPE, stderr=STDOUT, text=True) as process:
        for line in process.stdout:
            print(line, end="")
    if process.returncode:
        raise RuntimeError(f"warmline {arguments[0]} ended with status {process.returncode}; its last line says why")


changes = [*OVERRIDES, f"output_dir={OUTPUT}", *([f"training.max_steps={MAX_STEPS}"] if MAX_STEPS else [])]
settings = [part for change in changes for part in ("--set", change)]
config = load_config(Path(CONFIG), changes)
RUN = config.output_dir / config.name
RUN""",
    ),
    ("", "## Data and plan\n\nThe official files, with checksums; then the run's arithmetic before it starts."),
    ("", """if config.data.dir is None:\n    command("data", "fetch")\ncommand("plan", CONFIG, *settings)"""),
    (
        "",
        "## Train\n\nOne line now and then: the four losses on training and validation data. Interrupt it and run the cell again to go on.",
    ),
    ("", """command("train", CONFIG, "--resume", *settings)\ndisplay(Image(RUN / "results" / "training_curves.png"))"""),
    (
        "",
        """## What changed

Both heads on the test splits, beside the baselines that any head must beat.""",
    ),
    ("", """command("evaluate", RUN)"""),
    (
        "",
        """## Talk to it

`read` says what the heads hear in the last message before any reply; `reply` answers, and `base=True` lets the untuned model answer.
Hotlines in a reply come from a dated table for the country, never from the model.""",
    ),
    (
        "",
        """companion = warmline.load(RUN)
messages = [{"role": "user", "content": "I failed my driving test again. Everyone else seems to just get it."}]
reading = companion.read(messages)
for name, probabilities in reading.items():
    print(name, {label: round(probability, 2) for label, probability in sorted(probabilities.items(), key=lambda pair: -pair[1])[:3]})
print("tuned:", companion.reply(messages, country="US"))
print("base: ", companion.reply(messages, country="US", base=True))
del companion  # its memory, for what follows
if GPU:
    torch.cuda.empty_cache()""",
    ),
    (
        "",
        """## Longer tests

`errors` counts eight kinds of conversational error in replies of base and tuned model and picks five examples by rule. EQ-Bench plays its
scenarios with both (a judge is needed for scores; without one the transcripts are kept), and the red-team sheet puts their replies to hard
messages side by side. Set `LONG_TESTS = True` above to run them.""",
    ),
    (
        "",
        """for name, judge in (("errors", ()), ("eqbench", JUDGE), ("redteam", JUDGE)):
    if LONG_TESTS:
        command(name, RUN, *judge)
    else:
        print(f"left out: {name}")""",
    ),
    ("", "## Report\n\nEverything that was measured, on one page; what was not measured is named, with the reason."),
    ("", """command("report", RUN)"""),
    (
        "",
        """## What each loss is worth

`warmline ablate` trains the run again with one loss or another off. That is four more trainings a seed, so it is not part of this
notebook:

    warmline ablate configs/training_config.yaml --seeds 13,14,15""",
    ),
]
"""Tag and source; a source that begins with a heading is text, any other is code."""


def make_notebook() -> dict[str, Any]:
    """The notebook as JSON."""
    return {
        "cells": [_cell(at, tag, source) for at, (tag, source) in enumerate(CELLS)],
        "metadata": {
            "accelerator": "GPU",
            "colab": {"gpuType": "T4", "provenance": []},
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def _cell(at: int, tag: str, source: str) -> dict[str, Any]:
    lines = source.splitlines(keepends=True)
    common = {"id": f"cell-{at:02d}", "metadata": {"tags": [tag]} if tag else {}, "source": lines}
    if source.startswith(("# ", "## ")):
        return {"cell_type": "markdown", **common}
    return {"cell_type": "code", **common, "execution_count": None, "outputs": []}


def main() -> None:
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(json.dumps(make_notebook(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
