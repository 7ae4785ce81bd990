"""Our side of the Unsloth backbone, against a stand-in that follows the rules of Unsloth's source; `test_backends_on_gpu.py` runs the
real one.

The stand-in keeps conversations apart only by `packed_seq_lengths`, gives states only under the environment variable, switches
recomputation off in `generate`, and notes itself in the adapter's settings, as Unsloth does. Underneath is our own attention, so states
must equal the transformers backbone's to the last bit.
"""

import os
import shutil
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, GenerationConfig

from tests.tools import CPU, OWN_DEFAULTS, architecture, perturb, write_architecture
from warmline.config import parse_config
from warmline.errors import WarmlineError
from warmline.model.artifacts import build_model
from warmline.model.backbone import Sampling
from warmline.model.fast.attention import VARLEN
from warmline.model.multitask import MultiTaskModel
from warmline.model.transformers_backbone import TransformersBackbone
from warmline.model.unsloth_backbone import UnslothBackbone
from warmline.settings import LoraSettings, ModelConfig

LENGTHS = (9, 4, 30)
LORA = LoraSettings(r=4, alpha=8, rank_stabilised=True, target_modules=("q_proj", "v_proj", "down_proj"))
GREEDY = Sampling(max_new_tokens=6, temperature=0)


class StandIn:
    """FastLanguageModel, as far as the backbone knows it; remembers what it was asked."""

    asked: dict[str, dict[str, Any]]

    def __init__(self) -> None:
        self.asked = {}

    def from_pretrained(self, name: str, **asked: Any) -> tuple[Any, None]:
        self.asked["from_pretrained"] = {"name": name, **asked}
        return AutoModelForCausalLM.from_pretrained(name, dtype=asked["dtype"], attn_implementation=VARLEN), None

    def get_peft_model(self, base: Any, **asked: Any) -> PeftModel:
        self.asked["get_peft_model"] = asked
        recompute, seed = asked.pop("use_gradient_checkpointing"), asked.pop("random_state")
        torch.manual_seed(seed)
        model = get_peft_model(base.requires_grad_(False), LoraConfig(**asked, task_type="CAUSAL_LM"))
        model.peft_config["default"].auto_mapping = {"parent_library": "unsloth.models", "unsloth_fixed": True}
        base.recompute, plain = recompute, base.generate

        def forward(input_ids: Tensor, position_ids: Tensor, packed_seq_lengths: Tensor, use_cache: bool) -> Any:
            assert not use_cache
            assert packed_seq_lengths.dtype == torch.int32
            bounds = torch.cat([torch.zeros(1, dtype=torch.int32), packed_seq_lengths.cumsum(0).to(torch.int32)])
            named = {"cu_seq_lens_q": bounds, "max_length_q": int(packed_seq_lengths.max())}
            states = base.get_decoder()(input_ids, position_ids=position_ids, use_cache=False, **named).last_hidden_state
            return SimpleNamespace(logits=states if os.environ.get("UNSLOTH_RETURN_HIDDEN_STATES") == "1" else base.lm_head(states))

        def generate(**named: Any) -> Any:
            assert os.environ.get("UNSLOTH_RETURN_HIDDEN_STATES") is None
            base.eval()
            base.recompute = False
            base.set_attn_implementation("sdpa")
            try:
                return plain(**named)
            finally:
                base.set_attn_implementation(VARLEN)

        model.forward, base.generate = forward, generate
        return model

    def for_training(self, model: PeftModel, use_gradient_checkpointing: Any) -> None:
        model.get_base_model().recompute = use_gradient_checkpointing
        model.train()


