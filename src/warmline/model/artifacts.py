"""Save, load and verify what a run leaves behind: the adapter in PEFT's own format, and the heads that belong to it."""

import hashlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from warmline.config import HeadsConfig, RunConfig, load_config
from warmline.data.labels import EMOTIONS_AND_NEUTRAL, STRATEGIES
from warmline.data.template import ChatTemplate
from warmline.errors import WarmlineError
from warmline.model.backbone import Backbone
from warmline.model.choose import Backend
from warmline.model.fused_decoder import Checkpointing
from warmline.model.heads import Heads
from warmline.model.multitask import MultiTaskModel
from warmline.model.transformers_backbone import TransformersBackbone, load_tokenizer
from warmline.model.unsloth_backbone import UnslothBackbone
from warmline.runs import RunFolder, disk_errors, read_json, write_folder, write_json

ADAPTER = "adapter"
MODEL = "model"
FORMAT = 2
"""Of heads.json. 1: the heads read states as they came, not scaled."""


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
        heads = Heads(backbone.hidden_size, config.data.sources.goemotions.labels, config.heads)
    return MultiTaskModel(backbone, heads.to(device))


def save_artifact(run: RunFolder, model: MultiTaskModel, config: RunConfig, template: ChatTemplate, step: int) -> None:
    """Write the tuned weights, tokenizer, template and heads into the run folder.

    The heads' description is written last: a run without it is unfinished, and one whose parts do not belong together is refused.
    """
    with disk_errors(run.heads_description):
        run.heads_description.unlink(missing_ok=True)

    def fill(folder: Path) -> None:
        model.backbone.save(folder)
        template.tokenizer.save_pretrained(folder)

    write_folder(weights_folder(run, config), fill)
    aside = run.heads.with_suffix(".writing")
    with disk_errors(run.heads):
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in model.heads.state_dict().items()}, aside)
        aside.replace(run.heads)
    write_json(run.heads_description, describe(run, config, template, step))


def weights_folder(run: RunFolder, config: RunConfig) -> Path:
    """`adapter/`, or `model/` when every weight was trained."""
    return run.path / (ADAPTER if config.lora is not None else MODEL)


def describe(run: RunFolder, config: RunConfig, template: ChatTemplate, step: int) -> dict[str, Any]:
    """What `heads.json` says."""
    labels = config.data.sources.goemotions.labels
    return {
        "format": FORMAT,
        "run": config.name,
        "step": step,
        "base_model": config.model.name,
        "base_revision": config.model.revision,
        "base_random_init_seed": config.model.random_init_seed,
        "weights": weights_folder(run, config).name,
        "weights_sha256": weights_hash(run, config),
        "heads_sha256": hashlib.sha256(run.heads.read_bytes()).hexdigest(),
        "dtype": "float32",
        "reads": reads(config.heads),
        "emotions": list(EMOTIONS_AND_NEUTRAL[:labels]),
        "strategies": list(STRATEGIES),
        "template": template.name,
        "system_prompt": config.data.system_prompt,
    }


def reads(heads: HeadsConfig) -> dict[str, str]:
    """What each head reads, in words."""
    last, header = "at the last token (end of turn) of the user's turn", "at the last token of the assistant's header, before the reply"
    emotion, strategy = (
        "scaled final hidden" if heads.layer is None or head.final_states else f"scaled layer-{heads.layer}"
        for head in (heads.emotion, heads.strategy)
    )
    alone = ", which is run alone"
    pooled = f"learned mean of the {emotion} states of the user's turn, up to and with its last token (end of turn)"
    earlier = "; and the earlier replies' strategies: annotated, or where nobody annotates the head's own probabilities"
    return {
        "emotion": (pooled if heads.emotion.pooling == "attention" else f"{emotion} state {last}") + alone,
        "strategy": f"{strategy} state {header}{earlier if heads.strategy.earlier_strategies else ''}",
    }


