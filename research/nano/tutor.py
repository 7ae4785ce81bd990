"""Stage `sample`: tens of millions of tokens written by Gemma 3 270M, first as it is (prose), then tuned on the train splits (dialogues).

The base model's prose is sound English, but its dialogues, asked for by example, turn in circles. Two passes over the train splits of
EmpatheticDialogues, ESConv and GoEmotions (under a minute) are enough for it to hold a conversation, and what it then invents, feeling by
feeling, is the dialogue corpus. It also learns where a document ends, and that another of the same kind follows, so that every token it
writes is of use. Only the train splits are read here.
"""

import gzip
import json
import math
import random
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from nano.gemma import GemmaSampler
from warmline.config import DataConfig
from warmline.conversation import Conversation, Split
from warmline.data.enabled import enabled_sources
from warmline.tasks.emotion import EMOTIONS

SHARES = {"prose": 0.30, "dialogue": 0.48, "support": 0.10, "comment": 0.12}
"""Of the sampling time. Prose comes first, from the untuned model."""
SETTINGS = {"prose": (0.95, 0.06), "dialogue": (0.85, 0.06), "support": (0.85, 0.06), "comment": (0.95, 0.05)}
"""Temperature and min-p. Cooler, the untuned model repeats itself and the tuned one says it is sorry to hear that."""
SPEAKERS = {"user": "A", "assistant": "B"}
PIECE = 1400
"""Characters of a long ESConv dialogue that make one document, about 350 tokens."""
OPENINGS = (
    """
My brother and I|When I was a child|The morning after the storm|My best friend called me and|At work today|The old dog|My neighbor
On the way home|I had never been so happy|I was so afraid that|My grandmother used to|The teacher smiled and|After the wedding
My daughter came home|The letter said that|We had been waiting for|It was raining when|I did not know what to say when
The first time I|Last summer we|My son asked me why|The doctor told us|In the kitchen|I still remember the day
She was angry because|He felt lonely after|My husband and I|The little girl|My roommate|I lost my job and|We moved to a new town
The cat sat|I finally passed|Yesterday at the store|My parents never|I am proud of|It is hard to talk about
A good friend is someone who|When somebody is sad|To calm down before an exam|Being kind to yourself means
It helps to listen because|People often feel lonely when|Saying sorry is hard because|A warm meal|Every family
If you cannot sleep at night|The best gift I ever got|I was embarrassed when|My first day at school|Our house|On my birthday
The bus was late and|I miss|I cannot wait to|I feel guilty about|I trusted him, but|My sister is getting married
I was surprised to see|The hospital|My garden|I love cooking|Sunday mornings are|Growing up, we|The baby|My boss told me
I was scared of|When my father died|I made a mistake at work|It was late in the evening and|My cousin|After school|The two friends
Once there was a boy who|A long time ago|There was a small village where
""".strip()
    .replace("\n", "|")
    .split("|")
)
FRAMES = ("{}", "Dear diary,\n\n{}", "A short story in simple words\n\n{}", "My story\n\n{}")


def train_documents(data: Path, split: Split) -> dict[str, list[str]]:
    """The documents the tutor is tuned on, by kind, as plain text.

    Args:
        data: Folder of the official files.
        split: `train`, or `valid` to watch the tuning.
    """
    config = DataConfig(dir=str(data))
    found: dict[str, list[str]] = {"dialogue": [], "support": [], "comment": []}
    for source in enabled_sources(config):
        if source.name == "safety":
            continue
        for conversation in source.load(split).conversations:
            if source.name == "empathetic_dialogues":
                found["dialogue"].append(f"Feeling: {conversation.situation}\n" + lines(conversation) + "\n\n")
            elif source.name == "esconv":
                found["support"] += [f"Support chat\n{piece}\n\n" for piece in pieces(lines(conversation))]
            else:
                turn = conversation.turns[0]
                if "[" not in turn.text:
                    found["comment"].append(f"Comment, {' and '.join(turn.emotions)}: {turn.text}\n\n")
    return found


def lines(conversation: Conversation) -> str:
    """One line a turn, `A:` for the user and `B:` for the assistant."""
    return "\n".join(f"{SPEAKERS[turn.role]}: {' '.join(turn.text.split())}" for turn in conversation.turns)


