"""The public way into a finished run: read what a user feels, choose a strategy, reply."""

import sys
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from warmline.config import load_config
from warmline.conversation import Conversation, Turn
from warmline.data.encoding import encode
from warmline.data.packing import Batch, all_draws, collate
from warmline.data.template import ChatTemplate, Layout, Message
from warmline.errors import WarmlineError, refuse_half_characters
from warmline.model.artifacts import load_artifact
from warmline.model.backbone import Backbone, Sampling
from warmline.model.device import Place, choose_place
from warmline.model.heads import Heads
from warmline.model.multitask import MultiTaskModel
from warmline.runs import RunFolder
from warmline.safety.crisis import fill_slots
from warmline.tasks.emotion import EMOTIONS_AND_NEUTRAL, NEUTRAL
from warmline.tasks.strategy import STRATEGIES

_ROLES = ("system", "user", "assistant")


class Reading(NamedTuple):
    """What the heads say of the last user turn, before any reply.

    Attributes:
        emotion: Probability of each label; they sum to 1 with 27 classes and stand alone with 28 labels.
        strategy: Probability of each support strategy for the next reply; they sum to 1.
    """

    emotion: dict[str, float]
    strategy: dict[str, float]


class Generated(NamedTuple):
    """A reply as it was made.

    Attributes:
        text: What the user sees.
        cut: Whether it ended at the longest length and not by itself.
    """

    text: str
    cut: bool


class Reader(NamedTuple):
    """Reads conversations for a person: the library, the chat, the page and the API by this alone.

    Each head reads as it was trained: emotion from the user's turn alone, as GoEmotions' comments stand, in a short pass of its own;
    strategy from the whole conversation.

    Attributes:
        backbone: In evaluation mode.
        heads: Of the tuned model.
        template: The one it was trained with.
        place: Device and precision.
    """

    backbone: Backbone
    heads: Heads
    template: ChatTemplate
    place: Place

    def last_turns(self, conversations: Sequence[Sequence[Message]]) -> Batch:
        """The last turn of each conversation by itself, behind the run's system prompt: encoded and packed as for training.

        Args:
            conversations: At least one, each ending with a user's message.
        """
        # encoding marks where labelled turns are read; which label it is does not matter here
        alone = [Conversation("last turn", (Turn("user", messages[-1]["content"], (NEUTRAL,)),)) for messages in conversations]
        encoded = [encode("conversation", alone, ("emotion",), self.template, sys.maxsize)]
        return collate(encoded, [tuple(all_draws(encoded))])

    @torch.no_grad()
    def emotion(self, turns: Batch) -> Tensor:
        """Logits of each turn, [turns, classes], from a forward pass over them.

        Args:
            turns: As `last_turns` packs them.
        """
        batch, head = turns.to(self.backbone.device), self.heads.emotion
        with self.place.autocast():
            states = self.backbone.hidden(batch.tokens, batch.position_ids, batch.bounds, batch.longest)
        logits: Tensor = head(head.pick(states)[batch.emotion_positions])
        return logits

    @torch.no_grad()
    def strategy(self, states: Tensor, prompt: list[int]) -> Tensor:
        """Logits of the reply to come, [8].

        Args:
            states: [tokens, hidden], of the whole prompt.
            prompt: Token ids, ending with the header of the reply to come.
        """
        head, headers = self.heads.strategy, reply_headers(prompt, self.template.layout)
        asked = torch.tensor(headers if head.sees_earlier else headers[-1:], device=states.device)
        return head.by_own_choices(head.pick(states)[asked])[-1]

    def read(self, turn: Batch, states: Tensor, prompt: list[int]) -> Reading:
        """What both heads say of one conversation.

        Args:
            turn: Its last turn, from `last_turns`.
            states: As for `strategy`.
            prompt: As for `strategy`.
        """
        return Reading(
            _distribution(emotion_probabilities(self.emotion(turn))[0], EMOTIONS_AND_NEUTRAL),
            _distribution(self.strategy(states, prompt).softmax(dim=0), STRATEGIES),
        )


