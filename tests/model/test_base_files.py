"""What is refused about a base's files, in which words; `tests/hostile/test_bases.py` has the many ways to break them."""

import ast
import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from tests.tools import CPU, architecture, write_architecture
from warmline.errors import WarmlineError
from warmline.model.base import expected_tensors, load_architecture, load_tokenizer
from warmline.model.base_files import stored_tensors
from warmline.model.transformers_backbone import TransformersBackbone
from warmline.settings import LoraSettings, ModelConfig

ROOT = Path(__file__).parents[2]
ONE = "model.safetensors"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A two-layer Qwen3 with weights."""
    folder = write_architecture(tmp_path / "base", architecture(vocab_size=300))
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder)).save_pretrained(folder)
    return folder


def load(folder: Path, lora: LoraSettings | None = None) -> TransformersBackbone:
    return TransformersBackbone(ModelConfig(name=str(folder)), lora, CPU.device, CPU.dtype, trainable=False)


def change_config(folder: Path, **changes: object) -> None:
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, **changes}))


def change_tensors(folder: Path, **changes: torch.Tensor | None) -> None:
    tensors = {**load_file(folder / ONE), **{name.replace("__", "."): tensor for name, tensor in changes.items()}}
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, folder / ONE, {"format": "pt"})


def refusal(folder: Path) -> str:
    with pytest.raises(WarmlineError) as refused:
        load(folder)
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith(f"model.name: `{folder}` ")
    return str(refused.value).removeprefix(f"model.name: `{folder}` ")


def refused(read: Callable[[], object]) -> str | None:
    """The one line with which it was refused; None where it was not."""
    try:
        read()
    except WarmlineError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017 - every other exception fails the test
        return str(error)
    return None


def test_a_missing_tensor(base: Path, capfd: pytest.CaptureFixture[str]) -> None:
    change_tensors(base, model__layers__1__mlp__up_proj__weight=None, model__norm__weight=None)
    assert refusal(base).startswith("lacks 2 tensors (model.layers.1.mlp.up_proj.weight, model.norm.weight), which would be random")
    assert "LOAD REPORT" not in capfd.readouterr().err


def test_many_missing_tensors(base: Path) -> None:
    change_config(base, num_hidden_layers=4, layer_types=["full_attention"] * 4)
    assert refusal(base).startswith("lacks 22 tensors (model.layers.2.input_layernorm.weight, ")


def test_an_unembedding_that_is_not_tied(base: Path) -> None:
    change_config(base, tie_word_embeddings=False)
    assert refusal(base).startswith("lacks 1 tensor (lm_head.weight)")


def test_a_layer_too_many(base: Path) -> None:
    change_config(base, num_hidden_layers=1, layer_types=["full_attention"])
    assert refusal(base).startswith("holds 11 tensors (model.layers.1.input_layernorm.weight, ")


def test_another_shape(base: Path) -> None:
    change_config(base, vocab_size=299)
    assert refusal(base).startswith("holds 1 tensor (model.embed_tokens.weight) in other shapes than its config.json says")


def test_a_head_that_is_not_asked_for(base: Path) -> None:
    change_tensors(base, score__weight=torch.zeros(2, 32))
    load(base)


def test_a_pointer(base: Path) -> None:
    (base / ONE).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 269060552\n")
    assert "Git LFS pointer" in refusal(base)


def test_a_file_that_is_cut_short(base: Path) -> None:
    content = (base / ONE).read_bytes()
    for size in (0, 7, 100, len(content) // 2, len(content) - 1):
        (base / ONE).write_bytes(content[:size])
        assert refusal(base).startswith("has a model.safetensors that is cut short or no safetensors file")


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (self.place, "w")

    def __init__(self, place: Path) -> None:
        self.place = str(place)


@pytest.mark.parametrize("name", ["pytorch_model.bin", ONE])
def test_a_pickle_is_never_read(base: Path, name: str, tmp_path: Path) -> None:
    (base / ONE).unlink()
    (base / name).write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    assert "pickles alone" in refusal(base) if name != ONE else "no safetensors file" in refusal(base)
    assert not (tmp_path / "ran").exists()


def test_weights_that_torch_saved(base: Path) -> None:
    """They hold nothing but tensors, and load in transformers; the promise is that nothing is unpickled."""
    torch.save(load_file(base / ONE), base / "pytorch_model.bin")
    (base / ONE).unlink()
    assert "save_pretrained(NEW)" in refusal(base)


def test_a_name_in_the_configuration_that_leads_to_a_pickle(base: Path) -> None:
    torch.save(load_file(base / ONE), base / "weights.bin")
    change_config(base, transformers_weights="weights.bin")
    with pytest.raises(WarmlineError, match="transformers_weights"):
        load(base)


def test_an_index(base: Path) -> None:
    AutoModelForCausalLM.from_pretrained(base).save_pretrained(base, max_shard_size="50KB")
    (base / ONE).unlink(missing_ok=True)
    shards = sorted(base.glob("*.safetensors"))
    load(base)
    shards[1].rename(base / "elsewhere")
    assert refusal(base).startswith(f"has no {shards[1].name}, which model.safetensors.index.json lists")
    (base / "elsewhere").rename(shards[1])
    index = json.loads((base / "model.safetensors.index.json").read_text())
    for other in ("../other.safetensors", "pytorch_model.bin", 3):
        changed = {**index, "weight_map": {**index["weight_map"], "model.norm.weight": other}}
        (base / "model.safetensors.index.json").write_text(json.dumps(changed))
        assert "does not list safetensors files beside it" in refusal(base)


def test_an_adapter_beside_the_model(base: Path) -> None:
    """Transformers would put it on, with whatever its settings import."""
    (base / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "x", "megatron_core": "bomb"}))
    assert refusal(base).startswith("holds an adapter")


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xff", b"[1]", b'{"version": "1.0", "added_tokens": 3}'])
def test_json_that_is_broken(base: Path, file: str, content: bytes) -> None:
    (base / file).write_bytes(content)
    config = ModelConfig(name=str(base))
    said = refused(lambda: (load_architecture(config), load_tokenizer(config)))
    if said is None:
        assert file == "tokenizer_config.json"  # which may say nothing
    else:
        assert said.startswith("model.name: cannot load ")


@pytest.mark.parametrize("answer", ["y", "n"])
def test_code_of_its_own_is_never_run_nor_asked_for(base: Path, answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first line of a chat would be taken for consent."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    asked: list[str] = []
    monkeypatch.setattr("builtins.input", lambda prompt="": asked.append(prompt) or answer)
    (base / "bomb.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Config: pass\n")
    kinds = {"AutoConfig": "bomb.Config", "AutoModelForCausalLM": "bomb.Model"}
    change_config(base, model_type="of_its_own", auto_map=kinds)
    settings = json.loads((base / "tokenizer_config.json").read_text())
    del settings["tokenizer_class"]
    (base / "tokenizer_config.json").write_text(json.dumps({**settings, "auto_map": {"AutoTokenizer": [None, "bomb.Config"]}}))
    for read in (load_architecture, load_tokenizer):
        with pytest.raises(WarmlineError, match=r"^model\.name: [^\n]* code of its own \(auto_map\), which is never run: [^\n]*$"):
            read(ModelConfig(name=str(base)))
    assert not asked
    assert not (tmp_path / "ran").exists()


def test_code_beside_an_architecture_that_transformers_has(base: Path, tmp_path: Path) -> None:
    """As of models that were published before transformers had them: its own implementation reads their weights."""
    (base / "bomb.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    change_config(base, auto_map={"AutoConfig": "bomb.Config", "AutoModelForCausalLM": "bomb.Model"})
    load(base)
    assert not (tmp_path / "ran").exists()


def loads(tree: ast.AST) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("from_pretrained", "from_config"):
            yield node


def test_no_load_leaves_the_question_open() -> None:
    """None, the default of `trust_remote_code`, asks on standard input. PEFT has no code of a base's to run."""
    found = 0
    for path in [*(ROOT / "src").rglob("*.py"), *(ROOT / "scripts").rglob("*.py")]:
        for call in loads(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) not in ("PeftModel", "PeftConfig"):
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
                assert given.get("trust_remote_code") == "False", f"{path}:{call.lineno}"
                found += 1
    assert found >= 10


