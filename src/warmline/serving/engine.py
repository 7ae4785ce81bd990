"""One model, many conversations: replies stream with a key-value cache, and the heads read beside the prompt's own forward pass.

One thread runs the model. In turn it takes a waiting request, runs its prompt by itself (`Backbone.prefill`) and the last user turn alone
for the heads that read it so (`PromptReader`; `Companion.read` does both too, so a reading is the same to the bit), and gives every reply
under way one more token in one batch (`Backbone.step`), tuned and base apart. Each conversation keeps transformers' own `DynamicCache`, and
a batch always has as many rows as there are slots: a matrix product may round differently with another number of rows, and then what one
person is told would depend on who else is talking. Draws come from a generator for each request and transformers' own logits processors.

transformers (5.17 to 5.23) has a continuous-batching manager, which cannot do this: it hands out tokens and never hidden states, so the
strategy head would need a second pass over each; it draws every request from torch's one random state, so no seed could be kept; its
settings for single requests know no min_p; prompts are packed and cut together with other requests', so their bits depend on those; and it
runs a model as it stands, so that base and tuned would need two. For many users there is vLLM: docs/serving.md.
"""

import threading
from collections import deque
from contextlib import nullcontext
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from warmline.companion import PromptReader, check_messages
from warmline.config import load_config
from warmline.data.template import ChatTemplate, Message
from warmline.errors import WarmlineError
from warmline.model.artifacts import load_artifact
from warmline.model.backbone import Backbone, Sampling
from warmline.model.base import load_tokenizer
from warmline.model.description import read_description, whole_strength
from warmline.model.device import Place, choose_place
from warmline.model.generation import warpers
from warmline.model.heads import Heads
from warmline.model.transformers_backbone import TransformersBackbone
from warmline.runs import RunFolder
from warmline.safety.guard import Heard, hear
from warmline.serving.reply import PendingReply, ReplyText
from warmline.serving.stream import Stream
from warmline.settings import ModelConfig, TrainingConfig

Show = Literal["inline", "card"]
LONGEST_REPLY = 256
"""Tokens of a reply that asks for no limit."""

CHARACTERS_A_TOKEN = 64
"""More than any text has on average: a prompt beyond them is refused before it is tokenised, a relayed reply is cut there."""


class TooLongError(ValueError):
    """The conversation, or it with the longest reply, does not fit the model's context."""


class BusyError(RuntimeError):
    """Every slot and every place in the queue is taken."""


class ClosedError(RuntimeError):
    """The engine takes no more requests."""


class Generation(NamedTuple):
    """How one reply is made.

    Attributes:
        max_tokens: Longest reply; None is 256, or what the context leaves.
        temperature: 0 takes the likeliest token each time.
        top_p: Nucleus mass; 1 is off.
        min_p: Tokens below this share of the likeliest one's probability are left out; 0 is off.
        seed: Of the draw: the same reply again, whatever else runs. None leaves it to chance.
        stop: Texts that end the reply before them.
    """

    max_tokens: int | None = None
    temperature: float = 0.7
    top_p: float = 1.0
    min_p: float = 0.05
    seed: int | None = None
    stop: tuple[str, ...] = ()

    def check(self) -> None:
        """Refuse what cannot be.

        Raises:
            ValueError: which, and what was expected.
        """
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ValueError(f"max_tokens is {self.max_tokens}, expected at least 1")
        if not 0 <= self.temperature <= 2:
            raise ValueError(f"temperature is {self.temperature}, expected 0 to 2")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}, expected above 0 and at most 1")
        if not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p is {self.min_p}, expected 0 to 1")
        if self.seed is not None and not -(2**63) <= self.seed < 2**63:
            raise ValueError(f"seed is {self.seed}, expected a 64-bit integer")
        if not all(self.stop):
            raise ValueError("stop holds an empty text")


class ReplyRequest(NamedTuple):
    """What is asked of the model, once the guard has heard it.

    Attributes:
        messages: The conversation, ending with the user's turn.
        settings: How the reply is made.
        base: From the untuned model.
        country: Whose hotlines are shown.
        heard: By the guard.
        inline: Whether its message is part of the text.
    """

    messages: list[Message]
    settings: Generation
    base: bool
    country: str | None
    heard: Heard
    inline: bool


def user_turns(messages: list[Message]) -> list[str]:
    """What the guard listens to."""
    return [message["content"] for message in messages if message["role"] == "user"]


