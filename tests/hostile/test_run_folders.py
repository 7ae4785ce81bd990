"""A run folder is data, whoever made it: it loads as what it was, or is refused in one line; nothing in it runs, or reaches outside.

`test_a_changed_folder...` makes its cases; the tests before it are the faults that were found, each with what it did.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import warmline
from tests.conftest import ConfigFactory
from tests.model.test_artifacts import MESSAGES, as_format, saved, sign
from tests.tools import CPU, Tiny
from warmline.companion import Reading
from warmline.data.template import ChatTemplate
from warmline.errors import WarmlineError
from warmline.inspection import inspect
from warmline.journal import Journal
from warmline.model.artifacts import build_model, save_artifact
from warmline.model.base import load_tokenizer
from warmline.reporting.report import write_report
from warmline.runs import RunFolder, append_text, parse_json, read_json, write_folder, write_json, write_text
from warmline.training.curves import draw_curves

DEEP = "[" * 100_000
LISTED = ("adapter/adapter_config.json", "adapter/adapter_model.safetensors", "adapter/tokenizer.json", "heads.safetensors")


@pytest.fixture(scope="module")
def kept(tiny_config: ConfigFactory, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run folder that tests copy."""
    config = tiny_config(tmp_path_factory.mktemp("kept"))
    return saved(Tiny(build_model(config, CPU.device, CPU.dtype), config, ChatTemplate(load_tokenizer(config.model))))


@pytest.fixture
def run(kept: RunFolder, tmp_path: Path) -> RunFolder:
    return RunFolder(Path(shutil.copytree(kept.path, tmp_path / "run")))


@pytest.fixture(scope="module")
def reading(kept: RunFolder) -> Reading:
    return warmline.load(kept.path).read(MESSAGES)


def refused(run: RunFolder, match: str) -> None:
    """Loading and inspecting both say why, in one line."""
    with pytest.raises(WarmlineError, match=match) as caught:
        warmline.load(run.path)
    assert "\n" not in str(caught.value)
    assert str(caught.value) in inspect(run.path).refusals


