"""A base's folder in which something was changed: it loads with every tensor out of its files, or is refused in one line.

The folder is a real one, two layers of Qwen3 with weights in two shards. Each case drops, renames or reshapes tensors, cuts, overwrites or
replaces a file, or changes a key of config.json.
"""

import json
import math
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from tests.tools import CPU, architecture, write_architecture
from warmline.errors import WarmlineError
from warmline.model.base import load_architecture, load_tokenizer
from warmline.model.transformers_backbone import TransformersBackbone
from warmline.settings import ModelConfig
from warmline.training.memory import read_architecture

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
INDEX = "model.safetensors.index.json"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0000\nsize 269060552\n"
Change = Callable[[Path], None]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base of 300 tokens and two layers, whose weights are in two shards."""
    folder = write_architecture(tmp_path_factory.mktemp("whole"), architecture(vocab_size=300, tie_word_embeddings=False))
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder)).save_pretrained(folder, max_shard_size="90KB")
    assert {path.name for path in folder.glob("*.safetensors")} == set(SHARDS)
    return folder


def stored(folder: Path) -> dict[str, Tensor]:
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


def refused(read: Callable[[], Any]) -> bool:
    """Whether it was, in one line about the model; any other exception fails the test."""
    try:
        read()
    except WarmlineError as error:
        said = str(error)
    else:
        return False
    assert said.startswith("model.name: ")
    assert "\n" not in said
    return True


def assert_whole(folder: Path) -> None:
    """Its weights are those of its files, and these hold nothing else for the decoder's layers."""
    config = ModelConfig(name=str(folder))
    read_architecture(load_architecture(config))
    backbone = TransformersBackbone(config, None, CPU.device, CPU.dtype, trainable=False)
    files = stored(folder)
    for name, parameter in backbone.model.named_parameters():
        assert torch.equal(parameter, files.pop(name)), name
    assert not [name for name in files if ".layers." in name]


# what can be done to the files

names = st.sampled_from([*SHARDS, INDEX, "config.json"])
words = st.sampled_from(["", "sigmoid", "full_attention", "qwen3", "\u2028"])
scalars = st.one_of(st.none(), st.booleans(), st.integers(-2, 70), st.floats(allow_nan=True), words)
values = st.one_of(scalars, st.lists(scalars, max_size=3), st.dictionaries(st.text(max_size=5), scalars, max_size=2), st.just(2**40))
keys = st.sampled_from(
    [*architecture().to_dict(), "auto_map", "transformers_weights", "quantization_config", "rope_scaling", "fusion_config", "_name_or_path"]
)


@st.composite
def cut(draw: st.DrawFn) -> Change:
    name, share = draw(names), draw(st.floats(0, 1, exclude_max=True))

    def change(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: math.floor(share * len(content))])

    return change


@st.composite
def replaced(draw: st.DrawFn) -> Change:
    name = draw(names)
    content = draw(st.sampled_from([POINTER.encode(), pickle.dumps({"weight": [1]}), b"", b"\xff\xfe", b"[]", b"null", b"[" * 99_999]))
    return lambda folder: (folder / name).write_bytes(content) and None


@st.composite
def overwritten(draw: st.DrawFn) -> Change:
    """A few bytes of a header."""
    name, at, content = draw(st.sampled_from(SHARDS)), draw(st.integers(0, 900)), draw(st.binary(min_size=1, max_size=8))

    def change(folder: Path) -> None:
        with (folder / name).open("r+b") as file:
            file.seek(at)
            file.write(content)

    return change


@st.composite
def removed(draw: st.DrawFn) -> Change:
    name = draw(names)
    return lambda folder: (folder / name).unlink()


@st.composite
def other_tensors(draw: st.DrawFn) -> Change:
    """Some tensors dropped, renamed, or in another shape."""
    name, chosen = draw(st.sampled_from(SHARDS)), draw(st.sets(st.integers(0, 15), min_size=1, max_size=3))
    how = draw(st.sampled_from(["drop", "rename", "flatten", "halve", "add"]))

    def change(folder: Path) -> None:
        tensors = load_file(folder / name)
        for place in chosen:
            key = sorted(tensors)[place % len(tensors)]
            tensor = tensors[key] if how == "add" else tensors.pop(key)
            if how in ("rename", "add"):
                tensors[f"{key}.other"] = tensor.clone()
            elif how != "drop":
                tensors[key] = tensor.flatten() if how == "flatten" else tensor[: len(tensor) // 2].clone()
            if not tensors:
                break
        save_file(tensors, folder / name, {"format": "pt"})

    return change


@st.composite
def other_json(draw: st.DrawFn) -> Change:
    """A key of config.json, or of the index, with another value or none."""
    name, key, value, gone = draw(st.sampled_from(["config.json", "config.json", INDEX])), draw(keys), draw(values), draw(st.booleans())
    key = draw(st.sampled_from(["weight_map", "metadata"])) if name == INDEX else key

    def change(folder: Path) -> None:
        content: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
        content[key] = value
        if gone:
            del content[key]
        (folder / name).write_text(json.dumps(content), encoding="utf-8")

    return change


@given(st.one_of(cut(), replaced(), overwritten(), removed(), other_tensors(), other_json(), other_json(), other_json()))
@settings(max_examples=200, deadline=20_000, derandomize=True, suppress_health_check=list(HealthCheck))
def test_a_changed_base(whole: Path, tmp_path_factory: pytest.TempPathFactory, change: Change) -> None:
    folder = tmp_path_factory.getbasetemp() / "changed"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for path in whole.iterdir():
        if path.name in (*SHARDS, INDEX, "config.json"):
            shutil.copy(path, folder)
    change(folder)
    refused(lambda: assert_whole(folder))


def test_the_unchanged_base_loads(whole: Path) -> None:
    assert_whole(whole)


@given(st.sampled_from(["tokenizer.json", "tokenizer_config.json"]), st.data())
@settings(max_examples=40, deadline=20_000, derandomize=True, suppress_health_check=list(HealthCheck))
def test_a_changed_tokenizer(whole: Path, tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject) -> None:
    folder = tmp_path_factory.getbasetemp() / "tokenizer"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder)
    content = (folder / name).read_bytes()
    if data.draw(st.booleans()):
        changed = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        parsed = json.loads(content)
        parsed[data.draw(st.sampled_from(sorted(parsed)))] = data.draw(values)
        changed = json.dumps(parsed).encode()
    (folder / name).write_bytes(changed)
    refused(lambda: load_tokenizer(ModelConfig(name=str(folder))))
