"""The plan is what the run then does."""

import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from transformers import (
    CLIPTextConfig,
    DeepseekV3Config,
    Gemma3Config,
    Gemma3TextConfig,
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
from warmline.data.encoding import EncodedSource, encode_split
from warmline.data.template import ChatTemplate
from warmline.errors import WarmlineError
from warmline.model.artifacts import build_model
from warmline.model.base import load_tokenizer
from warmline.runs import RunFolder, read_json, write_text
from warmline.tasks import all_objectives
from warmline.training.checkpoint import trainable_state
from warmline.training.loop import train
from warmline.training.plan import MANY_PASSES, Plan, make_packer, plan_run
from warmline.training.view import plan_summary


def test_plan_is_what_happened(finished: RunFolder) -> None:
    plan = plan_run(load_config(finished.config))
    assert plan.as_json() == read_json(finished.plan)
    train = metrics(finished, "train")
    assert plan.steps == len(train) == train[-1]["step"] == 12
    assert plan.rows_per_step == 2
    assert plan.tokens == sum(line["tokens"] for line in train)
    assert plan.fill == pytest.approx(np.mean([line["fill"] for line in train]))
    assert plan.targets == {name: sum(line["counts"][name] for line in train) for name in all_objectives()}
    assert dict(zip(plan.sources, plan.realised, strict=True)) == train[-1]["shares"]
    drawn = read_json(finished.checkpoint(12) / "state.json")["progress"]["drawn"]
    assert plan.passes == [number / size for number, size in zip(drawn, plan.conversations, strict=True)]


def test_target_shares_are_those_of_the_rows(finished: RunFolder) -> None:
    config = load_config(finished.config)
    plan = plan_run(config)
    sources = encode_split("train", config.data, ChatTemplate(load_tokenizer(config.model)))
    packer = make_packer(config, sources)
    found = {name: [0] * len(sources) for name in all_objectives()}
    for draw in (draw for _ in range(plan.steps * plan.rows_per_step) for draw in packer.row()):
        source = sources[draw.source]
        encoded = source[draw.conversation]
        if "lm" in source.objectives:
            found["lm"][draw.source] += sum(int(end - first) for first, end in encoded.replies)
        for name, labels in encoded.labels.items():
            found[name][draw.source] += len(labels)
        found["safety"][draw.source] += "safety" in source.objectives
    assert plan.targets == {name: sum(numbers) for name, numbers in found.items()}
    for name, numbers in found.items():
        assert plan.target_shares[name] == pytest.approx([number / sum(numbers) for number in numbers])


def test_a_capped_run_is_as_planned_and_goes_on_across_the_cap(tiny_config: ConfigFactory, tmp_path: Path) -> None:
    """Every source leaves in turn, the run ends when none is left, and from any step on it can be resumed to the same draws."""
    config = tiny_config(
        tmp_path, data={"max_passes": 0.1}, training={"max_steps": None}, validation={"every": 100}, checkpoint={"every": 1, "keep": 100}
    )
    run, plan = quiet_train(config), plan_run(config)
    lines, sizes = metrics(run), np.array(plan.conversations)
    drawn = np.array([read_json(run.checkpoint(step) / "state.json")["progress"]["drawn"] for step in run.steps()])
    assert plan.ends_by == "data.max_passes"
    assert len(drawn) == plan.steps == metrics(run, "train")[-1]["step"]
    assert plan.passes == (drawn[-1] / sizes).tolist()
    assert (drawn[-1] <= sizes // 10).all()
    assert plan.draws == drawn[-1].sum() >= (sizes // 10).sum() - 30  # less than a step is left over
    assert plan.leaves_after == [int((own < own[-1]).sum()) + 1 for own in drawn.T]
    first = min(step for step in plan.leaves_after if step is not None)
    assert first < plan.steps - 2
    for step in range(first - 1, plan.steps + 1):
        shutil.rmtree(run.checkpoint(step))
    run.heads_description.unlink()
    assert metrics(quiet_train(config, resume=True)) == lines


def test_a_cap_leaves_the_length_of_the_run(tiny_config: ConfigFactory, tmp_path: Path, sources: list[EncodedSource]) -> None:
    free, capped = (
        plan_run(tiny_config(tmp_path, data={"max_passes": cap}, training={"max_steps": None, "epochs": 1.0})) for cap in (None, 1.5)
    )
    wanted = sum(len(source) for source in sources)
    assert wanted <= capped.draws < wanted + 60
    assert (free.ends_by, free.leaves_after) == ("training.epochs", [None] * 4)
    assert capped.ends_by == "training.epochs"
    assert capped.passes[:2] == pytest.approx([1.5, 1.5], abs=0.01)
    assert max(free.passes) > 1.5 >= max(capped.passes)
    assert capped.leaves_after[2] is None
    assert plan_run(tiny_config(tmp_path)).ends_by == "training.max_steps"


def test_a_cap_that_leaves_nothing_is_refused(tiny_config: ConfigFactory, tmp_path: Path) -> None:
    with pytest.raises(WarmlineError, match=r"^data\.max_passes: 0\.001 times the 160 conversations of empathetic_dialogues is "):
        plan_run(tiny_config(tmp_path, data={"max_passes": 0.001}))
    with pytest.raises(WarmlineError, match=r"^data\.max_passes: 0\.02 passes fill less than one step of 64 rows; raise it, or lower "):
        plan_run(tiny_config(tmp_path, data={"max_passes": 0.02}, training={"accumulation": 64}))


def shown(plan: Plan) -> list[str]:
    console = Console(width=80, file=io.StringIO())
    with console.capture() as capture:
        console.print(plan_summary(plan))
    return capture.get().splitlines()


def test_the_summary_says_passes_and_shares_within_80_columns(tiny_config: ConfigFactory, tmp_path: Path) -> None:
    data = {"alpha": 0.3, "max_passes": 4.2, "row_tokens": 256}
    plan = plan_run(tiny_config(tmp_path, data=data, training={"max_steps": None, "epochs": 2}))
    lines = shown(plan)
    for at, name in enumerate(plan.sources):
        (row,) = (line.split() for line in lines if line.split()[:1] == [name] and line.count("%") > 2)
        shares = [plan.target_shares[objective][at] for objective in all_objectives()]
        assert row[4:] == [f"{plan.passes[at]:.1f}", *(f"{share:.1%}" if share else "-" for share in shares)]
    text = " ".join(" ".join(lines).split())
    assert f"split to fit a row, and counted in parts: {plan.split_conversations[1]} of esconv" in text
    leaving = [f"{name} after step {step}" for name, step in zip(plan.sources, plan.leaves_after, strict=True) if step]
    assert f"leaves the mixture at data.max_passes: {', '.join(leaving)} " in text
    often = re.findall(r"(\w+) ([\d.]+) times with ([\d.]+%) of the lm targets", text)
    repeated = zip(plan.sources, plan.passes, plan.target_shares["lm"], strict=True)
    assert often == [(name, f"{passes:.1f}", f"{share:.1%}") for name, passes, share in repeated if passes > MANY_PASSES]
    assert "empathetic_dialogues" in {name for name, *_ in often}
    assert "data.alpha nearer 1, data.max_passes, or fewer training.epochs" in text


def test_few_passes_are_not_warned_of(finished: RunFolder) -> None:
    assert "warning" not in " ".join(shown(plan_run(load_config(finished.config))))


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


def test_a_target_that_is_not_there_leaves_an_earlier_run_alone(tiny_config: ConfigFactory, tmp_path: Path) -> None:
    config = tiny_config(tmp_path, lora={"target_modules": ["nothing"]})
    run = RunFolder(config.output_dir / config.name)
    run.create()
    write_text(run.config, dump_config(config))
    with pytest.raises(WarmlineError, match=r"^lora\.target_modules: `nothing` is no linear layer"):
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
        (
            Gemma3TextConfig(num_hidden_layers=1, use_bidirectional_attention=True),
            "gemma3_text attends to later tokens",
        ),
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
