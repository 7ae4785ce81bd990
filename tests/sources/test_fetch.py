import contextlib
import hashlib
import io
import socket
import tarfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from warmline.errors import WarmlineError
from warmline.sources import SOURCES, official_files
from warmline.sources.fetch import fetch
from warmline.sources.files import CHECKSUMS, read_text
from warmline.sources.source import RemoteFile

CONTENT = b"".join(b"line %06d\n" % number for number in range(60_000))


class Remote:
    """A web server on the loopback that can break off, and remembers what it was asked.

    Attributes:
        files: What it serves, by path.
        asked: (path, Range header) of each request.
        break_after: Bytes of a body after which it hangs up once; None for never.
        ranges: Whether it honours Range.
        length: What it says instead of the right Content-Length.
        moved: Where it sends all who ask for `/moved`.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.break_after: int | None = None
        self.ranges = True
        self.length: str | None = None
        self.moved: str | None = None
        remote = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                remote.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        wanted = request.headers.get("Range")
        self.asked.append((request.path, wanted))
        body = self.files.get(request.path)
        if self.moved is not None and request.path == "/moved":
            request.send_response(302)
            request.send_header("Location", self.moved)
            request.end_headers()
            return
        if body is None:
            request.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.ranges else 0
        if start and start >= len(body):
            request.send_error(416)
            return
        request.send_response(206 if start else 200)
        request.send_header("Content-Length", str(len(body) - start) if self.length is None else self.length)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        request.end_headers()
        end = len(body) if self.break_after is None else start + self.break_after
        self.break_after = None
        with contextlib.suppress(ConnectionError):  # the client has seen enough
            request.wfile.write(body[start:end])

    def serve(self, name: str, body: bytes, members: tuple[str, ...] = (), digest: str | None = None) -> RemoteFile:
        self.files[f"/{name}"] = body
        return RemoteFile("made", name, f"{self.url}/{name}", digest or f"sha256:{hashlib.sha256(body).hexdigest()}", len(body), members)


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> Iterator[Remote]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    remote = Remote()
    thread = threading.Thread(target=remote.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield remote
    remote.server.shutdown()
    remote.server.server_close()
    thread.join()


@pytest.fixture
def broken_off(remote: Remote, tmp_path: Path) -> RemoteFile:
    """A file whose first download broke off after 200,000 bytes."""
    file = remote.serve("data.txt", CONTENT)
    remote.break_after = 200_000
    with pytest.raises(WarmlineError):
        fetch(tmp_path, (file,))
    return file


def archive(**members: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(f"release/{name}.csv")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_arrives_whole(remote, tmp_path):
    lines = fetch(tmp_path, (remote.serve("data.txt", CONTENT),))
    assert (tmp_path / "made" / "data.txt").read_bytes() == CONTENT
    assert lines == ["made/data.txt: fetched and verified"]


def test_nothing_else_is_left(remote, tmp_path):
    fetch(tmp_path, (remote.serve("data.txt", CONTENT),))
    assert names(tmp_path / "made") == [CHECKSUMS, "data.txt"]


def test_checksums_are_written_and_verified(remote, tmp_path, refused):
    fetch(tmp_path, (remote.serve("data.txt", CONTENT),))
    path = tmp_path / "made" / "data.txt"
    assert read_text(path) == CONTENT.decode()
    path.write_bytes(CONTENT[:-1])
    assert "sha256 differs" in refused(read_text, path)


def test_a_second_fetch_asks_for_nothing(remote, tmp_path):
    files = (remote.serve("data.txt", CONTENT), remote.serve("a.tar.gz", archive(train=b"x"), ("release/train.csv",)))
    fetch(tmp_path, files)
    remote.asked.clear()
    assert fetch(tmp_path, files) == ["made/data.txt: already there", "made/a.tar.gz: already there"]
    assert remote.asked == []


def test_a_git_blob_id_verifies_too(remote, tmp_path):
    digest = hashlib.sha1(b"blob 6\0hello\n").hexdigest()
    assert digest == "ce013625030ba8dba906f756967f9e9ca394464a"  # git hash-object
    fetch(tmp_path, (remote.serve("hello", b"hello\n", digest=f"git-blob:{digest}"),))
    assert (tmp_path / "made" / "hello").read_bytes() == b"hello\n"


def test_a_broken_connection_is_one_line_and_keeps_the_part(remote, tmp_path, refused):
    file = remote.serve("data.txt", CONTENT)
    remote.break_after = 200_000
    message = refused(fetch, tmp_path, (file,))
    assert message.startswith(file.url)
    assert "connection broke" in message
    assert (tmp_path / "made" / "data.txt.part").read_bytes() == CONTENT[:200_000]
    assert not (tmp_path / "made" / "data.txt").exists()


def test_a_broken_download_goes_on_where_it_stopped(remote, tmp_path, broken_off):
    fetch(tmp_path, (broken_off,))
    assert remote.asked == [("/data.txt", None), ("/data.txt", "bytes=200000-")]
    assert (tmp_path / "made" / "data.txt").read_bytes() == CONTENT
    assert names(tmp_path / "made") == [CHECKSUMS, "data.txt"]


def test_it_may_break_off_more_than_once(remote, tmp_path, broken_off):
    remote.break_after = 100_000
    with pytest.raises(WarmlineError, match="connection broke"):
        fetch(tmp_path, (broken_off,))
    fetch(tmp_path, (broken_off,))
    assert remote.asked[-1] == ("/data.txt", "bytes=300000-")
    assert (tmp_path / "made" / "data.txt").read_bytes() == CONTENT


def test_a_server_without_range_starts_again(remote, tmp_path, broken_off):
    remote.ranges = False
    fetch(tmp_path, (broken_off,))
    assert (tmp_path / "made" / "data.txt").read_bytes() == CONTENT


def test_a_part_that_is_already_whole_is_used(remote, tmp_path, broken_off):
    (tmp_path / "made" / "data.txt.part").write_bytes(CONTENT)
    fetch(tmp_path, (broken_off,))
    assert (tmp_path / "made" / "data.txt").read_bytes() == CONTENT


def test_a_damaged_part_is_removed_and_then_fetched_anew(remote, tmp_path, broken_off, refused):
    (tmp_path / "made" / "data.txt.part").write_bytes(b"?" * 1000)
    assert "sha256 is" in refused(fetch, tmp_path, (broken_off,))
    fetch(tmp_path, (broken_off,))
    assert (tmp_path / "made" / "data.txt").read_bytes() == CONTENT


@pytest.mark.parametrize("length", ["many", "-5", "", "1e3", "9" * 5000, "1\u00b2", "720001"])
def test_a_length_that_is_none_does_no_harm(remote, tmp_path, length):
    file = remote.serve("data.txt", CONTENT)
    remote.length = length
    try:
        fetch(tmp_path, (file,))
    except WarmlineError as error:  # or it is whole
        assert len(str(error).splitlines()) == 1  # noqa: PT017
        assert not (tmp_path / "made" / "data.txt").exists()
    else:
        assert (tmp_path / "made" / "data.txt").read_bytes() == CONTENT


def test_a_file_that_does_not_end_is_read_no_further_than_it_may_go(remote, tmp_path, refused):
    file = remote.serve("data.txt", CONTENT)
    remote.files["/data.txt"] = CONTENT * 50
    assert "is longer than the 720,000 bytes expected" in refused(fetch, tmp_path, (file,))
    assert names(tmp_path / "made") == []


def test_a_redirect_to_another_site_is_not_followed(remote, tmp_path, refused):
    file = remote.serve("data.txt", CONTENT)
    moved = file._replace(url=f"{remote.url}/moved")
    for place in (f"{remote.url.replace('127.0.0.1', 'localhost')}/data.txt", "file:///etc/hostname", "http://[broken", "//other/data.txt"):
        remote.moved = place
        refused(fetch, tmp_path, (moved,))
        assert names(tmp_path / "made") == []
    remote.moved = "/data.txt"
    assert fetch(tmp_path, (moved,)) == ["made/data.txt: fetched and verified"]


def test_a_wrong_checksum_removes_the_part(remote, tmp_path, refused):
    file = remote.serve("data.txt", CONTENT, digest=f"sha256:{'0' * 64}")
    message = refused(fetch, tmp_path, (file,))
    assert message.startswith(file.url)
    assert "expected 0000000000000000" in message
    assert names(tmp_path / "made") == []


def test_a_damaged_file_is_fetched_again(remote, tmp_path):
    file = remote.serve("data.txt", CONTENT)
    fetch(tmp_path, (file,))
    (tmp_path / "made" / "data.txt").write_bytes(CONTENT[:1000])
    fetch(tmp_path, (file,))
    assert (tmp_path / "made" / "data.txt").read_bytes() == CONTENT


def test_the_members_of_an_archive_are_taken_out(remote, tmp_path):
    file = remote.serve("a.tar.gz", archive(train=b"1", test=b"2", other=b"3"), ("release/train.csv", "release/test.csv"))
    fetch(tmp_path, (file,))
    assert names(tmp_path / "made") == [CHECKSUMS, "test.csv", "train.csv"]
    assert (tmp_path / "made" / "train.csv").read_bytes() == b"1"


def test_a_missing_member_is_fetched_again(remote, tmp_path):
    file = remote.serve("a.tar.gz", archive(train=b"1", test=b"2"), ("release/train.csv", "release/test.csv"))
    fetch(tmp_path, (file,))
    (tmp_path / "made" / "test.csv").unlink()
    fetch(tmp_path, (file,))
    assert (tmp_path / "made" / "test.csv").read_bytes() == b"2"


def test_a_damaged_member_is_fetched_again(remote, tmp_path):
    file = remote.serve("a.tar.gz", archive(train=b"one"), ("release/train.csv",))
    fetch(tmp_path, (file,))
    (tmp_path / "made" / "train.csv").write_bytes(b"on")
    fetch(tmp_path, (file,))
    assert (tmp_path / "made" / "train.csv").read_bytes() == b"one"


def test_an_archive_without_the_member_is_refused(remote, tmp_path, refused):
    file = remote.serve("a.tar.gz", archive(train=b"1"), ("release/valid.csv",))
    assert "`release/valid.csv` is not in the archive" in refused(fetch, tmp_path, (file,))


def test_what_is_no_archive_is_refused(remote, tmp_path, refused):
    file = remote.serve("a.tar.gz", CONTENT, ("release/train.csv",))
    assert refused(fetch, tmp_path, (file,)).startswith(f"{file.url}: not a readable archive")


def test_damaged_checksums_are_mended_as_advised(remote, tmp_path, refused):
    file = remote.serve("a.tar.gz", archive(train=b"1"), ("release/train.csv",))
    fetch(tmp_path, (file,))
    sums = tmp_path / "made" / CHECKSUMS
    whole = sums.read_bytes()
    sums.write_bytes(b"no checksum\n")
    assert "delete it and fetch the data again" in refused(fetch, tmp_path, (file,))
    sums.unlink()
    fetch(tmp_path, (file,))
    assert sums.read_bytes() == whole


def test_home_is_expanded(remote, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    fetch(Path("~/data"), (remote.serve("data.txt", CONTENT),))
    assert (tmp_path / "data" / "made" / "data.txt").read_bytes() == CONTENT


def test_a_refused_connection_cannot_be_reached(tmp_path, refused, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/data.txt"
        message = refused(fetch, tmp_path, (RemoteFile("made", "data.txt", url, f"sha256:{'0' * 64}", 9),))
    assert message.startswith(f"{url}: cannot be reached (")


def test_a_file_that_is_gone_cannot_be_reached(remote, tmp_path, refused):
    file = remote.serve("data.txt", CONTENT)
    remote.files.clear()
    assert "cannot be reached (Not Found)" in refused(fetch, tmp_path, (file,))


def test_a_folder_that_cannot_be_written_is_named(remote, tmp_path, refused):
    (tmp_path / "file").write_text("", encoding="utf-8")
    message = refused(fetch, tmp_path / "file", (remote.serve("data.txt", CONTENT),))
    assert message.startswith(str(tmp_path / "file"))
    assert "cannot be written" in message


def test_what_arrived_before_a_failure_stays(remote, tmp_path, refused):
    good, gone = remote.serve("good.txt", CONTENT), remote.serve("gone.txt", CONTENT)
    del remote.files["/gone.txt"]
    refused(fetch, tmp_path, (good, gone))
    assert read_text(tmp_path / "made" / "good.txt") == CONTENT.decode()


def test_official_files_come_over_https_with_a_digest():
    lengths: dict[str, Callable[[str], bool]] = {"sha256": lambda digest: len(digest) == 64, "git-blob": lambda digest: len(digest) == 40}
    for file in official_files():
        kind, _, digest = file.digest.partition(":")
        assert file.url.startswith("https://")
        assert lengths[kind](digest)
        assert file in SOURCES[file.source].official


def test_official_goemotions_are_the_copies_beside_the_repository(official):
    for file in official_files():
        if file.source == "goemotions":
            content = (official / "goemotions" / file.name).read_bytes()
            assert file.digest == f"sha256:{hashlib.sha256(content).hexdigest()}"
            assert file.most == len(content)