@pytest.fixture
def unsloth(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    module: Any = ModuleType("unsloth")
    module.__spec__, module.FastLanguageModel = ModuleSpec("unsloth", None), StandIn()
    monkeypatch.setitem(sys.modules, "unsloth", module)
    monkeypatch.delenv("UNSLOTH_RETURN_HIDDEN_STATES", raising=False)
    stand_in: StandIn = module.FastLanguageModel
    return stand_in


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_architecture(tmp_path_factory.mktemp("model"), architecture(max_position_embeddings=512))
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(architecture(max_position_embeddings=512)).save_pretrained(path)
    return path


def open_unsloth(folder: Path, **options: Any) -> UnslothBackbone:
    torch.manual_seed(5)
    return UnslothBackbone(ModelConfig(name=str(folder)), LORA, CPU.device, CPU.dtype, **options)


def open_plain(folder: Path, **options: Any) -> TransformersBackbone:
    return TransformersBackbone(ModelConfig(name=str(folder)), LORA, CPU.device, CPU.dtype, **options)


def conversations() -> tuple[Tensor, Tensor, Tensor, int]:
    tokens = torch.randint(4096, (sum(LENGTHS),), generator=torch.Generator().manual_seed(0))
    bounds = torch.tensor([0, *LENGTHS]).cumsum(0).to(torch.int32)
    return tokens, torch.cat([torch.arange(length) for length in LENGTHS]), bounds, max(LENGTHS)


def noisy(backbone: Any) -> Any:
    perturb(MultiTaskModel(backbone, torch.nn.Identity()))  # type: ignore[arg-type]
    return backbone


def test_loads_the_model_that_was_named(unsloth: StandIn, folder: Path) -> None:
    """Its own name, no longer than its own positions (else Unsloth rescales them), statistics off."""
    open_unsloth(folder, checkpointing="selective")
    asked = unsloth.asked["from_pretrained"]
    assert asked == {
        "name": str(folder), "revision": None, "use_exact_model_name": True, "max_seq_length": 512, "dtype": torch.float32,
        "load_in_4bit": False, "device_map": {"": 0}, "use_gradient_checkpointing": "unsloth", "offload_embedding": False,
        "trust_remote_code": False,
    }  # fmt: skip
    assert os.environ["UNSLOTH_DISABLE_STATISTICS"] == "1"


def test_what_plain_transformers_refuses(unsloth: StandIn, folder: Path, tmp_path: Path) -> None:
    """A name that is no linear layer of the decoder's, and a base that is not wholly in its files."""
    config = ModelConfig(name=str(folder))
    with pytest.raises(WarmlineError, match=r"^lora\.target_modules: `lm_head` is no linear layer"):
        UnslothBackbone(config, LoraSettings(target_modules=("q_proj", "lm_head")), CPU.device, CPU.dtype)
    broken = Path(shutil.copytree(folder, tmp_path / "broken"))
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, broken / "model.safetensors", {"format": "pt"})
    unsloth.asked.clear()
    with pytest.raises(WarmlineError, match=r"^model\.name: `[^`]+` lacks 1 tensor \(model\.norm\.weight\)"):
        open_unsloth(broken)
    assert unsloth.asked == {}


@pytest.mark.parametrize(
    ("checkpointing", "trainable", "expected"),
    [
        ("none", True, False),
        ("selective", True, "unsloth"),
        ("full", True, "unsloth"),
        ("offload", True, "unsloth"),
        ("full", False, False),
    ],
)
def test_adapter_is_the_one_configured(checkpointing: Any, trainable: bool, expected: Any, unsloth: StandIn, folder: Path) -> None:
    backbone = open_unsloth(folder, checkpointing=checkpointing, trainable=trainable)
    settings = backbone.model.peft_config["default"]
    assert (settings.r, settings.lora_alpha, settings.use_rslora, settings.lora_dropout, settings.bias) == (4, 8, True, 0, "none")
    assert set(settings.target_modules) == set(LORA.target_modules)
    assert backbone.model.get_base_model().recompute == expected
    assert backbone.training == trainable
    assert any(parameter.requires_grad for parameter in backbone.parameters()) == trainable


def test_fresh_adapter_follows_the_seed(unsloth: StandIn, folder: Path) -> None:
    def first(seed: int) -> Tensor:
        torch.manual_seed(seed)
        backbone = UnslothBackbone(ModelConfig(name=str(folder)), LORA, CPU.device, CPU.dtype)
        return next(parameter for parameter in backbone.parameters() if parameter.requires_grad)

    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))


def test_states_are_those_of_transformers(unsloth: StandIn, folder: Path, tmp_path: Path) -> None:
    noisy(open_plain(folder)).save(tmp_path)
    backbone, plain = open_unsloth(folder, tuned=tmp_path), open_plain(folder, tuned=tmp_path)
    assert (backbone.hidden_size, backbone.device) == (32, CPU.device)
    assert torch.equal(backbone.unembedding, plain.unembedding)
    assert torch.equal(backbone.base_unembedding, plain.base_unembedding)
    assert torch.equal(backbone.hidden(*conversations()), plain.hidden(*conversations()))
    with backbone.reference(), plain.reference():
        base = backbone.hidden(*conversations())
        assert torch.equal(base, plain.hidden(*conversations()))
        assert not base.requires_grad
        assert not backbone.training
    assert backbone.training
    assert not torch.equal(backbone.hidden(*conversations()), base)


