"""Text that is shown is never taken back, however the tokens cut it."""

from collections.abc import Sequence
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmline.safety.crisis import fill_slots, resources
from warmline.serving.reply import ReplyText

WORDS = [
    "{",
    "}",
    "{crisis",
    "_line}",
    "{crisis_line}",
    "{emergency_",
    "number}",
    "{other}",
    " ",
    "\n",
    "a",
    "b",
    "ab",
    "END",
    "E",
    "N",
    "ä",
]


class Pieces:
    """A tokenizer whose tokens are given texts."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts

    def decode(self, tokens: Sequence[int], **_: Any) -> str:
        return "".join(self.texts[token] for token in tokens)


def shown(texts: Sequence[str], country: str | None = "GB", stop: Sequence[str] = ()) -> tuple[list[str], bool]:
    """Every piece that is shown, and whether a stop text ended the reply."""
    text = ReplyText(cast(Any, Pieces(texts)), country, stop)
    pieces: list[str] = []
    for count in range(1, len(texts) + 1):
        pieces.append(text.grow(range(count)))
        if text.stopped:
            break
    else:
        pieces.append(text.grow(range(len(texts)), last=True))
    return pieces, text.stopped


@given(st.lists(st.sampled_from(WORDS), max_size=12), st.lists(st.sampled_from(["END", "ab", "b\n", "}"]), max_size=2))
def test_the_pieces_are_the_whole_text_filled_stripped_and_cut(texts: list[str], stop: list[str]) -> None:
    whole = "".join(texts).lstrip()
    cut = min((at for one in stop if (at := whole.find(one)) >= 0), default=None)
    pieces, stopped = shown(texts, "GB", stop)
    assert "".join(pieces) == fill_slots(whole[:cut].rstrip(), "GB")
    assert stopped == (cut is not None)


def test_a_slot_in_several_tokens_is_held_back_and_filled() -> None:
    pieces, _ = shown(["Call ", "{", "crisis", "_li", "ne", "}", " now"])
    assert pieces == ["Call", "", "", "", "", f" {resources('GB').crisis_line}", " now", ""]


def test_a_brace_that_opens_no_slot_is_shown_as_soon_as_that_is_known() -> None:
    assert shown(["a {", "x", "}"])[0] == ["a", " {x", "}", ""]


def test_a_brace_at_the_end_is_shown_at_the_end() -> None:
    assert shown(["a {crisis"])[0] == ["a", " {crisis"]


def test_half_a_character_is_held_back() -> None:
    class Bytes:
        def decode(self, tokens: Sequence[int], **_: Any) -> str:
            return bytes(tokens).decode("utf-8", "replace")

    text, letters = ReplyText(cast(Any, Bytes())), list("aä€".encode())
    assert [text.grow(letters[:count]) for count in range(1, len(letters) + 1)] == ["a", "", "ä", "", "", "€"]


@pytest.mark.parametrize("stop", [["\n\n"], ["now"]])
def test_a_stop_text_in_several_tokens_is_never_shown(stop: list[str]) -> None:
    pieces, stopped = shown(["It is ", "n", "ow\n", "\n", "or never"], None, stop)
    assert stopped
    assert "".join(pieces) == ("It is now" if stop == ["\n\n"] else "It is")
