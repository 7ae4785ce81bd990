"""What several tests need: the tiny model's folder, noise on an adapter, a run's metrics, runs in processes of their own."""

import json
import multiprocessing
import shutil
from importlib import resources
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, Qwen3Config

from warmline.bench.model import in_4bit, store_in_4bit
from warmline.config import RunConfig, TrainingConfig
from warmline.data.mixture import Draw
from warmline.data.packing import Batch, collate
from warmline.data.template import ChatTemplate
from warmline.model.device import Place
from warmline.model.multitask import MultiTaskModel
from warmline.runs import RunFolder
from warmline.training.loop import train
from warmline.training.view import View

CPU = Place(torch.device("cpu"), torch.float32, "no")
OPTIMIZERS = get_args(TrainingConfig.model_fields["optimizer"].annotation)
"""Every optimiser that a configuration may name."""

ED, ESCONV, GOEMOTIONS, SAFETY = range(4)
"""Places of the sources in SOURCES."""


class Tiny(NamedTuple):
    """A fresh model and what it was made from."""

    model: MultiTaskModel
    config: RunConfig
    template: ChatTemplate


def architecture(**changes: Any) -> Qwen3Config:
    """Two layers, hidden 32, four heads that share two key heads."""
    values: dict[str, Any] = {
        "vocab_size": 8192, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 4096, "tie_word_embeddings": True,
        "eos_token_id": 2, "pad_token_id": 0, "bos_token_id": None,
    }  # fmt: skip
    return Qwen3Config(**{**values, **changes})


OWN_DEFAULTS: dict[str, Any] = {
    "repetition_penalty": 5.0, "no_repeat_ngram_size": 1, "min_new_tokens": 6, "min_length": 200, "max_length": 3, "top_k": 2, "top_p": 0.1,
    "typical_p": 0.2, "min_p": 0.9, "top_h": 0.1, "epsilon_cutoff": 0.02, "eta_cutoff": 0.02, "num_beams": 3, "bad_words_ids": [[5]],
    "suppress_tokens": [5, 6], "begin_suppress_tokens": [7], "forced_bos_token_id": 9, "forced_eos_token_id": 9, "guidance_scale": 3.0,
    "sequence_bias": [[[11], 50.0]], "exponential_decay_length_penalty": (1, 9.0), "stop_strings": ["a"],
    "penalty_alpha": 0.6, "prompt_lookup_num_tokens": 3, "return_dict_in_generate": True, "renormalize_logits": True,
    "remove_invalid_values": True, "use_cache": False, "cache_implementation": "static", "encoder_repetition_penalty": 5.0,
}  # fmt: skip
"""Fields of a base's own `generation_config`, each with a value that changes replies or breaks `generate` where it is heeded."""


def write_architecture(folder: Path, config: PreTrainedConfig | None = None, tokenizer: Path | None = None) -> Path:
    """A model folder without weights: a configuration and a tokenizer, nano's by default."""
    tokenizer = tokenizer or Path(str(resources.files("warmline") / "assets" / "nano"))
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer / name, folder / name)
    (config or architecture()).save_pretrained(folder)
    return folder


def stored_in_4bit(folder: Path) -> Path:
    """A Qwen3 whose files hold NF4 weights and their own bf16, as those of unsloth/Qwen3-8B-bnb-4bit; bitsandbytes makes it on a CPU."""
    plain = write_architecture(folder / "plain", architecture(hidden_size=64, head_dim=16, tie_word_embeddings=False))
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(plain), dtype=torch.bfloat16).save_pretrained(plain)
    store_in_4bit(str(plain))
    return Path(in_4bit(str(plain)))


def perturb(model: MultiTaskModel, scale: float = 0.1) -> None:
    """Noise on everything that is tuned: a fresh adapter changes nothing, and a fresh head says nothing."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in (*model.backbone.parameters(), *model.heads.parameters()):
            if parameter.requires_grad:
                parameter.add_(scale * torch.randn(parameter.shape, generator=generator))


def one_of_each(sources: Any, *places: int, most: int = 300) -> list[Draw]:
    """For each place, the first conversation of that source with at most so many tokens and not used yet."""
    taken: list[Draw] = []
    for place in places:
        lengths = sources[place].lengths
        taken.append(next(draw for at in range(len(lengths)) if lengths[at] <= most and (draw := Draw(place, at)) not in taken))
    return taken


def pack(sources: Any, draws: list[Draw]) -> Batch:
    """The draws in one row."""
    return collate(sources, [tuple(draws)])


def gradients(model: MultiTaskModel) -> dict[str, Tensor]:
    """Of everything that trains; a missing one fails the test."""
    found = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"{name} is not in the graph"
            found[name] = parameter.grad.clone()
    return found


def metrics(run: RunFolder, kind: str | None = None) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl without what the clock decides."""
    lines = [json.loads(line) for line in run.metrics.read_text(encoding="utf-8").splitlines()]
    return [
        {key: value for key, value in line.items() if key not in ("seconds", "tokens_per_second")}
        for line in lines
        if kind in (None, line["kind"])
    ]


def quiet_train(config: RunConfig, resume: bool = False, overwrite: bool = False) -> RunFolder:
    """`train` without output."""
    return train(config, resume, overwrite, View(quiet=True))


def start_training(config: RunConfig, resume: bool = False) -> BaseProcess:
    """Train in a process of its own, forked from a server that has done the slow imports."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.tools"])
    process = context.Process(target=_train_in_process, args=(config, resume))
    process.start()
    return process


def _train_in_process(config: RunConfig, resume: bool) -> None:
    torch.set_num_threads(1)
    quiet_train(config, resume)