def weights_hash(run: RunFolder, config: RunConfig) -> str:
    """sha256 over the saved weight files, in the order of their names.

    Raises:
        WarmlineError: there are none.
    """
    folder = weights_folder(run, config)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise WarmlineError(f"{folder}: no weights (*.safetensors); train the run again")
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while block := file.read(2**24):
                digest.update(block)
    return digest.hexdigest()


def load_artifact(
    run: RunFolder,
    device: torch.device,
    dtype: torch.dtype,
    backend: Backend = "transformers",
    base: str | None = None,
    bidirectional: bool = False,
) -> tuple[RunConfig, MultiTaskModel, ChatTemplate]:
    """The saved model, for evaluation and serving; either backend loads what either has trained.

    Args:
        run: A finished run.
        device: Where.
        dtype: Of the base weights.
        backend: The default runs everywhere, on a CPU too.
        base: Hub id or folder of the base, where it is not under the name that the run has for it.
        bidirectional: Whether a bidirectional teacher will do; it reads single turns and cannot reply.

    Raises:
        WarmlineError: files are missing, damaged, or do not belong together, or a teacher is asked to reply.
    """
    config = load_config(run.config)
    if base is not None:
        config = config.model_copy(update={"model": config.model.model_copy(update={"name": base, "revision": None})})
    description = read_json(run.heads_description)
    verify(run, config, bidirectional)
    try:
        saved = load_file(run.heads)
    except (OSError, SafetensorError) as error:
        raise WarmlineError(f"{run.heads}: cannot be read ({error}); train the run again") from None
    backbone = _backbone(backend, config, device, dtype, tuned=weights_folder(run, config), trainable=False)
    heads = Heads(backbone.hidden_size, len(description["emotions"]), config.heads, scaled=description["format"] > 1)
    try:
        heads.load_state_dict(saved)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise WarmlineError(f"{run.heads}: the heads do not fit this model ({reason})") from None
    model = MultiTaskModel(backbone, heads.to(device)).eval()
    template = ChatTemplate(load_tokenizer(config.model), description["template"], description["system_prompt"])
    return config, model, template


def _backbone(backend: Backend, config: RunConfig, device: torch.device, dtype: torch.dtype, **options: Any) -> Backbone:
    if backend == "unsloth":
        if config.lora is None:
            raise WarmlineError("model.backend: unsloth is used for adapters only; set model.backend: transformers")
        return UnslothBackbone(config.model, config.lora, device, dtype, **options)
    return TransformersBackbone(config.model, config.lora, device, dtype, read_layer=config.heads.layer, **options)


def verify(run: RunFolder, config: RunConfig, bidirectional: bool = False) -> None:
    """Check that weights and heads are those that `heads.json` names, and that the run is of the kind that is wanted.

    Raises:
        WarmlineError: files are missing, changed, or do not belong together; a bidirectional teacher where that will not do.
    """
    if config.model.bidirectional and not bidirectional:
        raise WarmlineError(f"{run.path}: a bidirectional run is a teacher (distill.teachers) and cannot reply; name another run")
    description = read_json(run.heads_description)
    if not isinstance(description, dict) or description.get("format") not in (1, FORMAT):
        raise WarmlineError(f"{run.heads_description}: format is not {FORMAT}; this warmline cannot read it")
    if not run.heads.is_file():
        raise WarmlineError(f"{run.heads}: file not found; train the run again")
    if weights_hash(run, config) != description.get("weights_sha256"):
        raise WarmlineError(
            f"{run.heads_description}: these heads belong to another adapter (its sha256 differs from the one in {ADAPTER}/); "
            "put the adapter and heads of one run together"
        )
    if hashlib.sha256(run.heads.read_bytes()).hexdigest() != description.get("heads_sha256"):
        raise WarmlineError(f"{run.heads}: sha256 differs from heads.json; the file was changed or belongs to another run")
