"""Who answers a request: a model in this process, or any OpenAI-compatible endpoint, be it the model under test or its judge."""

import hashlib
import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any, Literal, NamedTuple, Protocol

import openai

from warmline.companion import Companion
from warmline.data.template import Message
from warmline.errors import WarmlineError
from warmline.model.backbone import Sampling
from warmline.openai_server import OpenAIServer

EMPTY_REPLY = "..."
"""Stands in a local model's history for a turn in which it said nothing: a chat turn cannot be empty."""


class ChatRequest(NamedTuple):
    """One reply that is asked for.

    Attributes:
        messages: The conversation, ending with the user's turn.
        temperature: 0 takes the likeliest token.
        max_tokens: Longest reply, in tokens.
        min_p: Tokens below this share of the likeliest one's probability are left out; None is not sent.
        repetition: Which of several times that the same is asked: a model in this process answers each otherwise. It is not sent.
    """

    messages: list[Message]
    temperature: float
    max_tokens: int
    min_p: float | None = None
    repetition: int = 0

    def sent(self) -> dict[str, Any]:
        """What an endpoint sees of it: all but the repetition."""
        return {name: value for name, value in self._asdict().items() if name != "repetition"}


class Answer(NamedTuple):
    """What came back.

    Attributes:
        text: The reply; None if there was none.
        error: Why there was none.
        prompt_tokens: As the endpoint counted them; 0 where it did not.
        completion_tokens: Likewise.
        retries: Requests that failed before this one.
        cut: Whether the reply ended at its longest length.
    """

    text: str | None
    error: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    retries: int = 0
    cut: bool = False


Done = Callable[[int, Answer], None]


class Responder(Protocol):
    """Something that answers."""

    @property
    def identity(self) -> str:
        """What an answer depends on besides its request; part of the journal's key."""

    @property
    def max_tokens(self) -> int:
        """The longest reply it gives, whatever is asked for."""

    def run(self, requests: Sequence[ChatRequest], done: Done) -> None:
        """Answer every request; `done(index, answer)` is called as each is ready, possibly from another thread."""


FIRST_QUESTION: list[Message] = [{"role": "user", "content": "Are you there? Answer with one word: yes."}]
"""Asked before anything else, with the settings of what follows."""
_ABOUT_THE_MESSAGE = (400, 413, 422)
"""A server that answers the first question may still refuse one message so: too long for it, or against its content filter."""
_TEMPORARY = (408, 409, 425, 429)


class _Dialect(NamedTuple):
    """How a server takes a request's settings: as the protocol has them, but for what it refused in the first question.

    Attributes:
        limit: Its name for the longest reply. Reasoning models refuse the older one, many servers know no other.
        temperature: The only one that it takes; None where it takes any.
        min_p: Whether it takes one.
    """

    limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    temperature: float | None = None
    min_p: bool = True

    def after(self, refusal: str) -> "_Dialect":
        """Without a setting that the refusal names; the same where nothing is left to give up."""
        if self.limit == "max_tokens" and re.search("max_(completion_)?tokens", refusal):
            return self._replace(limit="max_completion_tokens")
        if self.temperature is None and "temperature" in refusal:
            return self._replace(temperature=1.0)
        if self.min_p and "min_p" in refusal:
            return self._replace(min_p=False)
        return self

    def settings(self, request: ChatRequest, longest: int) -> dict[str, Any]:
        """As keywords of the openai client."""
        settings: dict[str, Any] = {
            self.limit: min(request.max_tokens, longest),
            "temperature": request.temperature if self.temperature is None else self.temperature,
        }
        if self.min_p and request.min_p is not None:
            settings["extra_body"] = {"min_p": request.min_p}
        return settings


