"""Which backend runs, why, and one clear line where it cannot."""

import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, Gemma3TextConfig, LlamaConfig, PreTrainedConfig, Qwen3Config

from tests.tools import architecture
from warmline.config import RunConfig, parse_config
from warmline.errors import WarmlineError
from warmline.model.choose import Choice, choose_backend, import_unsloth, will_fuse
from warmline.model.fast.decoder import can_fuse
from warmline.settings import SEVEN_PROJECTIONS

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SMALL: dict[str, Any] = {
    "vocab_size": 100, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8,
}  # fmt: skip
LLAMA, GEMMA, QWEN3 = LlamaConfig(**SMALL), Gemma3TextConfig(**SMALL), architecture()


def run_config(model: dict[str, Any] | None = None, **sections: Any) -> RunConfig:
    return parse_config({"name": "r", "model": {"name": "some/model", "load_in_4bit": True, **(model or {})}, **sections}, "tests")


def choose(
    config: RunConfig, base: PreTrainedConfig, device: torch.device = CUDA, dtype: torch.dtype = torch.bfloat16, fits: bool = True
) -> Choice:
    return choose_backend(config, base, device, dtype, lambda: fits)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """An `unsloth` that can be found."""
    module = ModuleType("unsloth")
    module.__spec__ = ModuleSpec("unsloth", None)
    monkeypatch.setitem(sys.modules, "unsloth", module)
    return module


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "unsloth", None)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("base", "model", "sections", "fits", "backend", "reason"),
    [
        (QWEN3, {}, {}, True, "transformers", "the fused layers apply"),
        (QWEN3, {}, {}, False, "transformers", "the fused layers apply"),
        (QWEN3, {"fused": False}, {}, True, "transformers", "measured faster than through Unsloth"),
        (QWEN3, {"fused": False}, {}, False, "unsloth", "plain transformers does not fit"),
        (LLAMA, {}, {}, False, "transformers", "the fused layers apply"),
        (LLAMA, {"fused": False}, {}, False, "unsloth", "plain transformers does not fit"),
        (LLAMA, {"fused": False, "load_in_4bit": False}, {}, False, "transformers", "packed"),
        (LLAMA, {}, {"lora": {"dropout": 0.1}}, False, "transformers", "Unsloth recomputes layers with other dropout masks"),
        (GEMMA, {}, {}, False, "transformers", "the fused layers apply; Unsloth does not keep packed conversations of gemma3_text apart"),
        (GEMMA, {"fused": False}, {}, False, "transformers", "Unsloth does not keep packed conversations of gemma3_text apart"),
    ],
)
def test_auto(base: PreTrainedConfig, model: dict[str, Any], sections: dict[str, Any], fits: bool, backend: str, reason: str) -> None:
    choice = choose(run_config(model, **sections), base, fits=fits)
    assert choice.backend == backend
    assert reason in choice.reason
    assert "\n" not in choice.reason


@pytest.mark.usefixtures("installed")
def test_auto_on_a_cpu_asks_no_gpu() -> None:
    choice = choose_backend(run_config({"load_in_4bit": False}), QWEN3, CPU, torch.float32, lambda: pytest.fail("asked the GPU"))
    assert choice == Choice("transformers", "Unsloth needs a CUDA GPU and there is none")


