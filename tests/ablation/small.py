"""A run of a few steps on little data."""

from pathlib import Path
from typing import Any

from tests.conftest import ConfigFactory
from warmline.config import RunConfig
from warmline.conversation import SPLITS
from warmline.sources.files import sample_dir


def quick(config_factory: ConfigFactory, folder: Path, steps: int = 2, **training: Any) -> RunConfig:
    """Few steps, small validation sets, and four safety conversations a split, whose base states would take longest."""
    safety = folder / "safety"
    safety.mkdir()
    for split in SPLITS:
        lines = (sample_dir() / "safety" / f"{split}.jsonl").read_text().splitlines(keepends=True)
        (safety / f"{split}.jsonl").write_text("".join(lines[:4]))
    return config_factory(
        folder,
        data={"sources": {"safety": {"dir": str(safety)}}},
        training={"max_steps": steps, **training},
        validation={"every": 1, "conversations": 2},
        checkpoint={"every": 1},
    )
