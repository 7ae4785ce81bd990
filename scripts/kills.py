"""kill -9 at random moments, then go on, then compare: `python scripts/kills.py --kills 40 --seed 24 --out results/reliability`.

A two-layer base with random weights and nano's tokenizer is trained on the sample data on one CPU thread, with each optimiser once to the
end and then again and again with kills. Every kill aims at a phase: it waits until the folder shows that the phase has begun, then for a
random moment more. What is promised: what was complete before a kill is there after it; `--resume`, or the same command again, goes on by
itself; and in the end curve, weights and results are to the bit those of the run that nobody killed.

The phases take turns, so 40 kills are five or six of each. About a quarter of an hour on two idle cores. Writes `kills.json`, prints a
table, and ends with status 1 when a promise was broken.
"""

import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib import resources
from itertools import groupby
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from rich.console import Console
from rich.table import Table

from warmline.runs import RunFolder, write_json

OPTIMIZERS = ("adamw", "adamw_8bit")
STEPS, VALIDATED = 9, 3
CONFIG = """name: {name}
output_dir: {runs}
model: {{name: {base}, random_init_seed: 0}}
lora: {{r: 4, alpha: 8, dropout: 0.1}}
data: {{dir: sample, row_tokens: 256}}
training: {{max_steps: {steps}, rows_per_micro_batch: 1, accumulation: 1, learning_rate: 1.0e-2, optimizer: {optimizer}}}
validation: {{every: {validated}, conversations: 3}}
checkpoint: {{every: 2}}
"""
OF_THE_CLOCK = ("seconds", "tokens_per_second")
"""Of a line of metrics.jsonl."""
LONGEST = 300.0
"""Seconds after which a command hangs."""
LOG = "WARMLINE_KILLS_LOG"
"""Names, in the environment, the file that the killed processes write to."""
KILLED = -signal.SIGKILL
MISSES = 5
"""Times that a command may end before the moment to kill it came."""
TICK = 0.01
"""Seconds by which the file system's clock may lag behind."""


@dataclass
class Kill:
    """One kill and what came of it.

    Attributes:
        phase: That it aimed at.
        optimizer: Of the run.
        delay: Seconds between the first sign of the phase and the kill.
        in_it: Whether the folder shows that the phase had not ended.
        lost: What was complete before and is not any more, in words; empty when nothing.
        resumed: Whether the next start went on by itself.
        identical: Whether everything came out as without a kill.
    """

    phase: str
    optimizer: str
    delay: float
    in_it: bool
    lost: str
    resumed: bool = False
    identical: bool = False


class Aim(NamedTuple):
    """When to kill.

    Attributes:
        begun: Whether the folder shows that the phase is under way; given the time at which the command began.
        longest: Most seconds that the kill comes later.
    """

    begun: Callable[[float], bool]
    longest: float


