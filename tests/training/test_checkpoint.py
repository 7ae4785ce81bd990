"""A run can die at any moment and goes on bit-identically; half-written checkpoints are never loaded."""

import json
import random
import shutil
import signal
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from tests.conftest import ConfigFactory
from tests.tools import CPU, OPTIMIZERS, Tiny, metrics, perturb, quiet_train, start_training
from warmline.config import RunConfig
from warmline.data.packing import PackerState
from warmline.errors import WarmlineError
from warmline.files import sha256_of
from warmline.model.artifacts import build_model
from warmline.model.description import weights_hash
from warmline.runs import RunFolder, read_json, write_json
from warmline.settings import TrainingConfig
from warmline.training import checkpoint
from warmline.training.checkpoint import Progress, collect_state, restore_checkpoint, restore_weights, save_checkpoint, trainable_state
from warmline.training.curves import keep_metrics
from warmline.training.optimizer import Optimizer


def progress_at(step: int, best_step: int = 0) -> Progress:
    packer = PackerState(waiting=[(0, 3), (2, 1)], sampler={"drawn": [5, 0, 7, 1]})
    return Progress(step, 100 * step, [1, 2, 3, 4], packer, best_step, 2.5, 1, 3.25, {})


def state_of(optimizer: Optimizer) -> list[dict[str, torch.Tensor]]:
    """What the optimiser remembers of each parameter, numbers as tensors."""
    states = optimizer.inner.state.values()
    return [{key: torch.as_tensor(value) for key, value in state.items()} for state in states]


def trained(tiny: Tiny, steps: int = 3, config: TrainingConfig | None = None) -> Optimizer:
    """An optimiser with state, after a few steps of noise."""
    optimizer = Optimizer(tiny.model, config or tiny.config.training)
    generator = torch.Generator().manual_seed(3)
    for _ in range(steps):
        for tensor in tiny.model.parameters():
            if tensor.requires_grad:
                tensor.grad = torch.randn(tensor.shape, generator=generator)
        optimizer.collect()
        optimizer.inner.step()
    return optimizer


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    return folder


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_comes_back_to_the_last_bit(name: str, tiny: Tiny, run: RunFolder) -> None:
    config = tiny.config.training.model_copy(update={"optimizer": name})
    optimizer = trained(tiny, config=config)
    save_checkpoint(run, collect_state(tiny.model, optimizer), progress_at(3), keep=2)
    weights = {name: tensor.clone() for name, tensor in trainable_state(tiny.model).items()}
    moments = state_of(optimizer)
    perturb(tiny.model)
    fresh = Optimizer(tiny.model, config)
    restored = restore_checkpoint(run, 3, tiny.model, fresh)
    expected = asdict(progress_at(3))
    expected["packer"]["waiting"] = [list(pair) for pair in expected["packer"]["waiting"]]
    assert asdict(restored) == expected
    assert all(torch.equal(tensor, weights[name]) for name, tensor in trainable_state(tiny.model).items())
    assert any(value.dtype == torch.uint8 for state in moments for value in state.values()) == (name == "adamw_8bit")
    for state, expected_state in zip(state_of(fresh), moments, strict=True):
        assert state.keys() == expected_state.keys()
        assert all(torch.equal(state[key], expected_state[key]) for key in state)
    assert [group["lr"] for group in fresh.inner.param_groups] == [group["lr"] for group in optimizer.inner.param_groups]


def test_keeps_best_and_newest(tiny: Tiny, run: RunFolder) -> None:
    optimizer = trained(tiny, 1)
    for step in range(1, 8):
        save_checkpoint(run, collect_state(tiny.model, optimizer), progress_at(step, best_step=min(step, 2)), keep=2)
    assert run.steps() == [2, 6, 7]
    save_checkpoint(run, collect_state(tiny.model, optimizer), progress_at(8, best_step=8), keep=1)
    assert run.steps() == [8]
    assert [path.name for path in run.checkpoints.iterdir()] == ["step-000008"]


def test_half_written_folders_do_not_count(tiny: Tiny, run: RunFolder) -> None:
    save_checkpoint(run, collect_state(tiny.model, trained(tiny, 1)), progress_at(4), keep=2)
    for name in (".step-000009.writing", ".step-000002.gone", ".step-000004.old", "step-000005.tmp"):
        (run.checkpoints / name).mkdir()
        (run.checkpoints / name / "state.json").write_text("{")
    (run.checkpoints / "step-000011").write_text("a file")
    assert run.steps() == [4]


