"""Data files as editors, tools and accidents leave them: the same conversations, or one line that names the file."""

import bz2
import codecs
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from warmline.conversation import Loaded
from warmline.errors import WarmlineError
from warmline.sources import empathetic_dialogues, esconv, goemotions, safety
from warmline.sources.files import sample_dir

LOADERS: dict[str, Callable[[Path], Loaded]] = {
    "empathetic_dialogues/train.csv": lambda folder: empathetic_dialogues.load(folder, "train"),
    "esconv/ESConv.json": lambda folder: esconv.load(folder, "train"),
    "goemotions/train.tsv": lambda folder: goemotions.load(folder, "train"),
    "safety/train.jsonl": lambda folder: safety.load(folder, "train"),
}
MANY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def small(name: str) -> bytes:
    """The sample's first few conversations."""
    content = (sample_dir() / name).read_text(encoding="utf-8")
    if name.endswith(".json"):
        return json.dumps(json.loads(content)[:3], ensure_ascii=False, indent=1).encode() + b"\n"
    return "".join(f"{line}\n" for line in content.split("\n")[:9]).encode()


SMALL = {name: small(name) for name in LOADERS}
NAMES = st.sampled_from(sorted(LOADERS))


def load(folder: Path, name: str, content: bytes) -> Loaded | str:
    """What was read, or the one line that says why not."""
    path = folder / Path(name).name
    path.write_bytes(content)
    try:
        return LOADERS[name](folder)
    except WarmlineError as error:
        message = str(error)
    assert len(message.splitlines()) == 1
    assert message.startswith(str(path))
    return message


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def spliced(content: bytes, at: float, cut: int, put: bytes) -> bytes:
    place = int(at * len(content))
    return content[:place] + put + content[place + cut :]


SPLICE = st.tuples(
    st.floats(0, 1),
    st.integers(0, 40),
    st.binary(max_size=8)
    | st.text(max_size=8).map(lambda text: text.encode("utf-8", "surrogatepass"))
    | st.sampled_from(
        [b"\n", b"\r", b",", b"\t", b'"', b"[", b"{" * 1000, b"[" * 10**5, b"\\ud83d", "\u2028".encode(), b"9" * 5000, b"\0"]
    ),
)


@MANY
@given(NAMES, st.lists(SPLICE, min_size=1, max_size=3))
def test_a_damaged_file_is_read_or_named(folder: Path, name: str, splices: list[tuple[float, int, bytes]]) -> None:
    content = SMALL[name]
    for splice in splices:
        content = spliced(content, *splice)
    load(folder, name, content)


@MANY
@given(NAMES, st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_another_file_under_the_name_is_named(folder: Path, name: str, content: bytes) -> None:
    assert isinstance(load(folder, name, content), str)


@MANY
@given(NAMES, st.booleans(), st.sampled_from(["\n", "\r\n", "\r"]))
def test_byte_order_marks_and_line_ends_change_nothing(folder: Path, name: str, marked: bool, end: str) -> None:
    content = codecs.BOM_UTF8 * marked + SMALL[name].replace(b"\n", end.encode())
    assert load(folder, name, content) == load(folder, name, SMALL[name])


@MANY
@given(
    NAMES,
    st.sampled_from([gzip.compress, bz2.compress, lzma.compress]) | st.sampled_from(["utf-16", "utf-16-le", "utf-16-be", "utf-32"]),
    st.booleans(),
)
def test_packed_and_wide_text_says_so(folder: Path, name: str, how: Any, marked: bool) -> None:
    content = codecs.BOM_UTF8 * marked + (SMALL[name].decode().encode(how) if isinstance(how, str) else how(SMALL[name]))
    message = load(folder, name, content)
    assert isinstance(message, str)
    assert ("UTF-16" in message) if isinstance(how, str) else ("archive; unpack it" in message)


LEAF = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10)
KEYS = st.sampled_from(["dialog", "speaker", "annotation", "strategy", "content", "messages", "role", "id", "category"]) | st.text(
    max_size=4
)
JSON = st.recursive(LEAF, lambda below: st.lists(below, max_size=4) | st.dictionaries(KEYS, below, max_size=5), max_leaves=12)


@MANY
@given(st.sampled_from(["esconv/ESConv.json", "safety/train.jsonl"]), st.lists(JSON, max_size=4), st.booleans())
def test_any_json_is_named(folder: Path, name: str, values: list[Any], lines: bool) -> None:
    text = "".join(f"{json.dumps(value)}\n" for value in values) if lines else json.dumps(values)
    assert isinstance(load(folder, name, text.encode()), str)
