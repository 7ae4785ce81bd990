"""The emotion and strategy heads: small, in fp32, on the final hidden states."""

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, rms_norm

from warmline.config import HeadConfig, HeadsConfig
from warmline.data.earlier import FEATURES, earlier_features
from warmline.data.labels import STRATEGIES
from warmline.data.packing import Batch


class HeadLogits(NamedTuple):
    """What the heads say; rows follow the positions that were read."""

    emotion: Tensor
    strategy: Tensor


class ClassificationHead(nn.Module):
    """A linear layer, or one hidden layer with GELU before it. Its output layer starts from zero: the first loss is ln(classes).

    Args:
        hidden_size: Width of the states it reads.
        classes: Number of labels.
        config: Hidden layer and dropout.
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
        self._scaled = scaled

    def pick(self, states: Tensor) -> Tensor:
        """[tokens, hidden], each state scaled to a mean square of 1.

        States differ in size from base to base; on Qwen2.5-1.5B heads on unscaled ones began with losses of 8.1 and 4.8 nats. With one
        scale a rate means the same everywhere.
        """
        return rms_norm(states, states.shape[-1:], eps=1e-6) if self._scaled else states

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


class StrategyHead(ClassificationHead):
    """Reads the state that will predict a reply's first token; if it is told of earlier replies, what these say adds to its first layer.

    Args:
        hidden_size: Width of the states it reads.
        config: As of the configuration.
        scaled: As of any head.
    """

    def __init__(self, hidden_size: int, config: HeadsConfig, scaled: bool = True) -> None:
        super().__init__(hidden_size, len(STRATEGIES), config.strategy, scaled)
        self.earlier = nn.Linear(FEATURES, config.strategy.hidden_size or len(STRATEGIES)) if config.strategy.earlier_strategies else None
        for parameter in self.earlier.parameters() if self.earlier is not None else ():
            nn.init.zeros_(parameter)

    @property
    def sees_earlier(self) -> bool:
        """Whether earlier strategies are an input."""
        return self.earlier is not None

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
        self.emotion = ClassificationHead(hidden_size, emotions, config.emotion, scaled)
        self.strategy = StrategyHead(hidden_size, config, scaled)

    def forward(self, states: Tensor, batch: Batch) -> HeadLogits:
        """Logits at a batch's reading positions.

        Args:
            states: [tokens, hidden], of the batch.
            batch: Says where emotion and strategy are read, and which strategies came earlier.
        """
        return HeadLogits(
            self.emotion(self.emotion.pick(states)[batch.emotion_positions]),
            self.strategy.read(self.strategy.pick(states)[batch.strategy_positions], batch.strategy_earlier),
        )
