"""The learning rate's shape."""

import math
from itertools import pairwise

import pytest

from warmline.settings import TrainingConfig
from warmline.training.optimizer import rate_factor


def factors(steps: int, warmup: float, final_rate: float = 0.0) -> list[float]:
    return [rate_factor(step, steps, TrainingConfig(warmup=warmup, final_rate=final_rate)) for step in range(steps)]


def test_warms_up_by_optimiser_step_then_falls() -> None:
    found = factors(100, 0.1, 0.2)
    assert found[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert all(after < before for before, after in pairwise(found[9:]))
    assert found[-1] == pytest.approx(0.2)
    assert min(found[9:]) == found[-1]


def test_cosine_in_the_middle() -> None:
    found = factors(100, 0.0, 0.1)
    assert found[49] == pytest.approx(0.1 + 0.9 / 2)
    assert found[24] == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2)


@pytest.mark.parametrize("final_rate", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("warmup", [0.0, 0.03, 0.5])
@pytest.mark.parametrize("steps", [2, 7, 100])
def test_ends_at_the_final_rate(steps: int, warmup: float, final_rate: float) -> None:
    assert factors(steps, warmup, final_rate)[-1] == pytest.approx(final_rate)


@pytest.mark.parametrize("steps", [2, 7, 33, 100, 1001])
def test_peak_is_reached_once_warm(steps: int) -> None:
    found = factors(steps, 0.03)
    warm = math.ceil(0.03 * steps)
    assert found[warm - 1] == 1.0
    assert max(found) == 1.0


def test_nothing_moves_backwards_after_the_end() -> None:
    assert rate_factor(150, 100, TrainingConfig(final_rate=0.3)) == pytest.approx(0.3)


def test_all_warm_up() -> None:
    assert factors(4, 1.0) == [0.25, 0.5, 0.75, 1.0]