def pieces(text: str) -> Iterator[str]:
    """A long dialogue in pieces that begin with a user's turn."""
    piece: list[str] = []
    for line in text.split("\n"):
        if piece and line.startswith("A:") and sum(map(len, piece)) > PIECE:
            yield "\n".join(piece)
            piece = []
        piece.append(line)
    yield "\n".join(piece)


def plain_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[int]:
    """Token ids that spell plain English: printable ASCII that occurs twice in the texts, and the words among the first 40,000."""
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    counts = torch.zeros(max(vocabulary.values()) + 1, dtype=torch.long)
    for begin in range(0, len(texts), 10_000):
        batch = tokenizer(list(texts[begin : begin + 10_000]), add_special_tokens=False)["input_ids"]
        counts += torch.bincount(torch.tensor([token for ids in batch for token in ids]), minlength=len(counts))
    printable, word = re.compile("[\x20-\x7e\u2581\n]+"), re.compile("\u2581?([a-z]+|[A-Z][a-z]*)")
    byte = re.compile("<0x..>")
    keep = {index for token, index in vocabulary.items() if counts[index] > 1 and printable.fullmatch(token) and not byte.match(token)}
    return sorted(keep | {index for token, index in vocabulary.items() if index < 40_000 and word.fullmatch(token)})


class Clock:
    """Seconds since its making, with a line for every stage."""

    def __init__(self) -> None:
        self.begin = time.monotonic()

    def seconds(self) -> float:
        """Since the clock was made."""
        return time.monotonic() - self.begin

    def say(self, text: str) -> None:
        """Print a line behind the time."""
        print(f"[{self.seconds():6.1f} s] {text}", flush=True)


