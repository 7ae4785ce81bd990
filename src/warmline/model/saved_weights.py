"""Saved weights put into a model that this run's configuration has built: tensors from safetensors, and nothing else of the folder.

`adapter_config.json` and `config.json` lie beside them for PEFT, transformers and vLLM; here neither is read, since either may name code
to import, folders and other repositories.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from warmline.config import LoraSettings
from warmline.errors import WarmlineError
from warmline.model.description import ADAPTER_WEIGHTS


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
