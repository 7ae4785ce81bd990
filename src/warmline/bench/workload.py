"""What every contender trains on: token lengths of the mixture, or full rows, from a fixed seed.

`mix` draws conversation lengths like the mixture's: 36 % around 150 tokens (EmpatheticDialogues), 8 % around 730 (ESConv), 56 % around 50
(GoEmotions), log-normal. `full` is rows of one conversation each, as long as the row. Token values do not matter for speed and are random.
"""

from collections.abc import Iterator
from typing import Literal

import numpy as np

from warmline.data.encoding import EncodedSource
from warmline.data.mixture import MixtureSampler
from warmline.data.packing import Row, RowPacker
from warmline.tasks.emotion import EMOTIONS
from warmline.tasks.strategy import STRATEGIES

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
    return [_joined("empathetic_dialogues", rows)]


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
    return _joined(name, [_conversation(name, _length(source, generator), turns, vocabulary, generator) for _ in range(conversations)])


_Parts = tuple[np.ndarray, list[tuple[int, int]], list[tuple[int, int]], list[tuple[int, int]]]


def _conversation(name: str, length: int, turns: int, vocabulary: int, generator: np.random.Generator) -> _Parts:
    tokens = generator.integers(0, vocabulary, length, dtype=np.int32)
    edges = np.linspace(0, length, turns + 1).astype(int)
    replies = [(max(1, start), end) for start, end in zip(edges[1:-1:2], edges[2::2], strict=True) if end > start] if turns > 1 else []
    emotion = [(length - 1, 1 << int(generator.integers(len(EMOTIONS))))] if name == "goemotions" else []
    strategy = [(start - 1, int(generator.integers(len(STRATEGIES)))) for start, _ in replies] if name == "esconv" else []
    return tokens, replies, emotion, strategy


def _joined(name: str, parts: list[_Parts]) -> EncodedSource:
    def column(at: int) -> tuple[np.ndarray, np.ndarray]:
        ends = np.cumsum([len(part[at]) for part in parts]).astype(np.int32)
        values = [np.asarray(part[at], dtype=np.int32) for part in parts]
        shaped = values if at == 0 else [value.reshape(-1, 2) for value in values]
        return np.concatenate(shaped), ends

    objectives = {"esconv": ("lm", "strategy"), "goemotions": ("emotion",), "safety": ("safety",)}.get(name, ("lm",))
    return EncodedSource(name, objectives, *column(0), *column(1), *column(2), *column(3), originals=np.arange(len(parts), dtype=np.int32))  # type: ignore[arg-type]
