"""One reply being made: from the model's logits to tokens, and from tokens to text that never has to be taken back."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import DynamicCache, LogitsProcessorList, PreTrainedTokenizerBase

from warmline.companion import Reading
from warmline.data.packing import Batch
from warmline.model.generation import draw_token
from warmline.safety.crisis import SLOTS, fill_slots
from warmline.serving.stream import FinishReason, Stream

_SLOTS = tuple(f"{{{slot}}}" for slot in SLOTS)
_INCOMPLETE = "\ufffd"  # what a tokenizer writes for a character whose bytes have not all come


class ReplyText:
    """The text of one reply as it grows, piece by piece.

    Held back until more is known: half a character, white space (a reply ends without), the beginning of a hotline slot, and what may
    become a stop text. All pieces together are what `Companion.reply` gives for the same tokens, up to the stop text.

    Args:
        tokenizer: Decodes.
        country: Whose hotlines fill the slots.
        stop: Texts that end the reply before them.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, country: str | None = None, stop: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._country = country
        self._stop = tuple(stop)
        self._shown = ""
        self.stopped = False

    def grow(self, tokens: Sequence[int], last: bool = False) -> str:
        """What can be shown now and could not before.

        Args:
            tokens: The whole reply so far.
            last: Nothing will follow.
        """
        text = str(self._tokenizer.decode(tokens, skip_special_tokens=True)).lstrip()
        ends = [at for stop in self._stop if (at := text.find(stop)) >= 0]
        if ends:
            self.stopped, text = True, text[: min(ends)]
        if not last and not self.stopped:
            text = text.rstrip(_INCOMPLETE)
            text = text[: len(text) - max(_open_end(text, word) for word in (*_SLOTS, *self._stop))]
        filled = fill_slots(text.rstrip(), self._country)
        piece, self._shown = filled[len(self._shown) :], filled
        return piece


@dataclass(eq=False)
class PendingReply:
    """A reply that waits for the model or is being made by it.

    Attributes:
        stream: Where it goes.
        base: From the untuned model.
        prompt: Token ids.
        turn: The last user turn alone, for the heads that read it so; None where none does.
        limit: Longest reply, in tokens.
        end_of_turn: Token id that ends it.
        text: Turns its tokens into what is shown.
        warp: Empty takes the likeliest token.
        generator: Its own, or None for chance.
        cache: Of the prompt and of every token but the newest.
        tokens: Of the reply so far.
        ended: Nothing will follow.
    """

    stream: Stream
    base: bool
    prompt: list[int]
    turn: Batch | None
    limit: int
    end_of_turn: int
    text: ReplyText
    warp: LogitsProcessorList
    generator: torch.Generator | None
    cache: DynamicCache = field(default_factory=DynamicCache)
    tokens: list[int] = field(default_factory=list)
    ended: bool = False

    def begin(self, cache: DynamicCache, reading: Reading | None) -> None:
        """The prompt has run."""
        self.cache = cache
        self.stream.put_reading(reading)

    def grow(self, logits: Tensor) -> None:
        """Draw the next token from its logits, [vocabulary], and show what can be shown; ends the reply where it ends."""
        token = draw_token(logits, self.warp, self.generator)
        if token == self.end_of_turn:
            self.end("stop")
            return
        self.tokens.append(token)
        if len(self.tokens) >= self.limit:
            self.end("length")
            return
        self.stream.put(self.text.grow(self.tokens), len(self.tokens))
        if self.text.stopped:
            self.end("stop")

    def end(self, reason: FinishReason) -> None:
        """Show the rest and close the stream."""
        self.stream.put(self.text.grow(self.tokens, last=True), len(self.tokens))
        self.close("stop" if self.text.stopped else reason)

    def close(self, reason: FinishReason | None = None, error: Exception | None = None) -> None:
        """Nothing follows; without a reason nobody waits for it any more, or the model failed."""
        self.ended = True
        self.cache = DynamicCache()  # its memory goes with the slot, however long the stream is kept
        self.stream.finish(reason, error)


def _open_end(text: str, word: str) -> int:
    """Length of the longest end of the text with which the word begins."""
    return next((length for length in range(min(len(word) - 1, len(text)), 0, -1) if text.endswith(word[:length])), 0)
