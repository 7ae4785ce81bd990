"""Test comments as a chat has them: each the user's last turn behind earlier ones, read by what reads for a person.

A head that is trained on turns alone may say something else behind a conversation. Here that would be seen.
"""

from collections.abc import Sequence

import numpy as np
import torch

from warmline.companion import PromptReader
from warmline.conversation import Conversation
from warmline.data.template import Message, as_messages
from warmline.metrics.statistics import FloatArray
from warmline.progress import watched

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
