"""Drawing a token: transformers' own arithmetic, from one's own random numbers."""

import pytest
import torch
from torch import Tensor

from warmline.model.backbone import Sampling
from warmline.model.generation import draw_token, warpers

LOGITS = torch.randn(50, generator=torch.Generator().manual_seed(3)) * 3


def shares(sampling: Sampling, draws: int = 4000) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    warp = warpers(sampling)
    return torch.bincount(torch.tensor([draw_token(LOGITS, warp, generator) for _ in range(draws)]), minlength=50) / draws


def kept(sampling: Sampling) -> Tensor:
    """Probabilities by the definitions: temperature, then the nucleus, then the share of the likeliest."""
    probabilities = (LOGITS / sampling.temperature).softmax(0)
    order = probabilities.argsort(descending=True)
    before = probabilities[order].cumsum(0) - probabilities[order]
    probabilities[order[before >= sampling.top_p]] = 0
    probabilities /= probabilities.sum()
    probabilities[probabilities < sampling.min_p * probabilities.max()] = 0
    return probabilities / probabilities.sum()


@pytest.mark.parametrize("settings", [(0.7, 1.0, 0.0), (1.0, 0.8, 0.0), (1.5, 1.0, 0.2), (1.2, 0.9, 0.1)])
def test_draws_follow_the_definitions(settings: tuple[float, float, float]) -> None:
    sampling = Sampling(1, *settings)
    expected, found = kept(sampling), shares(sampling)
    assert torch.equal(found > 0, found * (expected > 0) > 0)  # nothing is drawn that was left out
    torch.testing.assert_close(found, expected, atol=0.03, rtol=0)


def test_no_temperature_takes_the_likeliest() -> None:
    assert draw_token(LOGITS, warpers(Sampling(1, 0)), None) == int(LOGITS.argmax())


def test_a_generator_of_ones_own_leaves_torchs_alone() -> None:
    before = torch.get_rng_state()
    first, again = (draw_token(LOGITS, warpers(Sampling(1, 1.0)), torch.Generator().manual_seed(5)) for _ in range(2))
    assert first == again
    assert torch.equal(before, torch.get_rng_state())
