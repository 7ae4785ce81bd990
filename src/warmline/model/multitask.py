"""The one outer module: backbone and heads, a packed batch in, four loss terms out."""

from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor, nn

from warmline.config import HeadsConfig
from warmline.data.encoding import EncodedSource
from warmline.data.labels import STRATEGIES
from warmline.data.mixture import Draw
from warmline.data.packing import Batch, collate, reply_states, sequential_rows
from warmline.model.backbone import Backbone
from warmline.model.heads import HeadLogits, Heads
from warmline.model.losses import (
    ClassWeights,
    LossTerms,
    Term,
    chunked_cross_entropy,
    chunked_kl,
    class_weights,
    emotion_loss,
    strategy_loss,
)


class MultiTaskModel(nn.Module):
    """Task and safety conversations share one gradient forward, so that DDP sees one forward for each backward.

    Args:
        backbone: A `Backbone` that is an `nn.Module`.
        heads: Made for the backbone's hidden size.

    `class_weights` says what the heads' targets count; training sets it from its data (`count_weights`).
    """

    def __init__(self, backbone: Backbone, heads: Heads) -> None:
        super().__init__()
        self.class_weights = ClassWeights()
        self.backbone = backbone
        self.heads = heads

    def states(self, batch: Batch) -> Tensor:
        """Hidden states of a batch's tokens, [tokens, hidden]."""
        return self.backbone.hidden(batch.tokens, batch.position_ids, batch.bounds, batch.longest)

    def forward(self, batch: Batch, base_states: Tensor) -> LossTerms:
        """One gradient forward.

        Args:
            batch: On the backbone's device.
            base_states: [safety targets, hidden], the base's states at `batch.safety_positions`.
        """
        return self.terms(self.states(batch), batch, base_states)[0]

    def terms(self, states: Tensor, batch: Batch, base_states: Tensor) -> tuple[LossTerms, HeadLogits]:
        """The loss terms and head logits of given states."""
        logits = self.heads(states, batch)
        unembedding, weights = self.backbone.unembedding, self.class_weights
        lm = chunked_cross_entropy(states[batch.lm_positions], unembedding, batch.lm_targets)
        safety = chunked_kl(states[batch.safety_positions], unembedding, base_states, self.backbone.base_unembedding, batch.safety_weights)
        terms = LossTerms(
            lm=Term(lm, len(batch.lm_targets)),
            emotion=Term(emotion_loss(logits.emotion, batch.emotion_targets, weights.emotion), len(batch.emotion_targets)),
            strategy=Term(strategy_loss(logits.strategy, batch.strategy_targets, weights.strategy), len(batch.strategy_targets)),
            safety=Term(safety, len(batch.safety_draws)),
        )
        return terms, logits


def count_weights(config: HeadsConfig, sources: Sequence[EncodedSource], emotions: int, device: torch.device) -> ClassWeights:
    """What the heads' targets count, by the classes' frequencies in the training data.

    Args:
        config: Of the heads.
        sources: Training data; each conversation counts once, whatever the mixture draws.
        emotions: 27 or 28.
        device: Of the weights.
    """
    bits = np.concatenate([source.emotion[:, 1] for source in sources])[:, None] >> np.arange(emotions) & 1
    shares = bits / np.maximum(bits.sum(axis=1, keepdims=True), 1)
    strategies = np.concatenate([source.strategy[:, 1] for source in sources])
    counts = {"emotion": shares.sum(axis=0), "strategy": np.bincount(strategies, minlength=len(STRATEGIES))}
    found = {}
    for name, of_head in (("emotion", config.emotion), ("strategy", config.strategy)):
        weights = class_weights(counts[name].tolist(), of_head.class_weights)
        found[name] = None if weights is None else torch.tensor(weights, dtype=torch.float32, device=device)
    return ClassWeights(**found)


_BASE_TOKENS = 2048  # of one forward pass over the safety set


class BaseStates:
    """The base's final hidden states at the safety set's reply positions, computed once.

    Neither the base nor the safety set changes during a run, so one pass replaces a second forward in every step. 2 bytes times the
    hidden size a token: 8 KiB at 8B, about 130 MB for the whole set.

    Args:
        model: Its backbone's `reference()` gives the base.
        sources: Those the draws point into.
        autocast: The precision the run trains in, so that the KL starts at 0.
    """

    def __init__(
        self,
        model: MultiTaskModel,
        sources: list[EncodedSource],
        autocast: "torch.autocast | nullcontext[None]",
    ) -> None:
        self._hidden_size = model.backbone.hidden_size
        self._states: dict[Draw, Tensor] = {}
        for place, source in enumerate(sources):
            if "safety" not in source.objectives:
                continue
            draws = [Draw(place, index) for index in range(len(source))]
            for row in sequential_rows(sources, draws, _BASE_TOKENS):
                batch = collate(sources, [row]).to(model.backbone.device)
                with model.backbone.reference(), autocast:
                    states = model.states(batch)[batch.safety_positions]
                of_each = states.split([len(reply_states(source[draw.conversation])) for draw in batch.safety_draws])
                self._states.update(zip(batch.safety_draws, (each.clone() for each in of_each), strict=True))

    def __call__(self, batch: Batch) -> Tensor:
        """[safety targets, hidden], in the batch's order."""
        if not batch.safety_draws:
            return torch.zeros(0, self._hidden_size, device=batch.tokens.device)
        return torch.cat([self._states[draw] for draw in batch.safety_draws])
