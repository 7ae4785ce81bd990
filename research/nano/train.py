"""Stage `train`: warmline-nano from random weights, in a given number of seconds on one GPU.

General text first; in the last part, while the learning rate falls, mostly dialogues in our chat template. The loss is on every token:
the users' turns are English too, and the streams are small. Documents lie end to end behind <|endoftext|>, without a mask between them;
every row begins where a document begins, as a served conversation does.
"""

import json
import math
import shutil
import time
from pathlib import Path

import numpy as np
import torch
import transformers
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoTokenizer, PreTrainedTokenizerBase, Qwen3Config, Qwen3ForCausalLM

from nano.corpus import PROOF, STREAMS

PHASES = ((0.65, {"text": 0.42, "sampled": 0.55, "real": 0.03}), (1.0, {"text": 0.12, "sampled": 0.78, "real": 0.10}))
"""Up to this share of the time, these shares of the rows. `real` is small: after five passes over it validation gets worse (docs/nano.md),
so it has six in all, most of them when they count."""
LEARNING_RATE = 3e-3
DECAY_FROM = 0.6
"""Share of the time after which the learning rate falls to zero, in a straight line."""


def architecture(tokenizer: PreTrainedTokenizerBase) -> Qwen3Config:
    """Eight layers of 256: 8.4 million parameters, 2.1 of them the tied embedding."""
    return Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=8,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


class Streams:
    """The token streams on the device, and rows drawn from them."""

    def __init__(self, folder: Path, context: int, device: str, seed: int) -> None:
        self.generator = torch.Generator(device).manual_seed(seed)
        self.span = torch.arange(context + 1, device=device)
        tokens, self.starts, self.sizes, offset = [], [], [], 0
        for name in STREAMS:
            stream = np.load(folder / f"{name}.npy")
            starts = torch.from_numpy(np.load(folder / f"{name}-starts.npy")).to(device)
            tokens.append(torch.from_numpy(stream.astype(np.int32)).to(device))
            self.starts.append(starts + offset)
            self.sizes.append(len(stream))
            offset += len(stream)
        self.tokens = torch.cat(tokens)
        last = offset - context - 1
        self.starts = [starts[starts <= last] if len(starts[starts <= last]) else starts[:1] for starts in self.starts]
        self.drawn = [0] * len(STREAMS)

    def draw(self, rows: int, shares: dict[str, float]) -> Tensor:
        """[rows, context + 1] token ids; each row begins at a document of a stream drawn by the shares."""
        begins = []
        left = rows
        for index, name in enumerate(STREAMS):
            count = left if index == len(STREAMS) - 1 else min(left, round(rows * shares[name]))
            left -= count
            starts = self.starts[index]
            begins.append(starts[torch.randint(len(starts), (count,), generator=self.generator, device=starts.device)])
            self.drawn[index] += count * (len(self.span) - 1)
        return self.tokens[torch.cat(begins)[:, None] + self.span].long()

    @property
    def epochs(self) -> dict[str, float]:
        """Tokens drawn over tokens there are, by stream."""
        return {name: round(drawn / size, 2) for name, drawn, size in zip(STREAMS, self.drawn, self.sizes, strict=True)}


def learning_rate(passed: float, step: int) -> float:
    return LEARNING_RATE * min(1.0, (step + 1) / 100, max(0.0, 1 - passed) / (1 - DECAY_FROM))


