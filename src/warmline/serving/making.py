"""One reply being made: from the model's logits to pieces of text in a stream."""

from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import DynamicCache, LogitsProcessorList

from warmline.companion import Reading
from warmline.data.packing import Batch
from warmline.model.generation import draw
from warmline.serving.stream import FinishReason, Speaker, Stream
from warmline.serving.text import ReplyText


@dataclass(eq=False)
class Making:
    """What making one reply needs.

    Attributes:
        stream: Where it goes.
        base: From the untuned model.
        prompt: Token ids.
        turn: The last user turn alone, for the emotion head; None where nothing is read.
        limit: Longest reply, in tokens.
        end_of_turn: Token id that ends it.
        text: Turns its tokens into what is shown.
        warp: Empty takes the likeliest token.
        generator: Its own, or None for chance.
        speaker: Puts the text into the stream.
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
    speaker: Speaker
    cache: DynamicCache = field(default_factory=DynamicCache)
    tokens: list[int] = field(default_factory=list)
    ended: bool = False

    def begin(self, cache: DynamicCache, reading: Reading | None) -> None:
        """The prompt has run."""
        self.cache = cache
        self.stream.put_reading(reading)

    def grow(self, logits: Tensor) -> None:
        """Draw the next token from its logits, [vocabulary], and show what can be shown; ends the reply where it ends."""
        token = draw(logits, self.warp, self.generator)
        if token == self.end_of_turn:
            self.end("stop")
            return
        self.tokens.append(token)
        if len(self.tokens) >= self.limit:
            self.end("length")
            return
        self.speaker.more(self.text.grow(self.tokens), len(self.tokens))
        if self.text.stopped:
            self.end("stop")

    def end(self, reason: FinishReason) -> None:
        """Show the rest and close the stream."""
        self.speaker.end(self.text.grow(self.tokens, last=True), len(self.tokens))
        self._close("stop" if self.text.stopped else reason)

    def leave(self, error: Exception | None = None) -> None:
        """Nobody waits for it any more, or the model failed, and then what the guard says still comes."""
        if error is not None:
            self.speaker.close(len(self.tokens))
        self._close(None, error)

    def _close(self, reason: FinishReason | None, error: Exception | None = None) -> None:
        self.ended = True
        self.cache = DynamicCache()  # its memory goes with the slot, however long the stream is kept
        self.stream.finish(reason, error)
