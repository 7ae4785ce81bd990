"""The one place that knows what a run folder contains.

<run>/
  config.yaml            the resolved configuration
  manifest.json          versions, checksums of data and base, seed: what a number needs beside it; and each resumption
  plan.json              the run's arithmetic, made before it started
  metrics.jsonl          one line a training step or validation
  checkpoints/           step-000100/ ..., each complete or absent, with checksums
  adapter/ or model/     the tuned weights, from the best checkpoint
  heads.safetensors      the heads of the same moment; heads.json says what they read and which adapter they belong to
  results/               pictures and JSON made from the finished run
  eqbench/               replies.jsonl and judge.jsonl, one line an answer as it came; transcripts.jsonl, to read
  safety/                the red-team sheet, the judge's answers, and people's ratings, which no command overwrites
  strength-0.50/         results/, eqbench/, safety/ and comparison/ again, of the adapter at that strength (`--strength`)
  comparison/            of `warmline compare`: replies.jsonl, made once, and judge.jsonl, the judge's answers
  origin.json            of a run that took over another's last checkpoint: which
  ablation/              the runs of `warmline ablate`, each a run folder of its own
  data_cards/            a page and a picture for each data set
  report.md              all of it, for a person to read
  pipeline.json          the steps that `warmline run` did, and whether it cut them short
  .lock                  held open by the command that is writing here; says which
"""

import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from warmline.errors import WarmlineError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LARGEST_JSON = 2**26
"""Bytes of a JSON file that is read; warmline's own are under a few MiB."""
_LARGEST_SETTINGS = 2**20
_SETTINGS = ("config.yaml", "heads.json")


STRENGTH = "strength-"
"""Begins the name of a folder inside the run, for what was made at another strength of the adapter."""
NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
"""Opens no link; Windows has no such flag."""


class RunFolder:
    """Paths of one run, and safe ways to write there.

    Args:
        path: The folder; need not exist yet.
        strength: Of the adapter. What is made of the run at another than 1 lies in a folder of its own inside it, so that no number
            stands for another's.
    """

    def __init__(self, path: Path, strength: float = 1.0) -> None:
        made = path if strength == 1 else path / f"{STRENGTH}{_exactly(strength)}"
        self.path = path
        self.strength = strength
        self.config = path / "config.yaml"
        self.manifest = path / "manifest.json"
        self.plan = path / "plan.json"
        self.metrics = path / "metrics.jsonl"
        self.checkpoints = path / "checkpoints"
        self.heads = path / "heads.safetensors"
        self.heads_description = path / "heads.json"
        self.results = path / "results"
        self.curves = path / "results" / "training_curves.png"
        self.evaluation = made / "results" / "evaluation.json"
        self.replies = made / "results" / "replies.jsonl"
        self.examples = made / "results" / "examples.json"
        self.error_taxonomy = made / "results" / "errors.json"
        self.facts = made / "results" / "facts.json"
        self.dial = path / "results" / "dial.json"
        self.dial_picture = path / "results" / "dial.png"
        self.error_picture = made / "results" / "errors.png"
        self.reliability = made / "results" / "reliability.png"
        self.eq_bench = made / "results" / "eq_bench_results.json"
        self.eq_bench_picture = made / "results" / "eq_bench.png"
        self.eq_bench_folder = made / "eqbench"
        self.red_team = made / "results" / "red_team.json"
        self.red_team_sheet = made / "safety" / "red_team_sheet.md"
        self.red_team_judge = made / "safety" / "judge.jsonl"
        self.human_ratings = made / "safety" / "human_ratings.yaml"
        self.comparison = made / "results" / "comparison.json"
        self.comparison_replies = made / "comparison" / "replies.jsonl"
        self.comparison_judge = made / "comparison" / "judge.jsonl"
        self.ablation = path / "ablation"
        self.origin = path / "origin.json"
        self.ablation_scores = path / "results" / "ablation_scores.json"
        self.ablation_results = path / "results" / "ablation_results.json"
        self.ablation_picture = path / "results" / "ablation.png"
        self.data_cards = path / "data_cards"
        self.report = path / "report.md"
        self.pipeline = path / "pipeline.json"

    @classmethod
    def open(cls, path: Path, strength: float = 1.0) -> "RunFolder":
        """A finished run.

        Raises:
            WarmlineError: there is no finished run in that folder, or `refuse_strangers` does.
        """
        run = cls(path, strength)
        run.refuse_strangers()
        if not run.config.is_file():
            raise WarmlineError(f"{path}: not a run folder (no config.yaml); name a folder that `warmline train` made")
        if not run.heads_description.is_file():
            raise WarmlineError(f"{path}: this run has not finished (no heads.json); go on with `warmline train CONFIG --resume`")
        return run

    def confusion(self, head: str) -> Path:
        """Picture of a head's confusions."""
        return self.evaluation.parent / f"confusion_{head}.png"

    def refuse_strangers(self) -> None:
        """Refuse what a run never holds and would lead a reader or writer astray; the folder may be someone else's.

        Raises:
            WarmlineError: a link that leads out of the folder, a pipe or device, settings too long to be settings.
        """
        for why in strangers(self.path):
            raise WarmlineError(why)

    def create(self) -> None:
        """Make the folder.

        Raises:
            WarmlineError: it cannot be written, or `refuse_strangers` does.
        """
        self.refuse_strangers()
        try:
            self.results.mkdir(parents=True, exist_ok=True)
            self.checkpoints.mkdir(exist_ok=True)
            probe = self.path / ".writable"
            _write_new(probe, b"1")
            probe.unlink(missing_ok=True)
        except OSError as error:
            raise WarmlineError(f"{self.path}: cannot write the run folder ({error.strerror}); choose another output_dir") from None

    def checkpoint(self, step: int) -> Path:
        """Folder of the checkpoint after `step` optimiser steps."""
        return self.checkpoints / f"step-{step:06d}"

    def steps(self) -> list[int]:
        """Steps that have a complete checkpoint, ascending."""
        found = (path.name.removeprefix("step-") for path in self.checkpoints.glob("step-*") if path.is_dir())
        return sorted(int(name) for name in found if name.isdecimal())


