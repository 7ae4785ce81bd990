"""AdamW over adapter and heads, whose many small tensors are laid out as a few long ones.

An adapter at 8B is 504 tensors. Updated one by one they cost a launch each, and bitsandbytes' 8-bit AdamW even waits for the device after
each: 65 of 385 ms a step, measured. AdamW looks at every value alone, so one long tensor gives the same update.

The learning rate: linear warm-up, then cosine, a pure function of the optimiser step.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from warmline.errors import WarmlineError
from warmline.model.multitask import MultiTaskModel
from warmline.settings import TrainingConfig
from warmline.training.sharding import whole


class LongTensor:
    """Parameters laid one after the other in one fp32 tensor.

    In fp32 the parameters then are views of it. In half precision, as when every weight is trained on a GPU, they are views of its
    rounding: an update of 3e-5 would be lost on a bf16 weight of 1, whose next number is 8e-3 away.

    Args:
        parameters: Of one device and precision.

    Attributes:
        whole: What the optimiser updates.
        rounded: Whether the parameters are its rounding.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self._parameters = list(parameters)
        self._seen = torch.cat([parameter.detach().flatten() for parameter in self._parameters])
        self.whole = nn.Parameter(self._seen.float())  # the same memory in fp32
        self.rounded = self._seen.dtype != torch.float32
        for parameter, part in zip(self._parameters, self._split(self._seen), strict=True):
            parameter.data = part

    def collect(self) -> None:
        """Move the parameters' gradients into the gradient of the whole; a missing one is zero."""
        grads = [parameter.grad if parameter.grad is not None else torch.zeros_like(parameter) for parameter in self._parameters]
        self.whole.grad = torch.cat([grad.flatten() for grad in grads]).float()
        for parameter in self._parameters:
            parameter.grad = None

    def show(self) -> None:
        """Let the parameters have what the whole has become."""
        if self.rounded:
            self._seen.copy_(self.whole.detach())

    def _split(self, whole: Tensor) -> list[Tensor]:
        parts = whole.split([parameter.numel() for parameter in self._parameters])
        return [part.view(parameter.shape) for part, parameter in zip(parts, self._parameters, strict=True)]


class Optimizer:
    """AdamW with a peak rate for the backbone and one for the heads; vectors do not decay.

    After the backward passes of a step: `collect`, then unscale the gradients of the `inner` optimiser, whose tensors are the long ones,
    `clip` and `step`.

    Args:
        model: Its trained parameters become views of the long tensors.
        config: Rates, decay, and which AdamW.

    Raises:
        WarmlineError: the 8-bit optimiser is asked for where it cannot run.
    """

    def __init__(self, model: MultiTaskModel, config: TrainingConfig) -> None:
        groups: list[dict[str, Any]] = []
        self._long: list[LongTensor] = []
        for module, peak in ((model.backbone, config.learning_rate), (model.heads, config.head_learning_rate)):
            trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
            matrices = [parameter for parameter in trained if parameter.ndim >= 2]
            vectors = [parameter for parameter in trained if parameter.ndim < 2]
            for parameters, decay in ((matrices, config.weight_decay), (vectors, 0.0)):
                if parameters:
                    groups.append({"params": self._laid_out(parameters), "peak": peak, "lr": peak, "weight_decay": decay})
        self.inner = _adamw(config)(groups)

    def set_rate(self, factor: float) -> None:
        """Every group's rate becomes its peak times a factor."""
        for group in self.inner.param_groups:
            group["lr"] = factor * group["peak"]

    def collect(self) -> None:
        """Move the gradients that the backward passes left on the parameters to where the optimiser reads them."""
        for long in self._long:
            long.collect()

    def clip(self, max_norm: float) -> Tensor:
        """Scale the gradients down to a global norm.

        Returns:
            Scalar, the norm before.
        """
        tensors = [tensor for group in self.inner.param_groups for tensor in group["params"]]
        kinds = [[tensor for tensor in tensors if isinstance(tensor, DTensor) is spread] for spread in (False, True)]
        norms = [whole(torch.nn.utils.get_total_norm([tensor.grad for tensor in kind])) for kind in kinds if kind]
        norm: Tensor = torch.stack(norms).norm()
        for kind in kinds:
            torch.nn.utils.clip_grads_with_norm_(kind, max_norm, norm)
        return norm

    def step(self, scaler: torch.amp.GradScaler) -> None:
        """Update every trained weight, unless fp16 gradients overflowed."""
        scaler.step(self.inner)
        scaler.update()
        for long in self._long:
            long.show()
        self.inner.zero_grad(set_to_none=True)

    def masters(self) -> list[Tensor]:
        """The fp32 values of weights that are trained in half precision: they belong into a checkpoint, beside the rounded ones."""
        return [long.whole.detach() for long in self._long if long.rounded]

    def _laid_out(self, parameters: list[nn.Parameter]) -> list[nn.Parameter]:
        """One long tensor; parameters that are spread over the ranks stay as they are, in their own precision."""
        if isinstance(parameters[0], DTensor):
            return parameters
        self._long.append(LongTensor(parameters))
        return [self._long[-1].whole]


def _adamw(config: TrainingConfig) -> Callable[[list[dict[str, Any]]], torch.optim.Optimizer]:
    if config.optimizer == "adamw":
        return torch.optim.AdamW
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError:
        raise WarmlineError("training.optimizer: adamw_8bit needs bitsandbytes; `pip install 'warmline[cuda]'` or use adamw") from None
    found: Callable[[list[dict[str, Any]]], torch.optim.Optimizer] = AdamW8bit
    return found


def rate_factor(step: int, total_steps: int, config: TrainingConfig) -> float:
    """Share of the peak rate that optimiser step `step` uses.

    Args:
        step: 0-based; the first step of a warm-up already moves (factor 1 / warm-up steps).
        total_steps: Optimiser steps of the whole run; the last one ends at `final_rate`.
        config: Its `warmup` and `final_rate`.

    Returns:
        In (0, 1], or `final_rate` after the end.
    """
    warmup_steps = math.ceil(config.warmup * total_steps)
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    remaining = max(1, total_steps - warmup_steps)
    progress = min(1.0, (step + 1 - warmup_steps) / remaining)
    return config.final_rate + (1 - config.final_rate) * 0.5 * (1 + math.cos(math.pi * progress))
