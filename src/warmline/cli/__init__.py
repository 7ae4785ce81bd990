"""The command line: parse, call, print, and no logic. A command imports what it needs when it runs, so that `--help` waits for no torch.

A command is a function in the module of its subject and a line below; what it computes is in the package that it calls.
"""

import logging
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

import typer

from warmline.cli import measuring, training, using
from warmline.errors import AnswersNeeded, WarmlineError, printable

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Fine-tune an open LLM into an empathetic friend.",
)
_COMMANDS: dict[str, Callable[..., None]] = {
    "rewrite": training.rewrite,
    "plan": training.plan,
    "train": training.train,
    "evaluate": measuring.evaluate,
    "eqbench": measuring.eqbench,
    "redteam": measuring.redteam,
    "compare": measuring.compare,
    "guard": measuring.guard,
    "ablate": training.ablate,
    "errors": measuring.errors,
    "facts": measuring.facts,
    "dial": measuring.dial,
    "report": measuring.report,
    "chat": using.chat,
    "export": using.export,
    "inspect": using.inspect_folder,
    "run": training.run_all,
    "serve": using.serve,
    "bench": training.bench,
}
"""In the order of help."""
_DATA_COMMANDS: dict[str, Callable[..., None]] = {"fetch": training.data_fetch, "stats": training.data_stats, "card": training.data_card}

data_app = typer.Typer(no_args_is_help=True, help="Get, count and describe the data sets.")
app.add_typer(data_app, name="data")
for _name, _command in _COMMANDS.items():
    app.command(_name)(_command)
for _name, _command in _DATA_COMMANDS.items():
    data_app.command(_name)(_command)

_INTERRUPTED = 130
_SPINS, _SERVING_SPINS = "10000", "0"
"""Turns for which torch's threads spin while they wait for each other on a CPU. 300,000, the usual number, starves whatever else runs and
then themselves: a demo's training made 175 tokens/s beside one busy process on two cores where 10,000 make 950, and both make 3,600 alone.
A server must answer meanwhile, so that its threads sleep at once."""
_UsageError: Any = typer.BadParameter.__base__  # what a wrong option or argument raises; typer gives it no public name


def main() -> None:
    """Run the command line; bad input ends with one line on standard error and status 2, a judge's files that wait with 3."""
    os.environ.setdefault("GOMP_SPINCOUNT", _SERVING_SPINS if sys.argv[1:2] == ["serve"] else _SPINS)  # before torch comes
    warnings.simplefilter("ignore", FutureWarning)  # libraries talking to each other
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # on a CPU it asks for a kernel that is not needed
    try:
        status = app(standalone_mode=False)
    except AnswersNeeded as needed:
        print(f"warmline: {printable(str(needed))}", file=sys.stderr)
        raise SystemExit(3) from None
    except WarmlineError as error:
        print(f"warmline: {printable(str(error))}", file=sys.stderr)
        raise SystemExit(2) from None
    except _UsageError as error:
        print(f"warmline: {' '.join(str(error).split())}; --help lists what there is", file=sys.stderr)
        raise SystemExit(2) from None
    except (KeyboardInterrupt, typer.Abort):
        status = _INTERRUPTED
    if status == _INTERRUPTED:  # typer returns it for Ctrl-C
        print("warmline: interrupted; train goes on with `--resume`, other commands when started again", file=sys.stderr)
    raise SystemExit(status or 0)
