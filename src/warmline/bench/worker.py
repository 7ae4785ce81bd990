"""One contender in one process: build it, warm it up, time its steps, print one JSON line.

python -m warmline.bench.worker '{"case": "ours", "model": "/tmp/model", ...}'
"""

import dataclasses
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

Contender = Literal["transformers", "unsloth", "ours"]


@dataclass(frozen=True)
class Case:
    """One measurement.

    Attributes:
        case: Its name in tables.
        contender: Who runs it: padded transformers + PEFT, padded Unsloth, or warmline's own step.
        backend: The library underneath.
        workload: `mix` or `full`.
        model: Folder of the model.
        weights: `nf4` or `bf16` base weights.
        checkpointing: none, selective, full or offload.
        tokens: Tokens of a packed micro-batch (ours).
        fused: Whether ours takes the fused kernels.
        auxiliary: False leaves heads and safety KL out of ours.
        liger: Whether padded transformers takes Liger's kernels.
        card: `t4` plays a T4 on a larger card: fp16, 15 GiB, and the attention kernel that such a card has. Its model is stored in 4 bits,
            with bf16 in its files, as the recipe's is.
        gpus: Processes, one a GPU, that share a step (ours).
        warm_up: Steps before timing.
        steps: Steps timed.
    """

    case: str
    contender: Contender
    backend: str
    workload: Literal["mix", "full"]
    model: str
    weights: Literal["nf4", "bf16"] = "nf4"
    checkpointing: Literal["none", "selective", "full", "offload"] = "full"
    tokens: int = 8192
    fused: bool = True
    auxiliary: bool = True
    liger: bool = False
    card: Literal["", "t4"] = ""
    gpus: int = 1
    warm_up: int = 4
    steps: int = 10


RANK, ALPHA = 16, 16
T4_GIB = 15.0
Step = Callable[[], int]


def main() -> None:
    """Run the case given as JSON on the command line."""
    case = Case(**json.loads(sys.argv[1]))
    if case.card == "t4":
        _play_t4()
    os.environ.update(HF_HUB_OFFLINE="1", UNSLOTH_DISABLE_STATISTICS="1", TOKENIZERS_PARALLELISM="false")
    build = {"transformers": _padded_transformers, "unsloth": _padded_unsloth, "ours": _ours}[case.contender]
    measured = _measure(build(case), case)
    if os.environ.get("RANK", "0") == "0":
        print(json.dumps({**dataclasses.asdict(case), **measured}), flush=True)


def _measure(step: Step, case: Case) -> dict[str, Any]:
    import torch

    for _ in range(case.warm_up):
        step()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    seconds, tokens = [], []
    for _ in range(case.steps):
        began = time.perf_counter()
        tokens.append(step() * case.gpus)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return {
        "tokens_per_second": statistics.median(number / took for number, took in zip(tokens, seconds, strict=True)),
        "seconds_per_step": statistics.median(seconds),
        "tokens_per_step": statistics.mean(tokens),
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30,
        "reserved_gib": torch.cuda.max_memory_reserved() / 2**30,
    }


def _play_t4() -> None:
    import torch

    from warmline.model.fast import attention

    torch.cuda.set_per_process_memory_fraction(T4_GIB * 2**30 / torch.cuda.get_device_properties(0).total_memory)
    attention.FLASH_CAPABILITY = (99, 0)


def _ours(case: Case) -> Step:
    if case.backend == "unsloth":
        from warmline.model.choose import import_unsloth

        import_unsloth()  # before transformers, as it asks
    import torch
    from accelerate import Accelerator

    from warmline.bench.workload import FULL_ROWS, ROW_TOKENS, full_source, mixture_sources, packed_batches
    from warmline.config import LossWeights, RunConfig
    from warmline.data.packing import collate, count_targets
    from warmline.model.device import choose_place
    from warmline.model.heads import Heads, head_specs
    from warmline.model.losses import weighted_loss
    from warmline.model.multitask import MultiTaskModel
    from warmline.model.reader import BaseStates
    from warmline.model.transformers_backbone import TransformersBackbone
    from warmline.model.unsloth_backbone import UnslothBackbone
    from warmline.settings import LoraSettings, ModelConfig, TrainingConfig
    from warmline.tasks import TASKS
    from warmline.training.optimizer import Optimizer

    training = TrainingConfig(optimizer="adamw_8bit", precision="fp16" if case.card == "t4" else "auto")
    accelerator = Accelerator(mixed_precision="no")
    rank = accelerator.process_index
    place = choose_place(training, accelerator.device)
    config = ModelConfig(name=case.model, load_in_4bit=case.weights == "nf4", fused=case.fused)
    lora = LoraSettings(r=RANK, alpha=ALPHA)
    kind = UnslothBackbone if case.backend == "unsloth" else TransformersBackbone
    backbone = kind(config, lora, place.device, place.dtype, checkpointing=case.checkpointing)
    model = MultiTaskModel(
        backbone, Heads(backbone.hidden_size, head_specs(RunConfig(name="bench", model=config))).to(place.device)
    ).train()
    vocabulary = len(backbone.unembedding)
    sources = mixture_sources(vocabulary) if case.workload == "mix" else full_source(vocabulary)
    budget = case.tokens if case.workload == "mix" else FULL_ROWS * ROW_TOKENS
    rows = packed_batches(sources, budget, seed=rank)
    counts = [source.target_counts() for source in sources]
    weights = LossWeights()
    if not case.auxiliary:
        weights = weights.model_copy(update=dict.fromkeys(("safety", *TASKS), 0.0))
    if not case.auxiliary:
        sources = [dataclasses.replace(source, objectives=tuple(name for name in source.objectives if name == "lm")) for source in sources]
    base_states = BaseStates(model, sources, place)
    optimizer = Optimizer(model, training)
    scaler = torch.amp.GradScaler("cuda", enabled=place.dtype == torch.float16)
    wrapped = accelerator.prepare_model(model, device_placement=False)

    def step() -> int:
        row = next(rows)
        batch = collate(sources, [row]).to(place.device)
        with place.autocast():
            loss = weighted_loss(wrapped(batch, base_states(batch)), weights, count_targets(counts, [row]))
        scaler.scale(loss).backward()
        optimizer.collect()
        scaler.unscale_(optimizer.inner)
        optimizer.clip(training.max_grad_norm)
        optimizer.step(scaler)
        return len(batch.tokens)

    return step


