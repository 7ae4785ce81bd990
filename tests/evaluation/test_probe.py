"""The states that a linear probe reads."""

import numpy as np
import pytest
import torch
from warmline.evaluation.probe import read_states, sole_emotions, some_draws

from tests.reference.objectives import states_alone
from tests.tools import CPU, ESCONV, GOEMOTIONS, Tiny, perturb
from warmline.conversation import Turn
from warmline.data.mixture import Draw
from warmline.tasks.emotion import EMOTIONS, EMOTIONS_AND_NEUTRAL


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
