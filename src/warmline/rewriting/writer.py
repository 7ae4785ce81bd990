"""Who writes the candidates: the base, in this process or behind a server, or a run on it that has learned the voice."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch

from warmline.config import RunConfig
from warmline.conversation import Conversation, Turn
from warmline.data.own_words import Spot
from warmline.data.template import ChatTemplate, Message, as_messages
from warmline.errors import WarmlineError
from warmline.model.artifacts import load_artifact
from warmline.model.backbone import Backbone, Sampling
from warmline.model.base import load_tokenizer
from warmline.model.device import choose_place
from warmline.model.transformers_backbone import TransformersBackbone
from warmline.progress import counted
from warmline.responders import Answer, ChatRequest, Endpoint
from warmline.rewriting.insight import Insight
from warmline.rewriting.prompt import rewriting_prompt
from warmline.runs import RunFolder


class Wanted(NamedTuple):
    """A reply that is to be written.

    Attributes:
        spot: Where it belongs.
        history: The turns before it, own words in the place of people's.
        human: A person's reply, with its labels; None where nobody has answered.
        kind: Of the conversation.
    """

    spot: Spot
    history: list[Turn]
    human: Turn | None
    kind: str | None


class Drawn(NamedTuple):
    """A candidate.

    Attributes:
        text: Without surrounding white space.
        cut: Whether it ended at its longest length.
    """

    text: str
    cut: bool


class Writer:
    """The base, in this process or behind a server; or a run on it that has learned the voice.

    Args:
        config: Of the run that will learn the replies.
        endpoint: Where the base is served; None to run it here.
        tuned: A finished run on the same base, which writes in its place.
    """

    def __init__(self, config: RunConfig, endpoint: Endpoint | None, tuned: RunFolder | None = None) -> None:
        self.endpoint, self._tuned = endpoint, tuned is not None
        self.insight: Insight | None = None
        if endpoint is None:
            self._place = choose_place(config.training)
            self._backbone: Backbone
            if tuned is None:
                self._backbone = TransformersBackbone(config.model, None, self._place.device, self._place.dtype, trainable=False)
                self._template = ChatTemplate(load_tokenizer(config.model), config.model.template)
            else:
                _, model, self._template = load_artifact(
                    tuned, self._place.device, self._place.dtype, base=config.model.name, strength=tuned.strength
                )
                self._backbone = model.backbone
            self.insight = Insight(self._backbone, self._template, self._place)

    def prompt(self, wanted: Wanted) -> list[Message]:
        """What a reply is written from: the base is shown the voice and examples of it, a run has them in its weights."""
        if self._tuned or wanted.human is None:
            return as_messages(Conversation("", tuple(wanted.history)))
        return rewriting_prompt(wanted.history, wanted.human, wanted.kind)

    def draw(self, wanted: Sequence[Wanted], copies: int, sampling: Sampling, doing: str) -> list[list[Drawn]]:
        """Candidates for each reply.

        Args:
            wanted: All of them with a person's reply, or none.
            copies: Candidates of each.
            sampling: How they are drawn.
            doing: For the progress bar.
        """
        prompts, by_base = [self.prompt(one) for one in wanted], self._tuned and wanted[0].human is None
        with counted(len(prompts) * copies, doing) as ended:
            if self.endpoint is not None:
                return self._asked(self.endpoint, prompts, copies, sampling, ended)
            ids = [own for prompt in prompts for own in [self._template.prompt_ids(prompt)] * copies]
            with torch.no_grad(), self._place.autocast(), self._backbone.reference() if by_base else nullcontext():
                replies = self._backbone.generate(ids, self._template.layout.end_of_turn, sampling, ended)
            texts = self._template.tokenizer.batch_decode(replies, skip_special_tokens=True)
            drawn = [Drawn(text.strip(), len(reply) >= sampling.max_new_tokens) for text, reply in zip(texts, replies, strict=True)]
            return [drawn[at : at + copies] for at in range(0, len(drawn), copies)]

    def _asked(
        self, endpoint: Endpoint, prompts: Sequence[list[Message]], copies: int, sampling: Sampling, ended: Callable[[], None]
    ) -> list[list[Drawn]]:
        requests = [
            ChatRequest(prompt, sampling.temperature, sampling.max_new_tokens, sampling.min_p or None, copy)
            for prompt in prompts
            for copy in range(copies)
        ]
        found: dict[int, Drawn] = {}

        def done(at: int, answer: Answer) -> None:
            if answer.text is not None:
                found[at] = Drawn(answer.text.strip(), answer.cut)
            ended()

        endpoint.run(requests, done)
        if len(found) < len(requests) // 2:
            raise WarmlineError(f"{endpoint.url}: answered {len(found)} of {len(requests)} requests; look at the server, then start again")
        return [[found[at] for at in range(first, first + copies) if at in found] for first in range(0, len(requests), copies)]