def _padded_transformers(case: Case) -> Step:
    """The usual recipe: prepare_model_for_kbit_training, PEFT, checkpointing, a padded batch with labels on the replies."""
    import torch
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    from warmline.settings import SEVEN_PROJECTIONS

    if case.liger:
        from liger_kernel.transformers import apply_liger_kernel_to_qwen3

        apply_liger_kernel_to_qwen3()
    quantisation = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.bfloat16
    )
    model = AutoModelForCausalLM.from_pretrained(
        case.model,
        quantization_config=quantisation,
        device_map={"": 0},
        dtype=torch.bfloat16,
        trust_remote_code=False,
        use_safetensors=True,
    )
    model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=True, gradient_checkpointing_kwargs={"use_reentrant": False})
    lora = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=list(SEVEN_PROJECTIONS), lora_dropout=0.0, task_type="CAUSAL_LM")
    return _padded_step(get_peft_model(model, lora), case)


def _padded_unsloth(case: Case) -> Step:
    """Unsloth's documented recipe: FastLanguageModel, its own checkpointing, a padded batch with labels on the replies."""
    from unsloth import FastLanguageModel  # before transformers, as it asks  # isort: skip
    import torch

    from warmline.bench.workload import ROW_TOKENS
    from warmline.settings import SEVEN_PROJECTIONS

    model, _ = FastLanguageModel.from_pretrained(
        case.model, max_seq_length=ROW_TOKENS, load_in_4bit=True, dtype=torch.bfloat16, local_files_only=True, trust_remote_code=False
    )
    model = FastLanguageModel.get_peft_model(
        model,
        r=RANK,
        target_modules=list(SEVEN_PROJECTIONS),
        lora_alpha=ALPHA,
        lora_dropout=0,
        bias="none",
        use_gradient_checkpointing="unsloth",
        random_state=0,
    )
    FastLanguageModel.for_training(model)
    return _padded_step(model, case)


def _padded_step(model: Any, case: Case) -> Step:
    import torch

    model.train()
    optimizer = _optimizer(model.parameters())
    batches = _padded_batches(case.workload, model.config.vocab_size)

    def step() -> int:
        tokens, batch = next(batches)
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = model(**{name: value.cuda() for name, value in batch.items()}).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_([each for each in model.parameters() if each.requires_grad], 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return tokens

    return step


def _padded_batches(workload: str, vocabulary: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Real tokens and the padded batch that holds them."""
    import numpy as np
    import torch

    from warmline.bench.workload import FULL_ROWS, PADDED_CONVERSATIONS, ROW_TOKENS, lengths

    generator = np.random.default_rng(0)
    while True:
        own = [ROW_TOKENS] * FULL_ROWS if workload == "full" else lengths(PADDED_CONVERSATIONS, generator)
        shape = (len(own), max(own))
        tokens = torch.from_numpy(generator.integers(0, vocabulary, shape))
        inside = torch.arange(shape[1])[None] < torch.tensor(own)[:, None]
        replies = inside & (torch.arange(shape[1])[None] >= torch.tensor(own)[:, None] // 2)
        yield sum(own), {"input_ids": tokens, "attention_mask": inside.long(), "labels": tokens.masked_fill(~replies, -100)}


def _optimizer(parameters: Any) -> Any:
    from bitsandbytes.optim import AdamW8bit

    return AdamW8bit([each for each in parameters if each.requires_grad], lr=2e-4)


if __name__ == "__main__":
    main()