@pytest.mark.usefixtures("missing")
def test_auto_without_unsloth() -> None:
    assert choose(run_config({"fused": False}), LLAMA, fits=False) == Choice("transformers", "Unsloth is not installed")


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("backend", ["transformers", "unsloth"])
def test_a_named_one_is_taken(backend: str) -> None:
    assert choose(run_config({"backend": backend}), QWEN3) == Choice(backend, "asked for in model.backend")  # type: ignore[arg-type]


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("model", "sections", "base", "device", "dtype", "message"),
    [
        ({}, {}, QWEN3, CPU, torch.float32, "needs a CUDA GPU and there is none; run it on a machine with one"),
        ({}, {}, QWEN3, CUDA, torch.float32, "computes in half precision; set training.precision: auto"),
        ({"load_in_4bit": False}, {"lora": None}, QWEN3, CUDA, torch.bfloat16, "is used for adapters only; give a lora section"),
        ({}, {"lora": {"dropout": 0.05}}, QWEN3, CUDA, torch.bfloat16, r"recomputes layers with other [^;]+; set lora\.dropout: 0"),
        ({"load_in_4bit": False, "random_init_seed": 0}, {}, QWEN3, CUDA, torch.float16, r"[^;]+; [^;]+drop model\.random_init_seed"),
        ({}, {}, GEMMA, CUDA, torch.bfloat16, "[^;]+gemma3_text[^;]+; use one of llama, mistral, qwen2, qwen3"),
    ],
)
def test_unsloth_where_it_cannot_run(
    model: dict[str, Any], sections: dict[str, Any], base: PreTrainedConfig, device: torch.device, dtype: torch.dtype, message: str
) -> None:
    with pytest.raises(WarmlineError, match=rf"^model\.backend: unsloth {message}, or set model\.backend: transformers$"):
        choose(run_config({"backend": "unsloth", **model}, **sections), base, device, dtype)


@pytest.mark.usefixtures("missing")
def test_unsloth_that_is_not_installed() -> None:
    with pytest.raises(WarmlineError, match=r"^model\.backend: unsloth is not installed; `pip install 'warmline\[unsloth\]'`, or set"):
        choose(run_config({"backend": "unsloth"}), QWEN3)
    with pytest.raises(WarmlineError, match=r"^model\.backend: unsloth is not installed; `pip install 'warmline\[unsloth\]'`$"):
        import_unsloth()


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        ("ModuleNotFoundError('No module named x', name='unsloth_zoo')", "lacks the package unsloth_zoo; `pip install"),
        ("NotImplementedError('no GPU\\n at all')", r"cannot be imported \(no GPU at all\); set model\.backend: transformers"),
    ],
)
def test_unsloth_that_refuses(raised: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "unsloth.py").write_text(f"raise {raised}")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "unsloth", raising=False)
    with pytest.raises(WarmlineError, match=rf"^model\.backend: unsloth {message}[^\n]*$"):
        import_unsloth()


def test_import_comes_first_and_sends_no_statistics(tmp_path: Path) -> None:
    """The command line's way in: when Unsloth is imported, transformers is not yet."""
    (tmp_path / "unsloth.py").write_text(
        "import os, sys\n"
        "assert 'transformers' not in sys.modules and 'peft' not in sys.modules\n"
        "assert os.environ['UNSLOTH_DISABLE_STATISTICS'] == '1'\n"
        "raise NotImplementedError('came first')\n"
    )
    (tmp_path / "run.yaml").write_text("name: r\nmodel: {name: some/model, backend: unsloth}\n")
    path = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.argv = ['warmline', 'train', {str(tmp_path / 'run.yaml')!r}]"
    done = subprocess.run([sys.executable, "-c", f"{path}; from warmline.cli import main; main()"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "warmline: model.backend: unsloth cannot be imported (came first); set model.backend: transformers\n"


@pytest.mark.parametrize(
    ("base", "lora"),
    [
        (QWEN3, {}),
        (QWEN3, {"dropout": 0.1}),
        (QWEN3, {"target_modules": SEVEN_PROJECTIONS[:4]}),
        (architecture(hidden_act="gelu"), {}),
        (LLAMA, {}),
        (GEMMA, {}),
        (GEMMA, {"dropout": 0.1}),
    ],
)
def test_foresees_what_can_be_fused(base: Qwen3Config, lora: dict[str, Any]) -> None:
    config = run_config(lora=lora)
    assert config.lora is not None
    settings = LoraConfig(lora_dropout=config.lora.dropout, target_modules=list(config.lora.target_modules), task_type="CAUSAL_LM")
    built = get_peft_model(AutoModelForCausalLM.from_config(base), settings)
    assert will_fuse(config, base, CUDA) == can_fuse(built.get_base_model().get_decoder())
    assert not will_fuse(config, base, CPU)
