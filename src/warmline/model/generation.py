"""Generating replies: what any backbone needs, and `Replies`, which makes many at once.

`Replies` is continuous batching with transformers' own decoder. Rows of very different ages go on together by one token a step; those that
have ended leave, and waiting prompts take their places. Keys and values lie in `Columns`: whatever a row's age, its newest token stands in
the same column as every other row's, and what stands left of its first token is not looked at. A prompt is read once, however many
replies to it are drawn, and prompts are read packed, so that nothing is computed for padding.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from transformers import (
    DynamicCache,
    GenerationConfig,
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from warmline.model.backbone import Sampling

_COLDEST = 1e-4
"""Temperature below which the likeliest token is taken: logits divided by less may be infinite, and nothing could be drawn from them."""


def pad_left(prompts: list[list[int]], padding: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, both [prompts, longest]: each prompt ends in the last column."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[padding] * (longest - len(prompt)) + prompt for prompt in prompts], device=device)
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    return ids, mask


def generation_settings(sampling: Sampling, end_of_turn: int) -> dict[str, Any]:
    """Settings of transformers' `generate`; what they leave out is off, as long as `without_own_defaults` holds."""
    settings: dict[str, Any] = {
        "max_new_tokens": sampling.max_new_tokens,
        "do_sample": sampling.temperature > 0,
        "eos_token_id": end_of_turn,
        "pad_token_id": end_of_turn,
    }
    if sampling.temperature > 0:
        settings |= {"temperature": sampling.temperature, "top_p": sampling.top_p, "min_p": sampling.min_p, "top_k": 0}
    return settings


@contextmanager
def without_own_defaults(model: Any) -> Iterator[None]:
    """Within it, `generate` follows the settings it is given and no others.

    It takes whatever they leave out from the model's own `generation_config`: a Qwen2.5 brings a repetition penalty, others forced or
    suppressed tokens or a least length. The serving engine and the losses know nothing of them.

    Args:
        model: A transformers model; its `generation_config` is the same again afterwards.
    """
    own, model.generation_config = model.generation_config, GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own


def until(reply: list[int], end_of_turn: int) -> list[int]:
    """The reply before its end of turn."""
    return reply[: reply.index(end_of_turn)] if end_of_turn in reply else reply


class RowCaches:
    """What a decoder takes for its cache while many conversations go on by one token each: every row has transformers' cache of its own.

    Args:
        caches: Of the first rows; rows beyond them are padding and leave nothing behind.
    """

    def __init__(self, caches: Sequence[DynamicCache]) -> None:
        self._caches = caches

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Keys and values of a layer, [1, heads, rows, head size], each row's into its own cache; returned as they came."""
        for row, cache in enumerate(self._caches):
            cache.update(keys[:, :, row : row + 1], values[:, :, row : row + 1], layer)
        return keys, values


def warpers(sampling: Sampling) -> LogitsProcessorList:
    """What transformers' `generate` does to logits before it draws, in its order; empty takes the likeliest token."""
    found = LogitsProcessorList()
    if sampling.temperature >= _COLDEST:
        found.append(TemperatureLogitsWarper(sampling.temperature))
        if sampling.top_p < 1:
            found.append(TopPLogitsWarper(sampling.top_p))
        if sampling.min_p > 0:
            found.append(MinPLogitsWarper(sampling.min_p))
    return found


def draw_tokens(logits: Tensor, warp: LogitsProcessorList, generator: torch.Generator | None) -> Tensor:
    """The next token of each row, [rows].

    Args:
        logits: [rows, vocabulary], fp32.
        warp: From `warpers`; empty takes the likeliest token.
        generator: On the logits' device; None draws from torch's own.
    """
    if not warp:
        return logits.argmax(dim=-1)
    scores = warp(torch.empty(len(logits), 0, dtype=torch.long, device=logits.device), logits)
    return torch.multinomial(scores.softmax(dim=-1), 1, generator=generator)[:, 0]


def draw_token(logits: Tensor, warp: LogitsProcessorList, generator: torch.Generator | None) -> int:
    """The next token of one row, [vocabulary]."""
    return int(draw_tokens(logits[None], warp, generator))