def command(*arguments: str) -> BaseProcess:
    """Begin `warmline ARGUMENTS` in a process of its own, forked from one that has done the slow imports."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["warmline.training.loop", "warmline.evaluation.evaluate", "warmline.export.folder", "warmline.reporting.report"]
    )
    process = context.Process(target=_command, args=arguments)
    process.start()
    return process


def _command(*arguments: str) -> None:
    import torch

    from warmline.cli import main

    torch.set_num_threads(1)
    with Path(os.environ[LOG]).open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    print(f"--- warmline {' '.join(arguments)}", flush=True)
    sys.argv = ["warmline", *arguments]
    main()


def finish(*arguments: str) -> bool:
    """Run `warmline ARGUMENTS` to its end; whether that was a good one."""
    process = command(*arguments)
    process.join(LONGEST)
    if process.is_alive():
        process.kill()
        process.join()
    return process.exitcode == 0


def finish_or_fail(*arguments: str) -> None:
    """The same, where nothing can go on without it."""
    if not finish(*arguments):
        raise failed(arguments, "a bad end")


def reach(arguments: Sequence[str], aim: Aim, delay: float) -> BaseProcess:
    """Begin `warmline ARGUMENTS` and wait until so many seconds after the phase began, or until it ends."""
    began = time.time() - TICK
    process = command(*arguments)
    until = time.monotonic() + LONGEST
    while process.is_alive() and not aim.begun(began) and time.monotonic() < until:
        pass  # without a pause: some phases last a millisecond
    time.sleep(delay)
    return process


def kill(process: BaseProcess) -> int | None:
    """Kill it; its exit status, KILLED unless it had ended."""
    process.kill()
    process.join()
    return process.exitcode


def fresh(path: Path, began: float) -> bool:
    """Whether a path was written since then."""
    try:
        return path.stat().st_mtime > began
    except FileNotFoundError:
        return False


def written_aside(folder: Path, began: float, *stems: str) -> bool:
    """Whether something lies in a folder, made since `began`, under one of the names that writing aside uses."""
    try:
        return any(
            entry.name.endswith((".writing", ".old", ".gone"))
            and entry.name.lstrip(".").startswith(stems)
            and entry.stat().st_mtime > began
            for entry in os.scandir(folder)
        )
    except FileNotFoundError:  # the folder, or the entry since it was listed
        return False


# training


def lines(run: RunFolder) -> list[dict[str, Any]]:
    """Of metrics.jsonl, without a half-written last one."""
    written = run.metrics.read_text(encoding="utf-8") if run.metrics.exists() else ""
    return [json.loads(line) for line in written.splitlines(keepends=True) if line.endswith("\n")]


def curve(run: RunFolder) -> list[dict[str, Any]]:
    """The same without what the clock decides."""
    return [{key: value for key, value in line.items() if key not in OF_THE_CLOCK} for line in lines(run)]


def _last(run: RunFolder) -> dict[str, Any]:
    return (lines(run) or [{"kind": "nothing", "step": 0}])[-1]


def aims(run: RunFolder, step: int) -> dict[str, Aim]:
    """Of each phase of a training, at a step or later."""

    def late(_: float) -> bool:
        return _last(run)["step"] >= step

    def validating(_: float) -> bool:
        last = _last(run)
        return last["kind"] == "train" and last["step"] >= step and last["step"] % VALIDATED == 0

    def writing_artefact(began: float) -> bool:
        unfinished = fresh(run.path / "adapter", began) and not run.heads_description.exists()
        return written_aside(run.path, began, "adapter", "heads") or unfinished

    return {
        "training step": Aim(late, 0.2),
        "validation": Aim(validating, 0.1),
        "checkpoint": Aim(lambda began: written_aside(run.checkpoints, began, "step-") and late(began), 0.015),
        "artefact": Aim(writing_artefact, 0.15),
    }


def kill_training(
    config: Path, optimizer: str, phases: Sequence[str], whole: RunFolder, chance: random.Random, misses: int = 0
) -> list[Kill]:
    """Train anew, kill once for each of the phases, the later ones in what was resumed, and go on to the end."""
    run = RunFolder(whole.path.with_name("killed"))
    shutil.rmtree(run.path, ignore_errors=True)
    resume = ("train", str(config), "--set", "name=killed", "--resume")
    kills: list[Kill] = []
    due, status = sorted(phases, key="artefact".__eq__), KILLED  # behind the artefact there is nothing left but itself
    share = STEPS / len(due)
    for number, phase in enumerate(due):
        aim = aims(run, chance.randint(round(number * share), round((number + 1) * share) - 1))[phase]
        delay, began = chance.random() * aim.longest, time.time() - TICK
        process = reach(resume, aim, delay)
        complete = run.steps()[-1:]
        status = kill(process)
        if kills:
            kills[-1].resumed = status in (KILLED, 0)
        if status != KILLED:
            break
        gone = [step for step in complete if step > max(run.steps(), default=0)]
        kills.append(Kill(phase, optimizer, delay, aim.begun(began), f"checkpoint {gone[0]}" if gone else ""))
    missed = due[len(kills) :]
    if not kills and (status != 0 or misses == MISSES):
        raise failed(resume, f"status {status}" if status else f"no sign of {', '.join(missed)}")
    if status == KILLED:
        kills[-1].resumed = finish(*resume)
    same = bool(kills) and is_as(whole, run)
    for one in kills:
        one.identical = same
    return kills + (kill_training(config, optimizer, missed, whole, chance, 0 if kills else misses + 1) if missed else [])


def is_as(whole: RunFolder, run: RunFolder) -> bool:
    """Whether a run has the curve, checkpoints, adapter and heads of the one that nobody killed."""
    return (
        run.heads_description.is_file()
        and (curve(run), run.steps()) == (curve(whole), whole.steps())
        and files(run.path / "adapter") == files(whole.path / "adapter")
        and run.heads.read_bytes() == whole.heads.read_bytes()
    )


def failed(arguments: Sequence[str], why: str) -> SystemExit:
    """When a command did not do what it does without a kill, so that nothing can be compared."""
    return SystemExit(f"warmline {' '.join(arguments)}: {why}, without a kill; its output is in {os.environ[LOG]}")


# results


def files(folder: Path) -> dict[str, bytes]:
    """What a folder holds, without what was written aside."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {name: path.read_bytes() for path in paths if "/." not in f"/{(name := path.relative_to(folder).as_posix())}"}


