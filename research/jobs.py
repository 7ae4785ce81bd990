"""Processes of a study: so many at a time, each after what it needs, dealt over the GPUs."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table


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


def _ready(job: Job, asked: set[str], done: set[str]) -> bool:
    """Whether what it needs is done; a job that was not asked for is taken as done earlier."""
    return all(name in done or name not in asked for name in job.after)


def _start(job: Job, slot: int, logs: Path) -> "subprocess.Popen[bytes]":
    gpus = [number for number in os.environ.get("CUDA_VISIBLE_DEVICES", _all_gpus()).split(",") if number]
    chosen = {"CUDA_VISIBLE_DEVICES": gpus[slot % len(gpus)]} if gpus else {}
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2"), "TOKENIZERS_PARALLELISM": "false", **chosen}
    with (logs / f"{job.name}.log").open("wb") as log:
        return subprocess.Popen(job.command, stdout=log, stderr=subprocess.STDOUT, env=environment)


def _all_gpus() -> str:
    import torch

    return ",".join(map(str, range(torch.cuda.device_count())))


def _last_line(job: Job, logs: Path) -> str:
    lines = (logs / f"{job.name}.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else "no output"
