"""The emotion and strategy heads: small, in fp32, on the hidden states that the configuration names."""

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, rms_norm

from warmline.config import HeadConfig, HeadsConfig
from warmline.data.earlier import FEATURES, earlier_features
from warmline.data.labels import STRATEGIES
from warmline.data.packing import Batch
from warmline.model.backbone import States


class HeadLogits(NamedTuple):
    """What the heads say; rows follow the positions that were read."""

    emotion: Tensor
    strategy: Tensor


class ClassificationHead(nn.Module):
    """A linear layer, or one hidden layer with GELU before it. Its output layer starts from zero: the first loss is ln(classes).

    Args:
        hidden_size: Width of the states it reads.
        classes: Number of labels.
        config: Hidden layer, dropout, and which states it reads.
        scaled: Whether `pick` scales the states; False for heads that were trained before it did.
    """

    def __init__(self, hidden_size: int, classes: int, config: HeadConfig, scaled: bool = True) -> None:
        super().__init__()
        self.classes = classes
        layers: list[nn.Module] = [nn.Dropout(config.dropout)]
        width = hidden_size
        if config.hidden_size is not None:
            layers += [nn.Linear(width, config.hidden_size), nn.GELU(), nn.Dropout(config.dropout)]
            width = config.hidden_size
        output = nn.Linear(width, classes)
        nn.init.zeros_(output.bias)
        nn.init.zeros_(output.weight)
        self.layers = nn.Sequential(*layers, output)
        self._final = config.final_states
        self._scaled = scaled

    @property
    def first_layers(self) -> list[nn.Linear]:
        """What reads `inputs`, a layer each, its outputs added up: of a head without a hidden layer, the whole head."""
        return self._linear[:1]

    @property
    def output(self) -> nn.Linear:
        """What makes the logits."""
        return self._linear[-1]

    @property
    def _linear(self) -> list[nn.Linear]:
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]

    def pick(self, states: States) -> Tensor:
        """[tokens, hidden], of both kinds of states the one that this head reads, each state scaled to a mean square of 1.

        States differ in size from base to base and from layer to layer; on Qwen2.5-1.5B heads on unscaled ones began with losses of 8.1 and
        4.8 nats. With one scale a rate means the same everywhere.
        """
        read = states.final if self._final else states.inner
        return rms_norm(read, read.shape[-1:], eps=1e-6) if self._scaled else read

    def forward(self, states: Tensor, beside: Tensor | None = None) -> Tensor:
        """Logits.

        Args:
            states: [rows, hidden], of any dtype.
            beside: [rows, width of the first layer's output], added to it.

        Returns:
            [rows, classes], fp32.
        """
        begun = self.begin(states)
        with torch.autocast(states.device.type, enabled=False):
            logits: Tensor = self.layers[2:](begun if beside is None else begun + beside)
        return logits

    def begin(self, states: Tensor) -> Tensor:
        """What the first linear layer makes of states, [rows, its width], fp32."""
        with torch.autocast(states.device.type, enabled=False):
            begun: Tensor = self.layers[:2](states.float())
        return begun