def test_names_of_tensors_without_loading(base: Path) -> None:
    """What Unsloth's loading is held to."""
    config = ModelConfig(name=str(base))
    assert expected_tensors(load_architecture(config)) == stored_tensors(config, str(base))
    change_tensors(base, model__norm__weight=None)
    assert expected_tensors(load_architecture(config)) - stored_tensors(config, str(base)) == {"model.norm.weight"}


@pytest.mark.parametrize(
    "surroundings",
    [{"HF_HUB_OFFLINE": "1"}, {"HTTPS_PROXY": "http://127.0.0.1:nonsense"}, {"HTTPS_PROXY": "socks9://127.0.0.1:1"}],
)
def test_a_hub_that_cannot_be_reached(surroundings: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in surroundings.items():
        monkeypatch.setenv(name, value)
    config = ModelConfig(name="warmline-tests/no-such-model")
    for read in (load_architecture, load_tokenizer):
        with pytest.raises(WarmlineError, match=r"^model\.name: cannot load `warmline-tests/no-such-model`: [^\n]+$"):
            read(config)


# which layers get an adapter


@pytest.mark.parametrize(
    "names", [("q_proj", "v_prj"), ("q_proj", "lm_head"), ("embed_tokens",), ("q_proj", "norm"), ("self_attn", "q_proj")]
)
def test_every_name_must_be_a_linear_layer_that_learns(names: tuple[str, ...], base: Path) -> None:
    """PEFT takes a list of which one name is known; on an embedding it saves a copy of it, and our losses send no gradient there."""
    bad = next(name for name in names if name != "q_proj")
    expected = (
        f"lora.target_modules: `{bad}` is no linear layer in the decoder's layers, so nothing would be trained there; "
        "there are q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj"
    )
    with pytest.raises(WarmlineError) as error:
        load(base, LoraSettings(target_modules=names))
    assert str(error.value) == expected
