"""The linear probe and the states it reads."""

import numpy as np
import pytest
import torch

from tests.reference.objectives import states_alone
from tests.tools import CPU, ESCONV, GOEMOTIONS, Tiny, perturb
from warmline.conversation import Turn
from warmline.tasks.emotion import EMOTIONS, EMOTIONS_AND_NEUTRAL
from warmline.data.mixture import Draw
from warmline.evaluation.probe import Readings, fit_probe, read_states, sole_emotions, some_draws


def readings(rows: int, seed: int, signal: float) -> Readings:
    """Three labels that shift the states' first two coordinates, in 20 dimensions of noise."""
    random = np.random.default_rng(seed)
    labels = random.integers(3, size=rows)
    states = random.normal(size=(rows, 20)).astype(np.float32)
    states[:, :2] += signal * np.array([[0, 0], [1, 0], [0, 1]], np.float32)[labels]
    return Readings(states, labels, np.arange(rows))


def test_finds_what_is_linear_and_nothing_else() -> None:
    test = readings(300, 2, signal=6)
    probe = fit_probe(readings(300, 0, signal=6), readings(100, 1, signal=6), test)
    assert (probe.guess == test.labels).mean() > 0.97
    assert probe.train_rows == 300
    noise = readings(300, 5, signal=0)
    assert (fit_probe(readings(300, 3, signal=0), readings(100, 4, signal=0), noise).guess == noise.labels).mean() < 0.45


def test_sole_emotions_as_the_turns_say() -> None:
    cases = [(), ("joy",), ("neutral",), ("joy", "love"), ("admiration",), ("surprise",), ("surprise", "neutral")]
    bits = np.array([sum(1 << EMOTIONS_AND_NEUTRAL.index(name) for name in names) for names in cases])
    expected = [Turn("user", "x", names).sole_emotion for names in cases]
    assert [EMOTIONS[at] if at >= 0 else None for at in sole_emotions(bits)] == expected


@pytest.mark.parametrize("base", [False, True])
def test_states_are_those_the_heads_read(base: bool, tiny: Tiny, sources: list) -> None:
    perturb(tiny.model)
    tiny.model.eval()
    for head, place in (("emotion", GOEMOTIONS), ("strategy", ESCONV)):
        draws = [Draw(place, at) for at in range(4)]
        expected, labels = [], []
        with torch.no_grad():
            for draw in draws:
                one = sources[draw.source][draw.conversation]
                known = sole_emotions(one.emotion[:, 1].astype(np.int64)) if head == "emotion" else one.strategy[:, 1]
                at = (one.emotion if head == "emotion" else one.strategy)[:, 0][known >= 0]
                if base:
                    with tiny.model.backbone.reference():
                        states = states_alone(tiny.model, torch.from_numpy(one.tokens.astype(np.int64)))
                else:
                    states = states_alone(tiny.model, torch.from_numpy(one.tokens.astype(np.int64)))
                states = states / (states.square().mean(dim=1, keepdim=True) + 1e-6).sqrt()
                expected.append(states[torch.from_numpy(at.astype(np.int64))])
                labels += known[known >= 0].tolist()
        if base:
            with tiny.model.backbone.reference():
                found = read_states(tiny.model, sources, draws, head, CPU, 512)
        else:
            found = read_states(tiny.model, sources, draws, head, CPU, 512)
        assert len(labels) > 1
        assert found.labels.tolist() == labels
        torch.testing.assert_close(torch.from_numpy(found.states), torch.cat(expected), rtol=0, atol=1e-5)


def test_draws_are_capped_and_always_the_same(sources: list) -> None:
    draws = some_draws(sources, "emotion", 50)
    assert draws == some_draws(sources, "emotion", 50)
    rows = sum(int((sole_emotions(sources[d.source][d.conversation].emotion[:, 1].astype(np.int64)) >= 0).sum()) for d in draws)
    assert rows == 50
    assert {draw.source for draw in draws} == {GOEMOTIONS}
    everything = some_draws(sources, "strategy", 10**6)
    assert len(everything) == len(sources[ESCONV])
