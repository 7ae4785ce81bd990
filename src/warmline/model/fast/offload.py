"""Checkpointed states that wait in the host's memory while the GPU works on other layers.

Three states of a layer at 8B take 24 KiB a token: 36 layers are 3.4 GiB for 4,096 tokens. Copied out behind the forward pass and back ahead
of the backward pass, on a stream of their own, they cost no time as long as a layer takes longer than its copy.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


class HostStore:
    """Pinned buffers, one a state of a slot, and a stream that fills and empties them.

    Everything on the device is allocated on the stream of the computation and waited for there, so that its memory can be used again as
    soon as it is free. (`record_stream` instead kept twice as much memory reserved.)

    Args:
        device: The CUDA device whose states are kept.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._buffers: dict[tuple[int, int], Tensor] = {}
        self._shapes: dict[int, list[torch.Size]] = {}
        self._leaving: tuple[int, torch.cuda.Event, tuple[Tensor, ...]] | None = None
        self._arriving: dict[int, tuple[torch.cuda.Event, Sequence[Tensor]]] = {}

    def put(self, slot: int, states: tuple[Tensor, ...]) -> None:
        """Copy states out. They are held until the next slot's come, by when the copy has long ended."""
        self._let_go()
        self._arriving.pop(slot, None)  # of a backward pass that broke off
        self._shapes[slot] = [state.shape for state in states]
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            for place, state in enumerate(states):
                self._buffer(slot, place, state)[: state.numel()].view(state.shape).copy_(state, non_blocking=True)
        self._leaving = slot, self._stream.record_event(), states

    def get(self, slot: int) -> Sequence[Tensor]:
        """The states of a slot, on the device; those of the slot before start to come back meanwhile."""
        states = self._let_go(slot)
        if states is None:
            if slot not in self._arriving:
                self._start(slot)
            arrived, states = self._arriving.pop(slot)
            torch.cuda.current_stream(self._device).wait_event(arrived)
        if slot - 1 in self._shapes:
            self._start(slot - 1)
        return states

    def _let_go(self, wanted: int | None = None) -> Sequence[Tensor] | None:
        """Hold the last states no longer; they are the wanted slot's own where its backward pass follows at once, as the last layer's."""
        if self._leaving is None:
            return None
        slot, copied, states = self._leaving
        torch.cuda.current_stream(self._device).wait_event(copied)
        self._leaving = None
        if slot != wanted:
            return None
        del self._shapes[slot]
        return states

    def _buffer(self, slot: int, place: int, state: Tensor) -> Tensor:
        buffer = self._buffers.get((slot, place))
        if buffer is None or buffer.numel() < state.numel():
            buffer = self._buffers[slot, place] = torch.empty(state.numel(), dtype=state.dtype, pin_memory=True)
        return buffer

    def _start(self, slot: int) -> None:
        shapes = self._shapes.pop(slot)
        states = [torch.empty(shape, dtype=self._buffers[slot, place].dtype, device=self._device) for place, shape in enumerate(shapes)]
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            for place, state in enumerate(states):
                state.copy_(self._buffers[slot, place][: state.numel()].view(state.shape), non_blocking=True)
        self._arriving[slot] = self._stream.record_event(), states
