"""One long tensor is updated as its parts would be."""

from pathlib import Path

import torch

from tests.conftest import ConfigFactory
from tests.tools import Tiny
from warmline.model.multitask import MultiTaskModel
from warmline.settings import TrainingConfig
from warmline.training.optimizer import LongTensor, Optimizer


def trained(model: MultiTaskModel) -> dict[str, torch.nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_equals_adamw_on_the_tensors_themselves(tiny: Tiny) -> None:
    config = TrainingConfig(learning_rate=1e-2, head_learning_rate=3e-2, weight_decay=0.1)
    parameters = trained(tiny.model)
    own = {name: torch.nn.Parameter(parameter.detach().clone()) for name, parameter in parameters.items()}
    reference = torch.optim.AdamW(
        {"params": [tensor], "lr": 3e-2 if name.startswith("heads.") else 1e-2, "weight_decay": 0.1 if tensor.ndim >= 2 else 0.0}
        for name, tensor in own.items()
    )
    optimizer = Optimizer(tiny.model, config)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        for name, parameter in parameters.items():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
            own[name].grad = parameter.grad.clone()
        norm = torch.nn.utils.clip_grad_norm_(own.values(), 1.0)
        reference.step()
        optimizer.collect()
        assert all(parameter.grad is None for parameter in parameters.values())
        torch.testing.assert_close(optimizer.clip(1.0), norm)
        optimizer.inner.step()
    for name, parameter in parameters.items():
        torch.testing.assert_close(parameter.detach(), own[name].detach(), msg=name)


def test_groups(tiny: Tiny, tiny_config: ConfigFactory, tmp_path: Path) -> None:
    config = TrainingConfig(learning_rate=1e-3, head_learning_rate=2e-3, weight_decay=0.1)
    optimizer = Optimizer(tiny.model, config)
    groups = {tensor.data_ptr(): group for group in optimizer.inner.param_groups for tensor in group["params"]}
    storages = {start: (group["peak"], group["weight_decay"]) for start, group in groups.items()}
    sizes = dict.fromkeys(storages, 0)
    for name, parameter in trained(tiny.model).items():
        start = parameter.untyped_storage().data_ptr()
        assert storages[start] == (2e-3 if name.startswith("heads.") else 1e-3, 0.1 if parameter.ndim >= 2 else 0.0), name
        sizes[start] += parameter.numel()
    assert [sizes[start] for start in groups] == [group["params"][0].numel() for group in groups.values()]
    optimizer.set_rate(0.5)
    assert [group["lr"] for group in groups.values()] == [group["peak"] / 2 for group in groups.values()]


def test_small_updates_of_half_precision_weights_add_up() -> None:
    weight = torch.nn.Parameter(torch.ones(3, 2, dtype=torch.bfloat16))
    long = LongTensor([weight])
    for _ in range(100):
        weight.grad = torch.ones_like(weight)
        long.collect()
        with torch.no_grad():
            long.whole -= 1e-4 * long.whole.grad  # a fortieth of the step to bf16's number below 1
        long.show()
    assert weight.dtype == torch.bfloat16
    assert torch.equal(weight, torch.full_like(weight, 0.99))


def test_a_missing_gradient_is_zero(tiny: Tiny) -> None:
    optimizer = Optimizer(tiny.model, TrainingConfig())
    optimizer.collect()
    assert float(optimizer.clip(1.0)) == 0.0
