"""Commands that use a run: talk to it, serve it, hand it on, look into what was handed on."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from warmline.cli.options import AsJson, Country, OwnBase, RunPath, Strength, as_name, folder_argument, folder_option
from warmline.errors import WarmlineError, printable

_UNQUANTISED_HELP = "Hub id or folder of the base's unquantised weights; the run's own name by default."


def chat(
    run: Annotated[Path, folder_argument("A run folder; or a configuration or model folder, for an untuned model.", "RUN")],
    country: Country = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest reply, in tokens.")] = None,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token each time.")] = 0.7,
    seed: Annotated[int | None, typer.Option(help="The same words get the same reply.")] = None,
    base: OwnBase = None,
    strength: Strength = 1.0,
) -> None:
    """Talk to a run in the terminal, or through a pipe; /help there lists commands."""
    from warmline.serving.engine import Generation
    from warmline.serving.terminal import chat as talk

    talk(run, Generation(max_tokens=max_tokens, temperature=temperature, seed=seed), country, base, strength)


def serve(
    run: Annotated[Path, folder_argument("A run folder; or a configuration or a model, for a base alone.", "RUN")],
    host: Annotated[str, typer.Option(help="Address to listen on; any other than this machine's own needs an API key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    api_key: Annotated[str | None, typer.Option(envvar="WARMLINE_API_KEY", help="Key that clients must send.")] = None,
    country: Country = None,
    slots: Annotated[int, typer.Option(min=1, max=256, help="Replies made at a time.")] = 16,
    queue: Annotated[int, typer.Option(min=0, help="Requests that may wait; more are refused.")] = 256,
    grace: Annotated[float, typer.Option(min=0, help="Seconds that replies have to end after SIGTERM or Ctrl-C.")] = 20.0,
    generate_at: Annotated[str | None, typer.Option(help="Let this OpenAI-compatible server generate, such as vLLM's.")] = None,
    generate_model: Annotated[str | None, typer.Option(help="What it calls the tuned model.")] = None,
    generate_base: Annotated[str | None, typer.Option(help="What it calls the base; generated here by default.")] = None,
    base: OwnBase = None,
    strength: Strength = 1.0,
) -> None:
    """A web page and an OpenAI-compatible API, on this machine unless told otherwise."""
    from warmline.serving import require_extra

    require_extra()
    from warmline.serving.proxy import Upstream
    from warmline.serving.server import ServeOptions
    from warmline.serving.server import serve as serve_run

    if (generate_at is None) != (generate_model is None):
        raise WarmlineError("--generate-at and --generate-model go together; give both or neither")
    if generate_at is not None and strength != 1:
        raise WarmlineError(
            "--strength: another server generates, with its own adapter; give it one that `warmline export --strength` wrote"
        )
    upstream = Upstream(generate_at, generate_model, generate_base) if generate_at and generate_model else None
    serve_run(run, ServeOptions(host, port, api_key or None, country, slots, queue, grace, upstream, base, strength))


def export(
    run: RunPath,
    out: Annotated[Path, folder_option("Folder to write; new, or an earlier export with --overwrite.")],
    merged: Annotated[bool, typer.Option("--merged", help="Also the whole model, the adapter merged into unquantised weights.")] = False,
    dtype: Annotated[str, typer.Option(help="Of the merged weights: bfloat16, float16 or float32.")] = "bfloat16",
    base: Annotated[str | None, typer.Option(help=_UNQUANTISED_HELP, parser=as_name, metavar="BASE")] = None,
    tokenizer: Annotated[bool, typer.Option(help="Copy the base's tokenizer too; Gemma's is 32 MiB.")] = True,
    overwrite: Annotated[bool, typer.Option(help="Replace an earlier export.")] = False,
    strength: Annotated[float, typer.Option(help="Of the adapter, baked into what is written: 0 is the base, 1 as trained.")] = 1.0,
    push: Annotated[str | None, typer.Option(help="Upload to this model repository, such as me/friend.", metavar="HUB_ID")] = None,
    private: Annotated[bool, typer.Option("--private", help="Make that repository a private one.")] = False,
) -> None:
    """The adapter for PEFT and vLLM, merged weights for transformers, the heads and a model card; to a hub when asked."""
    from warmline.export.folder import Destination, Options, vllm_command
    from warmline.export.folder import export as export_run
    from warmline.export.merge import known_dtype

    options = Options(merged, known_dtype(dtype), base, overwrite, tokenizer, strength)
    destination = Destination.check(push, private) if push else None
    described = export_run(run, out, options, print)
    if described["adapter"].get("vllm"):
        print(vllm_command(described["base"]["hub_id"], described["adapter"]["rank"], out.as_posix()))
    print(f"written to {out}; its README.md is the model card")
    if destination:
        print(destination.upload(out))


def inspect_folder(
    folder: Annotated[Path, typer.Argument(help="A run folder or an export, such as one from a hub.", metavar="FOLDER")],
    as_json: AsJson = False,
) -> None:
    """What is in a folder before it is loaded: base, adapter, files and hashes, links, pickles; status 2 where loading is refused."""
    from warmline.inspection import inspect, tables

    found = inspect(folder)
    if as_json:
        print(json.dumps({**found._asdict(), "entries": [entry._asdict() for entry in found.entries]}, indent=2))
    else:
        console = Console(width=None if sys.stdout.isatty() else 160)
        for part in tables(found):
            console.print(part, highlight=False)
        for note in found.notes:
            print(f"note: {printable(note)}")
    for why in found.refusals:
        print(f"warmline: {printable(why)}", file=sys.stderr)
    if found.refusals:
        raise typer.Exit(2)
