"""Who answers a request: a model in this process, or any OpenAI-compatible endpoint."""

import hashlib
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any, NamedTuple, Protocol

import openai
from openai import OpenAI

from warmline.companion import Companion
from warmline.data.template import Message
from warmline.errors import WarmlineError
from warmline.model.backbone import Sampling

JUDGE_KEYS = ("WARMLINE_JUDGE_KEY", "OPENAI_API_KEY")
"""Environment variables that may hold a judge's key, in order."""

EMPTY_REPLY = "..."
"""Stands in a local model's history for a turn in which it said nothing: a chat turn cannot be empty."""


class ChatRequest(NamedTuple):
    """One reply that is asked for.

    Attributes:
        messages: The conversation, ending with the user's turn.
        temperature: 0 takes the likeliest token.
        max_tokens: Longest reply, in tokens.
        min_p: Tokens below this share of the likeliest one's probability are left out; None is not sent.
        draw: Which of several draws of the same request: a model in this process answers each of them otherwise. It is not sent.
    """

    messages: list[Message]
    temperature: float
    max_tokens: int
    min_p: float | None = None
    draw: int = 0

    def sent(self) -> dict[str, Any]:
        """What an endpoint sees of it: all but the draw."""
        return {name: value for name, value in self._asdict().items() if name != "draw"}


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


def kept(record: Mapping[str, Any]) -> Answer:
    """An answer out of a journal, as it was added: its `text`, and whether it was `cut`, which older journals do not say."""
    return Answer(record["text"], cut=record.get("cut", False))


Done = Callable[[int, Answer], None]


class Responder(Protocol):
    """Something that answers."""

    @property
    def name(self) -> str:
        """For the results: which model."""

    @property
    def identity(self) -> str:
        """What an answer depends on besides its request; part of the journal's key."""

    @property
    def max_tokens(self) -> int:
        """The longest reply it gives, whatever is asked for."""

    def run(self, requests: Sequence[ChatRequest], done: Done) -> None:
        """Answer every request; `done(index, answer)` is called as each is ready, possibly from another thread."""


class Endpoint:
    """An OpenAI-compatible chat endpoint. The openai client waits and tries again after a timeout, a 429 or a 5xx.

    Args:
        url: Its base, such as http://localhost:8000/v1.
        model: The name it knows the model by.
        key_names: Environment variables that may hold the key, in order.
        concurrency: Requests at a time.
        timeout: Seconds for one request.
        retries: Times a failed request is sent again.
        max_tokens: Longest reply; longer requests are cut down to it.
    """

    def __init__(
        self,
        url: str,
        model: str,
        key_names: Sequence[str],
        concurrency: int = 8,
        timeout: float = 240.0,
        retries: int = 3,
        max_tokens: int = 12_000,
    ) -> None:
        self.url = url.rstrip("/").removesuffix("/chat/completions")
        self.name = model
        self.max_tokens = max_tokens
        self._concurrency = concurrency
        self._key_names = tuple(key_names)
        key = next((os.environ[name] for name in key_names if os.environ.get(name)), "none")  # local servers ask for no key
        try:
            self._client = OpenAI(base_url=self.url, api_key=key, timeout=timeout, max_retries=retries)
        except (openai.OpenAIError, ValueError) as error:
            raise WarmlineError(f"{url}: not usable as an endpoint ({error}); expected something like http://localhost:8000/v1") from None

    @property
    def identity(self) -> str:
        """URL and model name."""
        return f"{self.url}|{self.name}"

    def run(self, requests: Sequence[ChatRequest], done: Done) -> None:
        """As of a responder; a request that failed for good is an answer with an error.

        Raises:
            WarmlineError: the endpoint refuses the key or does not know the model, which no retry would mend.
        """
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

    def _ask(self, request: ChatRequest) -> Answer:
        extra: dict[str, Any] = {} if request.min_p is None else {"min_p": request.min_p}
        messages: Any = request.messages
        try:
            raw = self._client.chat.completions.with_raw_response.create(
                model=self.name,
                messages=messages,
                temperature=request.temperature,
                max_tokens=min(request.max_tokens, self.max_tokens),
                extra_body=extra or None,
            )
            completion = raw.parse()
            choice = completion.choices[0]
            usage = completion.usage
            return Answer(
                choice.message.content or "",
                None,
                usage.prompt_tokens if usage else 0,
                usage.completion_tokens if usage else 0,
                raw.retries_taken,
                choice.finish_reason == "length",
            )
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            raise WarmlineError(
                f"{self.url}: refused for model `{self.name}` ({_reason(error)}); check the URL, the model's name and the key in "
                f"{' or '.join(self._key_names)}"
            ) from None
        except openai.OpenAIError as error:
            return Answer(None, _reason(error))
        except (ValueError, TypeError, AttributeError, IndexError) as error:  # an answer that is no chat completion
            return Answer(None, f"not a chat completion ({type(error).__name__})")


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
        self.name = "base" if base else "tuned"
        self.identity = f"{self.name}@{fingerprint}/seed {seed}"
        self.max_tokens = max_tokens
        self._companion = companion
        self._base = base
        self._batch_size = batch_size
        self._seed = seed

    def run(self, requests: Sequence[ChatRequest], done: Done) -> None:
        """As of a responder; requests of like length and settings go together, so that little is padded."""
        order = sorted(range(len(requests)), key=lambda at: (*_settings(requests[at]), _characters(requests[at])))
        while order:
            same = [at for at in order[: self._batch_size] if _settings(requests[at]) == _settings(requests[order[0]])]
            order = order[len(same) :]
            temperature, max_tokens, min_p = _settings(requests[same[0]])
            sampling = Sampling(min(max_tokens, self.max_tokens), temperature, 1.0, min_p, self._draw(requests[same[0]]))
            conversations = [[_spoken(message) for message in requests[at].messages] for at in same]
            for at, reply in zip(same, self._companion.replies(conversations, sampling, base=self._base), strict=True):
                done(at, Answer(reply.text, cut=reply.cut))

    def _draw(self, request: ChatRequest) -> int:
        """A seed of each batch's own, from its first request: the same whenever the same batch is drawn again."""
        text = "\n".join(message["content"] for message in request.messages)
        return int.from_bytes(hashlib.sha256(f"{self._seed}\n{request.draw}\n{text}".encode()).digest()[:4], "big")


def _spoken(message: Message) -> Message:
    return message if message["content"].strip() else {"role": message["role"], "content": EMPTY_REPLY}


def _settings(request: ChatRequest) -> tuple[float, int, float]:
    return request.temperature, request.max_tokens, request.min_p or 0.0


def _characters(request: ChatRequest) -> int:
    return sum(len(message["content"]) for message in request.messages)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
