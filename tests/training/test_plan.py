"""The plan is what the run then does."""

from pathlib import Path

import numpy as np
import pytest
from transformers import (
    CLIPTextConfig,
    DeepseekV3Config,
    Gemma3Config,
    GPT2Config,
    LlavaConfig,
    MambaConfig,
    Phi3Config,
    PreTrainedConfig,
    Qwen3NextConfig,
    T5Config,
)

from tests.conftest import ConfigFactory
from tests.tools import CPU, architecture, metrics, quiet_train, write_architecture
from warmline.config import dump_config, load_config
from warmline.data.conversation import OBJECTIVES
from warmline.data.encoding import EncodedSource
from warmline.errors import WarmlineError
from warmline.model.artifacts import build_model
from warmline.runs import RunFolder, read_json, write_text
from warmline.training.checkpoint import trainable_state
from warmline.training.loop import train
from warmline.training.plan import plan_run


def test_plan_is_what_happened(finished: RunFolder) -> None:
    plan = plan_run(load_config(finished.config))
    assert plan.as_json() == read_json(finished.plan)
    train = metrics(finished, "train")
    assert plan.steps == len(train) == train[-1]["step"] == 12
    assert plan.rows_per_step == 2
    assert plan.tokens == sum(line["tokens"] for line in train)
    assert plan.fill == pytest.approx(np.mean([line["fill"] for line in train]))
    assert plan.targets == {name: sum(line["counts"][name] for line in train) for name in OBJECTIVES}
    assert dict(zip(plan.sources, plan.realised, strict=True)) == train[-1]["shares"]


def test_plan_and_manifest_say_which_backend_and_why(finished: RunFolder) -> None:
    plan, manifest = read_json(finished.plan), read_json(finished.manifest)
    assert (plan["backend"], plan["backend_reason"]) == ("transformers", "Unsloth needs a CUDA GPU and there is none")
    assert (manifest["backend"], manifest["backend_reason"]) == (plan["backend"], plan["backend_reason"])


def test_unsloth_without_a_gpu_is_refused_before_anything_is_read(tiny_config: ConfigFactory, tmp_path: Path) -> None:
    config = tiny_config(tmp_path, model={"backend": "unsloth", "random_init_seed": None})
    with pytest.raises(WarmlineError, match=r"^model\.backend: unsloth needs a CUDA GPU and there is none; [^\n]+$"):
        plan_run(config)
    with pytest.raises(WarmlineError, match=r"^model\.backend: unsloth needs a CUDA GPU and there is none; [^\n]+$"):
        quiet_train(config)
    assert not (tmp_path / "tiny").exists()


def test_a_layer_that_is_not_there_leaves_an_earlier_run_alone(tiny_config: ConfigFactory, tmp_path: Path) -> None:
    config = tiny_config(tmp_path, heads={"layer": 3})
    run = RunFolder(config.output_dir / config.name)
    run.create()
    write_text(run.config, dump_config(config))
    with pytest.raises(WarmlineError, match=r"^heads\.layer: 3, but .* has 2 layers; null reads the final states"):
        train(config, overwrite=True)
    assert run.config.is_file()


def test_draws_match_epochs(tiny_config: ConfigFactory, tmp_path: Path, sources: list[EncodedSource]) -> None:
    plan = plan_run(tiny_config(tmp_path, training={"max_steps": None, "epochs": 0.5}))
    wanted = sum(len(source) for source in sources) / 2
    assert wanted <= plan.draws < wanted + 60  # the last step is not cut short
    assert plan.conversations == [len(source) for source in sources]
    roots = np.sqrt(plan.conversations)
    assert plan.probabilities == pytest.approx(roots / roots.sum())
    assert 0.97 < plan.fill <= 1
    assert plan.tokens == pytest.approx(plan.fill * plan.steps * 512)


def test_ranks_share_the_work(tiny_config: ConfigFactory, tmp_path: Path) -> None:
    config = tiny_config(tmp_path, training={"max_steps": None, "epochs": 0.5, "accumulation": 2})
    alone, together = plan_run(config), plan_run(config, ranks=4)
    assert (alone.rows_per_step, together.rows_per_step) == (2, 8)
    assert together.steps == pytest.approx(alone.steps / 4, abs=1)


@pytest.mark.parametrize("lora", [{"r": 4, "alpha": 8}, None])
def test_counts_what_trains(lora: dict[str, int] | None, tiny_config: ConfigFactory, tmp_path: Path) -> None:
    config = tiny_config(tmp_path, lora=lora, heads={"emotion": {"hidden_size": 16}})
    plan = plan_run(config)
    model = build_model(config, CPU.device, CPU.dtype)
    assert plan.trainable == sum(tensor.numel() for tensor in trainable_state(model).values())


def test_split_conversations_are_counted(tiny_config: ConfigFactory, tmp_path: Path) -> None:
    short = plan_run(tiny_config(tmp_path, data={"row_tokens": 256}))
    assert short.split_conversations[1] > 0
    long = plan_run(tiny_config(tmp_path, data={"row_tokens": 4096}))
    assert long.split_conversations == [0, 0, 0, 0]


VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
SIZES = {name: value for name, value in architecture().to_dict().items() if name not in ("model_type", "layer_types", "head_dim")}


@pytest.mark.parametrize(
    ("base", "what"),
    [
        (Gemma3Config(text_config=SIZES, vision_config=VISION), r"gemma3 has parts beside its text model \(text_config, vision_config\)"),
        (LlavaConfig(), "llava has parts beside its text model"),
        (T5Config(), "t5 has an encoder beside its decoder"),
        (MambaConfig(num_hidden_layers=2), "mamba has no max_position_embeddings"),
        (Qwen3NextConfig(**SIZES, num_experts=4), "qwen3_next has layers without attention, or projects queries"),
        (GPT2Config(n_layer=1), "gpt2 has layers without attention, or projects queries"),
        (Phi3Config(**SIZES), "phi3 has layers without attention, or projects queries"),
        (DeepseekV3Config(num_hidden_layers=1), "deepseek_v3 has layers without attention, or projects queries"),
        (CLIPTextConfig(), "clip_text_model is no causal language model to transformers"),
    ],
    ids=lambda value: value.model_type if isinstance(value, PreTrainedConfig) else "",
)
def test_a_base_of_another_kind_is_refused_in_a_line(base: PreTrainedConfig, what: str, tiny_config: ConfigFactory, tmp_path: Path) -> None:
    config = tiny_config(tmp_path, model={"name": str(write_architecture(tmp_path / "base", base)), "template": "chatml"})
    with pytest.raises(WarmlineError, match=rf"^model\.name: a model of type {what}[^\n]*; name a decoder of text alone [^\n]+$"):
        plan_run(config)
    with pytest.raises(WarmlineError, match=rf"^model\.name: a model of type {what}"):
        quiet_train(config)
