"""Stage `build`: sampled text and train splits become three token streams, a tokenizer, and a proof of what is not among them.

`real` are the train dialogues of EmpatheticDialogues and ESConv and `sampled` the tutor's, both in our chat template; `text` is everything
else: prose, comments, GoEmotions' train texts. What stands in the sample data, in a safety or red-team set, or in a valid or test split is
left out of all three (`Forbidden`).
"""

import gzip
import hashlib
import json
import lzma
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from nano.tutor import FRAMES, Clock
from warmline.config import DataConfig
from warmline.conversation import SPLITS, Conversation
from warmline.data.enabled import enabled_sources
from warmline.data.template import ChatTemplate, Message
from warmline.plain_yaml import read_yaml
from warmline.redteam.suites import text_hash
from warmline.sources.files import sample_dir

VOCABULARY = 8192
SPLIT = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
END = "<|endoftext|>"
STREAMS = ("text", "sampled", "real")
PROOF = "corpus_lines.bitmap.xz"

BUCKET_BITS = 22
"""Lines are hashed to 4.2 million buckets: half a megabyte says which of them the corpus fills."""
LINE_WORDS = 5
"""Shorter lines ("thank you so much") stand everywhere and tell nothing."""
HELD_OUT_WORDS = 8
"""A valid or test line this long may not stand in the corpus; shorter ones are shared by the official splits themselves."""
GRAM = 13
"""A run of words shared with a forbidden text that marks a copy."""
WORDS = re.compile(r"\w+")


class Document(NamedTuple):
    """A text, or a dialogue of (role, text) turns, and where it is from."""

    source: str
    text: str = ""
    turns: tuple[tuple[str, str], ...] = ()

    @property
    def lines(self) -> list[str]:
        """What the overlap check and the proof compare: turns, or paragraphs."""
        return [text for _, text in self.turns] or [line for line in self.text.split("\n") if line]


def bucket(line: str) -> int | None:
    """The line's bucket by its words alone (case, punctuation and spacing do not hide a copy); None for a short line."""
    return int(text_hash(line)[:12], 16) >> (48 - BUCKET_BITS) if len(WORDS.findall(line)) >= LINE_WORDS else None


def grams(line: str) -> set[int]:
    """Hashes of the line's runs of GRAM words."""
    words = WORDS.findall(line.lower())
    return {hash(tuple(words[start : start + GRAM])) for start in range(len(words) - GRAM + 1)}


class Forbidden(NamedTuple):
    """What no document of the corpus may hold.

    Attributes:
        buckets: Of the lines of the sample data and of every safety set. A document that so much as shares a bucket goes, so that the
            published bitmap of filled buckets proves their absence.
        hashes: Of valid and test lines of at least HELD_OUT_WORDS words.
        grams: Of all these.
    """

    buckets: frozenset[int]
    hashes: frozenset[str]
    grams: frozenset[int]

    def forbids(self, document: Document) -> bool:
        """Whether a line of the document stands among them."""
        for line in document.lines:
            if bucket(line) in self.buckets or not self.grams.isdisjoint(grams(line)):
                return True
            if len(WORDS.findall(line)) >= HELD_OUT_WORDS and text_hash(line) in self.hashes:
                return True
        return False


def all_rows(folder: str) -> DataConfig:
    """Every row of every source, GoEmotions' neutral ones too."""
    return DataConfig.model_validate({"dir": folder, "sources": {"goemotions": {"labels": 28}}})


def sample_lines() -> list[str]:
    """Every turn of the package's sample data, its safety set and its red-team suite."""
    config = all_rows("sample")
    lines = [
        turn.text
        for source in enabled_sources(config)
        for split in SPLITS
        for conversation in source.load(split).conversations
        for turn in conversation.turns
    ]
    red_team = (sample_dir().parent / "safety" / "red_team.yaml").read_text(encoding="utf-8")
    return lines + [turn for item in read_yaml(red_team)["items"] for turn in item["turns"]]


def forbidden(data: Path) -> Forbidden:
    """Gather what must stay out.

    Args:
        data: Folder of the official files; xstest/ and simple_safety_tests/ in it are read where they are there.
    """
    shown = sample_lines()
    for name in ("xstest", "simple_safety_tests"):
        for path in sorted((data / name).glob("*.csv")):
            shown += [cell.strip('"') for row in path.read_text(encoding="utf-8").split("\n") for cell in row.split(",")]
    config = all_rows(str(data))
    held_out = [
        turn.text
        for source in enabled_sources(config)
        if source.name != "safety"
        for split in ("valid", "test")
        for conversation in source.load(split).conversations
        for turn in conversation.turns
    ]
    return Forbidden(
        frozenset(found for line in shown if (found := bucket(line)) is not None),
        frozenset(text_hash(line) for line in held_out if len(WORDS.findall(line)) >= HELD_OUT_WORDS),
        frozenset(gram for line in shown + held_out for gram in grams(line)),
    )


