"""Get the official files from their official addresses: resumable, verified, complete or absent."""

import contextlib
import hashlib
import http.client
import shutil
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

from warmline.errors import WarmlineError, one_line
from warmline.paths import expand_home
from warmline.sources.files import checksums, write_checksums
from warmline.sources.source import RemoteFile

_BLOCK = 2**18
_TIMEOUT = 30.0


def fetch(folder: Path, files: Sequence[RemoteFile]) -> list[str]:
    """Download what is missing. A file that is there and verifies is not asked for again; a broken-off one goes on where it stopped.

    Args:
        folder: Gets one sub-folder a source, each with a SHA256SUMS; `~` is home.
        files: What to get.

    Returns:
        One line a file, for people.

    Raises:
        WarmlineError: no network, a changed file at the address, a disk that cannot be written.
    """
    lines = []
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns) as progress:
        for file in files:
            target = expand_home(folder) / file.source
            try:
                target.mkdir(parents=True, exist_ok=True)
                if _complete(target, file):
                    lines.append(f"{file.source}/{file.name}: already there")
                    continue
                task = progress.add_task(f"{file.source}/{file.name}", total=None)
                part = _download(file, target, partial(_report, progress, task))
                _verify(part, file)
                _place(part, target, file)
                write_checksums(target)
            except urllib.error.URLError as error:
                raise WarmlineError(
                    f"{file.url}: cannot be reached ({one_line(str(error.reason))}); check the network and run `warmline data fetch` "
                    "again, it goes on where it stopped"
                ) from None
            except (http.client.HTTPException, ConnectionError, TimeoutError, ValueError) as error:
                raise WarmlineError(
                    f"{file.url}: the connection broke ({one_line(str(error)) or type(error).__name__}); run `warmline data fetch` again, "
                    "it goes on where it stopped"
                ) from None
            except OSError as error:
                raise WarmlineError(f"{target}: cannot be written ({error.strerror or error}); choose another --data-dir") from None
            lines.append(f"{file.source}/{file.name}: fetched and verified")
    return lines


def _report(progress: Progress, task: TaskID, done: int, total: int | None) -> None:
    progress.update(task, completed=done, total=total)


def _complete(target: Path, file: RemoteFile) -> bool:
    kind, _, digest = file.digest.partition(":")
    expected: dict[str, str | None] = {file.name: digest}
    if file.members:  # the archive's own digest stood for theirs when they were taken out
        kind, sums = "sha256", checksums(target)
        expected = {name: sums.get(name) for name in (Path(member).name for member in file.members)}
    return all((target / name).exists() and _digest(target / name, kind) == wanted for name, wanted in expected.items())


class _SameSite(urllib.request.HTTPRedirectHandler):
    """Follows redirects within a site: none of the official files needs another."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: http.client.HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        """As of the base class, which makes the next request or raises."""
        there, here = urlsplit(newurl), urlsplit(req.full_url)
        if (there.scheme, there.netloc) != (here.scheme, here.netloc):
            raise urllib.error.URLError(f"it redirects to another site, {newurl}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_OPENER = urllib.request.build_opener(_SameSite)


def _download(file: RemoteFile, target: Path, report: Callable[[int, int | None], None]) -> Path:
    """Bytes into `<name>.part`, from where an earlier attempt stopped, never more than the file may have."""
    part = target / f"{file.name}.part"
    have = part.stat().st_size if part.exists() else 0
    if have >= file.most:
        return part  # whole, or something else that will not verify
    request = urllib.request.Request(file.url, headers={"Range": f"bytes={have}-"} if have else {})  # noqa: S310 - fixed https addresses
    try:
        response = _OPENER.open(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing left: the part is whole, or longer than the file and will not verify
            return part
        raise
    with response:
        if have and response.status != 206:
            have = 0  # the server starts again, so do we
        length = response.headers.get("Content-Length", "")
        total = have + int(length) if length.isdecimal() else None
        with part.open("ab" if have else "wb") as out:
            while block := response.read(min(_BLOCK, file.most + 1 - have)):
                out.write(block)
                have += len(block)
                report(have, total)
    if have > file.most:
        part.unlink()
        raise WarmlineError(f"{file.url}: is longer than the {file.most:,} bytes expected; the file changed, use --data-dir with a copy")
    if total is not None and have != total:
        raise http.client.IncompleteRead(b"", total - have)
    return part


def _verify(part: Path, file: RemoteFile) -> None:
    kind, _, expected = file.digest.partition(":")
    found = _digest(part, kind)
    if found != expected:
        part.unlink()
        raise WarmlineError(
            f"{file.url}: {kind} is {found[:16]}..., expected {expected[:16]}...; the download was damaged or the file changed; it was "
            "removed, fetch again, and use --data-dir with your own copy if it stays so"
        )


def _digest(path: Path, kind: str) -> str:
    content = path.read_bytes()
    if kind == "git-blob":
        return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    return hashlib.sha256(content).hexdigest()


def _place(part: Path, target: Path, file: RemoteFile) -> None:
    if not file.members:
        part.replace(target / file.name)
        return
    try:
        with tarfile.open(part) as archive:
            for member in file.members:
                with _member(archive, member, file) as content, (target / f"{Path(member).name}.part").open("wb") as out:
                    shutil.copyfileobj(content, out)
    except tarfile.ReadError:
        raise WarmlineError(f"{file.url}: not a readable archive; the release changed, use --data-dir with a copy") from None
    for member in file.members:
        (target / f"{Path(member).name}.part").replace(target / Path(member).name)
    part.unlink()


def _member(archive: tarfile.TarFile, name: str, file: RemoteFile) -> IO[bytes]:
    with contextlib.suppress(KeyError):
        content = archive.extractfile(name)
        if content is not None:  # None for a folder
            return content
    raise WarmlineError(f"{file.url}: `{name}` is not in the archive; the release changed, use --data-dir with a copy")
