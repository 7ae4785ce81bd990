"""What every contender trains on: token lengths of the mixture, or full rows, from a fixed seed.

`mix` draws conversation lengths like the mixture's: 36 % around 150 tokens (EmpatheticDialogues), 8 % around 730 (ESConv), 56 % around 50
(GoEmotions), log-normal. `full` is rows of one conversation each, as long as the row. Token values do not matter for speed and are random.

A checkpoint of a real architecture with random weights: speed and memory do not depend on their values.
"""

import shutil
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig, Qwen3Config

from warmline.data.encoding import Encoded, EncodedSource, join_parts
from warmline.data.mixture import MixtureSampler
from warmline.data.packing import Row, RowPacker
from warmline.model.base import nf4
from warmline.sources import SOURCES
from warmline.tasks import TASKS

Workload = Literal["mix", "full"]

ROW_TOKENS = 2048
FULL_ROWS = 2
PADDED_CONVERSATIONS = 8
_SOURCES = (
    # name, share of the draws, median tokens, sigma of the log, turns
    ("empathetic_dialogues", 0.33, 150, 0.35, 4),
    ("esconv", 0.08, 730, 0.35, 28),
    ("goemotions", 0.56, 50, 0.40, 1),
    ("safety", 0.03, 150, 0.35, 4),
)


def lengths(conversations: int, generator: np.random.Generator) -> list[int]:
    """Token lengths of some conversations of the mixture."""
    chosen = generator.choice(len(_SOURCES), size=conversations, p=[source[1] for source in _SOURCES])
    return [_length(_SOURCES[at], generator) for at in chosen]


def mixture_sources(vocabulary: int, seed: int = 0, conversations: int = 2000) -> list[EncodedSource]:
    """Encoded sources with the mixture's lengths and shares: replies on half of the tokens, labels where the real sources have them."""
    generator = np.random.default_rng(seed)
    return [_source(source, round(conversations * source[1]), vocabulary, generator) for source in _SOURCES]


def full_source(vocabulary: int, seed: int = 0) -> list[EncodedSource]:
    """Conversations that fill a row each, with replies on half of the tokens."""
    generator = np.random.default_rng(seed)
    rows = [_conversation("empathetic_dialogues", ROW_TOKENS, 8, vocabulary, generator) for _ in range(64)]
    return [join_parts("empathetic_dialogues", ("lm",), rows, range(len(rows)))]


def packed_batches(sources: list[EncodedSource], tokens: int, seed: int = 0) -> Iterator[Row]:
    """Endless rows of at most `tokens` tokens."""
    packer = RowPacker(sources, MixtureSampler([len(source) for source in sources], 1.0, seed), tokens, 256)
    while True:
        yield packer.row()


def _length(source: tuple[str, float, int, float, int], generator: np.random.Generator) -> int:
    return int(np.clip(generator.lognormal(np.log(source[2]), source[3]), 16, ROW_TOKENS))


def _source(
    source: tuple[str, float, int, float, int], conversations: int, vocabulary: int, generator: np.random.Generator
) -> EncodedSource:
    name, turns = source[0], source[4]
    parts = [_conversation(name, _length(source, generator), turns, vocabulary, generator) for _ in range(conversations)]
    return join_parts(name, _objectives(name), parts, range(len(parts)))


def _conversation(name: str, length: int, turns: int, vocabulary: int, generator: np.random.Generator) -> Encoded:
    """Random tokens, with a reply every other turn and labels of the heads that the source of that name carries."""
    tokens = generator.integers(0, vocabulary, length, dtype=np.int32)
    edges = np.linspace(0, length, turns + 1).astype(int)
    replies = [(max(1, start), end) for start, end in zip(edges[1:-1:2], edges[2::2], strict=True) if end > start] if turns > 1 else []
    labels = {}
    for head in (objective for objective in _objectives(name) if objective in TASKS):
        read = [length - 1] if TASKS[head].reads == "user" else [start - 1 for start, _ in replies]
        if read:
            labels[head] = np.asarray([(at, 1 << int(generator.integers(TASKS[head].classes))) for at in read])
    return Encoded(tokens, np.asarray(replies, np.int32).reshape(-1, 2), labels)


def _objectives(name: str) -> tuple[str, ...]:
    return SOURCES[name].settings().objectives if name in SOURCES else ("lm",)


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
