"""The language model on held-out replies, tuned beside base: perplexity, bits per byte, and how far the tuned one has drifted.

Perplexity depends on the tokenizer and compares only models that share one; bits per byte compares any. Nats are summed over the reply
tokens and the end-of-turn token that closes each reply; bytes are those of the reply's text in UTF-8.

A base that never saw a chat template may be lost in it, and tuning then looks better than it is. So the base is also told the
conversations as plain lines, `A: ...` and `B: ...`, where it shows what it knows of them; a line's end stands for the end-of-turn token.
Tokens differ between the two tellings, so they are compared in bits per byte.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from warmline.conversation import Conversation
from warmline.data.encoding import Encoded, EncodedSource, join_parts
from warmline.data.packing import Batch
from warmline.data.template import ChatTemplate
from warmline.metrics.statistics import FloatArray, IntArray, Statistic, cluster_bootstrap, point, weighted_ratio
from warmline.model.losses import token_kl, token_nats
from warmline.model.reader import ForwardPass, Reader

PROTOCOL = "teacher-forced on every assistant turn of the test split, each with the whole conversation before it"


class ReplyLosses(NamedTuple):
    """Sums over the replies of each conversation of a source.

    Attributes:
        conversations: [conversations], place in the loaded list.
        tokens: [conversations], reply tokens with their end-of-turn tokens.
        reply_bytes: [conversations], UTF-8 bytes of the replies' text.
        tuned: [conversations], nats.
        base: [conversations], nats.
        lines: [conversations], nats of the base that is told the conversation as plain lines.
        kl: [conversations], KL(base || tuned) summed over the reply tokens, nats.
    """

    conversations: IntArray
    tokens: IntArray
    reply_bytes: IntArray
    tuned: FloatArray
    base: FloatArray
    lines: FloatArray
    kl: FloatArray


def reply_losses(reader: Reader, source: EncodedSource, conversations: Sequence[Conversation], template: ChatTemplate) -> ReplyLosses:
    """Score a source's replies with tuned model and base.

    Args:
        reader: Of the run.
        source: Encoded with the objective `lm`.
        conversations: What it was encoded from.
        template: What it was encoded with.
    """
    sums = np.zeros((len(conversations), 4))
    for one in reader.passes([source], doing=f"language model: {source.name}"):
        found = reply_sums(reader, one, reader.base_states(one.batch), one.batch.lm_positions)
        np.add.at(sums, source.originals[[draw.conversation for draw in one.row]], found)
    lengths = [sum(len(template.clean(turn.text).encode()) for turn in one.turns if turn.role == "assistant") for one in conversations]
    scored = np.flatnonzero(sums[:, 0])
    tokens, tuned_nats, template_nats, kl = sums[scored].T
    lines = _told_in_lines(reader, tell(source.name, [conversations[at] for at in scored.tolist()], template))
    return ReplyLosses(scored, tokens.astype(np.int64), np.asarray(lengths)[scored], tuned_nats, template_nats, lines, kl)


def _told_in_lines(reader: Reader, told: EncodedSource) -> FloatArray:
    """What the base needs for the replies of each conversation, [conversations], nats."""
    nats, backbone = np.zeros(len(told)), reader.model.backbone
    with backbone.reference():
        for one in reader.passes([told], doing=f"base, told in plain lines: {told.name}"):
            batch = one.batch
            found = token_nats(one.states[batch.lm_positions], backbone.base_unembedding, batch.lm_targets)
            nats[[draw.conversation for draw in one.row]] = _by_conversation(batch, batch.lm_positions, found)[:, 0]
    return nats


def reply_sums(reader: Reader, one: ForwardPass, base: Tensor, positions: Tensor) -> FloatArray:
    """Losses of each conversation's replies, by the tuned model and the base.

    Args:
        reader: That made the pass.
        one: Of some conversations, by the tuned model.
        base: [tokens, hidden], the base's states of the same.
        positions: [targets], states that predict a reply token.

    Returns:
        [conversations, 4], sums over a conversation's reply tokens: one each, nats of the tuned model, nats of the base, KL(base || tuned).
    """
    backbone, targets = reader.model.backbone, one.batch.tokens[positions + 1]
    tuned, base = one.states[positions], base[positions]
    return _by_conversation(
        one.batch,
        positions,
        torch.ones(len(positions), device=positions.device),
        token_nats(tuned, backbone.unembedding, targets),
        token_nats(base, backbone.base_unembedding, targets),
        token_kl(tuned, backbone.unembedding, base, backbone.base_unembedding),
    )


def _by_conversation(batch: Batch, positions: Tensor, *scores: Tensor) -> FloatArray:
    """[conversations, scores]: the sums of each score, [targets], over a conversation's positions."""
    conversation = torch.searchsorted(batch.bounds[1:].to(positions.dtype), positions, right=True)
    sums = np.zeros((len(batch.bounds) - 1, len(scores)))
    np.add.at(sums, conversation.cpu().numpy(), torch.stack(scores, dim=1).double().cpu().numpy())
    return sums