class Engine:
    """A tuned model and its base, or a base alone, ready to talk; `close` it when done.

    Args:
        backbone: In evaluation mode.
        heads: None for a base alone.
        template: The one the model was trained with.
        place: Device and precision.
        name: The run's, or the base's where it is alone.
        base_model: What the base is.
        slots: Replies made at a time.
        queue: Requests that may wait for a slot.

    Attributes:
        name, base_model, slots: As given.
        tuned_id: What the API calls the tuned model; None for a base alone.
        base_id: And the base.
        heads: Labels of each head's reading, by the head's name; empty for a base alone.
        context: Tokens that prompt and reply may have together.
    """

    def __init__(
        self,
        backbone: Backbone,
        heads: Heads | None,
        template: ChatTemplate,
        place: Place,
        name: str,
        base_model: str,
        slots: int = 16,
        queue: int = 256,
    ) -> None:
        self._backbone, self._template, self._place = backbone, template, place
        self._reader = PromptReader(backbone, heads, template, place) if heads is not None else None
        self.name, self.base_model, self.context, self.slots = name, base_model, backbone.context, slots
        self.tuned_id = name if heads is not None else None
        self.base_id = f"{name}-base" if heads is not None else name
        self.heads = {head: heads[head].labels for head in heads} if heads is not None else {}
        self._queue = queue
        self._waiting: deque[PendingReply] = deque()
        self._active: list[PendingReply] = []
        self._changed = threading.Condition()
        self._closing = self._ended = False
        self._thread = threading.Thread(target=self._run, name="warmline-engine", daemon=True)
        self._thread.start()

    @classmethod
    def open(cls, path: Path, slots: int = 16, queue: int = 256, base: str | None = None, strength: float = 1.0) -> "Engine":
        """Load a finished run, or a base alone.

        Args:
            path: A run folder; or a configuration (.yaml), a folder with a model, or a model's name, for the base without heads.
            slots: Replies made at a time.
            queue: Requests that may wait.
            base: As of `load_artifact`; for runs only.
            strength: Likewise.

        Raises:
            WarmlineError: nothing there that can be loaded.
        """
        if path.is_dir() and ((path / "config.yaml").is_file() or not (path / "config.json").is_file()):
            folder = RunFolder.open(path)
            place = choose_place(load_config(folder.config).training)
            config, model, template = load_artifact(folder, place.device, place.dtype, base=base, strength=strength)
            whole = whole_strength(strength, read_description(folder))
            name = config.name if whole == 1 else f"{config.name}@{whole:g}"
            return cls(model.backbone, model.heads, template, place, name, config.model.name, slots, queue)
        if base is not None:
            raise WarmlineError(f"--base {base}: {path} is no run, so it is the base itself; leave --base out")
        if strength != 1:
            raise WarmlineError(f"--strength {strength:g}: {path} is no run, so there is no adapter; leave --strength out")
        if path.suffix in (".yaml", ".yml"):
            run = load_config(path)
            alone, system_prompt, training = run.model, run.data.system_prompt, run.training
        else:
            alone, system_prompt, training = ModelConfig(name=str(path)), None, TrainingConfig()
        place = choose_place(training)
        backbone = TransformersBackbone(alone, None, place.device, place.dtype, trainable=False)
        template = ChatTemplate(load_tokenizer(alone), alone.template, system_prompt)
        return cls(backbone, None, template, place, Path(alone.name).name, alone.name, slots, queue)

    @property
    def models(self) -> tuple[str, ...]:
        """Every id, the default first."""
        return (self.tuned_id, self.base_id) if self.tuned_id is not None else (self.base_id,)

    @property
    def alive(self) -> bool:
        """Whether it takes requests."""
        return not self._closing and self._thread.is_alive()

    @property
    def active(self) -> int:
        """Replies under way."""
        return len(self._active)

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._waiting)

    def start(
        self,
        messages: list[Message],
        settings: Generation | None = None,
        base: bool = False,
        country: str | None = None,
        crisis_message: Show = "inline",
        heard: Heard | None = None,
    ) -> Stream:
        """Ask for a reply; returns at once. From any thread.

        Args:
            messages: The conversation, ending with the user's turn.
            settings: How the reply is made.
            base: From the untuned model, without a reading; always so where the base is alone.
            country: ISO 3166 code of the user's country, whose hotlines are shown.
            crisis_message: Where the guard's message goes when it heard a risk: `inline` into the text, as `guard.guarded` puts it; `card`
                nowhere but `Stream.heard`.
            heard: What the guard heard in the user's turns, where it was asked already.

        Returns:
            The reply to come. Where the guard answers alone (`Heard.alone`) it is there already: neither a slot nor the model is asked.

        Raises:
            ValueError: messages or settings that cannot be, in one line; `TooLongError` for the context.
            BusyError: every slot and every place in the queue is taken.
            ClosedError: after `close`.
        """
        settings = settings or Generation()
        settings.check()
        check_messages(messages)
        heard, inline = heard or hear(user_turns(messages), country), crisis_message == "inline"
        if heard.alone:
            return Stream.of_the_guard(heard, inline)
        return self._reply(ReplyRequest(messages, settings, base or self._reader is None, country, heard, inline))

    def close(self, grace: float = 0.0) -> None:
        """Take no more requests, let those there are go on for a while, cut the rest short (`length`), and stop.

        Args:
            grace: Seconds that they have.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._waiting and not self._active, timeout=grace)
            self._ended = True
            self._changed.notify_all()
        self._thread.join()

    def _reply(self, request: ReplyRequest) -> Stream:
        """What `start` gives where a model is asked."""
        reply = self._pending(request)
        with self._changed:
            if self._closing:
                raise ClosedError("the server is shutting down; try again later")
            if len(self._waiting) + len(self._active) >= self.slots + self._queue:
                raise BusyError("too many requests are waiting; try again in a moment")
            self._waiting.append(reply)
            self._changed.notify_all()
        return reply.stream

    def _pending(self, request: ReplyRequest) -> PendingReply:
        messages, settings = request.messages, request.settings
        characters = sum(len(message["content"]) for message in messages)
        if characters > self.context * CHARACTERS_A_TOKEN:
            raise TooLongError(f"the conversation has {characters} characters, far beyond the model's context of {self.context} tokens")
        prompt = self._template.prompt_ids(messages)
        limit = self._longest_reply(len(prompt), settings)
        generator = None
        if settings.seed is not None:
            generator = torch.Generator(self._place.device).manual_seed(settings.seed)
        return PendingReply(
            Stream(len(prompt), request.heard, request.inline, self._notify),
            request.base,
            prompt,
            None if request.base or self._reader is None else self._reader.last_turns([messages]),
            limit,
            self._template.layout.end_of_turn,
            ReplyText(self._template.tokenizer, request.country, settings.stop),
            warpers(Sampling(0, settings.temperature, settings.top_p, settings.min_p)),
            generator,
        )

    def _longest_reply(self, prompt: int, settings: Generation) -> int:
        """Tokens that a reply may have behind a prompt of so many."""
        room = self.context - prompt
        if room < (settings.max_tokens or 1):
            reply = f" and its reply up to {settings.max_tokens}" if settings.max_tokens else ""
            raise TooLongError(f"the conversation has {prompt} tokens{reply}; the model's context is {self.context} tokens")
        return settings.max_tokens or min(LONGEST_REPLY, room)

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    # the engine's own thread

    def _run(self) -> None:
        try:
            while self._tidy():
                self._admit()
                for base in (False, True):
                    rows = [reply for reply in self._active if reply.base == base and not reply.ended]
                    if rows:
                        self._step(rows, base)
        finally:
            with self._changed:
                self._closing = True
                for reply in (*self._active, *self._waiting):
                    if not reply.ended:
                        reply.close(error=RuntimeError("the engine has stopped"))
                self._active.clear()
                self._waiting.clear()
                self._changed.notify_all()

    def _tidy(self) -> bool:
        """Wait for something to do, and free the places of those who have ended or gone; False at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._active or self._ended)
            for reply in (*self._active, *self._waiting):
                if reply.stream.cancelled and not reply.ended:
                    reply.close()
                elif self._ended and not reply.ended:
                    reply.end("length")
            self._active = [reply for reply in self._active if not reply.ended]
            self._waiting = deque(reply for reply in self._waiting if not reply.ended)
            self._changed.notify_all()
            return not self._ended

    @torch.no_grad()
    def _admit(self) -> None:
        """Run the prompt of one who waits, if there is a slot: one, so that the others' replies do not stand still for long."""
        with self._changed:
            if not self._waiting or len(self._active) >= self.slots:
                return
            reply = self._waiting.popleft()
            self._active.append(reply)
        try:
            with self._place.autocast(), self._backbone.reference() if reply.base else nullcontext():
                states, cache = self._backbone.prefill(torch.tensor(reply.prompt, device=self._place.device))
                logits = self._backbone.logits(states[-1:])
            reading = None
            if self._reader is not None and not reply.base:
                reading = self._reader.read(reply.turn, states, reply.prompt)
            reply.begin(cache, reading)
            reply.grow(logits[0])
        except Exception as error:
            reply.close(error=error)

    @torch.no_grad()
    def _step(self, rows: list[PendingReply], base: bool) -> None:
        """One more token for each, in one batch."""
        try:
            newest = [reply.tokens[-1] for reply in rows]
            tokens = torch.tensor(newest + [0] * (self.slots - len(rows)), device=self._place.device)
            with self._place.autocast(), self._backbone.reference() if base else nullcontext():
                logits = self._backbone.logits(self._backbone.step(tokens, [reply.cache for reply in rows]))
            for reply, row in zip(rows, logits, strict=False):
                reply.grow(row)
        except Exception as error:
            for reply in rows:
                if not reply.ended:
                    reply.close(error=error)
