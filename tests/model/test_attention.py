"""The packed attention against one dense mask over the whole sequence."""

import pytest
import torch
from torch import Tensor

from tests.reference.attention import dense_attention
from warmline.model.fast import attention
from warmline.model.fast.attention import packed_attention

BOUNDS = (0, 7, 8, 20, 33)


def tensors(heads: int, key_heads: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(
        torch.randn(1, number, BOUNDS[-1], 8, generator=generator, dtype=dtype, requires_grad=True)
        for number in (heads, key_heads, key_heads)
    )


def attend(query: Tensor, key: Tensor, value: Tensor, bounds: tuple[int, ...] = BOUNDS, **options: object) -> Tensor:
    edges = torch.tensor(bounds, dtype=torch.int32)
    longest = int(edges.diff().max())
    return packed_attention(torch.nn.Identity(), query, key, value, None, cu_seq_lens_q=edges, max_length_q=longest, **options)[0]


@pytest.mark.parametrize(("heads", "key_heads"), [(4, 4), (4, 2), (4, 1)])
@pytest.mark.parametrize("window", [None, 1, 5, 13, 100])
@pytest.mark.parametrize("scaling", [None, 0.3])
def test_equals_dense_with_gradients(heads: int, key_heads: int, window: int | None, scaling: float | None) -> None:
    inputs = tensors(heads, key_heads)
    packed = attend(*inputs, sliding_window=window, scaling=scaling)
    dense = dense_attention(*inputs, torch.tensor(BOUNDS), scaling, window)
    torch.testing.assert_close(packed, dense, rtol=0, atol=1e-12)
    outer = torch.randn(packed.shape, dtype=packed.dtype, generator=torch.Generator().manual_seed(1))
    for mine, obvious in zip(torch.autograd.grad(packed, inputs, outer), torch.autograd.grad(dense, inputs, outer), strict=True):
        torch.testing.assert_close(mine, obvious, rtol=0, atol=1e-12)


@pytest.mark.parametrize("window", [None, 5])
def test_conversation_equals_itself_alone(window: int | None) -> None:
    inputs = tensors(4, 2, torch.float32)
    packed = attend(*inputs, sliding_window=window)
    for start, end in zip(BOUNDS[:-1], BOUNDS[1:], strict=True):
        alone = attend(*(part[:, :, start:end] for part in inputs), bounds=(0, end - start), sliding_window=window)
        assert torch.equal(packed[:, start:end], alone)


def test_neighbours_get_no_gradient() -> None:
    inputs = tensors(4, 2)
    start, end = BOUNDS[2], BOUNDS[3]
    for gradient in torch.autograd.grad(attend(*inputs)[:, start:end].sum(), inputs):
        assert bool((gradient[:, :, :start] == 0).all())
        assert bool((gradient[:, :, end:] == 0).all())
    assert bool(torch.autograd.grad(attend(*inputs)[:, start:end].sum(), inputs)[2][:, :, start:end].any())


def test_refuses_what_would_leak() -> None:
    query, key, value = tensors(4, 4)
    edges = torch.tensor(BOUNDS, dtype=torch.int32)
    module = torch.nn.Identity()
    with pytest.raises(ValueError, match="cu_seq_lens_q"):
        packed_attention(module, query, key, value, None)
    with pytest.raises(ValueError, match="no attention mask"):
        packed_attention(module, query, key, value, torch.ones(1, 1, 33, 33), cu_seq_lens_q=edges, max_length_q=13)
    twice = [part.repeat(2, 1, 1, 1) for part in (query, key, value)]
    with pytest.raises(ValueError, match="one flat sequence"):
        packed_attention(module, *twice, None, cu_seq_lens_q=edges, max_length_q=13)


@pytest.mark.gpu
@pytest.mark.parametrize("kernel", ["flash", "memory-efficient"])
@pytest.mark.parametrize("window", [None, 9])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("heads", "key_heads", "head_size"), [(8, 2, 64), (4, 1, 256)], ids=["qwen3", "gemma3-270m"])
def test_kernels_agree_with_fp32(
    kernel: str,
    window: int | None,
    dtype: torch.dtype,
    heads: int,
    key_heads: int,
    head_size: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Forward and backward, with grouped heads; both kernels are there on a card that has FlashAttention."""
    if kernel == "memory-efficient":
        monkeypatch.setattr(attention, "FLASH_CAPABILITY", (99, 0))
    bounds = torch.tensor([0, 40, 57, 300], dtype=torch.int32, device="cuda")
    generator = torch.Generator("cuda").manual_seed(0)
    shapes = [(300, number, head_size) for number in (heads, key_heads, key_heads)]
    inputs = [torch.randn(shape, device="cuda", generator=generator).to(dtype) for shape in shapes]
    outer = torch.randn(300, heads, head_size, device="cuda", generator=generator).to(dtype)
    found = _with_gradients([each.requires_grad_() for each in inputs], outer, window, bounds)
    wide = [each.detach().float().requires_grad_() for each in inputs]
    for own, reference in zip(found, _with_gradients(wide, outer.float(), window, bounds), strict=True):
        assert float((own.float() - reference).abs().max() / reference.abs().max()) < (0.02 if dtype == torch.bfloat16 else 0.003)


@pytest.mark.gpu
def test_rows_of_one_length_agree_with_fp32_and_with_flash(monkeypatch: pytest.MonkeyPatch) -> None:
    """From Hopper on another kernel takes them; values are a view of a larger tensor, as the fused decoder has them."""
    if torch.cuda.get_device_capability() < attention.CUDNN_CAPABILITY:
        pytest.skip("needs a card of compute capability 9.0 or later")
    bounds = torch.tensor([0, 1024, 2048], dtype=torch.int32, device="cuda")
    generator = torch.Generator("cuda").manual_seed(0)
    joint = torch.randn(2048, 12, 128, device="cuda", generator=generator).to(torch.bfloat16)
    inputs = [part.requires_grad_() for part in (joint[:, :8].contiguous(), joint[:, 8:10].contiguous(), joint[:, 10:].detach())]
    outer = torch.randn(2048, 8, 128, device="cuda", generator=generator).to(torch.bfloat16)
    assert attention._fills_rows(inputs[0], attention.Scope(bounds, 1024))
    rows = _with_gradients(inputs, outer, None, bounds, 1024)
    monkeypatch.setattr(attention, "CUDNN_CAPABILITY", (99, 0))
    flash = _with_gradients(inputs, outer, None, bounds, 1024)
    wide = [each.detach().float().requires_grad_() for each in inputs]
    for own, other, reference in zip(rows, flash, _with_gradients(wide, outer.float(), None, bounds, 1024), strict=True):
        assert float((own.float() - reference).abs().max() / reference.abs().max()) < 0.02
        assert own.is_contiguous()
        assert not torch.equal(own, other)  # two kernels indeed


def _with_gradients(inputs: list[Tensor], outer: Tensor, window: int | None, bounds: Tensor, longest: int = 243) -> list[Tensor]:
    out = attention.attend(*inputs, attention.Scope(bounds, longest, window=window))
    return [out, *torch.autograd.grad(out, inputs, outer)]
