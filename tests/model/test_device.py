"""Device and precision."""

import pytest
import torch

from warmline.errors import WarmlineError
from warmline.model.device import choose_place
from warmline.settings import TrainingConfig

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_cpu_is_fp32() -> None:
    place = choose_place(TrainingConfig(), CPU)
    assert place == (CPU, torch.float32, "no")
    with place.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_cpu_can_do_bf16() -> None:
    place = choose_place(TrainingConfig(precision="bf16"), CPU)
    assert place == (CPU, torch.bfloat16, "bf16")
    with place.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16


def test_cpu_cannot_do_fp16() -> None:
    with pytest.raises(WarmlineError, match=r"training\.precision: fp16 needs a GPU"):
        choose_place(TrainingConfig(precision="fp16"), CPU)


@pytest.mark.parametrize(("has_bf16", "dtype", "mixed"), [(True, torch.bfloat16, "bf16"), (False, torch.float16, "fp16")])
def test_gpu_takes_the_best_it_has(has_bf16: bool, dtype: torch.dtype, mixed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: has_bf16 or including_emulation)
    assert choose_place(TrainingConfig(), CUDA) == (CUDA, dtype, mixed)


def test_gpu_in_fp32() -> None:
    assert choose_place(TrainingConfig(precision="fp32"), CUDA) == (CUDA, torch.float32, "no")


@pytest.mark.parametrize(("there", "expected"), [(True, "cuda"), (False, "cpu")])
def test_takes_a_gpu_when_there_is_one(there: bool, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert choose_place(TrainingConfig(precision="fp32")).device.type == expected
