"""Finding the verdict in what a judge wrote: JSON, somewhere among thoughts, code fences, examples and afterthoughts."""

import json
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

LONGEST = 200_000
"""Characters from the end of an answer that are looked at: 25 for each of the 8,000 tokens that a judge may write."""
_EFFORT, _PARSED, _TOO_DEEP = 2_000_000_000, 100, 5_000_000
"""Where looking ends: so many characters gone over to find a line number, each parsed one counting for 100, braces too deep for Python for
5 million. That is about a second; ordinary answers need a thousandth."""
_START = re.compile(r'\{\s*["}]')
_COMMA_BEFORE_BRACKET = re.compile(r",\s*([}\]])")
_DECODER = json.JSONDecoder(strict=False)
"""Takes raw line ends in strings."""

Read = TypeVar("Read")


class UnusableAnswerError(ValueError):
    """The judge answered, but not what was asked for; the message says what is wrong."""


class _Tried(NamedTuple):
    """What begins at a brace: an object, if one does, and what it took to know."""

    content: dict[str, Any] | None
    effort: int


def read_verdict(text: str, keys: Sequence[str], read: Callable[[dict[str, Any]], Read]) -> Read:
    """What `read` makes of the last object that it can read; commas before a closing bracket are forgiven.

    Args:
        text: The judge's whole answer.
        keys: Those of a verdict.
        read: Makes something of an object, or raises UnusableAnswerError.

    Raises:
        UnusableAnswerError: no object, or none that can be read; what is wrong with the last of those with most of the keys.
    """
    end = _COMMA_BEFORE_BRACKET.sub(r"\1", text[-LONGEST:])
    effort, most = 0, -1
    wrong = UnusableAnswerError("no JSON object" if "{" in text else "no JSON at all")
    for start in reversed([match.start() for match in _START.finditer(end)]):
        tried = _object_at(end, start)
        effort += tried.effort
        if effort > _EFFORT:
            break
        if tried.content is not None:
            try:
                return read(tried.content)
            except UnusableAnswerError as error:
                here = sum(key in tried.content for key in keys)
                wrong, most = (error, here) if here > most else (wrong, most)
    raise wrong


def _object_at(text: str, start: int) -> _Tried:
    try:
        content, after = _DECODER.raw_decode(text, start)
    except json.JSONDecodeError as error:
        return _Tried(None, error.pos + _PARSED * (error.pos - start))
    except (ValueError, RecursionError):  # a number of thousands of digits; deeper than Python reads
        return _Tried(None, _TOO_DEEP)
    return _Tried(content, _PARSED * (after - start))
