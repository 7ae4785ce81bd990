"""`warmline inspect`: what lies in a run folder or an export, before anything of it is loaded.

Names, sizes, hashes, JSON and the headers of safetensors files are read. Nothing is imported, rendered or unpickled, and no model is made.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table
from rich.text import Text
from safetensors import SafetensorError, safe_open

from warmline.config import RunConfig, load_config
from warmline.errors import WarmlineError, printable
from warmline.lock import LOCK
from warmline.model.description import ADAPTER, ADAPTER_CONFIG, MODEL, faults, hashes, is_known, read_description
from warmline.paths import NANO, expand_home, is_folder
from warmline.runs import STRENGTH, RunFolder, read_json, strangers
from warmline.settings import ModelConfig

_CARDS = {"export.json", "README.md"}
_PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib"}
_USUAL = {"bias": "none", "init_lora_weights": True, "megatron_core": "megatron.core", "qalora_group_size": 16, "peft_type": "LORA",
          "task_type": "CAUSAL_LM"}  # fmt: skip
"""What PEFT writes into adapter_config.json for every run, beside what is empty."""
_FOLLOWED = {
    "auto_mapping": "PEFT's AutoPeftModel imports the module it names",
    "megatron_config": "PEFT imports the module that megatron_core names",
    "megatron_core": "PEFT imports it",
    "corda_config": "PEFT opens the files it names",
    "eva_config": "PEFT changes how weights begin",
    "lora_ga_config": "PEFT opens the files it names",
    "modules_to_save": "PEFT replaces whole layers of the base",
    "peft_type": "PEFT builds another kind of adapter",
}
_OWN = {"base_model_name_or_path", "inference_mode", "lora_alpha", "lora_dropout", "peft_version", "r", "target_modules", "use_rslora",
        "alpha_pattern", "rank_pattern", "target_parameters"}  # fmt: skip
"""What differs from run to run; the last three for joined experts."""


class Entry(NamedTuple):
    """A file, or a folder with all that is below it.

    Attributes:
        name: In the run folder.
        files: How many.
        size: In bytes.
        note: What is to be said of it.
    """

    name: str
    files: int
    size: int
    note: str


class Inspection(NamedTuple):
    """What was found.

    Attributes:
        facts: What the run says of itself, by heading.
        entries: What lies in the folder.
        notes: What other tools might do with it; warmline does not.
        refusals: Why `warmline` would not load it; empty when it would.
    """

    facts: dict[str, str]
    entries: list[Entry]
    notes: list[str]
    refusals: list[str]


def inspect(folder: Path) -> Inspection:
    """Look at a run folder or an export, which may be anyone's.

    Raises:
        WarmlineError: there is no such folder.
    """
    if not folder.is_dir():
        raise WarmlineError(f"{folder}: no such folder; name a run folder or an export")
    run, refusals = RunFolder(folder), list(strangers(folder))
    if refusals:  # links are not followed, not even to look
        return Inspection({}, list(_entries(run, {})), [], refusals)
    facts: dict[str, str] = {}
    listed: dict[str, str] = {}
    notes: list[str] = []
    try:
        RunFolder.open(folder)
        config, description = load_config(run.config), read_description(run)
        facts |= {**_of_config(config), **_of_description(description)}
        notes += _followed_elsewhere(run, config)
        refusals += faults(run, config, description)
        if run.heads.is_file():
            listed |= _listed(run, description)
        if not refusals:
            facts |= _of_weights(run, config)
    except WarmlineError as error:
        refusals.append(str(error))
    return Inspection(facts, list(_entries(run, listed)), notes, refusals)


def _of_config(config: RunConfig) -> dict[str, str]:
    model, lora = config.model, config.lora
    kinds = [f"seed {model.random_init_seed}: random numbers"] if model.random_init_seed is not None else []
    kinds += ["in 4 bits"] if model.load_in_4bit else []
    revision = f" at {model.revision}" if model.revision else ""
    facts = {"name": config.name, "base": f"{model.name}{revision} ({', '.join([_whereabouts(model), *kinds])})"}
    if lora is not None:
        facts["adapter"] = f"rank {lora.r}, alpha {lora.alpha:g}, on {', '.join(lora.target_modules)}"
    return facts


def _whereabouts(model: ModelConfig) -> str:
    if model.name == NANO:
        return "inside this package"
    if not is_folder(model.name):
        return "no folder here, so a hub id"
    here = expand_home(Path(model.name)).is_dir()
    return "a folder on this machine" if here else "a folder that this machine has not; --base says where it lies"


def _of_description(description: dict[str, Any]) -> dict[str, str]:
    prompt = description["system_prompt"]
    return {
        "steps": str(description["step"]),
        "format": str(description["format"]),
        **{f"labels of the {head} head": str(len(labels)) for head, labels in description["labels"].items()},
        "template": description["template"],
        **({"strength of the adapter": f"{description['strength']:g}"} if "strength" in description else {}),
        "system prompt": "none" if not prompt else repr(prompt[:80]),
    }


def _of_weights(run: RunFolder, config: RunConfig) -> dict[str, str]:
    folder = ADAPTER if config.lora is not None else MODEL
    weights = sorted((run.path / folder).glob("*.safetensors"))
    return {f"{folder}/ holds": _tensors(weights), "heads hold": _tensors([run.heads])}


def _tensors(files: list[Path]) -> str:
    count = parameters = 0
    for path in files:
        try:
            with safe_open(path, framework="numpy") as file:
                names = list(file.keys())
                parameters += sum(math.prod(file.get_slice(name).get_shape()) for name in names)
        except (OSError, SafetensorError) as error:
            raise WarmlineError(f"{path}: no safetensors file ({error}); get it again") from None
        count += len(names)
    return f"{parameters:,} parameters in {count} tensors"


def _listed(run: RunFolder, description: dict[str, Any]) -> dict[str, str]:
    """By name, whether the hash in heads.json holds; older formats have one over all weights, which `faults` has looked at."""
    found, hashed = hashes(run, run.path / description["weights"]), description.get("files")
    if hashed is None:
        return {name: "" if name.endswith(".safetensors") else f"has no hash in format {description['format']}" for name in found}
    return {name: "not listed" if name not in hashed else "hash holds" if hashed[name] == found[name] else "changed" for name in found}


def _followed_elsewhere(run: RunFolder, config: RunConfig) -> Iterator[str]:
    """What PEFT and transformers would import, open or run; nothing of it is read here."""
    for path in sorted(run.path.glob("*.json")) + sorted(run.path.glob("*/*.json")):
        if path.name not in ("config.json", "tokenizer_config.json", ADAPTER_CONFIG):
            continue
        try:
            content = read_json(path)
        except WarmlineError as error:
            yield f"{error}; warmline does not read it"
            continue
        if not isinstance(content, dict):
            yield f"{path}: no settings"
        elif path.name != ADAPTER_CONFIG:
            if content.get("auto_map"):
                yield f"{path}: `auto_map` names code that transformers runs for whoever trusts it; warmline does not"
        elif config.lora is not None:
            yield from _peft_settings(path, content, config)


def _peft_settings(path: Path, content: dict[str, Any], config: RunConfig) -> Iterator[str]:
    for key, value in sorted(content.items()):
        if value and key not in _OWN and value != _USUAL.get(key):
            yield f"{path}: `{key}` is {str(value)[:60]!r}: {_FOLLOWED.get(key, 'no run sets it')}; warmline does not read it"
    lora = config.lora
    own = {} if lora is None else {"r": lora.r, "lora_alpha": lora.alpha, "use_rslora": lora.rank_stabilised}
    for key, wanted in own.items():
        if content.get(key) != wanted:
            yield f"{path}: `{key}` is {str(content.get(key))[:60]}, by config.yaml {wanted}; PEFT and vLLM read the former"


def _entries(run: RunFolder, listed: dict[str, str]) -> Iterator[Entry]:
    """Files one by one, but those of records, results and checkpoints, unless something is to be said of them."""
    paths = [path for path in vars(run).values() if isinstance(path, Path) and path != run.path]
    known = _CARDS | {LOCK} | {path.relative_to(run.path).parts[0] for path in paths}
    known |= {path.name for path in run.path.glob(f"{STRENGTH}*")}
    exported = (run.path / "export.json").is_file()
    for path in sorted(run.path.iterdir()):
        if path.name in (ADAPTER, MODEL) and path.is_dir() and not path.is_symlink():
            for file in sorted(path.iterdir()):
                name = file.relative_to(run.path).as_posix()
                yield _entry(run, file, listed.get(name) or ("" if is_known(path.name, file.name) else "unknown"))
        elif path.name in known or (exported and is_known(MODEL, path.name)):
            yield _entry(run, path, listed.get(path.name, ""))
            if path.is_dir() and not path.is_symlink():
                yield from (entry for file in sorted(path.rglob("*")) if (entry := _entry(run, file, "")).note)
        else:
            yield _entry(run, path, "unknown; not read")


def _entry(run: RunFolder, path: Path, note: str) -> Entry:
    kind = _kind(path)
    inside = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() and not path.is_symlink() else [path]
    size = sum(file.lstat().st_size for file in inside)
    name = path.relative_to(run.path).as_posix() + ("/" if path.is_dir() and not path.is_symlink() else "")
    return Entry(name, len(inside), size, "; ".join(filter(None, (note, kind))))


def _kind(path: Path) -> str:
    """What a person had better know of a file, whatever it is called."""
    if path.is_symlink():
        return f"link to {path.readlink()}"
    if not path.is_file():
        return "" if path.is_dir() else "no file"
    with path.open("rb") as file:
        begin = file.read(10)
    is_pickle = begin[:1] == b"\x80" and begin[1:2] in (b"\2", b"\3", b"\4", b"\5") and begin[8:] != b'{"'  # which is a safetensors header
    if path.suffix in _PICKLES or begin[:4] == b"PK\x03\x04" or is_pickle:
        return "pickle: code for whoever unpickles it"
    if path.suffix in (".jinja", ".j2"):
        return "Jinja: for other tools, which render it"
    return "Python source" if path.suffix in (".py", ".pyc", ".so") else ""


def tables(found: Inspection) -> list[Table]:
    """What was found, to read: facts, then files."""
    facts, entries = (Table(box=None, padding=(0, 2, 0, 0), show_header=False) for _ in range(2))
    for heading, fact in found.facts.items():
        facts.add_row(Text(printable(heading)), Text(printable(fact)))
    for entry in found.entries:
        several = f", {entry.files} files" if entry.name.endswith("/") else ""
        entries.add_row(Text(printable(entry.name)), f"{entry.size:,} bytes{several}", Text(printable(entry.note)))
    return [facts, entries]
