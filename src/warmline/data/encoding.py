"""From conversations to token ids, and where in them each objective reads.

Reading places (contract 1): a head of the user's turns at the turn's last token, its end-of-turn token; a head of the assistant's at the
last token of the header, whose state predicts the reply's first token. Both precede the reply. The language model and the safety KL read
the states that predict a reply's tokens, its end-of-turn token included.

A source is kept as a few flat int32 arrays, so that 100,000 conversations cost their tokens and little more, and a cache file can be
mapped into memory at once.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from warmline.config import DataConfig
from warmline.conversation import Conversation, Split, Turn
from warmline.data.enabled import EnabledSource, enabled_sources
from warmline.data.template import ChatTemplate, as_messages
from warmline.errors import WarmlineError, shown
from warmline.files import cache_file, keep
from warmline.tasks import TASKS, all_objectives

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

Array = TypeVar("Array", Int32, Int64, npt.NDArray[np.bool_])

_FORMAT = 3
"""Part of every cache key: raise it when what stands in the arrays, or its meaning, changes."""

_RENDER_BATCH = 2048


class Encoded(NamedTuple):
    """One conversation, ready to be packed. Positions count from its own first token.

    Attributes:
        tokens: [tokens].
        replies: [replies, 2], first token and one past the end-of-turn token of each supervised reply; the states one place earlier
            predict them.
        labels: By the name of each head that finds any, [labels, 2]: reading position and the labels' bits (bit i is label i of the task).
        skipped: [tokens], True for reply tokens that the language model does not learn; None for none.
    """

    tokens: Int32
    replies: Int32
    labels: dict[str, Int64]
    skipped: npt.NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class EncodedSource:
    """All conversations of one split of one source, in flat arrays; `*_ends[i]` is where conversation i's part ends.

    Attributes:
        name: The source.
        objectives: What it trains.
        tokens: [all tokens].
        token_ends: [conversations].
        replies: [all replies, 2], as in `Encoded`.
        reply_ends: [conversations].
        labels: By the name of each head that finds any, [all labels, 2].
        label_ends: By the same names, [conversations].
        originals: [conversations], which loaded conversation each came from: split ones share theirs.
        skipped: [all tokens], as in `Encoded`.
    """

    name: str
    objectives: tuple[str, ...]
    tokens: Int32
    token_ends: Int32
    replies: Int32
    reply_ends: Int32
    labels: dict[str, Int64]
    label_ends: dict[str, Int32]
    originals: Int32
    skipped: npt.NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.token_ends)

    @property
    def lengths(self) -> Int32:
        """Tokens of each conversation, [conversations]."""
        return np.diff(self.token_ends, prepend=np.int32(0))

    @property
    def split_conversations(self) -> int:
        """How many conversations were longer than a row and lie here in several parts."""
        return int((np.bincount(self.originals) > 1).sum()) if len(self) else 0

    def __getitem__(self, index: int) -> Encoded:
        return Encoded(
            _part(self.tokens, self.token_ends, index),
            _part(self.replies, self.reply_ends, index),
            {name: _part(labels, self.label_ends[name], index) for name, labels in self.labels.items()},
            None if self.skipped is None else _part(self.skipped, self.token_ends, index),
        )

    def target_counts(self) -> dict[str, Int32]:
        """Targets of each objective in each conversation, [conversations] each; `safety` counts a conversation as one."""
        of_replies = (self.replies[:, 1] - self.replies[:, 0]).astype(np.int64)
        sums = np.concatenate([[0], np.cumsum(of_replies)])
        reply_tokens = np.diff(sums[self.reply_ends], prepend=0).astype(np.int32)
        found = {name: np.diff(ends, prepend=np.int32(0)) for name, ends in self.label_ends.items()}
        if "lm" in self.objectives:
            skipped = 0 if self.skipped is None else np.diff(np.cumsum(self.skipped)[self.token_ends - 1], prepend=0)
            found["lm"] = (reply_tokens - skipped).astype(np.int32)
        if "safety" in self.objectives:
            found["safety"] = (reply_tokens > 0).astype(np.int32)
        return {name: found.get(name, np.zeros(len(self), np.int32)) for name in all_objectives()}


def encode(
    name: str,
    conversations: Sequence[Conversation],
    objectives: tuple[str, ...],
    template: ChatTemplate,
    row_tokens: int,
    split_long: bool = True,
) -> EncodedSource:
    """Encode one split of one source.

    Args:
        name: The source, for error messages.
        conversations: Any number. One without a single target is left out: it could train nothing.
        objectives: What the source trains.
        template: Renders and tokenises.
        row_tokens: Conversations longer than this are split between turns, before a user's turn where that is possible; each part
            carries the template's prefix (BOS, system prompt).
        split_long: False refuses them instead.

    Raises:
        WarmlineError: a conversation, or one turn of it, is longer than a row.
    """
    parts: list[Encoded] = []
    originals: list[int] = []
    for start in range(0, len(conversations), _RENDER_BATCH):
        batch = conversations[start : start + _RENDER_BATCH]
        rendered = template.tokenize([template.render(as_messages(conversation)) for conversation in batch])
        for offset, (conversation, ids) in enumerate(zip(batch, rendered, strict=True)):
            tokens = np.asarray(ids, dtype=np.int32)
            place = f"{name}: conversation {conversation.id}"
            starts = _turn_starts(tokens, len(conversation.turns), template, place)
            if len(tokens) > row_tokens and not split_long:
                raise WarmlineError(
                    f"{place} has {len(tokens)} tokens, more than data.row_tokens = {row_tokens}; raise it or set "
                    "data.long_conversations: split"
                )
            for first, last in _parts(conversation, starts, template.layout.prefix, row_tokens, place):
                part = _encode_part(conversation, tokens, starts, first, last, objectives, template, place)
                if len(part.replies) or part.labels:
                    parts.append(part)
                    originals.append(start + offset)
    return join_parts(name, objectives, parts, originals)


def _turn_starts(tokens: Int32, turns: int, template: ChatTemplate, place: str) -> list[int]:
    """Where each turn's header begins, and where the last turn ends."""
    layout = template.layout
    ends = np.flatnonzero(tokens[layout.prefix :] == layout.end_of_turn) + layout.prefix + 1 + layout.separator
    if len(ends) != turns or ends[-1] != len(tokens):
        raise WarmlineError(f"{place}: {len(ends)} turn ends in the rendered text of {turns} turns; the template does not fit")
    return [layout.prefix, *ends.tolist()]


