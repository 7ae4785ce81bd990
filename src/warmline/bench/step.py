"""`warmline bench`: every contender in its own process, one after the other, on one machine; a table, a chart and JSON."""

import dataclasses
import json
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from warmline.bench.worker import Case
from warmline.bench.workload import in_4bit
from warmline.errors import WarmlineError
from warmline.runs import write_json, write_picture

_PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "unsloth", "unsloth_zoo", "liger-kernel", "triton", "accelerate")

_TIMEOUT = 150

_T4 = "warmline on a T4's terms (this card is none: its speed says nothing about a T4)"
_COLOURS = {"warmline": "#1f6f8b", "warmline on 2 GPUs": "#7fb7c9", _T4: "#d9a441", "the usual recipes": "#b3bdc4"}
_HATCH, _QUIET = "///", "#5d6b73"


def cases(model: str, gpus: int) -> list[Case]:
    """What is compared, the most telling first: an interrupted run has those.

    Args:
        model: Folder of the model.
        gpus: GPUs at hand; with two or more, our step runs on two as well.
    """
    ours = Case("warmline, states in host memory", "ours", "transformers", "mix", model, checkpointing="offload")
    padded = Case("transformers + PEFT, padded", "transformers", "transformers", "mix", model)
    unsloth = replace(padded, case="Unsloth, padded", contender="unsloth", backend="unsloth")
    bf16 = replace(ours, case="warmline, bf16 base, nothing recomputed", weights="bf16", checkpointing="none", tokens=16384)
    both = [replace(case, workload=workload) for case in (ours, padded, unsloth) for workload in ("mix", "full")]
    on_two, bf16_on_two = (replace(case, case=f"{case.case}, 2 GPUs", gpus=2) for case in (ours, bf16))
    packed_unsloth = replace(ours, case="warmline on Unsloth, packed", backend="unsloth")
    liger = replace(padded, case="transformers + PEFT + Liger, padded", liger=True)
    found = [
        *both,
        bf16,
        on_two,
        replace(ours, case="warmline, states in host memory, language model only", auxiliary=False),
        replace(ours, case="warmline on a T4's terms (fp16, 15 GiB)", workload="full", card="t4", model=in_4bit(model)),
        packed_unsloth,
        replace(packed_unsloth, workload="full"),
        bf16_on_two,
        replace(ours, case="warmline, states on the device", checkpointing="selective"),
        liger,
        replace(liger, workload="full"),
        replace(ours, case="warmline, everything recomputed", checkpointing="full"),
        replace(ours, case="warmline without fused kernels", checkpointing="full", fused=False),
    ]
    return [case for case in found if case.gpus <= gpus]


def count_gpus() -> int:
    """GPUs at hand, at least one.

    Raises:
        WarmlineError: there is none.
    """
    import torch

    if not torch.cuda.is_available():
        raise WarmlineError("bench: needs a CUDA GPU; there is none on this machine")
    return torch.cuda.device_count()


def run_bench(selected: list[Case], folder: Path, say: Callable[[str], None]) -> None:
    """Run the cases one after the other; `bench.json` and `bench.png` grow with each, so that an interrupted run keeps what it has.

    `bench.json` holds `hardware`, `versions` and `measurements`, one a case; a case that failed has `error` instead of numbers.

    Args:
        selected: What to run.
        folder: Where to write.
        say: Called with a line as each case ends.

    Raises:
        WarmlineError: no case, or no CUDA GPU.
    """
    import torch

    if not selected:
        raise WarmlineError("--only: no case's name holds that text; leave it out to see their names")
    count_gpus()
    measurements: list[dict[str, Any]] = []
    result = {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "command": "warmline bench",
        "hardware": torch.cuda.get_device_name(),
        "python": platform.python_version(),
        "versions": {name: found for name in _PACKAGES if (found := _version(name)) is not None},
        "measurements": measurements,
    }
    for case in selected:
        measured = _run(case)
        measurements.append({**dataclasses.asdict(case), "model": Path(case.model).name, **measured})
        say(f"{case.workload:>4}  {case.case:<42} {_summary(measured)}")
        write_json(folder / "bench.json", result)
        _draw(result, folder / "bench.png")


