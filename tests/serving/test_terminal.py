"""The conversation in a terminal: through a pipe, in a pseudo-terminal, and its commands one by one."""

import io
import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

import warmline
from warmline import cli
from warmline.companion import Companion
from warmline.data.template import Message
from warmline.model.backbone import Sampling
from warmline.runs import RunFolder, read_json
from warmline.safety.guard import hear
from warmline.serving.engine import BusyError, Engine, Generation
from warmline.serving.stream import Stream
from warmline.serving.terminal import COMMANDS, Terminal
from warmline.serving.transcript import Talk, TalkTurn, in_words

GREEDY = Generation(max_tokens=12, temperature=0)
SAME = Sampling(max_new_tokens=12, temperature=0)
SAD, MORE = "My cat ran away.", "I keep looking at her bowl."
RISK = "I want to kill myself tonight."

PROMPT = "\x1b[?2004h"
"""The terminal is told to mark what is pasted: the prompt listens."""

Say = Callable[..., tuple[Terminal, str]]


@pytest.fixture(scope="module")
def companion(finished: RunFolder) -> Companion:
    return warmline.load(finished.path)


@pytest.fixture
def talk(engine: Engine) -> Say:
    """Says lines to a terminal; gives it back with everything it printed."""

    def run(*lines: str, country: str | None = None, tty: bool = False) -> tuple[Terminal, str]:
        out, left = io.StringIO(), iter(lines)

        def ask() -> str:
            try:
                return next(left)
            except StopIteration:
                raise EOFError from None

        terminal = Terminal(engine, Console(file=out, force_terminal=tty, width=100, highlight=False), ask, GREEDY, country)
        terminal.run()
        return terminal, out.getvalue()

    return run


def messages(*contents: str) -> list[Message]:
    return [Message(role=("user", "assistant")[at % 2], content=content) for at, content in enumerate(contents)]


def test_two_turns(talk: Say, companion: Companion) -> None:
    terminal, out = talk(SAD, "", MORE)
    first, second = terminal.conversation.turns
    assert first.reply == companion.reply(messages(SAD), SAME)
    assert second.reply == companion.reply(messages(SAD, first.reply, MORE), SAME)
    assert second.reading == companion.read(messages(SAD, first.reply, MORE))
    for shown in (first.reply, second.reply, in_words(companion.read(messages(SAD))), "an AI, not a person and not a therapist", "tiny"):
        assert shown in out


@pytest.mark.parametrize("tty", [False, True])
def test_beside_the_base(tty: bool, talk: Say, companion: Companion) -> None:
    terminal, out = talk("/base", SAD, "/base", MORE, tty=tty)
    first, second = terminal.conversation.turns
    assert first.base_reply == companion.reply(messages(SAD), SAME, base=True) != first.reply
    assert second.base_reply is None
    assert second.reply == companion.reply(messages(SAD, first.reply, MORE), SAME)  # only tuned replies are remembered
    if not tty:
        assert f"base: {first.base_reply}" in out


def test_risk_shows_people_who_can_help(talk: Say) -> None:
    _, out = talk(RISK, MORE, "/country gb", MORE)
    assert "heard" not in out  # no guess at a mood beside it
    assert out.count("please call your local emergency number") == 1
    assert out.index("please call your local") < out.index("(the longest reply was reached)")  # before the reply
    assert "/country GB" in out
    assert "still there for you: your local emergency number" in out
    assert out.count("please call 999") == 1  # once more, since the numbers are other ones now
    assert "Samaritans" in out
    assert "people who can help" in talk(RISK, country="GB", tty=True)[1]
    assert "call 999" not in talk(SAD, country="GB")[1]