class Columns:
    """Keys and values of many rows, of which each one's newest token stands in the newest column.

    Attributes:
        starts: [rows], the column of each row's first token.
        used: Columns that hold something.
    """

    def __init__(self, device: torch.device) -> None:
        self.starts = torch.empty(0, dtype=torch.long, device=device)
        self.used = 0
        self._columns = 0
        self._layers: list[tuple[Tensor, Tensor]] = []
        self._tokens: Tensor | slice = slice(None)  # of the pass to come, and the rows and columns where they belong
        self._places: tuple[Tensor, Tensor | int] = (self.starts, 0)

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Keys and values of a layer, [1, key heads, tokens, head size], to their places; returned as they came."""
        if layer == len(self._layers):
            shape = (len(self.starts), keys.shape[1], self._columns, keys.shape[3])
            self._layers.append((keys.new_zeros(shape), values.new_zeros(shape)))
        rows, columns = self._places
        for kept, new in zip(self._layers[layer], (keys, values), strict=True):
            kept[rows, :, columns] = new[0].transpose(0, 1)[self._tokens]
        return keys, values

    def newest(self, layer: int, window: int | None) -> tuple[Tensor, Tensor, Tensor]:
        """What the newest tokens look at: keys and values, [rows, key heads, columns, head size], and which of them, [rows, columns].

        Args:
            layer: Which.
            window: Columns from the newest backwards; None for all.
        """
        first = 0 if window is None else max(0, self.used - window)
        keys, values = (kept[:, :, first : self.used] for kept in self._layers[layer])
        return keys, values, torch.arange(first, self.used, device=self.starts.device) >= self.starts[:, None]

    def step(self) -> Tensor:
        """Begin the next column, in which every row is to write one token; its position in each row, [rows]."""
        self._tokens, self._places = slice(None), (torch.arange(len(self.starts), device=self.starts.device), self.used)
        self.used += 1
        return self.used - 1 - self.starts

    def rearrange(self, staying: Sequence[int], coming: Sequence[int], room: int) -> None:
        """Rows leave, and empty ones come behind those that stay; all move as far to the left as the longest lets them.

        Args:
            staying: Rows, in order.
            coming: Tokens of each row that comes.
            room: Columns that are to be free on the right.
        """
        device, kept = self.starts.device, torch.tensor(staying, dtype=torch.long, device=self.starts.device)
        lengths = torch.cat([(self.used - self.starts)[kept], torch.tensor(coming, dtype=torch.long, device=device)])
        moved = int(lengths[: len(staying)].max()) if staying else 0
        before, self.used = self.used, int(lengths.max())
        self._columns = self.used + room
        for at, pair in enumerate(self._layers):
            self._layers[at] = tuple(self._moved(part, kept, moved, before, len(lengths)) for part in pair)  # type: ignore[assignment]
        self.starts = self.used - lengths

    def _moved(self, part: Tensor, kept: Tensor, columns: int, before: int, rows: int) -> Tensor:
        """A layer's keys or values with the newest columns of the rows that stay."""
        new = part.new_zeros(rows, part.shape[1], self._columns, part.shape[3])
        new[: len(kept), :, self.used - columns : self.used] = part[kept, :, before - columns : before]
        return new

    def expect(self, prompts: Sequence[tuple[int, Sequence[int]]]) -> None:
        """Say where the next pass, a flat sequence of prompts, belongs.

        Args:
            prompts: Tokens of each, and the rows that it is for.
        """
        tokens, rows, columns, begin = [], [], [], 0
        for length, own in prompts:
            for row in own:
                tokens.append(torch.arange(begin, begin + length))
                rows.append(torch.full((length,), row))
                columns.append(torch.arange(self.used - length, self.used))
            begin += length
        device = self.starts.device
        self._tokens, self._places = torch.cat(tokens).to(device), (torch.cat(rows).to(device), torch.cat(columns).to(device))


class Room(NamedTuple):
    """How much at a time.

    Attributes:
        rows: Replies that go on together.
        tokens: Columns of all rows together.
        pass_tokens: Tokens of prompts that are read in one pass; a longer prompt goes alone.
        context: Tokens that a prompt and its reply may have together.
    """

    rows: int
    tokens: int
    pass_tokens: int
    context: int


class Passes(Protocol):
    """The two ways in which a decoder is run; both fill the columns."""

    def read(self, prompts: Sequence[list[int]], columns: Columns) -> Tensor:
        """Several prompts as one flat sequence: the last state of each, [prompts, hidden]."""

    def go_on(self, tokens: Tensor, positions: Tensor, columns: Columns) -> Tensor:
        """One token a row, [rows]: states, [rows, hidden]."""

    def logits(self, states: Tensor) -> Tensor:
        """Of the next token, in fp32."""


