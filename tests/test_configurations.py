"""Every file of configs/ as it stands, its base alone swapped for a small one: killed after a checkpoint, resumed, talked to."""

import signal
import time
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Gemma3TextConfig

import warmline
from tests.tools import architecture, metrics, quiet_train, start_training, stored_in_4bit, write_architecture
from warmline.config import RunConfig, load_config
from warmline.evaluation.evaluate import evaluate
from warmline.model.backbone import Sampling
from warmline.runs import RunFolder

CONFIGS = Path(__file__).parents[1] / "configs"


def gemma(folder: Path) -> Path:
    """A Gemma 3 text model with random weights, and a tokenizer that has Gemma's turns."""
    config = Gemma3TextConfig(**architecture().to_dict() | {"model_type": "gemma3_text", "vocab_size": 8200, "architectures": None,
                              "layer_types": ["sliding_attention", "full_attention"], "sliding_window": 512})  # fmt: skip
    write_architecture(folder, config)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"bos_token": "<bos>", "additional_special_tokens": ["<start_of_turn>", "<end_of_turn>"]})
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    return folder


def of_the_sample(name: str, folder: Path, every: int) -> RunConfig:
    """The file with a small base, the data inside this package, and checkpoints as close as so little data asks for."""
    base = {"training_config": stored_in_4bit, "gemma3-270m": gemma}.get(name)
    changes = [f"output_dir={folder / 'runs'}", "data.dir=sample", f"checkpoint.every={every}", "checkpoint.keep=9"]
    changes += [f"model.name={base(folder / 'base')}"] if base else []
    changes += ["training.max_steps=8", "data.row_tokens=512", "validation.conversations=8"]  # on a CPU
    return load_config(CONFIGS / f"{name}.yaml", changes)


def killed_after_a_checkpoint(config: RunConfig, number: int) -> None:
    """Train in another process and kill it once it has written so many checkpoints and gone on from the last."""
    run = RunFolder(config.output_dir / config.name)
    process = start_training(config)
    while process.is_alive() and (len(run.steps()) < number or len(metrics(run, "train")) <= run.steps()[-1]):
        time.sleep(0.02)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL, "it ended before it could be killed"


@pytest.mark.slow(60)
@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIGS.glob("*.yaml")))
def test_a_configuration_runs(name: str, tmp_path: Path) -> None:
    config = of_the_sample(name, tmp_path, every=2)
    killed_after_a_checkpoint(config, 2)
    run = quiet_train(config, resume=True)
    lines = metrics(run, "train")
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    whole = quiet_train(config.model_copy(update={"name": "whole"}))
    assert metrics(run) == metrics(whole)
    found = evaluate(run.path, replies=2, baselines=False)
    assert found["heads"]["emotion"]["single_label_27"]["n"] > 0
    friend = warmline.load(run.path)
    talk = [{"role": "user", "content": "I finally told my dad I'm dropping out. He just hung up."}]
    assert sum(friend.read(talk)["emotion"].values()) == pytest.approx(1, abs=1e-4)
    assert isinstance(friend.reply(talk, Sampling(max_new_tokens=8)), str)


def test_the_recipe_names_a_base_in_4_bits() -> None:
    """What the swapped base stands for; a change of the recipe's base asks for a change here."""
    model = load_config(CONFIGS / "training_config.yaml").model
    assert (model.name, model.load_in_4bit) == ("unsloth/Qwen3-8B-bnb-4bit", True)
