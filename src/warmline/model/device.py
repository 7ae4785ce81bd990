"""Where a run happens and in which precision, decided once and said aloud; and by how much two computations of the same numbers may differ.

The same products of the same shapes in the same kernels give the same bits, on any device and in any precision. So what a change of
tokens cannot reach is compared bit by bit, where the change keeps every length. One kind of model is different: where tokens are sent to
experts, how many an expert gets at a time is a matter of all the tokens, and with that number its products round differently.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from warmline.errors import WarmlineError
from warmline.settings import TrainingConfig


class Place(NamedTuple):
    """Device and precision of a run.

    Attributes:
        device: cuda or cpu.
        dtype: Of the base weights.
        mixed_precision: Accelerate's name for the autocast that goes with it.
    """

    device: torch.device
    dtype: torch.dtype
    mixed_precision: Literal["no", "bf16", "fp16"]

    def autocast(self) -> torch.autocast:
        """The same arithmetic outside the training step: evaluation, the base's states, chat."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.mixed_precision != "no")


def choose_place(config: TrainingConfig, device: torch.device | None = None) -> Place:
    """Device and precision for a configuration on this machine.

    Args:
        config: Its `precision`; auto is bf16 where the GPU has it, fp16 on older GPUs, fp32 on a CPU.
        device: Where; None takes CUDA when there is one.

    Raises:
        WarmlineError: the precision does not exist there.
    """
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    wanted = config.precision
    if wanted == "auto":
        wanted = "fp32" if device.type == "cpu" else "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if wanted == "fp16" and device.type == "cpu":
        raise WarmlineError("training.precision: fp16 needs a GPU; use auto, fp32 or bf16 on a CPU")
    if wanted == "fp32":
        return Place(device, torch.float32, "no")
    return Place(device, torch.bfloat16 if wanted == "bf16" else torch.float16, wanted)


AGREEMENT = {torch.float32: 1e-4, torch.bfloat16: 6e-2, torch.float16: 2e-2}
"""Largest difference between equal numbers computed in other shapes, as a share of their size."""


def tolerance(model: nn.Module, dtype: torch.dtype) -> float:
    """The largest `gap` between numbers that a change of tokens, not of lengths, cannot reach: 0 but for a model with experts.

    Args:
        model: Any; transformers names a layer's experts `experts`.
        dtype: Of its products.
    """
    return AGREEMENT[dtype] if any(name.rpartition(".")[2] == "experts" for name, _ in model.named_modules()) else 0.0


def gap(one: Tensor, other: Tensor) -> float:
    """Largest difference, as a share of the largest value of the first; 0 if, and only if, they are the same to the last bit.

    Args:
        one: Not empty.
        other: Of the same shape.
    """
    if torch.equal(one, other):
        return 0.0
    return float((one.double() - other.double()).abs().max() / one.double().abs().max().clamp(min=1e-6))
