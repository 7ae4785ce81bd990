"""`heads.json`, and whether the files of an artefact are those that it lists. No model is loaded to tell: the folder may be anyone's."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open

from warmline.config import HeadsConfig, RunConfig
from warmline.errors import WarmlineError
from warmline.files import sha256_of
from warmline.retired import without_retired
from warmline.runs import RunFolder, read_json
from warmline.settings import LoraSettings, TemplateName

ADAPTER = "adapter"
MODEL = "model"
FORMAT = 4
"""Of heads.json. 1: the heads read states as they came, not scaled. 2: other files than weights and heads had no hash. 3: the labels of the
two heads that there were stood under `emotions` and `strategies`."""

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_TOKENIZER = frozenset(
    {
        "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json", "vocab.json",
        "vocab.txt", "merges.txt", "chat_template.jinja", "generation_config.json",
    }
)  # fmt: skip
_KNOWN = {
    ADAPTER: _TOKENIZER | {ADAPTER_CONFIG, ADAPTER_WEIGHTS},
    MODEL: _TOKENIZER | {"config.json", "model.safetensors", "model.safetensors.index.json"},
}
_DOWN = re.compile(r"\.lora_(embedding_)?A\b")
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")

_LABELS_BEFORE_4 = {"emotion": "emotions", "strategy": "strategies"}

_Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Description(BaseModel):
    """What stands in heads.json; `files` and `settings` since format 3, `strength` in exports at another than 1."""

    model_config = ConfigDict(strict=True, protected_namespaces=())

    format: Annotated[int, Field(ge=1, le=FORMAT)]
    run: str
    step: int
    base_model: str
    base_revision: str | None
    base_random_init_seed: int | None
    weights: Literal["adapter", "model"]
    weights_sha256: _Hash
    heads_sha256: _Hash
    labels: dict[str, list[str]]
    template: TemplateName
    system_prompt: str | None
    reads: dict[str, str] = {}
    strength: Annotated[float, Field(ge=0, le=1)] = 1.0
    files: dict[str, _Hash] | None = None
    settings: dict[str, Any] | None = None


def weights_folder(run: RunFolder, config: RunConfig) -> Path:
    """`adapter/`, or `model/` when every weight was trained."""
    return run.path / (ADAPTER if config.lora is not None else MODEL)


def is_known(folder: str, name: str) -> bool:
    """Whether a file of that name may lie in `adapter/` or `model/`: safetensors, settings, a tokenizer, and nothing that could run."""
    return name in _KNOWN[folder] or (folder == MODEL and _SHARD.fullmatch(name) is not None)


def keep_known(folder: Path, name: str) -> None:
    """Remove what `verify` would refuse, such as a tokenizer's file of another kind, which the base has too.

    Args:
        folder: Just filled.
        name: `adapter` or `model`: what it will be.
    """
    for path in folder.iterdir():
        if not is_known(name, path.name):
            path.unlink()


def hashes(run: RunFolder, folder: Path) -> dict[str, str]:
    """sha256 of the heads and of every file in the folder of weights, by their names in the run.

    Args:
        run: Or an export.
        folder: `adapter/` or `model/` in it; need not exist.
    """
    files = [*(path for path in sorted(folder.glob("*")) if path.is_file()), run.heads]
    return {path.relative_to(run.path).as_posix(): _sha256(path) for path in files}


def settings_of(config: RunConfig) -> dict[str, Any]:
    """What `verify` compares with config.yaml: a rank fits by its shapes, a scale fits any."""
    return config.model_dump(mode="json", include={"lora", "heads"})


def weights_hash(run: RunFolder, config: RunConfig, known: dict[str, str] | None = None) -> str:
    """sha256 over the saved weight files, in the order of their names.

    Args:
        run: Or an export.
        config: Of the run.
        known: From `hashes`, where they were made: one file alone is not read again.

    Raises:
        WarmlineError: there are none, or they cannot be read.
    """
    folder = weights_folder(run, config)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise WarmlineError(f"{folder}: no weights (*.safetensors); train the run again")
    if known is not None and len(files) == 1:
        return known[files[0].relative_to(run.path).as_posix()]
    return _sha256(*files)


def read_description(run: RunFolder) -> dict[str, Any]:
    """The content of `heads.json`, every key that is used of the right kind.

    Raises:
        WarmlineError: missing, damaged, of another format, or with a value that no run writes.
    """
    content = read_json(run.heads_description)
    if not isinstance(content, dict) or content.get("format") not in range(1, FORMAT + 1):
        raise WarmlineError(f"{run.heads_description}: format is not {FORMAT} or earlier; this warmline cannot read it")
    if content["format"] < 4:
        content["labels"] = {head: content.pop(key) for head, key in _LABELS_BEFORE_4.items() if key in content}
    try:
        _Description.model_validate(content)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        key, got = ".".join(map(str, problem["loc"])), "" if problem["type"] == "missing" else f", got {problem['input']!r:.80}"
        raise WarmlineError(f"{run.heads_description}: `{key}`: {problem['msg'].removeprefix('Value error, ')}{got}") from None
    if content["format"] > 2 and not (content.get("files") and content.get("settings")):
        raise WarmlineError(f"{run.heads_description}: lists no files or settings, as format {content['format']} does; the file is damaged")
    return content


def whole_strength(strength: float, description: dict[str, Any]) -> float:
    """The adapter's strength beside what was trained.

    Args:
        strength: That it is loaded at.
        description: As of `read_description`; an export may have been weakened when it was written.
    """
    return float(strength * description.get("strength", 1.0))


def verify(run: RunFolder, config: RunConfig) -> dict[str, Any]:
    """Check that weights, heads and settings are those that `heads.json` names.

    Returns:
        What `heads.json` says.

    Raises:
        WarmlineError: files are missing, changed, not listed, or do not belong together.
    """
    description = read_description(run)
    for why in faults(run, config, description):
        raise WarmlineError(why)
    return description


def faults(run: RunFolder, config: RunConfig, description: dict[str, Any]) -> Iterator[str]:
    """Why the artefact will not be loaded, one line each."""
    folder = weights_folder(run, config)
    if description["weights"] != folder.name:
        yield f"{run.heads_description}: weights in {description['weights']}/, by config.yaml in {folder.name}/; put one run together"
        return
    answered = {task.name: list(config.outputs(task)) for task in config.tasks}
    if description["labels"] != answered:
        yield f"{run.heads_description}: the heads' labels are not those of {run.config} and this warmline; put one run together"
        return
    if not run.heads.is_file():
        yield f"{run.heads}: file not found; train the run again"
        return
    unknown = _unknown(folder)
    yield from unknown
    if unknown:
        return
    found = hashes(run, folder)
    digest = weights_hash(run, config, found)
    if config.lora is not None:
        yield from _excessive_rank(run, config.lora, folder / ADAPTER_WEIGHTS)
    if digest != description["weights_sha256"]:
        yield (
            f"{run.heads_description}: these heads belong to another adapter (its sha256 differs from the one in {folder.name}/); "
            "put the adapter and heads of one run together"
        )
    if found[run.heads.name] != description["heads_sha256"]:
        yield f"{run.heads}: sha256 differs from heads.json; the file was changed or belongs to another run"
    yield from _retired_reads(run, description)
    if description["format"] > 2:
        yield from _unlisted(run, found, description["files"])
        yield from _other_settings(run, config, description["settings"])


def _unknown(folder: Path) -> list[str]:
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    return [
        f"{path}: no file that a run has there; remove it (weights are read from safetensors alone)"
        for path in found
        if not path.is_file() or not is_known(folder.name, path.name)
    ]


def _excessive_rank(run: RunFolder, lora: LoraSettings, weights: Path) -> Iterator[str]:
    """By the file's header: no larger adapter than the file holds is made. Joined experts have a multiple of the rank."""
    try:
        with safe_open(weights, framework="numpy") as file:
            ranks = {file.get_slice(name).get_shape()[0] for name in file.keys() if _DOWN.search(name)}  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError, IndexError) as error:
        yield f"{weights}: no adapter in safetensors ({error}); get it again"
        return
    if lora.r > max(ranks, default=0):
        yield f"{run.config}: `lora.r` is {lora.r}, the adapter has rank {max(ranks, default=0)}; put it back"


