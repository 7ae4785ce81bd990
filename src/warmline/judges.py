"""Judges: models that are asked for a verdict, and the verdict found in what they wrote: JSON among thoughts, fences and afterthoughts.

Whatever judges is a `Judge`: a server that is asked at once, or files for a batch, which are written now and read when somebody has
answered. Both are shown the same messages.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from warmline.errors import AnswersNeeded, WarmlineError, one_line, shown
from warmline.journal import Journal, content_key
from warmline.responders import Answer, ChatRequest, Endpoint, whole_characters
from warmline.runs import disk_errors, parse_json, write_text

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


class Judgement(NamedTuple):
    """An answer of a judge, who gave it and when.

    Attributes:
        answer: What came back.
        model: The model's name.
        date: Of the answer, as in 2026-01-31.
    """

    answer: Answer
    model: str
    date: str


Take = Callable[[int, Judgement], bool]
"""Called with a request's index and an answer to it, possibly from another thread; says whether it is a verdict."""


class Judge(Protocol):
    """Something that judges."""

    @property
    def name(self) -> str | None:
        """The model's; None where only its answers say it."""

    @property
    def place(self) -> str:
        """Where it is asked, for messages."""

    @property
    def url(self) -> str | None:
        """The server's address; None where there is none."""

    @property
    def identity(self) -> str:
        """What an answer depends on besides its request; part of a journal's key."""

    @property
    def waiting(self) -> int:
        """Requests that were asked and that somebody has yet to answer."""

    def ask_first(self, like: ChatRequest) -> None:
        """See whether it can be asked at all, before anything is spent.

        Args:
            like: A request with the settings of what follows.

        Raises:
            WarmlineError: it cannot.
        """

    def temperature(self, wanted: float) -> float:
        """The temperature that it is asked at instead of the wanted one."""

    def ask(self, requests: Sequence[ChatRequest], take: Take, advance: Callable[[], None] = lambda: None) -> None:
        """Ask for verdicts.

        Args:
            requests: One a verdict.
            take: Told of each answer.
            advance: Called once for each request.

        Raises:
            WarmlineError: it can no longer be asked.
        """

    def settle(self) -> None:
        """To be called when all was asked, before any result is written.

        Raises:
            AnswersNeeded: some requests wait for an answer.
        """


def named_judge(
    url: str | None, model: str | None, batch: Path | None = None, concurrency: int = 4, timeout: float = 120.0
) -> Judge | None:
    """The judge of a command's options; None where there is none.

    Args:
        url: `--judge-url`.
        model: `--judge-model`.
        batch: `--judge-batch`.
        concurrency: As of `ServerJudge`.
        timeout: Likewise.

    Raises:
        WarmlineError: two judges, half of one, or one that cannot be asked.
    """
    if batch is not None:
        if url is not None:
            raise WarmlineError("--judge-batch and --judge-url are two ways to ask a judge; give one of them")
        return BatchJudge(batch, model)
    if url is None and model is None:
        return None
    if url is None or model is None:
        raise WarmlineError("--judge-url and --judge-model go together; give both, or --judge-batch, or none of them to do without a judge")
    return ServerJudge(url, model, concurrency, timeout)


