"""Shared fixtures: a tiny model and tiny runs on the sample data, on one CPU thread, without the network."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tools import CPU, Tiny, write_architecture
from warmline.config import RunConfig, parse_config
from warmline.data.encoding import EncodedSource, encode_split
from warmline.data.template import ChatTemplate
from warmline.model.artifacts import build_model
from warmline.model.transformers_backbone import load_tokenizer
from warmline.runs import RunFolder
from warmline.training.loop import train
from warmline.training.view import View

ConfigFactory = Callable[..., RunConfig]
SHARED = Path(__file__).parents[2] / "shared"


def pytest_configure(config: pytest.Config) -> None:
    if "gpu" not in config.option.markexpr:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # these tests compare to the last bit, on a CPU


@pytest.fixture(scope="session", autouse=True)
def _surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WARMLINE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a two-layer Qwen3 with the nano tokenizer; it has no weights, so it needs `random_init_seed`."""
    return write_architecture(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_config(tiny_model: Path) -> ConfigFactory:
    """`tiny_config(tmp_path, training={"max_steps": 3})`: a run of the tiny model on the sample data, sections merged into it."""

    def make(output_dir: Path, **overrides: Any) -> RunConfig:
        content: dict[str, Any] = {
            "name": "tiny",
            "output_dir": str(output_dir),
            "model": {"name": str(tiny_model), "random_init_seed": 0},
            "lora": {"r": 4, "alpha": 8},
            "data": {"dir": "sample", "row_tokens": 512},
            "training": {"max_steps": 4, "rows_per_micro_batch": 1, "accumulation": 1, "learning_rate": 1e-2},
            "validation": {"every": 4, "conversations": 6},
            "checkpoint": {"every": 4},
        }
        return parse_config(_merged(content, overrides), "tests")

    return make


@pytest.fixture(scope="session")
def sources(tiny_config: ConfigFactory, tmp_path_factory: pytest.TempPathFactory) -> list[EncodedSource]:
    """The sample data's training split, in the order of SOURCES."""
    config = tiny_config(tmp_path_factory.mktemp("unused"))
    return encode_split("train", config.data, ChatTemplate(load_tokenizer(config.model)))


@pytest.fixture
def tiny(tiny_config: ConfigFactory, tmp_path: Path) -> Tiny:
    """A fresh tiny model with its configuration and template."""
    config = tiny_config(tmp_path)
    return Tiny(build_model(config, CPU.device, CPU.dtype), config, ChatTemplate(load_tokenizer(config.model)))


@pytest.fixture(scope="session")
def finished(tiny_config: ConfigFactory, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run that tests only read."""
    config = tiny_config(
        tmp_path_factory.mktemp("runs"),
        data={"row_tokens": 2048},
        training={"max_steps": 12, "accumulation": 2, "head_learning_rate": 3e-2},
        validation={"every": 6},
        checkpoint={"every": 6},
    )
    return train(config, view=View(quiet=True))


@pytest.fixture
def finished_copy(finished: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy of the finished run, to tamper with."""
    return RunFolder(Path(shutil.copytree(finished.path, tmp_path / "copy")))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of official data and tokenizers beside the repository."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"{SHARED} is absent: it holds the official data and Qwen3's tokenizer")
    return SHARED


def _merged(content: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    result = dict(content)
    for key, value in overrides.items():
        below = result.get(key)
        result[key] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return result


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests start first, dealt to two workers, which get half of the list each; those marked gpu skip where there is none."""
    seconds = {
        item: float(marker.args[0] if marker.args else 8) for item in items if (marker := item.get_closest_marker("slow")) is not None
    }
    halves: tuple[list[pytest.Item], list[pytest.Item]] = [], []
    for item in sorted(seconds, key=lambda item: -seconds[item]):
        min(halves, key=lambda half: sum(seconds[other] for other in half)).append(item)
    rest = [item for item in items if item not in seconds]
    middle = max(0, len(items) // 2 - len(halves[0]))
    items[:] = [*halves[0], *rest[:middle], *halves[1], *rest[middle:]]
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu") is not None:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA GPU"))
