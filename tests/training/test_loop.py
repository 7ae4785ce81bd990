"""The loop: whole-step denominators however the step is cut, one forward a backward, what it refuses and how it ends."""

import errno
import io
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from rich.console import Console
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import Qwen3Config

import warmline
from tests.conftest import ConfigFactory
from tests.reference.objectives import plain_loss
from tests.tools import CPU, gradients, metrics, quiet_train, write_architecture
from warmline import runs
from warmline.config import RunConfig, dump_config
from warmline.data.encoding import encode_split
from warmline.data.mixture import Draw
from warmline.data.packing import Batch, RowPacker
from warmline.data.template import ChatTemplate
from warmline.errors import WarmlineError
from warmline.model.artifacts import load_artifact
from warmline.model.backbone import Sampling
from warmline.model.base import load_tokenizer
from warmline.model.description import weights_hash
from warmline.model.multitask import MultiTaskModel
from warmline.runs import RunFolder, read_json, write_json
from warmline.training.loop import _Training, train
from warmline.training.manifest import make_manifest
from warmline.training.optimizer import rate_factor
from warmline.training.plan import choose_way
from warmline.training.validation import Validator
from warmline.training.view import View

NO_DROPOUT = {"emotion": {"dropout": 0.0}, "strategy": {"dropout": 0.0}}


class Keeper:
    """Stands for the optimiser and keeps the gradients that it is given."""

    def __init__(self, model: MultiTaskModel) -> None:
        self.model = model
        self.inner = self
        self.kept: dict[str, Tensor] = {}

    def collect(self) -> None:
        self.kept = gradients(self.model)

    def clip(self, max_norm: float) -> Tensor:
        return torch.tensor(max_norm)

    def step(self, scaler: torch.amp.GradScaler) -> None:
        self.model.zero_grad()


def begin(config: RunConfig) -> _Training:
    run = RunFolder(config.output_dir / config.name)
    run.create()
    way = choose_way(config, CPU)
    now = make_manifest(config, CPU, 1, way.choice)
    write_json(run.manifest, now)
    return _Training(config, run, Accelerator(cpu=True), CPU, way, now, View(quiet=True))


@pytest.fixture
def cut(tiny_config: ConfigFactory, tmp_path: Path) -> Any:
    """A run of eight rows a step, cut into micro-batches as asked."""

    def make(size: int, accumulation: int, **training: Any) -> _Training:
        steps = {"rows_per_micro_batch": size, "accumulation": accumulation, "max_grad_norm": 1e9, **training}
        return begin(tiny_config(tmp_path, data={"row_tokens": 256}, heads=NO_DROPOUT, training=steps))

    return make


def test_cut_of_the_step_does_not_matter(cut: Any) -> None:
    """1x8, 2x4 and 8x1 give one gradient: that of the plain formula over the step's conversations."""
    found: list[dict[str, Tensor]] = []
    for size, accumulation in ((1, 8), (2, 4), (8, 1)):
        training = cut(size, accumulation)
        with torch.no_grad():
            for name, parameter in training.model.backbone.named_parameters():
                if "lora_B" in name:
                    parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))) / 10)
            for parameter in training.model.heads.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) / 10)
        training.optimizer = Keeper(training.model)
        rows = [training.packer.row() for _ in range(training.plan.rows_per_step)]
        result = training._accumulate(rows)
        assert len(rows) == 8
        assert min(result.counts.values()) > 0
        found.append(training.optimizer.kept)
    model = training.model.eval()
    plain_loss(model, training.sources, [draw for row in rows for draw in row], training.config.loss).backward()
    found.append(gradients(model))
    scale = max(float(gradient.abs().max()) for gradient in found[0].values())
    for other in found[1:]:
        for name, gradient in found[0].items():
            torch.testing.assert_close(gradient, other[name], rtol=0, atol=2e-6 * scale, msg=name)


