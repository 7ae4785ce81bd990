"""Whole runs on a CUDA GPU: a killed one goes on, one that does not fit says what would."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import ConfigFactory
from tests.tools import OPTIMIZERS
from warmline.config import RunConfig, dump_config
from warmline.errors import WarmlineError
from warmline.runs import RunFolder, read_json
from warmline.training.loop import train
from warmline.training.view import View

pytestmark = pytest.mark.gpu
STEPS = 60


def start(config: RunConfig, path: Path, *options: str) -> subprocess.Popen[bytes]:
    path.write_text(dump_config(config), encoding="utf-8")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen([sys.executable, "-m", "warmline", "train", str(path), *options], env=environment)


def losses(run: RunFolder) -> dict[int, float]:
    lines = [json.loads(line) for line in run.metrics.read_text(encoding="utf-8").splitlines()]
    return {line["step"]: line["loss"] for line in lines if line["kind"] == "train"}


def small(tiny_config: ConfigFactory, folder: Path, name: str, **sections: Any) -> RunConfig:
    training = {"max_steps": STEPS, "learning_rate": 1e-3}
    return tiny_config(folder, name=name, **{"training": training, "checkpoint": {"every": 4}, "validation": {"every": 100}, **sections})


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_killed_run_goes_on(optimizer: str, tiny_config: ConfigFactory, tmp_path: Path) -> None:
    training = {"max_steps": STEPS, "learning_rate": 1e-3, "optimizer": optimizer}
    whole, cut = (small(tiny_config, tmp_path, name, training=training) for name in ("whole", "cut"))
    uninterrupted = start(whole, tmp_path / "whole.yaml")
    killed = start(cut, tmp_path / "cut.yaml")
    run = RunFolder(tmp_path / "cut")
    deadline = time.monotonic() + 120
    while not run.steps() and time.monotonic() < deadline:
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert run.steps(), "no checkpoint within two minutes"
    assert not run.heads_description.exists(), "the run ended before it was killed: give it more steps"
    assert start(cut, tmp_path / "cut.yaml", "--resume").wait() == 0
    assert uninterrupted.wait() == 0
    expected, found = losses(RunFolder(tmp_path / "whole")), losses(run)
    assert list(found) == list(expected) == list(range(1, STEPS + 1))
    for step, loss in expected.items():
        assert found[step] == pytest.approx(loss, rel=0.02), step


def test_out_of_memory_says_what_would_fit(tiny_config: ConfigFactory, tmp_path: Path) -> None:
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    training = {"rows_per_micro_batch": 256, "max_steps": 1}
    config = small(tiny_config, tmp_path, "large", training=training, data={"row_tokens": 4096}, model={"checkpointing": "none"})
    torch.cuda.set_per_process_memory_fraction(2 * 2**30 / total)
    try:
        with pytest.raises(WarmlineError, match=r"out of GPU memory.*training.rows_per_micro_batch=\d+ data.row_tokens=\d+"):
            train(config, view=View(quiet=True))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.parametrize("sharding", ["never", "always"])
def test_two_gpus_equal_one(sharding: str, tiny_config: ConfigFactory, tmp_path: Path) -> None:
    """In fp32, so that the same gradient means the same curve."""
    if torch.cuda.device_count() < 2:
        pytest.skip("one GPU")
    steps = {"max_steps": 6, "precision": "fp32", "rows_per_micro_batch": 1}
    no_dropout = {"emotion": {"dropout": 0.0}, "strategy": {"dropout": 0.0}}
    one = small(tiny_config, tmp_path, "one", heads=no_dropout, training={**steps, "accumulation": 2})
    two = small(tiny_config, tmp_path, "two", heads=no_dropout, training={**steps, "accumulation": 1, "sharding": sharding})
    (tmp_path / "two.yaml").write_text(dump_config(two), encoding="utf-8")
    command = [
        "-m",
        "accelerate.commands.launch",
        "--multi_gpu",
        "--num_processes",
        "2",
        "-m",
        "warmline",
        "train",
        str(tmp_path / "two.yaml"),
    ]
    both = subprocess.Popen([sys.executable, *command], env={**os.environ, "HF_HUB_OFFLINE": "1"})
    assert start(one, tmp_path / "one.yaml").wait() == 0
    assert both.wait() == 0
    expected, found = RunFolder(tmp_path / "one"), RunFolder(tmp_path / "two")
    assert read_json(found.manifest)["ranks"] == 2
    assert ("spread" in read_json(found.plan)["backend_reason"]) is (sharding == "always")
    assert losses(found) == pytest.approx(losses(expected), rel=1e-3)
    weights = [load_file(run.path / "adapter" / "adapter_model.safetensors") for run in (expected, found)]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], rtol=0, atol=1e-3 * float(tensor.abs().max()), msg=name)