def test_writing_again_over_what_a_crash_left(tiny: Tiny, run: RunFolder) -> None:
    """Killed while writing step 3 and while pruning step 1: both happen again."""
    optimizer = trained(tiny, 1)
    for name in (".step-000003.writing", ".step-000001.gone"):
        (run.checkpoints / name).mkdir()
        (run.checkpoints / name / "state.json").write_text("{")
    for step in (1, 2, 3):
        save_checkpoint(run, collect_state(tiny.model, optimizer), progress_at(step, best_step=3), keep=1)
    assert run.steps() == [3]
    restore_weights(run, 3, tiny.model)


@pytest.mark.parametrize("name", ["state.safetensors", "state.json", "checksums.json"])
@pytest.mark.parametrize("damage", ["cut", "gone", "empty"])
def test_damage_is_named(name: str, damage: str, tiny: Tiny, run: RunFolder) -> None:
    optimizer = trained(tiny, 1)
    save_checkpoint(run, collect_state(tiny.model, optimizer), progress_at(4), keep=2)
    path = run.checkpoint(4) / name
    content = path.read_bytes()
    path.unlink()
    if damage != "gone":
        path.write_bytes(content[: len(content) // 2] if damage == "cut" else b"")
    with pytest.raises(WarmlineError, match=rf"step-000004: damaged checkpoint \({name}: .*\); remove it to resume from the beg") as caught:
        restore_checkpoint(run, 4, tiny.model, optimizer)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["{}", "[]", '{"progress": {}, "optimizer": {}}'])
def test_json_of_another_shape_is_damage_too(content: str, tiny: Tiny, run: RunFolder) -> None:
    optimizer = trained(tiny, 1)
    save_checkpoint(run, collect_state(tiny.model, optimizer), progress_at(4), keep=2)
    folder = run.checkpoint(4)
    (folder / "state.json").write_text(content)
    (folder / "checksums.json").write_text(
        json.dumps({"run_id": None, "sha256": {name: sha256_of(folder / name) for name in ("state.safetensors", "state.json")}})
    )
    with pytest.raises(WarmlineError, match=r"step-000004: damaged checkpoint \(state.json: .*") as caught:
        restore_checkpoint(run, 4, tiny.model, optimizer)
    assert "\n" not in str(caught.value)


def test_a_flipped_bit_is_named(tiny: Tiny, run: RunFolder) -> None:
    optimizer = trained(tiny, 1)
    for step in (2, 4):
        save_checkpoint(run, collect_state(tiny.model, optimizer), progress_at(step), keep=2)
    path = run.checkpoint(4) / "state.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 4
    path.write_bytes(content)
    says = r"step-000004: damaged checkpoint \(state.safetensors: its sha256 is not .*; remove it to resume from the one before, step 2$"
    with pytest.raises(WarmlineError, match=says):
        restore_checkpoint(run, 4, tiny.model, optimizer)
    restore_checkpoint(run, 2, tiny.model, optimizer)


def test_a_checkpoint_of_another_step_or_run_is_refused(tiny: Tiny, run: RunFolder, tmp_path: Path) -> None:
    optimizer = trained(tiny, 1)
    other = RunFolder(tmp_path / "other")
    for folder, name in ((run, "one"), (other, "two")):
        folder.create()
        write_json(folder.manifest, {"id": name})
        for step in (2, 4):
            save_checkpoint(folder, collect_state(tiny.model, optimizer), progress_at(step), keep=2)
    for source, says in ((run.checkpoint(2), "state.json is of step 2"), (other.checkpoint(4), "another run wrote it")):
        shutil.rmtree(run.checkpoint(4))
        shutil.copytree(source, run.checkpoint(4))
        with pytest.raises(WarmlineError, match=rf"step-000004: damaged checkpoint \({says}\)"):
            restore_checkpoint(run, 4, tiny.model, optimizer)


def test_of_another_adapter(tiny: Tiny, run: RunFolder, tiny_config: ConfigFactory, tmp_path: Path) -> None:
    save_checkpoint(run, collect_state(tiny.model, trained(tiny, 1)), progress_at(4), keep=2)
    other = build_model(tiny_config(tmp_path, lora={"r": 2}), CPU.device, CPU.dtype)
    with pytest.raises(WarmlineError, match=r"step-000004: the checkpoint is of another model or adapter"):
        restore_weights(run, 4, other)


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), SafetensorError("I/O error: No space left on device (os error 28)")]
)
def test_full_disk_leaves_the_old_checkpoint(error: Exception, tiny: Tiny, run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    optimizer = trained(tiny, 1)
    save_checkpoint(run, collect_state(tiny.model, optimizer), progress_at(4), keep=1)
    before = {path.name: path.read_bytes() for path in run.checkpoint(4).iterdir()}

    def full(*_: Any) -> None:
        raise error

    monkeypatch.setattr(checkpoint, "save_file", full)
    for step in (4, 5):
        with pytest.raises(WarmlineError, match=rf"step-00000{step}: cannot be written .*No space left") as caught:
            save_checkpoint(run, collect_state(tiny.model, optimizer), progress_at(step), keep=1)
        assert "\n" not in str(caught.value)
    assert [path.name for path in run.checkpoints.iterdir()] == ["step-000004"]
    assert {path.name: path.read_bytes() for path in run.checkpoint(4).iterdir()} == before


def test_metrics_are_cut_back(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"kind": "train", "step": step}) + "\n" for step in (0, 1, 2, 3)]
    path.write_text("".join(lines) + '{"kind": "tra')
    keep_metrics(path, upto=2)
    assert path.read_text() == "".join(lines[:3])
    keep_metrics(path, upto=-1)
    assert path.read_text() == ""
    keep_metrics(tmp_path / "absent.jsonl", upto=2)


