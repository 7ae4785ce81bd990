"""Reading encoded conversations with a model, without a gradient: the base's states, and whatever is scored after training.

Conversations are packed into passes of so many tokens and stay in their order, so that row i of what is returned is label i of the source.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from warmline.data.encoding import EncodedSource
from warmline.data.mixture import Draw
from warmline.data.packing import Batch, Row, all_draws, collate, reply_states, sequential_rows
from warmline.metrics.statistics import BoolArray, FloatArray, IntArray
from warmline.model.device import Place
from warmline.model.losses import token_nats
from warmline.model.multitask import MultiTaskModel
from warmline.progress import watched


class ForwardPass(NamedTuple):
    """One forward pass.

    Attributes:
        row: The conversations.
        batch: The same, packed, on the model's device.
        states: [tokens, hidden].
    """

    row: Row
    batch: Batch
    states: Tensor


class Readings(NamedTuple):
    """What a head reads and says in some conversations, and what people said.

    Attributes:
        inputs: [rows, width], what its first layers read, fp32: a probe on them sees what the head sees.
        logits: [rows, outputs].
        own_choices: [rows, outputs], with the head's own probabilities in place of annotated earlier labels; the same as `logits` where it
            sees none.
        labels: [rows, labels], True where one applies.
        conversations: [rows], a number for the conversation that each row belongs to.
    """

    inputs: npt.NDArray[np.float32]
    logits: FloatArray
    own_choices: FloatArray
    labels: BoolArray
    conversations: IntArray

    def only(self, rows: BoolArray | slice) -> "Readings":
        """Some of the rows."""
        return Readings(self.inputs[rows], self.logits[rows], self.own_choices[rows], self.labels[rows], self.conversations[rows])


class Reader(NamedTuple):
    """A model, where and how precisely it runs, and how much at a time.

    Attributes:
        model: In evaluation mode. Inside `model.backbone.reference()` the states are the base's.
        place: Device and precision.
        pass_tokens: Tokens of a forward pass.
    """

    model: MultiTaskModel
    place: Place
    pass_tokens: int

    def passes(
        self, sources: Sequence[EncodedSource], draws: Sequence[Draw] | None = None, doing: str | None = None
    ) -> Iterator[ForwardPass]:
        """Every conversation once, in order.

        Args:
            sources: What the draws point into.
            draws: Which; None takes all.
            doing: Shown beside a progress bar; None shows none.
        """
        rows = list(sequential_rows(sources, all_draws(sources) if draws is None else draws, self.pass_tokens))
        for row in rows if doing is None else watched(rows, doing):
            batch = collate(sources, [row]).to(self.model.backbone.device)
            yield ForwardPass(row, batch, self.states(batch))

    @torch.no_grad()
    def states(self, batch: Batch) -> Tensor:
        """[tokens, hidden], of a batch on the model's device."""
        with self.place.autocast():
            return self.model.states(batch)

    def base_states(self, batch: Batch) -> Tensor:
        """[tokens, hidden], the base's."""
        with self.model.backbone.reference():
            return self.states(batch)

    @torch.no_grad()
    def read(self, head: str, sources: Sequence[EncodedSource], draws: Sequence[Draw] | None = None) -> Readings:
        """What a head reads and says at every labelled turn.

        Args:
            head: Its name.
            sources: As for `passes`.
            draws: As for `passes`; at least one has a label.
        """
        own, parts = self.model.heads[head], []
        for one in self.passes(sources, draws, f"{head} head"):
            rows = one.batch.heads[head]
            states = own.scale(one.states[rows.positions]).float()
            logits = own(states, rows.earlier)
            inputs = torch.cat([states, rows.earlier], dim=1) if own.sees_earlier else states
            choices = self._own_choices(head, one) if own.sees_earlier else logits
            numbers = self._conversations(one, rows.positions, sources)
            parts.append((inputs, logits.double(), choices.double(), rows.targets.bool(), numbers))
        return Readings(*(torch.cat([tensor.cpu() for tensor in column]).numpy() for column in zip(*parts, strict=True)))

    def _own_choices(self, head: str, one: ForwardPass) -> Tensor:
        """[rows, outputs], conversation by conversation."""
        own, positions = self.model.heads[head], one.batch.heads[head].positions
        states = own.scale(one.states[positions])
        edges = torch.searchsorted(positions, one.batch.bounds.to(positions.dtype)).tolist()
        return torch.cat([own.by_own_choices(states[first:end]) for first, end in zip(edges[:-1], edges[1:], strict=True)])

    def _conversations(self, one: ForwardPass, positions: Tensor, sources: Sequence[EncodedSource]) -> Tensor:
        """[rows], the number of each row's conversation; parts of a split one share it."""
        numbers = torch.tensor([(draw.source << 32) + int(sources[draw.source].originals[draw.conversation]) for draw in one.row])
        return numbers[torch.searchsorted(one.batch.bounds.cpu(), positions.cpu().to(torch.int32), right=True) - 1]


