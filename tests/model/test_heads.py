"""The two classification heads."""

import pytest
import torch

from warmline.config import HeadConfig, HeadsConfig
from warmline.model.heads import ClassificationHead, Heads


def test_linear_head_is_one_product() -> None:
    head = ClassificationHead(16, 8, HeadConfig()).eval()
    states = torch.randn(5, 16)
    (weight, bias) = head.parameters()
    torch.testing.assert_close(head(states), states @ weight.T + bias)
    assert not bool(bias.any())


def test_hidden_layer() -> None:
    head = ClassificationHead(16, 8, HeadConfig(hidden_size=4)).eval()
    states = torch.randn(5, 16)
    inner_weight, inner_bias, weight, bias = head.parameters()
    inner = torch.nn.functional.gelu(states @ inner_weight.T + inner_bias)
    torch.testing.assert_close(head(states), inner @ weight.T + bias)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_fp32_whatever_comes_in(dtype: torch.dtype) -> None:
    head = ClassificationHead(64, 8, HeadConfig(dropout=0)).eval()
    states = torch.randn(5, 64).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        logits = head(states)
    assert logits.dtype == torch.float32
    assert torch.equal(logits, head(states.float()))


def test_dropout_only_in_training() -> None:
    head = ClassificationHead(64, 8, HeadConfig(dropout=0.5))
    states = torch.randn(5, 64)
    assert not torch.equal(head.train()(states), head(states))
    assert torch.equal(head.eval()(states), head(states))


@pytest.mark.parametrize("emotions", [27, 28])
def test_reads_only_its_positions(emotions: int) -> None:
    heads = Heads(16, emotions, HeadsConfig()).eval()
    states = torch.randn(10, 16)
    emotion, strategy = torch.tensor([2, 7]), torch.tensor([4])
    logits = heads(states, emotion, strategy)
    assert (logits.emotion.shape, logits.strategy.shape) == ((2, emotions), (1, 8))
    others = [at for at in range(10) if at not in (2, 4, 7)]
    states[others] += 1
    again = heads(states, emotion, strategy)
    assert torch.equal(again.emotion, logits.emotion)
    assert torch.equal(again.strategy, logits.strategy)
    states[2] += 1
    states[4] += 1
    moved = heads(states, emotion, strategy)
    assert not torch.equal(moved.emotion[0], logits.emotion[0])
    assert not torch.equal(moved.strategy, logits.strategy)


def test_no_rows() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    heads = Heads(16, 27, HeadsConfig())
    logits = heads(torch.randn(10, 16), none, none)
    (logits.emotion.sum() + logits.strategy.sum()).backward()
    assert all(parameter.grad is not None and not bool(parameter.grad.any()) for parameter in heads.parameters())
