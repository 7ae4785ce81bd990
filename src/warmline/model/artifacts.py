"""Save, load and verify what a run leaves behind: the adapter in PEFT's own format, and the heads that belong to it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as as_safetensors

from warmline.config import RunConfig, load_config
from warmline.data.template import ChatTemplate
from warmline.errors import WarmlineError
from warmline.model.backbone import Backbone
from warmline.model.base import load_tokenizer
from warmline.model.choose import Backend
from warmline.model.description import FORMAT, hashes, keep_known, settings_of, verify, weights_folder, weights_hash
from warmline.model.fast.decoder import Checkpointing
from warmline.model.heads import Heads, head_specs
from warmline.model.multitask import MultiTaskModel
from warmline.model.transformers_backbone import TransformersBackbone
from warmline.model.unsloth_backbone import UnslothBackbone
from warmline.runs import RunFolder, disk_errors, write_bytes, write_folder, write_json


def build_model(
    config: RunConfig,
    device: torch.device,
    dtype: torch.dtype,
    checkpointing: Checkpointing = "none",
    backend: Backend = "transformers",
) -> MultiTaskModel:
    """A new model to train: base, fresh adapter, fresh heads, all from the run's seed.

    Args:
        config: Of the run.
        device: Where.
        dtype: Of the base weights.
        checkpointing: What the layers keep for the backward pass.
        backend: As `choose_backend` says.

    Raises:
        WarmlineError: the base cannot be loaded as asked.
    """
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        backbone = _backbone(backend, config, device, dtype, checkpointing=checkpointing)
        heads = Heads(backbone.hidden_size, head_specs(config))
    return MultiTaskModel(backbone, heads.to(device))


def save_artifact(run: RunFolder, model: MultiTaskModel, config: RunConfig, template: ChatTemplate, step: int) -> None:
    """Write the tuned weights, tokenizer, template and heads into the run folder.

    The heads' description is written last: a run without it is unfinished, and one whose parts do not belong together is refused.
    """
    with disk_errors(run.heads_description):
        run.heads_description.unlink(missing_ok=True)

    target = weights_folder(run, config)

    def fill(folder: Path) -> None:
        model.backbone.save(folder)
        template.tokenizer.save_pretrained(folder)
        keep_known(folder, target.name)

    write_folder(target, fill)
    write_bytes(run.heads, as_safetensors({name: tensor.detach().cpu().contiguous() for name, tensor in model.heads.state_dict().items()}))
    write_json(run.heads_description, describe(run, config, template, step))


def describe(run: RunFolder, config: RunConfig, template: ChatTemplate, step: int) -> dict[str, Any]:
    """What `heads.json` says."""
    listed = hashes(run, weights_folder(run, config))
    return {
        "format": FORMAT,
        "run": config.name,
        "step": step,
        "base_model": config.model.name,
        "base_revision": config.model.revision,
        "base_random_init_seed": config.model.random_init_seed,
        "weights": weights_folder(run, config).name,
        "weights_sha256": weights_hash(run, config, listed),
        "heads_sha256": listed[run.heads.name],
        "dtype": "float32",
        "reads": {task.name: task.reading(config.heads[task.name]) for task in config.tasks},
        "labels": {task.name: list(config.outputs(task)) for task in config.tasks},
        "template": template.name,
        "system_prompt": config.data.system_prompt,
        "settings": settings_of(config),
        "files": listed,
    }


def load_artifact(
    run: RunFolder,
    device: torch.device,
    dtype: torch.dtype,
    backend: Backend = "transformers",
    base: str | None = None,
    strength: float = 1.0,
) -> tuple[RunConfig, MultiTaskModel, ChatTemplate]:
    """The saved model, for evaluation and serving; either backend loads what either has trained.

    Args:
        run: A finished run.
        device: Where.
        dtype: Of the base weights.
        backend: The default runs everywhere, on a CPU too.
        base: Hub id or folder of the base, where it is not under the name that the run has for it.
        strength: Of the adapter, from 0, the base, to 1, as trained. Heads read what the model then computes.

    Raises:
        WarmlineError: files are missing, damaged, or do not belong together.
    """
    config = load_config(run.config)
    if base is not None:
        config = config.model_copy(update={"model": config.model.model_copy(update={"name": base, "revision": None})})
    refuse_strength(strength, config)
    description = verify(run, config)
    try:
        saved = load_file(run.heads)
    except (OSError, SafetensorError) as error:
        raise WarmlineError(f"{run.heads}: cannot be read ({error}); train the run again") from None
    backbone = _backbone(backend, config, device, dtype, tuned=weights_folder(run, config), trainable=False)
    weaken(backbone, strength)
    with torch.device("meta"):  # whatever sizes the settings name, no memory is taken before the file's tensors fit them
        heads = Heads(backbone.hidden_size, head_specs(config), scaled=description["format"] > 1)
    try:
        heads.load_state_dict({name: tensor.to(torch.float32, copy=True) for name, tensor in saved.items()}, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise WarmlineError(f"{run.heads}: the heads do not fit this model ({reason})") from None
    model = MultiTaskModel(backbone, heads.to(device)).eval()
    template = ChatTemplate(load_tokenizer(config.model), description["template"], description["system_prompt"])
    return config, model, template


def refuse_strength(strength: float, config: RunConfig) -> None:
    """Refuse a strength that the run's adapter cannot have.

    Raises:
        WarmlineError: outside 0 to 1, or another than 1 where every weight was trained.
    """
    if not 0 <= strength <= 1:
        raise WarmlineError(f"--strength {strength:g}: expected 0 (the base) to 1 (as trained)")
    if strength != 1 and config.lora is None:
        raise WarmlineError(f"--strength {strength:g}: this run trained every weight, so there is no adapter to weaken; leave it out")


@torch.no_grad()
def weaken(backbone: Backbone, strength: float) -> None:
    """Multiply the adapter's update by a strength, in its own weights, so that every path through the model computes the same.

    Args:
        backbone: With the tuned adapter.
        strength: From 0 to 1 (WiSE-FT, arXiv 2309.06256, of a low-rank update); 1 changes no bit.
    """
    if strength != 1:
        for name, parameter in backbone.named_parameters():
            if "lora_B" in name:
                parameter.mul_(strength)


@contextmanager
def weakened(backbone: Backbone, strength: float) -> Iterator[None]:
    """Inside it the adapter has a strength, as of `weaken`; behind it, its own again, to the bit."""
    kept = {name: parameter.detach().clone() for name, parameter in backbone.named_parameters() if "lora_B" in name}
    weaken(backbone, strength)
    try:
        yield
    finally:
        with torch.no_grad():
            for name, parameter in backbone.named_parameters():
                if name in kept:
                    parameter.copy_(kept[name])


def _backbone(backend: Backend, config: RunConfig, device: torch.device, dtype: torch.dtype, **options: Any) -> Backbone:
    if backend == "unsloth":
        if config.lora is None:
            raise WarmlineError("model.backend: unsloth is used for adapters only; set model.backend: transformers")
        return UnslothBackbone(config.model, config.lora, device, dtype, **options)
    return TransformersBackbone(config.model, config.lora, device, dtype, **options)
