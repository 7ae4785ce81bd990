"""The tools that try the server and kill runs notice what they are there for."""

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest

import kills
import soak
from warmline.safety.guard import assess


@pytest.mark.parametrize("text", soak.RISKS)
def test_every_wording_is_heard(text: str) -> None:
    assert assess(text).level == "red"


def test_every_way_holds_a_message_and_a_length_that_is_true() -> None:
    probes = soak.probes("nano-base")
    assert len(probes) == len(soak.RISKS) * len({probe.way for probe in probes})
    for probe in probes:
        head, _, body = probe.sent.data.partition(b"\r\n\r\n")
        assert f"Content-Length: {len(body)}".encode() in head
        assert probe.expected


def answering(answer: bytes, data: bytes, patience: float) -> str:
    """What `exchange` makes of a server that sends this and closes; nothing stands for one that never answers."""

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if answer:
            writer.write(answer)
            writer.close()

    async def run() -> str:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            return await soak.exchange(server.sockets[0].getsockname()[1], data, patience)

    return asyncio.run(run())


def test_an_answer_is_its_status_and_silence_hangs() -> None:
    assert answering(b"HTTP/1.1 400 Bad Request\r\n\r\n{}", b"GET", 5) == "400"
    assert answering(b"nonsense", b"GET", 5) == "closed"
    assert answering(b"", b"GET", 0.1) == "hung"


def found(**changes: Any) -> dict[str, Any]:
    server = {
        "growth after the first wave": 0.01, "descriptors before": 7, "descriptors after": 8, "tracebacks": 0, "status at the end": 0
    }  # fmt: skip
    message = {"all but long ones": {"sent": 3, "held": 3, "p99": 40.0}, "long ones": {"sent": 1, "held": 1, "p99": 900.0}}
    return {"crisis message": message, "replies": {"lost": 0}, "other 5xx": 0, "hung": 0, "server": {**server, **changes}}


def test_a_broken_promise_is_named() -> None:
    assert soak.promises(found()) == []
    assert soak.promises(found(tracebacks=2)) == ["no traceback"]
    slow = {**found(), "crisis message": {**found()["crisis message"], "all but long ones": {"sent": 3, "held": 2, "p99": 400.0}}}
    assert soak.promises(slow) == ["crisis message: 99 % within 100 ms", "crisis message: never missing"]


def test_only_an_honest_refusal_is_no_loss() -> None:
    told = soak.of_clients({"stream": {"served": 5, "refused: 429": 2, "lost: 500": 1}, "wrong": {"500": 1, "503": 1, "hung: noise": 2}})
    assert told["replies"] == {"asked": 8, "served": 5, "left": 0, "refused": 2, "lost": 1}
    assert (told["other 5xx"], told["hung"]) == (2, 2)


def test_growth_is_that_of_the_waves_after_the_first() -> None:
    def samples(grow: float) -> list[soak.Sample]:
        return [soak.Sample(at, 0, 400 + 2 * min(at, 25) + grow * at, 9, 9) for at in range(0, 130, 5)]

    assert soak.growth(samples(0), 100) == pytest.approx(0, abs=1e-6)
    assert soak.growth(samples(1), 100) == pytest.approx(75 / 475, rel=0.01)
    assert (soak.wave(0), max(soak.wave(at / 80) for at in range(81))) == (0.1, 1)


def test_what_is_written_aside_is_seen_while_it_is_new(tmp_path: Path) -> None:
    began = time.time() - 1
    assert not kills.written_aside(tmp_path / "absent", began)
    aside = tmp_path / ".adapter.writing"
    aside.mkdir()
    assert kills.written_aside(tmp_path, began, "adapter", "heads")
    assert not kills.written_aside(tmp_path, began, "heads")
    os.utime(aside, (began - 9, began - 9))
    assert not kills.written_aside(tmp_path, began, "adapter")


def test_what_a_folder_holds_is_without_what_is_aside(tmp_path: Path) -> None:
    for name in ("a.json", ".b.json.writing", ".c.writing/d", "e/f"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert kills.files(tmp_path) == {"a.json": b"a.json", "e/f": b"e/f"}