class Rewriting:
    """A command that writes over earlier results, which differ from the new ones by a line break at the end of each file.

    Args:
        folder: Where to work: `before/` is copied to `now/` for each kill.
        source: What stands there before, and no command has touched since.
        place: The folder under `now/` in which the command writes; a dot for `now/` itself.
        together: Whether all of that folder's files are replaced at once.
        arguments: Of `warmline`.
    """

    def __init__(self, folder: Path, source: Path, place: str, together: bool, arguments: Sequence[str]) -> None:
        self.now, self.before, self.together, self.arguments = folder / "now", folder / "before", together, arguments
        self.place = self.now / place
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(source, self.now)
        if together:
            finish_or_fail(*arguments)
        earlier = {path: path.stat().st_mtime_ns for path in self.place.rglob("*") if path.is_file()}
        finish_or_fail(*arguments)
        self.new = files(self.place)
        shutil.copytree(self.now, self.before)
        for path in [path for path in self.place.rglob("*") if path.is_file()]:
            old = self.before / path.relative_to(self.now)
            if path not in earlier:
                old.unlink()  # it is not there before
            elif path.stat().st_mtime_ns != earlier[path]:
                old.write_bytes(old.read_bytes() + b"\n")
        self.old = files(self.before / place)
        self.signs = [name for name in self.new if self.old.get(name) != self.new[name]]
        if together:
            self.signs = [f".{self.place.name}.writing", f".{self.place.name}.old"]

    def kill(self, phase: str, optimizer: str, chance: random.Random) -> Kill:
        """Kill it once, look, and run it again."""
        for attempt in range(MISSES):
            shutil.rmtree(self.now)
            shutil.copytree(self.before, self.now)
            rewritten = self.signs[0] if attempt else chance.choice(self.signs)  # some are there for less than a look takes
            aim = Aim(partial(self._begun, rewritten), 0.1 if self.together else 0.02)
            delay, began = chance.random() * aim.longest * chance.randint(0, 1), time.time() - TICK
            status = kill(reach(self.arguments, aim, delay))
            if status == KILLED:
                found = Kill(phase, optimizer, delay, self._half_way(began), self._lost())
                found.resumed = finish(*self.arguments)
                found.identical = files(self.place) == self.new
                return found
            if status != 0:
                raise failed(self.arguments, f"status {status}")
        raise failed(self.arguments, f"no sign of writing {rewritten}")

    def _begun(self, name: str, began: float) -> bool:
        if self.together:
            return self.place.with_name(name).exists()
        path = self.place / name
        return written_aside(path.parent, began, path.name) or fresh(path, began)

    def _half_way(self, began: float) -> bool:
        if self.together:
            return any(self.place.with_name(name).exists() for name in self.signs)
        folders = [self.place, *(path for path in self.place.rglob("*") if path.is_dir())]
        return files(self.place) not in (self.old, self.new) or any(written_aside(folder, began, "") for folder in folders)

    def _lost(self) -> str:
        if self.together:
            names = (self.place.name, f".{self.place.name}.old", f".{self.place.name}.writing")
            there = any(files(self.place.with_name(name)) in (self.old, self.new) for name in names)
            return "" if there else "the earlier export"
        found = files(self.place)
        half = [name for name in {**self.old, **self.new} if found.get(name) not in (self.old.get(name), self.new.get(name))]
        return ", ".join(half)


# all of it


TRAINING = ("training step", "validation", "checkpoint", "artefact")
RESULTS = ("export", "evaluate", "report")


def base_model(folder: Path) -> Path:
    """Two layers without weights, which a configuration draws from a seed, and nano's tokenizer."""
    from transformers import Qwen3Config

    shape: dict[str, Any] = {
        "vocab_size": 8192, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 4096, "tie_word_embeddings": True,
        "eos_token_id": 2, "pad_token_id": 0, "bos_token_id": None,
    }  # fmt: skip
    Qwen3Config(**shape).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(str(resources.files("warmline") / "assets" / "nano" / name), folder)
    return folder