def score_language(losses: dict[str, ReplyLosses], seed: int) -> dict[str, Any]:
    """Figures of each source, and the drift on task and on safety conversations.

    Args:
        losses: By source name; `safety` is the safety set.
        seed: Of the bootstrap over conversations.
    """
    task = [one for name, one in losses.items() if name != "safety"]
    absent = {}
    if not task:
        absent["task"] = "no source with replies is enabled"
    return {
        "protocol": PROTOCOL,
        "sources": {name: _source(one, seed) for name, one in losses.items()},
        "kl_per_token": {
            "task": _kl(task, seed) if task else None,
            "safety": _kl([losses["safety"]], seed),
        },
        **({"absent": absent} if absent else {}),
    }


def _source(losses: ReplyLosses, seed: int) -> dict[str, Any]:
    log_ratio = weighted_ratio(losses.tuned - losses.base, losses.tokens)
    told = weighted_ratio(losses.tuned, losses.lines)
    return {
        "conversations": len(losses.conversations),
        "reply_tokens": int(losses.tokens.sum()),
        "reply_bytes": int(losses.reply_bytes.sum()),
        "tuned": _model(losses.tuned, losses, seed),
        "base": _model(losses.base, losses, seed),
        "base_as_lines": {"bits_per_byte": _bits_per_byte(losses.lines, losses, seed)},
        "perplexity_ratio": _figure(lambda weights: np.exp(log_ratio(weights)), len(losses.tokens), seed),
        "bits_ratio_to_lines": _figure(told, len(losses.tokens), seed),
    }


def _model(nats: FloatArray, losses: ReplyLosses, seed: int) -> dict[str, Any]:
    mean = weighted_ratio(nats, losses.tokens)
    return {
        "perplexity": _figure(lambda weights: np.exp(mean(weights)), len(nats), seed),
        "bits_per_byte": _bits_per_byte(nats, losses, seed),
    }


def _bits_per_byte(nats: FloatArray, losses: ReplyLosses, seed: int) -> dict[str, Any]:
    return _figure(weighted_ratio(nats / np.log(2), losses.reply_bytes), len(nats), seed)


def _kl(parts: list[ReplyLosses], seed: int) -> dict[str, Any]:
    kl, tokens = (np.concatenate([getattr(one, name) for one in parts]) for name in ("kl", "tokens"))
    return _figure(weighted_ratio(kl, tokens), len(kl), seed)


def _figure(statistic: Statistic, conversations: int, seed: int) -> dict[str, Any]:
    """`value` and `interval` over conversations; a single conversation has no interval."""
    interval = cluster_bootstrap(statistic, np.arange(conversations), seed) if conversations > 1 else None
    return {"value": point(statistic, conversations), "interval": interval}


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