@pytest.mark.parametrize("number", [1, 2, 3])
def test_settings_of_peft_are_not_followed(
    number: int, run: RunFolder, reading: Reading, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`megatron_config` made PEFT import the module that `megatron_core` names, from the folder that `warmline` was started in."""
    (tmp_path / "megatron").mkdir()
    (tmp_path / "megatron" / "__init__.py").write_text("from pathlib import Path\nPath('ran').touch()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    path = run.path / "adapter" / "adapter_config.json"
    strange = {
        "megatron_config": {"a": 1}, "megatron_core": "megatron.stranger", "base_model_name_or_path": str(tmp_path), "r": 2,
        "lora_alpha": 99, "auto_mapping": {"parent_library": "stranger", "base_model_class": "A"}, "layer_replication": [[0, 9]],
        "modules_to_save": ["lm_head"],
    }  # fmt: skip
    write_json(path, {**read_json(path), **strange})
    as_format(run, number) if number < 3 else sign(run)
    found = inspect(run.path)
    assert not found.refusals
    for key in strange.keys() - {"base_model_name_or_path"}:
        assert any(f"`{key}`" in note for note in found.notes), key
    read = warmline.load(run.path).read(MESSAGES)
    assert not (tmp_path / "ran").exists()
    if number > 1:  # format 1 reads unscaled states
        assert read == reading


def test_settings_beside_the_weights_are_those_of_training(run: RunFolder) -> None:
    text = run.config.read_text()
    run.config.write_text(text.replace("alpha: 8.0", "alpha: 16.0"))
    refused(run, r"config\.yaml: `lora` differs from what the weights were trained with")
    run.config.write_text(text.replace("r: 4", "r: 1000000000"))
    refused(run, r"config\.yaml: `lora\.r` is 1000000000, the adapter has rank 4")


def test_a_template_is_a_name(run: RunFolder, tmp_path: Path) -> None:
    """A path from there led to any Jinja file, which was rendered."""
    (tmp_path / "bomb.jinja").write_text("{% for a in range(9999999) %}x{% endfor %}")
    write_json(run.heads_description, {**read_json(run.heads_description), "template": os.path.relpath(tmp_path / "bomb", "/")})
    refused(run, r"heads\.json: `template`")


@pytest.mark.parametrize("number", [2, 3])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(
    "name", ["adapter_model.bin", "a.safetensors", "evil.py", "x.jinja", "adapter_model.safetensors.index.json", "sub/x"]
)
def test_files_that_no_run_has(name: str, signed: bool, number: int, run: RunFolder) -> None:
    """A decoy `x.safetensors` beside `adapter_model.bin` had its hash checked while PEFT loaded the other, pickled, which none covers."""
    path = run.path / "adapter" / name
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".safetensors":
        save_file({"a": torch.ones(1)}, path)
    else:
        torch.save({"a": torch.ones(1)}, path)
    if number < 3:
        as_format(run, number)
    if signed:
        sign(run)
    refused(run, "no file that a run has there")


@pytest.mark.parametrize("name", LISTED)
def test_a_listed_file_is_as_it_was(name: str, run: RunFolder) -> None:
    path = run.path / name
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    refused(run, f"{name.split('/')[-1]}: sha256 differs|belong to another adapter|no adapter in safetensors|cannot be read")
    path.unlink()
    refused(run, "not there|not found|no weights")


def test_nothing_unlisted(run: RunFolder) -> None:
    (run.path / "adapter" / "vocab.json").write_text("{}")
    refused(run, r"adapter/vocab\.json: not listed in heads\.json; remove it")


def test_earlier_formats_are_read(run: RunFolder, reading: Reading) -> None:
    as_format(run, 2)
    (run.path / "adapter" / "adapter_config.json").unlink()
    assert warmline.load(run.path).read(MESSAGES) == reading
    as_format(run, 5)
    refused(run, "format is not 4 or earlier")
    write_json(run.heads_description, {**read_json(run.heads_description), "format": 3})
    refused(run, "lists no files or settings")


@pytest.mark.parametrize("name", ["config.yaml", "heads.json", *LISTED, "adapter", "results", "report.md", "results/evaluation.json"])
def test_links_out_of_the_folder_are_refused(name: str, run: RunFolder, tmp_path: Path) -> None:
    path, outside = run.path / name, tmp_path / "outside"
    if path.exists():
        path.rename(outside)
    path.symlink_to(outside)
    refused(run, f"{name}: a link out of the folder")
    with pytest.raises(WarmlineError, match="a link out of the folder"):
        run.create()


def test_the_folder_itself_may_be_a_link(run: RunFolder, reading: Reading, tmp_path: Path) -> None:
    (tmp_path / "there").symlink_to(run.path)
    assert warmline.load(tmp_path / "there").read(MESSAGES) == reading


@pytest.mark.parametrize("name", ["heads.json", "metrics.jsonl", "results/evaluation.json"])
def test_a_pipe_is_no_file(name: str, run: RunFolder) -> None:
    """Reading one would wait for ever."""
    (run.path / name).unlink(missing_ok=True)
    os.mkfifo(run.path / name)
    refused(run, "a pipe, socket or device")


@pytest.mark.parametrize("name", ["heads.json", "config.yaml"])
@pytest.mark.parametrize("content", [DEEP, '{"a":' * 100_000, "\0", "\ud800", " " * (2**20 + 1)])
def test_settings_out_of_bounds(name: str, content: str, run: RunFolder) -> None:
    (run.path / name).write_bytes(content.encode(errors="surrogatepass"))
    refused(run, name)


def test_deep_json_is_one_kind_of_error(run: RunFolder, finished_copy: RunFolder) -> None:
    with pytest.raises(ValueError, match="nested too deep"):
        parse_json(DEEP)
    write_text(run.manifest, DEEP)
    with pytest.raises(WarmlineError, match="nested too deep"):
        read_json(run.manifest)
    write_text(run.path / "journal.jsonl", DEEP + "\n")
    with pytest.raises(WarmlineError, match=":1: not a JSON object"):
        Journal(run.path / "journal.jsonl")
    append_text(finished_copy.metrics, DEEP + "\n")
    with pytest.raises(WarmlineError, match="metrics"):
        write_report(finished_copy.path)


def _save(run: RunFolder, tiny: Tiny) -> None:
    save_artifact(run, tiny.model, tiny.config, tiny.template, 3)


WRITERS: dict[str, tuple[str, Callable[[RunFolder, Tiny], Any]]] = {
    "text": (".report.md.writing", lambda run, _: write_text(run.report, "mine")),
    "report": ("report.md", lambda run, _: write_text(run.report, "mine")),
    "probe": (".writable", lambda run, _: run.create()),
    "heads": ("heads.writing", _save),
    "heads aside": (".heads.safetensors.writing", _save),
    "heads description": (".heads.json.writing", _save),
    "adapter aside": (".adapter.writing", _save),
    "adapter before": (".adapter.old", _save),
    "adapter": ("adapter", lambda run, _: write_folder(run.path / "adapter", lambda folder: write_text(folder / "a", "mine"))),
    "curves": ("results/training_curves.png", lambda run, _: draw_curves(run)),
    "metrics": ("metrics.jsonl", lambda run, _: append_text(run.metrics, "mine")),
    "journal": ("eqbench/replies.jsonl", lambda run, _: Journal(run.eq_bench_folder / "replies.jsonl").add("key")),
}


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("writer", WRITERS)
def test_no_writer_follows_a_link(writer: str, inside: bool, finished_copy: RunFolder, tiny: Tiny, tmp_path: Path) -> None:
    """A link planted at the name that is written, or at the one aside of it, made us overwrite what it led to."""
    name, write = WRITERS[writer]
    precious = (finished_copy.path if inside else tmp_path) / "precious"
    content = {"key": "a"}
    if writer.startswith("adapter"):
        precious.mkdir()
        precious /= "file"
    precious.write_text(json.dumps(content) + "\nhalf a line")
    before = precious.read_bytes()
    link = finished_copy.path / name
    link.parent.mkdir(exist_ok=True)
    if link.is_dir():
        shutil.rmtree(link)
    else:
        link.unlink(missing_ok=True)
    link.symlink_to(precious.parent if writer.startswith("adapter") else precious)
    with suppress(WarmlineError, OSError):
        write(finished_copy, tiny)
    assert precious.read_bytes() == before


def test_a_run_of_every_weight_reads_nothing_but_weights(tiny_config: ConfigFactory, tmp_path: Path) -> None:
    """`model/config.json` could name code; an `adapter_config.json` beside it another base."""
    config = tiny_config(tmp_path, lora=None)
    run = saved(Tiny(build_model(config, CPU.device, CPU.dtype), config, ChatTemplate(load_tokenizer(config.model))))
    before = warmline.load(run.path).read(MESSAGES)
    auto = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    path = run.path / "model" / "config.json"
    write_json(path, {**read_json(path), "auto_map": auto, "model_type": "evil", "vocab_size": 1})
    write_json(run.path / "model" / "model.safetensors.index.json", {"weight_map": {"lm_head.weight": "../../precious"}})
    sign(run)
    assert warmline.load(run.path).read(MESSAGES) == before
    assert any("auto_map" in note for note in inspect(run.path).notes)
    write_json(run.path / "model" / "adapter_config.json", {"base_model_name_or_path": "nobody/nothing"})
    sign(run)
    refused(run, "no file that a run has there")
    (run.path / "model" / "adapter_config.json").unlink()
    save_file({"model.norm.weight": torch.ones(32)}, run.path / "model" / "model.safetensors")
    sign(run)
    with pytest.raises(WarmlineError, match=r"model: saved weights cannot be loaded \(\d+ tensors do not fit this base"):
        warmline.load(run.path)


def test_inspect_makes_no_model(run: RunFolder) -> None:
    code = f"import sys; from pathlib import Path; from warmline.inspection import inspect; found = inspect(Path({str(run.path)!r}));"
    code += "print(found.refusals, 'torch' in sys.modules, 'transformers' in sys.modules, 'peft' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "[] False False False"


def test_inspect_says_what_is_there(run: RunFolder) -> None:
    (run.path / "notes.txt").write_text("mine")
    torch.save({}, run.path / "results" / "innocent.png")
    found = inspect(run.path)
    assert not found.refusals
    assert not found.notes
    assert found.facts["adapter"].startswith("rank 4, alpha 8, on q_proj, k_proj")
    entries = {entry.name: entry.note for entry in found.entries}
    assert entries["adapter/adapter_model.safetensors"] == entries["heads.safetensors"] == "hash holds"
    assert "Jinja" in entries["adapter/chat_template.jinja"]
    assert entries["notes.txt"] == "unknown; not read"
    assert "pickle" in entries["results/innocent.png"]


NAMES = st.sampled_from(["config.yaml", "heads.json", *LISTED, "adapter/tokenizer_config.json", "adapter/chat_template.jinja"])
NEW_NAMES = NAMES | st.sampled_from(
    ["adapter/adapter_model.bin", "adapter/x.safetensors", "adapter/vocab.json", "adapter/config.json", "model/model.safetensors", "x.py",
     "adapter/model.safetensors", "adapter/.hidden", "results/a.json", "adapter/\x1b[2J", "adapter/line\nend", ".heads.json.writing"]
)  # fmt: skip
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 10**12)
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(["../../x", "/etc/passwd", "adapter"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=4,
)
CHANGES = st.one_of(
    st.tuples(st.just("remove"), NAMES),
    st.tuples(st.just("rename"), NAMES, NEW_NAMES),
    st.tuples(st.just("copy"), NAMES, NEW_NAMES),
    st.tuples(st.just("swap"), NAMES, NAMES),
    st.tuples(st.just("link"), NAMES, st.sampled_from(["/etc/passwd", "/dev/zero", "/nowhere", "../elsewhere", "heads.json", "loop", "."])),
    st.tuples(st.just("flip"), NAMES, st.integers(0, 10**9)),
    st.tuples(st.just("cut"), NAMES, st.integers(0, 10**9)),
    st.tuples(st.just("add"), NEW_NAMES, st.binary(max_size=40)),
    st.tuples(st.just("value"), st.sampled_from(["heads.json", "config.yaml", "adapter/adapter_config.json"]), st.integers(0, 200), VALUES),
)


def _apply(root: Path, change: tuple[Any, ...]) -> bool:
    """Do it; whether the run may then rightly be another, since what it says of itself was changed."""
    what, name, *rest = change
    path = root / name
    if what == "add":
        path.parent.mkdir(exist_ok=True)
        if not path.exists():
            path.write_bytes(rest[0])
        return False
    if path.is_symlink() or not path.is_file():  # what an earlier change linked is not ours to write, and /dev/zero has no end
        return False
    if what in ("rename", "copy"):
        other = root / rest[0]
        other.parent.mkdir(exist_ok=True)
        content = path.read_bytes()
        path.unlink() if what == "rename" else None
        if not other.is_symlink():
            other.write_bytes(content)
    elif what == "swap":
        other = root / rest[0]
        if not other.is_symlink():
            mine, its = path.read_bytes(), other.read_bytes() if other.is_file() else b""
            path.write_bytes(its)
            other.write_bytes(mine)
    elif what in ("remove", "link"):
        path.unlink()
        if what == "link":
            path.symlink_to(path.name if rest[0] == "loop" else rest[0])
    elif what == "flip":
        content = bytearray(path.read_bytes())
        content[rest[0] % len(content)] ^= 1 << rest[0] % 8
        path.write_bytes(content)
    elif what == "cut":
        content = path.read_bytes()
        path.write_bytes(content[: rest[0] % len(content)])
    elif what == "value":
        content = yaml.safe_load(path.read_text()) if name.endswith("yaml") else json.loads(path.read_text())
        at, last = content, list(content)[rest[0] % len(content)]
        while isinstance(at[last], dict) and at[last]:
            at = at[last]
            last = list(at)[rest[0] % len(at)]
        at[last] = rest[1]
        path.write_text(yaml.safe_dump(content) if name.endswith("yaml") else json.dumps(content))
    return name in ("heads.json", "config.yaml") and what in ("value", "flip")


@pytest.mark.slow(20)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(changes=st.lists(CHANGES, min_size=1, max_size=2), number=st.sampled_from([2, 3, 4, 4]))
def test_a_changed_folder_is_what_it_was_or_refused(changes: list[tuple[Any, ...]], number: int, kept: RunFolder, reading: Reading) -> None:
    with tempfile.TemporaryDirectory() as place:
        run = RunFolder(Path(place) / "run")
        shutil.copytree(kept.path, run.path)
        if number < 4:
            as_format(run, number)
        another = False
        for change in changes:
            try:
                another |= _apply(run.path, change)
            except (UnicodeError, OSError, ValueError, yaml.YAMLError, AttributeError, TypeError, KeyError, ZeroDivisionError):
                return  # the file was of no kind that this change can be made to
        found = inspect(run.path)
        with suppress(WarmlineError):
            read = warmline.load(run.path).read(MESSAGES)
            assert not found.refusals
            assert another or read == reading