def _exactly(strength: float) -> str:
    """`0.50`, or every digit where two would be another strength's."""
    short = f"{strength + 0.0:.2f}"  # -0 is 0
    return short if float(short) == strength else repr(strength)


def strangers(folder: Path) -> Iterator[str]:
    """Why a run folder's entries may not be followed or read, one line each; nothing is opened.

    Args:
        folder: Itself it may be a link; need not exist.
    """
    root = os.path.realpath(folder)
    for above, folders, files in os.walk(root):
        for name in sorted([*folders, *files]):
            path = Path(above) / name
            shown = folder / path.relative_to(root)
            if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(root):
                yield (
                    f"{shown}: a link out of the folder, to {path.readlink()}; a run folder holds its own files: put the file there, "
                    "or download with `hf download ID --local-dir FOLDER`"
                )
            elif path.exists() and not (path.is_file() or path.is_dir()):
                yield f"{shown}: a pipe, socket or device, no file; remove it"
    for name in _SETTINGS:
        path = folder / name
        if path.is_file() and path.stat().st_size > _LARGEST_SETTINGS:
            yield f"{path}: longer than {_LARGEST_SETTINGS:,} bytes, which no run's settings are; the file is damaged"


def write_folder(target: Path, fill: Callable[[Path], None]) -> None:
    """Write a folder aside and rename it, so that it is complete or absent.

    Args:
        target: Replaced if it exists.
        fill: Writes the content into the empty folder it is given.

    Raises:
        WarmlineError: the disk is full or read-only; what stood at `target` before still stands.
    """
    aside = target.with_name(f".{target.name}.writing")
    old = target.with_name(f".{target.name}.old")
    with disk_errors(target):
        if old.exists() and not target.exists():  # a kill between the two renames
            old.rename(target)
        for leftover in (aside, old):
            _remove(leftover)
        try:
            aside.mkdir(parents=True)
            fill(aside)
            _settle(aside)
            if os.path.lexists(target):
                target.rename(old)
            aside.rename(target)
        except BaseException:
            if os.path.lexists(old) and not os.path.lexists(target):
                old.rename(target)
            shutil.rmtree(aside, ignore_errors=True)
            raise
        with suppress(OSError):
            _remove(old)


