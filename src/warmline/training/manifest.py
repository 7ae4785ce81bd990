"""What a number needs beside it: versions, checksums of data and base, seed, machine; and whether a run may go on as it began."""

import platform
import secrets
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache

from warmline import __version__
from warmline.config import RunConfig
from warmline.data.enabled import data_checksums
from warmline.errors import WarmlineError
from warmline.files import sampled_sha256
from warmline.model.base import model_path
from warmline.model.choose import Choice
from warmline.model.device import Place
from warmline.runs import RunFolder, read_manifest, write_json
from warmline.settings import ModelConfig

_PACKAGES = ("torch", "transformers", "peft", "accelerate", "safetensors", "tokenizers", "numpy")
_BASE_FILES = (
    "config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors", "model-*.safetensors", "model.safetensors.index.json",
)  # fmt: skip
"""What is loaded; others come and go in a folder or a hub's cache."""
_FILES = {"data_sha256": "the data file", "base_sha256": "the base's file"}
_SETTINGS = {"ranks": "processes", "dtype": "precision", "backend": "backend"}
_SURROUNDINGS = ("device", "threads", "python")


def make_manifest(config: RunConfig, place: Place, ranks: int, choice: Choice) -> dict[str, Any]:
    """The manifest of a run that is about to train; `record_base` adds its base's checksums once it is loaded.

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
        "id": secrets.token_hex(8),  # tells its checkpoints from those of a run that was configured alike
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
    }


def changes(begun: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What keeps a run from going on as the run it was, in words: other files, processes, precision or backend.

    Versions and machine are not among it: a run may outlive an upgrade or move, on the same data and in the same steps. `differences` has
    them, for a line on the screen and for the manifest.

    Args:
        begun: The manifest that the run began with.
        now: One that was made now.
    """
    found = []
    for key, what in _FILES.items():
        before, after = begun.get(key, {}), now.get(key, {})
        found += [f"{what} {name} has changed" for name in sorted({**before, **after}) if before.get(name) != after.get(name)]
    found += [f"{what}: {begun.get(key)} then, {now.get(key)} now" for key, what in _SETTINGS.items() if begun.get(key) != now.get(key)]
    return found


def differences(begun: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Versions and machine that differ, as `transformers 5.17.0 then, 5.19.0 now`: the last bits may, too."""
    before, after = ({**{key: of.get(key) for key in _SURROUNDINGS}, **of.get("versions", {})} for of in (begun, now))
    return [f"{key} {before[key]} then, {after[key]} now" for key in after if key in before and before[key] != after[key]]


def refuse_changes(run: RunFolder, now: dict[str, Any]) -> None:
    """Let a run with checkpoints go on only as it began.

    Raises:
        WarmlineError: names what has changed.
    """
    try:
        begun = read_manifest(run)
    except WarmlineError as error:
        raise WarmlineError(f"{error}, and without it nobody knows what these checkpoints were trained on; put it back") from None
    changed = changes({key: begun[key] for key in begun if key != "base_sha256"}, now)
    if changed:
        raise _changed(run, changed)


def record_base(run: RunFolder, model: ModelConfig) -> None:
    """Write down the base's checksums, or compare with those that are there.

    Raises:
        WarmlineError: the base is not the one that the run began with.
    """
    begun, found = read_manifest(run), {"base_sha256": base_checksums(model)}
    if "base_sha256" not in begun:
        write_json(run.manifest, {**begun, **found})
        return
    changed = changes({"base_sha256": begun["base_sha256"]}, found)
    if changed:
        raise _changed(run, changed)


def record_resumption(run: RunFolder, after_step: int, now: dict[str, Any]) -> list[str]:
    """Add to the manifest from which step a run goes on, when, and with what; give back in what that differs from its beginning."""
    begun = read_manifest(run)
    entry = {"after_step": after_step, **{key: now[key] for key in ("started", *_SURROUNDINGS, "versions")}}
    write_json(run.manifest, {**begun, "resumed": [*begun.get("resumed", []), entry]})
    return differences(begun, now)


def base_checksums(model: ModelConfig) -> dict[str, str]:
    """Sampled sha256 of the base's configuration, tokenizer and weights by file name; nothing where they are not found on this disk."""
    folder = Path(model_path(model))
    if not folder.is_dir():
        cached = try_to_load_from_cache(model.name, "config.json", revision=model.revision)
        if not isinstance(cached, str):
            return {}
        folder = Path(cached).parent
    files = {path for pattern in _BASE_FILES for path in folder.glob(pattern) if path.is_file()}
    return {path.name: sampled_sha256(path) for path in sorted(files)}


def _changed(run: RunFolder, changed: list[str]) -> WarmlineError:
    more = f" (and {len(changed) - 3} more)" if len(changed) > 3 else ""
    return WarmlineError(
        f"{run.path}: since this run began: {'; '.join(changed[:3])}{more}; put back what was, or train anew under another name "
        "(--set name=...)"
    )
