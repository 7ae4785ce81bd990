"""A recording OpenAI-compatible server: model and judge in one, with failures on demand."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from warmline.responders import FIRST_QUESTION

REPLY = (
    "# I'm thinking & feeling\nI *feel* a lot here.\n# They\u2019re thinking & feeling\nThey hope to be heard.\n# My response\n"
    "I am glad you told me; say more when you like.\n--\nnever seen"
)


class Reply(NamedTuple):
    """What the server does with one request."""

    status: int = 200
    content: str = ""
    finish: str = "stop"
    raw: bytes | None = None
    wait: float = 0.0
    headers: tuple[tuple[str, str], ...] = ()


Answerer = Callable[[dict[str, Any]], Reply]


class Stub(NamedTuple):
    """Where it is, what it was asked, and apart from that the short questions before anything else."""

    url: str
    requests: list[dict[str, Any]]
    first: list[dict[str, Any]]

    def of(self, model: str) -> list[dict[str, Any]]:
        return [request for request in self.requests if request["model"] == model]


@contextmanager
def serving(answerer: Answerer, first: Answerer = lambda request: Reply(content="Yes.")) -> Iterator[Stub]:
    seen: list[dict[str, Any]] = []
    seen_first: list[dict[str, Any]] = []
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 2**16  # head and body in one packet: the client's system waits 40 ms to confirm the first of two

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert self.path == "/v1/chat/completions"
            with lock:
                before = body["messages"] == FIRST_QUESTION
                (seen_first if before else seen).append(body)
                reply = (first if before else answerer)(body)
            time.sleep(reply.wait)
            content = {
                "id": "x",
                "object": "chat.completion",
                "created": 0,
                "model": body["model"],
                "choices": [{"index": 0, "finish_reason": reply.finish, "message": {"role": "assistant", "content": reply.content}}],
                "usage": {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100},
            }
            payload = reply.raw if reply.raw is not None else json.dumps(content).encode()
            try:
                self.send_response(reply.status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(payload)))
                self.send_header("Retry-After-Ms", "1")
                for name, value in reply.headers:
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(payload)
            except OSError:
                pass  # the client gave up waiting

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield Stub(f"http://127.0.0.1:{server.server_address[1]}/v1", seen, seen_first)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def is_pairwise(prompt: str) -> bool:
    return "plus" in prompt and ("A0493" in prompt or "P1" in prompt)


def verdict(prompt: str, winner: Callable[[str], str] = lambda prompt: "first", score: float = 12) -> str:
    """A proper answer to a judge's prompt: every key that it asks for."""
    keys = [key for key in re.findall(r'^\s*"(\w+)":', prompt, re.MULTILINE) if key != "chain_of_thought_reasoning"]
    if not is_pairwise(prompt):
        return json.dumps({"chain_of_thought_reasoning": "so", **dict.fromkeys(keys, score)})
    labels = ("A0493", "A0488") if "A0493" in prompt else ("P1", "P2")
    label = labels[0] if winner(prompt) == "first" else labels[1]
    return "Here you are:\n```json\n" + json.dumps(dict.fromkeys(keys, f"{label}++")) + "\n```"


def proper(request: dict[str, Any]) -> Reply:
    """A model that keeps the format, and a judge that answers what it is asked."""
    prompt = request["messages"][-1]["content"]
    return Reply(content=verdict(prompt) if request["model"] == "judge" else REPLY)