def test_cut_of_the_step_does_not_matter_to_training(cut: Any) -> None:
    lines = []
    for size, accumulation in ((1, 8), (8, 1)):
        training = cut(size, accumulation)
        for _ in range(3):
            training._one_step()
        lines.append(metrics(training.run, "train"))
        training.run.metrics.unlink()
    for one, other in zip(*lines, strict=True):
        for key in ("loss", "lm", "emotion", "strategy", "grad_norm"):
            assert one[key] == pytest.approx(other[key], rel=1e-4), key
        assert one["counts"] == other["counts"]
        assert one["learning_rate"] == other["learning_rate"]


def test_one_gradient_forward_a_backward(cut: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    training: _Training = cut(2, 4)
    forwards, through, backwards = [], [], []
    training.model.backbone.model.get_base_model().get_decoder().register_forward_pre_hook(
        lambda *_: forwards.append(torch.is_grad_enabled())
    )
    training.wrapped.register_forward_pre_hook(lambda *_: through.append(True))
    original = torch.autograd.backward
    monkeypatch.setattr(torch.autograd, "backward", lambda loss: (backwards.append(True), original(loss)))
    rows = [training.packer.row() for _ in range(8)]
    result = training._accumulate(rows)
    assert result.counts["safety"] > 0
    assert forwards == [True] * 4
    assert len(through) == len(backwards) == 4


def test_gradients_are_cleared_and_weights_move(cut: Any) -> None:
    training: _Training = cut(1, 2)
    before = {name: parameter.clone() for name, parameter in training.model.named_parameters()}
    training._one_step()
    moved = {name for name, parameter in training.model.named_parameters() if not torch.equal(parameter, before[name])}
    trained = {name for name, parameter in training.model.named_parameters() if parameter.requires_grad}
    assert moved <= trained
    assert any("lora_B" in name for name in moved)
    assert any(name.startswith("heads.emotion") for name in moved)
    assert all(parameter.grad is None for parameter in training.model.parameters())


def test_clips_the_norm(cut: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    training: _Training = cut(1, 2, max_grad_norm=1e-3)
    norms = []

    def keep_norm() -> None:
        tensors = [tensor for group in training.optimizer.inner.param_groups for tensor in group["params"]]
        norms.append(float(torch.stack([tensor.grad.square().sum() for tensor in tensors]).sum().sqrt()))

    monkeypatch.setattr(training.optimizer.inner, "step", keep_norm)
    result = training._accumulate([training.packer.row() for _ in range(2)])
    assert result.grad_norm > 1e-3
    assert norms == [pytest.approx(1e-3, rel=1e-3)]


def test_metrics_say_what_happened(finished: RunFolder) -> None:
    config, *_ = load_artifact(finished, CPU.device, CPU.dtype)
    lines = metrics(finished)
    assert [(line["kind"], line["step"]) for line in lines if line["kind"] == "validation"] == [("validation", at) for at in (0, 6, 12)]
    train = metrics(finished, "train")
    for at, line in enumerate(train):
        assert line["learning_rate"] == pytest.approx(rate_factor(at, 12, config.training) * 1e-2)
        assert line["loss"] == pytest.approx(sum(line["weighted"].values()))
        for name, value in line["weighted"].items():
            assert value == pytest.approx(getattr(config.loss, name) * line[name])
        assert sum(line["shares"].values()) == pytest.approx(1)
        assert (line["safety"] is None) == (line["counts"]["safety"] == 0)
    assert train[-1]["lm"] < train[0]["lm"]
    manifest = read_json(finished.manifest)
    assert (manifest["dtype"], manifest["ranks"], manifest["seed"]) == ("float32", 1, 13)
    assert all(len(digest) == 64 for digest in manifest["data_sha256"].values())


def scripted(monkeypatch: pytest.MonkeyPatch, *values: float) -> None:
    """Validation gives these values, one after the other."""
    remaining: Iterator[float] = iter(values)
    monkeypatch.setattr(Validator, "value", lambda self, scores: next(remaining))


@pytest.mark.slow
def test_stops_early_and_saves_the_best(tiny_config: ConfigFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(tmp_path, training={"max_steps": 40, "early_stop": 2}, validation={"every": 2}, checkpoint={"every": 1, "keep": 1})
    scripted(monkeypatch, 9.0, 5.0, 3.0, 4.0, 3.5)
    run = quiet_train(config)
    assert metrics(run, "train")[-1]["step"] == 8
    assert run.steps() == [4, 8]
    assert read_json(run.heads_description)["step"] == 4
    saved = {name: tensor for name, tensor in load_file(run.checkpoint(4) / "state.safetensors").items() if "lora_" in name}
    adapter = load_file(run.path / "adapter" / "adapter_model.safetensors")
    heads = load_file(run.heads)
    for name, tensor in saved.items():
        assert torch.equal(tensor, adapter[name.removeprefix("model.backbone.model.").replace(".default", "")])
    kept = load_file(run.checkpoint(4) / "state.safetensors")
    assert len(saved) == len(adapter)
    assert all(torch.equal(tensor, kept[f"model.heads.{name}"]) for name, tensor in heads.items())
    newest = load_file(run.checkpoint(8) / "state.safetensors")
    assert not all(torch.equal(tensor, newest[name]) for name, tensor in saved.items())
    again = quiet_train(config, resume=True)  # stays stopped
    assert metrics(again, "train")[-1]["step"] == 8


@pytest.mark.slow
def test_an_early_stop_is_said_and_comes_where_it_would_have_come_after_a_resume(
    tiny_config: ConfigFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(tmp_path, training={"max_steps": 40, "early_stop": 2}, validation={"every": 2}, checkpoint={"every": 1, "keep": 3})
    scripted(monkeypatch, 9.0, 3.0, 4.0, 3.5)
    run = quiet_train(config)
    before = metrics(run)
    assert run.steps() == [2, 4, 5, 6]
    for step in (5, 6):
        shutil.rmtree(run.checkpoint(step))
    run.heads_description.unlink()
    scripted(monkeypatch, 3.5)
    console = Console(width=300, file=io.StringIO())
    with console.capture() as capture:
        train(config, resume=True, view=View(console=console))
    assert metrics(run) == before
    assert read_json(run.heads_description)["step"] == 2
    said = "stopped early after step 6 of 40: 2 validations in a row brought no lower total loss; best validation at step 2"
    assert f"done: {said}" in capture.get()


def test_untrained_is_best(tiny_config: ConfigFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When no validation beats the one before step 1, as with the KL, the run still ends with an artefact that loads."""
    scripted(monkeypatch, 1.0, 2.0, 3.0)
    run = quiet_train(tiny_config(tmp_path, training={"max_steps": 2}, validation={"every": 1}))
    load_artifact(RunFolder.open(run.path), CPU.device, CPU.dtype)


def test_the_last_step_is_kept_when_asked(tiny_config: ConfigFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, 1.0, 2.0, 3.0, 4.0, 5.0)
    run = quiet_train(tiny_config(tmp_path, training={"max_steps": 4}, validation={"every": 1, "artifact": "last"}, checkpoint={"keep": 4}))
    assert read_json(run.heads_description)["step"] == 4
    heads = load_file(run.heads)
    for step, same in ((1, False), (4, True)):
        saved = load_file(run.checkpoint(step) / "state.safetensors")
        assert all(torch.equal(tensor, saved[f"model.heads.{name}"]) for name, tensor in heads.items()) == same


def test_metric_without_targets_is_refused(tiny_config: ConfigFactory, tmp_path: Path) -> None:
    config = tiny_config(tmp_path, data={"sources": {"safety": {"enabled": False}}}, validation={"metric": "safety"})
    with pytest.raises(WarmlineError, match=r"validation\.metric"):
        quiet_train(config)


@pytest.mark.parametrize("steps", [2, 5])
def test_lost_numbers_stop_the_run(steps: int, tiny_config: ConfigFactory, tmp_path: Path) -> None:
    config = tiny_config(tmp_path, training={"max_steps": steps, "learning_rate": 1e30})
    with pytest.raises(WarmlineError, match=r"is not a number; lower training\.learning_rate") as caught:
        quiet_train(config)
    assert "\n" not in str(caught.value)
    text = RunFolder(config.output_dir / config.name).metrics.read_text()
    assert "NaN" not in text
    assert "Infinity" not in text


def test_another_configuration_is_refused(finished: RunFolder, tiny_config: ConfigFactory) -> None:
    before = finished.config.read_bytes()
    config, *_ = load_artifact(finished, CPU.device, CPU.dtype)
    changed = config.model_copy(update={"training": config.training.model_copy(update={"learning_rate": 5e-4})})
    with pytest.raises(WarmlineError, match=r"the configuration differs from the run's at `training\.learning_rate`"):
        quiet_train(changed, resume=True)
    without = config.model_copy(update={"lora": None})
    with pytest.raises(WarmlineError, match=r"differs from the run's at `lora"):
        quiet_train(without, resume=True)
    assert finished.config.read_bytes() == before


def test_existing_run_is_refused(finished: RunFolder) -> None:
    config, *_ = load_artifact(finished, CPU.device, CPU.dtype)
    hashed = weights_hash(finished, config)
    with pytest.raises(WarmlineError, match="this run exists; --resume goes on with it, --overwrite removes it"):
        quiet_train(config)
    assert weights_hash(finished, config) == hashed


def test_overwrite_starts_anew(tiny_config: ConfigFactory, tmp_path: Path) -> None:
    config = tiny_config(tmp_path, training={"max_steps": 1})
    run = RunFolder(config.output_dir / config.name)
    run.create()
    run.config.write_text(dump_config(config))
    (run.path / "left.txt").write_text("old")
    quiet_train(config, overwrite=True)
    assert not (run.path / "left.txt").exists()
    assert len(metrics(run, "train")) == 1


def test_another_precision_in_the_same_process(tiny_config: ConfigFactory, tmp_path: Path) -> None:
    """As a notebook does, or a study with several runs."""
    for precision in ("fp32", "bf16", "fp32"):
        training = {"max_steps": 1, "precision": precision}
        run = quiet_train(tiny_config(tmp_path, name=precision, training=training, validation={"conversations": 2}), overwrite=True)
        assert metrics(run, "validation")[0]["safety"] == 0.0
        assert read_json(run.manifest)["dtype"] == {"fp32": "float32", "bf16": "bfloat16"}[precision]


def test_resume_of_nothing_starts(tiny_config: ConfigFactory, tmp_path: Path) -> None:
    run = quiet_train(tiny_config(tmp_path, training={"max_steps": 1}), resume=True)
    assert len(metrics(run, "train")) == 1


def test_damaged_newest_checkpoint_stops_a_resume(finished_copy: RunFolder, tmp_path: Path) -> None:
    config, *_ = load_artifact(finished_copy, CPU.device, CPU.dtype)
    moved = config.model_copy(update={"output_dir": finished_copy.path.parent, "name": finished_copy.path.name})
    finished_copy.config.write_text(dump_config(moved))
    path = finished_copy.checkpoint(12) / "state.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WarmlineError, match=r"step-000012: damaged checkpoint .*; remove it to resume from the one before, step 6"):
        quiet_train(moved, resume=True)


def test_a_base_too_large_for_a_cpu_is_refused_before_anything_is_made(
    tiny_config: ConfigFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("warmline.training.plan.MOST_ON_CPU", 1000)
    with pytest.raises(WarmlineError, match=r"^model\.name: `[^`]+` has 0\.0 billion parameters and there is no CUDA GPU here"):
        quiet_train(tiny_config(tmp_path))
    assert not list(tmp_path.iterdir())


def test_output_folder_that_cannot_be_made(tiny_config: ConfigFactory, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WarmlineError, match=r"cannot write the run folder \(Not a directory\); choose another output_dir"):
        quiet_train(tiny_config(tmp_path / "file"))


def test_read_only_output_folder(tiny_config: ConfigFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, *_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(WarmlineError, match=r"cannot write the run folder \(Read-only file system\)"):
        quiet_train(tiny_config(tmp_path))


def no_space(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def no_space_safetensors(*_: Any, **__: Any) -> None:
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize("what", ["metrics", "checkpoint", "heads", "adapter", "curves"])
def test_full_disk(what: str, tiny_config: ConfigFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the disk fills, one line says so, and resuming later ends the run."""
    config = tiny_config(tmp_path, training={"max_steps": 2}, validation={"conversations": 2})
    written = runs._write_new
    with monkeypatch.context() as patch:
        if what == "metrics":
            patch.setattr("warmline.training.loop.append_text", no_space)
        elif what == "checkpoint":
            patch.setattr("warmline.training.checkpoint.save_file", no_space_safetensors)
        elif what == "heads":
            patch.setattr("warmline.runs._write_new", lambda path, content: no_space() if "heads" in path.name else written(path, content))
        elif what == "adapter":
            patch.setattr("warmline.model.transformers_backbone.TransformersBackbone.save", no_space)
        else:
            patch.setattr("warmline.runs._write_new", lambda path, content: no_space() if ".png" in path.name else written(path, content))
        with pytest.raises(WarmlineError, match=r"cannot be written .*No space left") as caught:
            quiet_train(config)
    assert "\n" not in str(caught.value)
    run = quiet_train(config, resume=True)
    load_artifact(RunFolder.open(run.path), CPU.device, CPU.dtype)
    assert run.curves.exists()


@pytest.mark.slow
def test_safety_weight_holds_the_base(tiny_config: ConfigFactory, tmp_path: Path) -> None:
    drift = {}
    for weight in (0.0, 1.0):
        config = tiny_config(
            tmp_path,
            name=f"safety-{weight:.0f}",
            loss={"safety": weight, "lm": 0.1},
            training={"max_steps": 30, "rows_per_micro_batch": 2},
            validation={"every": 30, "conversations": 25},
            checkpoint={"every": 30},
        )
        drift[weight] = metrics(quiet_train(config), "validation")[-1]["safety"]
    assert 0 < drift[1.0] < 0.8 * drift[0.0]


@pytest.mark.slow(16)
@pytest.mark.parametrize("sharding", ["never", "always"])
def test_two_ranks_equal_one(sharding: str, tiny_config: ConfigFactory, tmp_path: Path) -> None:
    """Two processes of one row each, with whole or with spread layers, and one process of two rows make the same steps."""

    def config(name: str, accumulation: int) -> RunConfig:
        ranks = 2 // accumulation
        steps = {"max_steps": 4, "accumulation": accumulation, "learning_rate": 1e-3, "sharding": sharding if ranks == 2 else "never"}
        return tiny_config(tmp_path, name=name, heads=NO_DROPOUT, data={"row_tokens": 256}, training=steps)

    path = tmp_path / "config.yaml"
    path.write_text(dump_config(config("two", 1)))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port), "-m", "warmline", "train"]
    done = subprocess.run([sys.executable, *launch, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    two = RunFolder.open(tmp_path / "two")
    one = quiet_train(config("one", 2))
    assert read_json(two.manifest)["ranks"] == 2
    assert ("spread" in read_json(two.plan)["backend_reason"]) is (sharding == "always")
    assert [line["kind"] for line in metrics(one)] == [line["kind"] for line in metrics(two)]
    for mine, other in zip(metrics(one), metrics(two), strict=True):
        for key in ("loss", "total", "lm", "emotion", "strategy", "task_kl", "grad_norm"):
            if mine.get(key) is not None:
                assert mine[key] == pytest.approx(other[key], rel=1e-4, abs=1e-7), key
        assert mine.get("counts") == other.get("counts")
    weights = [load_file(run.path / "adapter" / "adapter_model.safetensors") for run in (one, two)]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], rtol=0, atol=1e-4, msg=name)
    assert max(float(tensor.abs().max()) for name, tensor in weights[0].items() if "lora_B" in name) > 1e-3


@pytest.mark.slow(200)
def test_official_data_with_the_real_tokenizer(
    shared: Path, tiny_config: ConfigFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """60 steps over all four sources: the mixture delivers its shares, no row is cut, rows are full."""
    folder = write_architecture(
        tmp_path / "model",
        Qwen3Config(
            vocab_size=151936, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            head_dim=8, max_position_embeddings=4096, tie_word_embeddings=True,
        ),
        shared / "models" / "qwen3-tokenizer",
    )  # fmt: skip
    rows: list[list[Draw]] = []
    forwards: list[tuple[int, int, int]] = []
    original_row, original_states = RowPacker.row, MultiTaskModel.states

    def row(self: RowPacker) -> tuple[Draw, ...]:
        rows.append(list(original_row(self)))
        return tuple(rows[-1])

    def states(self: MultiTaskModel, batch: Batch) -> Tensor:
        found = original_states(self, batch)
        if torch.is_grad_enabled() and self.training:
            forwards.append((len(batch.bounds) - 1, len(batch.tokens), len(found)))
        return found

    monkeypatch.setattr(RowPacker, "row", row)
    monkeypatch.setattr(MultiTaskModel, "states", states)
    config = tiny_config(
        tmp_path,
        model={"name": str(folder)},
        data={"dir": str(shared / "data"), "row_tokens": 2048},
        training={"max_steps": 60, "learning_rate": 1e-3},
        validation={"every": 60, "conversations": 2},
        checkpoint={"every": 60},
    )
    run = quiet_train(config)
    plan, template = read_json(run.plan), ChatTemplate(load_tokenizer(config.model))
    lengths = [source.lengths for source in encode_split("train", config.data, template)]
    assert rows[:60] == rows[60:]  # the plan drew the rows that the run then trained on
    whole = [sum(int(lengths[draw.source][draw.conversation]) for draw in row) for row in rows[60:]]
    assert forwards == [(len(row), tokens, tokens) for row, tokens in zip(rows[60:], whole, strict=True)]
    assert max(whole) <= 2048
    assert min(whole) >= 0.97 * 2048
    drawn = np.bincount([draw.source for row in rows[60:] for draw in row], minlength=4)
    roots = np.sqrt(plan["conversations"])
    shares = roots / roots.sum()
    assert plan["probabilities"] == pytest.approx(shares)
    lines = metrics(run, "train")
    assert list(lines[-1]["shares"].values()) == pytest.approx(drawn / drawn.sum())
    assert np.all(np.abs(drawn / drawn.sum() - shares) < 4 * np.sqrt(shares * (1 - shares) / drawn.sum()))
    assert lines[-1]["lm"] < lines[0]["lm"]


@pytest.mark.slow
@pytest.mark.parametrize("kept", [("emotion",), ("strategy",), ()])
def test_a_run_may_go_without_a_head(kept: tuple[str, ...], tiny_config: ConfigFactory, tmp_path: Path) -> None:
    of_sources = {"esconv": {"objectives": ["lm", *({"strategy"} & set(kept))]}, "goemotions": {"enabled": "emotion" in kept}}
    heads = {name: {} if name in kept else None for name in ("emotion", "strategy")}
    run = quiet_train(tiny_config(tmp_path, data={"sources": of_sources}, heads=heads))
    assert read_json(run.heads_description)["reads"].keys() == set(kept)
    assert {name.partition(".")[0] for name in load_file(run.heads)} == set(kept)
    scores = metrics(run, "validation")[-1]
    assert {name for name in ("emotion", "strategy") if name in scores} == set(kept)
    friend, talk = warmline.load(run.path), [{"role": "user", "content": "I finally told my dad. He just hung up."}]
    assert friend.read(talk).keys() == set(kept)
    assert isinstance(friend.reply(talk, Sampling(max_new_tokens=4)), str)


def test_what_failed_before_it_began_is_not_in_the_way(tiny_config: ConfigFactory, tmp_path: Path) -> None:
    words = tmp_path / "words"
    words.mkdir()
    (words / "esconv-train.jsonl").write_text("no line of ours\n", encoding="utf-8")
    with pytest.raises(WarmlineError, match=r"esconv-train\.jsonl:1: "):
        quiet_train(tiny_config(tmp_path, data={"own_words": str(words)}, training={"max_steps": 1}))
    assert quiet_train(tiny_config(tmp_path, training={"max_steps": 1})).heads_description.is_file()
