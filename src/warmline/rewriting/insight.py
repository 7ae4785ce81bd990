"""How much a reply says about what it answers, by the base's own likelihoods, whatever is tuned on it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from warmline.data.template import ChatTemplate, Message
from warmline.model.backbone import Backbone
from warmline.model.device import Place

PASS_TOKENS = 16_384
_LOGIT_ROWS = 2048


class Insight:
    """Pointwise mutual information of reply and message, in nats.

    Args:
        backbone: The base, or a model tuned from it, whose base is asked.
        template: Of its chats.
        place: Device and precision.
    """

    def __init__(self, backbone: Backbone, template: ChatTemplate, place: Place) -> None:
        self._backbone, self._template, self._place = backbone, template, place

    def of(self, asked: Sequence[tuple[str, str, str]]) -> list[float]:
        """Log p(reply | the message it answers) - log p(reply | another message), over the whole reply.

        Args:
            asked: The message, another one, and the reply.
        """
        own = self.log_likelihoods([(message, reply) for message, _, reply in asked])
        other = self.log_likelihoods([(message, reply) for _, message, reply in asked])
        return [here - there for here, there in zip(own, other, strict=True)]

    def tokens(self, reply: str) -> int:
        """Of a reply, its end of turn included."""
        return len(self._template.tokenize([reply])[0]) + 1

    def log_likelihoods(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Log p(reply | message) of each pair, its end of turn included."""
        texts = [self._template.render([Message(role="user", content=message)], add_generation_prompt=True) for message, _ in pairs]
        prompts = self._template.tokenize(texts)
        replies = [[*ids, self._template.layout.end_of_turn] for ids in self._template.tokenize([reply for _, reply in pairs])]
        found: list[float] = []
        first = 0
        while first < len(pairs):
            last, tokens = first, 0
            while last < len(pairs) and (last == first or tokens + len(prompts[last]) + len(replies[last]) <= PASS_TOKENS):
                tokens += len(prompts[last]) + len(replies[last])
                last += 1
            found += self._pass(prompts[first:last], replies[first:last])
            first = last
        return found

    @torch.no_grad()
    def _pass(self, prompts: Sequence[list[int]], replies: Sequence[list[int]]) -> list[float]:
        device = self._backbone.device
        lengths = torch.tensor([len(prompt) + len(reply) for prompt, reply in zip(prompts, replies, strict=True)])
        bounds = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)])
        tokens = torch.tensor([token for pair in zip(prompts, replies, strict=True) for ids in pair for token in ids])
        positions = torch.cat([torch.arange(length) for length in lengths.tolist()])
        places = [range(end - len(reply), end) for end, reply in zip(bounds[1:].tolist(), replies, strict=True)]
        at = torch.tensor([place for own in places for place in own])
        with self._place.autocast(), self._backbone.reference():
            states = self._backbone.hidden(tokens.to(device), positions.to(device), bounds.int().to(device), int(lengths.max()))
        likelihoods = self._gathered(states[(at - 1).to(device)], tokens[at].to(device))
        return [float(part.sum()) for part in likelihoods.split([len(reply) for reply in replies])]

    def _gathered(self, states: Tensor, targets: Tensor) -> Tensor:
        """[targets], on the CPU."""
        found = []
        for own, wanted in zip(states.split(_LOGIT_ROWS), targets.split(_LOGIT_ROWS), strict=True):
            with self._place.autocast(), self._backbone.reference():
                logits = self._backbone.logits(own)
            found.append(logits.log_softmax(dim=-1).gather(1, wanted[:, None])[:, 0].cpu())
        return torch.cat(found)
