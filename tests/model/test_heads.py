"""The two classification heads."""

from typing import TypeVar

import pytest
import torch

from warmline.config import HeadConfig, HeadsConfig, StrategyHeadConfig
from warmline.data.packing import FEATURES, Batch, earlier_features
from warmline.model.heads import ClassificationHead, Heads

Module = TypeVar("Module", bound=torch.nn.Module)


def noisy(module: Module) -> Module:
    """As after training: nothing is zero, output layers least of all."""
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module


def test_starts_from_zero_logits() -> None:
    """The first losses are ln 27 and ln 8, whatever the base."""
    heads = Heads(16, 27, HeadsConfig.model_validate({"emotion": {"hidden_size": 4}}))
    logits = heads(50 * torch.randn(10, 16), batch_of([2], [4]))
    assert not bool(logits.emotion.any() or logits.strategy.any())


def test_states_are_read_on_one_scale() -> None:
    heads = noisy(Heads(16, 27, HeadsConfig())).eval()
    states, batch = torch.randn(10, 16), batch_of([2, 7], [4])
    read = heads.emotion.pick(states)
    torch.testing.assert_close(read.square().mean(dim=1), torch.ones(10), rtol=1e-4, atol=0)
    small, large = (heads(size * states, batch) for size in (0.2, 60))
    torch.testing.assert_close(small, large, rtol=1e-3, atol=1e-4)


def test_heads_of_an_earlier_format_read_states_as_they_come() -> None:
    states = torch.randn(10, 16)
    assert Heads(16, 27, HeadsConfig(), scaled=False).strategy.pick(states) is states


def test_linear_head_is_one_product() -> None:
    head = noisy(ClassificationHead(16, 8, HeadConfig())).eval()
    states = torch.randn(5, 16)
    (weight, bias) = head.parameters()
    torch.testing.assert_close(head(states), states @ weight.T + bias)


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
    head = noisy(ClassificationHead(64, 8, HeadConfig(dropout=0.5)))
    states = torch.randn(5, 64)
    assert not torch.equal(head.train()(states), head(states))
    assert torch.equal(head.eval()(states), head(states))


def batch_of(emotion: list[int], strategy: list[int], earlier: torch.Tensor | None = None) -> Batch:
    """Ten tokens of one conversation, and where each head reads it."""
    none = torch.zeros(0, dtype=torch.int64)
    return Batch(
        tokens=torch.arange(10),
        position_ids=torch.arange(10),
        bounds=torch.tensor([0, 10]),
        longest=10,
        lm_positions=none,
        lm_targets=none,
        emotion_positions=torch.tensor(emotion, dtype=torch.int64),
        emotion_targets=torch.zeros(len(emotion), 28),
        strategy_positions=torch.tensor(strategy, dtype=torch.int64),
        strategy_targets=torch.zeros(len(strategy), 8),
        strategy_earlier=torch.zeros(len(strategy), FEATURES) if earlier is None else earlier,
        safety_positions=none,
        safety_weights=torch.zeros(0),
        safety_draws=(),
    )


@pytest.mark.parametrize("emotions", [27, 28])
def test_reads_only_its_positions(emotions: int) -> None:
    heads = noisy(Heads(16, emotions, HeadsConfig())).eval()
    states = torch.randn(10, 16)
    batch = batch_of([2, 7], [4])
    logits = heads(states, batch)
    assert (logits.emotion.shape, logits.strategy.shape) == ((2, emotions), (1, 8))
    others = [at for at in range(10) if at not in (2, 4, 7)]
    states[others] += 1
    again = heads(states, batch)
    assert torch.equal(again.emotion, logits.emotion)
    assert torch.equal(again.strategy, logits.strategy)
    states[2] += 1
    states[4] += 1
    moved = heads(states, batch)
    assert not torch.equal(moved.emotion[0], logits.emotion[0])
    assert not torch.equal(moved.strategy, logits.strategy)


TOLD = HeadsConfig(strategy=StrategyHeadConfig(earlier_strategies=True))
HIDDEN = HeadsConfig(strategy=StrategyHeadConfig(earlier_strategies=True, hidden_size=8, dropout=0))


def test_earlier_strategies_are_an_input() -> None:
    states = torch.randn(10, 16)
    for config, matters in ((TOLD, True), (HIDDEN, True), (HeadsConfig(), False)):
        heads = noisy(Heads(16, 27, config)).eval()
        if heads.strategy.earlier is not None:
            torch.nn.init.normal_(heads.strategy.earlier.weight)
        one, other = (heads(states, batch_of([], [4], earlier)).strategy for earlier in (torch.zeros(1, FEATURES), torch.ones(1, FEATURES)))
        assert torch.equal(one, other) != matters


def test_a_hidden_layer_reads_state_and_earlier_strategies_together() -> None:
    head = noisy(Heads(16, 27, HIDDEN)).eval().strategy
    torch.nn.init.normal_(head.earlier.weight)
    state, other, told = torch.randn(1, 16), torch.randn(1, 16), torch.ones(1, FEATURES)
    differences = [head.read(one, told) - head.read(one, 0 * told) for one in (state, other)]
    assert not torch.allclose(*differences, atol=1e-3)


@pytest.mark.parametrize("config", [TOLD, HIDDEN])
def test_own_choices_stand_in_for_annotated_ones(config: HeadsConfig) -> None:
    """One reply after the other, each with what the head said of those before."""
    head = noisy(Heads(16, 27, config)).eval().strategy
    torch.nn.init.normal_(head.earlier.weight)
    states, own = torch.randn(4, 16), torch.zeros(1, 8)
    said: list[torch.Tensor] = []
    for state in states:
        features = earlier_features(torch.cat([*(one[None] for one in said), own]))[-1:]
        said.append(head.read(state[None], features)[0].softmax(0).detach())
    torch.testing.assert_close(head.by_own_choices(states).softmax(1), torch.stack(said))
    assert head.by_own_choices(states[:0]).shape == (0, 8)
    plain = noisy(Heads(16, 27, HeadsConfig())).eval().strategy
    torch.testing.assert_close(plain.by_own_choices(states), torch.cat([plain(state[None]) for state in states]))


@pytest.mark.parametrize("config", [HeadsConfig(), TOLD])
def test_no_rows(config: HeadsConfig) -> None:
    heads = noisy(Heads(16, 27, config))
    logits = heads(torch.randn(10, 16), batch_of([], []))
    (logits.emotion.sum() + logits.strategy.sum()).backward()
    assert all(parameter.grad is not None and not bool(parameter.grad.any()) for parameter in heads.parameters())