# ---- reading

STRANGE = re.compile(r"https?:|www\.|\.com|@|[<>{}|\\\[\]=_~^*#]|\d{5,}|\.{4,}|!{3,}|\?{3,}|User \d|\bsubreddit\b")
LITTLE_WORDS = re.compile(
    r"\b(?:the|an?|to|and|of|in?|you|it|is|was|that|my|for|on|me|s?he|with|they|we|be|so|are|have|but|not|do|at|had)\b"
)
SENTENCE = re.compile(r"[.!?][\"')]?(?=\s|$)")


def sound(text: str) -> bool:
    """Plain English prose: no markup or addresses, mostly letters, ordinary little words, not all capitals."""
    words = WORDS.findall(text.lower())
    if STRANGE.search(text) or len(words) < 2 or sum(map(len, words)) > 8 * len(words):
        return False
    letters = sum(letter.isalpha() or letter == " " for letter in text)
    little = len(LITTLE_WORDS.findall(text.lower()))
    return letters > 0.85 * len(text) and (len(words) < 12 or little > 0.2 * len(words)) and not text.isupper()


def cut_at_repetition(text: str, run: int = 6) -> str:
    """The text up to where a run of words occurs for the second time."""
    seen: set[tuple[str, ...]] = set()
    matches = list(WORDS.finditer(text.lower()))
    for start in range(len(matches) - run + 1):
        key = tuple(match[0] for match in matches[start : start + run])
        if key in seen:
            return text[: matches[start].start()]
        seen.add(key)
    return text


def whole_sentences(text: str) -> str:
    """The text up to its last full stop, question or exclamation mark."""
    ends = [match.end() for match in SENTENCE.finditer(text)]
    return text[: ends[-1]].strip() if ends else ""


def read_prose(text: str) -> Iterable[Document]:
    """One document of a sampled text: cut where it repeats itself, back to a whole sentence; nothing when little is left."""
    text = re.split(r"<bos>|<eos>", text)[0]
    for frame in FRAMES:
        text = text.removeprefix(frame.removesuffix("{}"))
    text = re.sub(r"[ \t]+", " ", whole_sentences(cut_at_repetition(text)))
    text = re.sub(r" ?\n ?", "\n", re.sub(r"\n{2,}", "\n", text))
    if len(WORDS.findall(text)) >= 25 and sound(text):
        yield Document("gemma_prose", text)


def read_dialogues(text: str, source: str) -> Iterable[Document]:
    """Every dialogue of a sampled text; the last, which the end of the text cut off, loses its last line."""
    roles = {"A": "user", "B": "assistant"}
    *whole, last = re.split(r"\n\n+|<bos>|<eos>", text)
    for block in [*whole, last.rpartition("\n")[0]]:
        turns: list[tuple[str, str]] = []
        for line in block.strip().split("\n")[1:]:
            speaker, _, said = line.partition(": ")
            if speaker not in roles or not said.strip():
                turns = []
                break
            turns.append((roles[speaker], said.strip()))
        while turns and turns[-1][0] == "user":  # the chat ends with a reply
            turns.pop()
        if turns and turns[0][0] == "user" and not repetitive([said for _, said in turns]) and all(sound_turn(said) for _, said in turns):
            yield Document(source, turns=tuple(turns))


def repetitive(turns: Sequence[str]) -> bool:
    """Whether a turn, or a run of seven words, occurs twice."""
    joined = "\n".join(turns)
    return len(set(turns)) < len(turns) or len(cut_at_repetition(joined, 7)) < len(joined)


def sound_turn(text: str) -> bool:
    """A turn may be short; a long one must be sound."""
    return len(text) < 400 and not STRANGE.search(text) and (len(text) < 30 or sound(text))


def read_comments(text: str) -> Iterable[Document]:
    """Every whole comment of a sampled text, the feeling after it: so that the state at its end has something to say of the feeling."""
    for block in re.split(r"\n\n+|<bos>|<eos>", text)[:-1]:
        head, _, said = block.strip().partition(": ")
        if head.startswith("Comment, ") and len(said) > 15 and sound(said):
            yield Document("gemma_comments", f"{said}\nFeeling: {head.removeprefix('Comment, ')}")


READERS = {
    "prose": read_prose,
    "dialogue": lambda text: read_dialogues(text, "gemma_dialogues"),
    "support": lambda text: read_dialogues(text, "gemma_support"),
    "comment": read_comments,
}

