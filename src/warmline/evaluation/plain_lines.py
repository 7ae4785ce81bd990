"""Conversations as plain lines, `A: ...` and `B: ...`, to ask a base without its chat template.

A base that never saw a chat template may be lost in it, and tuning then looks better than it is. Told in lines, the base shows what it
knows of the conversations themselves. Tokens differ between the two tellings, so they are compared in bits per byte; a line's end stands
for the end-of-turn token.
"""

from collections.abc import Sequence

import numpy as np

from warmline.conversation import Conversation
from warmline.data.encoding import Encoded, EncodedSource, join_parts
from warmline.data.template import ChatTemplate

LABELS = {"user": "A:", "assistant": "B:"}
END = "\n"


def tell(name: str, conversations: Sequence[Conversation], template: ChatTemplate) -> EncodedSource:
    """Encode conversations as lines, behind the tokenizer's BOS where it has one and the system prompt where there is one.

    Label, text (behind a space, which goes to its first token) and line end are tokenised each by itself. A reply is its text and its end.
    No conversation is split.

    Args:
        name: The source.
        conversations: Any.
        template: For its tokenizer and system prompt.
    """
    bos, system = template.tokenizer.bos_token, template.system_prompt
    opening = [(text, False) for text in (bos, system and system + END) if text]
    told = [[*opening, *_lines(conversation, template)] for conversation in conversations]
    ids = iter(template.tokenize([text for pieces in told for text, _ in pieces]))
    return join_parts(name, ("lm",), [_encoded([(next(ids), reply) for _, reply in pieces]) for pieces in told], range(len(told)))


def _lines(conversation: Conversation, template: ChatTemplate) -> list[tuple[str, bool]]:
    """Pieces of text, and whether each is a reply with its end."""
    pieces = []
    for turn in conversation.turns:
        reply = turn.role == "assistant"
        text = " " + " ".join(template.clean(turn.text).split())
        pieces += [(LABELS[turn.role], False), (text, reply), (END, reply)]
    return pieces


def _encoded(pieces: list[tuple[list[int], bool]]) -> Encoded:
    ends = np.cumsum([len(tokens) for tokens, _ in pieces])
    spans = [(end - len(tokens), end) for (tokens, reply), end in zip(pieces, ends, strict=True) if reply]
    tokens = np.asarray([token for tokens, _ in pieces for token in tokens], dtype=np.int32)
    return Encoded(tokens, np.asarray(spans, dtype=np.int32).reshape(-1, 2), {})