@contextmanager
def disk_errors(target: Path) -> Iterator[None]:
    """Turn a full or read-only disk into one line that names what could not be written.

    Raises:
        WarmlineError: as said.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise WarmlineError(f"{target}: cannot be written ({reason}); free some space or choose another folder") from None


def write_bytes(target: Path, content: bytes) -> None:
    """Write a file aside and rename it, so that it is complete or what it was; no link is followed.

    Raises:
        WarmlineError: the disk is full or read-only.
    """
    aside = target.with_name(f".{target.name}.writing")
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _write_new(aside, content)
        aside.replace(target)


def write_text(target: Path, text: str) -> None:
    """`write_bytes` of UTF-8."""
    write_bytes(target, text.encode("utf-8"))


def write_json(target: Path, content: Any) -> None:
    """`write_text` of indented JSON; NaN and infinity are refused, since other readers cannot read them."""
    write_text(target, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_picture(target: Path, figure: "Figure", dpi: int) -> None:
    """`write_bytes` of a figure as PNG; the same figure gives the same bytes whatever drew it.

    Args:
        target: The file.
        figure: Of matplotlib.
        dpi: Pixels an inch.
    """
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=dpi, format="png", metadata={"Software": None})
    write_bytes(target, drawn.getvalue())


def append_text(target: Path, text: str, sync: bool = False) -> None:
    """Append to a file, which need not exist; a link is refused.

    Args:
        target: The file.
        text: Whole lines.
        sync: See it to the disk before going on.

    Raises:
        OSError: the disk is full or read-only, or the file is a link.
    """
    descriptor = os.open(target, os.O_WRONLY | os.O_APPEND | os.O_CREAT | NO_FOLLOW, 0o666)
    with os.fdopen(descriptor, "a", encoding="utf-8") as out:
        out.write(text)
        out.flush()
        if sync:
            os.fsync(descriptor)


def parse_json(text: str | bytes) -> Any:
    """`json.loads` that fails in one way only.

    Raises:
        ValueError: no JSON, or nested too deep to be read.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None


def read_json(path: Path) -> Any:
    """The file's content.

    Raises:
        WarmlineError: missing, not JSON, nested too deep, or longer than LARGEST_JSON.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_JSON + 1)
        if len(content) > LARGEST_JSON:
            raise ValueError(f"longer than {LARGEST_JSON:,} bytes")
        return parse_json(content.decode("utf-8"))
    except FileNotFoundError:
        raise WarmlineError(f"{path}: file not found") from None
    except (OSError, ValueError) as error:
        raise WarmlineError(f"{path}: not readable JSON ({error}); the file is damaged") from None


def read_manifest(run: RunFolder) -> dict[str, Any]:
    """What `manifest.json` says; the folder may be someone else's.

    Raises:
        WarmlineError: there is none, or it is damaged.
    """
    found = read_json(run.manifest)
    may_lack = ("base_sha256", "versions")
    if (
        not isinstance(found, dict)
        or not (isinstance(found.get("base_model"), str) and isinstance(found.get("data_sha256"), dict))
        or not all(isinstance(found.get(key, {}), dict) for key in may_lack)
    ):
        raise WarmlineError(f"{run.manifest}: not a manifest; the file is damaged")
    return found


def _write_new(path: Path, content: bytes) -> None:
    """Write a file that is nobody else's: what lies under that name, a link too, is removed and not written through."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_FOLLOW, 0o666)
    with os.fdopen(descriptor, "wb") as out:
        out.write(content)


def _remove(path: Path) -> None:
    """Remove a file, a folder or a link, which is not followed; or nothing."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _settle(folder: Path) -> None:
    """Flush every file to the disk, with the rights that a new file has here: safetensors makes its own readable by their owner alone."""
    rights = folder.stat().st_mode & 0o666
    for path in folder.rglob("*"):
        if path.is_file():
            with suppress(OSError):  # some network drives have no rights to give
                path.chmod(rights)
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