class ServerJudge:
    """A model behind an OpenAI-compatible API. What it is shown is sent there: choose a server that may see it.

    Args:
        url: Base address, such as http://localhost:8000/v1; a key is taken from WARMLINE_JUDGE_KEY or OPENAI_API_KEY.
        model: The model's name there.
        concurrency: Requests at a time.
        timeout: Seconds for one request.
        retries: Times that a request is sent again after a timeout, a 429 or a 5xx.

    Raises:
        WarmlineError: as of `Endpoint`.
    """

    waiting = 0

    def __init__(self, url: str, model: str, concurrency: int = 4, timeout: float = 120.0, retries: int = 3) -> None:
        keys = ("WARMLINE_JUDGE_KEY", "OPENAI_API_KEY")
        self._endpoint = Endpoint("--judge-url", url, model, keys, concurrency, timeout, retries)
        self.name = model
        self.url = self.place = self._endpoint.url
        self.identity = self._endpoint.identity

    def ask_first(self, like: ChatRequest) -> None:
        """As of a judge."""
        self._endpoint.ask_first(like)

    def temperature(self, wanted: float) -> float:
        """As of a judge."""
        return self._endpoint.temperature(wanted)

    def ask(self, requests: Sequence[ChatRequest], take: Take, advance: Callable[[], None] = lambda: None) -> None:
        """Until every answer is a verdict, each request at most ATTEMPTS times, and none again after a round without a single answer.

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
            if take(waiting[index], Judgement(answer, self.name, _today())):
                settled.add(waiting[index])
                advance()

        for _ in range(ATTEMPTS):
            silent = True
            self._endpoint.run([requests[at] for at in waiting], done)
            waiting = [at for at in waiting if at not in settled]
            if silent:
                break
        for _ in waiting:
            advance()

    def settle(self) -> None:
        """Nothing waits: whatever was asked was answered, or failed."""


class BatchJudge:
    """Files that somebody answers between two runs of the same command: a provider's batch queue, or whoever reads them.

    `requests.jsonl` holds what has no usable answer yet, as the batch queues of judges' providers take it. `answers.jsonl` holds answers
    in any order, some or all: lines of a batch's output, `{"custom_id", "response": {"body": a chat completion}, "error"}`, or plain
    ones, `{"custom_id", "text"}`, with `model` if they say it. A `text` of null is for good: there will be no answer, and it is
    counted as missing.

    Args:
        folder: Holds both; need not exist yet.
        model: Who answers, where the answers do not say it; stands in the requests, too.

    Raises:
        WarmlineError: a line of the answers that is none, named by its number.
    """

    url = None
    place: str

    def __init__(self, folder: Path, model: str | None = None) -> None:
        self.name = model
        self.requests, self.answers = folder / "requests.jsonl", folder / "answers.jsonl"
        self.place = str(folder)
        self.identity = f"batch|{folder.resolve().name}"
        self._found = dict(self._read()) if self.answers.exists() else {}
        self._open: dict[str, ChatRequest] = {}
        self._unusable = 0

    @property
    def waiting(self) -> int:
        """As of a judge."""
        return len(self._open)

    def ask_first(self, like: ChatRequest) -> None:
        """Nobody to ask."""

    def temperature(self, wanted: float) -> float:
        """As wanted: what is done with a request is not known here."""
        return wanted

    def ask(self, requests: Sequence[ChatRequest], take: Take, advance: Callable[[], None] = lambda: None) -> None:
        """Take what was answered, and remember the rest for `settle`."""
        for index, request in enumerate(requests):
            name = custom_id(request)
            found = self._found.get(name)
            for_good = found is not None and found.answer == NO_ANSWER
            if not (found is not None and take(index, found)) and not for_good:
                self._unusable += found is not None and name not in self._open
                self._open[name] = request
            advance()

    def settle(self) -> None:
        """Write the requests that wait, or remove those of before.

        Raises:
            AnswersNeeded: some wait.
        """
        if not self._open:
            with disk_errors(self.requests):
                self.requests.unlink(missing_ok=True)
            return
        # in the order of their hashes: the order in which they were asked may say whose reply is which
        lines = [json.dumps(_line(name, self.name, one)) for name, one in sorted(self._open.items())]
        write_text(self.requests, "\n".join(lines) + "\n")
        unusable = f" ({self._unusable:,} of them had an answer that is not usable)" if self._unusable else ""
        raise AnswersNeeded(
            f"{self.requests}: {len(self._open):,} requests wait for the judge{unusable}; put the answers into {self.answers} and give "
            "the same command again"
        )

    def _read(self) -> Iterator[tuple[str, Judgement]]:
        """By custom_id; of several to the same, the last counts."""
        try:
            lines = self.answers.read_bytes().split(b"\n")
            written = datetime.fromtimestamp(self.answers.stat().st_mtime, timezone.utc).date().isoformat()
        except OSError as error:
            raise WarmlineError(f"{self.answers}: cannot be read ({error.strerror})") from None
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    yield self._answer(parse_json(line), written)
                except ValueError as error:
                    wrong = "not JSON" if isinstance(error, (json.JSONDecodeError, UnicodeDecodeError)) else error
                    raise WarmlineError(f"{self.answers}:{number}: {wrong}; mend or remove the line") from None

    def _answer(self, line: Any, written: str) -> tuple[str, Judgement]:
        if not isinstance(line, dict) or not isinstance(line.get("custom_id"), str):
            raise ValueError("not a JSON object with a custom_id")
        plain = "text" in line
        body = line if plain else _completion(line)
        if isinstance(body, str):
            return line["custom_id"], Judgement(Answer(None, one_line(body)), self.name or "", written)
        if plain and line["text"] is None:
            return line["custom_id"], Judgement(NO_ANSWER, self.name or "", written)
        answer = Answer(whole_characters(_text(line["text"]))) if plain else _read_completion(body)
        model = body.get("model") or self.name
        if not isinstance(model, str):
            raise ValueError("does not say which model answered; name it with --judge-model")
        created = body.get("created")
        date = written
        if isinstance(created, int) and 0 < created < 2**33:
            date = datetime.fromtimestamp(created, timezone.utc).date().isoformat()
        return line["custom_id"], Judgement(answer, one_line(model), date)


NO_ANSWER = Answer(None, "there is no answer, say the judge's files")
"""To a request whose `text` is null."""


def custom_id(request: ChatRequest) -> str:
    """A request's name in a batch: a hash of what is asked, whoever asks, whoever is asked, and whatever it is about."""
    return content_key(messages=request.messages, temperature=request.temperature, max_tokens=request.max_tokens)[:40]