class Replies:
    """Replies in the making.

    Args:
        passes: Of the model.
        room: How much at a time.
        sampling: How they are drawn: a drawn reply depends on the seed and on all prompts.
        end_of_turn: Ends a reply.
        device: Where.
    """

    def __init__(self, passes: Passes, room: Room, sampling: Sampling, end_of_turn: int, device: torch.device) -> None:
        self._passes, self._room, self._sampling, self._end_of_turn = passes, room, sampling, end_of_turn
        self._warp = warpers(sampling)
        self._generator = None if sampling.seed is None else torch.Generator(device).manual_seed(sampling.seed)
        self._columns = Columns(device)
        self._rows: list[int | None] = []  # the prompt that each answers; None once it has ended
        self._prompts: list[int] = []  # tokens of each

    def make(self, prompts: Sequence[list[int]], ended: Callable[[], None]) -> list[list[int]]:
        """One reply a prompt, without its end of turn.

        Args:
            prompts: Token ids. Equal ones are read once where they come to their turn together.
            ended: Called for each reply that is ready.
        """
        waiting = sorted(range(len(prompts)), key=lambda at: (-len(prompts[at]), prompts[at], at))
        replies: list[list[int]] = [[] for _ in prompts]
        self._prompts = [len(prompt) for prompt in prompts]
        newest: list[int] = []
        while True:
            alive = [row for row, at in enumerate(self._rows) if at is not None]
            if 2 * len(alive) <= len(self._rows):  # so that moving keys and values costs little
                came = self._come(prompts, alive, waiting)
                waiting = waiting[len(came) :]
                newest = [newest[row] for row in alive]
                self._rows = [self._rows[row] for row in alive] + list(came)
                if not self._rows:
                    return replies
                for group in self._passes_of(prompts, came, len(alive)):
                    states = self._read(prompts, came, group, len(alive))
                    newest += self._take(self._draw(states), range(len(newest), len(newest) + len(states)), replies, ended)
            else:
                positions = self._columns.step()
                states = self._passes.go_on(torch.tensor(newest, device=positions.device), positions, self._columns)
                newest = self._take(self._draw(states), range(len(self._rows)), replies, ended)

    def _draw(self, states: Tensor) -> list[int]:
        drawn: list[int] = draw_tokens(self._passes.logits(states), self._warp, self._generator).tolist()
        return drawn

    def _take(self, drawn: list[int], rows: Sequence[int], replies: list[list[int]], ended: Callable[[], None]) -> list[int]:
        """The drawn tokens, each put to the reply of its row."""
        longest = self._sampling.max_new_tokens
        for row, token in zip(rows, drawn, strict=True):
            at = self._rows[row]
            if at is None:
                continue
            if token != self._end_of_turn:
                replies[at].append(token)
            if token == self._end_of_turn or len(replies[at]) >= min(longest, self._room.context - self._prompts[at]):
                self._rows[row] = None
                ended()
        return drawn

    def _come(self, prompts: Sequence[list[int]], alive: Sequence[int], waiting: Sequence[int]) -> Sequence[int]:
        """The waiting prompts for which there is room; rows for them are made."""
        lengths = (self._columns.used - self._columns.starts)[list(alive)].tolist() if alive else []
        columns = max([*lengths, *(len(prompts[at]) for at in waiting[:1])], default=0) + self._sampling.max_new_tokens
        came = waiting[: max(0 if alive else 1, min(self._room.rows, self._room.tokens // columns) - len(alive))] if waiting else ()
        if alive or came:
            self._columns.rearrange(alive, [len(prompts[at]) for at in came], self._sampling.max_new_tokens)
        return came

    def _passes_of(self, prompts: Sequence[list[int]], came: Sequence[int], first: int) -> Iterator[list[list[int]]]:
        """Rows by pass, those of equal prompts together."""
        group: list[list[int]] = []
        tokens = 0
        for row, at in enumerate(came, first):
            if group and prompts[at] == prompts[came[group[-1][0] - first]]:
                group[-1].append(row)
                continue
            if group and tokens + len(prompts[at]) > self._room.pass_tokens:
                yield group
                group, tokens = [], 0
            group.append([row])
            tokens += len(prompts[at])
        if group:
            yield group

    def _read(self, prompts: Sequence[list[int]], came: Sequence[int], group: list[list[int]], first: int) -> Tensor:
        """The state before the reply of each row of a pass, in the order of the rows."""
        own = [prompts[came[rows[0] - first]] for rows in group]
        self._columns.expect([(len(prompt), rows) for prompt, rows in zip(own, group, strict=True)])
        states = self._passes.read(own, self._columns)
        return states.repeat_interleave(torch.tensor([len(rows) for rows in group], device=states.device), dim=0)
