"""From a growing list of tokens to text that can be shown and never has to be taken back."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from warmline.safety.crisis import SLOTS, fill_slots

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


def _open_end(text: str, word: str) -> int:
    """Length of the longest end of the text with which the word begins."""
    return next((length for length in range(min(len(word) - 1, len(text)), 0, -1) if text.endswith(word[:length])), 0)