def packed_rows(
    tokenizer: PreTrainedTokenizerBase, documents: dict[str, list[str]], ids: Sequence[int], length: int, rng: random.Random
) -> Tensor:
    """[rows, length] token ids in random order: shuffled documents of one kind that the kept ids can spell, each after BOS, end to end."""
    known = set(ids)
    rows: list[Tensor] = []
    for kind in documents.values():
        stream: list[int] = []
        for tokens in tokenizer(rng.sample(kind, len(kind)), add_special_tokens=False)["input_ids"]:
            if known.issuperset(tokens):
                stream += [tokenizer.bos_token_id, *tokens]
        rows += torch.tensor(stream[: len(stream) // length * length]).view(-1, length)
    rng.shuffle(rows)
    return torch.stack(rows)


def tune(
    folder: Path, rows: Tensor, valid: Tensor, ids: Tensor, seconds: float, batch: int, device: str, clock: Clock
) -> dict[str, Tensor]:
    """Tune every weight on the packed rows for a given time, the learning rate falling linearly with it.

    Returns:
        The tuned weights, by their names in the model's file.
    """
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="sdpa", trust_remote_code=False, use_safetensors=True
    ).to(device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.0, betas=(0.9, 0.95), weight_decay=0.0, fused=device == "cuda")
    place = torch.zeros(model.config.vocab_size, dtype=torch.long, device=device)
    place[ids] = torch.arange(len(ids), device=device)

    def loss_of(tokens: Tensor) -> Tensor:
        tokens = tokens.to(device)
        with torch.autocast(device, torch.bfloat16):
            hidden = model.model(input_ids=tokens[:, :-1], use_cache=False).last_hidden_state
            logits = F.linear(hidden, model.get_input_embeddings().weight[ids])
        return F.cross_entropy(logits.flatten(0, 1).float(), place[tokens[:, 1:]].flatten())

    def validate() -> float:
        with torch.no_grad():
            return sum(loss_of(valid[begin : begin + batch]).item() for begin in range(0, len(valid), batch)) / math.ceil(
                len(valid) / batch
            )

    clock.say(f"tuning on {rows.numel():,} tokens for {seconds:.0f} s; validation loss before {validate():.3f}")
    start, step, order = time.monotonic(), 0, torch.randperm(len(rows)).repeat(20)
    while (passed := (time.monotonic() - start) / seconds) < 1 and (step + 1) * batch <= len(order):
        for group in optimiser.param_groups:
            group["lr"] = 1e-4 * min(1, (step + 1) / 20) * (1 - passed)
        loss = loss_of(rows[order[step * batch : (step + 1) * batch]])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        step += 1
        if step % 25 == 0:
            clock.say(f"  step {step}, loss {loss.item():.3f}, {step * batch / len(rows):.2f} epochs")
    clock.say(f"tuned {step} steps, {step * batch / len(rows):.2f} epochs; validation loss {validate():.3f}")
    return {name: tensor.detach() for name, tensor in model.state_dict().items() if name != "lm_head.weight"}


def free_memory(device: str) -> None:
    """Give back what the last stage's cache held: the next one needs blocks of other sizes."""
    if device == "cuda":
        torch.cuda.empty_cache()


def prompts(kind: str, count: int, documents: Sequence[str], rng: random.Random) -> list[str]:
    """What the model continues.

    Args:
        kind: Of SHARES.
        count: How many.
        documents: Train dialogues: their feelings head the dialogues, the first words of their turns open half of the prose.
        rng: Draws.
    """
    if kind == "dialogue":
        return [rng.choice(documents).split("\n")[0] + "\nA:" for _ in range(count)]
    if kind == "comment":
        return [f"Comment, {rng.choice(EMOTIONS)}:" for _ in range(count)]
    if kind == "support":
        return ["Support chat\nA:"] * count
    return [rng.choice(FRAMES).format(opening(documents, rng)) for _ in range(count)]


def opening(documents: Sequence[str], rng: random.Random) -> str:
    """The first words of a text: ours, or those of a train turn."""
    if rng.random() < 0.5:
        return rng.choice(OPENINGS)
    turn = rng.choice(rng.choice(documents).split("\n")[1:-2])
    return " ".join(turn.split()[1 : rng.randint(3, 6)])


def sample_stage(gemma: Path, data: Path, out: Path, seconds: float, tune_seconds: float, batch: int, new_tokens: int, seed: int) -> None:
    """Write `out/sampled-KIND.jsonl.gz` (one text a line, prompt and continuation) and `out/sample.json`."""
    clock, rng = Clock(), random.Random(seed)
    torch.manual_seed(seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(gemma / "tokenizer.json"), bos_token="<bos>")
    documents = train_documents(data, "train")
    every = [text for kind in documents.values() for text in kind]
    ids = sorted({tokenizer.bos_token_id, *plain_ids(tokenizer, every)})
    clock.say(f"{len(every):,} train documents; {len(ids) - 1:,} of Gemma's tokens are plain English")
    sampler = GemmaSampler(gemma, ids, device, torch.bfloat16 if device == "cuda" else torch.float32)
    generator = torch.Generator(device).manual_seed(seed)
    record: dict[str, object] = {"seed": seed, "new_tokens": new_tokens, "batch": batch, "settings": SETTINGS, "shares": SHARES}
    for kind, share in SHARES.items():
        if kind == "dialogue":
            rows = packed_rows(tokenizer, documents, ids, 513, rng)
            valid = packed_rows(tokenizer, train_documents(data, "valid"), ids, 513, rng)
            clock.say("rows packed")
            rows_a_step = 32 if device == "cuda" else 2
            free_memory(device)
            tuned = tune(gemma, rows, valid[: 2 * rows_a_step], sampler.ids, tune_seconds, rows_a_step, device, clock)
            sampler.load(tuned)
            del tuned
            free_memory(device)
        start, count, temperature, min_p = time.monotonic(), 0, *SETTINGS[kind]
        with gzip.open(out / f"sampled-{kind}.jsonl.gz", "wt", compresslevel=4) as file:
            while count == 0 or time.monotonic() - start < share * seconds:
                asked = prompts(kind, batch, documents["dialogue"], rng)
                heads = [[tokenizer.bos_token_id, *tokens] for tokens in tokenizer(asked, add_special_tokens=False)["input_ids"]]
                written = sampler.sample(heads, new_tokens, temperature, min_p, generator)
                texts = tokenizer.backend_tokenizer.decode_batch(written.tolist(), skip_special_tokens=False)
                for prompt, text in zip(asked, texts, strict=True):
                    file.write(json.dumps(prompt + text) + "\n")
                count += written.numel()
                clock.say(f"{kind}: {count:,} tokens, {count / (time.monotonic() - start):,.0f} a second")
        record[kind] = {"tokens": count, "seconds": round(time.monotonic() - start, 1)}
    (out / "sample.json").write_text(json.dumps(record | {"seconds": round(clock.seconds(), 1)}, indent=1))
