"""A base's weight files, looked at before a library reads them: safetensors alone, whole, and every tensor of the network among them.

What stands here does not depend on the backend, nor on whether the base is a folder or a hub id: `cached_file` finds a file in either. No
base's own code is run, and nothing is unpickled.

Saved weights put into a model that this run's configuration has built: tensors from safetensors, and nothing else of the folder.

`adapter_config.json` and `config.json` lie beside them for PEFT, transformers and vLLM; here neither is read, since either may name code
to import, folders and other repositories.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import cached_file

from warmline.errors import WarmlineError
from warmline.model.description import ADAPTER_WEIGHTS
from warmline.settings import LoraSettings, ModelConfig

_ONE, _SHARDED = "model.safetensors", "model.safetensors.index.json"
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_POINTER = b"version https://git-lfs"


def stored_tensors(config: ModelConfig, path: str) -> set[str]:
    """Names of the tensors in the base's weight files, of which only the headers are read.

    Args:
        config: Names the base in what a person is told.
        path: The hub id or folder that transformers loads; from a hub, files are downloaded to where it will look for them.

    Raises:
        WarmlineError: an adapter instead of a model, no weights in safetensors, a file that is missing, cut short or no safetensors at all.
        OSError: the hub cannot be reached.
    """
    if _find(config, path, "adapter_config.json") is not None:
        raise _refused(
            config, "holds an adapter (adapter_config.json), which would be put on unseen; name the model that it was trained on"
        )
    single = _find(config, path, _ONE)
    if single is not None:
        return _names(config, single)
    index = _find(config, path, _SHARDED)
    if index is None:
        raise _without_weights(config, path)
    names: set[str] = set()
    for shard in _shards(config, index):
        found = _find(config, path, shard)
        if found is None:
            raise _refused(config, f"has no {shard}, which {_SHARDED} lists; download the model again")
        names |= _names(config, found)
    return names


def refuse_partial(config: ModelConfig, missing: set[str], misshapen: set[str], unexpected: set[str]) -> None:
    """Refuse a base that is not wholly in its files: transformers would give the rest random numbers, which nothing would train.

    Args:
        config: Names the base.
        missing: Tensors of the network that its files lack.
        misshapen: Those that they hold in another shape.
        unexpected: Tensors in the files for which the network has no place. What stands outside the decoder's layers changes no reply (a
            classifier's head, say) and is left out; a tensor inside them means that config.json describes another model.

    Raises:
        WarmlineError: with the first names and how many there are.
    """
    inside = {name for name in unexpected if ".layers." in f".{name}"}
    for names, what in (
        (missing, "lacks {}, which would be random numbers; download the model again, or name one whose files are complete"),
        (misshapen, "holds {} in other shapes than its config.json says; take config.json and weights of one model"),
        (inside, "holds {} for which its config.json has no place; take config.json and weights of one model"),
    ):
        if names:
            raise _refused(config, what.format(_some(names)))


def _some(names: set[str], most: int = 3) -> str:
    first = ", ".join(sorted(names)[:most])
    return f"{len(names)} tensor{'s' * (len(names) > 1)} ({first}{', …' * (len(names) > most)})"


def _find(config: ModelConfig, path: str, name: str) -> Path | None:
    found = cached_file(path, name, revision=config.revision, _raise_exceptions_for_missing_entries=False)
    return None if found is None else Path(found)


def _without_weights(config: ModelConfig, path: str) -> WarmlineError:
    if any((Path(path) / name).is_file() for name in _PICKLES):
        return _refused(
            config,
            "has its weights as pickles alone (pytorch_model.bin), which can run code and are never loaded; on a machine where you trust "
            "them, convert them with transformers: AutoModelForCausalLM.from_pretrained(OLD).save_pretrained(NEW)",
        )
    return _refused(config, f"has no {_ONE} and no {_SHARDED}; name a model whose weights are in safetensors")


def _shards(config: ModelConfig, index: Path) -> list[str]:
    try:
        content: Any = json.loads(index.read_text(encoding="utf-8"))
        shards = sorted(set(content["weight_map"].values()))
        well_formed = isinstance(content["metadata"], dict) and all(_is_plain_safetensors(shard) for shard in shards)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        well_formed, shards = False, []
    if not well_formed or not shards:
        raise _refused(config, f"has a {_SHARDED} that does not list safetensors files beside it; download the model again")
    return shards


def _is_plain_safetensors(name: Any) -> bool:
    return isinstance(name, str) and name.endswith(".safetensors") and Path(name).name == name


def _names(config: ModelConfig, file: Path) -> set[str]:
    with file.open("rb") as opened:
        if opened.read(len(_POINTER)) == _POINTER:
            raise _refused(config, f"has a Git LFS pointer for {file.name}, not the weights; fetch them with `git lfs pull` in its folder")
    try:
        with safe_open(file, framework="pt") as tensors:
            return set(tensors.keys())
    except SafetensorError as error:
        raise _refused(config, f"has a {file.name} that is cut short or no safetensors file ({error}); download it again") from None


def _refused(config: ModelConfig, what: str) -> WarmlineError:
    return WarmlineError(f"model.name: `{config.name}` {what}")


def lora_config(lora: LoraSettings, trainable: bool = True) -> LoraConfig:
    """PEFT's settings of a run's adapter, all of them from its configuration.

    Args:
        lora: Of the run.
        trainable: False for evaluation and serving.
    """
    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.target_modules),
        use_rslora=lora.rank_stabilised,
        task_type="CAUSAL_LM",
        inference_mode=not trainable,
    )


def load_adapter(model: PeftModel, folder: Path) -> None:
    """Put a saved adapter into a fresh one, every tensor of it.

    Args:
        model: With an adapter of the run's shape.
        folder: `adapter/`.

    Raises:
        WarmlineError: no weights, damaged ones, or those of another base or adapter.
    """
    fresh = get_peft_model_state_dict(model, save_embedding_layers=False)  # PEFT's own `auto` asks the hub
    try:
        saved = load_file(folder / ADAPTER_WEIGHTS)
        _check_fit(saved, fresh)
        set_peft_model_state_dict(model, saved)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise damaged(folder, error) from None


def load_full_weights(base: PreTrainedModel, folder: Path, **placed: Any) -> PreTrainedModel:
    """A second model of the base's architecture, with a run's own weights.

    Args:
        base: Whose configuration is taken.
        folder: `model/`.
        placed: Where and how, as `from_pretrained` takes it.

    Raises:
        WarmlineError: no weights, damaged ones, or those of another base.
    """
    try:
        saved = {name: tensor for path in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(path).items()}
        loaded: PreTrainedModel
        loaded, how = type(base).from_pretrained(
            None, config=base.config, state_dict=saved, output_loading_info=True, trust_remote_code=False, **placed
        )
        strange = [*how["missing_keys"], *how["unexpected_keys"], *how["mismatched_keys"]]
        if strange:
            raise ValueError(f"{len(strange)} tensors do not fit this base, as {strange[0]}")
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise damaged(folder, error) from None
    return loaded


def _check_fit(saved: Mapping[str, Tensor], fresh: Mapping[str, Tensor]) -> None:
    for why, names in (("missing", fresh.keys() - saved.keys()), ("not of this adapter", saved.keys() - fresh.keys())):
        if names:
            raise ValueError(f"{len(names)} tensors are {why}, as {min(names)}")
    for name, tensor in sorted(saved.items()):
        if tensor.shape != fresh[name].shape:
            raise ValueError(f"{name} is {list(tensor.shape)}, this base and rank need {list(fresh[name].shape)}")


def damaged(folder: Path, error: Exception) -> WarmlineError:
    """What to tell a person whose saved weights cannot be loaded."""
    reason = " ".join(str(error).split())[:200]
    return WarmlineError(f"{folder}: saved weights cannot be loaded ({reason}); name the base they were tuned on, or train the run again")