def test_red_is_answered_by_the_guard_alone_and_first(talk: Say, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, out = talk("/base", RISK)
    (turn,) = terminal.conversation.turns
    assert talk(RISK, RISK)[1].count("please call your local emergency number") == 2  # never a short line for a reply
    assert (turn.reading, turn.base_reply) == (None, None)
    assert turn.reply.startswith("I'm glad you said this")
    assert "(the longest reply was reached)" not in out
    monkeypatch.setattr(engine, "start", lambda *_: _refuse())
    assert "call 999" in talk(RISK, country="GB")[1].partition("Not sent: too many")[0]
    assert "call 999" in talk("Sometimes I hurt myself to feel something.", country="GB")[1].partition("Not sent: too many")[2]


def _refuse() -> Stream:
    raise BusyError("too many")


def test_undo_and_new(talk: Say, companion: Companion) -> None:
    terminal, out = talk("/undo", SAD, MORE, "/undo", MORE)
    assert "nothing to take back" in out
    assert f"Taken back: {MORE}" in out
    assert [turn.user for turn in terminal.conversation.turns] == [SAD, MORE]
    terminal, _ = talk(SAD, "/new", MORE)
    (only,) = terminal.conversation.turns
    assert only.reply == companion.reply(messages(MORE), SAME)


def test_unknown_command_names_the_known(talk: Say) -> None:
    terminal, out = talk("/bsae")
    assert "There is no /bsae" in out
    assert all(name in out for name in COMMANDS)
    assert terminal.conversation.turns == []


def test_help_and_quit(talk: Say) -> None:
    terminal, out = talk("/help", "/quit", SAD)
    assert all(command.usage in out and command.what in out for command in COMMANDS.values())
    assert terminal.conversation.turns == []
    assert out.rstrip().endswith("Take care.")


@pytest.mark.parametrize(("code", "said"), [("ie", "112 or 999"), ("UK", "GB: 999"), ("XX", "Known: AU, CA"), ("", "Known: AU, CA")])
def test_country(code: str, said: str, talk: Say) -> None:
    assert said in talk(f"/country {code}")[1]


def test_save_round_trip(talk: Say, companion: Companion, tmp_path: Path) -> None:
    name = tmp_path / "talk.json"
    terminal, out = talk("/base", SAD, MORE, RISK, f"/save {name}", country="GB")
    assert f"Saved to {name}." in out
    saved = read_json(name)
    assert (saved["run"], saved["country"], saved["settings"]["max_tokens"]) == ("tiny", "GB", 12)
    plain = [Message(role=one["role"], content=one["content"]) for one in saved["messages"]]
    assert plain == terminal.conversation.messages()
    assert saved["messages"][0]["emotion"] == companion.read(plain[:1])["emotion"]
    assert saved["messages"][3]["strategy"] == companion.read(plain[:3])["strategy"]
    assert [saved["messages"][at]["risk"] for at in (0, 4)] == ["none", "red"]
    assert (saved["messages"][5]["content"], saved["messages"][5]["strategy"]) == (hear([RISK], "GB").message, None)
    assert saved["messages"][1]["base_reply"] == companion.reply(plain[:1], SAME, base=True)


def test_save_as_text(talk: Say, tmp_path: Path) -> None:
    terminal, _ = talk(SAD, f"/save {tmp_path / 'talk.txt'}")
    (turn,) = terminal.conversation.turns
    text = (tmp_path / "talk.txt").read_text(encoding="utf-8")
    assert f"you: {SAD}\n" in text
    assert f"reply: {turn.reply}\n" in text


def test_save_keeps_what_is_there(talk: Say, tmp_path: Path) -> None:
    taken = tmp_path / "mine.txt"
    taken.write_text("mine")
    _, out = talk(SAD, f"/save {taken}", f"/save {tmp_path / 'a.doc'}", "/save", f"/save {taken}/below.txt")
    assert taken.read_text() == "mine"
    assert "was not changed" in out
    assert out.count("ends in .json or .txt") == 2
    assert out.count("Not saved.") == 4
    assert list(tmp_path.iterdir()) == [taken]


def test_the_oldest_turns_are_left_out(finished: RunFolder) -> None:
    engine, out, said = (
        Engine.open(finished.path, slots=1),
        io.StringIO(),
        iter([RISK, *[f"{SAD} {at}" for at in range(6)], "long " * 500, SAD]),
    )
    engine.context = 100
    try:
        terminal = Terminal(engine, Console(file=out, width=100), lambda: next(said, None) or _end(), GREEDY, None)
        terminal.run()
    finally:
        engine.close()
    text = out.getvalue()
    assert f"turns left out from here on, oldest first: {terminal.conversation.left_out}." in text
    assert "Not sent: the conversation has" in text
    assert len(terminal.conversation.turns) == 8  # all are kept, but for the one that fits nowhere
    assert 1 < terminal.conversation.left_out < 7
    assert terminal.conversation.messages()[0]["content"] == terminal.conversation.turns[terminal.conversation.left_out].user
    assert text.rindex("still there for you") > text.rindex("Not sent")  # the risk was said in a turn that is left out by now


def _end() -> str:
    raise EOFError


def test_conversation_without_replies() -> None:
    conversation = Talk([TalkTurn("a"), TalkTurn("b", "c")])
    assert conversation.messages() == [
        Message(role="user", content="a"), Message(role="user", content="b"), Message(role="assistant", content="c"),
    ]  # fmt: skip
    assert conversation.leave_out_oldest()
    assert not conversation.leave_out_oldest()
    conversation.undo()
    assert conversation.messages() == [Message(role="user", content="a")]


def test_no_codes_reach_the_terminal(talk: Say, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream(3, hear([SAD]), True, lambda: None)
    for piece in ("a\x1b[2J\x07b", "\u202ec\r\n\td"):
        stream.put(piece, 1)
    stream.finish("stop")
    monkeypatch.setattr(engine, "start", lambda *_: stream)
    terminal, out = talk(SAD)
    assert terminal.conversation.turns[0].reply == "a[2Jbc\n\td"
    assert not {"\x1b", "\x07", "\u202e", "\r"} & set(out)


def test_through_a_pipe(
    finished: RunFolder, companion: Companion, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = f"{SAD}\n/nothing\n{MORE}".encode() + b" \xff\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(said), encoding="utf-8"))
    monkeypatch.setattr(sys, "argv", ["warmline", "chat", str(finished.path), "--temperature", "0", "--max-tokens", "12"])
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert f"> {SAD}\n  {in_words(companion.read(messages(SAD)))}\n  {companion.reply(messages(SAD), SAME)}\n" in out
    assert "There is no /nothing" in out
    assert "\ufffd" in out
    assert "\x1b" not in out


class Session:
    """A program in a pseudo-terminal."""

    def __init__(self, command: list[str]) -> None:
        self._end, other = pty.openpty()
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "30", "PROMPT_TOOLKIT_NO_CPR": "1"}
        self.process = subprocess.Popen(command, stdin=other, stdout=other, stderr=other, start_new_session=True, env=environment,
                                        preexec_fn=lambda: _take_terminal(other))  # fmt: skip
        os.close(other)
        self.seen = ""

    def wait_for(self, text: str, seconds: float = 60) -> None:
        """Read until a text comes that was not waited for yet."""
        until = time.monotonic() + seconds
        while text not in self.seen:
            assert time.monotonic() < until, f"{text!r} did not come: {self.seen[-800:]!r}"
            if select.select([self._end], [], [], 0.1)[0]:
                self.seen += os.read(self._end, 4096).decode(errors="replace")
        self.seen = self.seen.partition(text)[2]

    def send(self, keys: str) -> None:
        os.write(self._end, keys.encode())


def _take_terminal(terminal: int) -> None:
    import fcntl
    import termios

    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)


def test_ctrl_c_stops_a_reply_and_keeps_it(finished: RunFolder, engine: Engine, tmp_path: Path) -> None:
    options = ("--max-tokens", "800", "--temperature", "1", "--seed", "3")
    begins = "".join(engine.start(messages(SAD), Generation(max_tokens=40, temperature=1.0, seed=3)))[:60]
    session = Session([str(Path(sys.executable).with_name("warmline")), "chat", str(finished.path), *options])
    try:
        session.wait_for(PROMPT)
        session.send(f"{SAD}\r")
        session.wait_for("leans to")
        session.wait_for(begins)
        session.send("\x03")
        session.wait_for("(stopped)", 10)
        session.wait_for(PROMPT)
        session.send("\x1b[200~one line\rand another\x1b[201~\r")  # pasted
        session.wait_for("leans to")
        session.send("\x03")
        session.wait_for(PROMPT)
        session.send(f"/save {tmp_path / 'talk.json'}\r")
        session.wait_for("Saved to")
        session.wait_for(PROMPT)
        session.send("half a thought\x03")
        session.wait_for("Take care.")
        assert session.process.wait(20) == 0
    finally:
        session.process.kill()
    first, answer, *rest = json.loads((tmp_path / "talk.json").read_text())["messages"]
    assert (first["content"], answer["stopped"]) == (SAD, True)
    assert answer["content"].startswith(begins)
    assert len(answer["content"].split()) < 600  # far from 800 tokens
    assert rest[0]["content"] == "one line\nand another"