def _line(name: str, model: str | None, request: ChatRequest) -> dict[str, Any]:
    """One of requests.jsonl."""
    body = {
        "model": model or "judge",
        "messages": request.messages,
        "temperature": request.temperature,
        "max_tokens": request.max_tokens,
    }
    return {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body}


def _completion(line: dict[str, Any]) -> dict[str, Any] | str:
    """The chat completion in a line of a batch's output, or why the request failed."""
    failed, response = line.get("error"), line.get("response")
    if failed is not None and response is None:
        return _why(failed)
    body = response.get("body") if isinstance(response, dict) else None
    if not isinstance(response, dict) or not isinstance(body, dict):
        raise ValueError("neither a `text` nor a `response` with a body")
    if failed is not None or "error" in body or response.get("status_code", 200) != 200:
        return _why(failed if failed is not None else body.get("error"))
    return body


def _why(error: Any) -> str:
    said = error.get("message", error.get("code")) if isinstance(error, dict) else error
    return f"the batch says: {said if isinstance(said, str) else 'failed'}"


def _read_completion(body: dict[str, Any]) -> Answer:
    try:
        choice = body["choices"][0]
        text = choice["message"]["content"]
    except (LookupError, TypeError):
        raise ValueError("the body is not a chat completion") from None
    usage = body.get("usage")
    counts = [usage.get(name) if isinstance(usage, dict) else 0 for name in ("prompt_tokens", "completion_tokens")]
    prompt, reply = (count if type(count) is int and 0 <= count < 2**40 else 0 for count in counts)
    return Answer(whole_characters(_text("" if text is None else text)), None, prompt, reply, cut=choice.get("finish_reason") == "length")


def _text(found: Any) -> str:
    if not isinstance(found, str):
        raise ValueError(f"the answer is `{shown(found)}`, which is no text")
    return found


def _today() -> str:
    return datetime.now(timezone.utc).date().isoformat()


def answered_by(judge: Judge, answers: Iterable[tuple[str, str | None]]) -> dict[str, Any]:
    """Who judged and when, as it stands beside a number.

    Args:
        judge: Who was asked.
        answers: Model and date of each that counts; no date where it was not kept.

    Returns:
        `model`: every name, in one text; `answered`: the first and the last date, None where none is known.
    """
    said = list(answers)
    dates = sorted({date for _, date in said if date})
    return {
        "model": " and ".join(sorted({model for model, _ in said})) or judge.name,
        "answered": {"first": dates[0], "last": dates[-1]} if dates else None,
    }


@dataclass(frozen=True, slots=True)
class Verdict(Generic[Read]):
    """What became of a request.

    Attributes:
        content: What was read in the answer; None where there is no usable one.
        error: Why there is none.
        model: Who answered; None where nobody did.
        date: When.
    """

    content: Read | None
    error: str | None = None
    model: str | None = None
    date: str | None = None


def verdicts(
    judge: Judge, journal: Journal, requests: Sequence[ChatRequest], read: Callable[[str], Read], advance: Callable[[], None] = lambda: None
) -> list[Verdict[Read]]:
    """A verdict on each request: from the journal, or asked for and, once it is usable, kept there.

    Args:
        judge: Who is asked; to be settled afterwards.
        journal: Of this judge's answers, and perhaps others'.
        requests: What to ask.
        read: Makes a verdict of an answer's text, or raises UnusableAnswerError.
        advance: Called once for each request.

    Raises:
        WarmlineError: as of the judge.
    """
    found: list[Verdict[Read]] = [Verdict(None, "never answered") for _ in requests]
    keys = [content_key(judge=judge.identity, **request.sent()) for request in requests]
    pending = []
    for at, key in enumerate(keys):
        try:
            record = journal.find(key)[-1]
            found[at] = Verdict(read(record["text"]), None, record.get("judge"), record.get("date"))
            advance()
        except (IndexError, UnusableAnswerError):
            pending.append(at)

    def take(index: int, given: Judgement) -> bool:
        at = pending[index]
        try:
            if given.answer.text is None:
                raise UnusableAnswerError(given.answer.error)
            found[at] = Verdict(read(given.answer.text), None, given.model, given.date)
        except UnusableAnswerError as error:
            found[at] = Verdict(None, one_line(str(error) if given.answer.text is None else f"unusable answer: {error}"))
            return False
        journal.add(keys[at], judge=given.model, date=given.date, text=given.answer.text)
        return True

    judge.ask([requests[at] for at in pending], take, advance)
    return found


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
