"""The one outer module: backbone and heads, a packed batch in, a term for each objective out."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from warmline.data.encoding import EncodedSource
from warmline.data.packing import Batch
from warmline.model.backbone import Backbone
from warmline.model.heads import Heads
from warmline.model.losses import LossTerms, Term, chunked_cross_entropy, chunked_kl, class_weights, head_loss


class MultiTaskModel(nn.Module):
    """Task and safety conversations share one gradient forward, so that DDP sees one forward for each backward.

    Args:
        backbone: A `Backbone` that is an `nn.Module`.
        heads: Made for the backbone's hidden size.

    `class_weights` says what the heads' targets count; training sets it from its data (`count_weights`).
    """

    def __init__(self, backbone: Backbone, heads: Heads) -> None:
        super().__init__()
        self.class_weights: dict[str, Tensor] = {}
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

    def terms(self, states: Tensor, batch: Batch, base_states: Tensor) -> tuple[LossTerms, dict[str, Tensor]]:
        """The loss terms and head logits of given states, [tokens, hidden]."""
        logits, unembedding = self.heads(states, batch), self.backbone.unembedding
        lm = chunked_cross_entropy(states[batch.lm_positions], unembedding, batch.lm_targets)
        safety = chunked_kl(states[batch.safety_positions], unembedding, base_states, self.backbone.base_unembedding, batch.safety_weights)
        terms = {"lm": Term(lm, len(batch.lm_targets))}
        for name, said in logits.items():
            targets = batch.heads[name].targets
            loss = head_loss(said, targets, self.heads[name].independent, self.class_weights.get(name))
            terms[name] = Term(loss, len(targets))
        return {**terms, "safety": Term(safety, len(batch.safety_draws))}, logits


def count_weights(heads: Heads, sources: Sequence[EncodedSource], exponents: Mapping[str, float]) -> dict[str, Tensor]:
    """What a target of each class counts, [outputs] a head, counted on the training data; a head that counts all alike is left out.

    Args:
        heads: Of the model, on its device.
        sources: Training data; each conversation counts once, whatever the mixture draws.
        exponents: `class_weights` of each head.
    """
    found = {}
    for name in heads:
        head = heads[name]
        bits = np.concatenate([np.zeros(0, np.int64), *(source.labels[name][:, 1] for source in sources if name in source.labels)])
        among = bits[:, None] >> np.arange(head.classes) & 1
        shares = among / np.maximum(among.sum(axis=1, keepdims=True), 1)
        weights = class_weights(shares.sum(axis=0).tolist(), exponents[name])
        if weights is not None:
            found[name] = torch.tensor(weights, dtype=torch.float32, device=next(head.parameters()).device)
    return found
