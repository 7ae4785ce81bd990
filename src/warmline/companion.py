"""The public way into a finished run: read what a user feels, choose a strategy, reply."""

import sys
import warnings
from collections.abc import Callable, Sequence
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

_ROLES = ("system", "user", "assistant")


Reading = dict[str, dict[str, float]]
"""What each head says of the last user turn, before any reply: by its name, the probability of each label. They sum to 1, but for a head
whose labels are answers of their own (28 emotion labels)."""


class Generated(NamedTuple):
    """A reply as it was made.

    Attributes:
        text: What the user sees.
        cut: Whether it ended at the longest length and not by itself.
    """

    text: str
    cut: bool


class PromptReader(NamedTuple):
    """Reads conversations for a person: the library, the chat, the page and the API by this alone.

    Each head reads as it was trained: one whose turns stand alone, as GoEmotions' comments do, from the user's turn alone, in a short pass
    of its own; any other from the whole conversation.

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

    def last_turns(self, conversations: Sequence[Sequence[Message]]) -> Batch | None:
        """The last turn of each conversation by itself, behind the run's system prompt: encoded and packed as for training.

        Args:
            conversations: At least one, each ending with a user's message.

        Returns:
            None where no head reads the turn alone.
        """
        # encoding marks where labelled turns are read; which label it is does not matter here
        labels = {name: self.heads[name].labels[:1] for name in self._alone()}
        if not labels:
            return None
        turns = [Conversation("last turn", (Turn("user", messages[-1]["content"], labels),)) for messages in conversations]
        encoded = [encode("conversation", turns, tuple(labels), self.template, sys.maxsize)]
        return collate(encoded, [tuple(all_draws(encoded))])

    @torch.no_grad()
    def alone(self, turns: Batch | None) -> dict[str, Tensor]:
        """Logits of each head that reads the turn alone, [turns, outputs], from a forward pass over the turns.

        Args:
            turns: As `last_turns` packs them.
        """
        if turns is None:
            return {}
        batch = turns.to(self.backbone.device)
        with self.place.autocast():
            states = self.backbone.hidden(batch.tokens, batch.position_ids, batch.bounds, batch.longest)
        return {name: self.heads[name].read(states, batch.heads[name]) for name in self._alone()}

    @torch.no_grad()
    def in_context(self, states: Tensor, prompt: list[int]) -> dict[str, Tensor]:
        """Logits of each other head, [outputs].

        Args:
            states: [tokens, hidden], of the whole prompt.
            prompt: Token ids, ending with the header of the reply to come.
        """
        headers, found = reply_headers(prompt, self.template.layout), {}
        for name in self.heads:
            head = self.heads[name]
            if head.task.alone:
                continue
            if head.task.reads == "user":
                read = [last_turn_end(prompt, self.template.layout)]
            else:
                read = headers if head.sees_earlier else headers[-1:]
            found[name] = head.by_own_choices(head.scale(states)[torch.tensor(read, device=states.device)])[-1]
        return found

    def read(self, turn: Batch | None, states: Tensor, prompt: list[int]) -> Reading:
        """What every head says of one conversation.

        Args:
            turn: Its last turn, from `last_turns`.
            states: As for `in_context`.
            prompt: As for `in_context`.
        """
        said = {**{name: logits[0] for name, logits in self.alone(turn).items()}, **self.in_context(states, prompt)}
        return {name: _distribution(self.heads[name].probabilities(said[name]), self.heads[name].labels) for name in self.heads}

    def _alone(self) -> list[str]:
        return [name for name in self.heads if self.heads[name].task.alone]


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
        self._reader = PromptReader(model.backbone, model.heads, template, place)

    @classmethod
    def open(cls, path: Path, base: str | None = None, strength: float = 1.0) -> "Companion":
        """Load a finished run folder.

        Args:
            path: The folder.
            base: As of `load_artifact`.
            strength: As of `load_artifact`.

        Raises:
            WarmlineError: no finished run there, or its parts do not belong together.
        """
        run = RunFolder.open(path)
        place = choose_place(load_config(run.config).training)
        _, model, template = load_artifact(run, place.device, place.dtype, base=base, strength=strength)
        return cls(model, template, place)

    @torch.no_grad()
    def read(self, messages: list[Message]) -> Reading:
        """What each head says: of the last user turn, some reading it alone, or of the reply to come (see `PromptReader`).

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
        self,
        conversations: list[list[Message]],
        sampling: Sampling | None = None,
        country: str | None = None,
        base: bool = False,
        ended: Callable[[], None] = lambda: None,
    ) -> list[Generated]:
        """The next reply of each conversation, and whether it was cut.

        Args:
            conversations: Each as for `read`.
            sampling: How they are drawn; a drawn reply depends on its seed and on all conversations. No reply is longer than what its
                conversation leaves of the context.
            country: As for `reply`.
            base: As for `reply`.
            ended: Called for each reply that is ready.

        Raises:
            ValueError: as for `read`.
        """
        prompts = [self._prompt(messages) for messages in conversations]
        if not prompts:
            return []
        backbone, sampling = self._model.backbone, sampling or Sampling()
        with self._place.autocast(), backbone.reference() if base else nullcontext():
            replies = backbone.generate(prompts, self._template.layout.end_of_turn, sampling, ended)
        longest = [min(sampling.max_new_tokens, backbone.context - len(prompt)) for prompt in prompts]
        return [Generated(self._text(reply, country), len(reply) >= most) for reply, most in zip(replies, longest, strict=True)]

    def _text(self, reply: list[int], country: str | None) -> str:
        return fill_slots(str(self._template.tokenizer.decode(reply, skip_special_tokens=True)).strip(), country)

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


def last_turn_end(prompt: list[int], layout: Layout) -> int:
    """Where a head of users' turns reads in a prompt: the last end-of-turn token.

    Args:
        prompt: Token ids, ending with the header of the reply to come.
        layout: Of the template that rendered it.
    """
    return max(at for at, token in enumerate(prompt) if token == layout.end_of_turn)


def reply_headers(prompt: list[int], layout: Layout) -> list[int]:
    """Where a head of assistants' turns reads in a prompt: the last token of every assistant header, that of the reply to come last.

    Args:
        prompt: Token ids, ending with the header of the reply to come.
        layout: Of the template that rendered it.
    """
    header, length = list(layout.reply_header), len(layout.reply_header)
    return [at + length - 1 for at in range(len(prompt) - length + 1) if prompt[at : at + length] == header]


def _distribution(probabilities: Tensor, labels: tuple[str, ...]) -> dict[str, float]:
    if not probabilities.isfinite().all():
        raise WarmlineError("the heads' probabilities are not numbers (NaN): the weights are damaged; train the run again")
    return dict(zip(labels, probabilities.tolist(), strict=True))
