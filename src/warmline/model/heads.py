"""The heads: small, in fp32, on the final hidden states. What one reads and answers, its task says (`warmline.tasks`)."""

import copy
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, rms_norm

from warmline.config import RunConfig
from warmline.data.packing import Batch, HeadRows, earlier_features, features
from warmline.tasks.task import HeadSettings, HeadTask


class HeadSpec(NamedTuple):
    """One head of a run.

    Attributes:
        task: What it is.
        settings: Its section of the configuration.
        labels: What it answers with, an output each.
    """

    task: HeadTask
    settings: HeadSettings
    labels: tuple[str, ...]


def head_specs(config: RunConfig) -> dict[str, HeadSpec]:
    """The heads of a run, by name, in order."""
    return {task.name: HeadSpec(task, config.heads[task.name], config.outputs(task)) for task in config.tasks}


class Head(nn.Module):
    """A linear layer, or one hidden layer with GELU before it. Its output layer starts from zero: the first loss is ln(classes).

    If it is told of earlier replies, what their labels say adds to its first layer.

    Args:
        hidden_size: Width of the states it reads.
        spec: Task, settings and outputs.
        scaled: Whether states are scaled before it reads them; False for heads that were trained before they were.
    """

    def __init__(self, hidden_size: int, spec: HeadSpec, scaled: bool = True) -> None:
        super().__init__()
        self.task, self.labels, self.classes = spec.task, spec.labels, len(spec.labels)
        self.independent = spec.task.independent(self.classes)
        settings = spec.settings
        layers: list[nn.Module] = [nn.Dropout(settings.dropout)]
        width = hidden_size
        if settings.hidden_size is not None:
            layers += [nn.Linear(width, settings.hidden_size), nn.GELU(), nn.Dropout(settings.dropout)]
            width = settings.hidden_size
        output = nn.Linear(width, self.classes)
        nn.init.zeros_(output.bias)
        nn.init.zeros_(output.weight)
        self.layers = nn.Sequential(*layers, output)
        first = settings.hidden_size or self.classes
        self.earlier = nn.Linear(features(len(spec.task.labels)), first) if spec.task.sees_earlier(settings) else None
        for parameter in self.earlier.parameters() if self.earlier is not None else ():
            nn.init.zeros_(parameter)
        self._scaled = scaled

    @property
    def sees_earlier(self) -> bool:
        """Whether the labels of earlier replies are an input."""
        return self.earlier is not None

    def scale(self, states: Tensor) -> Tensor:
        """[rows, hidden], each state scaled to a mean square of 1.

        States differ in size from base to base; on Qwen2.5-1.5B heads on unscaled ones began with losses of 8.1 and 4.8 nats. With one
        scale a rate means the same everywhere.
        """
        return rms_norm(states, states.shape[-1:], eps=1e-6) if self._scaled else states

    def forward(self, states: Tensor, earlier: Tensor | None = None) -> Tensor:
        """Logits.

        Args:
            states: [rows, hidden], of any dtype, as `scale` gives them.
            earlier: [rows, features]; a head that does not see them ignores them.

        Returns:
            [rows, classes], fp32.
        """
        with torch.autocast(states.device.type, enabled=False):
            begun = self._begin(states)
            if self.earlier is not None and earlier is not None:
                begun = begun + self.earlier(earlier)
            logits: Tensor = self.layers[2:](begun)
        return logits

    def read(self, states: Tensor, rows: HeadRows) -> Tensor:
        """Logits at a batch's reading positions, [rows, classes].

        Args:
            states: [tokens, hidden], of the batch.
            rows: Where it reads.
        """
        logits: Tensor = self(self.scale(states)[rows.positions], rows.earlier)  # the other order adds gradients in another
        return logits

    def probabilities(self, logits: Tensor) -> Tensor:
        """[rows, classes], as it was trained: through sigmoid where each output is an answer of its own, else softmax."""
        return logits.sigmoid() if self.independent else logits.softmax(dim=-1)

    @torch.no_grad()
    def by_own_choices(self, states: Tensor) -> Tensor:
        """The replies of one conversation in order, each with the head's own probabilities in place of annotated earlier labels.

        This is what can be known when serving.

        Args:
            states: [replies, hidden], of every reply of the conversation so far, as `scale` gives them.

        Returns:
            [replies, classes], logits.
        """
        if self.earlier is None:
            alone: Tensor = self(states)
            return alone
        with torch.autocast(states.device.type, enabled=False):
            begun = self._begin(states).cpu()  # reply by reply, each a few tiny operations: a GPU would only wait for them
        weight, bias = (parameter.cpu() for parameter in self.earlier.parameters())
        rest = copy.deepcopy(self.layers[2:]).cpu()
        found = torch.zeros(len(begun), self.classes)
        chosen = torch.zeros(len(begun), len(self.task.labels))
        for at in range(len(begun)):
            found[at] = rest(begun[at] + linear(earlier_features(chosen[: at + 1])[-1], weight, bias))
            chosen[at, : self.classes] = found[at].softmax(dim=0)
        return found.to(states.device)

    def _begin(self, states: Tensor) -> Tensor:
        """What the first linear layer makes of states, [rows, its width], fp32."""
        begun: Tensor = self.layers[:2](states.float())
        return begun


class Heads(nn.Module):
    """The heads of a run, by name.

    Args:
        hidden_size: Width of the states they read.
        specs: By name, in order.
        scaled: As of any head.
    """

    def __init__(self, hidden_size: int, specs: Mapping[str, HeadSpec], scaled: bool = True) -> None:
        super().__init__()
        for name, spec in specs.items():
            self.add_module(name, Head(hidden_size, spec, scaled))

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __getitem__(self, name: str) -> Head:
        return self.get_submodule(name)  # type: ignore[return-value]

    def forward(self, states: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Logits of each head at a batch's reading positions.

        Args:
            states: [tokens, hidden], of the batch.
            batch: Says where each reads.
        """
        return {name: self[name].read(states, batch.heads[name]) for name in self}