class AttentionPooling(nn.Module):
    """A learned weighted mean of a turn's states. At the start every token weighs the same.

    Args:
        hidden_size: Width of the states.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.score = nn.Linear(hidden_size, 1, bias=False)
        nn.init.zeros_(self.score.weight)

    def forward(self, states: Tensor, turn: Tensor, turns: int) -> Tensor:
        """Pool each turn.

        Args:
            states: [tokens of all turns, hidden], fp32.
            turn: [tokens of all turns], the turn of each.
            turns: How many there are, each with a token.

        Returns:
            [turns, hidden].
        """
        # a product of matrices, since index_add on CUDA adds in no fixed order and a reading would differ from itself
        others = turn != torch.arange(turns, device=turn.device)[:, None]
        scores: Tensor = self.score(states)[:, 0].expand(turns, -1).masked_fill(others, -torch.inf)
        return scores.softmax(dim=1) @ states


class TurnTokens(NamedTuple):
    """The tokens of some turns, one turn after the other.

    Attributes:
        at: [tokens], where each stands in the flat sequence.
        turn: [tokens], which turn it belongs to.
    """

    at: Tensor
    turn: Tensor


def turn_tokens(starts: Tensor, ends: Tensor) -> TurnTokens:
    """Every token from each start to its end, both included; [turns] each."""
    lengths = ends - starts + 1
    turn = torch.repeat_interleave(torch.arange(len(ends), device=ends.device), lengths)
    before = lengths.cumsum(0) - lengths
    return TurnTokens(torch.arange(len(turn), device=ends.device) - before[turn] + starts[turn], turn)


class EmotionHead(ClassificationHead):
    """Reads a user's turn: its last state, or a learned mean of its states.

    Args:
        hidden_size: Width of the states it reads.
        classes: 27 classes, or 28 labels with neutral.
        config: As of the configuration.
        scaled: As of any head.
    """

    def __init__(self, hidden_size: int, classes: int, config: HeadsConfig, scaled: bool = True) -> None:
        super().__init__(hidden_size, classes, config.emotion, scaled)
        self.pooling = AttentionPooling(hidden_size) if config.emotion.pooling == "attention" else None

    def read(self, states: Tensor, starts: Tensor, ends: Tensor) -> Tensor:
        """Logits of user turns, [turns, classes].

        Args:
            states: [tokens, hidden].
            starts: [turns], first token of each turn.
            ends: [turns], its last, the end-of-turn token. No later token is looked at.
        """
        logits: Tensor = self(self._pooled(states, starts, ends))
        return logits

    def inputs(self, states: States, batch: Batch) -> list[Tensor]:
        """What its first layer reads of a batch, [turns, hidden]."""
        return [self._pooled(self.pick(states), batch.emotion_starts, batch.emotion_positions)]

    def _pooled(self, states: Tensor, starts: Tensor, ends: Tensor) -> Tensor:
        if self.pooling is None:
            return states[ends]
        tokens = turn_tokens(starts, ends)
        with torch.autocast(states.device.type, enabled=False):
            pooled: Tensor = self.pooling(states[tokens.at].float(), tokens.turn, len(ends))
        return pooled


class StrategyHead(ClassificationHead):
    """Reads the state that will predict a reply's first token; if it is told of earlier replies, what these say adds to its first layer.

    Args:
        hidden_size: Width of the states it reads.
        config: As of the configuration.
        scaled: As of any head.
    """

    def __init__(self, hidden_size: int, config: HeadsConfig, scaled: bool = True) -> None:
        super().__init__(hidden_size, len(STRATEGIES), config.strategy, scaled)
        self.earlier = nn.Linear(FEATURES, self._linear[0].out_features) if config.strategy.earlier_strategies else None
        for parameter in self.earlier.parameters() if self.earlier is not None else ():
            nn.init.zeros_(parameter)

    @property
    def sees_earlier(self) -> bool:
        """Whether earlier strategies are an input."""
        return self.earlier is not None

    @property
    def first_layers(self) -> list[nn.Linear]:
        """As of any head, and that of the earlier strategies."""
        return [*super().first_layers, *([] if self.earlier is None else [self.earlier])]

    def inputs(self, states: States, batch: Batch) -> list[Tensor]:
        """What its first layers read of a batch: [replies, hidden], and [replies, FEATURES] where it sees earlier strategies."""
        told = [] if self.earlier is None else [batch.strategy_earlier]
        return [self.pick(states)[batch.strategy_positions], *told]

    def read(self, states: Tensor, earlier: Tensor) -> Tensor:
        """Logits of replies to come, [replies, 8].

        Args:
            states: [replies, hidden].
            earlier: [replies, FEATURES]; a head that does not see them ignores them.
        """
        beside: Tensor | None = None
        if self.earlier is not None:
            with torch.autocast(states.device.type, enabled=False):
                beside = self.earlier(earlier)
        logits: Tensor = self(states, beside)
        return logits

    @torch.no_grad()
    def by_own_choices(self, states: Tensor) -> Tensor:
        """The replies of one conversation in order, each with the head's own probabilities in place of annotated earlier strategies.

        This is what can be known when serving.

        Args:
            states: [replies, hidden], of every reply of the conversation so far.

        Returns:
            [replies, 8], logits.
        """
        if self.earlier is None:
            alone: Tensor = self(states)
            return alone
        begun = self.begin(states).cpu()  # reply by reply, each a few tiny operations: a GPU would only wait for them
        weight, bias = (parameter.cpu() for parameter in self.earlier.parameters())
        rest = copy.deepcopy(self.layers[2:]).cpu()
        found = torch.zeros(len(begun), self.classes)
        chosen = torch.zeros_like(found)
        for at in range(len(begun)):
            found[at] = rest(begun[at] + linear(earlier_features(chosen[: at + 1])[-1], weight, bias))
            chosen[at] = found[at].softmax(dim=0)
        return found.to(states.device)


class Heads(nn.Module):
    """Both heads.

    Args:
        hidden_size: Width of the states they read.
        emotions: 27 classes, or 28 labels with neutral.
        config: One section a head.
        scaled: As of any head.
    """

    def __init__(self, hidden_size: int, emotions: int, config: HeadsConfig, scaled: bool = True) -> None:
        super().__init__()
        self.emotion = EmotionHead(hidden_size, emotions, config, scaled)
        self.strategy = StrategyHead(hidden_size, config, scaled)

    def forward(self, states: States, batch: Batch) -> HeadLogits:
        """Logits at a batch's reading positions.

        Args:
            states: Of the batch's tokens.
            batch: Says where emotion and strategy are read, and which strategies came earlier.
        """
        return HeadLogits(
            self.emotion.read(self.emotion.pick(states), batch.emotion_starts, batch.emotion_positions),
            self.strategy.read(self.strategy.pick(states)[batch.strategy_positions], batch.strategy_earlier),
        )