def interrupted_config(tiny_config: ConfigFactory, folder: Path, optimizer: str) -> RunConfig:
    return tiny_config(
        folder,
        lora={"dropout": 0.1},
        data={"row_tokens": 256},
        training={"max_steps": 36, "early_stop": 50, "optimizer": optimizer},
        validation={"every": 10, "conversations": 3},
        checkpoint={"every": 3},
    )


def test_every_weight_in_half_precision_goes_on_to_the_last_bit(tiny_config: ConfigFactory, tmp_path: Path) -> None:
    """What is trained is the fp32 weights; those that the model shows are their rounding, and not enough to go on from."""
    options = {"max_steps": 4, "learning_rate": 1e-4, "precision": "bf16"}
    config = tiny_config(tmp_path, lora=None, training=options, checkpoint={"every": 2})
    run = quiet_train(config)
    whole, state = weights_hash(run, config), load_file(run.checkpoint(4) / "state.safetensors")
    masters = torch.cat([tensor for name, tensor in state.items() if name.startswith("master.")])
    assert not torch.equal(masters, masters.bfloat16().float())
    shutil.rmtree(run.checkpoint(4))
    run.heads_description.unlink()
    quiet_train(config, resume=True)
    assert weights_hash(run, config) == whole
    again = load_file(run.checkpoint(4) / "state.safetensors")
    assert all(torch.equal(tensor, again[name]) for name, tensor in state.items())


def lines_in(run: RunFolder) -> int:
    return run.metrics.read_bytes().count(b"\n") if run.metrics.exists() else 0


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_killed_again_and_again(optimizer: str, tiny_config: ConfigFactory, tmp_path: Path) -> None:
    whole = quiet_train(interrupted_config(tiny_config, tmp_path / "whole", optimizer))
    config = interrupted_config(tiny_config, tmp_path / "killed", optimizer)
    run = RunFolder(config.output_dir / config.name)
    chance = random.Random(5)
    for resume, upto in ((False, chance.randint(1, 8)), (True, chance.randint(12, 18)), (True, chance.randint(24, 34))):
        process = start_training(config, resume=resume)
        while lines_in(run) < upto and process.is_alive():
            time.sleep(0.002)
        time.sleep(chance.random() / 20)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert not run.heads_description.exists()
    process = start_training(config, resume=True)
    process.join()
    assert process.exitcode == 0
    assert metrics(run) == metrics(whole)
    mine, other = read_json(run.heads_description), read_json(whole.heads_description)
    assert (mine["weights_sha256"], mine["heads_sha256"]) == (other["weights_sha256"], other["heads_sha256"])
    assert run.steps() == whole.steps()


@pytest.mark.slow
def test_killed_while_saving_the_artefact(tiny_config: ConfigFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All steps done, the artefact not: the run counts as unfinished and resuming writes it."""
    config = tiny_config(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("warmline.model.artifacts.as_safetensors", interrupt)
        with pytest.raises(KeyboardInterrupt):
            quiet_train(config)
    run = RunFolder(config.output_dir / config.name)
    with pytest.raises(WarmlineError, match="has not finished"):
        RunFolder.open(run.path)
    before = metrics(run)
    quiet_train(config, resume=True)
    assert metrics(RunFolder.open(run.path)) == before


def interrupt(*_: Any) -> None:
    raise KeyboardInterrupt