@torch.no_grad()
def without_unlikely(
    model: MultiTaskModel, sources: Sequence[EncodedSource], place: Place, perplexity: float, end_of_turn: int, pass_tokens: int
) -> list[EncodedSource]:
    """Sources whose reply tokens are skipped where the base finds them very unlikely (Selective Token Masking, arXiv 2501.14315).

    What a base would hardly say is what it learns worst and forgets most over. The end of a turn is always learned, or a model that is
    given to long replies would never learn to stop.

    Args:
        model: Its backbone's `reference()` gives the base.
        sources: Those that do not train the language model are left as they are.
        place: Device and precision.
        perplexity: Of a token, above which it is skipped: 1 / (its probability).
        end_of_turn: That token's id.
        pass_tokens: Tokens of a forward pass.
    """
    found = []
    with model.backbone.reference():
        for source in sources:
            if "lm" not in source.objectives:
                found.append(source)
                continue
            skipped, done = np.zeros(len(source.tokens), np.bool_), 0
            for one in Reader(model, place, pass_tokens).passes([source], doing=f"{source.name}: what the base would hardly say"):
                batch = one.batch
                nats = token_nats(one.states[batch.lm_positions], model.backbone.base_unembedding, batch.lm_targets)
                unlikely = batch.lm_positions[(nats > math.log(perplexity)) & (batch.lm_targets != end_of_turn)]
                skipped[done + 1 + unlikely.cpu().numpy()] = True
                done += len(batch.tokens)
            found.append(replace(source, skipped=skipped))
    return found


class BaseStates:
    """The base's final hidden states at the safety set's reply positions, computed once.

    Neither the base nor the safety set changes during a run, so one pass replaces a second forward in every step. 2 bytes times the
    hidden size a token: 8 KiB at 8B, about 130 MB for the whole set.

    Args:
        model: Its backbone's `reference()` gives the base.
        sources: Those the draws point into.
        place: Device and precision of the run, so that the KL starts at 0.
    """

    _PASS_TOKENS = 2048

    def __init__(self, model: MultiTaskModel, sources: Sequence[EncodedSource], place: Place) -> None:
        self._hidden_size = model.backbone.hidden_size
        self._states: dict[Draw, Tensor] = {}
        draws = [draw for draw in all_draws(sources) if "safety" in sources[draw.source].objectives]
        with model.backbone.reference():
            for one in Reader(model, place, self._PASS_TOKENS).passes(sources, draws):
                lengths = [len(reply_states(sources[draw.source][draw.conversation])) for draw in one.batch.safety_draws]
                of_each = one.states[one.batch.safety_positions].split(lengths)
                self._states.update(zip(one.batch.safety_draws, (each.clone() for each in of_each), strict=True))

    def __call__(self, batch: Batch) -> Tensor:
        """[safety targets, hidden], in the batch's order."""
        if not batch.safety_draws:
            return torch.zeros(0, self._hidden_size, device=batch.tokens.device)
        return torch.cat([self._states[draw] for draw in batch.safety_draws])
