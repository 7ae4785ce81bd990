"""The classification heads."""

from typing import TypeVar

import pytest
import torch

from warmline.data.packing import Batch, HeadRows, earlier_features, features
from warmline.model.heads import Head, Heads, HeadSpec
from warmline.tasks import TASKS
from warmline.tasks.strategy import StrategySettings
from warmline.tasks.task import HeadSettings

FEATURES = features(8)
PLAIN = StrategySettings()
TOLD = StrategySettings(earlier_strategies=True)
HIDDEN = StrategySettings(earlier_strategies=True, hidden_size=8, dropout=0)
Module = TypeVar("Module", bound=torch.nn.Module)


def noisy(module: Module) -> Module:
    """As after training: nothing is zero, output layers least of all."""
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module


def spec(task: str, settings: HeadSettings, classes: int) -> HeadSpec:
    return HeadSpec(TASKS[task], settings, TASKS[task].labels[:classes])


def both(emotions: int = 27, emotion: HeadSettings | None = None, strategy: HeadSettings = PLAIN, scaled: bool = True) -> Heads:
    """On states of width 16."""
    specs = {"emotion": spec("emotion", emotion or HeadSettings(), emotions), "strategy": spec("strategy", strategy, 8)}
    return Heads(16, specs, scaled)


def of_strategies(hidden_size: int, settings: HeadSettings) -> Head:
    return Head(hidden_size, spec("strategy", settings, 8))


def test_starts_from_zero_logits() -> None:
    """The first losses are ln 27 and ln 8, whatever the base."""
    heads = both(emotion=HeadSettings(hidden_size=4))
    logits = heads(50 * torch.randn(10, 16), batch_of([2], [4]))
    assert not bool(logits["emotion"].any() or logits["strategy"].any())


def test_states_are_read_on_one_scale() -> None:
    heads = noisy(both()).eval()
    states, batch = torch.randn(10, 16), batch_of([2, 7], [4])
    read = heads["emotion"].scale(states)
    torch.testing.assert_close(read.square().mean(dim=1), torch.ones(10), rtol=1e-4, atol=0)
    small, large = (heads(size * states, batch) for size in (0.2, 60))
    torch.testing.assert_close(small, large, rtol=1e-3, atol=1e-4)


def test_heads_of_an_earlier_format_read_states_as_they_come() -> None:
    states = torch.randn(10, 16)
    assert both(scaled=False)["strategy"].scale(states) is states


def test_linear_head_is_one_product() -> None:
    head = noisy(of_strategies(16, PLAIN)).eval()
    states = torch.randn(5, 16)
    (weight, bias) = head.parameters()
    torch.testing.assert_close(head(states), states @ weight.T + bias)


def test_hidden_layer() -> None:
    head = of_strategies(16, HeadSettings(hidden_size=4)).eval()
    states = torch.randn(5, 16)
    inner_weight, inner_bias, weight, bias = head.parameters()
    inner = torch.nn.functional.gelu(states @ inner_weight.T + inner_bias)
    torch.testing.assert_close(head(states), inner @ weight.T + bias)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_fp32_whatever_comes_in(dtype: torch.dtype) -> None:
    head = of_strategies(64, HeadSettings(dropout=0)).eval()
    states = torch.randn(5, 64).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        logits = head(states)
    assert logits.dtype == torch.float32
    assert torch.equal(logits, head(states.float()))


def test_dropout_only_in_training() -> None:
    head = noisy(of_strategies(64, HeadSettings(dropout=0.5)))
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
        heads={
            "emotion": HeadRows(torch.tensor(emotion, dtype=torch.int64), torch.zeros(len(emotion), 28), torch.zeros(len(emotion), 0)),
            "strategy": HeadRows(
                torch.tensor(strategy, dtype=torch.int64),
                torch.zeros(len(strategy), 8),
                torch.zeros(len(strategy), FEATURES) if earlier is None else earlier,
            ),
        },
        safety_positions=none,
        safety_weights=torch.zeros(0),
        safety_draws=(),
    )


@pytest.mark.parametrize("emotions", [27, 28])
def test_reads_only_its_positions(emotions: int) -> None:
    heads = noisy(both(emotions)).eval()
    states = torch.randn(10, 16)
    batch = batch_of([2, 7], [4])
    logits = heads(states, batch)
    assert (logits["emotion"].shape, logits["strategy"].shape) == ((2, emotions), (1, 8))
    others = [at for at in range(10) if at not in (2, 4, 7)]
    states[others] += 1
    again = heads(states, batch)
    assert torch.equal(again["emotion"], logits["emotion"])
    assert torch.equal(again["strategy"], logits["strategy"])
    states[2] += 1
    states[4] += 1
    moved = heads(states, batch)
    assert not torch.equal(moved["emotion"][0], logits["emotion"][0])
    assert not torch.equal(moved["strategy"], logits["strategy"])


def test_earlier_strategies_are_an_input() -> None:
    states = torch.randn(10, 16)
    for settings, matters in ((TOLD, True), (HIDDEN, True), (PLAIN, False)):
        heads = noisy(both(strategy=settings)).eval()
        assert heads["strategy"].sees_earlier == matters
        one, other = (
            heads(states, batch_of([], [4], earlier))["strategy"] for earlier in (torch.zeros(1, FEATURES), torch.ones(1, FEATURES))
        )
        assert torch.equal(one, other) != matters


def test_a_hidden_layer_reads_state_and_earlier_strategies_together() -> None:
    head = noisy(of_strategies(16, HIDDEN)).eval()
    state, other, told = torch.randn(1, 16), torch.randn(1, 16), torch.ones(1, FEATURES)
    differences = [head(one, told) - head(one, 0 * told) for one in (state, other)]
    assert not torch.allclose(*differences, atol=1e-3)


@pytest.mark.parametrize("settings", [TOLD, HIDDEN])
def test_own_choices_stand_in_for_annotated_ones(settings: HeadSettings) -> None:
    """One reply after the other, each with what the head said of those before."""
    head = noisy(of_strategies(16, settings)).eval()
    states, own = torch.randn(4, 16), torch.zeros(1, 8)
    said: list[torch.Tensor] = []
    for state in states:
        earlier = earlier_features(torch.cat([*(one[None] for one in said), own]))[-1:]
        said.append(head(state[None], earlier)[0].softmax(0).detach())
    torch.testing.assert_close(head.by_own_choices(states).softmax(1), torch.stack(said))
    assert head.by_own_choices(states[:0]).shape == (0, 8)
    plain = noisy(of_strategies(16, PLAIN)).eval()
    torch.testing.assert_close(plain.by_own_choices(states), torch.cat([plain(state[None]) for state in states]))


def test_fewer_outputs_than_labels_beside_earlier_labels() -> None:
    head = noisy(Head(16, spec("strategy", TOLD, 5))).eval()
    assert head(torch.randn(2, 16), torch.ones(2, FEATURES)).shape == head.by_own_choices(torch.randn(2, 16)).shape == (2, 5)


@pytest.mark.parametrize("settings", [PLAIN, TOLD])
def test_no_rows(settings: HeadSettings) -> None:
    heads = noisy(both(strategy=settings))
    logits = heads(torch.randn(10, 16), batch_of([], []))
    (logits["emotion"].sum() + logits["strategy"].sum()).backward()
    assert all(parameter.grad is not None and not bool(parameter.grad.any()) for parameter in heads.parameters())
