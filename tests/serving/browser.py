"""Chromium for the page's tests: a server thread, a browser, replies by our own hand where a test needs a certain one."""

import json
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI

ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync",
]  # fmt: skip
CHAT = "**/v1/chat/completions"

HELD = """
// Replies come when the test says so; stopping ends them as it ends a real fetch.
(() => {
  const real = window.fetch;
  window.fetch = (path, options) => {
    if (!String(path).startsWith("/v1/chat")) return real(path, options);
    const encoder = new TextEncoder();
    const body = new ReadableStream({
      start(controller) {
        const send = (chunk) => controller.enqueue(encoder.encode(`data: ${chunk}\\n\\n`));
        window.reading = (warmline) => send(JSON.stringify({ choices: [{ delta: {} }], warmline }));
        window.reply = (content) => send(JSON.stringify({ choices: [{ delta: { content } }] }));
        window.finish = () => { send("[DONE]"); controller.close(); };
        window.breakOff = () => controller.error(new TypeError("network error"));
        options.signal.addEventListener("abort", () => controller.error(new DOMException("stopped", "AbortError")));
      },
    });
    return Promise.resolve(new Response(body, { headers: { "Content-Type": "text/event-stream" } }));
  };
})();
"""


TAP = """
// Keeps what the server sent, byte for byte, beside what the page made of it.
(() => {
  const real = window.fetch;
  window.fetch = async (path, options) => {
    const response = await real(path, options);
    if (String(path).startsWith("/v1/chat")) Object.assign(window, { asked: options.body, answer: response.clone().text() });
    return response;
  };
})();
"""


def chromium_path() -> str:
    """Chromium, or the test skips."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    pytest.skip("no chromium on PATH: apt-get install chromium")


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """The address of the application while it runs in a thread."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="off", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.02)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def scored(**scores: float) -> dict[str, Any]:
    """A reading as the API gives it, from the likeliest label down."""
    label = next(iter(scores))
    return {"label": label, "probability": scores[label], "scores": scores}


def reading(level: str = "none", message: str | None = None, **emotion: float) -> dict[str, Any]:
    """The `warmline` field of a first chunk."""
    risk = {"level": level, "categories": [], "message": message, "country": "any", "crisis_line": "a line", "emergency_number": "112"}
    return {"emotion": scored(**(emotion or {"joy": 0.75, "love": 0.25})), "strategy": scored(Question=0.625, Others=0.375), "risk": risk}


def events(*chunks: dict[str, Any], done: bool = True) -> dict[str, Any]:
    """What `route.fulfill` takes for a stream of these chunks."""
    lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
    return {"status": 200, "content_type": "text/event-stream", "body": "".join([*lines, "data: [DONE]\n\n" if done else ""])}


def said(text: str, heard: dict[str, Any] | None = None) -> dict[str, Any]:
    """A stream that says this."""
    return events({"choices": [{"delta": {"content": ""}}], "warmline": heard or reading()}, {"choices": [{"delta": {"content": text}}]})


def sources() -> list[Path]:
    """The page's own files."""
    import warmline.serving

    return sorted((Path(warmline.serving.__file__).parent / "web").iterdir())
