"""The public way into a finished run: read what a user feels, choose a strategy, reply."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from warmline.config import load_config
from warmline.data.labels import EMOTIONS_AND_NEUTRAL, STRATEGIES
from warmline.data.template import ChatTemplate, Layout, Message
from warmline.model.artifacts import load_artifact
from warmline.model.backbone import Sampling, States
from warmline.model.heads import Heads
from warmline.model.multitask import MultiTaskModel
from warmline.runs import RunFolder
from warmline.safety.crisis import fill_slots
from warmline.training.device import Place, choose_place

_ROLES = ("system", "user", "assistant")


class Reading(NamedTuple):
    """What the heads say of the last user turn, before any reply.

    Attributes:
        emotion: Probability of each label; they sum to 1 with 27 classes and stand alone with 28 labels.
        strategy: Probability of each support strategy for the next reply; they sum to 1.
    """

    emotion: dict[str, float]
    strategy: dict[str, float]


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
        """Emotion of the last user turn and strategy of the reply to come, from one forward pass over the prompt.

        Args:
            messages: `{"role", "content"}` dictionaries, ending with a user's.

        Raises:
            ValueError: no message, an unknown role, empty content, or the last message is not the user's.
        """
        ids = self._prompt(messages)
        with self._place.autocast():
            prefilled = self._model.backbone.prefill(torch.tensor(ids, device=self._place.device))
        return take_reading(self._model.heads, prefilled.states, ids, self._template.layout)

    def reply(self, messages: list[Message], sampling: Sampling | None = None, country: str | None = None, base: bool = False) -> str:
        """The next reply.

        Args:
            messages: As for `read`.
            sampling: How it is drawn.
            country: ISO 3166 code of the user's country, whose hotlines fill the reply's slots.
            base: Let the untuned base answer instead.

        Raises:
            ValueError: as for `read`.
        """
        return self.replies([messages], sampling, country, base)[0]

    def replies(
        self, conversations: list[list[Message]], sampling: Sampling | None = None, country: str | None = None, base: bool = False
    ) -> list[str]:
        """The next reply of each conversation, generated as one batch.

        Args:
            conversations: Each as for `read`.
            sampling: How they are drawn; a drawn reply depends on its seed and on the whole batch.
            country: As for `reply`.
            base: As for `reply`.

        Raises:
            ValueError: as for `read`.
        """
        prompts = [self._prompt(messages) for messages in conversations]
        if not prompts:
            return []
        backbone = self._model.backbone
        with self._place.autocast(), backbone.reference() if base else nullcontext():
            replies = backbone.generate(prompts, self._template.layout.end_of_turn, sampling or Sampling())
        texts = (str(self._template.tokenizer.decode(reply, skip_special_tokens=True)).strip() for reply in replies)
        return [fill_slots(text, country) for text in texts]

    def _prompt(self, messages: list[Message]) -> list[int]:
        check_messages(messages)
        return self._template.prompt_ids(messages)


def check_messages(messages: Sequence[Message]) -> None:
    """Refuse what cannot be read and answered.

    Raises:
        ValueError: no message, an unknown role, empty content, or the last message is not the user's.
    """
    for at, message in enumerate(messages):
        role, content = message.get("role"), message.get("content")
        if role not in _ROLES:
            raise ValueError(f"message {at}: role is {role!r}, expected one of {', '.join(_ROLES)}")
        if not isinstance(content, str) or not content.strip():
            raise ValueError(f"message {at}: content is empty or no text")
    if not messages or messages[-1]["role"] != "user":
        raise ValueError("the last message must be the user's: that is the turn to read and to answer")


class ReadingPlaces(NamedTuple):
    """Where the heads read in a prompt.

    Attributes:
        turn_start: First token of the last user turn.
        turn_end: Its end-of-turn token.
        headers: Last token of every assistant header, that of the reply to come last.
    """

    turn_start: int
    turn_end: int
    headers: list[int]


def reading_places(prompt: list[int], layout: Layout) -> ReadingPlaces:
    """Where the heads read in a prompt.

    Args:
        prompt: Token ids, ending with the header of the reply to come.
        layout: Of the template that rendered it.
    """
    ends = [at for at, token in enumerate(prompt) if token == layout.end_of_turn]
    header, length = list(layout.reply_header), len(layout.reply_header)
    headers = [at + length - 1 for at in range(len(prompt) - length + 1) if prompt[at : at + length] == header]
    return ReadingPlaces(ends[-2] + 1 if len(ends) > 1 else 0, ends[-1], headers)


def take_reading(heads: Heads, states: States, prompt: list[int], layout: Layout) -> Reading:
    """Emotion and strategy from the states of a prompt, wherever it was computed: the one place that reads them for a person.

    Args:
        heads: Of the tuned model.
        states: Of the whole prompt.
        prompt: Token ids, ending with the header of the reply to come.
        layout: Of the template that rendered it.
    """
    places = reading_places(prompt, layout)
    asked = places.headers if heads.strategy.sees_earlier else places.headers[-1:]
    start, end, headers = (torch.tensor(at, device=states.final.device) for at in ([places.turn_start], [places.turn_end], asked))
    emotion = heads.emotion.read(heads.emotion.pick(states), start, end)
    strategy = heads.strategy.by_own_choices(heads.strategy.pick(states)[headers])[-1:]
    return Reading(
        _distribution(emotion_probabilities(emotion)[0], EMOTIONS_AND_NEUTRAL),
        _distribution(strategy.softmax(dim=1)[0], STRATEGIES),
    )


def emotion_probabilities(logits: Tensor) -> Tensor:
    """[rows, 27] through softmax, [rows, 28] through sigmoid: as they were trained."""
    return logits.sigmoid() if logits.shape[1] == len(EMOTIONS_AND_NEUTRAL) else logits.softmax(dim=1)


def _distribution(probabilities: Tensor, labels: tuple[str, ...]) -> dict[str, float]:
    return dict(zip(labels, probabilities.tolist(), strict=False))
