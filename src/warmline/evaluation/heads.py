"""Heads under two conditions of a chat: behind earlier turns, and with the reply hidden.

A head that is trained on turns alone may say something else behind a conversation, so test comments are read as a chat has them: each the
user's last turn behind earlier ones, by what reads for a person. And a head that reads before the reply must not see it: the reply is
hidden, and the head has to say the very same.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from warmline.companion import PromptReader
from warmline.conversation import Conversation
from warmline.data.encoding import EncodedSource
from warmline.data.template import Message, as_messages
from warmline.metrics.statistics import FloatArray
from warmline.model.device import gap, tolerance
from warmline.model.reader import Reader
from warmline.progress import watched
from warmline.tasks.task import HiddenReply

_BATCH = 64  # comments of a forward pass, about 30 tokens each


def behind_earlier_turns(comments: Sequence[str], dialogues: Sequence[Conversation], seed: int) -> list[list[Message]]:
    """A conversation for each comment: a dialogue up to one of its replies, both drawn, and the comment as the user's next turn.

    Args:
        comments: Any number.
        dialogues: Those to draw from; one without a reply is passed over.
        seed: Of the draws.

    Raises:
        ValueError: no dialogue has a reply.
    """
    replies = [[at for at, turn in enumerate(one.turns) if turn.role == "assistant"] for one in dialogues]
    usable = [(one, ends) for one, ends in zip(dialogues, replies, strict=True) if ends]
    if not usable:
        raise ValueError("no dialogue has a reply to stand before a comment")
    random, talks = np.random.default_rng(seed), []
    for comment in comments:
        dialogue, ends = usable[random.integers(len(usable))]
        earlier = as_messages(dialogue)[: ends[random.integers(len(ends))] + 1]
        talks.append([*earlier, Message(role="user", content=comment)])
    return talks


def read_last_turns(reader: PromptReader, head: str, conversations: Sequence[Sequence[Message]]) -> FloatArray:
    """A head's logits as when serving, [conversations, outputs]; it is one that reads the last turn alone.

    Args:
        reader: Of the tuned model.
        head: Its name.
        conversations: At least one, each ending with a user's message.
    """
    batches = [conversations[start : start + _BATCH] for start in range(0, len(conversations), _BATCH)]
    found = [reader.alone(reader.last_turns(batch))[head].cpu() for batch in watched(batches, f"{head} in context")]
    return np.asarray(torch.cat(found).double().numpy())


def hide_replies(reader: Reader, head: str, source: EncodedSource, logits: FloatArray, seed: int) -> HiddenReply:
    """Score the split once more, in each conversation with one reply, and all that follows it, overwritten by other tokens.

    Overwritten and not cut off: with as many tokens in the same places, what does not depend on them comes out the same to the last bit, in
    any precision (`model/device.py`, which also knows the one exception). A reply that is cut off changes shapes and with them the
    rounding, which in bf16 is enough to break a near tie; and how far a conversation alone is from itself in a batch does not measure
    that: on a CPU it may be nothing at all. So a head that reads a reply is found by the smallest change. What the length of the reply
    would tell it is not looked for.

    Args:
        reader: As when the split was scored.
        head: One that reads assistants' turns.
        source: The encoded test split, its replies with it (objective `lm`).
        logits: [rows, outputs], what the head said when the split was scored.
        seed: Of the turns that are asked.
    """
    tokens, asked = _overwritten(source, head, seed)
    again, before = torch.from_numpy(reader.read(head, [replace(source, tokens=tokens)]).logits), torch.from_numpy(logits)
    allowed = tolerance(reader.model, reader.place.dtype)
    return HiddenReply(len(asked), sum(gap(before[row], again[row]) > allowed for row in asked))


def _overwritten(source: EncodedSource, head: str, seed: int) -> tuple[np.ndarray, list[int]]:
    """The split's tokens, [all tokens], with a header's last token in place of everything after it, and the head's rows to ask."""
    random = np.random.default_rng(seed)
    tokens, asked = source.tokens.copy(), []
    for index in range(len(source)):
        encoded = source[index]
        labels = encoded.labels[head]
        if not len(labels):
            continue
        turn = int(random.integers(len(labels)))
        asked.append(int(source.label_ends[head][index]) - len(labels) + turn)
        end = int(source.token_ends[index])
        start = end - len(encoded.tokens) + _reply_start(encoded.replies, int(labels[turn, 0]))
        tokens[start:end] = tokens[start - 1]
    return tokens, asked


def _reply_start(replies: np.ndarray, position: int) -> int:
    """First token of the reply that a target belongs to: of the first that ends after the position read, or, where the language model
    trains none, the token after that position.
    """
    ending = replies[replies[:, 1] > position]
    return int(ending[0, 0]) if len(ending) else position + 1