_FORBIDDEN: Forbidden  # set before the pool forks: a million hashes are not sent to every worker


class Checked(NamedTuple):
    """A document, and what the main process needs of it; made in the workers, since it takes their time and not its own.

    Attributes:
        document: The document.
        forbidden: Whether it must stay out.
        opening: Hash of its first words: two texts that begin alike are one.
        buckets: Of its lines.
    """

    document: Document
    forbidden: bool
    opening: bytes
    buckets: list[int]


def _check(documents: Iterable[Document]) -> list[Checked]:
    checked = []
    for document in documents:
        opening = " ".join(WORDS.findall(" ".join(document.lines[:3]).lower())[:40])
        buckets = [found for line in document.lines if (found := bucket(line)) is not None]
        digest = hashlib.blake2b(opening.encode(), digest_size=12).digest()
        checked.append(Checked(document, _FORBIDDEN.forbids(document), digest, buckets))
    return checked


def _read_lines(task: tuple[str, list[str]]) -> list[Checked]:
    kind, lines = task
    return _check(document for line in lines for document in READERS[kind](json.loads(line)))


def train_conversations(data: Path) -> Iterator[tuple[str, Conversation]]:
    """Every conversation of the three train splits, after the name of its source."""
    config = all_rows(str(data))
    for source in enabled_sources(config):
        if source.name != "safety":
            for conversation in source.load("train").conversations:
                yield source.name, conversation


def train_split(data: Path) -> list[Document]:
    """The train splits as documents: dialogues as they are, GoEmotions' texts with their labels after them."""
    found = []
    for name, conversation in train_conversations(data):
        if name == "goemotions":
            turn = conversation.turns[0]
            found.append(Document(name, f"{turn.text}\nFeeling: {' and '.join(turn.emotions)}"))
        else:
            found.append(Document(name, turns=tuple((turn.role, turn.text) for turn in conversation.turns)))
    return found


def chunks(items: Sequence, size: int) -> list:  # type: ignore[type-arg]
    return [items[begin : begin + size] for begin in range(0, len(items), size)]


def gather(sampled: Path, data: Path, workers: int, limit: int | None, clock: Clock) -> tuple[list[Checked], dict[str, int]]:
    """All documents, each once, none forbidden; and how many were left out, by reason."""
    global _FORBIDDEN
    _FORBIDDEN = forbidden(data)
    clock.say(f"{len(_FORBIDDEN.buckets):,} sample and safety lines, {len(_FORBIDDEN.hashes):,} held-out lines must stay out")
    found: list[Checked] = []
    read = 0
    with get_context("fork").Pool(workers) as pool:
        for part in pool.imap(_check, chunks(train_split(data), 2000)):
            found += part
        for kind in READERS:
            with gzip.open(sampled / f"sampled-{kind}.jsonl.gz", "rt") as file:
                lines = file.readlines()[:limit]
            before = len(found)
            for part in pool.imap(_read_lines, [(kind, lines_of) for lines_of in chunks(lines, 500)]):
                found += part
            read += len(lines)
            clock.say(f"{kind}: {len(lines):,} sampled texts gave {len(found) - before:,} documents")
    allowed = [checked for checked in found if not checked.forbidden]
    kept = list({checked.opening: checked for checked in reversed(allowed)}.values())
    overlap, duplicates = len(found) - len(allowed), len(allowed) - len(kept)
    return kept, {"sampled texts read": read, "overlap with sample, safety, valid or test": overlap, "duplicates": duplicates}


# ---- tokenizer and streams


def train_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE with Qwen's splitting rule and chat tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(SPLIT), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END, "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token=END, additional_special_tokens=["<|im_start|>"]
    )


def stream_of(document: Document) -> str:
    """Which stream a document joins."""
    return "text" if not document.turns else "sampled" if document.source.startswith("gemma") else "real"


def render(document: Document, template: ChatTemplate) -> str:
    if not document.turns:
        return template.clean(document.text) + END
    return template.render([Message(role=role, content=text) for role, text in document.turns]) + END


def bitmap(buckets: Iterable[int]) -> bytes:
    """One bit a bucket: set where a line of the corpus falls."""
    filled = np.zeros(1 << BUCKET_BITS, dtype=bool)
    filled[np.fromiter(buckets, np.int64)] = True
    return np.packbits(filled).tobytes()


