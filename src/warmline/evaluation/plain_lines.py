"""The base without its chat template: the same conversations told as plain lines, `A: ...` and `B: ...`.

A base that never saw a chat template is lost in it, and tuning looks better than it is: much of the fall in perplexity is the format. Told
in lines, the base shows what it knows of the conversations themselves. Tokens differ between the two tellings, so they are compared in
bits per byte; a line's end stands for the end-of-turn token.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from warmline.data.conversation import Conversation
from warmline.data.template import ChatTemplate
from warmline.evaluation.progress import watched
from warmline.evaluation.statistics import FloatArray
from warmline.model.losses import chunked_cross_entropy
from warmline.model.multitask import MultiTaskModel
from warmline.training.device import Place

LABELS = {"user": "A:", "assistant": "B:"}
END = "\n"


class Told(NamedTuple):
    """A conversation's tokens, and which of them spell a reply or end it."""

    tokens: list[int]
    reply: list[bool]


def tell(conversations: Sequence[Conversation], template: ChatTemplate) -> list[Told]:
    """Tokenise conversations as lines, behind the tokenizer's BOS where it has one and the system prompt where there is one.

    Label, text (behind a space, which goes to its first token) and line end are tokenised each by itself.
    """
    told = [[*_opening(template), *_lines(conversation, template)] for conversation in conversations]
    ids = iter(template.tokenize([text for pieces in told for text, _ in pieces]))
    found = []
    for pieces in told:
        spelt = [(next(ids), reply) for _, reply in pieces]
        found.append(Told([token for tokens, _ in spelt for token in tokens], [reply for tokens, reply in spelt for _ in tokens]))
    return found


def _opening(template: ChatTemplate) -> list[tuple[str, bool]]:
    bos = template.tokenizer.bos_token
    return [*([(bos, False)] if bos else []), *([(template.system_prompt + END, False)] if template.system_prompt else [])]


def _lines(conversation: Conversation, template: ChatTemplate) -> list[tuple[str, bool]]:
    pieces = []
    for turn in conversation.turns:
        reply = turn.role == "assistant"
        text = " " + " ".join(template.clean(turn.text).split())
        pieces += [(LABELS[turn.role], False), (text, reply), (END, reply)]
    return pieces


@torch.no_grad()
def base_nats(
    model: MultiTaskModel, conversations: Sequence[Conversation], template: ChatTemplate, place: Place, row_tokens: int, name: str
) -> FloatArray:
    """What the base needs for the replies of each conversation, told as lines.

    Args:
        model: In evaluation mode.
        conversations: Any.
        template: For its tokenizer and system prompt.
        place: Device and precision.
        row_tokens: Tokens of a forward pass; a longer conversation has one of its own.
        name: For the progress bar.

    Returns:
        [conversations], nats over reply tokens and line ends.
    """
    told = tell(conversations, template)
    nats = np.zeros(len(told))
    backbone = model.backbone
    for row in watched(_rows([len(one.tokens) for one in told], row_tokens), f"base, as plain lines: {name}"):
        lengths = torch.tensor([len(told[at].tokens) for at in row])
        bounds = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)]).to(torch.int32).to(backbone.device)
        tokens = torch.tensor([token for at in row for token in told[at].tokens], device=backbone.device)
        positions = torch.cat([torch.arange(length) for length in lengths.tolist()]).to(backbone.device)
        with place.autocast(), backbone.reference():
            states = backbone.hidden(tokens, positions, bounds, int(lengths.max()))
            for at, first in zip(row, bounds.tolist(), strict=False):
                places = first + torch.tensor([place for place, reply in enumerate(told[at].reply) if reply], device=backbone.device)
                if len(places):
                    nats[at] = chunked_cross_entropy(states[places - 1], backbone.base_unembedding, tokens[places]).item()
    return nats


def _rows(lengths: Sequence[int], row_tokens: int) -> list[list[int]]:
    """Neighbours that fit a row together."""
    rows: list[list[int]] = []
    room = 0
    for at, length in enumerate(lengths):
        if not rows or length > room:
            rows.append([])
            room = row_tokens
        rows[-1].append(at)
        room -= length
    return rows
