"""What a number needs beside it: versions, data checksums, base model, seed, machine."""

import platform
from datetime import datetime, timezone
from importlib.metadata import version
from typing import Any

import torch

from warmline import __version__
from warmline.config import RunConfig
from warmline.data.sources import data_checksums
from warmline.model.choose import Choice
from warmline.training.device import Place
from warmline.training.teachers import teacher_hashes

_PACKAGES = ("torch", "transformers", "peft", "accelerate", "safetensors", "tokenizers", "numpy")


def make_manifest(config: RunConfig, place: Place, ranks: int, choice: Choice) -> dict[str, Any]:
    """The manifest of a run that is about to train.

    Args:
        config: Of the run.
        place: Device and precision.
        ranks: Processes that train together.
        choice: Backend that runs the model, and why.
    """
    device = torch.cuda.get_device_name() if place.device.type == "cuda" else platform.processor() or platform.machine()
    packages = _PACKAGES if choice.backend == "transformers" else (*_PACKAGES, "unsloth", "unsloth_zoo", "bitsandbytes")
    return {
        "run": config.name,
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "seed": config.seed,
        "base_model": config.model.name,
        "base_revision": config.model.revision,
        "base_random_init_seed": config.model.random_init_seed,
        "backend": choice.backend,
        "backend_reason": choice.reason,
        "device": device,
        "ranks": ranks,
        "threads": torch.get_num_threads(),
        "dtype": str(place.dtype).removeprefix("torch."),
        "python": platform.python_version(),
        "versions": {"warmline": __version__, **{name: version(name) for name in packages}},
        "data_sha256": data_checksums(config.data),
        "teachers_sha256": teacher_hashes(config),
    }
