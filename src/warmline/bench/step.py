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

from matplotlib.figure import Figure

from warmline.bench.worker import Case
from warmline.errors import WarmlineError
from warmline.runs import write_json

_PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "unsloth", "unsloth_zoo", "liger-kernel", "triton", "accelerate")

_TIMEOUT = 240


def cases(model: str) -> list[Case]:
    """What is compared: the peers' recommended settings, then ours from small to fast."""
    found = []
    for workload in ("mix", "full"):
        padded = replace(Case("transformers + PEFT, padded", "transformers", "transformers", "mix", model), workload=workload)
        unsloth = replace(padded, case="Unsloth, padded", contender="unsloth", backend="unsloth")
        ours = replace(padded, case="warmline, states in host memory", contender="ours", checkpointing="offload")
        found += [
            ours,
            replace(ours, case="warmline, recomputing", checkpointing="full"),
            padded,
            replace(padded, case="transformers + PEFT + Liger, padded", liger=True),
            unsloth,
            replace(ours, case="warmline on Unsloth, packed", backend="unsloth"),
            replace(ours, case="warmline without fused kernels", checkpointing="full", fused=False),
        ]
    mix = replace(found[0], checkpointing="full")
    return [
        *found,
        replace(mix, case="warmline, bf16 base, nothing recomputed", weights="bf16", checkpointing="none", tokens=16384),
        replace(mix, case="warmline, language model only", auxiliary=False),
    ]


def run_bench(selected: list[Case], folder: Path, say: Callable[[str], None]) -> None:
    """Run the cases one after the other; `bench.json` and `bench.png` grow with each, so that an interrupted run keeps what it has.

    `bench.json` holds `hardware`, `versions` and `measurements`, one a case; a case that failed has `error` instead of numbers.

    Args:
        selected: What to run.
        folder: Where to write.
        say: Called with a line as each case ends.

    Raises:
        WarmlineError: there is no CUDA GPU.
    """
    import torch

    if not torch.cuda.is_available():
        raise WarmlineError("bench: needs a CUDA GPU; there is none on this machine")
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
        measurements.append({**dataclasses.asdict(case), **measured})
        say(f"{case.workload:>4}  {case.case:<42} {_summary(measured)}")
        write_json(folder / "bench.json", result)
        _draw(result, folder / "bench.png")


def _draw(result: dict[str, Any], path: Path) -> None:
    figure = Figure(figsize=(10, 7), layout="constrained")
    axes = figure.subplots(2, 1, gridspec_kw={"height_ratios": [8, 5]})
    for axis, workload, title in zip(
        axes,
        ("mix", "full"),
        ("The mixture: many short conversations", "Two full rows of 2,048 tokens"),
        strict=True,
    ):
        rows = [row for row in result["measurements"] if row["workload"] == workload and "error" not in row]
        if not rows:
            axis.set_axis_off()
            continue
        names = [row["case"] for row in rows]
        speeds = [row["tokens_per_second"] for row in rows]
        colours = ["#2a6f97" if row["contender"] == "ours" else "#9db4c0" for row in rows]
        bars = axis.barh(names, speeds, color=colours)
        axis.bar_label(bars, [f"{row['tokens_per_second']:,.0f}  ({row['peak_gib']:.1f} GiB)" for row in rows], padding=4, fontsize=8)
        axis.invert_yaxis()
        axis.margins(x=0.16)
        axis.set_title(title, loc="left", fontsize=11)
        axis.set_xlabel("real tokens a second (peak memory)")
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(axis="y", labelsize=8)
    figure.suptitle(f"Qwen3-8B QLoRA training step on one {result['hardware']}", x=0.01, ha="left", fontsize=12)
    figure.savefig(path, dpi=130)


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