def write_proof(out: Path, proof: bytes) -> dict[str, str | int]:
    """Write the bitmap beside the model; what its record says of it."""
    (out / PROOF).write_bytes(lzma.compress(proof, preset=6))
    return {
        "file": PROOF,
        "bits": 1 << BUCKET_BITS,
        "filled": int(np.unpackbits(np.frombuffer(proof, np.uint8)).sum()),
        "line_words": LINE_WORDS,
        "sha256": hashlib.sha256(proof).hexdigest(),
    }


def with_shares(sources: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The part of the record that says how many tokens each source gave, and all of them."""
    total = sum(row["tokens"] for row in sources.values())
    return {"sources": {name: row | {"share": round(row["tokens"] / total, 4)} for name, row in sorted(sources.items())}, "tokens": total}


def build_stage(sampled: Path, data: Path, out: Path, workers: int, limit: int | None, seed: int) -> None:
    """Write the tokenizer, `STREAM.npy` (uint16 tokens), `STREAM-starts.npy`, `valid.npy`, `corpus.json` and `corpus_lines.bitmap`."""
    clock, rng = Clock(), random.Random(seed)
    out.mkdir(parents=True, exist_ok=True)
    kept, left_out = gather(sampled, data, workers, limit, clock)
    rng.shuffle(kept)
    documents = [checked.document for checked in kept]
    clock.say(f"{len(documents):,} documents; left out: {left_out}")
    plain = ["\n".join(document.lines) for document in documents]
    tokenizer = train_tokenizer(plain[: max(2000, 40_000_000 * len(plain) // max(1, sum(map(len, plain))))])  # 40 MB settle 8,000 merges
    template = ChatTemplate(tokenizer)
    tokenizer.save_pretrained(out)
    clock.say(f"tokenizer of {len(tokenizer)} tokens trained")
    sources: dict[str, dict[str, int]] = {}
    for name in STREAMS:
        group = [document for document in documents if stream_of(document) == name]
        tokens, starts = encode([render(document, template) for document in group], tokenizer)
        np.save(out / f"{name}.npy", tokens)
        np.save(out / f"{name}-starts.npy", starts)
        lengths = np.diff(np.append(starts, len(tokens)))
        for document, length in zip(group, lengths.tolist(), strict=True):
            row = sources.setdefault(document.source, {"documents": 0, "tokens": 0, "bytes": 0})
            row["documents"] += 1
            row["tokens"] += length
            row["bytes"] += sum(len(line.encode()) for line in document.lines)
        clock.say(f"{name}: {len(tokens):,} tokens in {len(starts):,} documents")
    held_out = encode([render(document, template) for document in valid_dialogues(data)], tokenizer)
    np.save(out / "valid.npy", held_out[0])
    np.save(out / "valid-starts.npy", held_out[1])
    proof = bitmap(found for checked in kept for found in checked.buckets)
    record = {
        "seed": seed,
        "sampling": json.loads((sampled / "sample.json").read_text()),
        **with_shares(sources),
        "left_out": left_out,
        "stream_sha256": {name: hashlib.sha256((out / f"{name}.npy").read_bytes()).hexdigest() for name in STREAMS},
        "data_sha256": data_sums(data),
        "proof": write_proof(out, proof),
    }
    (out / "corpus.json").write_text(json.dumps(record, indent=1) + "\n")
    shares = ", ".join(f"{name} {row['share']:.1%}" for name, row in record["sources"].items())
    clock.say(f"corpus of {record['tokens']:,} tokens: {shares}")


def encode(texts: Sequence[str], tokenizer: PreTrainedTokenizerFast) -> tuple[np.ndarray, np.ndarray]:
    """uint16 tokens of the texts end to end, and where each begins."""
    parts: list[np.ndarray] = []
    for batch in chunks(texts, 20_000):
        parts += [np.array(encoding.ids, np.uint16) for encoding in tokenizer.backend_tokenizer.encode_batch_fast(batch)]
    starts = np.cumsum([0] + [len(part) for part in parts[:-1]])
    return np.concatenate(parts), starts.astype(np.int64)


def valid_dialogues(data: Path) -> list[Document]:
    """The valid splits of the dialogue sets, to watch the training."""
    config = DataConfig(dir=str(data))
    return [
        Document(source.name, turns=tuple((turn.role, turn.text) for turn in conversation.turns))
        for source in enabled_sources(config)
        if source.name in ("empathetic_dialogues", "esconv")
        for conversation in source.load("valid").conversations[:400]
    ]


def data_sums(data: Path) -> dict[str, str]:
    """sha256 of the official files that the train splits are read from."""
    names = ("empathetic_dialogues/train.csv", "esconv/ESConv.json", "goemotions/train.tsv")
    return {name: hashlib.sha256((data / name).read_bytes()).hexdigest() for name in names}
