"""The memory estimate against peaks measured on an H200 (docs/performance.md), and the checkpointing it chooses."""

from pathlib import Path

import pytest
import torch

from warmline.bench.workload import qwen3_8b
from warmline.config import RunConfig, parse_config
from warmline.errors import WarmlineError
from warmline.training.memory import Architecture, choose_checkpointing, estimate_memory, plain_fits, read_architecture, what_would_fit

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("qwen3-8b")
    qwen3_8b().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def sizes() -> Architecture:
    return read_architecture(qwen3_8b())


def config(folder: Path, tokens: int, in_4bit: bool = True, checkpointing: str = "auto") -> RunConfig:
    model = {"name": str(folder), "load_in_4bit": in_4bit, "checkpointing": checkpointing}
    training = {"optimizer": "adamw_8bit", "rows_per_micro_batch": 1}
    return parse_config({"name": "m", "model": model, "training": training, "data": {"row_tokens": tokens}}, "test")


@pytest.mark.parametrize(
    ("in_4bit", "checkpointing", "tokens", "measured"),
    [
        (True, "offload", 8192, 8.56),
        (True, "offload", 4096, 7.46),
        (True, "selective", 8192, 14.88),
        (True, "full", 4096, 8.07),
        (False, "none", 16384, 92.92),
    ],
)
def test_within_ten_per_cent_of_what_was_measured(
    folder: Path, sizes: Architecture, in_4bit: bool, checkpointing: str, tokens: int, measured: float
) -> None:
    estimate = estimate_memory(config(folder, tokens, in_4bit), sizes, True, checkpointing)
    assert sum(estimate.values()) == pytest.approx(measured, rel=0.10)


@pytest.mark.parametrize(("free", "expected"), [(141, "none"), (24, "selective"), (15, "offload"), (9.2, "offload")])
def test_auto_takes_the_fastest_that_fits(folder: Path, free: float, expected: str) -> None:
    assert choose_checkpointing(config(folder, 8192), True, CUDA, free) == expected


def test_auto_says_what_would_help_when_nothing_fits(folder: Path) -> None:
    with pytest.raises(WarmlineError, match=r"6\.0 GiB are free; lower training\.rows_per_micro_batch"):
        choose_checkpointing(config(folder, 8192), True, CUDA, 6.0)


def test_a_named_one_is_kept_and_a_cpu_recomputes_nothing(folder: Path) -> None:
    assert choose_checkpointing(config(folder, 8192, checkpointing="full"), True, CUDA, 1.0) == "full"
    assert choose_checkpointing(config(folder, 8192), False, CPU) == "none"


@pytest.mark.parametrize(("asked", "expected"), [("auto", "offload"), ("full", "offload"), ("selective", "offload"), ("none", "none")])
def test_unsloth_knows_two_ways(folder: Path, asked: str, expected: str) -> None:
    assert choose_checkpointing(config(folder, 8192, checkpointing=asked), True, CUDA, 1.0, "unsloth") == expected


def test_plain_layers_need_more_than_fused_ones(folder: Path) -> None:
    """At least the 10.3 GiB that were measured without fused layers; fused ones with their states in host memory take 8.6."""
    assert plain_fits(config(folder, 8192), True, CUDA, 12.0)
    assert not plain_fits(config(folder, 8192), True, CUDA, 10.3)
    assert choose_checkpointing(config(folder, 8192), True, CUDA, 10.3) == "offload"


def test_sizes_are_those_of_the_published_model(sizes: Architecture) -> None:
    assert sizes.parameters == 8_190_735_360
    assert (sizes.layers, sizes.queries, sizes.keys) == (36, 4096, 1024)


@pytest.mark.parametrize(
    ("total", "expected"),
    [
        (16, "row_tokens=8192 model.checkpointing=selective"),
        (8.0, "row_tokens=4096 model.checkpointing=offload"),
        (5, "no setting of this model fits"),
    ],
)
def test_out_of_memory_names_what_would_fit(folder: Path, total: float, expected: str) -> None:
    assert expected in what_would_fit(config(folder, 8192, checkpointing="none"), True, CUDA, total)