def _parts(conversation: Conversation, starts: list[int], prefix: int, row_tokens: int, place: str) -> Iterator[tuple[int, int]]:
    """Ranges of turns that fit in a row.

    The next part begins with the last user's turn that leaves this one short enough, so that no reply is cut off from the message it
    answers. Where there is none (a run of replies longer than a row), this part is as full as it can be.
    """
    first = 0
    while first < len(starts) - 1:
        last = first
        while last < len(starts) - 1 and prefix + starts[last + 1] - starts[first] <= row_tokens:
            last += 1
        if last == first:
            raise WarmlineError(
                f"{place}: turn {first} alone has {starts[first + 1] - starts[first]} tokens, more than data.row_tokens = {row_tokens}; "
                "raise it or remove the conversation"
            )
        if last < len(starts) - 1:
            last = next((cut for cut in range(last, first, -1) if conversation.turns[cut].role == "user"), last)
        yield first, last
        first = last


def _encode_part(
    conversation: Conversation,
    tokens: Int32,
    starts: list[int],
    first: int,
    last: int,
    objectives: tuple[str, ...],
    template: ChatTemplate,
    place: str,
) -> Encoded:
    layout = template.layout
    shift = layout.prefix - starts[first]
    own = np.concatenate([tokens[: layout.prefix], tokens[starts[first] : starts[last]]])
    header = np.asarray(layout.reply_header, dtype=np.int32)
    replies: list[tuple[int, int]] = []
    labels: dict[str, list[tuple[int, int]]] = {}
    for index in range(first, last):
        turn = conversation.turns[index]
        begin, end = starts[index] + shift, starts[index + 1] + shift - layout.separator
        if turn.role == "assistant":
            reply = begin + len(header)
            if not np.array_equal(own[begin:reply], header):
                raise WarmlineError(f"{place}: the header of turn {index} merged with its text; the template does not fit")
            if turn.target and ("lm" in objectives or "safety" in objectives):
                replies.append((reply, end))
            read = reply - 1
        else:
            read = end - 1
        for name, bits in _label_bits(turn, objectives, f"{place}: turn {index}"):
            labels.setdefault(name, []).append((read, bits))
    found = {name: np.asarray(pairs, np.int64) for name, pairs in labels.items()}
    return Encoded(own, np.asarray(replies, np.int32).reshape(-1, 2), found)


def _label_bits(turn: Turn, trained: tuple[str, ...], place: str) -> Iterator[tuple[str, int]]:
    """Each head that has a label in the turn, and the labels' bits."""
    for name, labels in turn.labels.items():
        if name not in trained or not labels:
            continue
        task = TASKS[name]
        if turn.role != task.reads:
            raise WarmlineError(f"{place} is the {turn.role}'s, but has a label for the {name} head, which reads the {task.reads}'s turns")
        if unknown := next((label for label in labels if label not in task.labels), None):
            raise WarmlineError(f"{place}: `{shown(unknown)}` is no label of the {name} head; it has {', '.join(task.labels)}")
        yield name, reduce(or_, (1 << task.labels.index(label) for label in labels))


