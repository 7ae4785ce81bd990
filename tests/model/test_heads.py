"""The two classification heads."""

from typing import Any, TypeVar

import pytest
import torch

from warmline.config import EmotionHeadConfig, HeadConfig, HeadsConfig, StrategyHeadConfig
from warmline.data.earlier import FEATURES, earlier_features
from warmline.data.packing import Batch
from warmline.model.backbone import States
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
    logits = heads(States(50 * torch.randn(10, 16), 50 * torch.randn(10, 16)), batch_of([(0, 2)], [4]))
    assert not bool(logits.emotion.any() or logits.strategy.any())


@pytest.mark.parametrize("config", [{}, {"layer": 1}, {"layer": 1, "emotion": {"final_states": True}}])
def test_states_are_read_on_one_scale(config: dict[str, Any]) -> None:
    heads = noisy(Heads(16, 27, HeadsConfig.model_validate(config))).eval()
    states, batch = States(torch.randn(10, 16), torch.randn(10, 16)), batch_of([(0, 2), (3, 7)], [4])
    read = heads.emotion.pick(states)
    torch.testing.assert_close(read.square().mean(dim=1), torch.ones(10), rtol=1e-4, atol=0)
    small, large = (heads(States(*(size * each for each in states)), batch) for size in (0.2, 60))
    torch.testing.assert_close(small, large, rtol=1e-3, atol=1e-4)


def test_heads_of_an_earlier_format_read_states_as_they_come() -> None:
    states = torch.randn(10, 16)
    assert Heads(16, 27, HeadsConfig(), scaled=False).strategy.pick(States(states, states)) is states


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


def batch_of(emotion: list[tuple[int, int]], strategy: list[int], earlier: torch.Tensor | None = None) -> Batch:
    """Ten tokens of one conversation; emotion rows as (first token, last token) of their turns."""
    places = torch.tensor(emotion, dtype=torch.int64).reshape(-1, 2)
    none = torch.zeros(0, dtype=torch.int64)
    return Batch(
        tokens=torch.arange(10),
        position_ids=torch.arange(10),
        bounds=torch.tensor([0, 10]),
        longest=10,
        lm_positions=none,
        lm_targets=none,
        emotion_positions=places[:, 1],
        emotion_starts=places[:, 0],
        emotion_targets=torch.zeros(len(places), 28),
        strategy_positions=torch.tensor(strategy, dtype=torch.int64),
        strategy_targets=torch.zeros(len(strategy), 8),
        strategy_earlier=torch.zeros(len(strategy), FEATURES) if earlier is None else earlier,
        safety_positions=none,
        safety_weights=torch.zeros(0),
        safety_draws=(),
        draws=(),
    )


@pytest.mark.parametrize("emotions", [27, 28])
def test_reads_only_its_positions(emotions: int) -> None:
    heads = noisy(Heads(16, emotions, HeadsConfig())).eval()
    states = torch.randn(10, 16)
    batch = batch_of([(0, 2), (5, 7)], [4])
    logits = heads(States(states, states), batch)
    assert (logits.emotion.shape, logits.strategy.shape) == ((2, emotions), (1, 8))
    others = [at for at in range(10) if at not in (2, 4, 7)]
    states[others] += 1
    again = heads(States(states, states), batch)
    assert torch.equal(again.emotion, logits.emotion)
    assert torch.equal(again.strategy, logits.strategy)
    states[2] += 1
    states[4] += 1
    moved = heads(States(states, states), batch)
    assert not torch.equal(moved.emotion[0], logits.emotion[0])
    assert not torch.equal(moved.strategy, logits.strategy)


POOLED = HeadsConfig(emotion=EmotionHeadConfig(pooling="attention", dropout=0), strategy=StrategyHeadConfig(earlier_strategies=True))


def test_pooling_is_a_weighted_mean_of_the_turn() -> None:
    """Against softmax over each turn by itself."""
    heads = noisy(Heads(16, 27, POOLED)).eval()
    states = torch.randn(10, 16)
    torch.nn.init.normal_(heads.emotion.pooling.score.weight)
    found = heads.emotion.read(states, torch.tensor([0, 5]), torch.tensor([2, 8]))
    for row, turn in enumerate((states[0:3], states[5:9])):
        weights = heads.emotion.pooling.score(turn)[:, 0].softmax(0)
        torch.testing.assert_close(found[row], heads.emotion(weights @ turn))


def test_pooling_sees_its_turn_and_nothing_else() -> None:
    heads = noisy(Heads(16, 27, POOLED)).eval()
    torch.nn.init.normal_(heads.emotion.pooling.score.weight)
    states, batch = torch.randn(10, 16), batch_of([(3, 6)], [])
    before = heads(States(states, states), batch).emotion
    for at in range(10):
        changed = states.clone()
        changed[at] += 1
        assert torch.equal(heads(States(changed, changed), batch).emotion, before) == (at not in (3, 4, 5, 6))


def test_pooling_begins_as_the_plain_mean() -> None:
    heads = Heads(16, 27, POOLED).eval()
    states = torch.randn(10, 16)
    torch.testing.assert_close(
        heads.emotion.read(states, torch.tensor([1]), torch.tensor([4])), heads.emotion(states[1:5].mean(dim=0)[None])
    )


HIDDEN = HeadsConfig(strategy=StrategyHeadConfig(earlier_strategies=True, hidden_size=8, dropout=0))


def test_earlier_strategies_are_an_input() -> None:
    states = torch.randn(10, 16)
    for config, matters in ((POOLED, True), (HIDDEN, True), (HeadsConfig(), False)):
        heads = noisy(Heads(16, 27, config)).eval()
        if heads.strategy.earlier is not None:
            torch.nn.init.normal_(heads.strategy.earlier.weight)
        one, other = (
            heads(States(states, states), batch_of([], [4], earlier)).strategy
            for earlier in (torch.zeros(1, FEATURES), torch.ones(1, FEATURES))
        )
        assert torch.equal(one, other) != matters


def test_a_hidden_layer_reads_state_and_earlier_strategies_together() -> None:
    head = noisy(Heads(16, 27, HIDDEN)).eval().strategy
    torch.nn.init.normal_(head.earlier.weight)
    state, other, told = torch.randn(1, 16), torch.randn(1, 16), torch.ones(1, FEATURES)
    differences = [head.read(one, told) - head.read(one, 0 * told) for one in (state, other)]
    assert not torch.allclose(*differences, atol=1e-3)


@pytest.mark.parametrize("config", [POOLED, HIDDEN])
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


@pytest.mark.parametrize("config", [HeadsConfig(), POOLED])
def test_no_rows(config: HeadsConfig) -> None:
    heads = noisy(Heads(16, 27, config))
    logits = heads(States(torch.randn(10, 16), torch.randn(10, 16)), batch_of([], []))
    (logits.emotion.sum() + logits.strategy.sum()).backward()
    assert all(parameter.grad is not None and not bool(parameter.grad.any()) for parameter in heads.parameters())


def test_each_head_reads_its_kind_of_states() -> None:
    heads = noisy(Heads(16, 27, HeadsConfig.model_validate({"layer": 1, "emotion": {"final_states": True}}))).eval()
    final, inner, batch = torch.randn(10, 16), torch.randn(10, 16), batch_of([(0, 4)], [7])
    both, as_final, as_inner = (heads(States(*states), batch) for states in ((final, inner), (final, final), (inner, inner)))
    assert torch.equal(both.emotion, as_final.emotion)
    assert not torch.equal(both.emotion, as_inner.emotion)
    assert torch.equal(both.strategy, as_inner.strategy)
    assert not torch.equal(both.strategy, as_final.strategy)
