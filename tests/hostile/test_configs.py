"""Every configuration loads or is refused with one line, in bounded time, whatever its text, its values or its `--set` say."""

import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from warmline.config import RunConfig, _all_keys, dump_config, load_config
from warmline.errors import WarmlineError
from warmline.plain_yaml import read_yaml
from warmline.redteam.ratings import read_ratings
from warmline.redteam.suites import load_red_team

SECONDS = 5
MINIMAL = "name: trial\nmodel:\n  name: nano\n"
KEYS = list(_all_keys())
TEXT_KEYS = ("model.name", "model.revision", "data.dir", "data.system_prompt", "output_dir", "data.sources.safety.dir")
LETTERS = "abcdefgh"
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{own}: &{own} [{', '.join([f'*{before}'] * 9)}]\n" for before, own in zip(LETTERS, LETTERS[1:], strict=False)
)
MERGED_LAUGHS = "a: &a {k: 1}\n" + "".join(
    f"{own}: &{own} {{<<: [{', '.join([f'*{before}'] * 9)}]}}\n" for before, own in zip(LETTERS, LETTERS[1:], strict=False)
)
HOSTILE = (
    LAUGHS, MERGED_LAUGHS, "a: &a [*a]\n", "&a {b: *a}", "[" * 5000, "{a: " * 3000, "- " * 3000, "a: !!timestamp x", "a: 2024-13-01",
    "a: !!int ''", "a: !!bool x", f"a: {'9' * 5000}", "a: " + "1:" * 30000 + "1", "a: !!python/object/apply:os.system [true]", "{[a]: 1}",
    "\0", "<<: 5", "a: 0x_", "a: =", "--- a\n--- b", "[" + "a," * 30000 + "]", f"{'k' * 100_000}: 1",
)  # fmt: skip

paths = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30) | st.sampled_from(
    ["/x/data #2", "a: b", "123", "1e5", "[old]", "@x", "yes", "{a", "x: ", "- a", "&a", "*a", "!x", "%x", "it's", "2024-13-01", "."]
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.dates()
    | st.sampled_from(["lm", "auto", "~", "null"])
)
values = st.recursive(
    scalars, lambda below: st.lists(below, max_size=4) | st.dictionaries(st.text(max_size=8), below, max_size=4), max_leaves=8
)
many = settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
some = settings(many, max_examples=100)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "trial.yaml"
    path.write_text(MINIMAL, encoding="utf-8")
    return path


def loads_or_is_refused(path: Path, *overrides: str) -> RunConfig | str:
    """The configuration, or the one line that refuses it."""
    began = time.monotonic()
    try:
        result: RunConfig | str = load_config(path, overrides)
    except WarmlineError as error:
        result = str(error)
        assert result.splitlines() == [result]
        assert len(result) < 2000
    assert time.monotonic() - began < SECONDS
    return result


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_yaml_is_refused_at_once(text: str, file: Path) -> None:
    for whole in (text, MINIMAL + text):
        file.write_text(whole, encoding="utf-8")
        assert str(file) in str(loads_or_is_refused(file))
    assert isinstance(loads_or_is_refused(file, f"lora={text}"), str)


@pytest.mark.parametrize("text", [LAUGHS, MERGED_LAUGHS, "items: &a [*a]", "[" * 5000, "- 2024-13-01", "- {item: a, item: b}"])
def test_every_other_yaml_file_goes_through_the_same_loader(text: str, tmp_path: Path) -> None:
    path = tmp_path / "some.yaml"
    path.write_text(text, encoding="utf-8")
    for read in (read_ratings, load_red_team):
        began = time.monotonic()
        with pytest.raises(WarmlineError) as caught:
            read(path)
        assert str(path) in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1
        assert time.monotonic() - began < SECONDS


def test_a_large_file_is_refused_unread(file: Path) -> None:
    file.write_text(MINIMAL + "#" * 10_000_000, encoding="utf-8")
    assert "more than 128 KiB" in str(loads_or_is_refused(file))


@many
@given(
    text=st.text(st.sampled_from("ab:-[]{}&*!|>'\"%@`,?#\n \t~<=0123456789.e_x\0\u2028é"), max_size=60) | st.text(max_size=40),
    whole=st.booleans(),
)
def test_any_text(text: str, whole: bool, file: Path) -> None:
    file.write_bytes((text if whole else MINIMAL + text).encode("utf-8", "surrogatepass"))
    loads_or_is_refused(file)


@many
@given(content=st.binary(max_size=60))
def test_any_bytes(content: bytes, file: Path) -> None:
    file.write_bytes(content)
    loads_or_is_refused(file)


@some
@given(key=st.sampled_from(KEYS), value=values)
def test_any_value_of_any_key(key: str, value: Any, file: Path) -> None:
    content = read_yaml(MINIMAL)
    *levels, last = key.split(".")
    target = content
    for level in levels:
        target = target.setdefault(level, {})
    target[last] = value
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    found = loads_or_is_refused(file)
    if isinstance(found, RunConfig):  # what is accepted is written into the run folder and read again
        file.write_text(dump_config(found), encoding="utf-8")
        assert loads_or_is_refused(file) == found
    else:
        assert f"`{levels[0] if levels else last}" in found or f"{levels[0] if levels else last}." in found


@many
@given(key=st.sampled_from(KEYS) | st.text(max_size=20), value=st.text(max_size=40) | values.map(str))
@example(key="lora", value="{r: 1" * 500)
@example(key="seed", value="9" * 5000)
@example(key="seed", value="1:" * 4000 + "1")
@example(key="a\nb", value="1")
def test_any_set(key: str, value: str, file: Path) -> None:
    loads_or_is_refused(file, f"{key}={value}")


@some
@given(key=st.sampled_from(TEXT_KEYS), typed=paths)
def test_text_and_paths_are_taken_as_typed(key: str, typed: str, file: Path) -> None:
    """But for quotes around the whole, `null`, and `~` for home."""
    if typed[0] in "'\"~" or typed == "null":
        return
    found = loads_or_is_refused(file, f"{key}={typed}")
    assert isinstance(found, RunConfig), found
    value: Any = found
    for level in key.split("."):
        value = getattr(value, level)
    assert value == (Path(typed) if isinstance(value, Path) else typed)
    if key == "data.dir":
        assert load_config(file, data_dir=typed) == found
    file.write_text(dump_config(found), encoding="utf-8")
    assert loads_or_is_refused(file) == found
    file.write_text(MINIMAL, encoding="utf-8")


@some
@given(names=st.lists(st.sampled_from(["123", "1e5", "~x", "no", "2024-13-01", "runs/a", "'runs/a #2'", "null", "0x_"]), min_size=1))
def test_texts_of_a_list_stay_text(names: list[str], file: Path) -> None:
    found = loads_or_is_refused(file, f"lora.target_modules=[{', '.join(names)}]")
    assert isinstance(found, RunConfig)
    assert found.lora is not None
    assert list(found.lora.target_modules) == [name.strip("'") for name in names]
