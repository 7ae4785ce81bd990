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

from tests.conftest import ConfigFactory
from warmline.config import RunConfig, dump_config
from warmline.errors import WarmlineError
from warmline.runs import RunFolder
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


def test_a_killed_run_goes_on(tiny_config: ConfigFactory, tmp_path: Path) -> None:
    whole, cut = small(tiny_config, tmp_path, "whole"), small(tiny_config, tmp_path, "cut")
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
