"""An engine on the finished run, an application before it, and a server on a free port."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import uvicorn
from openai import OpenAI

from tests.conftest import ConfigFactory
from warmline.runs import RunFolder
from warmline.serving.api import create_app
from warmline.serving.engine import Engine
from warmline.training.loop import train
from warmline.training.view import View

Serve = Callable[..., str]


@contextmanager
def serving(app: Any, **options: Any) -> Iterator[str]:
    """The address of a server that runs in a thread; options are uvicorn's."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off", **options))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="session")
def engine(finished: RunFolder) -> Iterator[Engine]:
    """Eight slots and a long queue; tests that close or break an engine open their own."""
    engine = Engine.open(finished.path, slots=8)
    yield engine
    engine.close()


@pytest.fixture
def fresh(finished: RunFolder) -> Iterator[Callable[..., Engine]]:
    """`fresh(slots=2, queue=0)`: an engine of the test's own."""
    with ExitStack() as stack:

        def open_one(**options: Any) -> Engine:
            engine = Engine.open(finished.path, **options)
            stack.callback(engine.close)
            return engine

        yield open_one


@pytest.fixture(scope="session")
def told_reader(tiny_config: ConfigFactory, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run whose strategy head sees earlier strategies."""
    config = tiny_config(
        tmp_path_factory.mktemp("told"),
        name="told",
        data={"row_tokens": 2048},
        heads={"strategy": {"earlier_strategies": True}},
        training={"max_steps": 6, "head_learning_rate": 3e-2},
    )
    return train(config, view=View(quiet=True))


@pytest.fixture(scope="session")
def url(engine: Engine) -> Iterator[str]:
    """Of a server without a key."""
    with serving(create_app(engine)) as url:
        yield url


@pytest.fixture(scope="session")
def client(url: str) -> OpenAI:
    """The official client, which does not try again."""
    return OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """`serve(engine, api_key="k")`: the address of a server with other settings."""
    with ExitStack() as stack:
        yield lambda engine, **options: stack.enter_context(serving(create_app(engine, **options)))
