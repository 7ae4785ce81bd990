"""FSDP2, for models that one GPU cannot hold: each rank has its part of every decoder layer and gathers a layer for the moment of its use.

Embeddings, last norm, unembedding and heads stay whole on every rank: losses, validation and self-check then work as they do without it.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from warmline.model.multitask import MultiTaskModel


def shard(model: MultiTaskModel, decoder: nn.Module, device: torch.device, ranks: int) -> None:
    """Spread the decoder's layers over the ranks.

    Args:
        model: Built on the CPU where it would not fit the device; each layer travels there as it is cut.
        decoder: Its decoder, with `layers`.
        device: This rank's.
        ranks: Processes that train together.
    """
    mesh = init_device_mesh(device.type, (ranks,))
    layers = list(decoder.layers)  # type: ignore[arg-type]
    for layer in layers:
        fully_shard(layer, mesh=mesh)
    within = {id(parameter) for layer in layers for parameter in layer.parameters()}
    fully_shard(decoder, mesh=mesh, ignored_params={parameter for parameter in decoder.parameters() if id(parameter) not in within})
    model.to(device)


def whole(tensor: Tensor) -> Tensor:
    """The whole of a tensor that is spread over the ranks, which must all ask for it; any other as it is."""
    found: Tensor = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return found


def spread_like(tensor: Tensor, target: Tensor) -> Tensor:
    """This rank's view of a whole tensor that every rank holds, spread as the target is."""
    if not isinstance(target, DTensor):
        return tensor
    return distribute_tensor(tensor.to(target.device), target.device_mesh, target.placements, src_data_rank=None)


def average_over_ranks(parameters: list[nn.Parameter]) -> None:
    """Average the gradients of whole parameters, as FSDP does with those that it spreads."""
    for parameter in parameters:
        if parameter.grad is not None and not isinstance(parameter, DTensor):
            torch.distributed.all_reduce(parameter.grad)
            parameter.grad /= torch.distributed.get_world_size()


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """Inside it, every trained parameter is whole on every rank, so that one rank can save the model; all ranks must enter."""
    places = [
        (module, name, parameter)
        for module in model.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.requires_grad and isinstance(parameter, DTensor)
    ]
    for module, name, parameter in places:
        module._parameters[name] = nn.Parameter(whole(parameter.detach()))
    try:
        yield
    finally:
        for module, name, parameter in places:
            module._parameters[name] = parameter