class Endpoint:
    """An OpenAI-compatible chat endpoint. The openai client waits and tries again after a timeout, a 429 or a 5xx.

    Args:
        option: What named it, for messages, such as `--judge-url`.
        url: Its base, such as http://localhost:8000/v1.
        model: The name it knows the model by.
        key_names: Environment variables that may hold the key, in order.
        concurrency: Requests at a time.
        timeout: Seconds for one request.
        retries: Times a failed request is sent again.
        max_tokens: Longest reply; longer requests are cut down to it.

    Raises:
        WarmlineError: no address, a key that cannot be sent, or a proxy in the environment that cannot be used.
    """

    def __init__(
        self,
        option: str,
        url: str,
        model: str,
        key_names: Sequence[str],
        concurrency: int = 8,
        timeout: float = 240.0,
        retries: int = 3,
        max_tokens: int = 12_000,
    ) -> None:
        self._server = OpenAIServer(option, url, key_names, timeout)
        self._client = self._server.client(retries)
        self.url = self._server.url
        self.name = model
        self.max_tokens = max_tokens
        self._concurrency = concurrency
        self._dialect = _Dialect()
        self._ready = False
        self._lock = threading.Lock()

    @property
    def identity(self) -> str:
        """URL and model name."""
        return f"{self.url}|{self.name}"

    def temperature(self, wanted: float) -> float:
        """The temperature that is sent instead of the wanted one; the same unless the server refused it."""
        return wanted if self._dialect.temperature is None else self._dialect.temperature

    def deviations(self) -> list[str]:
        """Settings of the protocol that the server refused."""
        refused = [] if self._dialect.temperature is None else [f"a temperature other than {self._dialect.temperature:g}"]
        refused += [] if self._dialect.min_p else ["min_p"]
        return [f"{self.name} refuses {setting}, which is not sent" for setting in refused]

    def ask_first(self, like: ChatRequest) -> None:
        """Ask one short question, once, so that a refusal is known before anything is spent.

        Args:
            like: A request whose settings are asked with; those that the server refuses by name are given up from here on.

        Raises:
            WarmlineError: refused, or no answer; with the server's own words.
        """
        with self._lock:
            if not self._ready:
                self._ask_whether_it_answers(like)
            self._ready = True

    def run(self, requests: Sequence[ChatRequest], done: Done) -> None:
        """As of a responder; a request that failed for good is an answer with an error.

        Raises:
            WarmlineError: the endpoint refuses the key, the model or the settings, which no retry would mend.
        """
        if requests:
            self.ask_first(requests[0])
        stop = threading.Event()

        def work(index: int) -> None:
            if stop.is_set():
                return
            try:
                done(index, self._ask(requests[index]))
            except BaseException:
                stop.set()  # before this thread takes the next request
                raise

        with ThreadPoolExecutor(self._concurrency) as pool:
            futures = [pool.submit(work, index) for index in range(len(requests))]
            try:
                finished, _ = wait(futures, return_when=FIRST_EXCEPTION)
                for future in finished:
                    future.result()
            finally:
                stop.set()
                pool.shutdown(cancel_futures=True)

    def _ask_whether_it_answers(self, like: ChatRequest) -> None:
        question = like._replace(messages=FIRST_QUESTION)
        while True:
            try:
                answer = self._send(question)
                break
            except openai.APIStatusError as error:
                dialect = self._dialect.after(error.response.text) if error.status_code in _ABOUT_THE_MESSAGE else self._dialect
                if not _permanent(error):
                    answer = Answer(None, self._server.words(error))
                    break
                if dialect == self._dialect:
                    raise self._refused(error) from None
                self._dialect = dialect
        if answer.text is None:
            raise WarmlineError(f"{self._server}: `{self.name}` does not answer ({answer.error}); check the address, or try again later")

    def _ask(self, request: ChatRequest) -> Answer:
        try:
            return self._send(request)
        except openai.APIStatusError as error:
            if _permanent(error):
                if error.status_code not in _ABOUT_THE_MESSAGE:
                    raise self._refused(error) from None
                with self._lock:
                    self._ask_whether_it_answers(request)
            return Answer(None, self._server.words(error))

    def _send(self, request: ChatRequest) -> Answer:
        """Ask once, and as often again as the client does.

        Raises:
            openai.APIStatusError: another status than success.
        """
        messages: Any = request.messages
        try:
            raw = self._client.chat.completions.with_raw_response.create(
                model=self.name, messages=messages, **self._dialect.settings(request, self.max_tokens)
            )
            return _read(raw.parse(), raw.retries_taken)
        except openai.APIStatusError:
            raise
        except openai.OpenAIError as error:
            return Answer(None, self._server.words(error))
        except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
            return Answer(None, f"not a chat completion ({type(error).__name__})")

    def _refused(self, error: openai.APIStatusError) -> WarmlineError:
        return WarmlineError(
            f"{self._server}: refused for model `{self.name}` ({self._server.words(error)}); check the URL, the model's name and the key "
            f"in {self._server.key_names}"
        )


