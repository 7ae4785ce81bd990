"""`warmline chat`: a conversation in a terminal, or through a pipe."""

import io
import signal
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NamedTuple

from rich.console import Console, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from transformers.utils.logging import disable_progress_bar

from warmline import __version__
from warmline.errors import WarmlineError
from warmline.safety.crisis import ANYWHERE, COUNTRIES, fill_slots, resources
from warmline.safety.guard import Heard, hear
from warmline.serving.engine import LONGEST_REPLY, Engine, Generation, TooLongError
from warmline.serving.stream import Stream
from warmline.serving.transcript import Talk, TalkTurn, in_words

_TICK = 0.03
"""Seconds between two looks at a growing reply."""


class Command(NamedTuple):
    """Something that begins with a slash."""

    usage: str
    what: str
    act: Callable[["Terminal", str], None]


class Terminal:
    """One conversation and its commands.

    Args:
        engine: Who answers.
        console: Where to; a terminal gets colours and replies that grow, anything else plain lines.
        ask: Gives the next thing the user says.
        settings: How replies are made.
        country: ISO 3166 code of the user's country, whose hotlines are shown.

    Attributes:
        conversation: So far.
        country: As given, or as the user changed it.
        beside_base: Whether the untuned model answers too.
    """

    def __init__(self, engine: Engine, console: Console, ask: Callable[[], str], settings: Generation, country: str | None) -> None:
        self._engine, self._console, self._ask = engine, console, ask
        longest = settings.max_tokens or LONGEST_REPLY
        self._settings = settings._replace(max_tokens=max(1, min(longest, engine.context // 2)))
        self.conversation = Talk()
        self.country = country
        self.beside_base = False
        self._shown: tuple[tuple[str, ...], str | None] | None = None

    def run(self) -> None:
        """Talk until the user leaves, by command, Ctrl-C or Ctrl-D at the prompt, or the end of the input."""
        tuned = (
            f"{self._engine.name}, tuned from {self._engine.base_model}" if self._engine.tuned_id else f"{self._engine.base_model}, untuned"
        )
        self._say(f"You are talking to an AI, not a person and not a therapist: {tuned}. /help lists what else there is.", "bold")
        try:
            while True:
                said = self._ask().strip()
                if said.startswith("/"):
                    self._command(said)
                elif said:
                    with _CtrlC() as ctrl_c:
                        self._answer(said, ctrl_c)
        except (EOFError, KeyboardInterrupt):
            self._console.print()
        self._say("Take care.")

    # replies

    def _answer(self, said: str, ctrl_c: "_CtrlC") -> None:
        turn = TalkTurn(said)
        self.conversation.turns.append(turn)
        before, heard = self.conversation.left_out, hear(self.conversation.said, self.country)
        if heard.risk.level == "red":  # before anything that takes time or may fail
            self._show_help(heard)
        try:
            streams = [self._start(base, heard) for base in ([False, True] if self.beside_base else [False])]
        except (ValueError, RuntimeError) as error:
            self.conversation.undo()
            self.conversation.left_out = before
            self._say(f"Not sent: {error}.", "yellow")
            if heard.risk.level == "yellow":
                self._show_help(heard)
            return
        if heard.alone:
            turn.reply = heard.message or ""
            return
        if self.conversation.left_out > before:
            self._say(f"(Longer than the model's context: turns left out from here on, oldest first: {self.conversation.left_out}.)", "dim")
        try:
            self._finish(turn, streams, self._watch(turn, streams, heard, ctrl_c))
        except RuntimeError as error:
            self.conversation.undo()
            self._say(f"Not answered: {error}.", "red")
        if heard.risk.level == "yellow":
            self._show_help(heard)

    def _start(self, base: bool, heard: Heard) -> Stream:
        while True:
            try:
                return self._engine.start(self.conversation.messages(), self._settings, base, self.country, "card", heard)
            except TooLongError:
                if not self.conversation.leave_out_oldest():
                    raise

    def _watch(self, turn: TalkTurn, streams: list[Stream], heard: Heard, ctrl_c: "_CtrlC") -> list[str]:
        """Show what was heard, then the replies as they grow, until all have ended or Ctrl-C ends them; gives their texts."""
        while not (streams[0].begun or ctrl_c.pressed):
            time.sleep(_TICK)
        turn.reading = streams[0].reading if streams[0].begun else None
        if turn.reading is not None and heard.risk.level != "red":  # no guess at a mood beside a panel of hotlines
            self._say(f"  {in_words(turn.reading)}", "dim italic")
        texts = [""] * len(streams)
        with Live(console=self._console, transient=True, refresh_per_second=15) if self._console.is_terminal else nullcontext() as live:
            while not (all(stream.done for stream in streams) or ctrl_c.pressed):
                texts = [text + stream.arrived() for text, stream in zip(texts, streams, strict=True)]
                if live is not None:
                    live.update(self._side_by_side([_printable(text) for text in texts]))
                time.sleep(_TICK)
        if ctrl_c.pressed:
            turn.stopped = True
            for stream in streams:
                stream.cancel()
        return [_printable(text + "".join(stream)) for text, stream in zip(texts, streams, strict=True)]

    def _finish(self, turn: TalkTurn, streams: list[Stream], texts: list[str]) -> None:
        turn.reply, turn.base_reply = texts[0].strip(), texts[1].strip() if len(texts) > 1 else None
        shown = [text.strip() or "(it said nothing)" for text in texts]
        if self._console.is_terminal:
            self._console.print(self._side_by_side(shown))
        else:
            for name, text in zip(("", "base: "), shown, strict=False):
                self._say(f"  {name}{text}")
        if turn.stopped:
            self._say("  (stopped)", "dim italic")
        elif any(stream.finish_reason == "length" for stream in streams):
            self._say("  (the longest reply was reached)", "dim italic")

    def _side_by_side(self, texts: list[str]) -> RenderableType:
        if len(texts) == 1:
            return Padding(Text(texts[0]), (0, 0, 0, 2))
        table = Table(box=None, expand=True, padding=(0, 2))
        for name in (self._engine.name, "base, untuned"):
            table.add_column(name, ratio=1, header_style="dim", vertical="top")
        table.add_row(*(Text(text) for text in texts))
        return table

    def _show_help(self, heard: Heard) -> None:
        """The guard's message: whole where it is the reply, or something in it is new; else a line with the numbers."""
        known = (heard.risk.evidence, self.country)
        if known == self._shown and not heard.alone:
            self._say(fill_slots("  (still there for you: {emergency_number}; {crisis_line})", self.country), "dim")
            return
        self._shown = known
        message = heard.message or ""
        if resources(self.country) is ANYWHERE:
            message += " For your country's numbers, type /country and its code, as in /country GB."
        if self._console.is_terminal:
            self._console.print(
                Panel(Text(message), title="people who can help", border_style="red" if heard.risk.level == "red" else "yellow")
            )
        else:
            self._say(f"\n{message}\n")

    # commands

    def _command(self, said: str) -> None:
        name, _, rest = said.partition(" ")
        if name not in COMMANDS:
            self._say(f"There is no {name}. Known: {', '.join(COMMANDS)}.", "yellow")
            return
        COMMANDS[name].act(self, rest.strip())

    def _toggle_base(self, _: str) -> None:
        if self._engine.tuned_id is None:
            self._say("This is the untuned model, alone.", "yellow")
            return
        self.beside_base = not self.beside_base
        self._say("From the next turn on, the untuned model answers too; only the tuned replies are remembered."
                  if self.beside_base else "The tuned model answers alone.")  # fmt: skip

    def _save(self, name: str) -> None:
        about: dict[str, Any] = {
            "warmline": __version__,
            "run": self._engine.name,
            "base_model": self._engine.base_model,
            "country": self.country,
            "settings": self._settings._asdict(),
        }
        path = Path(name).expanduser()
        try:
            self.conversation.save(path, about)
        except WarmlineError as error:
            self._say(f"Not saved. {error}", "yellow")
            return
        self._say(f"Saved to {path}.")

    def _change_country(self, code: str) -> None:
        row = resources(code)
        if row is ANYWHERE:
            self._say(
                f"No hotlines for `{code}` here. Known: {', '.join(sorted(COUNTRIES))}; elsewhere findahelpline.com lists them.", "yellow"
            )
            return
        self.country = row.country
        self._say(f"{row.country}: {row.emergency_number} in an emergency; {row.crisis_line}.")

    def _undo(self, _: str) -> None:
        turn = self.conversation.undo()
        self._say("There is nothing to take back." if turn is None else f"Taken back: {' '.join(turn.user.split())[:60]}")

    def _begin_anew(self, _: str) -> None:
        self.conversation, self._shown = Talk(), None
        self._say("A new conversation; the old one is forgotten.")

    def _help(self, _: str) -> None:
        for command in COMMANDS.values():
            self._say(f"  {command.usage:<15} {command.what}")
        self._say("  Ctrl-C          stops a reply; at the prompt it leaves, as Ctrl-D does")

    def _leave(self, _: str) -> None:
        raise EOFError

    def _say(self, text: str, style: str | None = None) -> None:
        self._console.print(text, style=style, markup=False, highlight=False, soft_wrap=not self._console.is_terminal)


COMMANDS: dict[str, Command] = {
    "/base": Command("/base", "the untuned model answers too, side by side; again to end it", Terminal._toggle_base),
    "/save": Command("/save FILE", "write the conversation, as .json or .txt", Terminal._save),
    "/country": Command("/country GB", "whose hotlines are shown", Terminal._change_country),
    "/undo": Command("/undo", "take back your last message and its reply", Terminal._undo),
    "/new": Command("/new", "forget the conversation and begin anew", Terminal._begin_anew),
    "/help": Command("/help", "this list", Terminal._help),
    "/quit": Command("/quit", "leave", Terminal._leave),
}


class _CtrlC:
    """Within, Ctrl-C is noted and not raised: an exception can be lost in what it interrupts, or leave it half done."""

    def __init__(self) -> None:
        self.pressed = False

    def _note(self, _signal: int, _frame: FrameType | None) -> None:
        self.pressed = True

    def __enter__(self) -> "_CtrlC":
        self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        signal.signal(signal.SIGINT, self._before)


def _keyboard(commands: Iterable[str]) -> Callable[[], str]:
    """Asks at a prompt: editing, history, Tab for the commands; what is pasted is one message, whatever its lines.

    Ctrl-C is a key here and no signal, so it cannot come too early or too late; it raises KeyboardInterrupt.
    """
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import WordCompleter

    session: PromptSession[str] = PromptSession("> ", completer=WordCompleter(list(commands), sentence=True), complete_while_typing=False)
    return session.prompt


def _piped() -> str:
    """The next line of a pipe or file, shown as if it had been typed."""
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    print(f"> {line.rstrip()}")
    return line


def _printable(text: str) -> str:
    """Without codes for the terminal."""
    return "".join(mark for mark in text if mark.isprintable() or mark in "\n\t")


def chat(path: Path, settings: Generation, country: str | None = None, base: str | None = None, strength: float = 1.0) -> None:
    """Load a run, or a base alone, and talk on standard input and output.

    Args:
        path: As `Engine.open` takes it.
        settings: How replies are made.
        country: ISO 3166 code, whose hotlines are shown.
        base: As of `Engine.open`.
        strength: As of `Engine.open`.

    Raises:
        WarmlineError: nothing there that can be loaded.
    """
    try:
        settings.check()
    except ValueError as error:
        raise WarmlineError(str(error)) from None
    if country is not None and resources(country) is ANYWHERE:
        raise WarmlineError(f"--country {country}: expected one of {', '.join(sorted(COUNTRIES))}, or nothing")
    console = Console(highlight=False)
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    disable_progress_bar()  # transformers' own, which would stand above the conversation for good
    with console.status("loading"):
        engine = Engine.open(path, slots=2, queue=2, base=base, strength=strength)
    try:
        ask = _keyboard(COMMANDS) if sys.stdin.isatty() else _piped
        Terminal(engine, console, ask, settings, country and resources(country).country).run()
    finally:
        engine.close()
