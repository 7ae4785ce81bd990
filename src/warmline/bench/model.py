"""A checkpoint of a real architecture with random weights: speed and memory do not depend on their values."""

import shutil
from importlib import resources
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig, Qwen3Config

from warmline.model.transformers_backbone import nf4

QWEN3_8B = {
    "vocab_size": 151936,
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 40960,
    "rope_theta": 1e6,
    "tie_word_embeddings": False,
}
"""Qwen3-8B's published architecture."""


def qwen3_8b() -> PreTrainedConfig:
    """Qwen3-8B's configuration."""
    return Qwen3Config(**QWEN3_8B, dtype="bfloat16")


def write_random_model(config: PreTrainedConfig, folder: Path) -> None:
    """Save bfloat16 weights drawn from seed 0, with nano's tokenizer beside them (loaders ask for one).

    Args:
        config: The architecture; 8B takes 16 GB of disk.
        folder: Made if it is missing.
    """
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, trust_remote_code=False)
    model.save_pretrained(folder, max_shard_size="4GB")
    nano = resources.files("warmline") / "assets" / "nano"
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(str(nano / name), folder / name)


def in_4bit(folder: str) -> str:
    """Where `store_in_4bit` puts the copy of a model."""
    return f"{folder.rstrip('/')}-nf4"


def store_in_4bit(folder: str) -> None:
    """Save a copy whose files hold NF4 weights and, beside them, bf16: the kind of checkpoint that the recipe names.

    Args:
        folder: Of the model.
    """
    place = {"": 0 if torch.cuda.is_available() else "cpu"}
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.bfloat16,
        quantization_config=nf4(torch.bfloat16),
        device_map=place,
        trust_remote_code=False,
        use_safetensors=True,
    )
    model.save_pretrained(in_4bit(folder))
    AutoTokenizer.from_pretrained(folder, trust_remote_code=False).save_pretrained(in_4bit(folder))