def _unlisted(run: RunFolder, found: dict[str, str], listed: dict[str, str]) -> Iterator[str]:
    for name in sorted({**found, **listed}):
        if name not in found:
            yield f"{run.path / name}: listed in heads.json, and not there; get the whole run again"
        elif name not in listed:
            yield f"{run.path / name}: not listed in heads.json; remove it"
        elif found[name] != listed[name]:
            yield f"{run.path / name}: sha256 differs from heads.json; the file was changed or belongs to another run"


def _retired_reads(run: RunFolder, description: dict[str, Any]) -> Iterator[str]:
    """Older heads could read a mean of a turn's states, or an inner layer's."""
    for head, said in description.get("reads", {}).items():
        if said.startswith("learned mean") or "layer-" in said:
            yield (
                f"{run.heads_description}: the {head} head reads a {said}: retired, since runs showed no gain from it "
                "(research/LOG.md says what was measured); train the run again"
            )


def _other_settings(run: RunFolder, config: RunConfig, settings: dict[str, Any]) -> Iterator[str]:
    try:
        known = {**without_retired(settings, str(run.heads_description))}
        lora, heads = known.pop("lora"), known.pop("heads")
        trained = {"lora": lora and LoraSettings.model_validate(lora), "heads": HeadsConfig.model_validate(heads)}
        if known:
            raise KeyError(*known)
    except WarmlineError as error:
        yield str(error)
        return
    except (ValidationError, KeyError):
        yield f"{run.heads_description}: `settings` are none of this warmline's; the file is damaged"
        return
    for name, own in (("lora", config.lora), ("heads", config.heads)):
        if trained[name] != own:
            yield f"{run.config}: `{name}` differs from what the weights were trained with (settings in heads.json); put it back"


def _sha256(*files: Path) -> str:
    try:
        return sha256_of(*files)
    except OSError as error:
        raise WarmlineError(f"{error.filename or files[0]}: cannot be read ({error.strerror})") from None
