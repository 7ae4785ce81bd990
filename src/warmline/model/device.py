"""Where a run happens and in which precision, decided once and said aloud."""

from typing import Literal, NamedTuple

import torch

from warmline.config import TrainingConfig
from warmline.errors import WarmlineError


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
