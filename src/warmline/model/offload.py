"""Checkpointed states that wait in the host's memory while the GPU works on other layers.

A layer's input at 8B takes 8 KiB a token: 36 of them are 1.1 GiB for 4,096 tokens. Copied out behind the forward pass and back ahead of
the backward pass, on a stream of their own, they cost no time as long as a layer takes longer than its copy.
"""

import torch
from torch import Tensor


class HostStore:
    """Pinned buffers, one a slot, and a stream that fills and empties them.

    Args:
        device: The CUDA device whose states are kept.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._buffers: dict[int, Tensor] = {}
        self._shapes: dict[int, torch.Size] = {}
        self._arriving: dict[int, Tensor] = {}

    def put(self, slot: int, states: Tensor) -> None:
        """Copy states out; the caller may drop its reference at once."""
        buffer = self._buffers.get(slot)
        if buffer is None or buffer.numel() < states.numel():
            buffer = self._buffers[slot] = torch.empty(states.numel(), dtype=states.dtype, pin_memory=True)
        self._shapes[slot] = states.shape
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            buffer[: states.numel()].view(states.shape).copy_(states, non_blocking=True)
        states.record_stream(self._stream)

    def get(self, slot: int) -> Tensor:
        """The states of a slot, on the device; those of the slot before start to come back meanwhile."""
        if slot not in self._arriving:
            self._start(slot)
        states = self._arriving.pop(slot)
        current = torch.cuda.current_stream(self._device)
        current.wait_stream(self._stream)
        states.record_stream(current)
        if slot - 1 in self._shapes:
            self._start(slot - 1)
        return states

    def _start(self, slot: int) -> None:
        shape = self._shapes.pop(slot)
        buffer = self._buffers[slot]
        with torch.cuda.stream(self._stream):
            states = torch.empty(shape, dtype=buffer.dtype, device=self._device)
            states.copy_(buffer[: shape.numel()].view(shape), non_blocking=True)
        self._arriving[slot] = states