@pytest.mark.parametrize("before", [None, "0"])
def test_environment_is_set_for_the_call_only(before: str | None, unsloth: StandIn, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = open_unsloth(folder)
    if before is not None:
        monkeypatch.setenv("UNSLOTH_RETURN_HIDDEN_STATES", before)
    assert backbone.hidden(*conversations()).shape == (sum(LENGTHS), 32)
    assert os.environ.get("UNSLOTH_RETURN_HIDDEN_STATES") == before
    with pytest.raises(IndexError):
        backbone.hidden(torch.tensor([8192]), torch.tensor([0]), torch.tensor([0, 1], dtype=torch.int32), 1)
    assert os.environ.get("UNSLOTH_RETURN_HIDDEN_STATES") == before


@pytest.mark.parametrize("name", OWN_DEFAULTS)
def test_a_bases_own_generation_defaults_change_no_reply(name: str, unsloth: StandIn, folder: Path) -> None:
    backbone, prompts = open_unsloth(folder), [[5, 6, 7, 8], [11, 12, 13]]
    expected = backbone.generate(prompts, 7, GREEDY)
    own = backbone._causal.generation_config = GenerationConfig(**{name: OWN_DEFAULTS[name]})
    assert backbone.generate(prompts, 7, GREEDY) == expected
    assert backbone._causal.generation_config is own


@pytest.mark.parametrize("training", [True, False])
def test_generates_as_transformers_and_leaves_training_as_it_was(training: bool, unsloth: StandIn, folder: Path, tmp_path: Path) -> None:
    noisy(open_plain(folder)).save(tmp_path)
    backbone, plain = open_unsloth(folder, tuned=tmp_path, checkpointing="full").train(training), open_plain(folder, tuned=tmp_path)
    tokens = conversations()[0].tolist()
    prompts = [tokens[:5], tokens[5:20], tokens[20:]]
    expected = plain.generate(prompts, 7, GREEDY)
    assert backbone.generate(prompts, 7, GREEDY) == expected
    drawn = Sampling(max_new_tokens=6, temperature=1.5, seed=3)
    assert backbone.generate(prompts, 7, drawn) == backbone.generate(prompts, 7, drawn) != expected  # from other random numbers than ours
    assert backbone.training == backbone.model.training == training
    assert backbone.model.get_base_model().recompute == "unsloth"
    with backbone.reference(), plain.reference():
        assert backbone.generate(prompts, 7, GREEDY) == plain.generate(prompts, 7, GREEDY) != expected
    assert torch.equal(backbone.hidden(*conversations()), plain.hidden(*conversations()))


def test_saved_adapter_is_plain_peft(unsloth: StandIn, folder: Path, tmp_path: Path) -> None:
    backbone = noisy(open_unsloth(folder))
    backbone.save(tmp_path / "unsloth")
    noisy(open_plain(folder)).save(tmp_path / "plain")
    assert sorted(path.name for path in (tmp_path / "unsloth").iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    assert "unsloth" not in (tmp_path / "unsloth" / "adapter_config.json").read_text().replace(str(tmp_path), "").lower()
    names = [set(load_file(tmp_path / name / "adapter_model.safetensors")) for name in ("unsloth", "plain")]
    assert names[0] == names[1]
    again = open_plain(folder, tuned=tmp_path / "unsloth", trainable=False)
    assert torch.equal(again.hidden(*conversations()), backbone.hidden(*conversations()))


def test_a_saved_adapter_s_settings_are_not_read(unsloth: StandIn, folder: Path, tmp_path: Path) -> None:
    plain = noisy(open_plain(folder))
    plain.save(tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 9, "megatron_config": {}, "auto_mapping": {"a": "b"}}')
    assert torch.equal(open_unsloth(folder, tuned=tmp_path).hidden(*conversations()), plain.hidden(*conversations()))
    other = noisy(TransformersBackbone(ModelConfig(name=str(folder)), LoraSettings(r=2, alpha=3), CPU.device, CPU.dtype))
    other.save(tmp_path)
    with pytest.raises(WarmlineError, match="saved weights cannot be loaded"):
        open_unsloth(folder, tuned=tmp_path)


def test_refuses_an_adapter_that_does_not_belong(unsloth: StandIn, folder: Path, tmp_path: Path) -> None:
    noisy(open_plain(folder)).save(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    weights = load_file(file)
    save_file(dict(list(weights.items())[1:]), file)
    with pytest.raises(WarmlineError, match=r"saved weights cannot be loaded \(1 tensors are missing, as base_model\.[\w.]+\)"):
        open_unsloth(folder, tuned=tmp_path)
    file.unlink()
    with pytest.raises(WarmlineError, match="saved weights cannot be loaded"):
        open_unsloth(folder, tuned=tmp_path)


def test_refuses_a_missing_model(unsloth: StandIn) -> None:
    with pytest.raises(WarmlineError, match=r"^model\.name: cannot load `nobody/nothing`: [^\n]+$"):
        open_unsloth(Path("nobody/nothing"))


def test_is_built_on_request(unsloth: StandIn, folder: Path) -> None:
    content = {"name": "r", "model": {"name": str(folder)}, "lora": {"r": 4}}
    model = build_model(parse_config(content, "tests"), CPU.device, CPU.dtype, backend="unsloth")
    assert isinstance(model.backbone, UnslothBackbone)
    with pytest.raises(WarmlineError, match="adapters only"):
        build_model(parse_config({**content, "lora": None}, "tests"), CPU.device, CPU.dtype, backend="unsloth")