def train_stage(corpus: Path, out: Path, seconds: float, rows: int, seed: int, compiled: bool, context: int) -> None:
    """Train and write the model folder: bfloat16 weights, config, tokenizer, `pretraining.json`; the corpus' record and proof go along."""
    torch.manual_seed(seed)
    torch.set_float32_matmul_precision("high")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = AutoTokenizer.from_pretrained(corpus, trust_remote_code=False)
    model = Qwen3ForCausalLM._from_config(architecture(tokenizer), dtype=torch.float32, attn_implementation="sdpa").to(device)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    streams = Streams(corpus, context, device, seed)
    held_out, valid_bytes = validation_rows(corpus, tokenizer, context)
    matrices = [p for p in model.parameters() if p.ndim == 2]
    gains = [p for p in model.parameters() if p.ndim < 2]
    optimiser = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": gains, "weight_decay": 0.0}],
        lr=LEARNING_RATE,
        betas=(0.9, 0.95),
        fused=device == "cuda",
    )

    def loss_of(tokens: Tensor, reduction: str = "mean") -> Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            # no mask: attention then takes the causal kernel
            mask = {"full_attention": None}
            hidden = model.model(input_ids=tokens[:, :-1], attention_mask=mask, use_cache=False).last_hidden_state
            logits = F.linear(hidden, model.lm_head.weight)
        return F.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten(), reduction=reduction)

    train_loss = torch.compile(loss_of, dynamic=False) if compiled else loss_of

    def validate() -> float:
        with torch.no_grad():
            total = sum(loss_of(held_out[begin : begin + 32].to(device), "sum").item() for begin in range(0, len(held_out), 32))
        return total / math.log(2) / valid_bytes

    per_step = rows * context
    print(
        f"{parameters:,} parameters, {device}; {rows} rows x {context} = {per_step:,} tokens, "
        f"{6 * parameters * per_step:.1e} FLOP a step;\n"
        f"streams of {dict(zip(STREAMS, streams.sizes, strict=True))} tokens; {seconds:.0f} s; validation on {held_out.numel():,} tokens.",
        flush=True,
    )
    log: list[dict[str, object]] = [{"step": 0, "valid_bits_per_byte": round(validate(), 4)}]
    begun = time.monotonic()
    start, step, passed, recent = begun, 0, 0.0, []
    while passed < 1:
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(passed, step)
        shares = next(shares for until, shares in PHASES if passed < until)
        loss = train_loss(streams.draw(rows, shares))
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        step += 1
        recent.append(loss.detach())
        if step % 10 == 0 or device == "cpu":
            loss.item()  # the clock below must not run ahead of the device
        if step == 3:
            print(f"first steps, compilation included: {time.monotonic() - begun:.0f} s", flush=True)
            start = time.monotonic()
        passed = (time.monotonic() - start) / seconds if step >= 3 else 0.0
        if step % 250 == 0 or passed >= 1:
            entry = {
                "step": step,
                "seconds": round(time.monotonic() - start, 1),
                "tokens": step * per_step,
                "train_loss": round(torch.stack(recent).mean().item(), 4),
                "valid_bits_per_byte": round(validate(), 4),
                "gradient_norm": round(norm.item(), 3),
                "epochs": streams.epochs,
            }
            recent = []
            log.append(entry)
            print(json.dumps(entry), flush=True)
    save(model, corpus, out)
    record = {
        "parameters": parameters,
        "seed": seed,
        "seconds": round(time.monotonic() - start, 1),
        "steps": step,
        "tokens": step * per_step,
        "epochs": streams.epochs,
        "rows": rows,
        "context": context,
        "learning_rate": LEARNING_RATE,
        "decay_from": DECAY_FROM,
        "phases": [{"until": until, "shares": shares} for until, shares in PHASES],
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "log": log,
    }
    (out / "pretraining.json").write_text(json.dumps(record, indent=1) + "\n")
    print(f"{out}: {(out / 'model.safetensors').stat().st_size / 2**20:.1f} MiB of weights", flush=True)


def validation_rows(corpus: Path, tokenizer: PreTrainedTokenizerBase, context: int) -> tuple[Tensor, int]:
    """[rows, context + 1] of the valid dialogues end to end, and the bytes that the predicted tokens spell, template included."""
    tokens = np.load(corpus / "valid.npy").astype(np.int64)
    count = (len(tokens) - 1) // context
    rows = torch.from_numpy(np.stack([tokens[row * context : row * context + context + 1] for row in range(count)]))
    return rows, len(tokenizer.decode(tokens[1 : count * context + 1].tolist()).encode())


def save(model: Qwen3ForCausalLM, corpus: Path, out: Path) -> None:
    """The folder that ships: weights in bfloat16 with their config, the tokenizer, the corpus' record and proof."""
    out.mkdir(parents=True, exist_ok=True)
    model.config.dtype = torch.bfloat16
    model.to(torch.bfloat16).save_pretrained(out)
    (out / "generation_config.json").unlink(missing_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "corpus.json", PROOF):
        shutil.copy(corpus / name, out / name)