def kill_all(number: int, seed: int, folder: Path, say: Callable[[Kill], None]) -> list[Kill]:
    """So many kills, the phases in turns and the optimisers in turns."""
    chance = random.Random(seed)
    due = [((TRAINING + RESULTS)[at % 7], OPTIMIZERS[at // 7 % 2]) for at in range(number)]
    base, kills = base_model(folder / "base"), []
    for optimizer in OPTIMIZERS:
        phases = [phase for phase, other in due if other == optimizer]
        if not phases:
            continue
        config = folder / f"{optimizer}.yaml"
        values = {"runs": folder / optimizer, "base": base, "steps": STEPS, "validated": VALIDATED, "optimizer": optimizer}
        config.write_text(CONFIG.format(name="whole", **values), encoding="utf-8")
        whole = RunFolder(folder / optimizer / "whole")
        evaluate = ("--replies", "1", "--no-baselines", "--max-new-tokens", "8")
        for arguments in (("train", str(config)), ("evaluate", str(whole.path), *evaluate), ("report", str(whole.path))):
            finish_or_fail(*arguments)
        shutil.rmtree(whole.data_cards)  # so that `report` writes them again
        in_training = [phase for phase in phases if phase in TRAINING]
        chance.shuffle(in_training)
        for at in range(0, len(in_training), 2):
            kills += _said(kill_training(config, optimizer, in_training[at : at + 2], whole, chance), say)
        for phase in RESULTS:
            now = str(folder / phase / "now")
            arguments = {
                "export": ("export", str(whole.path), "--out", f"{now}/export", "--overwrite"),
                "evaluate": ("evaluate", now, *evaluate),
                "report": ("report", now),
            }[phase]
            if phase in phases:
                rewriting = Rewriting(folder / phase, whole.path, "export" if phase == "export" else ".", phase == "export", arguments)
                for _ in range(phases.count(phase)):
                    kills += _said([rewriting.kill(phase, optimizer, chance)], say)
    return kills


def _said(kills: list[Kill], say: Callable[[Kill], None]) -> list[Kill]:
    for one in kills:
        say(one)
    return kills


def table(kills: Sequence[Kill], title: str) -> Table:
    """A line for each phase."""
    made = Table("phase", "kills", "died in it", "resumed", "identical", "lost", title=title, title_justify="left", box=None)
    order = [*TRAINING, *RESULTS]
    for phase, group in groupby(sorted(kills, key=lambda one: order.index(one.phase)), key=lambda one: one.phase):
        those = list(group)
        made.add_row(phase, *(str(number) for number in _counts(those)))
    made.add_row("all", *(str(number) for number in _counts(kills)))
    return made


def _counts(kills: Sequence[Kill]) -> tuple[int, ...]:
    return (
        len(kills),
        sum(one.in_it for one in kills),
        sum(one.resumed for one in kills),
        sum(one.identical for one in kills),
        sum(bool(one.lost) for one in kills),
    )


def main(
    number: Annotated[int, typer.Option("--kills", min=1, help="How many.")] = 40,
    seed: Annotated[int, typer.Option(help="Of the moments.")] = 24,
    out: Annotated[Path, typer.Option(help="Folder for kills.json.")] = Path("results/reliability"),
    work: Annotated[Path | None, typer.Option(help="Where to work, to look at afterwards; a temporary folder by default.")] = None,
) -> None:
    """Kill at random moments with kill -9, then go on, then compare."""
    folder = work or Path(tempfile.mkdtemp(prefix="warmline-kills-"))
    folder.mkdir(parents=True, exist_ok=True)
    os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}  # to the bit, on a CPU
    os.environ |= {"WARMLINE_CACHE": str(folder / "cache"), LOG: str(folder / "log.txt")}
    console, began = Console(width=None if sys.stdout.isatty() else 120), time.monotonic()

    def say(one: Kill) -> None:
        told = f"lost: {one.lost}" if one.lost else "not resumed" if not one.resumed else "identical" if one.identical else "DIFFERS"
        console.print(f"{one.optimizer}, {one.phase}, +{1000 * one.delay:.0f} ms: {told}", highlight=False)

    kills = kill_all(number, seed, folder, say)
    minutes = (time.monotonic() - began) / 60
    write_json(out / "kills.json", {"seed": seed, "minutes": round(minutes, 1), "kills": [asdict(one) for one in kills]})
    console.print(table(kills, f"{len(kills)} kills in {minutes:.1f} minutes"))
    broken = any(one.lost or not one.resumed or not one.identical for one in kills)
    if work is None and not broken:
        shutil.rmtree(folder)
    elif broken:
        console.print(f"a promise was broken; everything lies in {folder}", highlight=False)
    raise SystemExit(broken)


if __name__ == "__main__":
    typer.run(main)
