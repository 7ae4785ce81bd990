"""AdamW over adapter and heads, whose many small tensors are laid out as a few long ones.

An adapter at 8B is 504 tensors. Updated one by one they cost a launch each, and bitsandbytes' 8-bit AdamW even waits for the device after
each: 65 of 385 ms a step, measured. AdamW looks at every value alone, so one long tensor gives the same update.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from warmline.config import TrainingConfig
from warmline.errors import WarmlineError
from warmline.model.multitask import MultiTaskModel


class LongTensor:
    """Parameters laid one after the other in one tensor that they then are views of.

    Args:
        parameters: Of one device and precision.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self._parameters = list(parameters)
        self.whole = nn.Parameter(torch.cat([parameter.detach().flatten() for parameter in self._parameters]))
        for parameter, part in zip(self._parameters, self._split(self.whole.detach()), strict=True):
            parameter.data = part

    def collect(self) -> None:
        """Move the parameters' gradients into the gradient of the whole; a missing one is zero."""
        grads = [parameter.grad if parameter.grad is not None else torch.zeros_like(parameter) for parameter in self._parameters]
        self.whole.grad = torch.cat([grad.flatten() for grad in grads])
        for parameter in self._parameters:
            parameter.grad = None

    def _split(self, whole: Tensor) -> list[Tensor]:
        parts = whole.split([parameter.numel() for parameter in self._parameters])
        return [part.view(parameter.shape) for part, parameter in zip(parts, self._parameters, strict=True)]


class Optimizer:
    """AdamW with a peak rate for the backbone and one for the heads; vectors do not decay.

    After each backward pass of a step: `collect`, then unscale, `clip` and step the `inner` optimiser, whose tensors are the long ones.

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
                    self._long.append(LongTensor(parameters))
                    groups.append({"params": [self._long[-1].whole], "peak": peak, "lr": peak, "weight_decay": decay})
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
        return torch.nn.utils.clip_grad_norm_([long.whole for long in self._long], max_norm)


def _adamw(config: TrainingConfig) -> Callable[[list[dict[str, Any]]], torch.optim.Optimizer]:
    if config.optimizer == "adamw":
        return torch.optim.AdamW
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError:
        raise WarmlineError("training.optimizer: adamw_8bit needs bitsandbytes; `pip install 'warmline[cuda]'` or use adamw") from None
    found: Callable[[list[dict[str, Any]]], torch.optim.Optimizer] = AdamW8bit
    return found