def _permanent(error: openai.APIStatusError) -> bool:
    """Whether no retry would mend it; an account without money is told by a 429."""
    return error.code == "insufficient_quota" or (error.status_code < 500 and error.status_code not in _TEMPORARY)


def _read(completion: Any, retries: int) -> Answer:
    """A chat completion as an answer. Its types are what the server made them, not what the client's annotations say."""
    choice = completion.choices[0]
    content = choice.message.content
    if not isinstance(content, str | None):
        raise TypeError("no text")
    text = whole_characters(content or "")
    counts = [getattr(completion.usage, name, 0) for name in ("prompt_tokens", "completion_tokens")]
    prompt, reply = (count if type(count) is int and 0 <= count < 2**40 else 0 for count in counts)
    return Answer(text, None, prompt, reply, retries, choice.finish_reason == "length")


def whole_characters(text: str) -> str:
    """Without halves of characters, which no file and no request can hold."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)


class LocalModel:
    """The base or the tuned model of a finished run, in this process.

    Args:
        companion: The run's.
        base: Whether the base answers.
        fingerprint: Tells this model's weights from others'.
        batch_size: Conversations generated together.
        max_tokens: Longest reply; the protocol's 12,000 is more than small models can use.
        seed: Of the draws.
    """

    def __init__(
        self, companion: Companion, base: bool, fingerprint: str, batch_size: int = 16, max_tokens: int = 12_000, seed: int = 0
    ) -> None:
        self.identity = f"{'base' if base else 'tuned'}@{fingerprint}/seed {seed}"
        self.max_tokens = max_tokens
        self._companion = companion
        self._base = base
        self._batch_size = batch_size
        self._seed = seed

    def run(self, requests: Sequence[ChatRequest], done: Done) -> None:
        """As of a responder; requests of like length and settings go together, so that little is padded."""
        order = sorted(range(len(requests)), key=lambda at: (*_settings(requests[at]), _characters(requests[at])))
        while order:
            first = requests[order[0]]
            same = [at for at in order[: self._batch_size] if _settings(requests[at]) == _settings(first)]
            order = order[len(same) :]
            longest = min(first.max_tokens, self.max_tokens)
            sampling = Sampling(longest, first.temperature, 1.0, first.min_p or 0.0, self._seed_of(first))
            conversations = [[_spoken(message) for message in requests[at].messages] for at in same]
            for at, reply in zip(same, self._companion.replies(conversations, sampling, base=self._base), strict=True):
                done(at, Answer(reply.text, cut=reply.cut))

    def _seed_of(self, first: ChatRequest) -> int:
        """A seed of each batch's own, from its first request: the same whenever the same batch is drawn again."""
        text = "\n".join(message["content"] for message in first.messages)
        return int.from_bytes(hashlib.sha256(f"{self._seed}\n{first.repetition}\n{text}".encode()).digest()[:4], "big")


def _spoken(message: Message) -> Message:
    return message if message["content"].strip() else {"role": message["role"], "content": EMPTY_REPLY}


def _settings(request: ChatRequest) -> tuple[float, int, float]:
    return request.temperature, request.max_tokens, request.min_p or 0.0


def _characters(request: ChatRequest) -> int:
    return sum(len(message["content"]) for message in request.messages)
