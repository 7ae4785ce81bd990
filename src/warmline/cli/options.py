"""What several commands take, and how all of them print."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType

from warmline.config import RunConfig, load_config
from warmline.paths import expand_home, expand_home_in_name, refuse_no_path


def as_text(typed: str) -> str:
    """As typed; what names nothing on any disk is refused."""
    try:
        return str(refuse_no_path(typed))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def as_path(typed: str) -> Path:
    """As typed, but for `~`, which a shell leaves alone in `--out=~/x` and inside quotes."""
    return expand_home(Path(as_text(typed)))


def as_name(typed: str) -> str:
    """The same for what may be a hub id instead."""
    return expand_home_in_name(as_text(typed))


def folder_option(text: str, metavar: str = "FOLDER") -> Any:
    """An option that names a folder, with its help and what help calls its value."""
    return typer.Option(help=text, parser=as_path, metavar=metavar)


def folder_argument(text: str, metavar: str) -> Any:
    """The same for an argument, which may name a file too."""
    return typer.Argument(help=text, parser=as_path, metavar=metavar)


ConfigFile = Annotated[Path, folder_argument("A YAML configuration, such as configs/nano.yaml.", "CONFIG")]
RunPath = Annotated[Path, folder_argument("A run folder, such as runs/nano.", "RUN")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Change one key, as in --set training.epochs=1; may be repeated. Text and paths are taken as typed (null for none; quotes "
        "around the whole are dropped), other values are YAML.",
    ),
]
_DATA_DIR_HELP = "Folder with copies of the official files; `sample` for the data inside this package."
DataDir = Annotated[str | None, typer.Option("--data-dir", help=_DATA_DIR_HELP, parser=as_text, metavar="FOLDER")]
_OWN_BASE_HELP = "Hub id or folder of the run's base, where it is not under the name in config.yaml."
OwnBase = Annotated[str | None, typer.Option("--base", help=_OWN_BASE_HELP, parser=as_name, metavar="BASE")]
Country = Annotated[str | None, typer.Option(help="ISO code, such as GB: whose hotlines are shown.")]
Strength = Annotated[
    float,
    typer.Option(help="Of the adapter, from 0 (the base) to 1 (as trained); results at 0.5 lie in strength-0.50/ of the run."),
]
LongestReply = Annotated[int, typer.Option("--max-new-tokens", min=1, help="Longest reply, in tokens; how many were cut is said.")]
JudgeUrl = Annotated[str | None, typer.Option(help="OpenAI-compatible judge; its key in WARMLINE_JUDGE_KEY or OPENAI_API_KEY.")]
JudgeModel = Annotated[str | None, typer.Option(help="The judge's name there, or whose answers a batch's are.")]
_JUDGE_BATCH_HELP = "Ask no server: write requests.jsonl here, end, and go on when answers.jsonl, a provider's batch output, is here too."
JudgeBatch = Annotated[Path | None, folder_option(_JUDGE_BATCH_HELP)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def configured(path: Path, overrides: list[str] | None, data_dir: str | None) -> RunConfig:
    """The configuration that a command was given."""
    return load_config(path, overrides or (), data_dir)


def show(result: dict[str, Any], as_json: bool, parts: Callable[[], Iterable[RenderableType]], width: int | None = None) -> None:
    """Print a result.

    Args:
        result: As JSON has it.
        as_json: Whether JSON is printed.
        parts: Makes what a person reads instead.
        width: In characters; None for the terminal's, or 80 where there is none.
    """
    if as_json:
        print(json.dumps(result, indent=2))
        return
    console = Console(width=width)
    for part in parts():
        console.print(part, highlight=False)