class Companion:
    """A tuned model with its heads.

    Args:
        model: In evaluation mode.
        template: The one it was trained with.
        place: Device and precision.
    """

    def __init__(self, model: MultiTaskModel, template: ChatTemplate, place: Place) -> None:
        self._model = model
        self._template = template
        self._place = place
        self._reader = Reader(model.backbone, model.heads, template, place)

    @classmethod
    def open(cls, path: Path, base: str | None = None) -> "Companion":
        """Load a finished run folder.

        Args:
            path: The folder.
            base: As of `load_artifact`.

        Raises:
            WarmlineError: no finished run there, or its parts do not belong together.
        """
        run = RunFolder.open(path)
        place = choose_place(load_config(run.config).training)
        _, model, template = load_artifact(run, place.device, place.dtype, base=base)
        return cls(model, template, place)

    @torch.no_grad()
    def read(self, messages: list[Message]) -> Reading:
        """Emotion of the last user turn, which is read alone, and strategy of the reply to come, from the whole conversation.

        Args:
            messages: `{"role", "content"}` dictionaries, ending with a user's.

        Raises:
            ValueError: no message, an unknown role, content that is no text, the last message is not the user's, or the conversation is
                longer than the model's context.
        """
        ids = self._prompt(messages)
        with self._place.autocast():
            prefilled = self._model.backbone.prefill(torch.tensor(ids, device=self._place.device))
        return self._reader.read(self._reader.last_turns([messages]), prefilled.states, ids)

    def reply(self, messages: list[Message], sampling: Sampling | None = None, country: str | None = None, base: bool = False) -> str:
        """The next reply; one that was cut comes with a warning.

        Args:
            messages: As for `read`.
            sampling: How it is drawn, and its longest length.
            country: ISO 3166 code of the user's country, whose hotlines fill the reply's slots.
            base: Let the untuned base answer instead.

        Raises:
            ValueError: as for `read`.
        """
        sampling = sampling or Sampling()
        reply = self.replies([messages], sampling, country, base)[0]
        if reply.cut:
            warnings.warn("the reply was cut; Sampling(max_new_tokens=...) gives more, up to the model's context", stacklevel=2)
        return reply.text

    def replies(
        self, conversations: list[list[Message]], sampling: Sampling | None = None, country: str | None = None, base: bool = False
    ) -> list[Generated]:
        """The next reply of each conversation, generated as one batch, and whether it was cut.

        Args:
            conversations: Each as for `read`.
            sampling: How they are drawn; a drawn reply depends on its seed and on the whole batch. No reply is longer than what the
                longest conversation leaves of the context.
            country: As for `reply`.
            base: As for `reply`.

        Raises:
            ValueError: as for `read`.
        """
        prompts = [self._prompt(messages) for messages in conversations]
        if not prompts:
            return []
        backbone, sampling = self._model.backbone, sampling or Sampling()
        room = backbone.context - max(map(len, prompts))
        sampling = sampling._replace(max_new_tokens=min(sampling.max_new_tokens, room))
        with self._place.autocast(), backbone.reference() if base else nullcontext():
            replies = backbone.generate(prompts, self._template.layout.end_of_turn, sampling)
        return [self._generated(reply, sampling, country) for reply in replies]

    def _generated(self, reply: list[int], sampling: Sampling, country: str | None) -> Generated:
        text = str(self._template.tokenizer.decode(reply, skip_special_tokens=True)).strip()
        return Generated(fill_slots(text, country), len(reply) >= sampling.max_new_tokens)

    def _prompt(self, messages: list[Message]) -> list[int]:
        check_messages(messages)
        ids = self._template.prompt_ids(messages)
        context = self._model.backbone.context
        if len(ids) >= context:
            raise ValueError(f"the conversation has {len(ids)} tokens, and the model's context is {context}; leave out its oldest turns")
        return ids


def check_messages(messages: Sequence[Message]) -> None:
    """Refuse what cannot be read and answered.

    Raises:
        ValueError: no message, an unknown role, content that is empty or no text, or the last message is not the user's.
    """
    for at, message in enumerate(messages):
        role, content = message.get("role"), message.get("content")
        if role not in _ROLES:
            raise ValueError(f"message {at}: role is {role!r}, expected one of {', '.join(_ROLES)}")
        if not isinstance(content, str) or not content.strip():
            raise ValueError(f"message {at}: content is empty or no text")
        try:
            refuse_half_characters(content)
        except ValueError as error:
            raise ValueError(f"message {at}: {error}") from None
    if not messages or messages[-1]["role"] != "user":
        raise ValueError("the last message must be the user's: that is the turn to read and to answer")


def reply_headers(prompt: list[int], layout: Layout) -> list[int]:
    """Where the strategy head reads in a prompt: the last token of every assistant header, that of the reply to come last.

    Args:
        prompt: Token ids, ending with the header of the reply to come.
        layout: Of the template that rendered it.
    """
    header, length = list(layout.reply_header), len(layout.reply_header)
    return [at + length - 1 for at in range(len(prompt) - length + 1) if prompt[at : at + length] == header]


def emotion_probabilities(logits: Tensor) -> Tensor:
    """[rows, 27] through softmax, [rows, 28] through sigmoid: as they were trained."""
    return logits.sigmoid() if logits.shape[1] == len(EMOTIONS_AND_NEUTRAL) else logits.softmax(dim=1)


def _distribution(probabilities: Tensor, labels: tuple[str, ...]) -> dict[str, float]:
    if not probabilities.isfinite().all():
        raise WarmlineError("the heads' probabilities are not numbers (NaN): the weights are damaged; train the run again")
    return dict(zip(labels, probabilities.tolist(), strict=False))
