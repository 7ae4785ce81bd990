"""The emotion and strategy heads: small, in fp32, on the final hidden state."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from warmline.config import HeadConfig, HeadsConfig
from warmline.data.labels import STRATEGIES


class HeadLogits(NamedTuple):
    """What the heads say; rows follow the positions that were read."""

    emotion: Tensor
    strategy: Tensor


class ClassificationHead(nn.Module):
    """A linear layer, or one hidden layer with GELU before it.

    Args:
        hidden_size: Width of the states it reads.
        classes: Number of labels.
        config: Hidden layer and dropout.
    """

    def __init__(self, hidden_size: int, classes: int, config: HeadConfig) -> None:
        super().__init__()
        self.classes = classes
        layers: list[nn.Module] = [nn.Dropout(config.dropout)]
        width = hidden_size
        if config.hidden_size is not None:
            layers += [nn.Linear(width, config.hidden_size), nn.GELU(), nn.Dropout(config.dropout)]
            width = config.hidden_size
        output = nn.Linear(width, classes)
        nn.init.zeros_(output.bias)
        nn.init.normal_(output.weight, std=0.02)
        self.layers = nn.Sequential(*layers, output)

    def forward(self, states: Tensor) -> Tensor:
        """[rows, hidden] of any dtype to logits [rows, classes] in fp32."""
        with torch.autocast(states.device.type, enabled=False):
            logits: Tensor = self.layers(states.float())
        return logits


class Heads(nn.Module):
    """Both heads.

    Args:
        hidden_size: Width of the states they read.
        emotions: 27 classes, or 28 labels with neutral.
        config: One section a head.
    """

    def __init__(self, hidden_size: int, emotions: int, config: HeadsConfig) -> None:
        super().__init__()
        self.emotion = ClassificationHead(hidden_size, emotions, config.emotion)
        self.strategy = ClassificationHead(hidden_size, len(STRATEGIES), config.strategy)

    def forward(self, states: Tensor, emotion_positions: Tensor, strategy_positions: Tensor) -> HeadLogits:
        """Logits at the reading positions.

        Args:
            states: [tokens, hidden].
            emotion_positions: [emotion rows], the last token of a user's turn.
            strategy_positions: [strategy rows], the last token of an assistant's header.
        """
        return HeadLogits(self.emotion(states[emotion_positions]), self.strategy(states[strategy_positions]))