def join_parts(name: str, objectives: tuple[str, ...], parts: Sequence[Encoded], originals: Sequence[int]) -> EncodedSource:
    """Encoded conversations in flat arrays.

    Args:
        name: The source.
        objectives: What it trains.
        parts: In order.
        originals: Which loaded conversation each came from.
    """

    def joined(arrays: Sequence[np.ndarray], empty: np.ndarray) -> tuple[np.ndarray, Int32]:
        return np.concatenate([empty, *arrays]), np.cumsum([len(array) for array in arrays]).astype(np.int32)

    none, labels, label_ends = np.zeros((0, 2), np.int64), {}, {}
    for task in TASKS:
        if any(task in part.labels for part in parts):
            labels[task], label_ends[task] = joined([part.labels.get(task, none) for part in parts], none)
    return EncodedSource(
        name,
        objectives,
        *joined([part.tokens for part in parts], np.zeros(0, np.int32)),
        *joined([part.replies for part in parts], np.zeros((0, 2), np.int32)),
        labels,
        label_ends,
        np.asarray(originals, dtype=np.int32),
    )


def encode_source(source: EnabledSource, split: Split, config: DataConfig, template: ChatTemplate) -> EncodedSource:
    """Load and encode one split of one source, or map it from the cache when nothing it depends on has changed.

    In the cache it lies under a hash of the files' content, the tokenizer, the template and the settings.

    Raises:
        WarmlineError: bad or missing files, a conversation that does not fit.
    """
    cached = _cache_file(source, split, config, template)
    found = _read_cache(cached, source) if cached.exists() else None
    if found is None:
        conversations = source.load(split).conversations
        found = encode(source.name, conversations, source.objectives, template, config.row_tokens, config.long_conversations == "split")
        _write_cache(cached, found)
    if not len(found) and source.source.unanswered:
        raise WarmlineError(f"{source.name}: nobody has answered its prompts; `warmline rewrite` lets the base do it, into data.own_words")
    if not len(found):
        raise WarmlineError(f"{source.name}: no conversation of {split} has a target for its objectives {list(source.objectives)}")
    return found


def encode_split(split: Split, config: DataConfig, template: ChatTemplate) -> list[EncodedSource]:
    """One split of every enabled source, in the order of SOURCES.

    Raises:
        WarmlineError: bad or missing files, a conversation that does not fit.
    """
    return [encode_source(source, split, config, template) for source in enabled_sources(config)]


def _cache_file(source: EnabledSource, split: Split, config: DataConfig, template: ChatTemplate) -> Path:
    settings = {
        "format": _FORMAT,
        "source": source.name,
        "split": split,
        "version": source.source.version,
        "objectives": source.objectives,
        "labels": {name: [task.reads, *task.labels] for name, task in TASKS.items() if name in source.objectives},
        "settings": source.settings.model_dump(mode="json"),
        "row_tokens": config.row_tokens,
        "split_long": config.long_conversations,
        "system_prompt": config.system_prompt,
        "template": template.source,
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    digest.update(_tokenizer_bytes(template))
    for path in source.depends_on(split):
        try:
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        except OSError:
            break  # the loader reports it
    return cache_file(f"{source.name}-{split}-{digest.hexdigest()[:24]}.safetensors")


def _tokenizer_bytes(template: ChatTemplate) -> bytes:
    backend = getattr(template.tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise WarmlineError("this model has no fast tokenizer (tokenizer.json); choose a model that has one")
    return str(backend.to_str()).encode()


_COLUMNS = ("tokens", "token_ends", "replies", "reply_ends", "originals")


def _read_cache(path: Path, source: EnabledSource) -> EncodedSource | None:
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError):
        return None  # half-written by another version, or damaged: encode again
    labels, ends = (
        {name.removeprefix(kind): arrays.pop(name) for name in list(arrays) if name.startswith(kind)} for kind in ("labels.", "label_ends.")
    )
    if set(arrays) != set(_COLUMNS) or set(labels) != set(ends):
        return None
    return EncodedSource(source.name, source.objectives, **arrays, labels=labels, label_ends=ends)


def _write_cache(path: Path, encoded: EncodedSource) -> None:
    arrays = {name: getattr(encoded, name) for name in _COLUMNS}
    for name, labels in encoded.labels.items():
        arrays |= {f"labels.{name}": labels, f"label_ends.{name}": encoded.label_ends[name]}
    keep(path, lambda aside: save_file(arrays, aside), SafetensorError)


def _part(array: Array, ends: Int32, index: int) -> Array:
    return array[ends[index - 1] if index else 0 : ends[index]]