def _draw(result: dict[str, Any], path: Path) -> None:
    """Bars of real tokens a second, fastest first, one panel a workload on one scale."""
    measured = [row for row in result["measurements"] if "error" not in row]
    panels = [
        (title, sorted(rows, key=lambda row: row["tokens_per_second"], reverse=True))
        for workload, title in (("mix", "The mixture: many short conversations"), ("full", "Full rows: two conversations of 2,048 tokens"))
        if (rows := [row for row in measured if row["workload"] == workload])
    ]
    if not panels:
        return
    heights = [len(rows) for _, rows in panels]
    figure = Figure(figsize=(11, 2.2 + 0.46 * sum(heights)), layout="constrained")
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    for axis, (title, rows) in zip(axes, panels, strict=True):
        _draw_panel(axis, title, rows)
    axes[0].set_xlim(0, 1.24 * max(row["tokens_per_second"] for row in measured))  # room for the numbers
    axes[-1].set_xlabel("real tokens a second; padding is not counted", fontsize=10, color=_QUIET)
    kinds = [kind for kind in _COLOURS if kind in map(_kind, measured)]
    figure.legend(
        [Patch(facecolor=_COLOURS[kind], hatch=_HATCH if kind == _T4 else None, edgecolor="white") for kind in kinds],
        kinds, loc="outside lower left", ncols=len(kinds), frameon=False, fontsize=9.5, handlelength=1.4,
    )  # fmt: skip
    figure.suptitle(
        f"A training step of Qwen3-8B with adapters on {result['hardware']}, {result['date']}\n"
        "Real tokens a second, medians, and in grey the peak memory of one GPU. 4-bit base unless the name says bf16.",
        x=0.01, ha="left", fontsize=12,
    )  # fmt: skip
    write_picture(path, figure, dpi=130)


def _draw_panel(axis: Axes, title: str, rows: list[dict[str, Any]]) -> None:
    speeds = [row["tokens_per_second"] for row in rows]
    bars = axis.barh(range(len(rows)), speeds, height=0.72, color=[_COLOURS[_kind(row)] for row in rows], edgecolor="white")
    for place, (bar, row) in enumerate(zip(bars, rows, strict=True)):
        if _kind(row) == _T4:
            bar.set_hatch(_HATCH)
        number = axis.annotate(
            f"{speeds[place]:,.0f}", (speeds[place], place), (6, 0), textcoords="offset points", va="center", fontsize=10, weight="bold"
        )
        axis.annotate(
            f"{row['peak_gib']:.1f} GiB",
            (1, 0.5),
            (7, 0),
            xycoords=number,
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=_QUIET,
        )
    axis.set_yticks(range(len(rows)), [row["case"] for row in rows], fontsize=10)
    axis.set_ylim(len(rows) - 0.5, -0.5)  # the first on top
    axis.set_title(title, loc="left", fontsize=11, weight="bold")
    axis.xaxis.set_major_formatter("{x:,.0f}")
    axis.grid(axis="x", color="#e3e8eb", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right", "bottom"]].set_visible(False)
    axis.tick_params(axis="both", length=0, labelcolor=_QUIET)
    axis.tick_params(axis="y", labelcolor="black")


def _kind(row: dict[str, Any]) -> str:
    if row["card"] == "t4":
        return _T4
    if row["contender"] != "ours":
        return "the usual recipes"
    return "warmline" if row["gpus"] == 1 else "warmline on 2 GPUs"


def _run(case: Case) -> dict[str, Any]:
    launcher = [] if case.gpus == 1 else ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(case.gpus)]
    command = [sys.executable, *launcher, "-m", "warmline.bench.worker", json.dumps(dataclasses.asdict(case))]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_TIMEOUT)  # noqa: S603 - our own module
    except subprocess.TimeoutExpired:
        return {"error": f"no result after {_TIMEOUT} s"}
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        return {"error": " ".join((done.stderr.strip().splitlines() or ["no output"])[-1].split())}
    measured: dict[str, Any] = json.loads(lines[-1])
    return {name: value for name, value in measured.items() if name not in dataclasses.asdict(case)}


def _summary(measured: dict[str, Any]) -> str:
    if "error" in measured:
        return f"failed: {measured['error']}"
    return f"{measured['tokens_per_second']:>8,.0f} tokens/s  {measured['peak_gib']:>6.2f} GiB  {measured['seconds_per_step']:.3f} s a step"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
