"""Both backends on a GPU against fp32 on the CPU: losses, head logits, gradients, self-check, planted faults, generation, the artefact.

Each library runs in a process of its own (`backends.py`), all at once. The bound of bf16 noise is measured, not chosen: the error of plain
transformers + PEFT in bf16 against the same weights in fp32. A backend may have at most twice that.

    pytest -m gpu tests/model/test_backends_on_gpu.py -s      # -s prints the numbers
"""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.model import backends
from tests.tools import architecture, perturb
from warmline.bench.workload import write_random_model
from warmline.model.artifacts import build_model

ROOT = Path(__file__).parents[2]
TIMEOUT = 200
WITHIN = 2.0
"""Times the error of plain transformers in bf16."""

QUANTITIES = ("lm", "emotion loss", "strategy loss", "safety", "emotion logits", "strategy logits", "gradients")
pytestmark = pytest.mark.gpu


class Result(NamedTuple):
    """What one variant wrote and said."""

    tensors: dict[str, Tensor]
    said: dict[str, Any]


class Results(NamedTuple):
    folder: Path
    variants: dict[str, Result]
    failed: dict[str, str]

    def __getitem__(self, name: str) -> Result:
        task = next(task for task, variants in backends.TASKS.items() if name in [variant.name for variant in variants])
        if task in self.failed:
            pytest.fail(f"{task}: {self.failed[task]}")
        if name not in self.variants:
            pytest.skip("unsloth is not installed")
        return self.variants[name]

    def errors(self, name: str) -> dict[str, float]:
        """Of each quantity: root mean square error against fp32, as a share of the reference's root mean square."""
        precision = name.rpartition("-")[2]
        found, exact = _quantities(self[name].tensors), _quantities(self[f"reference-{precision}"].tensors)
        return {key: float((found[key] - exact[key]).norm() / exact[key].norm()) for key in QUANTITIES}


def _quantities(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    losses = tensors["losses"].double()
    values = [*losses.unbind(1), tensors["emotion"], tensors["strategy"], tensors["gradients"]]
    return {name: value.double() for name, value in zip(QUANTITIES, values, strict=True)}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp("backends")
    config = architecture(
        hidden_size=256, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, head_dim=64,
        max_position_embeddings=backends.ROW_TOKENS, tie_word_embeddings=False, dtype="bfloat16",
    )  # fmt: skip
    write_random_model(config, folder / "model")
    model = build_model(backends.run_config(folder, backends.TASKS["reference"][0]), torch.device("cpu"), torch.float32)
    perturb(model, 0.05)
    model.backbone.save(folder / "adapter")
    save_file(model.heads.state_dict(), folder / "heads.safetensors")
    tasks = [task for task in backends.TASKS if not task.startswith("unsloth") or find_spec("unsloth") is not None]
    started = {task: _start(task, folder) for task in tasks}
    variants: dict[str, Result] = {}
    failed = {}
    for task, process in started.items():
        try:
            out, err = process.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            failed[task] = f"no result after {TIMEOUT} s: {process.communicate()[1][-1500:]}"
            continue
        lines = [line for line in out.splitlines() if line.startswith("{")]
        if process.returncode or not lines:
            failed[task] = err[-3000:]
            print(f"{task} failed:\n{err[-3000:]}")
            continue
        said = json.loads(lines[-1])
        print(lines[-1])
        for variant in backends.TASKS[task]:
            variants[variant.name] = Result(load_file(folder / f"{variant.name}.safetensors"), said[variant.name])
    return Results(folder, variants, failed)


def _start(task: str, folder: Path) -> "subprocess.Popen[str]":
    cache = folder / f"cache-{task}"
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "4",
        "TOKENIZERS_PARALLELISM": "false",
        "WARMLINE_CACHE": str(cache),
        "UNSLOTH_COMPILE_LOCATION": str(cache / "unsloth"),
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, "-m", "tests.model.backends", json.dumps({"task": task, "folder": str(folder), "out": str(folder)})]
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


COMPARED = ["fused-bf16", "fused-nf4", "unsloth-bf16", "unsloth-nf4"]
ON_GPU = ["plain-bf16", "plain-nf4", *COMPARED]


@pytest.mark.parametrize("name", COMPARED)
def test_agrees_with_fp32_as_plain_transformers_does(name: str, results: Results) -> None:
    plain = results.errors(f"plain-{name.rpartition('-')[2]}")
    found = results.errors(name)
    table = {key: [f"{plain[key]:.2e}", f"{found[key]:.2e}", round(found[key] / plain[key], 2)] for key in QUANTITIES}
    print(json.dumps({name: table}))
    assert torch.equal(results[name].tensors["tokens"], results["reference-bf16"].tensors["tokens"])
    assert {key: value for key, value in found.items() if not value <= WITHIN * plain[key]} == {}, table


@pytest.mark.parametrize("name", ON_GPU)
def test_self_check_passes(name: str, results: Results) -> None:
    lines = results[name].said["self_check"]
    assert isinstance(lines, list), lines
    assert len(lines) == 7


@pytest.mark.parametrize("name", ON_GPU)
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("bidirectional", "attention is not causal"),
        ("leak", "packing leaks"),
        ("cut", "no gradient reaches the tuned weights"),
    ],
)
def test_self_check_names_the_fault(fault: str, message: str, name: str, results: Results) -> None:
    said = results[name].said["faults"][fault]
    assert isinstance(said, str), f"passed with the fault: {said}"
    assert message in said


@pytest.mark.parametrize("name", ON_GPU)
def test_generates_and_trains_on(name: str, results: Results) -> None:
    said = results[name].said["generation"]
    for who in ("tuned", "base"):
        assert len(said[who]["replies"]) == 3
        assert said[who]["first_token_gap_in_sd"] < 0.1
    assert said["training"]
    assert said["gradient_gap"] < 0.02
    if name.startswith("unsloth"):
        assert said["recomputes"]


@pytest.mark.parametrize("precision", ["bf16", "nf4"])
def test_what_unsloth_trained_loads_without_it(precision: str, results: Results) -> None:
    """Plain PEFT on the CPU gives the head logits that Unsloth gave after its step, within the same noise."""
    name = f"unsloth-{precision}"
    saved, original = results.folder / name, results.folder / "adapter"
    stepped = results[name].tensors["stepped"].double()
    assert sorted(path.name for path in saved.iterdir()) == sorted(path.name for path in original.iterdir())
    assert "unsloth" not in (saved / "adapter_config.json").read_text().lower()
    ours, theirs = load_file(original / "adapter_model.safetensors"), load_file(saved / "adapter_model.safetensors")
    assert {key: (value.shape, value.dtype) for key, value in ours.items()} == {
        key: (value.shape, value.dtype) for key, value in theirs.items()
    }
    assert not all(torch.equal(ours[key], theirs[key]) for key in ours)
    exact = backends.first_logits(results.folder, f"reference-{precision}", saved)
    plain = backends.first_logits(results.folder, f"reference-{precision}", original)
    error = float((stepped - exact).norm() / exact.norm())
    print(json.dumps({name: {"saved adapter, error": error, "moved by the step": float((plain - exact).norm() / exact.norm())}}))
    allowed = WITHIN * results.errors(f"plain-{precision}")["emotion logits"]
    assert error <= allowed
    assert float((plain - exact).norm() / exact.norm()) > allowed
