"""Judges: models that are asked for a verdict, and the verdict found in what they wrote: JSON among thoughts, fences and afterthoughts."""

import json
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from warmline.errors import WarmlineError
from warmline.responders import Answer, ChatRequest, Endpoint

ATTEMPTS = 3
"""Times that a judge is asked the same before an unusable answer is an error."""
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


class Judge(NamedTuple):
    """Which model judges, and where. What it is shown is sent there: choose a server that may see it.

    Attributes:
        url: Base address of an OpenAI-compatible API, such as http://localhost:8000/v1; a key is taken from WARMLINE_JUDGE_KEY or
            OPENAI_API_KEY.
        model: The model's name there.
        concurrency: Requests at a time.
        timeout: Seconds for one request.
        retries: Times that a request is sent again after a timeout, a 429 or a 5xx.
    """

    url: str
    model: str
    concurrency: int = 4
    timeout: float = 120.0
    retries: int = 3

    @classmethod
    def named(cls, url: str | None, model: str | None, concurrency: int = 4, timeout: float = 120.0) -> "Judge | None":
        """The judge of a command's options; None where neither address nor model is given.

        Raises:
            WarmlineError: one without the other.
        """
        if url is None and model is None:
            return None
        if url is None or model is None:
            raise WarmlineError("--judge-url and --judge-model go together; give both, or neither to do without a judge")
        return cls(url, model, concurrency, timeout)

    def endpoint(self) -> Endpoint:
        """The server, not asked yet.

        Raises:
            WarmlineError: as of `Endpoint`.
        """
        keys = ("WARMLINE_JUDGE_KEY", "OPENAI_API_KEY")
        return Endpoint("--judge-url", self.url, self.model, keys, self.concurrency, self.timeout, self.retries)


def ask_for_verdicts(
    endpoint: Endpoint, requests: Sequence[ChatRequest], take: Callable[[int, Answer], bool], advance: Callable[[], None] = lambda: None
) -> None:
    """Ask until every answer is a verdict, each request at most ATTEMPTS times, and none again after a round without a single answer.

    Args:
        endpoint: The judge.
        requests: One a verdict.
        take: Called with a request's index and each answer to it, possibly from another thread; says whether it is a verdict.
        advance: Called once for each request, with its verdict or after its last attempt.

    Raises:
        WarmlineError: the server refuses the key, the model or the settings.
    """
    waiting = list(range(len(requests)))
    settled: set[int] = set()
    silent = True

    def done(index: int, answer: Answer) -> None:
        nonlocal silent
        if answer.text is not None:
            silent = False
        if take(waiting[index], answer):
            settled.add(waiting[index])
            advance()

    for _ in range(ATTEMPTS):
        silent = True
        endpoint.run([requests[at] for at in waiting], done)
        waiting = [at for at in waiting if at not in settled]
        if silent:
            break
    for _ in waiting:
        advance()


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
