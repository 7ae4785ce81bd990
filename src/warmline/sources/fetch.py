"""Get the official files from their official addresses: resumable, verified, complete or absent."""

import contextlib
import hashlib
import http.client
import shutil
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

from warmline.errors import WarmlineError, one_line
from warmline.paths import expand_home
from warmline.sources.files import checksums, write_checksums

_BLOCK = 2**18
_TIMEOUT = 30.0
_GOEMOTIONS = "https://raw.githubusercontent.com/google-research/google-research/master/goemotions/data"


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file to get.

    Attributes:
        source: The folder it belongs to.
        name: Its name there.
        url: Official address.
        digest: `sha256:<hex>` of the file, or `git-blob:<hex>`, the id git gives its content.
        most: Bytes that are read at most: its size, or where that is not known a round number above.
        members: For an archive, the files to take out of it; the archive itself is not kept.
    """

    source: str
    name: str
    url: str
    digest: str
    most: int
    members: tuple[str, ...] = ()


OFFICIAL_FILES: tuple[RemoteFile, ...] = (
    RemoteFile(
        "empathetic_dialogues",
        "empatheticdialogues.tar.gz",
        "https://dl.fbaipublicfiles.com/parlai/empatheticdialogues/empatheticdialogues.tar.gz",
        "sha256:56f234d77b7dd1f005fd365bb17769cfe346c3c84295b69bc069c8ccb83be03d",
        64 * 2**20,
        ("empatheticdialogues/train.csv", "empatheticdialogues/valid.csv", "empatheticdialogues/test.csv"),
    ),
    RemoteFile(
        "esconv",
        "ESConv.json",
        "https://raw.githubusercontent.com/thu-coai/Emotional-Support-Conversation/f262d062ad74cb39b17ea476facc81568ddcba24/ESConv.json",
        "git-blob:2f7a69eeda505053eac68f9ab26fd728d0f6db31",
        16 * 2**20,
    ),
    RemoteFile(
        "goemotions",
        "train.tsv",
        f"{_GOEMOTIONS}/train.tsv",
        "sha256:1c254a142be5c00e80d819b9ae1bbd36d94b2eeb8f4b1271846508d57e57d9c5",
        3_519_053,
    ),
    RemoteFile(
        "goemotions",
        "dev.tsv",
        f"{_GOEMOTIONS}/dev.tsv",
        "sha256:575489c079c9de1097062a01738f998590d6b7ead66dd1c9fd1d2ba01fd8bc62",
        439_059,
    ),
    RemoteFile(
        "goemotions",
        "test.tsv",
        f"{_GOEMOTIONS}/test.tsv",
        "sha256:0587b2dd8b27b97352adbfc3fb083d46005c8946657fdc2b1ca8b1cc7f1f8be4",
        436_706,
    ),
    RemoteFile(
        "goemotions",
        "emotions.txt",
        f"{_GOEMOTIONS}/emotions.txt",
        "sha256:45c3ef86782d2a4d7fedcd6d8c111aa0d0e94720689bd164fac94fefb4495a89",
        248,
    ),
)


def fetch(folder: Path, files: tuple[RemoteFile, ...] = OFFICIAL_FILES) -> list[str]:
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
