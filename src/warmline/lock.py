"""One writer a run folder: a lock that the system gives back when its process ends, however it ends."""

import logging
import os
import platform
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from functools import wraps
from pathlib import Path
from typing import IO, Concatenate, ParamSpec, TypeVar

from warmline.errors import WarmlineError
from warmline.runs import NO_FOLLOW, RunFolder, disk_errors

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
"""In the run folder. It stays there: what counts is who holds it open, and removing it would let two hold one each."""

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
_held = threading.local()


@contextmanager
def hold(path: Path, command: str) -> Iterator[None]:
    """Keep other writers out of a run folder; inside another `hold` of this thread on the same folder it does nothing.

    Processes that train together (`RANK`) are one writer, and the first holds the folder for all. Where the system or the file system has
    no `flock` a line says so and nothing is held. Reading (chat, serve, export) needs no lock.

    Args:
        path: The run folder; made when it is missing.
        command: What holds it, to tell others.

    Raises:
        WarmlineError: another process holds it, or the folder cannot be written.
    """
    folders: set[Path] = _held.__dict__.setdefault("folders", set())
    real = path.resolve()
    if real in folders or os.environ.get("RANK", "0") != "0":
        yield
        return
    with disk_errors(path):
        path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | NO_FOLLOW, 0o666)  # a link here would empty a file elsewhere
    with os.fdopen(descriptor, "r+", encoding="utf-8") as file:
        _take(file, path)
        os.ftruncate(descriptor, 0)
        since = f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC"
        with suppress(OSError):  # on a full disk it is held all the same
            os.write(descriptor, f"`warmline {command}` (process {os.getpid()} on {platform.node()}, since {since})".encode())
        folders.add(real)
        try:
            yield
        finally:
            folders.remove(real)
            os.ftruncate(descriptor, 0)


def writes_run(command: str) -> Callable[[Callable[Concatenate[Path, Arguments], Result]], Callable[Concatenate[Path, Arguments], Result]]:
    """Decorate a function of a run folder that writes there: it holds the folder while it runs."""

    def decorate(function: Callable[Concatenate[Path, Arguments], Result]) -> Callable[Concatenate[Path, Arguments], Result]:
        @wraps(function)
        def holding(path: Path, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
            if not RunFolder(path).config.is_file():  # no run folder, which the function will say; nothing is to be left in it
                return function(path, *args, **kwargs)
            with hold(path, command):
                return function(path, *args, **kwargs)

        return holding

    return decorate


def _take(file: IO[str], path: Path) -> None:
    try:
        if fcntl is None:
            raise OSError("no flock")
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read(300).strip() or "another warmline"
        raise WarmlineError(f"{path}: in use by {holder}; one command at a time writes a run folder, so wait for it or end it") from None
    except OSError:
        logging.getLogger(__name__).warning("%s: cannot be locked on this system; let only one command at a time write it", path)
